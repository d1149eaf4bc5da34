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

/// Answers so many requests, each a second after the last of them has come.
fn slow_server(requests: usize) -> (u16, std::sync::mpsc::Receiver<()>) {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (all_here, here) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut asked: Vec<_> = (0..requests).map(|_| listener.accept().unwrap().0).collect();
        all_here.send(()).unwrap();
        std::thread::sleep(Duration::from_secs(1));
        for stream in &mut asked {
            let _ = stream.read(&mut [0; 1024]);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        }
    });
    (port, here)
}

#[test]
fn nodes_side_by_side_end_what_they_have_begun_and_are_told() {
    let (port, all_here) = slow_server(3);
    let playbook = format!(
        "nodes web {{\n  count = 3\n  on = hosts.all_of_them\n  name = \"web{{{{ node.index }}}}\"\n}}\n\
         play \"p\" on nodes.web {{\n  http \"http://127.0.0.1:{port}/\" {{}}\n  \
         file \"OUT/{{{{ node.name }}}}\" {{ content = \"x\" }}\n}}\n"
    );
    let place = Place::new(&["h"], &playbook);
    let child = place.start(&[]);
    all_here.recv_timeout(Duration::from_secs(20)).unwrap();
    send("-INT", &child);
    let run = Run::of(child);
    assert_eq!(run.code, Some(130), "{}", run.text);
    let ended: Vec<&str> = run
        .events
        .iter()
        .filter(|event| event["event"] == "step_finished")
        .map(|event| event["step"]["node"].as_str().unwrap())
        .collect();
    assert_eq!(ended, ["web1", "web2", "web3"], "each has had an answer, and nothing else: {}", run.text);
    assert!(run.events.iter().any(|event| event["event"] == "host_finished"), "{}", run.text);
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
    assert_eq!(run.hosts_in_sequence(), 1);
    for _ in 0..100 {
        let left = Command::new("pgrep").args(["-f", "sleep 471[2]"]).output().unwrap();
        if left.stdout.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("processes are left");
}
