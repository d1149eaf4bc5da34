use std::io::Write as _;
use std::net::TcpListener;
use std::time::Duration;

use fanli::failure::{Failure, FailureKind};
use fanli::resource::{Nature, Resource as _};
use fanli::value::{Map, Value};

use super::server::{Server, say};
use crate::args;
use crate::common::{Bench, build, refused};

fn ms(millis: u64) -> Value {
    Value::Duration(Duration::from_millis(millis))
}

/// Asks, and gives the result or the failure.
fn ask(args: Map) -> Result<Map, Failure> {
    let bench = Bench::new();
    let kind = build("http", args);
    assert_eq!(kind.nature(), Nature::Wait);
    let observed = bench.block(kind.observe(&bench.probe))?;
    assert_eq!(observed.state, kind.desired());
    Ok(observed.output)
}

/// A kind that asks `server`, impatient.
fn impatient(url: String, more: Map) -> Map {
    let mut args = args! { "url" => url, "within" => ms(300), "every" => ms(20) };
    args.extend(more);
    args
}

fn failure(args: Map) -> String {
    let failure = ask(args).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Timeout, "{failure}");
    assert!(failure.hint.is_some());
    failure.to_string()
}

#[test]
fn a_right_answer_is_the_result() {
    let server = Server::start(|_, stream| say(stream, "200 OK", "pong\n"));
    let output = ask(args! { "url" => server.url("/ping?deep=1"), "contains" => "pong" }).unwrap();
    assert_eq!(output["status"], Value::Int(200));
    assert_eq!(output["body"], Value::from("pong\n"));
    assert!(matches!(output["took"], Value::Duration(_)));
    let asked = server.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].head[0], "GET /ping?deep=1 HTTP/1.1");
    assert_eq!(asked[0].header("host"), Some(server.address.to_string().as_str()));
}

#[test]
fn it_waits_for_a_server_that_appears_later() {
    let spare = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = spare.local_addr().unwrap();
    drop(spare);
    let later = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        Server::on(TcpListener::bind(address).unwrap(), |number, stream| {
            say(stream, if number < 3 { "503 Not Yet" } else { "200 OK" }, "");
        })
    });
    let url = format!("http://{address}/");
    ask(args! { "url" => url, "every" => ms(20), "within" => ms(20_000) }).unwrap();
    assert_eq!(later.join().unwrap().asked().len(), 3);
}

#[test]
fn a_failure_says_the_last_answer_and_the_limit() {
    let server = Server::start(|_, stream| say(stream, "502 Bad Gateway", "<h1>Bad\n\n  Gateway\u{7}</h1>"));
    let wrong =
        failure(impatient(server.url("/"), args! { "status" => Value::List(vec![Value::Int(200), Value::Int(204)]) }));
    assert_eq!(
        wrong,
        format!(
            "{} does not answer as it should: over its limit `within` of 300ms: \
             at last: status 502, not 200 or 204: it said `<h1>Bad Gateway\u{fffd}</h1>`",
            server.url("/")
        )
    );
    assert!(server.asked().len() > 1);

    let server = Server::start(|_, stream| say(stream, "200 OK", "web08011"));
    let wrong = failure(impatient(server.url("/"), args! { "contains" => "web08010" }));
    assert!(wrong.ends_with("at last: the body does not hold `web08010`: it said `web08011`"), "{wrong}");
    let wrong = failure(impatient(server.url("/"), args! { "status" => 404i64 }));
    assert!(wrong.ends_with("status 200, not 404: it said `web08011`"), "{wrong}");
}

#[test]
fn nobody_there_and_nobody_known() {
    let spare = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", spare.local_addr().unwrap());
    drop(spare);
    let wrong = failure(impatient(url, Map::new()));
    assert!(wrong.ends_with("at last: no answer: Connection refused (os error 111)"), "{wrong}");
    let wrong = failure(args! { "url" => "http://no-such-host.invalid/", "within" => ms(3000), "every" => ms(2999) });
    assert!(wrong.contains("no address is known for its host name") || wrong.contains("no answer"), "{wrong}");
}

#[test]
fn who_never_answers_or_drips_runs_into_a_limit() {
    let drip = |_, stream: &mut std::net::TcpStream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
        for _ in 0..10_000 {
            std::thread::sleep(Duration::from_millis(20));
            if stream.write_all(b"x").is_err() {
                return;
            }
        }
    };
    let server = Server::start(drip);
    let limits = args! { "request_timeout" => ms(200), "within" => ms(1000) };
    let wrong = failure(impatient(server.url("/"), limits.clone()));
    assert!(wrong.contains("over its limit `request_timeout` of 200ms"), "{wrong}");
    assert!(server.asked().len() > 1);

    let server = Server::start(|_, stream| {
        std::thread::sleep(Duration::from_secs(2));
        let _ = stream.flush();
    });
    let wrong = failure(impatient(server.url("/"), limits));
    assert!(wrong.contains("over its limit `request_timeout` of 200ms"), "{wrong}");
    let wrong = failure(impatient(server.url("/"), args! { "request_timeout" => ms(5000) }));
    assert!(wrong.contains("over its limit `within` of 300ms"), "{wrong}");
}

