//! A no-op re-run of a play with 30 tasks over N SSH hosts, beside the floor (parallel `ssh HOST true`) and beside one
//! `ssh HOST sh -s` with a script that does the same 30 things.
//!
//!     cargo bench --bench ssh_hosts              1, 10 and 50 hosts
//!     cargo bench --bench ssh_hosts -- 1 10
//!
//! One sshd on 127.0.0.0/8 plays all hosts, so controller and hosts share this machine's processors, and each host has a folder
//! and a helper of its own. Times are medians of rounds in which the three take turns; only their ratios mean something.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The program that is measured: another one than cargo's when the environment says so.
fn fanli() -> String {
    std::env::var("FANLI_UNDER_TEST").unwrap_or_else(|_| env!("CARGO_BIN_EXE_fanli").to_owned())
}

const PORT: &str = "2322";

/// The folder of a bench, its sshd, and the end of both.
struct Lab {
    dir: tempfile::TempDir,
    sshd: Child,
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
    }
}

fn address(host: usize) -> String {
    format!("127.0.{}.{}", 1 + host / 250, 1 + host % 250)
}

fn must(command: &mut Command) {
    let done = command.output().unwrap();
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}

impl Lab {
    fn start(hosts: usize) -> Self {
        assert!(rustix::process::geteuid().is_root(), "the bench needs root: fanli's helper is stored as root");
        let dir = tempfile::Builder::new().prefix("fanli-bench").tempdir_in("/var/tmp").unwrap();
        let path = |name: &str| dir.path().join(name);
        for key in ["key", "host_key"] {
            must(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path(key)));
        }
        fs::copy(path("key.pub"), path("authorized_keys")).unwrap();
        let at = dir.path().display();
        let config = format!(
            "Port {PORT}\nListenAddress 127.0.0.1\nHostKey {at}/host_key\nAuthorizedKeysFile {at}/authorized_keys\nPidFile {at}/pid\n\
             UsePAM no\nSetEnv HOME=/nonexistent\nStrictModes no\nUseDNS no\nMaxStartups 1000\nMaxSessions 100\nListenAddress 0.0.0.0\n"
        );
        // One socket on all of 127.0.0.0/8: that is every address here, so it is bound to all and closed to the outside by its keys.
        fs::write(path("sshd_config"), config.replace("ListenAddress 127.0.0.1\n", "")).unwrap();
        let public = fs::read_to_string(path("host_key.pub")).unwrap();
        let public = public.split(' ').take(2).collect::<Vec<_>>().join(" ");
        let (mut known, mut ssh) = (String::new(), String::new());
        let (mut inventory, mut names) = (String::from("hosts bench {\n"), Vec::new());
        for host in 0..hosts {
            let (name, address) = (format!("h{host}"), address(host));
            let _ = writeln!(known, "[{address}]:{PORT} {public}");
            let _ = writeln!(ssh, "Host {name}\n  HostName {address}");
            let _ = writeln!(inventory, "  host \"{name}\" {{ config = \"{at}/ssh_config\" }}");
            names.push(name);
        }
        let _ = write!(
            ssh,
            "Host *\n  Port {PORT}\n  User root\n  IdentityFile {at}/key\n  IdentitiesOnly yes\n  UserKnownHostsFile {at}/known_hosts\n  \
             GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n  UpdateHostKeys no\n  LogLevel ERROR\n"
        );
        fs::write(path("known_hosts"), known).unwrap();
        fs::write(path("ssh_config"), ssh).unwrap();
        inventory.push_str("}\n");
        fs::create_dir(path("templates")).unwrap();
        fs::write(path("templates/t.conf"), "# {{ host.name }} {{ number }}\nlisten = {{ 8000 + number }}\n").unwrap();
        fs::write(path("play.fp"), inventory + &PLAY.replace("ROOT", &format!("{at}/hosts"))).unwrap();
        fs::create_dir(path("hosts")).unwrap();
        for name in &names {
            fs::create_dir(path("hosts").join(name)).unwrap();
        }
        fs::create_dir_all("/run/sshd").unwrap();
        let log = File::create(path("sshd.log")).unwrap();
        let sshd = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(path("sshd_config"))
            .stderr(log)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let lab = Self { dir, sshd };
        let started = Instant::now();
        while std::net::TcpStream::connect(format!("{}:{PORT}", address(0))).is_err() {
            assert!(
                started.elapsed() < Duration::from_secs(10),
                "sshd does not answer: see {}",
                lab.path("sshd.log").display()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Every host at once: `ssh HOST COMMAND`, with a script on its standard input.
    fn ssh_all(&self, hosts: usize, command: &[&str], script: Option<&Path>) -> Duration {
        let started = Instant::now();
        let all: Vec<Child> = (0..hosts)
            .map(|host| {
                let stdin = script.map_or_else(Stdio::null, |script| {
                    Stdio::from(File::open(script.join(format!("h{host}.sh"))).unwrap())
                });
                Command::new("ssh")
                    .arg("-F")
                    .arg(self.path("ssh_config"))
                    .arg(format!("h{host}"))
                    .args(command)
                    .stdin(stdin)
                    .stdout(Stdio::null())
                    .spawn()
                    .unwrap()
            })
            .collect();
        for mut child in all {
            assert!(child.wait().unwrap().success(), "ssh failed");
        }
        started.elapsed()
    }

    fn play(&self, hosts: usize) -> (Duration, String) {
        let limit: Vec<String> = (0..hosts).map(|host| format!("h{host}")).collect();
        let started = Instant::now();
        let done = Command::new(fanli())
            .arg("play")
            .arg(self.path("play.fp"))
            .args(["--limit", &limit.join(","), "--state-dir"])
            .arg(self.path("hosts/%h/state"))
            .output()
            .unwrap();
        let took = started.elapsed();
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success(), "{text}{}", String::from_utf8_lossy(&done.stderr));
        (took, text)
    }

    /// The script that does by hand what the play declares, one for each host.
    fn scripts(&self, hosts: usize) -> PathBuf {
        let dir = self.path("scripts");
        fs::create_dir_all(&dir).unwrap();
        for host in 0..hosts {
            let root = self.path("hosts").join(format!("h{host}")).join("t");
            fs::write(dir.join(format!("h{host}.sh")), script(&root.display().to_string(), host)).unwrap();
        }
        dir
    }
}

/// 30 tasks: 10 directories, 5 templates, 3 files, 2 guarded commands, a line, a link, 8 more.
const PLAY: &str = r#"
play "thirty tasks" on hosts.bench {
  root = "ROOT/{{ host.name }}/t"
  for number in range(10) {
    directory "{{ root }}/d{{ number }}" { mode = 0755 }
  }
  for number in range(5) {
    template "{{ root }}/d0/t{{ number }}.conf" { source = "templates/t.conf"  mode = 0644 }
  }
  for number in range(3) {
    file "{{ root }}/d1/f{{ number }}" { content = "file {{ number }}\n"  mode = 0644 }
  }
  for number in range(2) {
    command ["touch", "{{ root }}/d2/c{{ number }}"] { creates = "{{ root }}/d2/c{{ number }}" }
  }
  line "{{ root }}/d2/settings" { line = "one more = yes"  create = true }
  link "{{ root }}/current" { to = "d0" }
  for number in range(4) {
    file "{{ root }}/d3/g{{ number }}" { content = "more {{ number }}\n"  mode = 0600 }
  }
  for number in range(4) {
    link "{{ root }}/d4/l{{ number }}" { to = "../d3/g{{ number }}" }
  }
}
"#;

/// The same in a shell, written as a careful administrator would: look first, change only what differs.
fn script(root: &str, host: usize) -> String {
    let mut text = format!(
        "set -eu\nroot={root}\nchanged=0\n\
         dir() {{ [ -d \"$1\" ] && [ \"$(stat -c %a \"$1\")\" = 755 ] || {{ mkdir -p \"$1\"; chmod 755 \"$1\"; changed=$((changed + 1)); }}; }}\n\
         put() {{ new=$(cat; echo x); [ -f \"$1\" ] && [ \"$(cat \"$1\"; echo x)\" = \"$new\" ] && [ \"$(stat -c %a \"$1\")\" = \"$2\" ] || {{ printf %s \"${{new%x}}\" > \"$1.new\"; chmod \"$2\" \"$1.new\"; mv \"$1.new\" \"$1\"; changed=$((changed + 1)); }}; }}\n\
         to() {{ [ \"$(readlink \"$1\" || :)\" = \"$2\" ] || {{ ln -sfn \"$2\" \"$1\"; changed=$((changed + 1)); }}; }}\n"
    );
    for number in 0..10 {
        let _ = writeln!(text, "dir \"$root/d{number}\"");
    }
    for number in 0..5 {
        let _ = writeln!(
            text,
            "put \"$root/d0/t{number}.conf\" 644 <<'END'\n# h{host} {number}\nlisten = {}\nEND",
            8000 + number
        );
    }
    for number in 0..3 {
        let _ = writeln!(text, "put \"$root/d1/f{number}\" 644 <<'END'\nfile {number}\nEND");
    }
    for number in 0..2 {
        let _ = writeln!(text, "[ -e \"$root/d2/c{number}\" ] || touch \"$root/d2/c{number}\"");
    }
    let _ = writeln!(
        text,
        "grep -qxF 'one more = yes' \"$root/d2/settings\" || echo 'one more = yes' >> \"$root/d2/settings\""
    );
    let _ = writeln!(text, "to \"$root/current\" d0");
    for number in 0..4 {
        let _ = writeln!(text, "put \"$root/d3/g{number}\" 600 <<'END'\nmore {number}\nEND");
        let _ = writeln!(text, "to \"$root/d4/l{number}\" ../d3/g{number}");
    }
    text.push_str("echo changed=$changed\n");
    text
}

/// The most memory that processes below this one, and below sshd, had together: proportional, so that shared pages count once.
struct Memory {
    over: AtomicBool,
    most: AtomicU64,
}

impl Memory {
    fn watch(&self, sshd: u32) {
        while !self.over.load(Ordering::Relaxed) {
            let own = std::process::id();
            let mut family = BTreeSet::from([own, sshd]);
            let mut parents = Vec::new();
            for entry in fs::read_dir("/proc").unwrap().flatten() {
                let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
                // A master of ssh has gone into the background: its parent is process 1.
                let master = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default().starts_with(b"ssh\0-E");
                parents.push((pid, if master { own } else { parent.unwrap_or(0) }));
            }
            loop {
                let before = family.len();
                family.extend(
                    parents
                        .iter()
                        .filter(|(_, parent)| family.contains(parent))
                        .map(|(pid, _)| *pid)
                        .collect::<Vec<_>>(),
                );
                if family.len() == before {
                    break;
                }
            }
            family.remove(&own);
            let sum: u64 = family.iter().map(|pid| pss(*pid)).sum();
            self.most.fetch_max(sum, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn pss(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("Pss:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

/// The most memory while something runs, in MiB.
fn memory_of(sshd: u32, work: impl FnOnce()) -> u64 {
    let memory = Memory { over: AtomicBool::new(false), most: AtomicU64::new(0) };
    std::thread::scope(|scope| {
        scope.spawn(|| memory.watch(sshd));
        work();
        memory.over.store(true, Ordering::Relaxed);
    });
    memory.most.load(Ordering::Relaxed) / 1024
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

fn main() {
    let counts: Vec<usize> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let counts = if counts.is_empty() { vec![1, 10, 50] } else { counts };
    let most = counts.iter().copied().max().unwrap_or(1);
    let lab = Lab::start(most);
    let scripts = lab.scripts(most);
    let (first, _) = lab.play(most);
    let (second, text) = lab.play(most);
    assert!(text.contains("nothing to do"), "a second run is no no-op: {text}");
    println!(
        "first run over {most} hosts, helper and all: {:.2} s; the second: {:.2} s\n",
        first.as_secs_f64(),
        second.as_secs_f64()
    );
    println!(
        "hosts   floor s  script s   fanli s   script/floor  fanli/floor  fanli/script   MiB: floor  script  fanli"
    );
    for hosts in counts {
        let rounds = if hosts >= 50 { 7 } else { 15 };
        let (mut floor, mut script, mut fanli) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            floor.push(lab.ssh_all(hosts, &["true"], None));
            script.push(lab.ssh_all(hosts, &["sh", "-s"], Some(&scripts)));
            let (took, text) = lab.play(hosts);
            assert!(text.contains("nothing to do"), "{text}");
            fanli.push(took);
        }
        let (floor, script, fanli) = (median(floor), median(script), median(fanli));
        let sshd = lab.sshd.id();
        let memory = [
            memory_of(sshd, || _ = lab.ssh_all(hosts, &["true"], None)),
            memory_of(sshd, || _ = lab.ssh_all(hosts, &["sh", "-s"], Some(&scripts))),
            memory_of(sshd, || drop(lab.play(hosts))),
        ];
        println!(
            "{hosts:>5}  {floor:>8.3}  {script:>8.3}  {fanli:>8.3}  {:>13.2}  {:>11.2}  {:>12.2}  {:>11}  {:>6}  {:>5}",
            script / floor,
            fanli / floor,
            fanli / script,
            memory[0],
            memory[1],
            memory[2],
        );
    }
}
