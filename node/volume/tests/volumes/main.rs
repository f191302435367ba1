//! Volumes through their public interface: on real files, on disks with faults, and through power cuts.

mod append;
mod close;
mod crash;
mod damage;
mod faults;
mod mirrors;
mod seal;
mod setup;
