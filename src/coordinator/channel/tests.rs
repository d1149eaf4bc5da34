//! Channels over pipes in memory: slow links, and helpers that lie.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;
use crate::event::{Outcome, StepRef, Tally, Target, Verdict};
use crate::plan::{RunOptions, Stage, Step, TargetPlan};
use crate::remote::helper::live;
use crate::value::{Blob, Digest, Map, Value};

/// What one host is to do: write a file.
fn plan(path: &std::path::Path, blob: Blob) -> HostPlan {
    let path = Value::from(path.display().to_string());
    let args = [("path", path.clone()), ("source", Value::Blob(blob))].map(|(name, value)| (name.to_owned(), value));
    let step = Step { at: "play.fp:9".to_owned(), ..Step::new("file", path, args) };
    let target = Target { host: "evil".to_owned(), node: None };
    let targets = vec![TargetPlan { target, steps: vec![step], handlers: Vec::new() }];
    let stage = Stage { number: 0, play: 0, title: "p".to_owned(), batch: None, rescue: false, targets };
    let options = RunOptions { check: false, diff: false, step_limit: Duration::from_secs(60), lock_wait: None };
    HostPlan {
        run: "r".to_owned(),
        playbook: "play.fp".to_owned(),
        host: "evil".to_owned(),
        stages: vec![stage],
        blobs: BTreeMap::new(),
        facts: false,
        options,
    }
}

