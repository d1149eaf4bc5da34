//! `image` against a real daemon.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use fanli::value::{Blob, Digest, Tree, TreeEntry, TreeEntryKind, Value};

use crate::docker_hosts::Hosts;
use crate::drive::{Drive, Task, task};

/// A context from paths and contents.
fn tree(drive: &mut Drive, files: &[(&str, &str)]) -> Value {
    let mut entries = Vec::new();
    for (path, text) in files {
        let blob = Blob { digest: Digest::of(text.as_bytes()), len: text.len() as u64 };
        drive.blobs.push((blob.digest, text.as_bytes().to_vec()));
        entries.push(TreeEntry { path: (*path).into(), kind: TreeEntryKind::File { blob, mode: 0o644 } });
    }
    entries.sort_by(|left, right| left.path.cmp(&right.path));
    Value::Tree(Tree { entries })
}

fn build(context: &Value, more: &[(&'static str, Value)]) -> Task {
    let base = [("name", Value::from("fdk/app:1")), ("context", context.clone())];
    task("image", base.into_iter().chain(more.iter().cloned()))
}

fn args(items: &[(&str, &str)]) -> Value {
    Value::Map(items.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))).collect())
}

const DOCKERFILE: &str =
    "FROM fanli/example:1\nARG WHO=nobody\nCOPY page /www/page\nRUN echo made for $WHO > /www/who\n";

#[test]
fn an_image_is_built_when_what_it_is_made_of_changed() {
    let hosts = Hosts::start("i", 1);
    let host = &hosts.hosts[0];
    let mut drive = host.drive();
    let one = tree(&mut drive, &[("Dockerfile", DOCKERFILE), ("page", "one")]);
    let two = tree(&mut drive, &[("Dockerfile", DOCKERFILE), ("page", "two")]);
    let bad = tree(&mut drive, &[("Dockerfile", "FROM fanli/example:1\nRUN echo before; false\n")]);
    let id = || host.must("docker inspect -f '{{.Id}}' fdk/app:1");

    let made = drive.one(&build(&one, &[]));
    assert!(made.fields().contains(&"context".to_owned()));
    assert!(made.progress.iter().any(|line| line.contains("RUN echo")), "{:?}", made.progress);
    let first = id();
    let again = drive.one(&build(&one, &[]));
    again.no_change();
    println!("second look at an image: {} us", again.observe_us);

    // Only what changed is named.
    assert_eq!(drive.one(&build(&two, &[])).fields(), ["context"]);
    assert_ne!(id(), first);
    let odd = "a \"quoted\" $HOME ${PATH} \\ value";
    assert_eq!(drive.one(&build(&two, &[("args", args(&[("WHO", odd)]))])).fields(), ["args"]);
    drive.one(&build(&two, &[("args", args(&[("WHO", odd)]))])).no_change();
    assert_eq!(drive.one(&build(&two, &[])).fields(), ["args"]);
    host.busybox("fanli/example:1", "anew");
    assert_eq!(drive.one(&build(&two, &[])).fields(), ["base"]);
    drive.one(&build(&two, &[])).no_change();
    assert_eq!(
        host.must("docker run --rm --net none fdk/app:1 cat /www/page /www/who /www/index.html"),
        "twomade for nobody\nanew"
    );

    // A container on it is made anew when it was.
    let container = task(
        "container",
        [
            ("name", Value::from("fdk-i")),
            ("image", Value::from("fdk/app:1")),
            ("command", Value::List(vec!["sleep".into(), "600".into()])),
            ("stop_timeout", Value::Duration(std::time::Duration::from_secs(1))),
        ],
    );
    drive.one(&container).fields();
    drive.one(&build(&one, &[])).fields();
    assert_eq!(drive.one(&container).fields(), ["image"]);

    // Somebody else's container from our image is still somebody else's.
    host.must("docker run -d --name fdk-other --net none fdk/app:1 sleep 600");
    let other = task("container", [("name", Value::from("fdk-other")), ("image", Value::from("fdk/app:1"))]);
    assert!(drive.one(&other).failed().to_string().contains("did not make it"));
    host.must("docker rm -f fdk-other");

    // A build that fails says why, and leaves the image as it was.
    let before = id();
    let failed = drive.one(&build(&bad, &[]));
    let text = failed.failed().to_string();
    assert!(text.contains("echo before") && text.contains("non-zero code"), "{text}");
    assert_eq!(id(), before);

    // Old ones go, beyond those kept and those in use.
    for (tag, mark) in [("1", "a"), ("2", "b"), ("3", "c"), ("4", "d")] {
        let context = tree(&mut drive, &[("Dockerfile", "FROM fanli/example:1\nCOPY page /page\n"), ("page", mark)]);
        let name = ("name", Value::Str(format!("fdk/kept:{tag}")));
        let image = task("image", [name, ("context", context), ("keep", Value::Int(2))]);
        drive.one(&image).fields();
        // Images are told apart by when they were made, in seconds.
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
    assert_eq!(host.must("docker images --format '{{.Tag}}' fdk/kept | sort | tr '\\n' ' '"), "3 4");

    let gone = task("image", [("name", Value::from("fdk/kept:3")), ("state", Value::from("absent"))]);
    assert!(drive.one(&gone).change.is_some());
    drive.one(&gone).no_change();
}

#[test]
fn a_debian_root_is_made_once() {
    let hosts = Hosts::start("b", 1);
    let host = &hosts.hosts[0];
    let mut drive = host.drive();
    drive.own_network = false;
    let call = |packages: &[&str]| {
        let packages = packages.iter().map(|name| Value::from(*name)).collect();
        let named = [("packages".to_owned(), Value::List(packages))].into();
        Value::Call(Box::new(fanli::value::Call { name: "debian".into(), args: vec!["bookworm".into()], named }))
    };
    let image = |name: &'static str| task("image", [("name", Value::from(name)), ("bootstrap", call(&["netbase"]))]);

    let made = drive.one(&image("fdk/base:12"));
    println!("bootstrap: {} ms; said {:?}", made.apply_us / 1000, made.progress.last());
    assert_eq!(made.fields(), ["bootstrap", "packages"]);
    drive.one(&image("fdk/base:12")).no_change();
    assert_eq!(host.must("docker run --rm --net none fdk/base:12 cat /etc/services | head -c 1"), "#");

    // Another tag of the same, or a rebuilt host: from the kept tar.
    let again = drive.one(&image("fdk/base:again"));
    println!("import from the kept tar: {} ms", again.apply_us / 1000);
    assert!(!again.progress.iter().any(|line| line.contains("Retrieving")), "{:?}", again.progress);
    assert_eq!(host.must("ls /var/cache/fanli/bootstrap | grep -c tar"), "1");
    assert_eq!(host.must("ls /var/lib/fanli/bootstrap"), "");
    assert!(!host.must("cat /proc/mounts").contains("bootstrap"));
}

/// A mirror that answers the first request for each file with 503 and later ones with 404, and how often it was asked for each.
fn busy_mirror() -> (String, Arc<Mutex<BTreeMap<String, u32>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/debian", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(BTreeMap::new()));
    let counted = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut line = String::new();
            let _ = BufReader::new(&stream).read_line(&mut line);
            let mut asked = counted.lock().unwrap();
            let times = asked.entry(line).or_insert(0);
            *times += 1;
            let status = if *times == 1 { "503 Service Unavailable" } else { "404 Not Found" };
            let _ = write!(stream, "HTTP/1.0 {status}\r\nContent-Length: 0\r\n\r\n");
        }
    });
    (address, asked)
}

