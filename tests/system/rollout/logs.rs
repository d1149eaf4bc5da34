//! The nodes' own access logs as a gate: what only visitors notice turns a rollout back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::place::{NODES, Place, STRICT, try_get};

/// The place with nodes that write access logs, which the rollout reads.
fn place() -> Place {
    let place = Place::new(STRICT);
    place.edit("web.fp", "  settle = 200ms", "  settle = settle");
    place.edit("web.fp", "vars {", "vars {\n  settle = 200ms\n  logs = \"access.*.log\"");
    let rule = "  access_log \"/data/logs/{{ node.name }}/{{ logs }}\" { worse = 5%  at_least = 20 }\n\n  drain on hosts.balancers {";
    place.edit("web.fp", "  drain on hosts.balancers {", rule);
    let mount = "      \"/data/www\"                  -> \"/www\" read_only,\n      \"/data/logs/{{ node.name }}\" -> \"/logs\",";
    place.edit("web.fp", "      \"/data/www\"                  -> \"/www\" read_only,", mount);
    place.edit(
        "templates/conf/httpd.conf",
        "DocumentRoot /www",
        "DocumentRoot /www\nCustomLog /logs/access.1.log \"%h %l %u %t \\\"%r\\\" %>s %b\"",
    );
    for host in [1, 2] {
        place.on(host, &format!("mkdir -p /data/logs/{{{}}}", NODES.join(",")));
        place.on(host, "echo page > /data/www/page");
    }
    place.play(&[]).good();
    place.play(&[]).nothing_done();
    place.all_up();
    place
}

/// Does something while visitors ask for pages that no check asks for.
fn visited<T>(place: &Place, work: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for first in 0..3 {
            let over = &over;
            scope.spawn(move || {
                // Each asks for all: the balancer must not find one sort of visitors for one node.
                for path in ["/page", "/", "/page", "/", "/"].into_iter().cycle().skip(first) {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let _ = try_get(&place.front(), path);
                    std::thread::sleep(Duration::from_millis(7 + 2 * first as u64));
                }
            });
        }
        let done = work();
        over.store(true, Ordering::Relaxed);
        done
    })
}

#[test]
fn what_only_visitors_notice_turns_it_back_and_what_all_nodes_have_does_not() {
    let place = place();

    // Without visitors there is nothing to judge by, and that is said.
    let quiet = place.play(&["--set", "word=two", "--set", "settle=500ms"]).good();
    quiet.says("fewer than 20 requests while it settled, so the access log says nothing");
    place.all_have("two");

    // One page that no check and no trial asks for.
    let canary = ["--set", "word=three", "--set", "extra=Redirect 503 /page", "--set", "settle=3s"];
    let said = visited(&place, || place.play(&canary));
    eprintln!("{}", said.text);
    assert_eq!(said.code, 4, "{}", said.text);
    let said = said.says("web1 answered").says("requests with a server error; nodes that were not changed 0 of");
    let said = said.says("web1 failed, none may: putting 1 node back").says("1 node put back: all is as before");
    assert!(!said.text.contains("batch 2 of 3"), "{}", said.text);
    place.all_have("two");

    // Every node answers that page with an error: what goes out then is not to blame.
    let broken = |word| ["--set", word, "--set", "extra=Redirect 503 /page"];
    place.play(&broken("word=three")).good();
    let said = visited(&place, || place.play(&[&broken("word=four")[..], &["--set", "settle=3s"]].concat()));
    eprintln!("{}", said.text);
    let said = said.good();
    assert!(!said.text.contains("with a server error"), "{}", said.text);
    place.all_have("four");

    // What cannot be read is not taken for good.
    let said = place.play(&["--set", "word=five", "--set", "logs=gone/*.log"]);
    eprintln!("{}", said.text);
    assert_eq!(said.code, 4, "{}", said.text);
    said.says("the access log of web1 cannot be read: there is no directory /data/logs/web1/gone")
        .says("all is as before");
    place.all_have("four");
}
