//! A trial that is killed anywhere: the next run takes away what was left, and tries again.

use std::collections::BTreeMap;
use std::time::Duration;

use fanli::value::Value;

use crate::common::chance::{Chance, moments, soak};
use crate::docker_hosts::Hosts;
use crate::trial::{Site, list, map};

/// What a trial does to the world: its requests to Docker, to the kernel and to the program, and its own files.
const OUTWARD: &str = "sendto,connect,mkdirat,symlinkat,renameat,renameat2,unlinkat";

#[test]
fn a_trial_that_is_killed_anywhere_leaves_nothing_behind_the_next() {
    let hosts = Hosts::start("ftrk", 1);
    let mut site = Site::new(&hosts.hosts[0]);
    let host = site.host;
    site.common.extend([
        ("validate", list(&["test", "-e", "/conf/current/index.html"])),
        ("start", list(&["busybox", "httpd", "-f", "-p", "80", "-h", "/conf/current"])),
        ("settle", Value::Duration(Duration::from_millis(100))),
        ("requests", map(&[("contains", "page".into())])),
    ]);
    site.stage('a', "index.html", "a page", "");
    site.node("busybox httpd -f -p 80 -h /conf/current", "10.83.0.8");
    site.try_it('a', &[]).fields();
    let clean = site.seen();

    // How many there are, by a run that is only watched.
    let again = |number: usize| [("hosts", list(&[&format!("run{number}:10.0.0.1")]))];
    let count = "/tmp/ftr-count";
    let mut strace = host.drive();
    strace.threads = 1;
    strace.wrap = ["strace", "-f", "-qq", "-o", count, "-e", &format!("trace={OUTWARD}")].map(String::from).to_vec();
    strace.one(&site.trial('a', &again(0))).fields();
    let all = std::fs::read_to_string(count).unwrap();
    std::fs::remove_file(count).unwrap();
    // In the order in which they are made, so that each part of a trial has its share of the moments.
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let call = |line| OUTWARD.split(',').find(|name| str::contains(line, &format!(" {name}(")));
    let lines: Vec<(&str, &str)> = all.lines().filter_map(|line| Some((call(line)?, line))).collect();
    let calls: Vec<(&str, usize)> = lines
        .iter()
        .map(|(name, _)| {
            let count = counts.entry(name).or_default();
            *count += 1;
            (*name, *count)
        })
        .collect();
    println!("{counts:?}");
    assert!(calls.len() > 40, "{counts:?}");
    // A quarter of the moments have a container: one of them is always taken.
    let last = |request: &str| lines.iter().rposition(|(_, line)| line.contains(request)).unwrap();
    let with_a_container = calls[usize::midpoint(last("POST /containers/create"), last("DELETE /containers/"))];

    let (mut killed, mut left, mut number) = (0, 0, 1);
    for (name, when) in Chance::new().some(calls, moments(7, 25)).into_iter().chain([with_a_container]) {
        let inject = format!("inject={name}:signal=SIGKILL:when={when}");
        strace.wrap = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={name}"), "-e", &inject]
            .map(String::from)
            .to_vec();
        let task = site.trial('a', &again(number));
        let done = strace.try_run(std::slice::from_ref(&task)).is_some();
        killed += usize::from(!done);
        left += usize::from(host.must("docker ps -aq").lines().count() > 1);
        // The next run is of something that passed before: it cleans, and tries nothing.
        let mended = host.drive().one(&site.trial('a', &[]));
        assert!(mended.fields().iter().all(|field| field == "leftover"), "{name} {when}: {:?}", mended.change);
        // A temporary name of a write that was killed goes with the next write beside it, not before.
        let seen = site.seen();
        let seen: Vec<&str> = seen.lines().filter(|line| !line.contains("/.fanli-")).collect();
        assert_eq!(seen.join("\n"), clean, "{name} {when}");
        host.drive().one(&task).fields();
        host.drive().one(&task).no_change();
        assert_eq!(site.seen(), clean, "{name} {when}");
        number += 1;
    }
    println!("killed {killed} times of {}, {left} times with a container left", number - 1);
    assert!(2 * killed > number && left > usize::from(soak()), "{killed} {left}");
}

/// In a run of fanli itself: a step that is over its own limit lets its container go.
#[test]
fn a_trial_that_is_broken_off_takes_its_container_with_it() {
    let hosts = Hosts::start("ftrb", 1);
    let site = Site::new(&hosts.hosts[0]);
    site.stage('a', "index.html", "a page", "");
    site.node("busybox httpd -f -p 80 -h /conf/current", "10.83.0.8");
    let clean = site.seen();
    let dir = tempfile::Builder::new().prefix("ftr").tempdir_in("/tmp").unwrap();
    let play = |settle: &str| {
        let task = format!(
            "  trial \"/data/slot\" {{\n    generation = \"{}\"\n    like       = \"ftr-web\"\n    settle     = {settle}\n    \
             timeout    = 10s\n  }}\n",
            crate::trial::id('a')
        );
        let text = format!(
            "hosts here {{\n  host \"here\" {{ connection = local }}\n}}\nplay \"try\" on hosts.here {{\n{task}}}\n"
        );
        std::fs::write(dir.path().join("play.fp"), text).unwrap();
        let home = dir.path().display();
        site.host.must(&format!("cd {home}; HOME={home} {} play play.fp 2>&1 || true", crate::common::fanli()))
    };
    let over = play("10m");
    assert!(over.contains("over its limit `timeout` of 10s"), "{over}");
    assert_eq!(site.host.must("docker ps -a --format '{{.Names}}'"), "ftr-web", "{over}");
    let passed = play("100ms");
    assert!(passed.contains("done: 1 change applied"), "{passed}");
    assert_eq!(site.seen(), clean, "{passed}");
    let again = play("100ms");
    assert!(again.contains("nothing to do"), "{again}");
}
