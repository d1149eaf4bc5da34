//! Files of a running container, reached from the host without ever being led out of it.
//!
//! Whoever is root in a container decides what its links say. So its paths are resolved by the kernel inside its root
//! (`RESOLVE_IN_ROOT`, openat2(2)): a link to `/etc/shadow` is the container's own.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};
use rustix::io::Errno;

use super::Probe;
use super::docker::{Container, Docker};
use crate::failure::{Context, Failure};
use crate::value::show_size;

/// The root of a running container. Dropped, it is closed: one that stays open keeps the container's mounts.
#[derive(Debug)]
pub struct ContainerRoot {
    dir: OwnedFd,
    /// The container, or how else the place is called in messages.
    name: String,
}

impl Probe {
    /// The root of a running container, once it is certain that it is that one: process numbers are used again.
    ///
    /// # Errors
    /// It does not run, or was restarted meanwhile.
    pub async fn container_root(&self, docker: &Docker, found: &Container) -> Result<ContainerRoot, Failure> {
        let name = &found.name;
        let pid = found.pid.ok_or_else(|| {
            Failure::new(format!("container {name} does not run: it is {}", found.status))
                .hint(format!("start it first, with a `container` task or `docker start {name}`"))
        })?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = open(format!("/proc/{pid}/root"), flags, Mode::empty())
            .with_context(|| format!("cannot open the root of container {name}"))?;
        let again = docker.container(&found.id).await?;
        let same = |again: &Container| again.pid == found.pid && again.started_at == found.started_at;
        if !again.as_ref().is_some_and(same) {
            return Err(Failure::new(format!("container {name} was restarted meanwhile")).hint("run again"));
        }
        Ok(ContainerRoot { dir, name: format!("container {name}") })
    }
}

impl ContainerRoot {
    /// The root that this process itself has: for what runs inside a container.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn own() -> Result<Self, Failure> {
        let dir = open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        Ok(Self { dir: dir.context("cannot open /")?, name: "this container".to_owned() })
    }

    /// As messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Opens what stands at a path of the container; `None` when nothing does. Its links are followed, inside the container.
    pub(super) fn open(&self, path: &Path, flags: OFlags) -> Result<Option<OwnedFd>, Failure> {
        let inside = path.strip_prefix("/").unwrap_or(path);
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        match openat2(self.dir.as_fd(), inside, flags | OFlags::CLOEXEC, Mode::empty(), how) {
            Ok(file) => Ok(Some(file)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(Errno::NOSYS) => Err(Failure::new(format!("cannot open {} of {}", path.display(), self.name))
                .because("this kernel has no openat2: it is older than 5.6")),
            Err(errno) => Err(errno).with_context(|| format!("cannot open {} of {}", path.display(), self.name)),
        }
    }

    /// The bytes of a regular file of the container; `None` when there is none. Never waits.
    ///
    /// # Errors
    /// It is something else than a file, or longer than `limit`.
    pub fn read(&self, path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Failure> {
        let shown = || format!("{} of {}", path.display(), self.name);
        // What it is is asked first: opening a device can already do something.
        let Some(place) = self.open(path, OFlags::PATH)? else { return Ok(None) };
        let seen = fstat(&place).with_context(|| format!("cannot look at {}", shown()))?;
        if FileType::from_raw_mode(seen.st_mode) != FileType::RegularFile {
            return Err(Failure::new(format!("{} is not a file", shown())));
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(CWD, by_number(&place), flags, Mode::empty())
            .with_context(|| format!("cannot open {}", shown()))?;
        let mut bytes = Vec::new();
        let read = File::from(file).take(limit + 1).read_to_end(&mut bytes);
        read.with_context(|| format!("cannot read {}", shown()))?;
        if bytes.len() as u64 > limit {
            return Err(Failure::new(format!("{} is larger than {}", shown(), show_size(limit))));
        }
        Ok(Some(bytes))
    }
}

/// The path that leads to an open file, and to nothing else.
pub(super) fn by_number(file: &OwnedFd) -> String {
    use std::os::fd::AsRawFd as _;
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_do_not_lead_out() {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("root");
        std::fs::create_dir_all(root.join("run")).unwrap();
        std::fs::write(outside.path().join("secret"), "outside").unwrap();
        std::fs::write(root.join("secret"), "inside").unwrap();
        symlink("../../secret", root.join("run/up")).unwrap();
        symlink(outside.path().join("secret"), root.join("run/absolute")).unwrap();
        symlink("/secret", root.join("run/own")).unwrap();
        symlink("/run", root.join("var")).unwrap();
        rustix::fs::mkfifoat(CWD, root.join("pipe"), Mode::RUSR).unwrap();
        let dir = open(&root, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let inside = ContainerRoot { dir, name: "container c".to_owned() };
        let read =
            |path: &str| inside.read(Path::new(path), 100).map(|bytes| bytes.map(|b| String::from_utf8(b).unwrap()));
        assert_eq!(read("/run/up").unwrap().as_deref(), Some("inside"));
        assert_eq!(read("/run/own").unwrap().as_deref(), Some("inside"));
        assert_eq!(read("/var/own").unwrap().as_deref(), Some("inside"));
        assert_eq!(read("/run/absolute").unwrap(), None);
        assert_eq!(read("/secret/x").unwrap(), None);
        assert_eq!(read("/pipe").unwrap_err().message, "/pipe of container c is not a file");
        assert_eq!(
            inside.read(Path::new("/secret"), 3).unwrap_err().message,
            "/secret of container c is larger than 3B"
        );
    }
}
