//! Plays, batches, several hosts, limits and locks.

use super::run::{Place, Run};

#[test]
fn a_failed_host_stops_alone() {
    let place = Place::new(
        &["h1", "h2"],
        r#"play "first" on hosts.all_of_them {
  when host.name == "h1" {
    file "OUT/none/x" { content = "" }
  }
  file "OUT/{{ host.name }}" { content = "" }
}
play "second" on hosts.all_of_them {
  file "OUT/{{ host.name }}-2" { content = "" }
}"#,
    );
    let run = place.play(&[]).expect(4);
    let mut steps = run.steps();
    steps.sort();
    assert_eq!(steps, ["h1 file x: failed", "h2 file h2-2: changed", "h2 file h2: changed"]);
}

#[test]
fn a_failed_batch_stops_the_later_ones() {
    let place = Place::new(
        &["h1", "h2", "h3", "h4"],
        r#"play "p" on hosts.all_of_them batch [1, 2] {
  when host.name == "h2" {
    file "OUT/none/x" { content = "" }
  }
  file "OUT/{{ host.name }}" { content = "" }
}
play "next" on hosts.all_of_them {
  file "OUT/{{ host.name }}-next" { content = "" }
}"#,
    );
    let run = place.play(&[]).expect(4);
    let mut steps = run.steps();
    steps.sort();
    assert_eq!(
        steps,
        [
            "h1 file h1-next: changed",
            "h1 file h1: changed",
            "h2 file x: failed",
            "h3 file h3-next: changed",
            "h3 file h3: changed",
        ]
    );
    let told = "play \"p\": batch 3 of 3 does not take place, as one before it failed: h4 takes no part from here on";
    assert!(run.text.contains(told), "{}", run.text);
    let row = run.text.lines().find(|line| line.starts_with("h4 ")).unwrap();
    assert!(row.ends_with("  left out from play \"p\" on"), "{}", run.text);
    let left_out = run.events.iter().find(|event| event["event"] == "batch_left_out").unwrap();
    assert_eq!(left_out["targets"], serde_json::json!([{ "host": "h4", "node": null }]));
    assert_eq!(left_out["batch"], serde_json::json!({ "number": 3, "of": 3 }));
}

#[test]
fn a_node_of_a_batch_that_did_not_take_place_is_left_out_of_later_plays_and_its_host_is_not() {
    let place = Place::new(
        &["h1"],
        r#"network "lan" {
  mode   = macvlan
  parent = "eth0"
  subnet = 10.20.0.0/16
  pool   = 10.20.8.10 - 10.20.8.20
}
nodes web {
  count   = 3
  on      = hosts.all_of_them
  network = "lan"
  name    = "web{{ node.index }}"
}
play "p" on nodes.web batch 1 {
  when node.index == 2 {
    command ["false"]
  }
  file "OUT/{{ node.name }}" { content = "" }
}
play "next" on nodes.web + hosts.all_of_them {
  file "OUT/next" { content = "" }
}"#,
    );
    let run = place.play(&[]).expect(4);
    let steps =
        ["web1 file web1: changed", "web2 command false: failed", "web1 file next: changed", "h1 file next: ok"];
    assert_eq!(run.steps(), steps);
    let row = run.text.lines().find(|line| line.starts_with("h1 ")).unwrap();
    assert!(row.ends_with("  1 node left out from play \"p\" on"), "{}", run.text);
}

#[test]
fn a_play_is_a_barrier_for_all_hosts() {
    let place = Place::new(
        &["h1", "h2", "h3"],
        r#"play "first" on hosts.all_of_them {
  file "OUT/{{ host.name }}" { content = ""  validate = ["sh", "-c", "[ {{ host.name }} != h1 ] || sleep 1 # {file}"] }
}
play "second" on hosts.all_of_them {
  for name in ["h1", "h2", "h3"] {
    link "OUT/{{ host.name }}-{{ name }}" { to = name }
  }
}"#,
    );
    let run = place.play(&[]).expect(0);
    let place_of = |wanted: &dyn Fn(&str) -> bool| run.steps().iter().position(|step| wanted(step)).unwrap();
    let slow = place_of(&|step| step.starts_with("h1 file"));
    let second = place_of(&|step| step.contains(" link "));
    assert!(slow < second, "{:?}", run.steps());
}

