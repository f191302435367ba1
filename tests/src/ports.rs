//! Free loopback ports for a cluster: a range of three hundreds that no other test of this machine holds.

use std::fs::File;
use std::net::{TcpListener, UdpSocket};

use anyhow::{Result, bail};

/// Below the ports that Linux gives to outgoing connections (32768 and up).
const FIRST: u16 = 10_000;
const LAST: u16 = 32_000;
/// Ports of one range: three datacenters of a hundred each.
const WIDTH: u16 = 300;

/// A held range; dropping it frees it.
pub struct PortRange {
    base: u16,
    _lock: File,
}

impl PortRange {
    /// # Errors
    /// When every range is held or in use.
    pub fn take() -> Result<Self> {
        let directory = std::env::temp_dir().join("meridian-test-ports");
        std::fs::create_dir_all(&directory)?;
        for base in (FIRST..LAST).step_by(usize::from(WIDTH)) {
            let lock = File::create(directory.join(base.to_string()))?;
            // Locked by the kernel and so freed with its process, however that ends.
            if lock.try_lock().is_ok() && is_free(base) {
                return Ok(Self { base, _lock: lock });
            }
        }
        bail!("no free range of {WIDTH} ports between {FIRST} and {LAST}")
    }

    pub fn base(&self) -> u16 {
        self.base
    }
}

fn is_free(base: u16) -> bool {
    (0..3)
        .flat_map(|dc| (0..5).map(move |port| base + 100 * dc + port))
        .all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok())
}
