//! Every message in every state, against an honest engine that is written down a second time, as loops instead of a state.

use proptest::prelude::*;

use super::*;
use crate::change::{Change, Verb};
use crate::event::{RolloutNews, Verdict};
use crate::plan::{Arg, Handler, Late, LateSource, RunOptions, Step, TargetPlan};
use crate::source::Span;
use crate::syntax::ast::{Expr, ExprKind};
use crate::value::Value;

const HOST: &str = "h1";

#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there are few")]
enum Input {
    Order(Order),
    Event(Event),
}

// --- the honest engine ---

/// Why the replay of an input ends.
enum End {
    /// It is the beginning of what an honest host says.
    Whole,
    Wrong,
}

/// Carries out a plan as the engine does, and takes each decision that only the host knows from what it is heard to say.
struct Replay<'a> {
    plan: &'a HostPlan,
    inputs: std::collections::VecDeque<&'a Input>,
    go: i64,
    without: Vec<(u32, Vec<String>)>,
    skips: Vec<(u32, u32)>,
    stop: bool,
    failed: Vec<Target>,
    notified: Vec<String>,
    tally: Tally,
    index: u64,
}

fn is_honest(plan: &HostPlan, inputs: &[Input]) -> bool {
    let mut replay = Replay {
        plan,
        inputs: inputs.iter().collect(),
        go: -1,
        without: Vec::new(),
        skips: Vec::new(),
        stop: false,
        failed: Vec::new(),
        notified: Vec::new(),
        tally: Tally::default(),
        index: 0,
    };
    matches!(replay.run(), Err(End::Whole))
}

