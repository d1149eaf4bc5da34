//! A copy of this machine to break: what is written there, what runs there, and its network go away with it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Output, Stdio};

use crate::drive::Drive;

/// Overlays over what packages write; its own `/run`. `$0` is an empty folder.
const SETUP: &str = r#"
exec 2>&1
mount -t tmpfs fanli-copy "$0"
for dir in usr var etc root; do
  mkdir "$0/$dir" "$0/$dir.work"
  mount -t overlay -o "lowerdir=/$dir,upperdir=$0/$dir,workdir=$0/$dir.work" fanli-copy "/$dir"
done
mount -t tmpfs -o mode=0755 fanli-copy /run
mkdir /run/lock
ip link set lo up
rm -f /usr/sbin/policy-rc.d
"#;

/// As process 1 a shell that buries what has ended.
const PLAIN: &str = "echo ready\nwhile :; do sleep 0.2 || :; done";

/// As process 1 systemd, which starts nothing by itself but its journal. It has devices of its own, may not turn the kernel's
/// switches, and sees only the control groups below its own.
const SYSTEMD: &str = r#"
mkdir "$0/dev"
mount -t tmpfs -o mode=0755 fanli-copy "$0/dev"
for device in null zero full random urandom tty; do cp -a /dev/$device "$0/dev/"; done
mkdir "$0/dev/shm" "$0/dev/pts"
mount --move "$0/dev" /dev
umount -R /sys/fs/cgroup
mount -t cgroup2 fanli-copy /sys/fs/cgroup
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
for dir in /sys/kernel /sys/module /sys/devices; do mount --bind $dir $dir; mount -o remount,bind,ro $dir; done
rm -rf /usr/lib/systemd/system/*.wants /etc/systemd/system/*.wants /etc/fstab /usr/lib/systemd/system-generators/*
printf '[Unit]\nDefaultDependencies=no\nWants=systemd-journald.service\n' > /etc/systemd/system/fanli-copy.target
echo ready
container=fanli exec /lib/systemd/systemd --system --unit=fanli-copy.target --log-target=null --show-status=no
"#;

/// Mounts the control groups where nobody else sees it, at `$0`.
const GROUPS: &str = "mount -t cgroup2 fanli-copy \"$0\"";

pub struct Copy {
    holder: Child,
    pid: u32,
    dir: tempfile::TempDir,
}

impl Copy {
    /// A copy in which nothing runs.
    pub fn new() -> Self {
        Self::with(PLAIN)
    }

    /// A copy that systemd has booted.
    pub fn booted() -> Self {
        let copy = Self::with(SYSTEMD);
        copy.sh("for _ in $(seq 200); do systemctl is-system-running | grep -qE 'running|degraded' && exit 0; sleep 0.1; done; exit 1");
        copy
    }

    fn with(first: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("fanli-copy-").tempdir().unwrap();
        let unshare =
            "exec unshare --mount --propagation=private --uts --net --pid --cgroup --fork --kill-child --mount-proc";
        let script = format!("{SETUP}{first}");
        // A control group of its own, entered before it becomes the root of what is seen.
        let enter = format!(
            "{GROUPS}; mkdir \"$0/${{0##*/}}\"; echo $$ > \"$0/${{0##*/}}/cgroup.procs\"; umount \"$0\"; {unshare} sh -ec \"$1\" \"$0\""
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation=private", "sh", "-ec", &enter]).arg(dir.path()).arg(script);
        let mut holder = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let children = format!("/proc/{0}/task/{0}/children", holder.id());
        let pid = std::fs::read_to_string(children).unwrap_or_default().trim().parse().unwrap_or(0);
        let copy = Self { holder, pid, dir };
        assert!(line == "ready\n" && pid > 0, "the copy was not made: {line}");
        copy
    }

    /// Runs tasks there, without a way out to the network.
    pub fn drive(&self) -> Drive {
        Drive { own_processes: true, ..Drive::new(self.pid) }
    }

    pub fn try_sh(&self, script: &str) -> Output {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid.to_string(), "-m", "-u", "-n", "-p", "sh", "-ec", script]);
        command.env("LC_ALL", "C.UTF-8").stdin(Stdio::null()).output().unwrap()
    }

    /// Runs a script there that must succeed.
    pub fn sh(&self, script: &str) -> String {
        let output = self.try_sh(script);
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // The end of its process 1 is the end of them all.
        if self.pid > 0 {
            let _ = Command::new("kill").args(["-9", &self.pid.to_string()]).status();
        }
        let _ = self.holder.wait();
        let clear = format!(
            "{GROUPS}; for _ in $(seq 50); do find \"$0/${{0##*/}}\" -depth -type d -exec rmdir {{}} + && exit 0; sleep 0.1; done"
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation=private", "sh", "-c", &clear]).arg(self.dir.path());
        let _ = command.stderr(Stdio::null()).status();
    }
}
