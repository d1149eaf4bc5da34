//! What a run leaves that ends in the middle of a rollout: it is told, and the next run mends it.

use rustix::process::{Pid, Signal, kill_process};

use super::place::Place;
use crate::supervised::wait_for;

#[test]
fn a_run_that_is_asked_to_stop_says_who_is_out_of_traffic_and_what_a_killed_one_leaves_goes_back() {
    let place = Place::played();
    let mut play = place.begin(&["--set", "word=two"]);
    place.waits_for("(batch 1 of 3): change");
    kill_process(Pid::from_child(&play), Signal::INT).unwrap();
    assert_eq!(play.wait().unwrap().code(), Some(130), "{}", place.log());
    let said = place.log();
    eprintln!("{said}");
    for expected in ["stopped on request: web1 is half-way; out of traffic: web1", "the same command goes on"] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(!said.contains("failed, none may") && !said.contains("COULD NOT"), "{said}");
    let status = place.fanli(&["status", "web.fp"]);
    assert_eq!(status.code, 4, "{}", status.text);
    status.says("web/web1  drained; taken out by `apache` at ").says("and no run is at work");
    place.play(&["--set", "word=two"]).good();
    place.all_up();
    place.all_have("two");
    assert_eq!(place.fanli(&["status", "web.fp"]).code, 0);

    // Killed behind the drain. The host puts the configuration back, and nothing is left to roll out.
    place.edit("web.fp", "within = 10m", "within = 10s");
    let mut play = place.begin(&["--set", "word=three"]);
    place.waits_for("backend web1: state ready -> drained");
    play.kill().unwrap();
    play.wait().unwrap();
    wait_for("the host has put back what it had", || {
        let status = place.fanli(&["rollout", "status", "web.fp"]);
        let open = status.text.contains("not confirmed") || status.text.contains("switching");
        (!open && status.text.contains("no run is at work that would bring it back")).then_some(())
    });
    let status = place.fanli(&["rollout", "status", "web.fp"]);
    assert_eq!(status.code, 4, "{}", status.text);
    status.says("server web/web1  drained, taken out of traffic at ");
    let looked = place.play(&["--set", "word=two", "--check"]).good();
    looked
        .says("web1 was left out of traffic by an earlier run, and goes back")
        .says("backend web1: state drained -> ready");
    place.up(5);
    let back = place.play(&["--set", "word=two"]).good();
    assert!(!back.text.contains("(batch"), "{}", back.text);
    back.says("web1 was left out of traffic by an earlier run, and goes back")
        .says("backend web1: state drained -> ready");
    place.all_up();
    place.play(&["--set", "word=two"]).nothing_done();
}
