//! `fanli lab`: hosts come up, are apart from each other, are mended after crashes, and go without a trace.

use std::process::Output;

use crate::common::fanli;
use crate::common::keeper::Keeper;
use crate::common::kept_lab::keep;
use crate::tier::run::{must, output};

const NAME: &str = "labtest";

/// A lab of its own, beside any other one; gone when dropped.
struct Lab {
    /// Before the folder: the lab goes first.
    _kept: Keeper,
    dir: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("fanli-labtest").tempdir_in("/tmp").unwrap();
        Self { _kept: keep(NAME), dir }
    }

    fn up(&self, hosts: &str) -> String {
        let dir = self.dir.path().to_str().unwrap();
        must(fanli(), &["lab", "up", hosts, "--name", NAME, "--network", "10.97.0.0/16", "--dir", dir])
    }

    fn on(&self, host: u8, command: &str) -> String {
        let config = self.dir.path().join(NAME).join("ssh_config");
        must("ssh", &["-F", config.to_str().unwrap(), &format!("{NAME}{host}"), command]).trim().to_owned()
    }
}

fn down() -> Output {
    output(fanli(), &["lab", "down", "--name", NAME])
}

fn status() -> Output {
    output(fanli(), &["lab", "status", "--name", NAME])
}

/// What is left of the lab on this machine.
fn traces() -> String {
    let script = format!(
        "ip -o link | grep fl-{NAME} || true; ls /run/netns | grep fl-{NAME} || true; \
         grep -l '{NAME}/' /proc/[0-9]*/mountinfo 2>/dev/null || true; \
         ls -d /sys/fs/cgroup/*/fanli-lab/{NAME}* 2>/dev/null || true; \
         iptables-save 2>/dev/null | grep -e fl-{NAME} -e 10.97.0.0 || true; ls /run/fanli-lab/{NAME}.json 2>/dev/null || true"
    );
    must("sh", &["-c", &script])
}

/// The process number, on this machine, of what runs as `command` on a host.
fn pid_of(host: u8, command: &str) -> String {
    let script = format!(
        "for pid in $(ls /proc | grep -E '^[0-9]+$'); do \
           [ \"$(readlink /proc/$pid/ns/net)\" = \"net:[$(stat -Lc %i /run/netns/fl-{NAME}-{host})]\" ] || continue; \
           tr '\\0' ' ' < /proc/$pid/cmdline | grep -q -e '{command}' && grep -q 'NSpid:.*[0-9]\\s[0-9]' /proc/$pid/status && echo $pid; \
         done | head -n 1"
    );
    must("sh", &["-c", &script]).trim().to_owned()
}

#[test]
fn hosts_are_real_apart_mended_and_gone() {
    let lab = Lab::new();
    assert_eq!(traces(), "");
    lab.up("2");
    for host in [1, 2] {
        assert_eq!(lab.on(host, "hostname"), format!("{NAME}{host}"));
        assert_eq!(lab.on(host, "docker info --format '{{.Driver}}'"), "overlay2");
        assert_eq!(lab.on(host, "ls /sys/class/net | tr '\\n' ' '"), "docker0 eth0 lo");
    }

    // What one host does, the other and this machine do not see.
    lab.on(
        1,
        "touch /etc/own /opt/own /data/own /run/own /tmp/own /usr/local/own /var/lib/fanli/own; useradd labtester",
    );
    for place in ["/etc", "/opt", "/data", "/run", "/tmp", "/usr/local", "/var/lib/fanli"] {
        assert_eq!(lab.on(2, &format!("ls {place} | grep -cx own || true")), "0", "{place}");
        assert!(!std::path::Path::new(place).join("own").exists(), "{place}");
    }
    assert_eq!(lab.on(2, "grep -c labtester /etc/passwd || true"), "0");

    // Each reaches the other by the switch, and the world through this machine.
    assert!(lab.on(1, "timeout 5 head -c 4 < /dev/tcp/10.97.0.2/22").starts_with("SSH-"));

    // Programs begin with the same umask over SSH, where the line that starts the helper has 077, as anywhere else.
    let (playbook, config) = (lab.dir.path().join("umask.fp"), lab.dir.path().join(NAME).join("ssh_config"));
    let text = format!(
        "hosts one {{\n  host \"{NAME}1\" {{ config = \"{}\" }}\n}}\nplay \"umask\" on hosts.one {{\n  \
         shell \"umask > /run/umask; : > /run/made\"\n  shell \"umask >> /run/umask\" {{ umask = 027 }}\n}}\n",
        config.display()
    );
    std::fs::write(&playbook, text).unwrap();
    must(fanli(), &["play", playbook.to_str().unwrap()]);
    assert_eq!(lab.on(1, "cat /run/umask; stat -c %a /run/made"), "0022\n0027\n644");

    // A second `up` leaves all as it is.
    let first = pid_of(1, "lab host");
    assert!(lab.up("2").contains("was up"));
    assert_eq!(pid_of(1, "lab host"), first);
    assert!(status().status.success());

    // A daemon, a whole host and a cable are lost.
    must("kill", &["-9", &pid_of(1, "^dockerd")]);
    must("kill", &["-9", &pid_of(2, "lab host")]);
    must("ip", &["link", "delete", &format!("fl-{NAME}-1")]);
    assert!(!status().status.success());
    lab.up("3");
    assert!(status().status.success(), "{}", String::from_utf8_lossy(&status().stdout));
    assert_eq!(lab.on(2, "hostname"), format!("{NAME}2"));
    assert_eq!(lab.on(1, "ls /data"), "own", "files outlive what happened");

    // Containers of a host die with it, and leave nothing.
    lab.on(3, "mkdir /tmp/root && cp /bin/busybox /tmp/root/ && tar -C /tmp/root -c . | docker import - box:1");
    lab.on(3, "docker run --detach --network none --memory 32m box:1 /busybox sleep 1000");
    lab.up("1");
    assert_eq!(traces().lines().filter(|line| line.contains(&format!("fl-{NAME}-"))).count(), 2, "{}", traces());

    assert!(down().status.success());
    assert_eq!(traces(), "");
    assert!(!lab.dir.path().join(NAME).exists());
    assert!(down().status.success(), "a second `down` has nothing to do");
}

#[test]
fn what_cannot_work_is_refused_with_a_way_out() {
    for (args, says) in [
        (vec!["lab", "up", "3", "--name", "lab1"], "ends with a digit"),
        (vec!["lab", "up", "3", "--name", "labnone", "--network", "10.97.0.0/24"], "not a /16"),
        (vec!["lab", "up", "3", "--name", "labnone", "--network", "127.0.0.0/16"], "in use on this machine"),
        (vec!["lab", "up", "3", "--name", "labnone", "--dir", "/opt/labs"], "every host has for itself"),
        (vec!["lab", "up", "0"], "0"),
        (vec!["lab", "status", "--name", "labnone"], "there is no lab"),
    ] {
        let done = output(fanli(), &args);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!done.status.success() && said.contains(says), "{args:?}: {said}");
    }
}
