//! `mount` over a real network: sshfs through mount(8), against an sshd of the test's own.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fanli::failure::FailureKind;
use fanli::resource::kinds::Kind;
use fanli::value::Value;

use crate::apart::{apart, folder, mount_table, sh};
use crate::args;
use crate::common::{Bench, build};
use crate::tier::run::eventually;

/// The program behind the mount, by the name that mount(8) calls it by.
const SSHFS: &str = "sshfs|mount.fuse.sshf";

/// An sshd on 127.0.0.1 with keys of its own, and what it serves.
struct Server {
    daemon: Child,
    port: u16,
}

impl Server {
    fn start() -> Self {
        let dir = folder();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = dir.display();
        sh(&format!(
            "mkdir -p {dir}/export/deep {dir}/ssh /run/sshd; chmod 700 {dir}/ssh; echo served > {dir}/export/name; \
             ssh-keygen -q -t ed25519 -N '' -f {dir}/ssh/host; ssh-keygen -q -t ed25519 -N '' -f {dir}/ssh/user; \
             cp {dir}/ssh/user.pub {dir}/ssh/authorized; \
             echo \"[127.0.0.1]:{port} $(cut -d' ' -f1,2 {dir}/ssh/host.pub)\" > {dir}/ssh/known"
        ));
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {dir}/ssh/host\nAuthorizedKeysFile {dir}/ssh/authorized\nUsePAM no\n\
             PidFile none\nPermitRootLogin yes\nStrictModes no\nSubsystem sftp internal-sftp\n"
        );
        fs::write(format!("{dir}/ssh/config"), config).unwrap();
        let log = fs::File::create(format!("{dir}/ssh/log")).unwrap();
        let mut daemon = Command::new("/usr/sbin/sshd");
        daemon.args(["-D", "-e", "-f"]).arg(format!("{dir}/ssh/config")).stdin(Stdio::null()).stderr(log);
        let server = Self { daemon: daemon.spawn().unwrap(), port };
        for _ in 0..200 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return server;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("sshd does not listen: {}", fs::read_to_string(format!("{dir}/ssh/log")).unwrap());
    }

    fn task(&self, kind: &str, more: &[&str]) -> Kind {
        let dir = folder();
        let dir = dir.display();
        fs::create_dir_all(point()).unwrap_or_default();
        let ssh = [
            format!("port={}", self.port),
            format!("IdentityFile={dir}/ssh/user"),
            format!("UserKnownHostsFile={dir}/ssh/known"),
            "StrictHostKeyChecking=yes,allow_other".to_owned(),
        ];
        let options = ssh.into_iter().chain(more.iter().map(|&option| option.to_owned())).map(Value::Str).collect();
        let from = format!("root@127.0.0.1:{dir}/export");
        build("mount", args! { "path" => point(), "type" => kind, "from" => from, "options" => Value::List(options) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn point() -> String {
    folder().join("share").to_str().unwrap().to_owned()
}

fn name() -> String {
    fs::read_to_string(folder().join("share/name")).unwrap_or_default()
}

fn spoil(bench: &Bench, task: &Kind, script: &str, fields: &[&str]) {
    sh(script);
    let picture = || mount_table() + &fs::read_to_string("/etc/fstab").unwrap();
    let before = picture();
    assert_eq!(bench.drift(task), fields, "{script}");
    assert_eq!(picture(), before);
    bench.converge(task).unwrap_or_else(|failure| panic!("{script}: {failure} {:?}", failure.hint));
    assert_eq!(bench.plan(task).unwrap(), None, "{script}");
    assert_eq!(name(), "served\n", "{script}");
}

#[test]
fn a_share_is_mounted_kept_and_mended() {
    apart("sshfs::a_share_is_mounted_kept_and_mended", || {
        let (bench, server) = (Bench::new(), Server::start());
        let task = server.task("sshfs", &["ro"]);
        assert_eq!(bench.drift(&task), ["*create"]);
        bench.converge(&task).unwrap();
        assert_eq!(name(), "served\n");
        assert!(fs::write(folder().join("share/x"), "x").is_err());
        assert_eq!(bench.plan(&task).unwrap(), None);
        assert_eq!(bench.plan(&server.task("fuse.sshfs", &["ro"])).unwrap(), None);
        let point = point();
        // What serves it lives on after the run that started it: nobody's child, and with its ssh.
        drop(bench);
        let bench = Bench::new();
        assert_eq!((name().as_str(), bench.plan(&task).unwrap()), ("served\n", None));

        let kill =
            |what: &str| format!("pkill -9 -x '{what}'; while pgrep -x '{what}' > /dev/null; do sleep 0.05; done");
        // This PID namespace holds the test's own processes alone.
        spoil(&bench, &task, &kill(SSHFS), &["mounted"]);
        spoil(&bench, &task, &format!("umount {point}"), &["mounted"]);
        spoil(&bench, &task, &format!("umount {point}; mount {point}"), &[]);
        // The file system itself is read-only: a writable mount of it is none.
        spoil(&bench, &task, &format!("mount -i -o remount,bind,rw none {point}"), &[]);
        let rw = sh("grep sshfs /etc/fstab | cut -d' ' -f4").replace("ro", "rw");
        let from = format!("root@127.0.0.1:{}/export", folder().display());
        let mounted = |from: &str| format!("umount {point}; mount -t fuse.sshfs -o {rw} {from} {point}");
        spoil(&bench, &task, &mounted(&from), &["options"]);
        spoil(&bench, &task, "sed -i s/allow_other/allow_root/ /etc/fstab", &["fstab"]);
        spoil(&bench, &task, "sed -i /sshfs/d /etc/fstab", &["fstab"]);
        spoil(&bench, &task, &mounted(&format!("{from}/deep")), &["from", "options"]);
        spoil(&bench, &task, &format!("mount -t tmpfs -o ro t {point}"), &["from", "type"]);

        // From ro to rw and back: with the file system itself read-only, only mounting anew helps.
        let open = server.task("sshfs", &[]);
        assert_eq!(bench.drift(&open), ["fstab", "options"]);
        bench.converge(&open).unwrap();
        fs::write(folder().join("share/new"), "x").unwrap();
        assert_eq!(fs::read_to_string(folder().join("export/new")).unwrap(), "x");
        bench.converge(&task).unwrap();
        assert!(fs::write(folder().join("share/new"), "y").is_err());

        // A dead one that somebody still stands in.
        let mut holder = Command::new("sleep").arg("60").current_dir(&point).spawn().unwrap();
        spoil(&bench, &task, &kill(SSHFS), &["mounted"]);
        holder.kill().unwrap();
        holder.wait().unwrap();

        let gone = build("mount", args! { "path" => point.as_str(), "state" => "absent" });
        bench.converge(&gone).unwrap();
        assert_eq!(bench.plan(&gone).unwrap(), None);
        assert_eq!(fs::read_to_string("/etc/fstab").unwrap(), "# of this host\n");
        // It ends by itself once the kernel has told it of the unmount, a moment after umount(2).
        let running = || sh(&format!("pgrep -x '{SSHFS}' || :"));
        eventually("nothing serves it any more", Duration::from_secs(5), || running().is_empty());
    });
}

#[test]
fn a_share_that_hangs_hangs_nobody() {
    apart("sshfs::a_share_that_hangs_hangs_nobody", || {
        let (bench, server) = (Bench::new(), Server::start());
        let task = server.task("sshfs", &[]);
        bench.converge(&task).unwrap();
        // Its program stands still: whoever looks in waits for ever.
        sh(&format!("pkill -STOP -x '{SSHFS}'"));
        let failure = bench.plan(&task).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Timeout);
        let told = failure.to_string();
        assert!(told.contains("does not answer") && told.contains("limit `mount_answer`"), "{told}");
        assert!(failure.hint.unwrap().contains("umount --lazy"));
        // A mount beside it, and one of what lies in it, can be looked at all the same.
        let beside = folder().join("beside");
        fs::create_dir_all(&beside).unwrap();
        bench.converge(&build("mount", args! { "path" => beside.to_str().unwrap(), "type" => "tmpfs" })).unwrap();
        sh(&format!("pkill -CONT -x '{SSHFS}'"));
        assert_eq!(bench.plan(&task).unwrap(), None);
    });
}

#[test]
fn a_server_that_refuses_is_told_and_nothing_is_kept() {
    apart("sshfs::a_server_that_refuses_is_told_and_nothing_is_kept", || {
        let (bench, server) = (Bench::new(), Server::start());
        let task = server.task("sshfs", &["BatchMode=yes"]);
        fs::write(folder().join("ssh/authorized"), "").unwrap();
        let failure = bench.converge(&task).unwrap_err();
        assert!(failure.message.starts_with("cannot mount root@127.0.0.1:"), "{failure}");
        assert!(!fs::read_to_string("/etc/fstab").unwrap().contains("sshfs"));
        assert_eq!(bench.drift(&task), ["*create"]);
    });
}
