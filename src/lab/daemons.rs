//! The first process, sshd and dockerd of a host: started when they do not answer, and waited for.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::inside::READY;
use super::layout::{Host, Lab};
use super::process;
use super::tools::{tool, wait_until};
use crate::failure::{Context, Failure};

/// How long a host may take for its mounts.
const HOST_READY: Duration = Duration::from_secs(20);
/// How long sshd may take to answer.
const SSHD_READY: Duration = Duration::from_secs(20);
/// How long dockerd may take to answer: it starts the containers of its former life first.
const DOCKERD_READY: Duration = Duration::from_secs(60);
/// How long one question to a daemon may take.
const ANSWER: Duration = Duration::from_secs(2);

/// Starts what does not run on the host yet; says whether anything was started.
///
/// # Errors
/// When something cannot be started or does not answer in time; the hint names its log.
pub(super) fn ensure(host: &Host) -> Result<bool, Failure> {
    let (first, started) = match process::first(host) {
        Some(pid) => (pid, false),
        None => (start_first(host)?, true),
    };
    let ssh = !ssh_answers(host);
    if ssh {
        enter(first, host, &["/usr/sbin/sshd", "-f", "/run/sshd/sshd_config", "-E", "/var/log/sshd.log"])?;
    }
    let docker = !docker_answers(host);
    if docker {
        enter(first, host, &["dockerd", "--host", "unix:///run/docker.sock"])?;
    }
    let log = |name: &str| format!("its log: {}/overlay/var-log/upper/{name}", host.dir.display());
    wait_until("lab.sshd", SSHD_READY, || ssh_answers(host))
        .map_err(|failure| failure.within(format!("sshd of {} does not answer", host.name)).hint(log("sshd.log")))?;
    wait_until("lab.dockerd", DOCKERD_READY, || docker_answers(host)).map_err(|failure| {
        failure.within(format!("dockerd of {} does not answer", host.name)).hint(log("dockerd.log"))
    })?;
    Ok(started || ssh || docker)
}

/// Starts the host's first process in namespaces of its own.
fn start_first(host: &Host) -> Result<u32, Failure> {
    // Whoever is left of a former life would hold its files.
    process::of_host(host).into_iter().for_each(process::kill);
    let log_path = host.dir.join("host.log");
    let log = File::create(&log_path).with_context(|| format!("cannot write {}", log_path.display()))?;
    let fanli = std::env::current_exe().context("cannot find my own program")?;
    let mut child = Command::new("setsid")
        .arg("nsenter")
        .arg(format!("--net={}", host.netns().display()))
        .args(["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--"])
        .arg(fanli)
        .args(["lab", "host", "--name", &host.name, "--dir"])
        .arg(&host.dir)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .context("cannot start setsid")?;
    let failed = || {
        let said = fs::read_to_string(&log_path).unwrap_or_default();
        Failure::new(format!("{} does not start", host.name))
            .because(said.trim())
            .hint(format!("its log: {}", log_path.display()))
    };
    let Some(answer) = child.stdout.take() else { return Err(failed()) };
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = BufReader::new(answer).read_line(&mut line);
        let _ = send.send(line);
    });
    match receive.recv_timeout(HOST_READY) {
        Ok(line) if line.trim() == READY => process::first(host).ok_or_else(failed),
        Ok(_) => Err(failed()),
        Err(_) => Err(Failure::timeout("lab.host", HOST_READY).within(format!("{} does not start", host.name))),
    }
}

/// Starts a daemon inside the host, as a child of its first process, with its output in the host's /var/log.
fn enter(first: u32, host: &Host, daemon: &[&str]) -> Result<(), Failure> {
    let target = first.to_string();
    let name = daemon.first().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    let log_path = host.dir.join(format!("overlay/var-log/upper/{name}.log"));
    // Through the first process's own view: writing below an overlay's upper folder is undefined.
    let log_inside = format!("/proc/{first}/root/var/log/{name}.log");
    let log = File::options()
        .create(true)
        .append(true)
        .open(&log_inside)
        .with_context(|| format!("cannot write {}", log_path.display()))?;
    let error = log.try_clone().context("cannot share a log")?;
    let status = Command::new("nsenter")
        .args(["--target", &target, "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd=/", "--"])
        .args(["setsid", "--fork"])
        .args(daemon)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(error)
        .status()
        .context("cannot start nsenter")?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("cannot start {name} on {}", host.name)).because(status))
}

