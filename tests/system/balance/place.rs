//! A place of its own: network, processes and mounts, with real servers in it. Killing its first process ends everything.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use fanli::value::{Map, Value};

use crate::drive::{Drive, Report, Task};

/// How long anything may take that a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub struct Place {
    outer: Child,
    /// Its first process, as this machine counts.
    pub pid: u32,
    dir: tempfile::TempDir,
    started: Vec<Child>,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("fbl").tempdir_in("/tmp").unwrap();
        // Servers that run as another user read from here.
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let ready = dir.path().join("up");
        let script = format!("ip link set lo up; touch {}; exec sleep infinity", ready.display());
        let outer = Command::new("unshare")
            .args(["-m", "-u", "-n", "-p", "--fork", "--kill-child", "--mount-proc", "sh", "-ec", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut place = Self { pid: 0, outer, dir, started: Vec::new() };
        until("the place is there", || ready.exists());
        let children = format!("/proc/{0}/task/{0}/children", place.outer.id());
        place.pid = std::fs::read_to_string(children).unwrap().trim().parse().unwrap();
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text.replace("DIR", self.dir.path().to_str().unwrap())).unwrap();
    }

    fn command(&self, argv: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid.to_string(), "-m", "-u", "-n", "-p", "--"]);
        command.args(argv.iter().map(|word| word.replace("DIR", self.dir.path().to_str().unwrap())));
        command
    }

    /// Starts a server that stays in the foreground.
    pub fn start(&mut self, argv: &[&str]) {
        let log = std::fs::File::options().append(true).create(true).open(self.path("servers.log")).unwrap();
        let mut command = self.command(argv);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.started.push(command.spawn().unwrap());
    }

    pub fn sh(&self, script: &str) -> Output {
        self.command(&["sh", "-ec", script]).output().unwrap()
    }

    pub fn must(&self, script: &str) -> String {
        let done = self.sh(script);
        let told = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{script}: {told}\n{}", self.log());
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("servers.log")).unwrap_or_default()
    }

    pub fn drive(&self) -> Drive {
        Drive { state_dir: self.text("state"), own_processes: true, threads: 1, ..Drive::new(self.pid) }
    }

    pub fn run(&self, task: &Task) -> Report {
        self.drive().one(task)
    }

    /// What a task that must fail says, with nothing in it that differs from run to run.
    pub fn refusal(&self, task: &Task) -> String {
        let report = self.run(task);
        let failure = report.failed();
        let mut told = vec![failure.message.clone()];
        told.extend(failure.causes.iter().map(|cause| format!("  {cause}")));
        told.extend(failure.hint.iter().map(|hint| format!("  hint: {hint}")));
        numberless(&told.join("\n").replace(self.dir.path().to_str().unwrap(), "DIR"))
    }

    /// An Apache with a configuration of its own; its process number is in `NAME/pid`.
    pub fn apache(&mut self, name: &str, config: &str) {
        self.write(&format!("{name}/httpd.conf"), config);
        self.start(&["apache2", "-f", &format!("DIR/{name}/httpd.conf"), "-DFOREGROUND"]);
    }

    /// Ends an Apache at once, as a restart does, and waits until it is gone.
    pub fn end(&self, name: &str) {
        let pid = std::fs::read_to_string(self.path(&format!("{name}/pid"))).unwrap();
        self.must(&format!(
            "kill {0}; while kill -0 {0} 2>/dev/null && ! grep -q 'State:.Z' /proc/{0}/status; do sleep 0.05; done",
            pid.trim()
        ));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // `--kill-child`: the first process inside goes with it, and all others with that one.
        let _ = self.outer.kill();
        let _ = self.outer.wait();
        for child in &mut self.started {
            let _ = child.wait();
        }
    }
}

/// An Apache that serves a folder at an address, with more lines.
pub fn apache_config(name: &str, address: &str, more: &str) -> String {
    let modules = ["mpm_event", "authz_core", "headers", "dir"]
        .map(|module| format!("LoadModule {module}_module /usr/lib/apache2/modules/mod_{module}.so\n"))
        .concat();
    format!(
        "{modules}ServerRoot DIR/{name}\nServerName {name}\nListen {address}\nPidFile DIR/{name}/pid\nErrorLog DIR/{name}/error.log\n\
         DefaultRuntimeDir DIR/{name}\nDocumentRoot DIR/www\nUser www-data\nGroup www-data\nDirectoryIndex index.html\n\
         StartServers 2\nServerLimit 16\nThreadsPerChild 16\nMaxRequestWorkers 64\n{more}"
    )
}

/// Numbers of processes, ports that the kernel chose and ages say nothing.
fn numberless(text: &str) -> String {
    let (mut out, mut after) = (String::new(), "");
    for word in text.split_inclusive([' ', '\n']) {
        let bare = word.trim().trim_end_matches([',', ')']);
        let age = bare.strip_suffix('s').is_some_and(|number| number.parse::<u32>().is_ok());
        let number =
            bare.parse::<u32>().is_ok() && (after == "process" || after == "(process" || after.ends_with("),"));
        let kept = if number {
            word.replace(bare, "PID")
        } else if age && after == "started" {
            word.replace(bare, "AGE")
        } else {
            word.to_owned()
        };
        out.push_str(&kept);
        after = word.trim();
    }
    out
}

pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A task whose arguments are one map.
pub fn task(kind: &str, args: Map) -> Task {
    Task { kind: kind.to_owned(), args }
}

/// The state that a `backend` shows.
pub fn state(report: &Report) -> String {
    assert!(report.failure.is_none(), "{}", report.failure.as_ref().unwrap());
    report.output["state"].to_string()
}

pub fn seconds(number: u64) -> Value {
    Value::Duration(Duration::from_secs(number))
}

pub fn millis(number: u64) -> Value {
    Value::Duration(Duration::from_millis(number))
}

/// Holds a message to its snapshot.
pub fn compare(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(Path::new("../snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}
