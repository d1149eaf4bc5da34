//! What somebody sees who looks at a rollout from outside: how many nodes are out at once, whatever happens, and that no clock
//! matters.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use super::place::{NODES, Place, STRICT, try_get};
use crate::balance::ledger::{Client, Load, Row, summary};

/// A look, and who was out.
type Seen = (Instant, Vec<&'static str>);

/// Asks the balancer and every node again and again, and writes down who is out of traffic or does not answer.
struct Observer {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Seen>>>,
    thread: Option<JoinHandle<()>>,
}

impl Observer {
    fn start(place: &Place) -> Self {
        let (stats, nodes) = (place.stats(), NODES.map(|node| (node, place.address(node))));
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (over, rows) = (stop.clone(), seen.clone());
        let thread = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                // The balancer drops a connection now and then when it is asked that often.
                let Ok(told) = try_get(&stats, "/;csv") else { continue };
                let at = Instant::now();
                let out = nodes.iter().filter(|(node, address)| {
                    let row = format!("web,{node},");
                    let up = told.lines().any(|line| line.starts_with(&row) && line.contains(",UP,"));
                    !up || !try_get(address, "/").is_ok_and(|said| said.contains(" 200 "))
                });
                rows.lock().unwrap().push((at, out.map(|(node, _)| *node).collect()));
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self { stop, seen, thread: Some(thread) }
    }

    /// How many nodes were out at once at the most, `dead` not counted; and the longest while between two looks.
    fn end(mut self, dead: Option<&str>) -> (usize, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        let seen = self.seen.lock().unwrap();
        let most = seen.iter().map(|(_, out)| out.iter().filter(|node| Some(**node) != dead).count()).max().unwrap();
        let gap = seen.windows(2).map(|pair| pair[1].0 - pair[0].0).max().unwrap();
        eprintln!("{} looks, at most {most} out at once, longest without a look {gap:?}", seen.len());
        assert!(seen.len() > 100, "only {} looks", seen.len());
        (most, gap)
    }
}

#[test]
fn no_more_nodes_are_out_than_a_batch_has_whatever_dies_meanwhile() {
    let place = Place::played();

    // Batches of 1, 2 and 3.
    let observer = Observer::start(&place);
    place.play(&["--set", "word=two"]).good();
    let (most, _) = observer.end(None);
    assert!((1..=3).contains(&most), "{most} of 3");
    place.all_have("two");

    // Back again, in the same steps.
    let observer = Observer::start(&place);
    place.fanli(&["rollout", "rollback", "web.fp"]).good();
    let (most, _) = observer.end(None);
    assert!((1..=3).contains(&most), "{most} of 3");
    place.all_have("one");

    // A node of the last batch dies while the first goes: what was touched is put back, and nobody else is taken out meanwhile.
    let observer = Observer::start(&place);
    let mut play = place.begin(&["--set", "word=three"]);
    place.waits_for("(batch 1 of 3): change");
    // On the way back it goes to the balancer, too, which waits for it.
    place.on(Place::host_of("web6"), "docker kill web6");
    assert_eq!(play.wait().unwrap().code(), Some(4), "{}", place.log());
    let (most, _) = observer.end(Some("web6"));
    eprintln!("{}", place.log());
    assert!(place.log().contains("web6 is not running any more, and did when it began"), "{}", place.log());
    assert!(place.log().contains("6 nodes put back: all is as before"), "{}", place.log());
    assert!((1..=3).contains(&most), "{most} of 3");
    place.on(Place::host_of("web6"), "docker start web6");
    place.all_up();
    place.all_have("one");
}

/// Sets the machine's clock, and sets it back as if nothing had been: also when the test fails.
struct Clock {
    before: SystemTime,
    since: Instant,
}

impl Clock {
    fn step(by: &str) -> Self {
        let clock = Self { before: SystemTime::now(), since: Instant::now() };
        let done = Command::new("date").args(["--set", by]).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        clock
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let now = (self.before + self.since.elapsed()).duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let _ = Command::new("date").args(["--set", &format!("@{}", now.as_secs_f64())]).output();
    }
}

#[test]
fn a_clock_that_is_set_shortens_no_wait_and_skips_no_check() {
    let place = Place::new(STRICT);
    place.edit("web.fp", "  settle = 200ms", "  settle = 4s");
    place.edit("web.fp", "  within = 10m", "  within = 2m");
    place.play(&[]).good();
    place.all_up();
    for (word, by) in [("two", "+1 hour"), ("three", "-1 hour")] {
        // Without kept connections: Apache counts how long they are idle by this clock, and closes them all when it is set.
        let clients = [(Client::Once, 4), (Client::SlowPost, 3), (Client::Upload, 1)];
        let load = Load::start(std::process::id(), &place.front(), &clients);
        let mut play = place.begin(&["--set", &format!("word={word}")]);
        place.waits_for("(batch 1 of 3): settle");
        let settles = Instant::now();
        let clock = Clock::step(by);
        let mut set = vec![(settles, Instant::now())];
        place.waits_for("(batch 2 of 3): drain");
        let took = settles.elapsed();
        assert!(took > Duration::from_secs(3), "{by}: settled for {took:?} of 4s");
        // The last two batches with the clock as it was set.
        assert!(play.wait().unwrap().success(), "{by}: {}", place.log());
        assert!(!place.log().contains("put back"), "{by}: {}", place.log());
        let back = Instant::now();
        drop(clock);
        set.push((back, Instant::now()));
        std::thread::sleep(Duration::from_millis(500));
        let rows = load.stop();
        eprintln!("{by}: {}", summary(&rows));
        // HAProxy now and then takes the step for a time-out of what is under way just then (504).
        let meanwhile = |row: &Row| set.iter().any(|(from, to)| row.overlaps(*from, *to + Duration::from_secs(1)));
        let lost: Vec<Row> = rows.iter().filter(|row| row.failed() && !meanwhile(row)).cloned().collect();
        assert!(rows.len() > 50 && lost.is_empty(), "{by}: {}", summary(&lost));
        place.all_have(word);
        place.play(&["--set", &format!("word={word}")]).nothing_done();
    }
}
