//! What keeps a watcher waiting, and what keeps a dead container's address answering: both are told by name, and neither lasts.

use std::process::{Child, Command, Stdio};

use crate::plugs::attach;
use crate::watched::{Watched, Watcher, wait_for, web};

/// Ends with this value.
struct Program(Child);

impl Program {
    fn start(watched: &Watched, script: &str) -> Self {
        let pid = watched.host().pid.to_string();
        let mut command = Command::new("nsenter");
        command.args(["-t", &pid, "-m", "-n", "-u", "sh", "-ec", script]).stdin(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_it_waits_for_is_told_and_a_later_start_is_not_kept_waiting() {
    let watched = Watched::start("wx");
    let host = watched.host();
    host.drive().run(&[web("fwt-x1"), attach("fwt-x1", "10.99.0.91", &[])]);
    host.drive().run(&[web("fwt-x2"), attach("fwt-x2", "10.99.0.92", &[])]);
    let watcher = Watcher::start(host, &["--every", "1h"]);
    watcher.says("the Docker daemon answers");
    watched.reached("10.99.0.91", "before");

    // Somebody else plugs the container, and does not come to an end.
    let lock = "/var/lib/fanli/plugging/fwt-x1";
    let holder = Program::start(&watched, &format!("exec 9>>{lock}; flock 9; : > /run/held; exec sleep 600 9>&9"));
    wait_for("the lock is held", || host.sh("test -e /run/held").status.success());
    host.must("docker restart -t 0 fwt-x1");
    watcher.says("fwt-x1: not done after 2.");
    watcher.says(&format!("waits to lock {lock}, for "));
    // The others go on.
    host.must("docker restart -t 0 fwt-x2");
    watched.reached("10.99.0.92", "while another one waits");
    // What is stuck gives way to what happened later.
    host.must("docker restart -t 0 fwt-x1");
    watcher.says("fwt-x1: begun anew, as its container was started meanwhile");
    drop(holder);
    watched.reached("10.99.0.91", "after the lock was free");
    watched.settled(&attach("fwt-x1", "10.99.0.91", &[]));

    // The daemon lives and says nothing.
    let daemon = host.must("cat /run/dockerd.pid");
    let pid = host.must("docker inspect -f '{{.State.Pid}}' fwt-x2");
    let frozen = watched.freeze();
    host.must(&format!("nsenter -t {pid} -n ip link del eth0; touch /var/lib/fanli/attach; ip link set eth0 mtu 1480"));
    watcher.says("waits to inspect container fwt-x2, for ");
    drop(frozen);
    watched.reached("10.99.0.92", "after the daemon went on");
    println!("daemon {daemon}; {}", watcher.said());
}

#[test]
fn who_holds_a_dead_network_is_named() {
    let watched = Watched::start("wh");
    let host = watched.host();
    let plug = attach("fwt-h1", "10.99.0.93", &[]);
    host.drive().run(&[web("fwt-h1"), plug.clone(), web("fwt-h2"), attach("fwt-h2", "10.99.0.94", &[])]);
    let watcher = Watcher::start(host, &["--every", "1h"]);
    watcher.says("the Docker daemon answers");
    watched.reached("10.99.0.93", "before");
    let hold = "exec nsenter -t $(docker inspect -f '{{.State.Pid}}' fwt-h1) -n sleep 600";
    let holder = Program::start(&watched, hold);
    let pid = holder.0.id();
    let comm = || std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    wait_for("it is inside", || comm().trim() == "sleep");

    host.must("docker stop -t 0 fwt-h1");
    watcher.says(&format!(
        "fwt-h1: took 10.99.0.93 out of a network that is kept alive: process {pid} (sleep) is in it (container ended)"
    ));
    // The interface is gone, the network is not.
    assert_eq!(host.must(&format!("nsenter -t {pid} -n ip -br link | grep -c eth0 || :")), "0");
    host.must("docker start fwt-h1");
    watched.reached("10.99.0.93", "while its old network is kept");
    // One that is started at once is not kept waiting either.
    let again = Program::start(&watched, hold);
    let pid = again.0.id();
    let comm = || std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    wait_for("it is inside", || comm().trim() == "sleep");
    host.must("docker restart -t 0 fwt-h1");
    watcher.says(&format!(", out of an old network as well: process {pid} (sleep) is in it (container restarted)"));
    watched.reached("10.99.0.93", "after a restart while its old network is kept");
    drop(again);
    drop(holder);
    watched.reached("10.99.0.93", "after its old network was let go");
    watched.settled(&plug);

    // With nobody who holds it, nothing is said.
    host.must("docker stop -t 0 fwt-h2");
    watcher.says("fwt-h2: dropped the host's route to 10.99.0.94");
    std::thread::sleep(std::time::Duration::from_millis(2500));
    assert!(!watcher.said().contains("10.99.0.94 still answers"), "{}", watcher.said());
    println!("{}", watcher.said());
}

#[test]
fn all_hosts_of_a_playbook_are_asked() {
    let watched = Watched::start("wq");
    let host = watched.host();
    host.drive().run(&[web("fwt-q1"), attach("fwt-q1", "10.99.0.95", &[])]);
    let file = watched.hosts.shared().join("play.fp");
    let text = "hosts web {\n  host \"here\" { connection = local }\n  host \"gone\" { address = 127.0.0.1  port = 1 }\n}\n\
                play \"one\" on hosts.web {\n  command [\"true\"] { changes = false }\n}\n";
    std::fs::write(&file, text).unwrap();
    let ask = |more: &str| host.sh(&format!("{} status {} {more}", crate::common::fanli(), file.display()));
    let said = |more: &str| String::from_utf8_lossy(&ask(more).stdout).into_owned();
    let before = said("");
    assert!(before.contains("watcher     has never run on this host"), "{before}");
    assert!(before.contains("fwt-q1  10.99.0.95  eth0 on eth0 (lan)  not watched"), "{before}");

    let watcher = Watcher::start(host, &[]);
    watcher.says("the Docker daemon answers");
    wait_for("it is told as plugged", || said("").contains("fwt-q1  10.99.0.95  eth0 on eth0 (lan)  plugged"));
    let now = said("");
    assert!(now.starts_with("gone\n  unknown: ") && now.contains("\nhere\n  watcher     runs since "), "{now}");
    let json = ask("--json");
    assert_eq!(json.status.code(), Some(5), "{}", String::from_utf8_lossy(&json.stderr));
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(json["gone"]["unknown"].is_string(), "{json}");
    assert_eq!(json["here"]["running"], true);
    assert_eq!(json["here"]["watcher"]["attachments"][0]["condition"], "plugged");
    println!("{now}");
}
