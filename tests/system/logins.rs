//! Logins over an sshd that turns away those that are too many.

use std::fmt::Write as _;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::fanli;

/// How many hosts one sshd plays.
const HOSTS: usize = 5;

struct Sshd {
    child: Child,
    dir: tempfile::TempDir,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An sshd that takes one login at a time and turns all others away, and a playbook over it.
fn sshd() -> Sshd {
    let dir = tempfile::Builder::new().prefix("fanli-logins").tempdir_in("/var/tmp").unwrap();
    let (path, at) = (|name: &str| dir.path().join(name), dir.path().display().to_string());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for key in ["key", "host_key"] {
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path(key)).status();
        assert!(made.unwrap().success());
    }
    let config = format!(
        "Port {port}\nListenAddress 0.0.0.0\nHostKey {at}/host_key\nAuthorizedKeysFile {at}/key.pub\nPidFile {at}/pid\n\
         UsePAM no\nStrictModes no\nUseDNS no\nMaxStartups 1:100:1\n"
    );
    fs::write(path("sshd_config"), config).unwrap();
    let public = fs::read_to_string(path("host_key.pub")).unwrap();
    let public = public.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let (mut known, mut hosts) = (String::new(), String::from("hosts many {\n"));
    for host in 1..=HOSTS {
        let _ = writeln!(known, "[127.0.3.{host}]:{port} {public}");
        let _ = writeln!(
            hosts,
            "  host \"h{host}\" {{ address = 127.0.3.{host}  port = {port}  config = \"{at}/ssh_config\" }}"
        );
    }
    fs::write(path("known_hosts"), known).unwrap();
    let ssh = format!(
        "Host *\n  User root\n  IdentityFile {at}/key\n  IdentitiesOnly yes\n  UserKnownHostsFile {at}/known_hosts\n  \
         GlobalKnownHostsFile /dev/null\n  UpdateHostKeys no\n"
    );
    fs::write(path("ssh_config"), ssh).unwrap();
    let play = "}\nplay \"p\" on hosts.many {\n  command [\"true\"] { changes = false }\n}\n";
    fs::write(path("play.fp"), hosts + play).unwrap();
    fs::create_dir_all("/run/sshd").unwrap();
    let mut command = Command::new("/usr/sbin/sshd");
    command.args(["-D", "-e", "-f"]).arg(path("sshd_config")).stderr(Stdio::null()).stdout(Stdio::null());
    let sshd = Sshd { child: command.spawn().unwrap(), dir };
    let until = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < until, "sshd does not answer");
        std::thread::sleep(Duration::from_millis(50));
    }
    sshd
}

#[test]
fn logins_that_are_too_many_are_tried_again_with_fewer_at_a_time() {
    let sshd = sshd();
    let state = sshd.dir.path().join("state-%h");
    let mut command = Command::new(fanli());
    command.args(["play", "play.fp", "--state-dir"]).arg(state).current_dir(sshd.dir.path());
    let done = command.output().unwrap();
    let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(0), "{text}");
    assert!(!text.contains("LOST"), "{text}");
}
