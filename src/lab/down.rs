//! `lab down`: removes everything and reports everything that could not be removed, rather than stopping at the first.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use super::layout::{Host, Lab};
use super::tools::{together, wait_until};
use super::{process, say, switch};
use crate::failure::{Context, Failure};

/// How long processes may take to die after they were killed.
const DEATH: Duration = Duration::from_secs(20);
/// How long dockerd may take to end by itself, when its files are kept.
const GOODBYE: Duration = Duration::from_secs(15);

/// Removes the lab of that name; one that is not there is no error.
///
/// # Errors
/// Everything that could not be removed.
pub(super) fn down(name: &str, keep: bool, out: &mut (dyn Write + Send)) -> Result<(), Failure> {
    let Some(lab) = Lab::find(name)? else {
        say(out, &format!("there is no lab `{name}`"));
        return Ok(());
    };
    let _lock = lock(name)?;
    let mut failures = Vec::new();
    let hosts = lab.hosts();
    let removed: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = hosts.iter().map(|host| scope.spawn(move || remove_host(host, keep))).collect();
        running.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    for (host, removed) in hosts.iter().zip(removed) {
        match removed {
            Ok(Ok(())) => say(out, &format!("{:<12} removed", host.name)),
            Ok(Err(failure)) => failures.push(failure),
            Err(_) => failures.push(Failure::new(format!("{} was not removed", host.name))),
        }
    }
    failures.extend(switch::down(&lab));
    if !keep && lab.dir.exists() && failures.is_empty() {
        failures
            .extend(fs::remove_dir_all(&lab.dir).with_context(|| format!("cannot remove {}", lab.dir.display())).err());
        if let Some(parent) = lab.dir.parent() {
            // Only when it is empty.
            let _ = fs::remove_dir(parent);
        }
    }
    together(failures)
        .and_then(|()| give_back(&lab))
        .map_err(|failure| failure.hint(format!("run it again: fanli lab down --name {name}")))?;
    say(out, &format!("lab `{name}` is gone"));
    Ok(())
}

/// Takes back what the lab changed of the machine, or leaves that to another lab which still needs it, and forgets the lab.
///
/// # Errors
/// When the machine's switch for passing packets on cannot be turned back, or another lab's file cannot be read or written.
fn give_back(lab: &Lab) -> Result<(), Failure> {
    let _lock = lock_machine()?;
    if let Some(mut other) = Lab::another(&lab.name)? {
        other.forwarding |= lab.forwarding;
        other.made.extend(lab.made.iter().cloned());
        other.remember()?;
    } else {
        if lab.forwarding && !Path::new("/sys/class/net/docker0").exists() {
            fs::write(switch::FORWARD, "0").with_context(|| format!("cannot write {}", switch::FORWARD))?;
        }
        for place in lab.made.iter().rev() {
            // Only when it is empty.
            let _ = fs::remove_dir(place);
        }
    }
    Lab::forget(&lab.name);
    Ok(())
}

/// Removes one host: its processes, its cable, its control groups, and its files unless they are kept.
///
/// # Errors
/// Everything that could not be removed.
pub(super) fn remove_host(host: &Host, keep: bool) -> Result<(), Failure> {
    if keep {
        say_goodbye(host);
    }
    // The first process takes everything in its pid namespace with it, containers too.
    process::first(host).into_iter().for_each(process::kill);
    process::of_host(host).into_iter().for_each(process::kill);
    wait_until("lab.death", DEATH, || {
        let left = process::of_host(host);
        left.iter().copied().for_each(process::kill);
        left.into_iter().all(|pid| !process::alive(pid))
    })
    .map_err(|failure| failure.within(format!("processes of {} do not die", host.name)))?;
    let mut failures = switch::uncable(host);
    remove_cgroups(host);
    if !keep && host.dir.exists() {
        failures.extend(
            fs::remove_dir_all(&host.dir).with_context(|| format!("cannot remove {}", host.dir.display())).err(),
        );
    }
    together(failures)
}

/// Lets dockerd end by itself, so that what is kept is whole.
fn say_goodbye(host: &Host) {
    let Some(first) = process::first(host) else { return };
    let pid_file = format!("/proc/{first}/root/run/docker.pid");
    let inner = fs::read_to_string(pid_file).ok().and_then(|text| text.trim().parse::<u32>().ok());
    let Some(inner) = inner else { return };
    let number = format!("\t{inner}");
    let dockerd = process::of_host(host).into_iter().find(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with(&number))
    });
    if let Some(pid) = dockerd {
        process::terminate(pid);
        let _ = wait_until("lab.goodbye", GOODBYE, || !process::alive(pid));
    }
}

/// Removes the control groups that the host's containers leave behind when they are killed. They are empty by now; one that
/// is not cannot be removed, and no harm is done.
fn remove_cgroups(host: &Host) {
    let controllers = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    for root in controllers.chain([Path::new("/sys/fs/cgroup").to_path_buf()]) {
        remove_tree(&root.join(host.cgroup()));
        if let Some(labs) = root.join(host.cgroup()).parent() {
            let _ = fs::remove_dir(labs);
        }
    }
}

/// Removes folders from the innermost outward; the kernel's files in them cannot be removed and go with them.
fn remove_tree(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
}

/// Keeps labs from changing the machine at the same time: its switch for passing packets on, and what is written down of other
/// labs. Waits for a lab that does; it takes milliseconds. The folder itself is locked, so that no file is left behind.
///
/// # Errors
/// When the folder cannot be opened or locked.
pub(super) fn lock_machine() -> Result<fs::File, Failure> {
    let folder = fs::File::open("/run").context("cannot open /run")?;
    rustix::fs::flock(&folder, rustix::fs::FlockOperation::LockExclusive).context("cannot lock /run")?;
    Ok(folder)
}

/// Keeps two commands from working on one lab. The lock dies with its holder.
///
/// # Errors
/// When another command holds it.
pub(super) fn lock(name: &str) -> Result<fs::File, Failure> {
    let path = Lab::lock(name);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let file = fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| Failure::new(format!("another command works on lab `{name}`")).hint("wait until it is done"))?;
    Ok(file)
}