#[test]
fn who_does_not_speak_http_or_hangs_up() {
    let server = Server::start(|_, stream| {
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n\r\n");
    });
    let wrong = failure(impatient(server.url("/"), Map::new()));
    assert!(wrong.contains("at last: the answer is not HTTP"), "{wrong}");
    let server = Server::start(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    });
    let wrong = failure(impatient(server.url("/"), Map::new()));
    assert!(wrong.contains("the body of the answer (status 200) broke off"), "{wrong}");
    let server = Server::start(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        for _ in 0..100_000 {
            if stream.write_all(b"X-Padding: 0123456789012345678901234567890123456789\r\n").is_err() {
                return;
            }
        }
    });
    let wrong = failure(impatient(server.url("/"), args! { "within" => ms(5000), "every" => ms(4000) }));
    assert!(wrong.contains("at last: "), "{wrong}");
}

#[test]
fn a_huge_body_is_read_in_part() {
    let server = Server::start(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nfirst");
        let piece = vec![b'x'; 64 * 1024];
        for _ in 0..64 {
            if stream.write_all(&piece).is_err() {
                return;
            }
        }
        let _ = stream.write_all(b"last");
    });
    let output = ask(args! { "url" => server.url("/"), "contains" => "first" }).unwrap();
    assert_eq!(output["body"].as_str().unwrap().len(), 64 * 1024);
    let wrong =
        failure(impatient(server.url("/"), args! { "contains" => "last", "within" => ms(3000), "every" => ms(2900) }));
    assert!(wrong.contains("the first 1 MiB of the body does not hold `last`: it said `firstxx"), "{wrong}");
    assert!(wrong.len() < 600, "{}", wrong.len());
}

#[test]
fn a_redirect_is_an_answer_unless_it_is_followed() {
    let server = Server::start(|number, stream| {
        if number % 2 == 1 {
            let head = "HTTP/1.1 302 Found\r\nLocation: /new\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = stream.write_all(head.as_bytes());
        } else {
            say(stream, "200 OK", "new");
        }
    });
    let output = ask(args! { "url" => server.url("/old"), "follow" => true }).unwrap();
    assert_eq!(output["body"], Value::from("new"));
    let output = ask(args! { "url" => server.url("/old"), "status" => 302i64 }).unwrap();
    assert_eq!(output["status"], Value::Int(302));
    assert_eq!(server.asked().len(), 3);
}

#[test]
fn times_counts_right_answers_in_a_row() {
    let server = Server::start(|number, stream| say(stream, if number == 3 { "500 No" } else { "200 OK" }, ""));
    ask(args! { "url" => server.url("/"), "times" => 3i64, "every" => ms(10) }).unwrap();
    assert_eq!(server.asked().len(), 6);
}

#[test]
fn method_headers_host_and_body_arrive() {
    let server = Server::start(|_, stream| say(stream, "200 OK", ""));
    let headers = Map::from([("X-Check".to_owned(), Value::from("a b")), ("x-number".to_owned(), Value::Int(7))]);
    ask(args! {
        "url" => server.url("/q"), "method" => "POST", "body" => "{\"a\": 1}",
        "headers" => Value::Map(headers), "host" => "www.fanli.test",
    })
    .unwrap();
    ask(args! { "url" => server.url("/q"), "method" => "HEAD" }).unwrap();
    let asked = server.asked();
    assert_eq!(asked[0].head[0], "POST /q HTTP/1.1");
    assert_eq!(asked[0].body, "{\"a\": 1}");
    let found = ["x-check", "x-number", "host"].map(|name| asked[0].header(name).unwrap());
    assert_eq!(found, ["a b", "7", "www.fanli.test"]);
    assert_eq!(asked[1].head[0], "HEAD /q HTTP/1.1");
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let url = "http://127.0.0.1/";
    for (wrong, says) in [
        (args! { "url" => "127.0.0.1/ping" }, "url: "),
        (args! { "url" => "https://me:secret@x/" }, "url: holds a name or password"),
        (args! { "url" => url, "status" => 1000i64 }, "status: expected codes from 100 to 599"),
        (args! { "url" => url, "method" => "DELETE" }, "method: `DELETE` is none of GET, HEAD, POST, OPTIONS"),
        (args! { "url" => url, "body" => "x" }, "body: needs `method = POST`"),
        (args! { "url" => url, "method" => "HEAD", "contains" => "x" }, "contains: cannot be found"),
        (args! { "url" => url, "within" => ms(0) }, "within: must be longer than nothing"),
        (args! { "url" => url, "times" => 0i64 }, "times: is a number from 1 to 1000"),
        (args! { "url" => url, "host" => "a\r\nX: y" }, "host: the value of `host` holds a line's end"),
    ] {
        let found = refused("http", wrong);
        assert!(found.starts_with(says), "{found}");
    }
}

/// The only server that a client's certificates can be tried with is one that shows a wrong one.
#[test]
fn a_certificate_that_nobody_vouches_for_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (key, certificate) = (dir.path().join("key.pem"), dir.path().join("cert.pem"));
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("openssl is needed");
    assert!(made.status.success(), "{made:?}");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = std::process::Command::new("openssl")
        .args(["s_server", "-quiet", "-www", "-accept", &port.to_string(), "-key"])
        .arg(&key)
        .arg("-cert")
        .arg(&certificate)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let _server = Killed(server);
    let url = format!("https://localhost:{port}/");
    let output = ask(args! { "url" => url.as_str(), "verify" => false, "every" => ms(50) }).unwrap();
    assert_eq!(output["status"], Value::Int(200));
    let wrong = failure(impatient(url, Map::new()));
    assert!(wrong.contains("certificate"), "{wrong}");
}

struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_wait_that_holds_is_no_change() {
    let server = Server::start(|_, stream| say(stream, "200 OK", ""));
    let bench = Bench::new();
    let kind = build("http", args! { "url" => server.url("/") });
    assert_eq!(bench.converge(&kind).unwrap(), None);
}
