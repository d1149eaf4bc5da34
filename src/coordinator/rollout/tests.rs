//! Every way through a rollout, without hosts.

use super::*;

fn info(batches: &[&[&str]], budget: usize) -> RolloutInfo {
    let batches = batches.iter().map(|batch| batch.iter().map(|node| (*node).to_owned()).collect()).collect();
    RolloutInfo { title: "t".to_owned(), batches, budget, ..RolloutInfo::default() }
}

fn tell(rollout: &mut Rollout, node: &str, pending: bool, sick: bool) {
    let target = Target { host: "h".to_owned(), node: Some(node.to_owned()) };
    let output = Map::from([("pending".to_owned(), Value::Bool(pending)), ("sick".to_owned(), Value::Bool(sick))]);
    rollout.standing(&target, &output);
}

/// The parts of a rollout with so many batches, in the order of the plan.
fn parts(batches: usize) -> Vec<RolloutPart> {
    use RolloutPart as P;
    let forward = (0..batches).flat_map(|b| [P::Drain(b), P::Change(b), P::Ready(b), P::Settle(b)]);
    let back = (0..batches).rev().flat_map(|b| [P::DrainBack(b), P::Back(b), P::ReadyBack(b)]);
    [P::Prepare, P::GiveBack].into_iter().chain(forward).chain([P::Confirm]).chain(back).collect()
}

/// Goes through all stages; `fails` says which node fails in which. What was done to whom.
fn walk(rollout: &mut Rollout, all: &[&str], fails: impl Fn(RolloutPart, &str) -> bool) -> Vec<(RolloutPart, String)> {
    let batches = rollout.info.batches.clone();
    let mut done = Vec::new();
    for part in parts(batches.len()) {
        let Decision::Go { without } = rollout.decide(part) else { continue };
        let members: Vec<String> = match part {
            RolloutPart::Prepare | RolloutPart::GiveBack | RolloutPart::Confirm => {
                all.iter().map(|node| (*node).to_owned()).collect()
            }
            RolloutPart::Drain(b)
            | RolloutPart::Change(b)
            | RolloutPart::Ready(b)
            | RolloutPart::Settle(b)
            | RolloutPart::DrainBack(b)
            | RolloutPart::Back(b)
            | RolloutPart::ReadyBack(b) => batches[b].clone(),
        };
        let members: Vec<String> = members.into_iter().filter(|node| !without.contains(node)).collect();
        let failed = members.iter().filter(|node| fails(part, node)).cloned().collect();
        done.extend(members.into_iter().map(|node| (part, node)));
        rollout.over(part, &failed);
    }
    rollout.ended();
    done
}

fn ready(batches: &[&[&str]], budget: usize) -> (Rollout, Vec<String>) {
    let mut rollout = Rollout::new(info(batches, budget), false);
    let all: Vec<String> = batches.iter().copied().flatten().map(|node| (*node).to_owned()).collect();
    all.iter().for_each(|node| tell(&mut rollout, node, true, false));
    (rollout, all)
}

#[test]
fn all_goes_well_and_nothing_is_put_back() {
    let (mut rollout, _) = ready(&[&["a"], &["b", "c"]], 0);
    let done = walk(&mut rollout, &["a", "b", "c"], |_, _| false);
    assert!(!done.iter().any(|(part, _)| *part >= RolloutPart::DrainBack(0)), "{done:?}");
    assert_eq!(done.iter().filter(|(part, _)| matches!(part, RolloutPart::Change(_))).count(), 3);
    assert!(!rollout.is_refused());
    assert!(matches!(rollout.news().last(), Some(RolloutNews::Done { nodes: 3, left }) if left.is_empty()));
}

#[test]
fn what_needs_nothing_is_left_alone() {
    let mut rollout = Rollout::new(info(&[&["a"], &["b", "c"]], 0), false);
    for (node, pending) in [("a", false), ("b", true), ("c", false)] {
        tell(&mut rollout, node, pending, false);
    }
    let done = walk(&mut rollout, &["a", "b", "c"], |_, _| false);
    let touched: Vec<&str> =
        done.iter().filter(|(part, _)| matches!(part, RolloutPart::Change(_))).map(|(_, node)| node.as_str()).collect();
    assert_eq!(touched, ["b"]);
    let mut rollout = Rollout::new(info(&[&["a"]], 0), false);
    tell(&mut rollout, "a", false, false);
    let done = walk(&mut rollout, &["a"], |_, _| false);
    assert_eq!(done, [(RolloutPart::Prepare, "a".to_owned())]);
    assert_eq!(rollout.news(), [RolloutNews::Nothing { nodes: 1 }]);
}

