//! The first process of a host: mounts the host's own files over the machine's, then buries whoever dies.
//!
//! `up` starts it in fresh mount, pid, uts and ipc namespaces, inside the host's network namespace.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use super::layout::{OVERLAID, PRIVATE};
use super::tools::tool;
use crate::failure::{Context, Failure};

/// What it says on standard output when the host is ready for its daemons.
pub(super) const READY: &str = "ready";

/// Sets the host up and then lives until it is killed; everything in the host dies with it.
///
/// # Errors
/// When it is not the first process of a pid namespace, or a mount fails.
pub(super) fn first_process(name: &str, dir: &Path) -> Result<(), Failure> {
    if std::process::id() != 1 {
        return Err(Failure::new("this is only for the first process of a lab's host").hint("use: fanli lab up 3"));
    }
    // Read now: the host's own /run will stand before it.
    let resolvers = fs::read_to_string("/run/systemd/resolve/resolv.conf").ok();
    mount_all(dir)?;
    name_it(name, resolvers)?;
    println!("{READY}");
    std::io::stdout().flush().context("cannot answer")?;
    bury()
}

fn mount_all(dir: &Path) -> Result<(), Failure> {
    let text = |path: &Path| path.display().to_string();
    tool("mount", &["--make-rprivate", "/"])?;
    for place in OVERLAID.into_iter().filter(|place| Path::new(place).is_dir()) {
        let own = dir.join("overlay").join(place.trim_start_matches('/').replace('/', "-"));
        let (upper, work) = (own.join("upper"), own.join("work"));
        for folder in [&upper, &work] {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let options = format!("lowerdir={place},upperdir={},workdir={}", text(&upper), text(&work));
        tool("mount", &["-t", "overlay", "overlay", "-o", &options, place])?;
    }
    // A new /sys, so that it shows the host's interfaces; the control groups move over, or dockerd finds none.
    let groups = dir.join("cgroup");
    fs::create_dir_all(&groups).with_context(|| format!("cannot make {}", groups.display()))?;
    tool("mount", &["--rbind", "/sys/fs/cgroup", &text(&groups)])?;
    tool("mount", &["-t", "sysfs", "sysfs", "/sys"])?;
    tool("mount", &["--move", &text(&groups), "/sys/fs/cgroup"])?;
    tool("mount", &["-t", "proc", "proc", "/proc"])?;
    for place in PRIVATE {
        let own = dir.join(place.trim_start_matches('/').replace('/', "-"));
        if place == "/run" {
            // Pid files and sockets of a life before this one would only confuse.
            let _ = fs::remove_dir_all(&own);
            fs::create_dir_all(own.join("sshd")).with_context(|| format!("cannot make {}", own.display()))?;
            fs::create_dir_all(own.join("lock")).with_context(|| format!("cannot make {}", own.display()))?;
            for file in ["host_key", "authorized_keys", "sshd_config"] {
                let to = own.join("sshd").join(file);
                fs::copy(dir.join("ssh").join(file), &to).with_context(|| format!("cannot write {}", to.display()))?;
            }
        }
        fs::create_dir_all(&own).with_context(|| format!("cannot make {}", own.display()))?;
        if let Some((_, mode)) = [("/tmp", "1777"), ("/root", "0700")].into_iter().find(|(name, _)| *name == place) {
            tool("chmod", &[mode, &text(&own)])?;
        }
        tool("mount", &["--bind", &text(&own), place])?;
    }
    Ok(())
}

fn name_it(name: &str, resolvers: Option<String>) -> Result<(), Failure> {
    let hosts = format!("127.0.0.1 localhost\n127.0.1.1 {name}\n::1 localhost ip6-localhost ip6-loopback\n");
    let docker =
        format!(r#"{{ "cgroup-parent": "/fanli-lab/{name}", "exec-opts": ["native.cgroupdriver=cgroupfs"] }}"#);
    fs::create_dir_all("/etc/docker").context("cannot make /etc/docker")?;
    let mut files = vec![
        ("/proc/sys/kernel/hostname", name.to_owned()),
        ("/etc/hostname", format!("{name}\n")),
        ("/etc/hosts", hosts),
        ("/etc/docker/daemon.json", docker + "\n"),
    ];
    // The fstab of this machine is not the host's; its own one lives as long as the host's files do.
    if !Path::new("/etc/fanli-lab-host").exists() {
        files.push(("/etc/fstab", "# The file systems of a lab's host.\n".to_owned()));
        files.push(("/etc/fanli-lab-host", format!("{name}\n")));
    }
    for (path, content) in files {
        fs::write(path, content).with_context(|| format!("cannot write {path}"))?;
    }
    // A resolver on the machine's own loopback cannot be reached from here: use the ones behind it.
    let resolv = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let loopback = resolv.lines().any(|line| line.trim_start().starts_with("nameserver 127."));
    if let Some(behind) = resolvers.filter(|_| loopback) {
        let _ = fs::remove_file("/etc/resolv.conf");
        fs::write("/etc/resolv.conf", behind).context("cannot write /etc/resolv.conf")?;
    }
    Ok(())
}

/// Waits for children for ever: orphans of the whole host become ours.
fn bury() -> Result<(), Failure> {
    loop {
        match rustix::process::wait(rustix::process::WaitOptions::empty()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CHILD) => std::thread::sleep(Duration::from_millis(200)),
            Err(error) => return Err(error).context("cannot wait for children"),
        }
    }
}
