//! Labs of the tests: each has a name and a network that no other test has at the same time, and is gone when the test ends,
//! however it ends.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::fanli;
use super::keeper::Keeper;

/// How many labs may be leased at the same time.
const LABS: u8 = 16;

/// Takes down what is left of a lab of that name, and promises that the one which the caller brings up goes with the value.
pub fn keep(name: &str) -> Keeper {
    take_down(name);
    Keeper::new(r#"exec "$0" lab down --name "$1""#, [fanli(), name])
}

/// Promises that a lab goes with the session of that folder, which holds the number of the process that it lasts as long as.
pub fn keep_for_session(name: &str, session: &Path) {
    take_down(name);
    let script = r#"while kill -0 "$(cat "$2/pid")"; do sleep 0.3; done 2> /dev/null; exec "$0" lab down --name "$1""#;
    let begun = Command::new("setsid")
        .args(["--fork", "sh", "-c", script, fanli(), name])
        .arg(session)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(begun.unwrap().success());
}

/// Takes a lab down; gives what was said. The keeper of this process, or of one that was killed a moment ago, may be at it
/// already.
pub fn take_down(name: &str) -> String {
    for _ in 0..150 {
        let done = Command::new(fanli()).args(["lab", "down", "--name", name]).output().unwrap();
        if done.status.success() {
            return String::from_utf8_lossy(&done.stdout).into_owned();
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    panic!("the lab `{name}` cannot be taken down");
}

/// Runs a command on a lab's host as root would over SSH, without a connection: tests run thousands of them.
pub fn inside(host: &str, command: &str) -> Output {
    let first = first_process(host).unwrap_or_else(|| panic!("{host} does not run"));
    Command::new("nsenter")
        .args(["--target", &first.to_string(), "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd=/root"])
        .args(["setsid", "--wait", "env", "-i", "HOME=/root", "USER=root", "LOGNAME=root", "SHELL=/bin/bash"])
        .args(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "bash", "-c", command])
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// The process that is the first of a lab's host: it has a second number, which is 1.
fn first_process(host: &str) -> Option<u32> {
    let read = |pid: u32, file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let command = format!("\0host\0--name\0{host}\0");
    let is_first = |pid: &u32| {
        read(*pid, "cmdline").contains(&command)
            && read(*pid, "status").lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1"))
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(is_first)
}

/// A running lab with a folder for a project beside its hosts' files.
pub struct Lab {
    // Dropped in this order: the lab, the folder with its files, the lease of its name.
    _kept: Keeper,
    dir: tempfile::TempDir,
    _lease: File,
    /// How the test's own texts name the lab and its network.
    alias: (&'static str, &'static str),
    name: String,
    net: String,
}

impl Lab {
    /// Leases a name and a network and brings up so many hosts. `alias` is what [`Lab::here`] puts them in the place of: the
    /// lab's name, and the first half of its network.
    pub fn up(alias: (&'static str, &'static str), hosts: u8) -> Self {
        let (number, lease) = lease();
        // Three letters, none of which is part of a word that fanli prints.
        let name = format!("fx{}", char::from(b'a' + number));
        let dir = tempfile::Builder::new().prefix("fanli-test-").tempdir_in("/tmp").unwrap();
        let kept = keep(&name);
        let lab = Self { _kept: kept, dir, _lease: lease, alias, name, net: format!("10.{}", 40 + number) };
        lab.start(hosts);
        lab
    }

    /// Starts the hosts, or what of them does not run.
    pub fn start(&self, hosts: u8) {
        let (hosts, network) = (hosts.to_string(), format!("{}.0.0/16", self.net));
        let done = Command::new(fanli())
            .args(["lab", "up", &hosts, "--name", &self.name, "--network", &network, "--dir"])
            .arg(self.dir.path())
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first half of its network, a /16.
    pub fn net(&self) -> &str {
        &self.net
    }

    pub fn project(&self) -> &Path {
        self.dir.path()
    }

    /// The ssh configuration of its hosts.
    pub fn config(&self) -> String {
        self.dir.path().join(&self.name).join("ssh_config").to_str().unwrap().to_owned()
    }

    /// A text of the test with this lab's name and network in it.
    pub fn here(&self, text: &str) -> String {
        text.replace(self.alias.0, &self.name).replace(&format!("{}.", self.alias.1), &format!("{}.", self.net))
    }

    /// A text from the lab's hosts as the test would write it.
    pub fn there(&self, text: &str) -> String {
        text.replace(&self.name, self.alias.0).replace(&format!("{}.", self.net), &format!("{}.", self.alias.1))
    }

    /// Runs a command on a host.
    pub fn try_on(&self, host: usize, command: &str) -> Output {
        inside(&format!("{}{host}", self.name), &self.here(command))
    }

    /// Whether a host can be reached over SSH.
    pub fn reached(&self, host: usize) -> bool {
        let host = format!("{}{host}", self.name);
        Command::new("ssh").args(["-F", &self.config(), &host, "true"]).output().unwrap().status.success()
    }

    /// Runs a command on a host, which must succeed, and returns what it prints.
    #[track_caller]
    pub fn on(&self, host: usize, command: &str) -> String {
        let done = self.try_on(host, command);
        assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
        self.there(std::str::from_utf8(&done.stdout).unwrap().trim())
    }
}

/// The number of a lab that no other test has, and the lock that keeps it: it ends with the value, and with this process.
fn lease() -> (u8, File) {
    for _ in 0..6000 {
        for number in 0..LABS {
            let lock = File::create(format!("/run/lock/fanli-test-lab-{number}")).unwrap();
            if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
                return (number, lock);
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("no lab is free");
}
