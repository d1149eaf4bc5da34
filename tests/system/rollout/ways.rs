//! The ways that a rollout may go.

use super::place::{NODES, Place};
use super::under_load;

#[test]
fn a_line_in_a_template_goes_out_and_comes_back_and_no_request_fails() {
    let place = Place::played();
    place.all_have("one");
    let before: Vec<String> = NODES.iter().map(|node| place.tree(node)).collect();

    // What would change is shown, and nothing is done.
    let check = place.play(&["--check", "--diff", "--set", "word=two"]).good();
    eprintln!("{}", check.text);
    assert!(
        check.text.contains("-Header always set X-Word \"one\"")
            && check.text.contains("+Header always set X-Word \"two\"")
    );
    place.all_have("one");

    let said = under_load(&place, "one line", || place.play(&["--set", "word=two"]).good());
    eprintln!("{}", said.text);
    place.all_have("two");
    place.play(&["--set", "word=two"]).nothing_done();

    // It starts, answers the trial, and is wrong on a node all the same: the canary finds it, and it is put back.
    let wrong = "extra=Redirect 503 /ping";
    let said = under_load(&place, "wrong on the canary", || {
        place.play(&["--set", "word=three", "--set", wrong, "--set", "ping=/ping"])
    });
    eprintln!("{}", said.text);
    assert_eq!(said.code, 4, "{}", said.text);
    let said = said.says("1 node put back: all is as before");
    assert!(!said.text.contains("batch 2 of 3"), "{}", said.text);
    place.all_have("two");

    // By hand back to what was before.
    let said = under_load(&place, "rollback", || place.fanli(&["rollout", "rollback", "web.fp"]).good());
    eprintln!("{}", said.text);
    place.all_have("one");
    let after: Vec<String> = NODES.iter().map(|node| place.tree(node)).collect();
    assert_eq!(after, before, "byte for byte");
    eprintln!("{}", place.fanli(&["rollout", "status", "web.fp"]).good().text);
}

#[test]
fn what_the_trial_refuses_touches_no_node() {
    let place = Place::played();
    let current: Vec<String> = NODES.iter().map(|node| place.current(node)).collect();
    let foreign = format!("{}.0.99", place.lab.net());
    let listen = format!("Listen {foreign}:80");
    for (extra, says) in [
        ("NoSuchDirective on", "Invalid command 'NoSuchDirective'"),
        ("CustomLog \"|/no/such/logger\" \"%h\"", "/no/such/logger"),
        ("Redirect 404 /", "404"),
        (&listen, &foreign),
    ] {
        let said = place.play(&["--set", &format!("extra={extra}")]);
        eprintln!("{}", said.text);
        assert_eq!(said.code, 4, "{}", said.text);
        let said = said.says(says).says("no node was touched");
        assert!(!said.text.contains("switch"), "{}", said.text);
        let after: Vec<String> = NODES.iter().map(|node| place.current(node)).collect();
        assert_eq!(after, current, "{extra}");
    }
    place.all_have("one");
    place.play(&[]).nothing_done();
}

#[test]
fn a_halt_stops_what_is_under_way_and_stays_until_it_is_taken_away() {
    let place = Place::played();
    under_load(&place, "halted", || {
        let mut play = place.begin(&["--set", "word=two"]);
        place.waits_for("(batch 2 of 3): drain");
        place.fanli(&["rollout", "halt", "web.fp", "--because", "a sale"]).good();
        assert_eq!(play.wait().unwrap().code(), Some(4), "{}", place.log());
        assert!(place.log().contains("HALTED by a person"), "{}", place.log());
        place.all_up();
        // Also for later runs, whatever they bring.
        let said = place.play(&["--set", "word=three"]);
        assert_eq!(said.code, 4, "{}", said.text);
        assert!(!said.text.contains("drain"), "nobody is taken out of traffic for it: {}", said.text);
        said.says("HALTED by a person (since").says("a sale): not begun");
        place.all_up();
    });
    let status = place.fanli(&["rollout", "status", "web.fp"]);
    eprintln!("{}", status.text);
    assert_eq!(status.code, 4);
    status.says("HALTED").says("a sale");
    under_load(&place, "resumed", || place.fanli(&["rollout", "resume", "web.fp", "--set", "word=two"]).good());
    place.all_have("two");
    place.play(&["--set", "word=two"]).nothing_done();
    assert_eq!(place.fanli(&["rollout", "status", "web.fp"]).code, 0);
}

#[test]
fn a_sick_node_counts_before_anything_is_touched_and_a_part_of_the_nodes_may_go_alone() {
    let place = Place::played();
    place.on(Place::host_of("web5"), "docker stop -t 0 web5");
    let said = place.play(&["--tags", "rollout", "--set", "word=two"]);
    assert_eq!(said.code, 4, "{}", said.text);
    said.says("not begun: web5 is sick already (1), none may");
    place.on(Place::host_of("web5"), "docker start web5");
    place.all_up();
    place.play(&["--limit", "web1", "--set", "word=two"]).good();
    assert_eq!(place.header("web1", "X-Word"), "two");
    assert_eq!(place.header("web2", "X-Word"), "one");
    // Nodes that have it already are left alone.
    let said = place.play(&["--set", "word=two"]).good().says("5 of 6 nodes to go");
    assert!(!said.text.contains("reload web1\n"), "{}", said.text);
    place.all_have("two");
}
