//! Places that are held open: a program that is given such a place gets there whatever becomes of the names on the way.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_bind_recursive, move_mount, open_tree, unmount,
};

use super::walk::{Last, Place, by_descriptor};
use super::{Actuator, Probe, failed};
use crate::failure::{Context, Failure};

/// What stands at a path, held open. A path through it is good for as long as this lives.
#[derive(Debug)]
pub struct Held {
    fd: OwnedFd,
    path: PathBuf,
}

impl Held {
    /// A path that leads there from any process of this host. Programs must not resolve it, or they walk the names again.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd())
    }

    /// The number of the mount that it lies in, as `/proc/self/mountinfo` has it.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn mount_id(&self) -> Result<u32, Failure> {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", self.fd.as_raw_fd()));
        let info = info.with_context(|| format!("cannot look at {}", self.path.display()))?;
        let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
        id.ok_or_else(|| Failure::new(format!("the kernel does not say which mount {} lies in", self.path.display())))
    }
}

impl Probe {
    /// Holds what stands at a path open, links followed where they may be; `None` when nothing does.
    ///
    /// # Errors
    /// The way there leads through a link that others could have made.
    pub fn hold(&self, path: impl AsRef<Path>) -> Result<Option<Held>, Failure> {
        self.held(path.as_ref(), Last::Follow)
    }

    /// As [`Probe::hold`], with a link at the end held itself.
    ///
    /// # Errors
    /// As [`Probe::hold`].
    pub fn hold_name(&self, path: impl AsRef<Path>) -> Result<Option<Held>, Failure> {
        self.held(path.as_ref(), Last::Keep)
    }

    fn held(&self, path: &Path, last: Last) -> Result<Option<Held>, Failure> {
        let Some(place) = self.place(path, last)? else { return Ok(None) };
        Ok(place.open()?.map(|fd| Held { fd, path: path.to_owned() }))
    }

    /// Whether nobody but root (or fanli's own user) can put something else under a path, or on the way to it.
    ///
    /// # Errors
    /// As [`Probe::hold`].
    pub fn is_guarded(&self, path: impl AsRef<Path>) -> Result<bool, Failure> {
        Ok(self.place(path.as_ref(), Last::Keep)?.is_none_or(|place| place.guarded()))
    }
}

impl Actuator {
    /// Takes what is mounted on a place that only fanli can reach, and mounts it on the one that is held open instead, with all
    /// that is mounted below it.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn shift_mount(&self, from: &Path, to: &Held) -> Result<(), Failure> {
        let refused = |errno| failed("mount on", &to.path, errno);
        let copy = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        match open_tree(CWD, from, copy) {
            Ok(copy) => {
                // Nothing is left behind by a kill from here on: the copy has no name.
                unmount(from, UnmountFlags::DETACH).map_err(refused)?;
                let by_descriptors = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
                move_mount(&copy, "", &to.fd, "", by_descriptors).map_err(refused)
            }
            // Kernels before 5.2.
            Err(Errno::NOSYS) => {
                let mounted = mount_bind_recursive(from, by_descriptor(&to.fd)).map_err(refused);
                unmount(from, UnmountFlags::DETACH).map_err(refused)?;
                mounted
            }
            Err(errno) => Err(refused(errno)),
        }
    }

    /// Unmounts what is mounted on that very name; a link under it is not followed. `lazily`: also while it is in use.
    ///
    /// # Errors
    /// It is in use, or the kernel does not come back within `limit`.
    pub async fn unmount_name(&self, path: &str, lazily: bool, limit: (&str, Duration)) -> Result<(), Failure> {
        let gone = || Failure::new(format!("{path} does not exist"));
        let place = self.place(Path::new(path), Last::Keep)?.map(Place::named).transpose()?.ok_or_else(gone)?;
        let flags = if lazily { UnmountFlags::NOFOLLOW | UnmountFlags::DETACH } else { UnmountFlags::NOFOLLOW };
        let call = tokio::task::spawn_blocking(move || unmount(by_descriptor(&place.dir).join(&place.name), flags));
        match tokio::time::timeout(limit.1, call).await {
            Ok(done) => done.context("a thread broke")?.map_err(|errno| failed("unmount", Path::new(path), errno)),
            Err(_) => Err(Failure::timeout(limit.0, limit.1).within(format!("cannot unmount {path}"))),
        }
    }
}