#[test]
fn every_host_ends_with_one_terminal_event_and_counts_its_events() {
    let place = Place::new(
        &["h1", "h2", "h3"],
        r#"play "p" on hosts.all_of_them {
  for number in range(20) {
    file "OUT/{{ host.name }}-{{ number }}" { content = "" }
  }
}"#,
    );
    assert_eq!(place.play(&[]).expect(0).hosts_in_sequence(), 3);
}

#[test]
fn limits_and_tags_choose() {
    let place = Place::new(
        &["web1", "web2", "db1"],
        r#"play "p" on hosts.all_of_them {
  file "OUT/{{ host.name }}-a" { content = ""  tags = "a" }
  file "OUT/{{ host.name }}-b" { content = ""  tags = ["b", "c"] }
  file "OUT/{{ host.name }}-always" { content = ""  tags = "always" }
}"#,
    );
    let sorted = |run: Run| {
        let mut steps = run.expect(0).steps();
        steps.sort();
        steps
            .into_iter()
            .map(|step| step.split(' ').nth(2).unwrap().trim_end_matches(':').to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(sorted(place.play(&["--limit", "web*,!web2", "--tags", "c", "--check"])), ["web1-always", "web1-b"]);
    assert_eq!(sorted(place.play(&["--limit", "db1", "--skip-tags", "b", "--check"])), ["db1-a", "db1-always"]);
}

#[test]
fn two_runs_do_not_work_on_a_host_at_once() {
    let place = Place::new(
        &["h"],
        r#"play "p" on hosts.all_of_them {
  file "OUT/started" { content = "" }
  file "OUT/a" { content = "a"  validate = ["sh", "-c", "while [ ! -e OUT/go ]; do sleep 0.05; done # {file}"] }
}"#,
    );
    let first = place.start(&[]);
    place.wait_for("started");
    let second = place.play(&["--lock-wait", "200ms"]);
    std::fs::write(place.out("go"), "").unwrap();
    Run::of(first).expect(0);
    assert_eq!(second.code, Some(6), "{}", second.text);
    assert!(second.text.contains("busy: another run is at work on h: run "), "{}", second.text);
    assert!(second.text.contains("over its limit `lock_wait` of 200ms"), "{}", second.text);
    // Who, from which machine, with what, and since when.
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    for told in [format!("@{} (play.fp), since 20", machine.trim()), " UTC (process ".to_owned()] {
        assert!(second.text.contains(&told), "{told}: {}", second.text);
    }
    assert!(!second.text.contains("LOST"), "{}", second.text);
    let end = second.events.last().unwrap();
    assert_eq!((&end["event"], &end["verdict"]), (&"run_finished".into(), &"busy".into()));
    place.play(&[]).expect_nothing_done();
}

#[test]
fn a_run_that_cannot_have_all_hosts_changes_none() {
    let place = Place::new(
        &["h1", "h2", "h3"],
        r#"vars { who = "nobody" }
play "p" on hosts.all_of_them {
  file "OUT/started-{{ who }}-{{ host.name }}" { content = "" }
  when who == "first" {
    command ["sh", "-c", "while [ ! -e OUT/go ]; do sleep 0.05; done"] { }
  }
}"#,
    );
    let first = place.start(&["--limit", "h2", "--set", "who=first"]);
    place.wait_for("started-first-h2");
    let second = place.play(&["--lock-wait", "100ms", "--set", "who=second"]);
    assert_eq!(second.code, Some(6), "{}", second.text);
    assert_eq!(second.steps(), [""; 0]);
    assert!(second.text.contains("another run is at work on h2"), "{}", second.text);
    assert!(second.text.contains("this one waits for it, 100ms at most"), "{}", second.text);
    // One that waits long enough gets them all.
    let third = place.start(&["--lock-wait", "60s", "--set", "who=third"]);
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(place.read("started-third-h1"), None);
    std::fs::write(place.out("go"), "").unwrap();
    Run::of(first).expect(0);
    Run::of(third).expect(0);
    for host in ["h1", "h2", "h3"] {
        assert_eq!(place.read(&format!("started-second-{host}")), None);
        assert!(place.read(&format!("started-third-{host}")).is_some());
    }
}

