//! `lab up`: the switch, the cables, then all hosts side by side.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::layout::{Host, Lab, PRIVATE};
use super::switch::{self, FORWARD};
use super::tools::{installed, together, tool, tool_within};
use super::{daemons, down, say};
use crate::failure::{Context, Failure, FailureKind};
use crate::value::show_duration;

/// How long the installation of Debian packages may take.
const INSTALL: Duration = Duration::from_secs(600);

/// The programs that a lab needs, and Debian's packages that hold them.
const NEEDED: [(&str, &str); 8] = [
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("sshd", "openssh-server"),
    ("dockerd", "docker.io"),
];

/// Brings up a lab of exactly `count` hosts; what is there already is left or mended.
///
/// # Errors
/// When something is missing on this machine, or a host does not come up.
pub(super) fn up(lab: &Lab, count: u8, out: &mut (dyn Write + Send)) -> Result<(), Failure> {
    let start = Instant::now();
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new("only root can make namespaces and interfaces").hint("sudo fanli lab up 3"));
    }
    install(out)?;
    let _lock = down::lock(&lab.name)?;
    let mut lab = lab.clone();
    if let Some(running) = Lab::find(&lab.name)? {
        if (&running.dir, running.network) != (&lab.dir, lab.network) {
            return Err(Failure::new(format!(
                "lab `{}` runs already, in {} with {}",
                lab.name,
                running.dir.display(),
                running.network
            ))
            .hint(format!(
                "use the same --dir and --network, another --name, or first: fanli lab down --name {}",
                lab.name
            )));
        }
        lab = running;
    } else if let Ok(taken) = tool("ip", &["-4", "-oneline", "address", "show", "to", &lab.network.to_string()])
        && !taken.trim().is_empty()
        && !taken.contains(&lab.bridge())
    {
        return Err(Failure::new(format!("{} is in use on this machine", lab.network))
            .because(taken.trim())
            .hint("choose another one: --network 10.89.0.0/16"));
    }
    let hosts: Vec<Host> = (1..=count).map(|number| lab.host(number)).collect();
    prepare(&mut lab)?;
    switch::up(&lab)?;
    daemons::keys(&lab, &hosts)?;
    for extra in lab.hosts().into_iter().filter(|host| host.number > count) {
        down::remove_host(&extra, false)?;
        say(out, &format!("{:<12} removed", extra.name));
    }
    bring_up(&lab, &hosts, out)?;
    let took = show_duration(Duration::from_millis(u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)));
    say(out, &format!("lab `{}`: {count} hosts, {took}", lab.name));
    say(out, &format!("  ssh       ssh -F {} {}1", lab.ssh_config().display(), lab.name));
    say(out, &format!("  hosts     {}", lab.dir.join("hosts.fp").display()));
    say(out, "  the tier  fanli play playbooks/web-tier.fp --env lab");
    Ok(())
}

/// All hosts side by side: most of the time goes into dockerd, which waits more than it works.
fn bring_up(lab: &Lab, hosts: &[Host], out: &mut (dyn Write + Send)) -> Result<(), Failure> {
    let out = Mutex::new(out);
    let one = |host: &Host| -> Result<(), Failure> {
        let start = Instant::now();
        switch::cable(lab, host)?;
        let started = daemons::ensure(host)?;
        let word = if started { "up" } else { "was up" };
        if let Ok(mut out) = out.lock() {
            let took = start.elapsed().as_secs_f32();
            say(*out, &format!("{:<12} {:<15} {word} ({took:.1} s)", host.name, host.address));
        }
        Ok(())
    };
    let failures: Vec<Failure> = std::thread::scope(|scope| {
        let running: Vec<_> = hosts.iter().map(|host| scope.spawn(|| one(host))).collect();
        let defect = |_| Err(Failure::of(FailureKind::Internal, "a thread of `lab up` ended early"));
        running.into_iter().filter_map(|thread| thread.join().unwrap_or_else(defect).err()).collect()
    });
    together(failures)
}

/// Missing programs come from Debian's packages; elsewhere the user is told what is missing.
fn install(out: &mut (dyn Write + Send)) -> Result<(), Failure> {
    let missing = || NEEDED.iter().filter(|(program, _)| !installed(program));
    let mut packages: Vec<&str> = missing().map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    let programs: Vec<&str> = missing().map(|(program, _)| *program).collect();
    let way_out = format!("install them: {}", packages.join(" "));
    if !installed("apt-get") {
        return Err(Failure::new(format!("a lab needs {}", programs.join(", "))).hint(way_out));
    }
    say(out, &format!("installing {}", packages.join(", ")));
    // env(1), as Debian's installer asks questions on any terminal it can find.
    let quiet = ["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-o", "Acquire::http::Pipeline-Depth=0"];
    let update = [&quiet[..], &["update"]].concat();
    tool_within("env", &update, "lab.install", INSTALL)?;
    let install = [&quiet[..], &["install", "-y", "--no-install-recommends"], &packages].concat();
    tool_within("env", &install, "lab.install", INSTALL).map(drop).map_err(|failure| failure.hint(way_out))
}

/// The lab's folder, and folders of this machine that hosts mount their own over.
fn prepare(lab: &mut Lab) -> Result<(), Failure> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    fs::create_dir_all(&lab.dir).with_context(|| format!("cannot make {}", lab.dir.display()))?;
    fs::set_permissions(&lab.dir, fs::Permissions::from_mode(0o700))
        .context("cannot close the lab's folder to others")?;
    let _machine = down::lock_machine()?;
    let absent: Vec<&Path> = PRIVATE.iter().map(Path::new).filter(|place| !place.exists()).collect();
    let forwards = fs::read_to_string(FORWARD).with_context(|| format!("cannot read {FORWARD}"))?.trim() == "1";
    lab.forwarding |= !forwards;
    lab.made.extend(absent.iter().map(|place| place.to_path_buf()));
    // Written down first: whatever happens next, `down` knows what to take back.
    lab.remember()?;
    for place in absent {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(place)
            .with_context(|| format!("cannot make {}", place.display()))?;
    }
    if !forwards {
        fs::write(FORWARD, "1").with_context(|| format!("cannot write {FORWARD}"))?;
    }
    Ok(())
}
