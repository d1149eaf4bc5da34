//! File systems whose server or program is gone for good: how that is seen without waiting for ever, and how they are taken away.

use std::time::Duration;

use crate::failure::Failure;
use crate::system::mounts::{Mount as Found, MountTable};
use crate::system::process::Program;
use crate::system::{Actuator, Probe};

/// How long a file system may take to say that it lives: limit `mount_answer`.
const ANSWER: Duration = Duration::from_secs(15);

/// How long a dead one may take to go: limit `unmount`.
const UNMOUNT: Duration = Duration::from_secs(45);

/// What a program hears of a FUSE file system that is dead, and of one that the kernel serves over a network.
const FUSE_GONE: [&str; 4] = [
    "Transport endpoint is not connected",
    "Software caused connection abort",
    "Stale file handle",
    "Input/output error",
];
const NETWORK_GONE: [&str; 1] = ["Stale file handle"];

fn is_fuse(kind: &str) -> bool {
    kind.starts_with("fuse")
}

fn is_network(kind: &str) -> bool {
    ["nfs", "nfs4", "cifs", "smb3", "ceph"].contains(&kind)
}

/// A path without links on the way to its last name, and whether that was looked at. What is on a network is taken as it stands: asking
/// could take for ever.
pub(super) fn real_path(path: &str, probe: &Probe, table: &MountTable) -> Result<(String, bool), Failure> {
    let far = |path: &str| table.leading_to(path).is_some_and(Found::is_far);
    let Some((parent, name)) = path.rsplit_once('/') else { return Ok((path.to_owned(), false)) };
    if table.on(path).is_some() || parent.is_empty() || far(parent) {
        return Ok((path.to_owned(), false));
    }
    let real = probe.canonical(parent)?.and_then(|parent| parent.to_str().map(|parent| format!("{parent}/{name}")));
    Ok((real.unwrap_or_else(|| path.to_owned()), true))
}

/// What stands on a path and may not answer: a file system of a network, or of a program.
///
/// # Errors
/// The table of mounts cannot be read.
pub(in crate::resource) fn far_mount(path: &str, probe: &Probe) -> Result<Option<Found>, Failure> {
    let table = probe.mounts()?;
    let (path, _) = real_path(path, probe, &table)?;
    Ok(table.on(&path).filter(|mount| mount.is_far()).cloned())
}

/// Why a mounted file system is of no use any more; nothing when it lives. A program asks: whoever does may be stuck for as long as there is
/// no answer.
///
/// # Errors
/// A FUSE file system does not answer within the limit `mount_answer`. The server of another may be back in a while.
pub(in crate::resource) async fn why(probe: &Probe, mount: &Found) -> Result<Option<String>, Failure> {
    let (path, fuse) = (&mount.point, is_fuse(&mount.kind));
    if !fuse && !is_network(&mount.kind) {
        return Ok(None);
    }
    let question = Program::new(["stat", "--file-system", "--format=", "--"]).arg(path);
    let asked = match tokio::time::timeout(ANSWER, probe.ask(&question)).await {
        Ok(asked) => asked?,
        Err(_) if fuse => return Err(silent(path)),
        Err(_) => return Ok(None),
    };
    let said = asked.stderr.text();
    let words: &[&str] = if fuse { &FUSE_GONE } else { &NETWORK_GONE };
    Ok(words.iter().find(|gone| !asked.success() && said.contains(**gone)).map(|gone| gone.to_lowercase()))
}

/// Waits until a file system has told something of itself.
///
/// # Errors
/// It does not within the limit `mount_answer`.
pub(in crate::resource) async fn answers(probe: &Probe, mount: &Found) -> Result<(), Failure> {
    let question = Program::new(["stat", "--format=", "--"]).arg(&mount.point);
    match tokio::time::timeout(ANSWER, probe.ask(&question)).await {
        Ok(asked) => asked.map(|_| ()),
        Err(_) => Err(silent(&mount.point)),
    }
}

fn silent(path: &str) -> Failure {
    Failure::timeout("mount_answer", ANSWER).within(format!("what is mounted on {path} does not answer")).hint(format!(
        "its server may be gone; `umount --lazy {path}` by hand takes it away, and the next run mounts it again"
    ))
}

/// Takes a dead file system away: whoever still holds something of it has lost that anyway.
///
/// # Errors
/// umount(8) fails, or does not end within the limit `unmount`.
pub(in crate::resource) async fn take_away(hands: &Actuator, mount: &Found) -> Result<(), Failure> {
    let program = Program::new(["umount", "--lazy", "--"]).arg(&mount.point);
    let what = format!("cannot unmount {}", mount.point);
    match tokio::time::timeout(UNMOUNT, hands.run(&program)).await {
        Ok(ended) => ended?.expect_success().map(|_| ()).map_err(|failure| failure.within(what)),
        Err(_) => Err(Failure::timeout("unmount", UNMOUNT).within(what)),
    }
}