#[test]
fn two_runs_at_once_never_split_the_fleet() {
    let body = r#"vars { who = "nobody" }
play "p" on hosts.all_of_them {
  command ["sleep", "0.1"] { changes = false }
  file "OUT/{{ host.name }}" { content = "{{ who }}" }
}"#;
    let place = Place::new(&["h1", "h2", "h3"], body);
    for _ in 0..3 {
        let runs = ["a", "b"].map(|who| place.start(&["--lock-wait", "60s", "--set", &format!("who={who}")]));
        for run in runs {
            Run::of(run).expect(0);
        }
        let last = ["h1", "h2", "h3"].map(|host| place.read(host));
        assert!(last[0].is_some() && last.iter().all(|who| *who == last[0]), "{last:?}");
    }
}

#[test]
fn an_unreachable_host_does_not_hold_the_others() {
    let place = Place::new(
        &["h1"],
        r#"hosts far {
  host "h2" { address = 127.0.0.1  port = 1 }
}
play "p" on hosts.all {
  file "OUT/{{ host.name }}" { content = "" }
}"#,
    );
    let run = place.play(&[]).expect(5);
    assert_eq!(run.hosts_in_sequence(), 2);
    assert_eq!(run.steps(), ["h1 file h1: changed"]);
    assert!(run.text.contains("cannot connect to 127.0.0.1"), "{}", run.text);
    assert!(run.text.contains("Connection refused"), "{}", run.text);
}

#[test]
fn what_is_set_is_a_literal_or_text_and_never_computed() {
    let place = Place::new(
        &["h"],
        r#"vars {
  text  = "a"
  count = 1
  wait  = 30s
}
role text_of(name: string, given: string = "none") {
  file "OUT/{{ name }}" { content = "{{ given }}" }
}
play "p" on hosts.all_of_them {
  file "OUT/text" { content = "{{ text }}" }
  file "OUT/count" { content = "{{ count + 1 if count is number else count }}"  timeout = wait }
  text_of { name = "role" }
}"#,
    );
    for (text, count, counted) in [
        ("2024-11-29", "2", "3"),
        ("007", "007", "007"),
        ("60s", "2 + 3", "2 + 3"),
        ("1024KiB", "\"5\"", "5"),
        ("true", "2024-11-29", "2024-11-29"),
        ("0755", "-1", "0"),
        ("[1, 2]", "1", "2"),
        ("\"q\"", "1", "2"),
        ("null", "1", "2"),
    ] {
        let set = [format!("text={text}"), format!("count={count}"), "wait=1m".to_owned(), format!("given={text}")];
        let set: Vec<&str> = set.iter().flat_map(|one| ["--set", one]).collect();
        place.play(&set).expect(0);
        let made = ["text", "count", "role"].map(|name| place.read(name).unwrap());
        assert_eq!(made, [text, counted, text]);
    }
}

/// Three nodes of one host: the first waits for what the second makes, so it ends well only where they go through the play side by side.
const BESIDE: &str = r#"
nodes web { count = 3  on = hosts.all_of_them  name = "web{{ node.index }}" }

play "p" on nodes.web {
  when node.index == 1 {
    command ["test", "-e", "OUT/web2"] { within = 20s }
  }
  file "OUT/{{ node.name }}" { content = "here" }
  shell "ls OUT > OUT/seen-by-{{ node.name }}"
}"#;

#[test]
fn nodes_of_a_host_go_side_by_side_and_are_told_one_after_the_other() {
    let place = Place::new(&["h"], BESIDE);
    let run = place.play(&[]).expect(0);
    assert_eq!(
        run.steps(),
        [
            "web1 command web2: ok",
            "web1 file web1: changed",
            "web1 shell seen-by-web1: ran",
            "web2 file web2: changed",
            "web2 shell seen-by-web2: ran",
            "web3 file web3: changed",
            "web3 shell seen-by-web3: ran",
        ]
    );
    // What may be anything is done as if they went one after the other.
    assert!(place.read("seen-by-web2").unwrap().contains("seen-by-web1"));
    assert!(!place.read("seen-by-web1").unwrap().contains("seen-by-web2"));
    place.play(&["--check"]).expect(0);
}
