//! One lab of three hosts for all tests.

use std::sync::{Mutex, MutexGuard};

use super::run::{Play, must, play};
use crate::common::fanli;
use crate::common::kept_lab::{KeptLab, take_down};

/// The lab's name in `env/lab.fp`.
const NAME: &str = "lab";

/// The hosts of `env/lab.fp`.
pub const HOSTS: [&str; 3] = ["lab1", "lab2", "lab3"];

static LAB: Mutex<Option<Lab>> = Mutex::new(None);

/// A running lab with the tier on it.
pub struct Lab {
    _kept: KeptLab,
    /// The run that brought the tier up.
    pub first: Play,
}

/// The lab, converged. The first caller brings it up.
pub fn converged() -> MutexGuard<'static, Option<Lab>> {
    let mut lab = LAB.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if lab.is_none() {
        let kept = KeptLab::begin(NAME);
        eprint!("{}", must(fanli(), &["lab", "up", "3", "--name", NAME]));
        let mut first = play(&["--env", "lab"]);
        // A daemon that loses sight of its own build (seen once in many runs) is not what is tested here: run again, as a
        // person would who reads that message.
        if first.code != Some(0) && first.told().contains("docker silence") {
            eprintln!("{}", first.told());
            first = play(&["--env", "lab"]);
        }
        *lab = Some(Lab { _kept: kept, first });
    }
    // Every test on a lab that did not come up says why, none brings it up once more.
    let first = lab.as_ref().map(|lab| &lab.first).unwrap();
    assert_eq!(first.code, Some(0), "the tier did not come up: {}", first.told());
    lab
}

/// A run that mends whatever a test did, then one that must find nothing to do.
pub fn mend() {
    play(&["--env", "lab"]).expect_good();
    play(&["--env", "lab"]).expect_nothing_done();
}

/// Takes the lab down now; gives what was said.
pub fn down() -> String {
    let said = take_down(NAME);
    *LAB.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
    said
}

/// Runs a command on a host, over the lab's own ssh configuration.
#[track_caller]
pub fn on(host: &str, command: &str) -> String {
    must("ssh", &["-F", "/var/lib/fanli-lab/lab/ssh_config", host, command]).trim().to_owned()
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
