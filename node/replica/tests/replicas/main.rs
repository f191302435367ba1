//! Replicas of volumes on several nodes: real files, real sockets between them, kills, cuts, wipes and failing disks.

mod appends;
mod cases;
mod cluster;
mod serving;