/// A channel whose first stage may run, and what it reports.
fn channel(
    contents: Contents,
    patience: Patience,
) -> (Channel, mpsc::UnboundedReceiver<Report>, mpsc::UnboundedSender<Order>) {
    let (reports, heard) = mpsc::unbounded_channel();
    let (give, orders) = mpsc::unbounded_channel();
    give.send(Order::Go { stage: 0, without: Vec::new() }).unwrap();
    let channel = Channel {
        number: 0,
        name: "evil".to_owned(),
        connection: Connection::Local { r#become: false },
        contents: Arc::new(contents),
        reach: Arc::new(Reach::new(None).unwrap()),
        logins: Arc::new(Logins::new(1)),
        reports,
        orders,
        patience,
    };
    (channel, heard, give)
}

fn link(output: DuplexStream, input: DuplexStream) -> Link {
    Link {
        input: Reader::new(Box::new(input) as Input, &[]),
        output: Box::new(output),
        stderr: Tail::default(),
        uploaded: false,
        guard: Box::new(()),
    }
}

/// Carries bytes at a slow, even rate.
async fn carry_slowly(mut from: DuplexStream, mut to: DuplexStream) {
    let mut piece = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        tokio::time::sleep(Duration::from_millis(25)).await;
        if to.write_all(&piece[..count]).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_takes_longer_than_the_limit_of_silence_to_arrive_is_no_silence() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large");
    // A frame of it takes more than the limit, too.
    let bytes: Vec<u8> = (0..500_000_u32).map(|number| u8::try_from(number % 251).unwrap()).collect();
    let mut contents = Contents::default();
    let blob = contents.hold(bytes.clone());
    let patience = Patience { heartbeat: Duration::from_millis(100), silence: Duration::from_secs(1) };
    let (mut channel, mut heard, _give) = channel(contents, patience);
    let (output, slow) = duplex(4096);
    let (fast, helper_in) = duplex(4096);
    let (helper_out, input) = duplex(64 * 1024);
    let carrying = tokio::spawn(carry_slowly(slow, fast));
    let state_dir = dir.path().join("state");
    let helper = tokio::spawn(async move { live(helper_in, helper_out, &state_dir, patience).await });
    channel.converse(link(output, input), plan(&path, blob)).await.unwrap();
    helper.await.unwrap().unwrap();
    carrying.abort();
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    let mut last = None;
    while let Ok(Report { said: Said::Event(event), .. }) = heard.try_recv() {
        last = Some(event.kind);
    }
    assert!(matches!(last, Some(EventKind::HostFinished { stopped: None, .. })), "{last:?}");
}

/// What becomes of a helper that says these things when its stage may run, and the names of what was reported before.
async fn told(frames: Vec<Vec<u8>>) -> (Failure, Vec<EventKind>) {
    let mut contents = Contents::default();
    let of_others = contents.hold(b"another host's secret".to_vec());
    assert_eq!(of_others.digest, Digest::of(b"another host's secret"));
    let own = contents.hold(b"own".to_vec());
    let (mut channel, mut heard, _give) = channel(contents, Patience::default());
    let (output, mut helper_in) = duplex(1024 * 1024);
    let (mut helper_out, input) = duplex(64 * 1024);
    let lying = tokio::spawn(async move {
        helper_out.write_all(&hello()).await.unwrap();
        // The plan has arrived.
        let mut some = [0; 64];
        let _ = helper_in.read(&mut some).await;
        for frame in frames {
            if helper_out.write_all(&frame).await.is_err() {
                break;
            }
        }
        let mut rest = Vec::new();
        let _ = helper_in.read_to_end(&mut rest).await;
        rest
    });
    let failure = channel.converse(link(output, input), plan(std::path::Path::new("/nowhere"), own)).await.unwrap_err();
    let sent = lying.await.unwrap();
    let secret = b"another host's secret";
    assert!(!sent.windows(secret.len()).any(|window| window == secret), "it got what is not its own");
    let mut kinds = Vec::new();
    while let Ok(Report { said: Said::Event(event), .. }) = heard.try_recv() {
        assert_eq!(event.host, "evil");
        kinds.push(event.kind);
    }
    (failure, kinds)
}

fn event(host: &str, index: u64, kind: EventKind) -> Vec<u8> {
    encode(&ToController::Event(Box::new(Event { host: host.to_owned(), index, at_ms: 1, kind }))).unwrap()
}

fn step(host: &str) -> StepRef {
    StepRef {
        id: 0,
        target: Target { host: host.to_owned(), node: None },
        play: "p".to_owned(),
        kind: "file".to_owned(),
        title: "/nowhere".to_owned(),
        at: "play.fp:9".to_owned(),
        handler: false,
    }
}

fn finished(host: &str, outcome: Outcome, output: Map) -> EventKind {
    EventKind::StepFinished { step: step(host), outcome, output, took_ms: 1 }
}

#[tokio::test]
async fn a_helper_that_lies_ends_its_own_channel_and_nothing_else() {
    let no = || Failure::new("victim is broken");
    let end = |ok| EventKind::HostFinished { tally: Tally { ok, ..Tally::default() }, stopped: None };
    let begin = || event("evil", 0, EventKind::StepStarted { step: step("evil") });
    let foreign = no().fact(crate::resource::attach::FOREIGN_ADDRESS, "10.9.0.11");
    let over = EventKind::RunFinished { tally: Tally::default(), verdict: Verdict::Converged };
    let none = Map::new;
    let cases = [
        (vec![event("victim", 0, finished("victim", Outcome::Failed(no(), None), none()))], "in the name of `victim`"),
        (vec![event("victim", 0, EventKind::HostLost { failure: no() })], "in the name of `victim`"),
        (vec![event("evil", 0, finished("victim", Outcome::Failed(foreign, None), none()))], "has that step for evil"),
        (vec![event("", 0, over.clone())], "in the name of ``"),
        (vec![event("evil", 0, over)], "`run_finished`, and may not"),
        (vec![event("evil", 0, end(0))], "it has not done its part of \"p\""),
        (vec![event("evil", 0, EventKind::StageFinished { stage: 0, failed: Vec::new() })], "was not done for evil"),
        (vec![event("evil", 1, EventKind::StepStarted { step: step("evil") })], "number 0 comes next"),
        (vec![event("evil", 0, finished("evil", Outcome::Ok, none()))], "it never began"),
        (vec![begin(), event("evil", 1, EventKind::StepStarted { step: step("evil") })], "has not ended"),
        (vec![begin(), event("evil", 1, finished("evil", Outcome::WouldRun, none()))], "does not only look"),
        (
            vec![encode(&ToController::NeedBlob { digest: Digest::of(b"another host's secret") }).unwrap()],
            "no such content",
        ),
        (vec![encode(&ToController::Fatal(Failure::of(FailureKind::Aborted, "x"))).unwrap()], "nobody has stopped it"),
    ];
    for (frames, wanted) in cases {
        let (failure, heard) = told(frames).await;
        assert_eq!(failure.kind, FailureKind::Untrusted, "{failure}");
        assert!(failure.message.contains(wanted), "{wanted}: {failure}");
        let own = |kind: &EventKind| matches!(kind, EventKind::HostConnected { .. } | EventKind::StepStarted { .. });
        assert!(heard.iter().all(own), "{heard:?}");
    }
}

#[tokio::test]
async fn a_frame_that_is_nested_too_deep_or_would_grow_too_much_ends_the_channel() {
    let nested =
        finished("evil", Outcome::Ok, Map::from([("a".to_owned(), Value::List(vec![Value::List(Vec::new())]))]));
    let whole = event("evil", 0, nested);
    let body = whole.split_at(4).1;
    let pattern = [12, 1, 12, 0];
    let at = body.windows(4).rposition(|window| window == pattern).unwrap();
    for (middle, wanted) in [([12, 1].repeat(400_000), "deep"), ([12, 0xc0, 0xc4, 0x07].to_vec(), "decode")] {
        let long: Vec<u8> = [&body[..at], &middle, &[12, 0], &body[at + 4..]].concat();
        let frame = [&u32::try_from(long.len()).unwrap().to_le_bytes(), long.as_slice()].concat();
        let (failure, _) = told(vec![frame]).await;
        assert_eq!(failure.kind, FailureKind::Lost);
        assert!(failure.message.contains(wanted), "{failure}");
    }
}