impl<'a> Replay<'a> {
    /// The next event that tells anything; orders before it are carried out.
    fn peek(&mut self) -> Result<&'a EventKind, End> {
        loop {
            match self.inputs.front() {
                None => return Err(End::Whole),
                Some(Input::Order(Order::Go { stage, without })) => {
                    self.go = self.go.max(i64::from(*stage));
                    self.without.push((*stage, without.clone()));
                }
                Some(Input::Order(Order::Skip { from, to })) => self.skips.push((*from, *to)),
                Some(Input::Order(Order::Stop)) => self.stop = true,
                Some(Input::Order(Order::Lock { .. } | Order::Unlock)) => {}
                Some(Input::Event(event)) => {
                    if event.host != HOST || event.index != self.index {
                        return Err(End::Wrong);
                    }
                    let chatter = matches!(event.kind, EventKind::Progress { .. } | EventKind::Warning { .. });
                    if !chatter {
                        return Ok(&event.kind);
                    }
                    self.index += 1;
                }
            }
            self.inputs.pop_front();
        }
    }

    fn next(&mut self) -> Result<&'a EventKind, End> {
        let event = self.peek()?;
        self.inputs.pop_front();
        self.index += 1;
        Ok(event)
    }

    fn skips(&self, stage: &Stage) -> bool {
        self.skips.iter().any(|(from, to)| *from <= stage.number && stage.number <= *to)
    }

    fn run(&mut self) -> Result<(), End> {
        let stages = &self.plan.stages;
        // Facts that cannot be had.
        if let EventKind::HostFinished { stopped: Some(failure), tally } = self.peek()?
            && self.plan.facts
            && failure.kind == FailureKind::Step
            && *tally == Tally::default()
        {
            return self.over();
        }
        let mut stopped = false;
        for stage in stages {
            let next = self.peek()?;
            if self.skips(stage) {
                continue;
            }
            if self.stop && matches!(next, EventKind::HostFinished { .. }) {
                stopped = true;
                break;
            }
            if self.go < i64::from(stage.number) {
                return Err(End::Wrong);
            }
            self.stage(stage)?;
        }
        let tally = self.tally;
        match self.peek()? {
            EventKind::HostFinished { stopped: told, tally: counted } if *counted == tally => match told {
                None if !stopped => self.over(),
                Some(failure) if self.stop && failure.kind == FailureKind::Aborted => self.over(),
                _ => Err(End::Wrong),
            },
            _ => Err(End::Wrong),
        }
    }

    /// The last event; nothing follows.
    fn over(&mut self) -> Result<(), End> {
        self.next()?;
        let more = self.inputs.iter().any(|input| matches!(input, Input::Event(_)));
        Err(if more { End::Wrong } else { End::Whole })
    }

    /// A host that is stopped begins nothing more for a target, and tells what it had begun for those beside it.
    fn stop_is_seen(&mut self, plan: &TargetPlan) -> Result<bool, End> {
        let next = self.peek()?;
        let own =
            |id| plan.steps.iter().chain(plan.handlers.iter().flat_map(|one| &one.steps)).any(|step| step.id == id);
        Ok(self.stop
            && match next {
                EventKind::StageFinished { .. } => true,
                EventKind::StepStarted { step } | EventKind::StepFinished { step, .. } => !own(step.id),
                _ => false,
            })
    }

    fn stage(&mut self, stage: &Stage) -> Result<(), End> {
        let mut failed = Vec::new();
        let own = Target { host: HOST.to_owned(), node: None };
        for plan in &stage.targets {
            self.peek()?;
            let left_out = self
                .without
                .iter()
                .any(|(number, nodes)| *number == stage.number && nodes.contains(&plan.target.to_string()));
            let has_failed = self.failed.contains(&plan.target) || self.failed.contains(&own);
            if left_out || has_failed && !stage.rescue {
                continue;
            }
            if !self.target(plan, stage)? {
                failed.push(plan.target.clone());
            }
        }
        match self.next()? {
            EventKind::StageFinished { stage: number, failed: told } if *number == stage.number && *told == failed => {
                Ok(())
            }
            _ => Err(End::Wrong),
        }
    }

    fn target(&mut self, plan: &TargetPlan, stage: &Stage) -> Result<bool, End> {
        self.notified.clear();
        let mut whole = true;
        for step in &plan.steps {
            if self.stop_is_seen(plan)? {
                break;
            }
            if !self.step(step, plan, stage, false)? {
                whole = false;
                break;
            }
        }
        for handler in plan.handlers.iter().filter(|handler| !handler.left_out) {
            if self.stop_is_seen(plan)? {
                continue;
            }
            let left_before = match (self.peek()?, handler.steps.first()) {
                (EventKind::StepStarted { step } | EventKind::StepFinished { step, .. }, Some(first)) => {
                    step.id == first.id
                }
                _ => false,
            };
            if !self.notified.contains(&handler.name) && !left_before {
                continue;
            }
            let mut done = true;
            for step in &handler.steps {
                if self.stop_is_seen(plan)? {
                    done = false;
                    break;
                }
                if !self.step(step, plan, stage, true)? {
                    whole = false;
                    done = false;
                    break;
                }
            }
            if done {
                self.notified.retain(|name| *name != handler.name);
            }
        }
        if !whole {
            self.failed.push(plan.target.clone());
        }
        Ok(whole)
    }

    fn step(&mut self, step: &Step, plan: &TargetPlan, stage: &Stage, handler: bool) -> Result<bool, End> {
        let reference = of_step(step, &plan.target, stage, handler);
        let mut started = false;
        if let EventKind::StepStarted { step: said } = self.peek()? {
            if *said != reference {
                return Err(End::Wrong);
            }
            self.next()?;
            started = true;
        }
        let EventKind::StepFinished { step: said, outcome, output, .. } = self.next()? else { return Err(End::Wrong) };
        let RunOptions { check, .. } = self.plan.options;
        let conditional = !step.when.is_empty();
        let fits = match (outcome, started) {
            (Outcome::Ok, true) => true,
            (Outcome::Changed(_) | Outcome::Ran, true) => !check,
            (Outcome::WouldChange(_) | Outcome::WouldRun, true) | (Outcome::Unknown(_), _) => check,
            (Outcome::Skipped(_), false) => conditional,
            (Outcome::Failed(_, change), _) => !step.ignore_failure && (started || change.is_none()),
            (Outcome::Ignored(_, change), _) => step.ignore_failure && (started || change.is_none()),
            _ => false,
        };
        if !fits || *said != reference || !output.is_empty() {
            return Err(End::Wrong);
        }
        self.tally.count(outcome);
        let (changed, failed) = match outcome {
            Outcome::Failed(_, change) => (change.is_some(), true),
            Outcome::Ignored(_, change) => (change.is_some(), false),
            Outcome::Ok | Outcome::Unknown(_) | Outcome::Skipped(_) => (false, false),
            _ => (true, false),
        };
        if changed {
            self.notified.extend(step.notify.iter().cloned());
        }
        Ok(!failed)
    }
}

