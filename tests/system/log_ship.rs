//! Copies of log files at a real directory, rsync daemon, sshd and object store: whole, each once, and nothing is removed without one.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fanli::logs::ledger::{Event, Ledger};

use crate::apart::{apart, folder, sh};
use crate::balance::place::until;
use crate::common::chance::{Chance, moments};
use crate::common::fanli;
use crate::log_keep::{CALLS, Declared, calls, held, paths, seal_of, segments, written};

/// A folder of logs, a storage on another file system, and the state of their host.
struct Place {
    dir: tempfile::TempDir,
    storage: tempfile::TempDir,
}

impl Place {
    fn new(lines: usize) -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap(), storage: tempfile::tempdir_in("/dev/shm").unwrap() };
        fs::create_dir(place.logs()).unwrap();
        written(&place.logs(), lines);
        place
    }

    fn logs(&self) -> PathBuf {
        self.dir.path().join("weblogs")
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// `fanli logs keep` with copies at `target`: the command.
    fn command(&self, target: &str, limits: &[&str]) -> Command {
        let mut command = Command::new(fanli());
        command.args(["logs", "keep", "--state-dir"]).arg(self.state());
        command.args(["--ship", target]).args(limits).arg(self.logs());
        command
    }

    fn keep_at(&self, target: &str, limits: &[&str]) -> (String, Option<i32>) {
        let done = self.command(target, limits).output().unwrap();
        let said = [done.stdout, done.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        println!("{limits:?}: {said}");
        (said, done.status.code())
    }

    fn keep(&self, limits: &[&str]) -> (String, Option<i32>) {
        self.keep_at(self.storage.path().to_str().unwrap(), limits)
    }

    #[track_caller]
    fn keeps(&self, limits: &[&str]) -> String {
        let (said, code) = self.keep(limits);
        assert_eq!(code, Some(0), "{said}");
        said
    }

    /// What the ledger says: stored, removed with a copy, removed without one.
    fn events(&self) -> [usize; 3] {
        let entries = Ledger::of(&self.state(), &self.logs()).entries().unwrap();
        let count = |is: fn(&Event) -> bool| entries.iter().filter(|entry| is(&entry.event)).count();
        [
            count(|event| matches!(event, Event::Stored { .. })),
            count(|event| matches!(event, Event::Removed { stored: true, .. })),
            count(|event| matches!(event, Event::Removed { stored: false, .. })),
        ]
    }
}

/// The files of a folder with what tells that nothing was written anew.
fn picture(folder: &Path) -> BTreeMap<PathBuf, (u64, i64, u64)> {
    let of = |path: PathBuf| {
        let meta = fs::symlink_metadata(&path).unwrap();
        (path, (meta.ino(), meta.mtime(), meta.len()))
    };
    paths(folder).into_iter().map(of).collect()
}

#[test]
fn copies_are_compared_and_no_limit_removes_a_file_without_one() {
    let place = Place::new(60);
    let before = held(&place.logs());
    let count = before.len();
    // Compressed first: what ended within five hours waits for it.
    let pack = ["--pack", "zstd", "--pack-after", "5h"];
    let said = place.keeps(&pack);
    assert_eq!(said.lines().filter(|line| line.starts_with("stored  ")).count(), count - 4, "{said}");
    assert!(!said.contains("without a copy"), "{said}");
    let stored = held(place.storage.path());
    assert_eq!(stored.len(), count - 4);
    assert!(stored.iter().all(|(name, text)| before[name] == *text));
    assert_eq!(place.events(), [count - 4, 0, 0]);
    // Nothing is sent twice, and no limit takes what has no copy.
    let seen = picture(place.storage.path());
    assert_eq!(place.keeps(&pack).lines().count(), 1);
    let said = place.keeps(&[&pack[..], &["--age", "1h"]].concat());
    assert_eq!(said.lines().filter(|line| line.starts_with("removed  ")).count(), count - 4, "{said}");
    assert_eq!((held(&place.logs()).len(), place.events()), (4, [count - 4, count - 4, 0]));
    assert_eq!(picture(place.storage.path()), seen);
    // At the storage it is a folder as here.
    let done = Command::new(fanli()).args(["logs", "keep", "--count", "1"]).arg(place.storage.path()).output().unwrap();
    assert!(done.status.success() && held(place.storage.path()).len() == 1, "{done:?}");

    // The rest, not compressed; without a ledger what is there is found.
    place.keeps(&[]);
    let seen = picture(place.storage.path());
    assert_eq!(held(place.storage.path()).len(), 1 + 4);
    fs::remove_dir_all(place.state()).unwrap();
    assert_eq!(place.keeps(&[]).lines().filter(|line| line.starts_with("stored  ")).count(), 4);
    assert_eq!(picture(place.storage.path()), seen);
}

#[test]
fn what_cannot_be_meant_or_has_changed_is_told_and_loses_nothing() {
    let place = Place::new(40);
    let count = held(&place.logs()).len();
    let all = |place: &Place| assert_eq!(held(&place.logs()).len(), count);
    // The storage is not mounted, or is not there.
    let unmounted = place.dir.path().join("mnt");
    fs::create_dir(&unmounted).unwrap();
    let (said, code) = place.keep_at(unmounted.to_str().unwrap(), &["--age", "1h"]);
    assert!(code == Some(4) && said.contains("is on the same file system as the logs"), "{said}");
    // On another file system than the logs, but that of the machine itself: the storage is not mounted.
    let root = tempfile::tempdir_in("/var/tmp").unwrap();
    let elsewhere = Place { dir: tempfile::tempdir_in("/dev/shm").unwrap(), storage: tempfile::tempdir().unwrap() };
    fs::create_dir(elsewhere.logs()).unwrap();
    written(&elsewhere.logs(), 20);
    let (said, code) = elsewhere.keep_at(root.path().to_str().unwrap(), &["--age", "1h"]);
    assert!(code == Some(4) && said.contains("is on the same file system as `/`"), "{said}");
    let (said, code) = place.keep_at("/nowhere/logs", &["--age", "1h"]);
    assert!(code == Some(4) && said.contains("there is no directory /nowhere/logs"), "{said}");
    assert!(said.contains(&format!("{count} of them without a copy")), "{said}");
    all(&place);
    let (said, code) = place.keep_at("nonsense", &[]);
    assert!(code == Some(2) && said.contains("is no target"), "{said}");

    // A copy with other content is never written over.
    let all_here = segments(&place.logs());
    let other = place.storage.path().join(all_here[0].file_name().unwrap());
    fs::write(&other, "another one\n").unwrap();
    // A file that was changed after it was closed is not stored.
    fs::OpenOptions::new().append(true).open(&all_here[1]).unwrap().write_all(b"planted\n").unwrap();
    let (said, code) = place.keep(&[]);
    assert!(code == Some(4) && said.contains("is there already, with other content"), "{said}");
    assert!(said.contains("no copy of it is stored"), "{said}");
    assert!(said.contains("2 of them without a copy"), "{said}");
    assert_eq!(fs::read_to_string(&other).unwrap(), "another one\n");
    assert_eq!(place.events(), [count - 2, 0, 0]);
    let (said, _) = place.keep(&["--age", "1h"]);
    assert_eq!(segments(&place.logs()).len(), 2, "{said}");

    // One that was changed after its copy was stored is not removed; a name that the storage does not take holds up no other.
    let place = Place::new(40);
    place.keeps(&[]);
    let all_here = segments(&place.logs());
    fs::OpenOptions::new().append(true).open(&all_here[0]).unwrap().write_all(b"planted\n").unwrap();
    let long = place.logs().join(format!("0{}.log", "l".repeat(244)));
    fs::rename(&all_here[1], &long).unwrap();
    fs::rename(seal_of(&all_here[1]), seal_of(&long)).unwrap();
    written(&place.logs(), 20);
    let (said, code) = place.keep(&["--age", "1h"]);
    assert!(code == Some(4) && said.contains("File name too long"), "{said}");
    let (said, _) = place.keep(&["--age", "1h"]);
    let left = segments(&place.logs());
    assert!(left.len() == 2 && left.contains(&all_here[0]) && left.contains(&long), "{left:?} {said}");
}

#[test]
fn what_others_put_into_the_ledger_leads_nowhere() {
    let place = Place::new(20);
    place.keeps(&["--count", "0"]);
    // Two, where a month ended within the hours that the files are old.
    let months = sh(&format!("echo {}/ledger/*/*.jsonl", place.state().display()));
    let sentinel = place.dir.path().join("sentinel");
    fs::write(&sentinel, "a file of root\n").unwrap();
    for plant in [format!("ln -s {}", sentinel.display()), "mkfifo".to_owned(), "mkdir".to_owned()] {
        sh(&format!("for month in {months}; do rm -rf $month; {plant} $month; done"));
        let (said, code) = place.keep(&["--count", "0"]);
        assert!(code == Some(4) && said.contains("cannot read"), "{plant}: {said}");
        assert_eq!(fs::read_to_string(&sentinel).unwrap(), "a file of root\n");
    }
}

#[test]
fn where_it_is_asked_for_files_without_a_copy_go_last_and_are_counted() {
    let place = Place::new(60);
    let count = held(&place.logs()).len();
    place.keeps(&["--pack", "zstd", "--pack-after", "5h"]);
    let without: Vec<String> =
        held(&place.logs()).into_keys().filter(|name| !held(place.storage.path()).contains_key(name)).collect();
    assert_eq!(without.len(), 4);
    let drop = ["--unshipped", "drop", "--pack", "zstd", "--pack-after", "50h"];
    let (said, _) = place.keep_at("/nowhere", &[&drop[..], &["--count", "3"]].concat());
    // They are known to be stored elsewhere, which is no copy at the storage that is declared now.
    assert!(said.contains("NO COPY of it is stored"), "{said}");
    assert_eq!(place.events(), [count - 4, 0, count - 3]);
    // A storage that is there gets what can be stored before anything goes.
    let place = Place::new(60);
    place.keeps(&["--unshipped", "drop", "--count", "1"]);
    assert_eq!((place.events(), held(place.storage.path()).len()), ([count, 0, 0], count));
    place.keeps(&["--unshipped", "drop", "--count", "1"]);
    assert_eq!(place.events(), [count, count - 1, 0]);
    let place = Place::new(60);
    place.keeps(&["--pack", "zstd", "--pack-after", "5h"]);
    let without: Vec<String> =
        held(&place.logs()).into_keys().filter(|name| !held(place.storage.path()).contains_key(name)).collect();
    let said = place.keeps(&[&drop[..], &["--count", "4"]].concat());
    assert!(!said.contains("NO COPY"), "{said}");
    assert_eq!(held(&place.logs()).into_keys().collect::<Vec<_>>(), without);
    // What waits for its compression was not tried yet.
    assert!(!place.keeps(&[&drop[..], &["--count", "3"]].concat()).contains("removed"));
    let away = place.storage.path().with_extension("away");
    fs::rename(place.storage.path(), &away).unwrap();
    let (said, code) = place.keep(&["--unshipped", "drop", "--pack", "zstd", "--count", "3"]);
    fs::rename(&away, place.storage.path()).unwrap();
    assert_eq!(code, Some(4));
    assert_eq!(said.matches("NO COPY of it is stored").count(), 1, "{said}");
    assert_eq!(place.events(), [count - 4, count - 4, 1]);
}

#[test]
fn killed_anywhere_each_copy_is_whole_and_there_once() {
    let traces = tempfile::tempdir().unwrap();
    let trace = traces.path().join("log");
    let limits = ["--pack", "zstd", "--pack-after", "2h", "--age", "6h"];
    let strace = |place: &Place, inject: Option<&str>| {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", trace.to_str().unwrap(), "-e", &format!("trace={CALLS},fdatasync,mkdirat")]);
        command.args(inject.iter().flat_map(|inject| ["-e", inject]));
        let keep = place.command(place.storage.path().to_str().unwrap(), &limits);
        command.arg(keep.get_program()).args(keep.get_args()).output().unwrap()
    };
    let whole = Place::new(60);
    let before = held(&whole.logs());
    assert!(strace(&whole, None).status.success());
    let points = calls(&trace);
    assert_eq!(held(whole.storage.path()).len(), before.len() - 1, "what ended within two hours is not compressed yet");
    assert!(points.len() > 100, "{points:?}");
    let mut killed = 0;
    for (call, which) in Chance::new().some(points, moments(12, usize::MAX)) {
        let place = Place::new(60);
        let before = held(&place.logs());
        let at = format!("inject={call}:signal=KILL:when={which}");
        killed += u32::from(!strace(&place, Some(&at)).status.success());
        // What is there under its own name is whole, always; `held` compares.
        held(place.storage.path());
        let said = place.keeps(&limits);
        let (here, there) = (held(&place.logs()), held(place.storage.path()));
        assert_eq!(there.len(), before.len() - 1, "{at}: {said}");
        assert!(there.iter().chain(&here).all(|(name, text)| before[name] == *text), "{at}");
        place.keeps(&limits);
        assert!(here.keys().chain(there.keys()).all(|name| before.contains_key(name)), "{at}");
        assert_eq!(place.keeps(&limits).lines().count(), 1, "{at}");
        let left: Vec<PathBuf> = paths(place.storage.path())
            .into_iter()
            .filter(|path| path.extension().is_some_and(|end| end == "new"))
            .collect();
        assert!(left.is_empty(), "{at}: {left:?}");
    }
    assert!(killed > 6, "{killed}");
}

/// A program that ends with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// rsync's daemon, serving a directory as the module `logs`.
pub(crate) struct Daemon {
    child: Running,
    port: u16,
    dir: tempfile::TempDir,
}

impl Daemon {
    pub(crate) fn start(storage: &Path) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = tempfile::tempdir().unwrap();
        let child = Self::spawn(dir.path(), port, storage);
        Self { child, port, dir }
    }

    fn spawn(dir: &Path, port: u16, storage: &Path) -> Running {
        let (config, users) = (dir.join("rsyncd.conf"), dir.join("users"));
        fs::write(&users, "shop:secret\n").unwrap();
        sh(&format!("chmod 600 {}", users.display()));
        let text = format!(
            "port = {port}\naddress = 127.0.0.1\nuse chroot = no\nuid = root\ngid = root\n[logs]\npath = {}\nread only = no\nauth users = shop\nsecrets file = {}\n",
            storage.display(),
            users.display()
        );
        fs::write(&config, text).unwrap();
        let mut daemon = Command::new("rsync");
        daemon.args(["--daemon", "--no-detach", "--config"]).arg(&config).stdin(Stdio::null());
        let child = Running(daemon.spawn().unwrap());
        until("it listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        child
    }

    fn again(&mut self, storage: &Path) {
        self.child = Self::spawn(self.dir.path(), self.port, storage);
    }

    /// Kills it and what it has started.
    pub(crate) fn kill(&mut self) {
        let mut all = vec![self.child.0.id().to_string()];
        let mut next = 0;
        while let Some(pid) = all.get(next).cloned() {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            all.extend(children.split_whitespace().map(str::to_owned));
            next += 1;
        }
        let _ = Command::new("kill").arg("-9").args(&all).stderr(Stdio::null()).status();
        self.child.0.wait().unwrap();
    }

    pub(crate) fn target(&self) -> String {
        format!("rsync://shop@127.0.0.1:{}/logs/web1/weblogs", self.port)
    }

    pub(crate) fn key(&self) -> String {
        let path = self.dir.path().join("password");
        fs::write(&path, "secret\n").unwrap();
        sh(&format!("chmod 600 {}", path.display()));
        path.to_str().unwrap().to_owned()
    }
}

#[test]
fn an_rsync_daemon_may_be_away_and_may_die_in_the_middle() {
    let place = Place::new(60);
    let before = held(&place.logs());
    let mut daemon = Daemon::start(place.storage.path());
    let (target, key) = (daemon.target(), daemon.key());
    let with_key = |more: &[&'static str]| {
        [&["--ship-key", &key], more].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let keep = |place: &Place, more: &[&'static str]| {
        let limits = with_key(more);
        place.keep_at(&target, &limits.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let (said, code) = place.keep_at(&target, &["--age", "1h"]);
    assert!(code == Some(4) && said.contains("copies cannot be stored at rsync://shop@"), "without a password: {said}");
    daemon.kill();
    let (said, code) = keep(&place, &["--age", "1h"]);
    assert!(code == Some(4) && said.contains("`rsync --from0") && said.contains("onnection refused"), "{said}");
    assert_eq!(held(&place.logs()), before);

    daemon.again(place.storage.path());
    // Large enough to be caught in the middle.
    let big = place.logs().join("2025.bigbigbi.log");
    let line = format!("{}\n", "y".repeat(99));
    fs::write(&big, line.repeat(40_000)).unwrap();
    let text = fs::read(&big).unwrap();
    let seal = format!(
        "{{\"begin\":\"2025-01-01T00:00:00Z\",\"end\":\"2025-01-01T01:00:00Z\",\"sealed\":\"2025-01-01T01:00:00Z\",\"why\":\"period\",\
         \"lines\":40000,\"bytes\":{},\"sha256\":\"{}\",\"dropped_lines\":0,\"dropped_bytes\":0}}\n",
        text.len(),
        fanli::value::Digest::of(&text)
    );
    fs::write(seal_of(&big), seal).unwrap();
    let before = held(&place.logs());
    let there = place.storage.path().join("web1/weblogs");
    let slow = with_key(&["--ship-rate", "1MiB"]);
    let mut sending = place.command(&target, &slow.iter().map(String::as_str).collect::<Vec<_>>());
    let sending = sending.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("it sends", || there.is_dir());
    std::thread::sleep(Duration::from_millis(800));
    daemon.kill();
    let done = sending.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(4), "{done:?}");
    assert!(there.is_dir().then(|| held(&there)).is_none_or(|held| !held.contains_key("2025.bigbigbi.log")));
    assert_eq!(place.events()[0], 0, "nothing counts that was not compared");

    daemon.again(place.storage.path());
    let (said, code) = keep(&place, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(held(&there), before);
    assert!(!there.join(".fanli-partial").exists());
    let seen = picture(&there);
    let (said, _) = keep(&place, &[]);
    assert_eq!(said.lines().count(), 1, "{said}");
    // A copy that was damaged there is found when it is compared again, and stays as it is.
    fs::remove_dir_all(place.state()).unwrap();
    let name = before.keys().next().unwrap();
    fs::write(there.join(name), "damaged\n").unwrap();
    let (said, code) = keep(&place, &["--age", "1h"]);
    assert!(code == Some(4) && said.matches("is there already, with other content").count() == 1, "{said}");
    assert_eq!(place.events()[0], before.len() - 1);
    assert_eq!(fs::read_to_string(there.join(name)).unwrap(), "damaged\n");
    assert_eq!(picture(&there).len(), seen.len());
    let (said, code) = keep(&place, &["--age", "1h"]);
    assert!(code == Some(4) && held(&place.logs()).into_keys().eq([name.clone()]), "{said}");
}

/// An sshd, and a directory to be laid over root's `.ssh` that knows it as `store`.
struct Sshd {
    _child: Running,
    dir: tempfile::TempDir,
}

impl Sshd {
    fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("fanli-ship").tempdir_in("/var/tmp").unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = dir.path().display();
        sh(&format!(
            "mkdir -p {at}/ssh /run/sshd; chmod 700 {at}/ssh; ssh-keygen -q -t ed25519 -N '' -f {at}/host; \
             ssh-keygen -q -t ed25519 -N '' -f {at}/user; cp {at}/user.pub {at}/authorized; \
             echo \"[127.0.0.1]:{port} $(cut -d' ' -f1,2 {at}/host.pub)\" > {at}/ssh/known_hosts; \
             printf 'Host store\\n  HostName 127.0.0.1\\n  Port {port}\\n' > {at}/ssh/config; \
             printf 'ListenAddress 127.0.0.1:{port}\\nHostKey {at}/host\\nAuthorizedKeysFile {at}/authorized\\nUsePAM no\\nPidFile none\\nPermitRootLogin yes\\nStrictModes no\\n' > {at}/sshd_config"
        ));
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f"]).arg(dir.path().join("sshd_config")).stdin(Stdio::null()).stderr(Stdio::null());
        let sshd = Self { _child: Running(command.spawn().unwrap()), dir };
        until("sshd listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        sshd
    }
}

#[test]
fn a_host_that_ssh_reaches_stores_copies() {
    let (place, sshd) = (Place::new(40), Sshd::start());
    let before = held(&place.logs());
    let there = place.storage.path().join("new/weblogs");
    let keep = |key: &str| {
        let target = format!("root@store:{}", there.display());
        let keep = place.command(&target, &["--ship-key", key, "--age", "1h"]);
        let words = keep.get_args().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ");
        let script = format!(
            "mkdir -p /root/.ssh && mount --bind {}/ssh /root/.ssh && exec {} {words}",
            sshd.dir.path().display(),
            keep.get_program().to_str().unwrap()
        );
        let done = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
        let said = [done.stdout, done.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        println!("{said}");
        (said, done.status.code())
    };
    let (said, code) = keep("/nowhere/key");
    assert!(code == Some(4) && said.contains("Permission denied"), "{said}");
    assert_eq!(held(&place.logs()), before);
    let key = sshd.dir.path().join("user");
    let (said, code) = keep(key.to_str().unwrap());
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(held(&there), before);
    let (said, code) = keep(key.to_str().unwrap());
    assert_eq!((code, held(&place.logs()).len()), (Some(0), 0), "{said}");
    assert_eq!(held(&there), before);
}

/// A store that speaks S3, over a directory: each bucket is a directory below it.
pub(crate) struct Store {
    child: Running,
    pub(crate) port: u16,
    pub(crate) root: tempfile::TempDir,
}

impl Store {
    pub(crate) fn start() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("logs")).unwrap();
        let child = Self::spawn(root.path(), port);
        Self { child, port, root }
    }

    fn spawn(root: &Path, port: u16) -> Running {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).ancestors().nth(2).unwrap();
        let program = target.join("tools/bin/s3s-fs");
        assert!(program.exists(), "{} is missing: tests/run store", program.display());
        let mut store = Command::new(program);
        store.args([
            "--host",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--access-key",
            "AKID",
            "--secret-key",
            "secret",
        ]);
        let child = Running(store.arg(root).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        until("the store listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        child
    }

    pub(crate) fn kill(&mut self) {
        self.child.0.kill().unwrap();
        self.child.0.wait().unwrap();
    }

    fn again(&mut self) {
        self.child = Self::spawn(self.root.path(), self.port);
    }

    /// Writes a file with an account, for a store at this port.
    pub(crate) fn account(&self, secret: &str, port: u16) -> String {
        let path = self.root.path().join(format!("account-{secret}-{port}"));
        let text = format!(
            "[default]\naws_access_key_id = AKID\naws_secret_access_key = {secret}\nendpoint_url = http://127.0.0.1:{port}\n"
        );
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Passes on to the store what comes, but changes the lines in it. Gives the port.
    fn behind_a_wire_that_breaks_bits(&self) -> u16 {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (own, port) = (listener.local_addr().unwrap().port(), self.port);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(mut client), Ok(mut store)) = (client, std::net::TcpStream::connect(("127.0.0.1", port)))
                else {
                    return;
                };
                let (mut back, mut answers) = (client.try_clone().unwrap(), store.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut answers, &mut back));
                std::thread::spawn(move || {
                    let mut buffer = [0; 16 * 1024];
                    while let Ok(came @ 1..) = std::io::Read::read(&mut client, &mut buffer) {
                        let bytes = &mut buffer[..came];
                        let found = bytes.windows(4).rposition(|window| window == b"xxxx");
                        found.into_iter().for_each(|at| bytes[at] ^= 1);
                        if store.write_all(bytes).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        own
    }
}

#[test]
fn an_object_store_has_each_copy_once_and_none_that_was_damaged_on_the_way() {
    let (place, mut store) = (Place::new(60), Store::start());
    let before = held(&place.logs());
    let there = store.root.path().join("logs/web1");
    let keep = |place: &Place, account: &str, more: &[&str]| {
        place.keep_at("s3://logs/web1", &[&["--ship-key", account], more].concat())
    };
    let account = store.account("secret", store.port);
    let (said, code) = keep(&place, &store.account("wrong", store.port), &["--age", "1h"]);
    assert!(code == Some(4) && said.contains("403 Forbidden") && said.contains("key and secret"), "{said}");
    let broken = store.account("secret", store.behind_a_wire_that_breaks_bits());
    let (said, code) = keep(&place, &broken, &["--age", "1h"]);
    assert!(code == Some(4) && said.contains("BadDigest"), "{said}");
    store.kill();
    let (said, code) = keep(&place, &account, &["--age", "1h"]);
    assert!(code == Some(4) && said.contains("onnection refused"), "{said}");
    assert_eq!((held(&place.logs()), place.events()), (before.clone(), [0; 3]));
    // This store keeps what it has refused.
    fs::remove_dir_all(&there).unwrap();

    store.again();
    let (said, code) = keep(&place, &account, &["--pack", "gzip", "--pack-after", "3h"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(held(&there).len(), before.len() - 2);
    let (said, code) = keep(&place, &account, &[]);
    assert_eq!((code, held(&there)), (Some(0), before.clone()), "{said}");
    // Without a ledger what is there is found; one that is another is told and stays.
    fs::remove_dir_all(place.state()).unwrap();
    let seen = picture(&there);
    let victim = paths(&there).into_iter().find(|path| path.extension().is_some_and(|end| end == "gz")).unwrap();
    fs::write(&victim, "another one").unwrap();
    let (said, code) = keep(&place, &account, &[]);
    assert!(code == Some(4) && said.matches("is there already, with other content").count() == 1, "{said}");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "another one");
    assert_eq!(place.events(), [before.len() - 1, 0, 0]);
    assert_eq!(picture(&there).len(), seen.len());
    let (said, _) = keep(&place, &account, &["--age", "1h"]);
    assert_eq!(held(&place.logs()).len(), 1, "{said}");
}

#[test]
fn the_watcher_stores_copies_and_tries_again() {
    let mut place = Declared::new();
    let storage = tempfile::tempdir_in("/dev/shm").unwrap();
    let there = storage.path().join("logs");
    let files = place.files();
    let wanted = format!("pack = zstd  pack_after = 2h  age = 5h  ship = \"{}\"", there.display());
    let said = place.plays(&wanted);
    assert!(said.contains("ship"), "{said}");
    assert!(place.plays(&wanted).contains("nothing to do"));
    place.watch();
    let status = || place.fanli(&["status"]).0;
    until("it tells that the storage is away", || {
        let said = status();
        said.contains(&format!("copies      {} files", files - 1)) && said.contains("there is no directory")
    });
    assert_eq!(place.files(), files, "nothing goes without a copy");
    fs::create_dir(&there).unwrap();
    // A declaration that changed is looked at right away, not after the pause.
    place.plays(&wanted.replace("5h", "6h"));
    until("all are stored", || held(&there).len() == files - 1);
    until("it is told", || status().contains("copies      all are stored"));
    let log = fs::read_to_string(place.path("watch.log")).unwrap();
    assert!(log.contains(&format!("copies of {} files stored", files - 1)), "{log}");
    // What has a copy goes with the next look.
    place.plays(&wanted);
    until("the old ones go", || place.files() == files - 2);
    assert_eq!(held(&there).len(), files - 1);
    for (limits, says) in [
        ("age = 1d  unshipped = drop", "goes with `ship`"),
        ("ship = \"logs\"", "is no target"),
        ("ship = \"s3://logs\"", "must name the file with the account"),
        ("ship = \"/mnt/logs\"  ship_key = \"/etc/key\"", "goes with rsync"),
        ("ship = \"a@b:/c\"  ship_key = \"/etc/a key\"", "holds a character"),
    ] {
        let (said, code) = place.play("weblogs", limits);
        assert!(code == Some(2) && said.contains(says), "{said}");
    }
}

#[test]
fn names_that_are_swapped_while_copies_are_made_give_nothing_away() {
    let (place, outside) = (Place::new(40), tempfile::tempdir().unwrap());
    let daemon = Daemon::start(place.storage.path());
    let secret = outside.path().join("secret");
    fs::write(&secret, "a secret of root\n").unwrap();
    let (victims, saved) = (segments(&place.logs()), tempfile::tempdir_in(place.dir.path()).unwrap());
    let (swaps, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let wanted = moments(20_000, 100_000);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let aside = saved.path().join("aside");
            while !stop.load(Ordering::Relaxed) {
                let turn = swaps.fetch_add(1, Ordering::Relaxed);
                let victim = &victims[turn % victims.len()];
                if fs::rename(victim, &aside).is_err() {
                    continue;
                }
                let _ = if turn % 2 == 0 { symlink(&secret, victim) } else { fs::hard_link(&secret, victim) };
                std::thread::yield_now();
                let _ = fs::rename(&aside, victim);
            }
        });
        let key = daemon.key();
        while swaps.load(Ordering::Relaxed) < wanted {
            fs::remove_dir_all(place.state()).unwrap_or_default();
            sh(&format!("cd {} && rm -rf web1 *.log .*.seal .*.new", place.storage.path().display()));
            let target = daemon.target();
            let local = place.storage.path().to_str().unwrap().to_owned();
            for (target, more) in [(target.as_str(), &["--ship-key", &key][..]), (&local, &[])] {
                let mut sending =
                    place.command(target, more).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
                let started = Instant::now();
                while sending.try_wait().unwrap().is_none() {
                    assert!(started.elapsed() < Duration::from_secs(60), "it hangs");
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
            let found =
                Command::new("grep").args(["-rl", "a secret of root"]).arg(place.storage.path()).output().unwrap();
            assert!(found.stdout.is_empty(), "{found:?}");
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::read_to_string(&secret).unwrap(), "a secret of root\n");
}

/// Nothing goes without its line in the ledger, which may be on the same full disk.
#[test]
fn a_full_disk_is_freed_although_the_ledger_is_on_it() {
    apart("log_ship::a_full_disk_is_freed_although_the_ledger_is_on_it", || {
        let disk = folder().join("disk");
        sh(&format!("mkdir {0}; mount -t tmpfs -o size=80m fanli-test {0}", disk.display()));
        let place =
            Place { dir: tempfile::tempdir_in(&disk).unwrap(), storage: tempfile::tempdir_in("/dev/shm").unwrap() };
        let logs = place.logs();
        fs::create_dir(&logs).unwrap();
        written(&logs, 60);
        place.keeps(&[]);
        let ballast = place.state().join("ledger/ballast");
        assert_eq!(fs::metadata(&ballast).unwrap().blocks() * 512, 1 << 20);
        assert_eq!(fs::metadata(&ballast).unwrap().mode() & 0o777, 0o600);
        // Full to the last page, with more to write down than the ledger's last page takes.
        written(&logs, 400);
        let count = segments(&logs).len();
        sh(&format!("dd if=/dev/zero of={0}/filler bs=4k 2>&1 || true; df {0}", disk.display()));
        let (said, code) = place.keep(&[]);
        assert!(code == Some(0) && !said.contains("without a copy"), "{said}");
        assert!(!ballast.exists() && segments(&logs).len() == count, "{said}");
        let (said, code) = place.keep(&["--count", "1"]);
        assert_eq!((segments(&logs).len(), code), (1, Some(0)), "{said}");
        // It is taken again once there is room.
        assert!(!ballast.exists());
        fs::remove_file(disk.join("filler")).unwrap();
        place.keeps(&[]);
        assert!(ballast.exists());
    });
}
