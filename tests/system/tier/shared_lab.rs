//! One lab of three hosts with the tier on it, for all tests: one at a time has it. It is kept up between them for as long as the
//! session that `tests/run` names; without one, each test brings up its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::run::{Play, must, play};
use crate::common::fanli;
use crate::common::keeper::Keeper;
use crate::common::kept_lab::{inside, keep, keep_for_session, take_down};
use crate::common::session;

/// The lab's name in `env/lab.fp`.
const NAME: &str = "lab";

/// The hosts of `env/lab.fp`.
pub const HOSTS: [&str; 3] = ["lab1", "lab2", "lab3"];

/// The right to use the running lab, until it is dropped.
pub struct Lab {
    _kept: Option<Keeper>,
    _lock: File,
    /// The run that brought the tier up, when this test began it.
    pub first: Option<Play>,
}

/// The images of the tier, as a bare machine of this session has made them.
pub fn images(session: &Path) -> PathBuf {
    session.join("images.tar")
}

/// The lab, converged. The first of a session brings it up.
pub fn converged() -> Lab {
    let lock = session::lock("tier");
    let Some(session) = session::folder() else {
        let kept = keep(NAME);
        let first = bring_up(None);
        assert_eq!(first.code, Some(0), "the tier did not come up: {}", first.told());
        return Lab { _kept: Some(kept), _lock: lock, first: Some(first) };
    };
    // Every test on a lab that did not come up says why, none brings it up once more.
    let outcome = session.join("tier");
    if let Ok(told) = fs::read_to_string(&outcome) {
        assert!(told.is_empty(), "the tier did not come up: {told}");
        return Lab { _kept: None, _lock: lock, first: None };
    }
    keep_for_session(NAME, &session);
    let first = bring_up(Some(&session));
    let told = if first.code == Some(0) { String::new() } else { first.told() };
    fs::write(&outcome, &told).unwrap();
    assert!(told.is_empty(), "the tier did not come up: {told}");
    Lab { _kept: None, _lock: lock, first: Some(first) }
}

fn bring_up(session: Option<&Path>) -> Play {
    eprint!("{}", must(fanli(), &["lab", "up", "3", "--name", NAME]));
    // What the bare machine makes is there when its test has ended: the Debian root and the images. The first host builds its own.
    drop(session::lock("bare-machine"));
    if let Some(images) = session.map(images).filter(|images| images.exists()) {
        for host in &HOSTS[1..] {
            let images = File::open(&images).unwrap();
            let loaded = Command::new("ssh").args(["-F", SSH, host, "docker load"]).stdin(images).output().unwrap();
            assert!(loaded.status.success(), "{host}: {}", String::from_utf8_lossy(&loaded.stderr));
        }
    }
    let first = play(&["--env", "lab"]);
    // A daemon that loses sight of its own build (seen once in many runs) is not what is tested here: run again, as a person
    // would who reads that message.
    if first.code != Some(0) && first.told().contains("docker silence") {
        eprintln!("{}", first.told());
        return play(&["--env", "lab"]);
    }
    first
}

/// A run that mends whatever a test did, then one that must find nothing to do.
pub fn mend() {
    play(&["--env", "lab"]).expect_good();
    play(&["--env", "lab"]).expect_nothing_done();
}

/// Takes the lab down now; gives what was said.
pub fn down(lab: Lab) -> String {
    let said = take_down(NAME);
    if let Some(session) = session::folder() {
        fs::remove_file(session.join("tier")).unwrap();
    }
    drop(lab);
    said
}

/// The ssh configuration of the lab.
const SSH: &str = "/var/lib/fanli-lab/lab/ssh_config";

/// Runs a command on a host, which must succeed, and returns what it prints.
#[track_caller]
pub fn on(host: &str, command: &str) -> String {
    let done = inside(host, command);
    assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}
/// Names and addresses of the nodes on a host.
pub fn nodes(host: &str) -> Vec<(String, String)> {
    let names = on(host, "docker ps --all --filter label=tier=web --format '{{.Names}}' | sort");
    // web08010 is x.y.8.10.
    let address = |name: &str| {
        let number = |digits: &str| digits.parse::<u8>().unwrap();
        format!("10.88.{}.{}", number(&name[3..5]), number(&name[5..8]))
    };
    names.lines().map(|name| (name.to_owned(), address(name))).collect()
}

/// Runs a command in the network namespace of a node.
#[track_caller]
pub fn in_node(host: &str, node: &str, command: &str) -> String {
    on(host, &format!("nsenter --net --target $(docker inspect -f '{{{{.State.Pid}}}}' {node}) {command}"))
}