// --- plans and messages ---

fn of_step(step: &Step, target: &Target, stage: &Stage, handler: bool) -> StepRef {
    StepRef {
        id: step.id,
        target: target.clone(),
        play: stage.title.clone(),
        kind: step.kind.clone(),
        title: format!("title {}", step.id),
        at: step.at.clone(),
        handler,
    }
}

fn step(notify: Vec<String>, ignore_failure: bool, conditional: bool) -> Step {
    let span = Span::NOWHERE;
    let name = Expr { kind: ExprKind::Name("facts".to_owned()), span };
    let late = Late { source: LateSource::Expr(name), needs: Vec::new(), at: String::new() };
    let when = if conditional { vec![late] } else { Vec::new() };
    Step { when, notify, ignore_failure, ..Step::new("file", Value::Null, []) }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let names = proptest::sample::subsequence(vec!["x".to_owned(), "y".to_owned()], 0..=2);
    let one = (names, any::<bool>(), any::<bool>()).prop_map(|(notify, ignore, when)| step(notify, ignore, when));
    proptest::collection::vec(one, 0..3)
}

prop_compose! {
    fn target_plan()(
        node in 0..3u8, steps in steps(), x in steps(), y in steps(), handlers in 0..3usize, left_out in any::<bool>(),
    ) -> TargetPlan {
        let node = (node > 0).then(|| format!("n{node}"));
        let mut all = vec![
            Handler { name: "x".to_owned(), steps: x, left_out },
            Handler { name: "y".to_owned(), steps: y, left_out: false },
        ];
        all.truncate(handlers);
        TargetPlan { target: Target { host: HOST.to_owned(), node }, steps, handlers: all }
    }
}

prop_compose! {
    fn plan()(
        stages in proptest::collection::vec((proptest::collection::vec(target_plan(), 1..3), any::<bool>()), 1..4),
        facts in any::<bool>(),
        check in any::<bool>(),
    ) -> HostPlan {
        let mut id = 0;
        let stages = stages.into_iter().enumerate().map(|(number, (mut targets, rescue))| {
            for plan in &mut targets {
                let TargetPlan { steps, handlers, .. } = plan;
                for step in steps.iter_mut().chain(handlers.iter_mut().flat_map(|handler| &mut handler.steps)) {
                    step.id = id;
                    step.at = format!("play.fp:{id}");
                    step.title = Arg::Ready(Value::from(format!("title {id}")));
                    id += 1;
                }
            }
            // Numbers of stages that other hosts have are left out.
            let number = u32::try_from(number * 2).unwrap();
            Stage { number, play: number, title: format!("play {number}"), batch: None, rescue, targets }
        });
        let options = RunOptions { check, diff: false, step_limit: Duration::from_secs(10), lock_wait: None };
        HostPlan { run: "r".to_owned(), playbook: "site.fp".to_owned(), host: HOST.to_owned(), stages: stages.collect(), blobs: BTreeMap::new(), facts, options }
    }
}

fn outcomes() -> Vec<Outcome> {
    let change = || Change { verb: Verb::Update, fields: Vec::new() };
    vec![
        Outcome::Ok,
        Outcome::Changed(change()),
        Outcome::Ran,
        Outcome::WouldChange(change()),
        Outcome::WouldRun,
        Outcome::Unknown("behind".to_owned()),
        Outcome::Skipped("no".to_owned()),
        Outcome::Failed(Failure::new("no"), None),
        Outcome::Failed(Failure::new("no"), Some(change())),
        Outcome::Ignored(Failure::new("no"), None),
        Outcome::Ignored(Failure::new("no"), Some(change())),
    ]
}

