//! kill -9 of the controller, the ssh process or the helper in the middle of a play: the next run converges.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::drift::DRIFTS;
use super::run::{eventually, output, play, project};
use super::shared_lab::{HOSTS, converged, nodes, on};
use crate::common::chance::{Chance, moments};
use crate::common::fanli;

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Controller,
    Ssh,
    Helper,
}

/// The ssh processes of a controller: masters that have gone into the background, known by the folder of their sockets.
fn masters(controller: u32) -> Vec<String> {
    let found = output("pgrep", &["-f", &format!("^ssh .*/fanli-{controller}/")]).stdout;
    String::from_utf8_lossy(&found).lines().map(str::to_owned).collect()
}

/// Everything that runs on a host besides its own daemons, as `pid command`. What runs in a node has another network.
fn strangers(host: &str) -> Vec<String> {
    let all = on(
        host,
        "for process in /proc/[0-9]*; do
            [ $process/ns/net -ef /proc/self/ns/net ] && echo ${process#/proc/} $(tr '\\0' ' ' < $process/cmdline)
        done 2> /dev/null || true",
    );
    let own = [
        " lab host --name ",
        "sshd:",
        "/usr/sbin/sshd",
        "dockerd",
        "containerd",
        "fanli watch --every",
        "for process in",
        "docker-proxy",
        "haproxy -W ",
        "/usr/sbin/haproxy ",
        "rsync --daemon ",
    ];
    let gone = |line: &str| line.split_once(' ').is_none_or(|(_, command)| command.trim().is_empty());
    assert!(all.contains("dockerd"), "{host}: {all}");
    let known = |line: &str| gone(line) || own.iter().any(|word| line.contains(word));
    all.lines().filter(|line| !known(line)).map(|line| line.trim().to_owned()).collect()
}

/// Kills the victim of a running play; says whether it was there.
fn kill(victim: Victim, controller: u32, host: &str) -> bool {
    match victim {
        Victim::Controller => output("kill", &["-9", &controller.to_string()]).status.success(),
        Victim::Ssh => masters(controller).first().is_some_and(|pid| output("kill", &["-9", pid]).status.success()),
        Victim::Helper => {
            let killed = on(
                host,
                "for pid in $(pgrep -f '^/proc/self/fd/9 helper'); do [ /proc/$pid/ns/net -ef /proc/self/ns/net ] && kill -9 $pid && echo killed; done || true",
            );
            killed.contains("killed")
        }
    }
}

#[test]
fn killed_at_any_moment_the_next_run_converges() {
    let _lab = converged();
    let mut chance = Chance::new();
    let start = Instant::now();
    let usual = play(&["--env", "lab"]).expect_good().took;
    let tier: Vec<(&str, String)> = HOSTS.iter().map(|host| (*host, nodes(host).remove(0).0)).collect();
    for moment in 0..moments(4, 150) {
        let mut done = Vec::new();
        // Something real to do on every host, so that the moment falls into changes.
        for (host, node) in &tier {
            for _ in 0..2 {
                let drift = chance.pick(&DRIFTS);
                // The second may find the first in its way: a container that is gone cannot be stopped.
                let command = drift.command.replace("NODE", node).replace("HOME", &format!("/data/containers/{node}"));
                on(host, &format!("({command}) > /dev/null 2>&1 || true"));
                done.push(format!("{} of {node}", drift.name));
            }
        }
        let victim = *chance.pick(&[Victim::Controller, Victim::Ssh, Victim::Helper]);
        let (host, _) = chance.pick(&tier);
        // Half of the moments early, where connections and uploads are; the others over all of a play that has work to do.
        let longest = if chance.below(2) == 0 { usual } else { usual * 4 };
        let wait = Duration::from_millis(chance.below(u64::try_from(longest.as_millis()).unwrap()));
        let mut child = Command::new(fanli())
            .args(["play", "playbooks/web-tier.fp", "--env", "lab", "--json"])
            .current_dir(project())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(wait);
        let (mut laps, mut last) = (Vec::new(), Instant::now());
        let mut lap = |name: &str| {
            laps.push(format!("{name} {:.1}", last.elapsed().as_secs_f32()));
            last = Instant::now();
        };
        let there = kill(victim, child.id(), host);
        let what =
            format!("moment {moment}: {}; {victim:?} on {host} after {wait:?} (there: {there})", done.join(", "));
        eventually(&format!("{what}: the controller ends"), Duration::from_secs(60), || {
            child.try_wait().unwrap().is_some()
        });
        lap("ended");
        for (host, _) in &tier {
            let mut left = Vec::new();
            // A helper without a controller puts back what it had begun, within 60 s.
            let gone = (0..400).any(|turn| {
                std::thread::sleep(Duration::from_millis(if turn == 0 { 0 } else { 200 }));
                left = strangers(host);
                left.is_empty()
            });
            assert!(gone, "{what}: left on {host} after 80 s:\n{}", left.join("\n"));
        }
        lap("all gone");
        let next = play(&["--env", "lab"]);
        lap("mended");
        assert_eq!(next.code, Some(0), "{what}: the next run does not converge: {}", next.told());
        let after = play(&["--env", "lab"]);
        lap("nothing to do");
        assert!(
            after.code == Some(0) && after.differing().is_empty(),
            "{what}: then still something to do: {}",
            after.told()
        );
        eventually(&format!("{what}: no ssh is left here"), Duration::from_secs(20), || masters(child.id()).is_empty());
        for (host, node) in &tier {
            let left = on(host, "docker ps --all --format '{{.Names}}'; find /data /etc /opt -xdev -name '.*fanli*'");
            assert_eq!(left, *node, "{what}: something is left behind on {host}");
        }
        eprintln!("{what}: {}; {:.0?} in all", laps.join(", "), start.elapsed());
    }
}

/// Marks the rollout of a node's container as one that was not brought to its end, as a run does before it makes it anew.
const BEGUN: &str =
    "sed -i 's/\"phase\": \"[a-z]*\"/\"phase\": \"changing\"/' /var/lib/fanli/rollout/containers/*.json";

#[test]
fn nodes_that_are_down_come_back_before_another_one_goes() {
    let _lab = converged();
    let tier: Vec<(&str, String)> = HOSTS.iter().map(|host| (*host, nodes(host).remove(0).0)).collect();
    let [(one, first), (two, second), (three, third)] = tier.as_slice() else { panic!("{tier:?}") };
    for begun in [false, true] {
        for (host, node) in [(one, first), (two, second)] {
            on(host, &format!("docker stop --time 1 {node}"));
        }
        if begun {
            on(one, BEGUN);
        }
        on(three, &format!("chown root /data/containers/{third}/weblogs/www"));
        let mended = play(&["--env", "lab"]);
        assert_eq!(mended.code, Some(0), "begun: {begun}: {}", mended.told());
        play(&["--env", "lab"]).expect_nothing_done();
    }
}