/// Whether the host's sshd says who it is.
pub(super) fn ssh_answers(host: &Host) -> bool {
    let greeting = || -> std::io::Result<[u8; 4]> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((host.address, 22)), ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        let mut start = [0; 4];
        stream.read_exact(&mut start)?;
        Ok(start)
    };
    greeting().is_ok_and(|start| &start == b"SSH-")
}

/// Whether the host's dockerd answers on its socket.
pub(super) fn docker_answers(host: &Host) -> bool {
    let ping = || -> std::io::Result<String> {
        let mut stream = UnixStream::connect(host.docker())?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ping().is_ok_and(|answer| answer.contains("200 OK"))
}

/// The lab's key, the hosts' keys, and everything ssh needs to reach them without a question.
///
/// # Errors
/// When a key or a file cannot be written.
pub(super) fn keys(lab: &Lab, hosts: &[Host]) -> Result<(), Failure> {
    let key = lab.dir.join("key");
    make_key(&key, "fanli-lab")?;
    let public = read(&key.with_extension("pub"))?;
    let (mut config, mut known) = (String::new(), String::new());
    for host in hosts {
        let ssh = host.dir.join("ssh");
        fs::create_dir_all(&ssh).with_context(|| format!("cannot make {}", ssh.display()))?;
        make_key(&ssh.join("host_key"), &host.name)?;
        write(&ssh.join("authorized_keys"), &public)?;
        write(&ssh.join("sshd_config"), SSHD_CONFIG)?;
        let host_key = read(&ssh.join("host_key.pub"))?;
        let (kind, rest) = host_key.split_once(' ').unwrap_or_default();
        let bytes = rest.split(' ').next().unwrap_or_default().trim();
        let (name, address) = (&host.name, host.address);
        let _ = writeln!(known, "{name},{address} {kind} {bytes}");
        let _ = writeln!(config, "Host {name} {address}\n  HostName {address}\n");
    }
    let dir = lab.dir.display();
    let _ = write!(
        config,
        "Host *\n  User root\n  IdentityFile {dir}/key\n  IdentitiesOnly yes\n  UserKnownHostsFile {dir}/known_hosts\n  \
         GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n  UpdateHostKeys no\n  KexAlgorithms curve25519-sha256\n"
    );
    write(&lab.dir.join("known_hosts"), &known)?;
    write(&lab.ssh_config(), &config)?;
    write(&lab.dir.join("hosts.fp"), &inventory(lab, hosts))
}

/// The hosts as an inventory: `import` it, or copy it into an environment file.
fn inventory(lab: &Lab, hosts: &[Host]) -> String {
    let line = |host: &Host| {
        format!(
            "  host \"{}\" {{ address = {}  config = \"{}\" }}\n",
            host.name,
            host.address,
            lab.ssh_config().display()
        )
    };
    let lines: String = hosts.iter().map(line).collect();
    format!("# The hosts of `fanli lab up {} --name {}`.\nhosts docker {{\n{lines}}}\n", hosts.len(), lab.name)
}

/// No passwords, no PAM, no lookups: a key opens it, and nothing else. Runs ask for many sessions at once in tests.
const SSHD_CONFIG: &str = "\
Port 22
HostKey /run/sshd/host_key
AuthorizedKeysFile /run/sshd/authorized_keys
PidFile /run/sshd.pid
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
MaxStartups 100
MaxSessions 100
Subsystem sftp internal-sftp
";

fn make_key(path: &Path, comment: &str) -> Result<(), Failure> {
    if path.exists() && path.with_extension("pub").exists() {
        return Ok(());
    }
    let _ = fs::remove_file(path);
    let name = path.display().to_string();
    tool("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", &name]).map(drop)
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, content: &str) -> Result<(), Failure> {
    let failed = || format!("cannot write {}", path.display());
    fs::write(path, content).with_context(failed)?;
    // sshd and ssh refuse files that others may write.
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).with_context(failed)
}