/// References to every step, as they are and a little wrong, and to one that no plan has.
fn references(plan: &HostPlan) -> Vec<StepRef> {
    let mut all = Vec::new();
    for stage in &plan.stages {
        for target in &stage.targets {
            let handlers = target.handlers.iter().flat_map(|handler| &handler.steps).map(|step| (step, true));
            for (step, handler) in target.steps.iter().map(|step| (step, false)).chain(handlers) {
                all.push(of_step(step, &target.target, stage, handler));
            }
        }
    }
    if let Some(first) = all.first().cloned() {
        let other = Target { host: "victim".to_owned(), node: None };
        let node = Target { host: HOST.to_owned(), node: Some("n9".to_owned()) };
        all.push(StepRef { target: other, ..first.clone() });
        all.push(StepRef { target: node, ..first.clone() });
        all.push(StepRef { id: 999, ..first.clone() });
        all.push(StepRef { kind: "attach".to_owned(), ..first.clone() });
        all.push(StepRef { title: "other".to_owned(), ..first.clone() });
        all.push(StepRef { play: "other".to_owned(), ..first.clone() });
        all.push(StepRef { at: "other".to_owned(), ..first.clone() });
        all.push(StepRef { handler: !first.handler, ..first });
    }
    all
}

/// Every message that a host could send, with what it might say of itself.
fn messages(plan: &HostPlan, tally: Tally, failed: &[Target]) -> Vec<EventKind> {
    let mut all = Vec::new();
    for step in references(plan) {
        all.push(EventKind::StepStarted { step: step.clone() });
        all.extend(outcomes().into_iter().map(|outcome| EventKind::StepFinished {
            step: step.clone(),
            outcome,
            output: Map::new(),
            took_ms: 1,
        }));
    }
    let host = Target { host: HOST.to_owned(), node: None };
    let victim = Target { host: "victim".to_owned(), node: None };
    for stage in 0..7 {
        for failed in [Vec::new(), failed.to_vec(), vec![host.clone()], vec![victim.clone()]] {
            all.push(EventKind::StageFinished { stage, failed });
        }
    }
    let more = Tally { ok: tally.ok.wrapping_add(1), ..tally };
    for tally in [tally, more, Tally::default()] {
        let kinds = [FailureKind::Aborted, FailureKind::Step, FailureKind::Lost, FailureKind::Untrusted];
        let stopped = kinds.into_iter().map(|kind| Some(Failure::of(kind, "no")));
        all.extend(stopped.chain([None]).map(|stopped| EventKind::HostFinished { tally, stopped }));
    }
    all.push(EventKind::Progress { id: 0, message: "…".to_owned(), amount: None });
    all.push(EventKind::Warning { message: "…".to_owned() });
    all.push(EventKind::RunStarted {
        run: String::new(),
        playbook: String::new(),
        hosts: Vec::new(),
        steps: 0,
        check: false,
    });
    all.push(EventKind::HostConnected { uploaded: false });
    all.push(EventKind::StageStarted { play: String::new(), batch: None, phase: None, targets: Vec::new() });
    all.push(EventKind::Rollout { title: String::new(), news: RolloutNews::Nothing { nodes: 1 } });
    all.push(EventKind::HostLost { failure: Failure::new("no") });
    all.push(EventKind::RunFinished { tally, verdict: Verdict::Converged });
    all
}

fn orders() -> Vec<Order> {
    let mut all = vec![Order::Stop, Order::Skip { from: 0, to: 1 }, Order::Skip { from: 2, to: 4 }];
    all.extend((0..6).map(|stage| Order::Go { stage, without: Vec::new() }));
    all.extend((0..6).map(|stage| Order::Go { stage, without: vec!["n1".to_owned()] }));
    all
}