#[test]
fn what_is_not_prepared_touches_nothing() {
    let (mut rollout, _) = ready(&[&["a"], &["b"]], 5);
    let done = walk(&mut rollout, &["a", "b"], |part, node| part == RolloutPart::Prepare && node == "b");
    assert!(done.iter().all(|(part, _)| *part == RolloutPart::Prepare), "{done:?}");
    assert!(rollout.is_refused());
}

#[test]
fn sick_nodes_count_before_the_start() {
    for (budget, goes) in [(0, false), (1, true)] {
        let mut rollout = Rollout::new(info(&[&["a"], &["b"]], budget), false);
        tell(&mut rollout, "a", true, false);
        tell(&mut rollout, "b", true, true);
        let done = walk(&mut rollout, &["a", "b"], |_, _| false);
        assert_eq!(done.iter().any(|(part, _)| matches!(part, RolloutPart::Change(_))), goes);
    }
    // One that nobody could look at is sick.
    let mut rollout = Rollout::new(info(&[&["a"], &["b"]], 0), false);
    tell(&mut rollout, "a", true, false);
    walk(&mut rollout, &["a", "b"], |_, _| false);
    assert!(rollout.is_refused());
}

/// A rollout of an image whose first batch mends: `a` is well, `b` sick and unlike what is declared, `c` well and new to it.
fn mending(fails: bool, runs: bool) -> (Rollout, Vec<(RolloutPart, String)>) {
    let info = RolloutInfo { mends: true, changes: true, ..info(&[&["a", "b", "c"], &["a", "b"], &["c"]], 0) };
    let mut rollout = Rollout::new(info, false);
    for (node, pending, sick) in [("a", false, false), ("b", true, true), ("c", true, false)] {
        let target = Target { host: "h".to_owned(), node: Some(node.to_owned()) };
        let flags = [("pending", pending), ("sick", sick), ("differs", pending), ("running", runs || !sick)];
        let output = flags.map(|(name, flag)| (name.to_owned(), Value::Bool(flag)));
        rollout.standing(&target, &output.into());
    }
    let fails = |part: RolloutPart, node: &str| fails && part == RolloutPart::Change(0) && node == "b";
    let done = walk(&mut rollout, &["a", "b", "c"], fails);
    (rollout, done)
}

#[test]
fn a_sick_node_that_the_change_would_mend_goes_first_and_alone() {
    use RolloutPart as P;
    let (mut rollout, done) = mending(false, true);
    let touched: Vec<(P, &str)> = done.iter().map(|(part, node)| (*part, node.as_str())).collect();
    let of =
        |batch, node| [P::Drain(batch), P::Change(batch), P::Ready(batch), P::Settle(batch)].map(|part| (part, node));
    assert_eq!(touched[3..11], [of(0, "b"), of(2, "c")].concat());
    assert!(!rollout.is_refused());
    let begins = RolloutNews::Begins { nodes: 2, of: 3, batches: vec![1, 1] };
    assert_eq!(rollout.news().first(), Some(&begins));

    // When it does not become well the rest stays as it is.
    let (rollout, done) = mending(true, true);
    let back: Vec<&str> =
        done.iter().filter(|(part, _)| matches!(part, P::Back(_))).map(|(_, node)| node.as_str()).collect();
    assert_eq!(back, ["b"]);
    assert!(!done.iter().any(|(part, node)| *part == P::Change(2) && node == "c"), "{done:?}");
    assert!(rollout.is_refused());
}

#[test]
fn what_was_stopped_and_is_mended_is_in_traffic_again_before_the_next_goes() {
    let (rollout, done) = mending(false, false);
    let place = |part: RolloutPart, node: &str| done.iter().position(|done| *done == (part, node.to_owned()));
    let ready = place(RolloutPart::Ready(0), "b");
    assert!(ready.is_some() && ready < place(RolloutPart::Drain(2), "c"), "{done:?}");
    assert_eq!(place(RolloutPart::Drain(0), "b"), None);
    assert!(!rollout.is_refused());
}