#[test]
fn a_bootstrap_that_is_killed_leaves_nothing_running_or_mounted() {
    let hosts = Hosts::start("z", 1);
    let host = &hosts.hosts[0];
    let image = |mirror: Option<&str>| {
        let named = mirror.map(|mirror| ("mirror".to_owned(), Value::from(mirror))).into_iter().collect();
        let call = fanli::value::Call { name: "debian".into(), args: vec!["bookworm".into()], named };
        task("image", [("name", Value::from("fdk/base:12")), ("bootstrap", Value::Call(Box::new(call)))])
    };
    let mut killed = host.drive();
    killed.own_network = false;
    killed.wrap = ["timeout", "-s", "KILL", "8"].map(String::from).to_vec();
    assert!(killed.try_run(&[image(None)]).is_none());
    std::thread::sleep(std::time::Duration::from_secs(1));
    let place = host.must("ls -d /var/lib/fanli/bootstrap/*");
    assert!(!place.is_empty());
    // Of this host: others bootstrap at the same time, and all share their process numbers.
    let left = "for pid in $(pgrep -f '/var/lib/fanli/bootstrap[/]'); do \
                [ ! /proc/$pid/ns/uts -ef /proc/self/ns/uts ] || tr '\\0' ' ' < /proc/$pid/cmdline; done";
    assert_eq!(host.must(left), "");
    assert!(!host.must("cat /proc/mounts").contains("/var/lib/fanli/bootstrap/"));

    // The next run cleans up before it begins; this one has a mirror that is busy at first and then has nothing, so it ends there.
    let (mirror, asked) = busy_mirror();
    let failed = crate::drive::Drive { own_network: false, ..host.drive() }.one(&image(Some(&mirror)));
    assert!(failed.failed().to_string().contains("debootstrap ended"), "{}", failed.failed());
    let asked = asked.lock().unwrap();
    assert!(asked.values().any(|times| *times > 1), "what was refused for a moment is asked for again: {asked:?}");
    assert_eq!(
        host.must("ls /var/lib/fanli/bootstrap /var/cache/fanli/bootstrap | grep -v lock"),
        "/var/cache/fanli/bootstrap:\n\n/var/lib/fanli/bootstrap:"
    );
}