/// The orders that may be given next: stages are let go or skipped one after the other.
fn next_orders(given: &[Input], state: &Protocol) -> Vec<Order> {
    let decided = given.iter().filter_map(|input| match input {
        Input::Order(Order::Go { stage, .. } | Order::Skip { to: stage, .. }) => Some(*stage),
        _ => None,
    });
    let next = decided.max().map_or(0, |last| last + 1);
    // The controller goes on when the host has finished what it may do.
    let waits = state.current().is_none();
    let fits = |order: &Order| match order {
        Order::Go { stage, .. } => *stage == next && waits,
        Order::Skip { from, .. } => *from == next && waits,
        Order::Stop | Order::Lock { .. } | Order::Unlock => true,
    };
    orders().into_iter().filter(fits).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, ..ProptestConfig::default() })]

    /// The seed of a failure is printed by proptest.
    #[test]
    fn only_what_an_honest_host_would_say_is_accepted(plan in plan(), choices in proptest::collection::vec(any::<u32>(), 40)) {
        let now = Instant::now();
        let mut state = Protocol::new(plan.clone(), now);
        let mut said: Vec<Input> = Vec::new();
        for choice in choices {
            // Every message in this state: as what it is, in another's name, and out of order.
            let mut fitting = Vec::new();
            for kind in messages(&plan, state.tally, &state.cursor.all_failed) {
                let event = Event { host: HOST.to_owned(), index: state.index, at_ms: 0, kind };
                let forged = Event { host: "victim".to_owned(), ..event.clone() };
                let late = Event { index: event.index + 1, ..event.clone() };
                prop_assert!(state.clone().hear(forged, now).is_err());
                prop_assert!(state.clone().hear(late, now).is_err());
                let accepted = state.clone().hear(event.clone(), now);
                let input = Input::Event(event.clone());
                said.push(input);
                let honest = is_honest(&plan, &said);
                prop_assert_eq!(accepted.is_ok(), honest, "{:#?}\nafter {:#?}\nof {:#?}\n{:?}", event, said, plan, accepted);
                said.pop();
                let chatter = matches!(event.kind, EventKind::Progress { .. } | EventKind::Warning { .. });
                if honest && (!chatter || choice % 8 == 0) {
                    fitting.push(event);
                }
            }
            // One step further: an event or an order.
            let orders = next_orders(&said, &state);
            let at = choice as usize % (fitting.len() + orders.len() / 3 + 1);
            if let Some(event) = fitting.into_iter().nth(at) {
                state.hear(event.clone(), now).unwrap();
                said.push(Input::Event(event));
            } else if let Some(order) = orders.get(choice as usize / 7 % orders.len().max(1)) {
                // A stop comes seldom, so that the rest is tried, too.
                if !matches!(order, Order::Stop) || choice % 5 == 0 {
                    state.order(order, now);
                    said.push(Input::Order(order.clone()));
                }
            }
        }
    }
}

/// A plan of one step.
fn simple() -> HostPlan {
    let options = RunOptions { check: false, diff: false, step_limit: Duration::from_secs(10), lock_wait: None };
    let mut step = step(Vec::new(), false, false);
    step.title = Arg::Ready(Value::from("title 0"));
    let blob = crate::value::Blob { digest: Digest::of(b"own"), len: 3 };
    let nested = Value::Map(Map::from([("f".to_owned(), Value::List(vec![Value::Blob(blob)]))]));
    step.args.insert("files".to_owned(), Arg::Ready(nested));
    let target = Target { host: HOST.to_owned(), node: None };
    let targets = vec![TargetPlan { target, steps: vec![step], handlers: Vec::new() }];
    let stage = Stage { number: 0, play: 0, title: "play 0".to_owned(), batch: None, rescue: false, targets };
    HostPlan {
        run: "r".to_owned(),
        playbook: "site.fp".to_owned(),
        host: HOST.to_owned(),
        stages: vec![stage],
        blobs: BTreeMap::new(),
        facts: false,
        options,
    }
}

fn go() -> Order {
    Order::Go { stage: 0, without: Vec::new() }
}

fn start(state: &mut Protocol, now: Instant) {
    let plan = state.plan.clone();
    let stage = &plan.stages[0];
    let step = of_step(&stage.targets[0].steps[0], &stage.targets[0].target, stage, false);
    let kind = EventKind::StepStarted { step };
    state.hear(Event { host: HOST.to_owned(), index: state.index, at_ms: 0, kind }, now).unwrap();
}

#[test]
fn contents_of_other_plans_are_refused_and_own_ones_are_not_sent_for_ever() {
    let now = Instant::now();
    let mut state = Protocol::new(simple(), now);
    assert!(state.needs(Digest::of(b"own")).is_err(), "no stage is under way");
    state.order(&go(), now);
    let refused = state.needs(Digest::of(b"another's")).unwrap_err();
    assert_eq!(refused.kind, FailureKind::Untrusted);
    assert!(refused.message.contains("its plan names no such content"), "{refused}");
    let sent = (0..1000).take_while(|_| state.needs(Digest::of(b"own")).is_ok()).count();
    assert_eq!(sent, 8);
}