#[test]
fn what_a_broken_off_run_was_at_work_on_is_gone_on_with() {
    let mut rollout = Rollout::new(info(&[&["a"], &["b"]], 0), false);
    tell(&mut rollout, "a", true, false);
    let target = Target { host: "h".to_owned(), node: Some("b".to_owned()) };
    let output = ["pending", "sick", "begun"].map(|name| (name.to_owned(), Value::Bool(true)));
    rollout.standing(&target, &output.into_iter().chain([("running".to_owned(), Value::Bool(false))]).collect());
    let done = walk(&mut rollout, &["a", "b"], |_, _| false);
    assert!(done.contains(&(RolloutPart::Ready(1), "b".to_owned())), "it was taken out of traffic; {done:?}");
}

fn leave_out(rollout: &mut Rollout, node: &str) {
    let target = Target { host: "balancer".to_owned(), node: Some(node.to_owned()) };
    rollout.left_out(&target, &Map::from([("out".to_owned(), Value::Bool(true))]));
}

#[test]
fn what_an_earlier_run_left_out_of_traffic_goes_back_where_it_is_well() {
    use RolloutPart as P;
    let all = ["a", "b", "c", "d"];
    let of = |pending: &[&str], sick: &[&str], fails: &[&str]| {
        let mut rollout = Rollout::new(info(&[&["a"], &["b"], &["c", "d"]], 0), false);
        all.iter().for_each(|node| tell(&mut rollout, node, pending.contains(node), sick.contains(node)));
        ["b", "c"].iter().for_each(|node| leave_out(&mut rollout, node));
        let done = walk(&mut rollout, &all, |part, node| part == P::GiveBack && fails.contains(&node));
        (rollout, done)
    };
    let back = |done: &[(P, String)]| -> Vec<String> {
        done.iter().filter(|(part, _)| *part == P::GiveBack).map(|(_, node)| node.clone()).collect()
    };
    let changed = |done: &[(P, String)]| done.iter().any(|(part, _)| matches!(part, P::Change(_)));
    // Nothing is to roll out: both go back, and nothing else is done.
    let (mut rollout, done) = of(&[], &[], &[]);
    assert_eq!(back(&done), ["b", "c"]);
    assert!(!rollout.is_refused() && done.iter().all(|(part, _)| *part <= P::GiveBack), "{done:?}");
    assert_eq!(rollout.news()[0], RolloutNews::LeftOut { nodes: vec!["b".to_owned(), "c".to_owned()] });
    // One that needs what is new goes back in its batch; one that is not well stays out.
    let (mut rollout, done) = of(&["b"], &[], &[]);
    assert_eq!(back(&done), ["c"]);
    assert!(done.contains(&(P::Ready(1), "b".to_owned())) && !rollout.is_refused());
    rollout.news();
    let (mut rollout, done) = of(&[], &["c"], &[]);
    assert_eq!(back(&done), ["b"]);
    assert!(rollout.news().contains(&RolloutNews::StaysOut { nodes: vec!["c".to_owned()] }));
    // One that the balancer does not find well counts as sick: no other node is touched.
    let (rollout, done) = of(&["a"], &[], &["c"]);
    assert!(rollout.is_refused() && !changed(&done), "{done:?}");
    // Where everything is put back each node goes back into traffic anyway.
    let mut rollout = Rollout::new(RolloutInfo { put_back: true, ..info(&[&["a"]], 0) }, false);
    leave_out(&mut rollout, "a");
    assert_eq!(rollout.decide(P::GiveBack), Decision::Skip);
}

#[test]
fn a_run_that_is_asked_to_stop_has_failed_nowhere_and_says_how_it_stands() {
    use RolloutPart as P;
    let target = |node: &str| Target { host: "balancer".to_owned(), node: Some(node.to_owned()) };
    let names = |names: &[&str]| -> Vec<String> { names.iter().map(|name| (*name).to_owned()).collect() };
    let (mut rollout, _) = ready(&[&["a"], &["b", "c"]], 0);
    rollout.info.within = Some(std::time::Duration::from_secs(60));
    for part in [P::Prepare, P::Drain(0), P::Change(0), P::Ready(0), P::Drain(1), P::Change(1)] {
        assert!(matches!(rollout.decide(part), Decision::Go { .. }), "{part:?}");
        for node in match part {
            P::Drain(0) | P::Ready(0) => names(&["a"]),
            P::Drain(1) => names(&["b", "c"]),
            _ => Vec::new(),
        } {
            rollout.traffic(part, &target(&node), true);
        }
        if part != P::Change(1) {
            rollout.over(part, &BTreeSet::new());
        }
    }
    rollout.interrupted();
    let how = RolloutNews::Interrupted {
        nodes: 1,
        half: names(&["b", "c"]),
        out: names(&["b", "c"]),
        within_ms: Some(60_000),
    };
    assert_eq!(rollout.news().last(), Some(&how));
    for part in parts(2).into_iter().skip_while(|part| *part != P::Ready(1)) {
        assert_eq!(rollout.decide(part), Decision::Skip, "{part:?}");
    }
    assert!(rollout.is_refused());
    // Where nothing was changed nobody puts anything back.
    let (mut rollout, _) = ready(&[&["a"]], 0);
    rollout.info.within = Some(std::time::Duration::from_secs(60));
    rollout.decide(P::Prepare);
    rollout.interrupted();
    let how = RolloutNews::Interrupted { nodes: 0, half: Vec::new(), out: Vec::new(), within_ms: None };
    assert_eq!(rollout.news(), [how]);
}

