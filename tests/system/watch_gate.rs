//! `gate = true`: a program that starts only once its interface is there.

use fanli::value::Value;

use crate::drive::task;
use crate::plugs::attach;
use crate::watched::{Watched, Watcher, wait_for};

/// Its first instruction writes down who and where it is.
const PROGRAM: &str = "(id -u; echo $$; ip -o -4 addr show eth0) > /own/first; exec httpd -f -p 8080 -h /own";

#[test]
fn a_program_never_starts_before_its_interface() {
    let watched = Watched::start("wg");
    let (host, drive) = (watched.host(), watched.host().drive());
    let fanli = crate::common::fanli();
    // This test's own program has no gate to offer; the mount is the host's alone.
    host.must(&format!(
        "mount -t tmpfs fwt /usr/local/lib; mkdir /usr/local/lib/fanli; cp {fanli} /usr/local/lib/fanli/fanli; chmod 755 /usr/local/lib/fanli"
    ));
    // The image's own entry point and command are what is started. A folder that is there already lends a tmpfs its mode each time
    // but the first (runc), so the image has one that everybody may write to.
    host.must(&format!(
        "d=$(mktemp -d); docker export $(docker create fanli/example:1 true) > $d/all; mkdir -m 1777 $d/own; \
         tar -C $d -rf $d/all own; \
         docker import --change 'ENTRYPOINT [\"/bin/sh\", \"-c\"]' --change 'CMD [\"{PROGRAM}\"]' $d/all fwt/gate:1; \
         rm -r $d; docker rm $(docker ps -aq)"
    ));
    let gated = |name: &str| {
        task(
            "container",
            [
                ("name", Value::from(name)),
                ("image", "fwt/gate:1".into()),
                ("user", "65534:65534".into()),
                ("tmpfs", Value::List(vec!["/own:mode=1777".into()])),
                ("restart", "always".into()),
                ("stop_timeout", Value::Duration(std::time::Duration::ZERO)),
                ("gate", true.into()),
            ],
        )
    };
    let all = [gated("fwt-g1"), attach("fwt-g1", "10.99.0.71", &[])];
    drive.run(&all);
    let first = |when: &str| {
        let mut said = String::new();
        let begun = std::time::Instant::now();
        while said.lines().count() < 3 {
            let logs = || host.must("docker logs fwt-g1 2>&1 | tail -3; docker exec fwt-g1 ip addr 2>&1");
            assert!(begun.elapsed().as_secs() < 60, "the program does not start {when}: `{said}`; {}", logs());
            std::thread::sleep(std::time::Duration::from_millis(20));
            said = String::from_utf8_lossy(&host.sh("docker exec fwt-g1 cat /own/first").stdout).into_owned();
        }
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[..2], ["65534", "1"], "{when}: {said}");
        assert!(lines.len() == 3 && lines[2].contains("inet 10.99.0.71/24"), "{when}: {said}");
    };
    first("by a run");
    for report in drive.run(&all) {
        report.no_change();
    }
    let watcher = Watcher::start(host, &[]);
    watcher.says("the Docker daemon answers");
    for turn in 0..5 {
        host.must("docker restart -t 0 fwt-g1");
        first(&format!("after restart {turn}"));
    }
    let started = || host.must("docker inspect -f '{{.State.Running}} {{.State.StartedAt}}' fwt-g1");
    for turn in 0..3 {
        let before = started();
        host.must("kill -9 $(docker inspect -f '{{.State.Pid}}' fwt-g1)");
        wait_for("the daemon starts it again", || started().starts_with("true") && started() != before);
        first(&format!("after kill {turn}"));
    }
    drop(watcher);

    // Without anybody who plugs it, it ends and says why; and it can be stopped while it waits.
    let run = "docker run --network none -v /usr/local/lib/fanli:/.fanli:ro --entrypoint /.fanli/fanli";
    let alone = host.sh(&format!("{run} --rm fwt/gate:1 gate --limit 1s -- true"));
    assert_eq!(alone.status.code(), Some(75));
    assert_eq!(
        String::from_utf8_lossy(&alone.stderr),
        "fanli gate: no interface to start with: there is none but lo: over its limit `gate` of 1s: `true` was not started\n\
         fanli gate: is `attach` declared for this container, and does the host's watcher run (`fanli status`)?\n"
    );
    host.must(&format!("{run} -d --name fwt-g2 fwt/gate:1 gate -- true"));
    wait_for("it waits", || host.must("docker top fwt-g2").contains("gate"));
    std::thread::sleep(std::time::Duration::from_millis(300));
    host.must("docker stop -t 50 fwt-g2");
    assert_eq!(host.must("docker inspect -f '{{.State.ExitCode}}' fwt-g2"), "143");
    // A gate that is open lets pass at once, and tells what cannot be run.
    let nothing =
        host.sh(&format!("nsenter -t $(docker inspect -f '{{{{.State.Pid}}}}' fwt-g1) -n {fanli} gate -- /no/such"));
    assert_eq!(nothing.status.code(), Some(127));
    let code = host.sh(&format!(
        "nsenter -t $(docker inspect -f '{{{{.State.Pid}}}}' fwt-g1) -n {fanli} gate --interface eth0 -- sh -c 'exit 7'"
    ));
    assert_eq!(code.status.code(), Some(7));
}