#[test]
fn a_host_tells_only_of_nodes_that_it_was_asked_about_what_they_have_served() {
    let now = Instant::now();
    for (node, accepted) in [("n1", true), ("victim1", false)] {
        let mut plan = simple();
        let step = &mut plan.stages[0].targets[0].steps[0];
        step.kind = SETTLE.to_owned();
        let logs = Map::from([("n1".to_owned(), Value::from("/logs/*"))]);
        step.args.insert("logs".to_owned(), Arg::Ready(Value::Map(logs)));
        let mut state = Protocol::new(plan.clone(), now);
        state.order(&go(), now);
        start(&mut state, now);
        let stage = &plan.stages[0];
        let step = of_step(&stage.targets[0].steps[0], &stage.targets[0].target, stage, false);
        let served = Map::from([(node.to_owned(), Value::Null)]);
        let output = Map::from([("served".to_owned(), Value::Map(served))]);
        let kind = EventKind::StepFinished { step, outcome: Outcome::Ok, output, took_ms: 0 };
        let heard = state.hear(Event { host: HOST.to_owned(), index: state.index, at_ms: 0, kind }, now);
        assert_eq!(heard.is_ok(), accepted, "{heard:?}");
    }
}

#[test]
fn a_host_that_comes_no_further_has_a_limit_with_its_step_and_its_name() {
    let now = Instant::now();
    let mut state = Protocol::new(simple(), now);
    assert!(state.limit(now).is_none(), "it waits for its orders");
    state.order(&go(), now);
    let (end, failure) = state.limit(now).unwrap();
    assert_eq!(end, now + NEXT);
    assert!(failure.to_string().contains("over its limit `next step` of 5m"), "{failure}");
    // The plan is still on its way.
    assert_eq!(state.limit(now + NEXT).unwrap().0, now + NEXT + NEXT);
    start(&mut state, now);
    let (end, failure) = state.limit(now).unwrap();
    assert_eq!(end, now + Duration::from_secs(10) + GRACE);
    let told = failure.to_string();
    assert!(told.contains("`file title 0` does not end") && told.contains("`timeout` of 10s"), "{told}");
    // Progress is no sign that the step ends.
    let kind = EventKind::Progress { id: 0, message: "x".repeat(100_000), amount: None };
    let event = Event { host: HOST.to_owned(), index: state.index, at_ms: 0, kind };
    let passed = state.hear(event, now + Duration::from_secs(5)).unwrap().unwrap();
    assert_eq!(state.limit(now).unwrap().0, end);
    let EventKind::Progress { message, .. } = passed.kind else { panic!("{passed:?}") };
    assert!(message.len() < 5_000);
}

#[test]
fn amounts_are_bounded() {
    let now = Instant::now();
    let mut state = Protocol::new(simple(), now);
    state.order(&go(), now);
    start(&mut state, now);
    let mut passed = Vec::new();
    for index in 1..5_000 {
        let kind = match index % 2 {
            0 => EventKind::Progress { id: 0, message: String::new(), amount: None },
            _ => EventKind::Warning { message: "w".repeat(200_000) },
        };
        let event = Event { host: HOST.to_owned(), index, at_ms: u64::MAX, kind };
        passed.extend(state.hear(event, now).unwrap());
    }
    assert_eq!(passed.len(), 20 + 500);
    assert!(passed.iter().all(|event| event.at_ms == 0), "its clock is not ahead of ours");
    let long = |event: &Event| matches!(&event.kind, EventKind::Warning { message } if message.len() > 70_000);
    assert!(!passed.iter().any(long));
    let mut failure = Failure::new("m".repeat(200_000)).hint("h".repeat(200_000));
    failure.causes = vec!["c".repeat(200_000); 200_000 / 1_000];
    let cut = state.fatal(failure).unwrap();
    assert!(cut.message.len() < 70_000 && cut.causes.len() == 64 && cut.causes[0].len() < 70_000);
    for kind in [FailureKind::Aborted, FailureKind::Lost, FailureKind::Untrusted, FailureKind::Unreachable] {
        assert_eq!(state.fatal(Failure::of(kind, "no")).unwrap_err().kind, FailureKind::Untrusted);
    }
}
