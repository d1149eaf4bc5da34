//! Rollouts of an image that are broken off: on the way back, by a person, and with nobody left to go on.

use std::process::Stdio;
use std::time::Duration;

use super::image::{Lacks, PLAYBOOK, same_again};
use super::place::{NODES, Place};
use super::under_load;
use crate::supervised::wait_for;

const TWO: [&str; 2] = ["--set", "image=frt/web:2"];
const THREE: [&str; 2] = ["--set", "image=frt/web:3"];

#[test]
fn a_way_back_that_is_killed_again_and_again_ends_where_it_was_to() {
    let place = Place::with_images(false);
    let first = place.is();
    place.image("frt/web:2", "two", Lacks::Nothing);
    place.play(&TWO).good().says("rolled out to 6 nodes");
    let second = place.is();
    place.image("frt/web:3", "three", Lacks::Nothing);
    let mut play = place.begin(&THREE);
    place.waits_for("(batch 3 of 3): change");
    std::thread::sleep(Duration::from_millis(600));
    play.kill().unwrap();
    play.wait().unwrap();
    // Each of these comes further than the one before, whose helpers may still be at work.
    for millis in [900, 2_500, 4_000] {
        let mut back = place.command(&["rollout", "rollback", "web.fp"]).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(millis));
        assert!(back.try_wait().unwrap().is_none(), "it came to its end within {millis} ms");
        back.kill().unwrap();
        back.wait().unwrap();
    }
    let said = place.fanli(&["rollout", "rollback", "web.fp"]);
    eprintln!("{}", said.text);
    said.good();
    place.all_up();
    place.all_say("two");
    assert_eq!(same_again(&place.is()), same_again(&second), "what was confirmed last, and nothing before it");
    place.play(&TWO).nothing_done();
    place.is_tidy();
    // What is asked for by hand once more is the way back from that.
    place.fanli(&["rollout", "rollback", "web.fp"]).good();
    place.all_up();
    place.all_say("one");
    assert_eq!(same_again(&place.is()), same_again(&first));
    place.is_tidy();
}

#[test]
fn a_halt_leaves_every_container_as_it_is_and_in_traffic() {
    let place = Place::with_images(true);
    place.image("frt/web:2", "two", Lacks::Nothing);
    under_load(&place, "halted", || {
        let mut play = place.begin(&TWO);
        place.waits_for("(batch 2 of 3): drain");
        place.fanli(&["rollout", "halt", "web.fp", "--because", "a sale"]).good();
        assert_eq!(play.wait().unwrap().code(), Some(4), "{}", place.log());
        let new = NODES.iter().filter(|node| place.page(node).contains("this is two\n")).count();
        // Whoever was begun with in that moment is gone through with: both hosts of the batch, one of them, or none.
        let told = if new == 1 { "1 node has".to_owned() } else { format!("{new} nodes have") };
        assert!((1..=3).contains(&new), "{new}");
        assert!(place.log().contains(&format!("a sale): {told} what is new")), "{}", place.log());
        place.all_up();
        let halted = place.is();
        let said = place.play(&[]);
        assert_eq!(said.code, 4, "{}", said.text);
        said.says("HALTED by a person (since").says("a sale): not begun");
        assert_eq!(place.is(), halted);
        place.all_up();
    });
    under_load(&place, "resumed", || {
        place.fanli(&[&["rollout", "resume", "web.fp"][..], &TWO].concat()).good();
    });
    place.all_say("two");
    place.play(&TWO).nothing_done();
    place.is_tidy();
}

#[test]
fn what_nobody_confirms_is_put_back_by_the_hosts_with_its_containers() {
    let playbook = PLAYBOOK
        .replace(
            "  settle = 200ms\n",
            "  settle = 200ms\n  within = 60s\n  config \"/data/extra/{{ node.name }}\" { from = \"extra\" }\n",
        )
        .replace(
            "\"/data/usr\" -> \"/usr\" read_only",
            "\"/data/usr\" -> \"/usr\" read_only, \"/data/extra/{{ node.name }}\" -> \"/extra\" read_only",
        );
    let place = Place::with_images_by(&playbook);
    let first = place.is();
    let shown = |node: &str| place.on(Place::host_of(node), &format!("docker exec {node} cat /extra/current/word"));
    NODES.iter().for_each(|node| assert_eq!(shown(node), "old"));
    place.image("frt/web:2", "two", Lacks::Nothing);
    place.write("extra/word", "new\n");
    let mut play = place.begin(&TWO);
    place.waits_for("(batch 3 of 3): drain");
    play.kill().unwrap();
    play.wait().unwrap();
    // Two batches have both, and nobody is left to confirm or to put them back.
    for node in &NODES[..3] {
        assert!(place.page(node).contains("this is two\n"), "{node}");
        assert_eq!(shown(node), "new", "{node}");
    }
    for node in &NODES[..3] {
        wait_for(&format!("{node} is as before"), || {
            let page = super::place::try_get(&place.address(node), "/").ok()?;
            page.contains("this is one\n").then_some(())
        });
        assert_eq!(shown(node), "old", "{node}");
    }
    assert_eq!(same_again(&place.is()), same_again(&first));
    let status = place.fanli(&["rollout", "status", "web.fp"]);
    eprintln!("{}", status.text);
    status.says("by the host itself");
    // The next run goes on from there. The limit is for all its batches, which a slow machine needs longer for.
    place.edit("web.fp", "within = 60s", "within = 10m");
    place.play(&TWO).good();
    place.all_up();
    place.all_say("two");
    NODES.iter().for_each(|node| assert_eq!(shown(node), "new"));
    place.play(&TWO).nothing_done();
    place.is_tidy();
}
