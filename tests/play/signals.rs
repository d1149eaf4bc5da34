//! Ctrl-C and Jenkins' abort: in order first, at once the second time, and nothing left at work.

use std::process::{Child, Command};
use std::time::Duration;

use super::run::{Place, Run};

fn send(signal: &str, child: &Child) {
    let done = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(done.success());
}

const PLAY: &str = r#"play "p" on hosts.all_of_them {
  file "OUT/slow" { content = "slow"  validate = ["sh", "-c", "touch OUT/started; sleep 1 # {file}"] }
  file "OUT/after" { content = "after" }
}"#;

#[test]
fn a_signal_lets_the_running_step_end_and_starts_no_other() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143), ("-HUP", 129)] {
        let place = Place::new(&["h"], PLAY);
        let child = place.start(&[]);
        place.wait_for("started");
        send(signal, &child);
        let run = Run::of(child);
        assert_eq!(run.code, Some(code), "{}", run.text);
        assert_eq!(place.read("slow").as_deref(), Some("slow"), "the running step came to its end: {}", run.text);
        assert_eq!(place.read("after"), None);
        assert!(run.text.contains("stopping: "), "{}", run.text);
        assert!(run.text.contains("run the same command again to go on"), "{}", run.text);
        place.play(&[]).expect(0);
        assert_eq!(place.read("after").as_deref(), Some("after"));
    }
}

#[test]
fn a_second_signal_stops_at_once_and_leaves_no_process() {
    let place = Place::new(&["h"], &PLAY.replace("sleep 1", "sleep 4712 & sleep 4712"));
    let child = place.start(&[]);
    place.wait_for("started");
    std::thread::sleep(Duration::from_millis(300));
    send("-INT", &child);
    std::thread::sleep(Duration::from_millis(100));
    send("-INT", &child);
    let run = Run::of(child);
    assert_eq!(run.code, Some(130), "{}", run.text);
    for _ in 0..100 {
        let left = Command::new("pgrep").args(["-f", "sleep 471[2]"]).output().unwrap();
        if left.stdout.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("processes are left");
}
