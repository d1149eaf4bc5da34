//! Kills at random moments of a rollout: of the controller, a helper, supervisor, Apache. Each slot is wholly the old or wholly the
//! new generation then, and the next `resume` or `rollback` ends well.

use std::process::Stdio;
use std::time::{Duration, Instant};

use super::place::{NODES, Place};
use crate::common::chance::{Chance, moments};

/// Kills somebody; what a person would call it.
fn kill(place: &Place, whom: u64, chance: &mut Chance, controller: u32) -> String {
    let node = *chance.pick(&NODES);
    let host = Place::host_of(node);
    let pid = |which: &str| format!("$(docker inspect -f '{{{{.State.Pid}}}}' {which})");
    match whom {
        0 => {
            let _ = std::process::Command::new("kill").args(["-9", &controller.to_string()]).status();
            "the controller".to_owned()
        }
        1 => {
            // All hosts of this machine share their process numbers.
            let own = "[ /proc/$pid/ns/net -ef /proc/self/ns/net ] && kill -9 $pid";
            let helpers = "pgrep -f 'fanli[^ ]* helper|/proc/self/fd/[0-9]+ helper| helpe[r] --state-dir'";
            place.try_on(host, &format!("for pid in $({helpers}); do {own}; done"));
            format!("the helper of host {host}")
        }
        2 => {
            place.try_on(host, &format!("kill -9 {}", pid(node)));
            format!("supervisor of {node}")
        }
        _ => {
            // All of it, or its first process alone: the workers outlive that, and keep the port.
            let (whose, word) = chance.pick(&[("", "Apache"), ("-P 1", "Apache's first process")]);
            place.try_on(host, &format!("docker exec {node} pkill -9 {whose} -x apache2"));
            format!("{word} of {node}")
        }
    }
}

#[test]
fn killed_at_any_moment_every_slot_is_whole_and_the_next_run_ends_well() {
    let mut chance = Chance::new();
    let place = Place::played();
    let started = Instant::now();
    place.play(&["--tags", "rollout", "--set", "word=w0"]).good();
    let usual = u64::try_from(started.elapsed().as_millis()).unwrap();
    let mut settled = "w0".to_owned();
    for moment in 1..=moments(3, 150) {
        let word = format!("w{moment}");
        let set = format!("word={word}");
        let before: Vec<String> = NODES.iter().map(|node| place.tree(node)).collect();
        let mut play = place
            .command(&["play", "web.fp", "--tags", "rollout", "--set", &set])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let at = chance.below(usual);
        std::thread::sleep(Duration::from_millis(at));
        let whom = chance.below(4);
        let killed = kill(&place, whom, &mut chance, play.id());
        let code = play.wait().unwrap().code();
        let what = format!("moment {moment}: {killed} killed after {at} ms, the run ended with {code:?}");
        println!("{what}");
        // A kill in the middle of a swap leaves one or the other, never a mixture.
        let generations: Vec<String> = NODES.iter().map(|node| place.current(node)).collect();
        let trees: Vec<String> = NODES.iter().map(|node| place.tree(node)).collect();

        let back = chance.below(2) == 0;
        // What was killed comes back by itself: supervisor by Docker, Apache by supervisor, the interface by the watcher.
        place.all_up_again();
        if back {
            let said = place.fanli(&["rollout", "rollback", "web.fp", "--set", &set]);
            assert_eq!(said.code, 0, "{what}, then rollback: {}", said.text);
        }
        let said = place.play(&["--tags", "rollout", "--set", &set]);
        assert_eq!(said.code, 0, "{what}, then (rollback: {back}) once more: {}", said.text);
        place.all_have(&word);
        let after: Vec<String> = NODES.iter().map(|node| place.tree(node)).collect();
        for (node, tree) in trees.iter().enumerate() {
            assert!(
                *tree == before[node] || *tree == after[node],
                "{what}: {} showed neither the old nor the new: {}\n{tree}",
                NODES[node],
                generations[node]
            );
        }
        let said = place.play(&["--tags", "rollout", "--set", &set]);
        assert!(said.text.contains("nothing to roll out"), "{what}: {}", said.text);
        settled = word;
    }
    place.all_up();
    place.all_have(&settled);
}
