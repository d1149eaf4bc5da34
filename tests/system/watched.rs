//! A docker host with a watcher, whose daemon can be killed and started again.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::docker_hosts::{Host, Hosts};
use crate::drive::Task;
use crate::plugs::{self, with};

/// How long anything may take that is waited for here.
const PATIENCE: Duration = Duration::from_secs(60);

/// A container with a web server that says `one`; its daemon starts it again.
pub fn web(name: &str) -> Task {
    with(&plugs::web(name), &[("restart", "always".into())])
}

/// Waits until it holds.
#[track_caller]
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    begun.elapsed()
}

/// `fanli watch` in a host. Ends with this value.
pub struct Watcher {
    pub child: Child,
    log: tempfile::NamedTempFile,
}

impl Watcher {
    pub fn start(host: &Host, more: &[&str]) -> Self {
        Self::start_behind(&[], host, more)
    }

    /// The same, with another program in front, such as strace.
    pub fn start_behind(wrap: &[&str], host: &Host, more: &[&str]) -> Self {
        let log = tempfile::NamedTempFile::new_in("/tmp").unwrap();
        let (out, err) = (log.reopen().unwrap(), File::options().append(true).open(log.path()).unwrap());
        let child = enter(host)
            .args(wrap)
            .arg(crate::common::fanli())
            .arg("watch")
            .args(if more.contains(&"--every") { &[][..] } else { &["--every", "5s"] })
            .args(more)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap();
        Self { child, log }
    }

    pub fn said(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }

    /// Waits until a line of the log holds the text.
    #[track_caller]
    pub fn says(&self, text: &str) {
        let begun = Instant::now();
        while !self.said().contains(text) {
            assert!(begun.elapsed() < PATIENCE, "it does not say `{text}`: {}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGTERM, and what it ends with.
    pub fn stop(mut self) -> (Option<i32>, String) {
        Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        let child = &mut self.child;
        wait_for("the watcher ends", || child.try_wait().unwrap().is_some());
        (child.wait().unwrap().code(), self.said())
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the watcher said:\n{}", self.said());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn enter(host: &Host) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["-t", &host.pid.to_string(), "-m", "-n", "-u", "--"]);
    command
}

/// One host whose namespaces live longer than its daemon.
pub struct Watched {
    // Dropped in this order: the later daemon before the hosts, which wait for the first one.
    daemon: Later,
    pub hosts: Hosts,
    holder: Holder,
    first: u32,
}

pub struct Frozen(u32);

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-CONT", &self.0.to_string()]).status();
    }
}

struct Later(Option<Child>);

impl Drop for Later {
    fn drop(&mut self) {
        let Some(child) = &mut self.0 else { return };
        let _ = Command::new("kill").arg(child.id().to_string()).status();
        let begun = Instant::now();
        while child.try_wait().is_ok_and(|ended| ended.is_none()) {
            if begun.elapsed() > Duration::from_secs(20) {
                let _ = child.kill();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Watched {
    pub fn start(tag: &str) -> Self {
        let mut hosts = Hosts::start(tag, 1);
        let host = &mut hosts.hosts[0];
        let holder = Holder(enter(host).args(["sleep", "1200"]).spawn().unwrap());
        let first = host.pid;
        // It must be there before the daemon may go.
        let place = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        wait_for("the holder is inside", || place(holder.0.id()) == place(first));
        host.pid = holder.0.id();
        Self { daemon: Later(None), hosts, holder, first }
    }

    pub fn host(&self) -> &Host {
        &self.hosts.hosts[0]
    }

    fn daemon_pid(&self) -> u32 {
        self.daemon.0.as_ref().map_or(self.first, Child::id)
    }

    /// The daemon does nothing until this is dropped.
    pub fn freeze(&self) -> Frozen {
        let pid = self.daemon_pid();
        Command::new("kill").args(["-STOP", &pid.to_string()]).status().unwrap();
        Frozen(pid)
    }

    /// Sends the daemon a signal and waits until it is gone.
    pub fn end_daemon(&mut self, signal: &str) {
        let pid = self.daemon_pid();
        Command::new("kill").args([signal, &pid.to_string()]).status().unwrap();
        if let Some(child) = &mut self.daemon.0 {
            wait_for("the daemon ends", || child.try_wait().unwrap().is_some());
        } else {
            // Its parent is the one who started it, so it may stay a zombie.
            let ended = || {
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                stat.rsplit(')').next().is_none_or(|rest| rest.trim().is_empty() || rest.trim().starts_with('Z'))
            };
            wait_for("the daemon ends", ended);
        }
        self.daemon.0 = None;
        self.first = 0;
    }

    /// Starts the daemon and waits until it answers.
    pub fn start_daemon(&mut self, more: &[&str]) {
        // Killed ones that nobody buries on this machine would be taken for living daemons.
        self.host().must(
            "for file in /run/dockerd.pid /run/docker/containerd/containerd.pid; do \
               [ -e $file ] || continue; grep -qs 'State:.[^Z]' /proc/$(cat $file)/status || rm -f $file; \
             done",
        );
        let log = self.hosts.shared().join("later.log");
        let log = File::options().create(true).append(true).open(log).unwrap();
        let child = enter(self.host())
            .args(["setsid", "--wait", "dockerd", "--pidfile", "/run/dockerd.pid", "--exec-root", "/run/docker"])
            .args(["--data-root", "/var/lib/docker"])
            .args(more)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.daemon.0 = Some(child);
        let host = self.host();
        let begun = Instant::now();
        while !host.sh("docker info >/dev/null 2>&1").status.success() {
            let log = || std::fs::read_to_string(self.hosts.shared().join("later.log")).unwrap();
            assert!(begun.elapsed() < PATIENCE, "the daemon does not answer: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Everything that runs in the host dies at once, as when the power goes; so does what only memory holds.
    pub fn power_off(&mut self) {
        let mine = self.holder.0.id();
        let place = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        let home = place(mine);
        // Daemons and shims have the host's mounts; the first processes of containers are children of shims.
        for _ in 0..3 {
            let all: Vec<u32> = std::fs::read_dir("/proc")
                .unwrap()
                .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
                .collect();
            let parent = |pid: u32| {
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
                stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()
            };
            let of_host = |pid: u32| pid != mine && place(pid) == home;
            // Found before the first is killed: whose parent is dead has another one.
            let doomed = all.iter().filter(|pid| of_host(**pid) || parent(**pid).is_some_and(of_host));
            let doomed: Vec<String> = doomed.map(ToString::to_string).collect();
            let _ = Command::new("kill").arg("-9").args(&doomed).stderr(Stdio::null()).status();
            std::thread::sleep(Duration::from_millis(100));
        }
        if let Some(child) = &mut self.daemon.0 {
            let _ = child.wait();
        }
        self.daemon.0 = None;
        self.first = 0;
        self.host().must("umount -l /run/docker/netns/* /run/docker/containerd/* 2>/dev/null || :; rm -rf /run/docker* /run/containerd");
    }

    /// Gives the host its network card anew.
    pub fn cable(&self) {
        let host = self.host();
        let switch = format!("{}sw", host.name.rsplit_once('h').unwrap().0);
        let veth = ["type", "veth", "peer", "name", "eth0", "netns", &host.name];
        let made = Command::new("ip").args(["-n", &switch, "link", "add", "fwtc", "master", "br0"]).args(veth).output();
        let made = made.unwrap();
        assert!(made.status.success(), "{made:?}");
        host.must("ip addr add 10.99.0.1/24 dev eth0; ip link set eth0 up; ip route add default via 10.99.0.254");
        assert!(self.hosts.on_switch("ip link set fwtc up").status.success());
    }

    /// Nothing is left for a run to do, now or soon: the neighbours are told before the host's own way is made.
    #[track_caller]
    pub fn settled(&self, task: &Task) {
        let mut look = self.host().drive();
        look.apply = false;
        wait_for("nothing is left to do", || {
            let report = look.one(task);
            report.failure.is_none() && report.change.is_none()
        });
    }

    /// Fetches from another machine on the wire until it answers.
    #[track_caller]
    pub fn reached(&self, address: &str, when: &str) -> Duration {
        let script = format!("timeout 2 busybox wget -qO- http://{address}/");
        let took = wait_for(&format!("{address} answers {when}"), || {
            String::from_utf8_lossy(&self.hosts.on_switch(&script).stdout).trim() == "one"
        });
        println!("{when}: {address} answers after {took:?}");
        took
    }
}
