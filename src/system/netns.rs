//! Network namespaces of containers: finding the right one, and doing single things inside it.
//!
//! A thread that has entered a namespace is used for that one thing and ends; no thread of the runtime ever goes there, since
//! everything else that it runs later would happen in the container. Nothing here outlives its operation: a descriptor
//! that is kept open keeps a dead container's namespace alive, and its address answering (research: pipework#233).

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::docker::{Container, Docker};
use super::{Actuator, Probe};
use crate::failure::{Context, Failure};

/// An open network namespace. Dropped, it is closed.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Namespace {
    /// One that was opened by somebody who knows what it is.
    pub(super) fn of(file: File) -> Self {
        Self { file }
    }

    /// Does one thing inside the namespace, on a thread of its own.
    pub(super) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Failure> {
        let enter = || {
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
                .context("cannot enter the container's network namespace")?;
            Ok(work())
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("in a namespace".to_owned()).spawn_scoped(scope, enter);
            let ended = thread.context("cannot start a thread")?.join();
            ended.unwrap_or_else(|_| Err(Failure::new("the thread in the container's namespace panicked")))
        })
    }
}

/// Does one thing inside a namespace, or in the host's own where there is none.
pub(super) fn within<T: Send>(inside: Option<&Namespace>, work: impl FnOnce() -> T + Send) -> Result<T, Failure> {
    match inside {
        Some(namespace) => namespace.within(work),
        None => Ok(work()),
    }
}

impl Probe {
    /// The network namespace of a running container, once it is certain that it is that and nothing else: process numbers are
    /// used again (pipework#204), and a container may share the host's namespace or another's.
    pub async fn namespace(&self, docker: &Docker, found: &Container) -> Result<Namespace, Failure> {
        if found.network_mode != "none" {
            return Err(Failure::new(format!("container {} has network mode `{}`", found.name, found.network_mode))
                .hint("declare the container with `network = none`: what is attached is then all that it has"));
        }
        self.namespace_to_look(docker, found).await
    }

    /// As [`Probe::namespace`], of a container of any network mode that has a namespace of its own.
    pub async fn namespace_to_look(&self, docker: &Docker, found: &Container) -> Result<Namespace, Failure> {
        docker.namespace(found).await
    }
}

impl Docker {
    /// See [`Probe::namespace_to_look`].
    pub(super) async fn namespace(&self, found: &Container) -> Result<Namespace, Failure> {
        let name = &found.name;
        let gone = || Failure::new(format!("container {name} is not running"));
        let pid = found.pid.ok_or_else(gone)?;
        let file = File::open(format!("/proc/{pid}/ns/net"))
            .with_context(|| format!("cannot open the network namespace of container {name}"))?;
        let seen = file.metadata().context("cannot look at a network namespace")?;
        let own = std::fs::metadata("/proc/self/ns/net").context("cannot look at the host's network namespace")?;
        if (seen.dev(), seen.ino()) == (own.dev(), own.ino()) {
            return Err(Failure::new(format!("container {name} is in the host's own network namespace")));
        }
        // The daemon's name for it may lie in a mount namespace of the daemon's own, and a stale one is a plain file.
        if let Ok(sandbox) = std::fs::metadata(Path::new(&found.sandbox))
            && sandbox.dev() == seen.dev()
            && sandbox.ino() != seen.ino()
        {
            return Err(Failure::new(format!("process {pid} is not in the network namespace of container {name}"))
                .hint("run again: the container was probably just restarted"));
        }
        // Its control group names the container (a host's own process reads it in full): then this process is still that one,
        // and the daemon need not be asked a second time. A number that was used again lies in another group.
        let group = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        if group.lines().any(|line| line.contains(&found.id)) {
            return Ok(Namespace { file });
        }
        let again = self.container(&found.id).await?;
        let same = |again: &Container| again.pid == found.pid && again.started_at == found.started_at;
        if !again.as_ref().is_some_and(same) {
            return Err(Failure::new(format!("container {name} was restarted meanwhile")).hint("run again"));
        }
        Ok(Namespace { file })
    }
}

impl Actuator {
    /// Sets switches of an interface below `/proc/sys/net`, in the namespace or in the host's: `ipv4/arp_filter` to `1`. A kernel
    /// that lacks one is fine.
    pub fn interface_switches(
        &self,
        inside: Option<&Namespace>,
        link: &str,
        switches: &[(&str, &str)],
    ) -> Result<(), Failure> {
        let write = |(switch, value): &(&str, &str)| {
            let (family, name) = switch.split_once('/').unwrap_or(("ipv4", switch));
            let path = format!("/proc/sys/net/{family}/conf/{link}/{name}");
            match std::fs::write(&path, value) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                other => other.with_context(|| format!("cannot write {path}")),
            }
        };
        // Which namespace's file this is depends on the thread that opens it.
        let work = || switches.iter().try_for_each(write);
        within(inside, work)?
    }
}

impl Probe {
    /// A switch of one of the host's interfaces below `/proc/sys/net/ipv4/conf`.
    pub fn host_switch(&self, link: &str, switch: &str) -> Option<String> {
        let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{link}/{switch}")).ok()?;
        Some(text.trim().to_owned())
    }
}
