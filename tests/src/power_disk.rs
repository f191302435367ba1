//! A disk whose power can be cut: an XFS file system on a loop device.
//!
//! The cut is the file system's own shutdown without flushing its log: from that moment nothing reaches the device,
//! and what was not synced is gone, names and lengths included. Losses inside a device's own cache are not played.
//!
//! Invariants: unmounted and detached when dropped, also by a panic, if only no process has a file open there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, anyhow};
use tempfile::TempDir;

use crate::cluster::wait_until;
use crate::machine::{Lacking, run};

/// The image is sparse; XFS wants 300 MB at least.
const IMAGE_BYTES: u64 = 2 << 30;
/// The kernel may hold a dead process's files for a moment.
const UNMOUNT_DEADLINE: Duration = Duration::from_secs(20);

/// See the module.
#[derive(Debug)]
pub struct PowerDisk {
    device: String,
    mount_point: PathBuf,
    mounted: bool,
    directory: TempDir,
}

impl PowerDisk {
    /// Makes and mounts an empty disk.
    ///
    /// # Errors
    /// What this machine lacks for it.
    pub fn create() -> Result<Self, Lacking> {
        if !rustix::process::geteuid().is_root() {
            return Err(Lacking("mounting needs root".to_owned()));
        }
        run("xfs_io", &["-V"])?;
        let lacking = |error: std::io::Error| Lacking(error.to_string());
        let directory = tempfile::tempdir().map_err(lacking)?;
        let (image, mount_point) = (directory.path().join("image"), directory.path().join("mount"));
        std::fs::create_dir(&mount_point).map_err(lacking)?;
        std::fs::File::create(&image).and_then(|file| file.set_len(IMAGE_BYTES)).map_err(lacking)?;
        run("mkfs.xfs", &["-q", text(&image)])?;
        let device = run("losetup", &["--find", "--show", text(&image)])?;
        let mut disk = Self { device, mount_point, mounted: false, directory };
        disk.mount()?;
        Ok(disk)
    }

    pub fn path(&self) -> &Path {
        &self.mount_point
    }

    /// A place beside the disk that keeps its power, for logs.
    pub fn outside(&self) -> PathBuf {
        self.directory.path().join("outside")
    }

    fn mount(&mut self) -> Result<(), Lacking> {
        run("mount", &["-t", "xfs", &self.device, text(&self.mount_point)])?;
        self.mounted = true;
        Ok(())
    }

    /// Cuts the power: from here on every write and sync fails.
    pub fn cut(&self) -> Result<()> {
        run("xfs_io", &["-x", "-c", "shutdown", text(&self.mount_point)]).map_err(|error| anyhow!("{error}"))?;
        Ok(())
    }

    /// Power is back: mounts what the device has. The processes that used the disk must have ended.
    pub async fn restore(&mut self) -> Result<()> {
        wait_until("unmounting", UNMOUNT_DEADLINE, async || run("umount", &[text(&self.mount_point)]).is_ok()).await?;
        self.mounted = false;
        self.mount().map_err(|error| anyhow!("{error}"))
    }
}

impl Drop for PowerDisk {
    fn drop(&mut self) {
        let mount_point = text(&self.mount_point);
        let unmounted =
            !self.mounted || run("umount", &[mount_point]).is_ok() || run("umount", &["--lazy", mount_point]).is_ok();
        let detached = run("losetup", &["--detach", &self.device]);
        if !unmounted || detached.is_err() {
            eprintln!("{} at {mount_point} stays behind: {detached:?}", self.device);
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}