#[test]
fn within_the_budget_it_goes_on_without_the_failed_one() {
    let (mut rollout, _) = ready(&[&["a"], &["b", "c"], &["d"]], 1);
    let done = walk(&mut rollout, &["a", "b", "c", "d"], |part, node| part == RolloutPart::Change(1) && node == "b");
    assert!(done.contains(&(RolloutPart::Ready(1), "c".to_owned())));
    assert!(!done.contains(&(RolloutPart::Ready(1), "b".to_owned())), "it stays out of traffic");
    assert!(done.contains(&(RolloutPart::Change(2), "d".to_owned())));
    assert!(!done.contains(&(RolloutPart::Confirm, "b".to_owned())));
    assert!(matches!(rollout.news().last(), Some(RolloutNews::Done { left, .. }) if left == &["b"]));
}

#[test]
fn a_halt_leaves_everything_as_it_is_and_in_traffic() {
    let (mut rollout, _) = ready(&[&["a"], &["b"], &["c"]], 0);
    for part in [RolloutPart::Prepare, RolloutPart::Drain(0), RolloutPart::Change(0), RolloutPart::Ready(0)] {
        assert!(matches!(rollout.decide(part), Decision::Go { .. }), "{part:?}");
        rollout.over(part, &BTreeSet::new());
    }
    assert!(matches!(rollout.decide(RolloutPart::Drain(1)), Decision::Go { .. }));
    rollout.over(RolloutPart::Drain(1), &BTreeSet::new());
    assert!(matches!(rollout.decide(RolloutPart::Change(1)), Decision::Go { .. }));
    rollout.halted(&Target { host: "h".to_owned(), node: Some("b".to_owned()) }, "a sale");
    rollout.over(RolloutPart::Change(1), &BTreeSet::from(["b".to_owned()]));
    let goes: Vec<RolloutPart> = parts(3)
        .into_iter()
        .skip_while(|part| *part != RolloutPart::Ready(1))
        .filter(|part| rollout.decide(*part) != Decision::Skip)
        .collect();
    assert_eq!(goes, [RolloutPart::Ready(1)]);
    assert!(rollout.is_refused());
    assert_eq!(rollout.news().last(), Some(&RolloutNews::Halted { nodes: 1, why: "a sale".to_owned() }));
}

#[test]
fn what_is_halted_already_is_not_begun() {
    for (pending, goes) in [(true, false), (false, true)] {
        let mut rollout = Rollout::new(info(&[&["a"], &["b"]], 0), false);
        tell(&mut rollout, "a", true, false);
        let target = Target { host: "h".to_owned(), node: Some("b".to_owned()) };
        let output = [("pending", Value::Bool(pending)), ("halted", Value::from("a sale"))];
        rollout.standing(&target, &output.map(|(name, value)| (name.to_owned(), value)).into());
        let done = walk(&mut rollout, &["a", "b"], |_, _| false);
        assert_eq!(done.iter().any(|(part, _)| *part != RolloutPart::Prepare), goes, "{done:?}");
        assert_eq!(rollout.is_refused(), !goes);
    }
}

