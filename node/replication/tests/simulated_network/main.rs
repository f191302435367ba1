//! The shells' calls between datacenters over a simulated network in virtual time: the shipped services, channels, bulk
//! port and lanes, with their TLS, deadlines and keep-alives (docs/adr/0095).
//!
//! What goes wrong is the network's doing alone; disks are real, and in a temporary folder.

mod boots;
mod datacenter;
mod lanes;
mod network;
mod plan;
