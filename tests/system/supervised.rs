//! A real supervisor with a real Apache, in a mount, network and process namespace of its own: what a container has, without
//! Docker. Everything in it ends with its first process.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take on a machine that does much else.
const LONG: Duration = Duration::from_secs(180);

/// Asks Apache for a page; its headers are told, too.
pub const ASK: &str = r"printf 'GET / HTTP/1.0\r\n\r\n' | timeout 20 busybox nc 127.0.0.1 8080 || true";

/// Waits until something is so; says what it was waiting for when it never is.
#[track_caller]
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < LONG, "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Apache's configuration; `mark` is what it then answers in a header, and nothing but what it has loaded tells it.
pub fn httpd_conf(mark: &str) -> String {
    format!(
        "ServerRoot /mnt/frl\nServerName frl\nPidFile /run/apache.pid\nListen 127.0.0.1:8080\nErrorLog /run/error.log\n\
         User www-data\nGroup www-data\n\
         LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so\n\
         LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so\n\
         LoadModule headers_module /usr/lib/apache2/modules/mod_headers.so\n\
         LoadModule alias_module /usr/lib/apache2/modules/mod_alias.so\n\
         StartServers 1\nMinSpareThreads 1\nThreadsPerChild 5\nMaxRequestWorkers 10\nDocumentRoot /mnt/frl/www\n\
         Header always set X-Mark {mark}\n"
    )
}

/// A program of supervisor.
pub fn program(name: &str, command: &str, more: &str) -> String {
    format!(
        "[program:{name}]\ncommand = {command}\nstartsecs = 1\nredirect_stderr = true\n\
         stdout_logfile = /run/{name}.log\nstdout_logfile_maxbytes = 0\n{more}\n"
    )
}

/// Supervisor's own configuration and its folder of programs, below `dir`; the place is `/mnt/frl` inside.
pub fn lay_out(dir: &Path) {
    // Apache's workers are not root.
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    for sub in ["run", "conf", "www", "programs"] {
        fs::create_dir_all(dir.join(sub)).unwrap();
    }
    fs::write(dir.join("www/index.html"), "here\n").unwrap();
    fs::write(
        dir.join("supervisord.conf"),
        "[supervisord]\nnodaemon = true\nuser = root\npidfile = /run/supervisord.pid\nlogfile = /run/supervisord.log\n\
         [unix_http_server]\nfile = /run/supervisor.sock\nchmod = 0700\n\
         [rpcinterface:supervisor]\nsupervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n\
         [supervisorctl]\nserverurl = unix:///run/supervisor.sock\n[include]\nfiles = /mnt/frl/programs/*.conf\n",
    )
    .unwrap();
}

/// Apache as supervisor's program, with a configuration at `conf` (inside).
pub fn apache(conf: &str, more: &str) -> String {
    program("apache2", &format!("/usr/sbin/apache2 -f {conf} -D FOREGROUND"), &format!("stopsignal = WINCH\n{more}"))
}

/// The namespaces, with supervisor as their first process.
pub struct Cell {
    pub dir: tempfile::TempDir,
    outer: Child,
    pid: u32,
}

impl Cell {
    /// Starts what `dir` has, which stands at `/mnt/frl` inside and has its `run` at `/run`.
    pub fn start(dir: tempfile::TempDir) -> Self {
        let place = dir.path().display();
        // The place is in memory that this namespace alone has.
        let script = format!(
            "mount --make-rprivate /; mount -t tmpfs frl /mnt; mkdir /mnt/frl; mount --bind {place} /mnt/frl; \
             mount --bind {place}/run /run; mount -t proc proc /proc; ip link set lo up; \
             exec supervisord -n -c /mnt/frl/supervisord.conf"
        );
        let outer = Command::new("unshare")
            .args(["-m", "-n", "-p", "--fork", "--kill-child=SIGKILL", "sh", "-ec", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let children = format!("/proc/{0}/task/{0}/children", outer.id());
        let pid = wait_for("the first process", || fs::read_to_string(&children).ok()?.trim().parse().ok());
        let cell = Self { dir, outer, pid };
        wait_for("supervisor's socket", || cell.path("run/supervisor.sock").exists().then_some(()));
        cell
    }

    pub fn path(&self, inside: &str) -> PathBuf {
        self.dir.path().join(inside)
    }

    pub fn write(&self, inside: &str, text: &str) {
        let path = self.path(inside);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn read(&self, inside: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.path(inside)).unwrap_or_default()).into_owned()
    }

    pub fn sh(&self, script: &str) -> Output {
        let pid = self.pid.to_string();
        Command::new("nsenter").args(["-t", &pid, "-m", "-n", "-p", "sh", "-ec", script]).output().unwrap()
    }

    /// The state and the process number that supervisor tells of a program.
    pub fn told(&self, program: &str) -> (String, String) {
        let said = self.sh(&format!("supervisorctl -c /mnt/frl/supervisord.conf status {program} || true"));
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let mut words = said.split_whitespace().skip(1);
        let state = words.next().unwrap_or_default().to_owned();
        let pid = words.nth(1).unwrap_or_default().trim_end_matches(',').to_owned();
        (state, pid)
    }

    pub fn is(&self, program: &str, state: &str) {
        wait_for(&format!("{program} is {state}"), || (self.told(program).0 == state).then_some(()));
    }

    /// What Apache has loaded; nothing when it does not answer.
    pub fn mark(&self) -> Option<String> {
        let said = self.sh(ASK);
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        said.lines().find_map(|line| line.trim().strip_prefix("X-Mark: ").map(str::to_owned))
    }

    #[track_caller]
    pub fn serves(&self, mark: &str) {
        wait_for(&format!("Apache serves {mark}"), || (self.mark().as_deref() == Some(mark)).then_some(()));
    }

    /// How many times Apache was told to reload.
    pub fn graceful(&self) -> usize {
        self.read("run/error.log").matches("SIGUSR1 received").count()
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for log in ["refresh.log", "apache2.log", "error.log", "supervisord.log"] {
                println!("== {log}\n{}", self.read(&format!("run/{log}")));
            }
        }
        // With the first process of their namespace all others end.
        let _ = Command::new("kill").args(["-9", &self.pid.to_string()]).status();
        let _ = self.outer.wait();
    }
}