#[test]
fn who_dies_on_the_way_has_failed_and_is_given_back_to_the_balancer() {
    let (mut rollout, _) = ready(&[&["a"], &["b"]], 0);
    let mut done = Vec::new();
    for part in parts(2) {
        if rollout.decide(part) == Decision::Skip {
            continue;
        }
        if part == RolloutPart::Change(1) {
            let target = Target { host: "h".to_owned(), node: Some("b".to_owned()) };
            rollout.standing(&target, &Map::from([("running".to_owned(), Value::Bool(false))]));
        }
        done.push(part);
        // The balancer waits for it in vain.
        let failed = if part == RolloutPart::ReadyBack(1) { vec!["b".to_owned()] } else { Vec::new() };
        rollout.over(part, &failed.into_iter().collect());
    }
    rollout.ended();
    assert!(!done.contains(&RolloutPart::Ready(1)) && done.contains(&RolloutPart::ReadyBack(1)), "{done:?}");
    assert!(done.contains(&RolloutPart::Back(0)), "{done:?}");
    let news = rollout.news();
    assert!(news.contains(&RolloutNews::Died { nodes: vec!["b".to_owned()] }), "{news:?}");
    assert_eq!(news.last(), Some(&RolloutNews::PutBack { nodes: 2, stays: Vec::new() }));
}

#[test]
fn a_rollback_that_fails_stops() {
    let (mut rollout, _) = ready(&[&["a"], &["b"], &["c"]], 0);
    let done =
        walk(&mut rollout, &["a", "b", "c"], |part, _| matches!(part, RolloutPart::Change(2) | RolloutPart::Back(2)));
    assert!(done.contains(&(RolloutPart::Back(2), "c".to_owned())));
    assert!(!done.iter().any(|(part, _)| matches!(part, RolloutPart::Back(0 | 1))), "{done:?}");
    assert!(matches!(rollout.news().last(), Some(RolloutNews::NotPutBack { nodes }) if nodes == &["c"]));
}

#[test]
fn who_is_back_goes_into_traffic_also_when_another_one_of_its_batch_is_not() {
    let (mut rollout, _) = ready(&[&["a"], &["b", "c"]], 0);
    let done = walk(&mut rollout, &["a", "b", "c"], |part, node| {
        matches!((part, node), (RolloutPart::Settle(1), "b") | (RolloutPart::Back(1), "c"))
    });
    let back = |node: &str| done.contains(&(RolloutPart::ReadyBack(1), node.to_owned()));
    assert!(back("b") && !back("c"), "{done:?}");
    assert!(!done.iter().any(|(part, _)| matches!(part, RolloutPart::DrainBack(0) | RolloutPart::Back(0))), "{done:?}");
}

/// Every node may fail at every stage: whatever happens, what is promised holds.
#[test]
fn every_way_through_keeps_the_promises() {
    let batches: &[&[&str]] = &[&["a"], &["b", "c"]];
    let nodes = ["a", "b", "c"];
    let places: Vec<(RolloutPart, &str)> =
        parts(2).into_iter().flat_map(|part| nodes.map(|node| (part, node))).collect();
    for budget in 0..=2 {
        for first in 0..places.len() {
            for second in first..places.len() {
                let (mut rollout, _) = ready(batches, budget);
                let fails =
                    |part: RolloutPart, node: &str| places[first] == (part, node) || places[second] == (part, node);
                let done = walk(&mut rollout, &nodes, fails);
                let why = format!("budget {budget}, {:?} {:?}: {done:?}", places[first], places[second]);
                let failed: BTreeSet<&String> = done
                    .iter()
                    .filter(|(part, node)| {
                        *part < RolloutPart::Confirm && *part > RolloutPart::Prepare && fails(*part, node)
                    })
                    .map(|(_, node)| node)
                    .collect();
                let back = done.iter().any(|(part, _)| matches!(part, RolloutPart::Back(_)));
                assert_eq!(back, failed.len() > budget, "{why}");
                if back {
                    assert!(!done.iter().any(|(part, _)| *part == RolloutPart::Confirm), "{why}");
                    let stopped =
                        done.iter().any(|(part, node)| *part > RolloutPart::DrainBack(9) && fails(*part, node));
                    for (part, node) in &done {
                        let RolloutPart::Change(batch) = part else { continue };
                        let put_back = done.contains(&(RolloutPart::Back(*batch), node.clone()));
                        assert!(put_back || stopped, "{node} is neither confirmed nor put back; {why}");
                    }
                }
                // Nothing goes back into traffic that failed, but after it was put back.
                for (part, node) in &done {
                    if let RolloutPart::Ready(batch) = part {
                        let earlier = |other: &RolloutPart| {
                            *other == RolloutPart::Change(*batch) || *other == RolloutPart::Drain(*batch)
                        };
                        assert!(
                            !done.iter().any(|(other, name)| name == node && earlier(other) && fails(*other, name)),
                            "{why}"
                        );
                    }
                }
            }
        }
    }
}
