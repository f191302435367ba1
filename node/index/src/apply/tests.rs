//! `apply` command by command; several datacenters together are in `convergence_tests`.

mod catalog;
mod local;
mod remote;
mod stable;
mod uploads;
mod users;
mod versions;
