//! Which generation a process has loaded: asked of Apache, nginx and HAProxy, with the lines that docs/rollout-balancer.md has.

use std::os::unix::fs::symlink;

use fanli::value::{Map, Value};

use super::ledger::Held;
use super::place::{Place, apache_config, compare, millis, seconds, task};
use crate::args;
use crate::docker_hosts::Hosts;
use crate::drive::{Report, Task};

const OLD: &str = "aaaaaaaaaaaa";
const NEW: &str = "bbbbbbbbbbbb";

/// Its daemon for scripts is one more process of Apache's, which is none of the workers' business.
const CGI: &str = "LoadModule cgid_module /usr/lib/apache2/modules/mod_cgid.so\nScriptSock DIR/web1/cgisock\n";

/// The lines of the documentation for a program.
fn documented(program: &str) -> String {
    let text = include_str!("../../../docs/rollout-balancer.md");
    let fence = format!("```{program}\n");
    let (_, after) = text.split_once(&fence).unwrap_or_else(|| panic!("{program} is not documented"));
    after.split_once("```").unwrap().0.to_owned()
}

/// A slot with both generations of a file, turned to the old one.
fn slot(place: &Place, name: &str, config: &str) {
    for id in [OLD, NEW] {
        place.write(&format!("slot/generations/{id}/{name}"), &config.replace("{{ generation }}", id));
    }
    turn(place, OLD);
}

fn turn(place: &Place, id: &str) {
    let (new, current) = (place.path("slot/new"), place.path("slot/current"));
    symlink(format!("generations/{id}"), &new).unwrap();
    std::fs::rename(new, current).unwrap();
    // Nobody reloads in the same hundredth of a second.
    std::thread::sleep(std::time::Duration::from_millis(50));
}

fn loaded(place: &Place, id: &str, more: Map) -> Task {
    let mut args = args! {
        "name" => "web1", "url" => "http://127.0.0.1/generation", "generation" => id, "slot" => place.text("slot"),
        "within" => seconds(60),
    };
    args.extend(more);
    task("loaded", args)
}

fn short() -> Map {
    args! { "within" => millis(600), "every" => millis(100) }
}

fn proven(report: &Report, id: &str) {
    assert!(report.failure.is_none(), "{}", report.failure.as_ref().unwrap());
    assert_eq!(report.output["generation"], Value::from(id));
}

#[test]
fn apache() {
    let mut place = Place::new();
    place.write("www/index.html", "hello\n");
    place.write("web1/none", "");
    slot(&place, "httpd.conf", &apache_config("web1", "127.0.0.1:80", &format!("{CGI}{}", documented("apache"))));
    place.start(&["apache2", "-f", "DIR/slot/current/httpd.conf", "-DFOREGROUND"]);
    let header = || args! { "header" => "X-Generation" };
    let with = |more: Map| header().into_iter().chain(more).collect::<Map>();
    proven(&place.run(&loaded(&place, OLD, header())), OLD);
    let mut told = vec![place.refusal(&loaded(&place, NEW, with(short())))];

    // The disk alone proves nothing.
    turn(&place, NEW);
    told.push(place.refusal(&loaded(&place, NEW, with(short()))));
    told.push(place.refusal(&loaded(&place, NEW, with(args! { "header" => "X-Other", "within" => millis(300) }))));

    // The process answers with the new one, and an old worker is still busy.
    // A worker that died is replaced: that one is younger than the link, and of the configuration before. So many requests that each
    // worker has some.
    place.must("kill -9 $(pgrep -n -P $(cat DIR/web1/pid)); sleep 3");
    let held: Vec<Held> = (0..50).map(|_| Held::start(place.pid, "127.0.0.1:80")).collect();
    place.must("sleep 0.5; apache2 -f DIR/slot/current/httpd.conf -k graceful");
    let any = with(args! { "old_workers" => "any" });
    let report = place.run(&loaded(&place, NEW, any));
    proven(&report, NEW);
    assert_eq!(report.output["workers"], Value::Null);
    let left = place.run(&loaded(&place, NEW, with(short()))).failed().to_string();
    assert!(left.contains("that cannot have read it: process ") && left.contains("on its way out"), "{left}");
    for held in held {
        assert!(held.end().starts_with("HTTP/1.1 200"));
    }
    let report = place.run(&loaded(&place, NEW, header()));
    proven(&report, NEW);
    assert!(matches!(report.output["workers"], Value::Int(2..)));
    told.push(place.refusal(&loaded(&place, NEW, with(args! { "port" => 81i64, "within" => millis(300) }))));

    place.end("web1");
    told.push(place.refusal(&loaded(&place, NEW, with(short()))));
    compare("balance_loaded", &told.join("\n\n"));
}

#[test]
fn nginx() {
    let mut place = Place::new();
    let config = format!(
        "user www-data;\nworker_processes 2;\npid DIR/nginx.pid;\nerror_log DIR/nginx.log;\nevents {{ }}\nhttp {{\n\
         access_log off;\nclient_body_temp_path DIR/body;\nserver {{\nlisten 127.0.0.1:80;\n{}}}\n}}\n",
        documented("nginx")
    );
    slot(&place, "nginx.conf", &config);
    place.start(&["nginx", "-c", "DIR/slot/current/nginx.conf", "-g", "daemon off;"]);
    proven(&place.run(&loaded(&place, OLD, Map::new())), OLD);
    turn(&place, NEW);
    assert!(place.run(&loaded(&place, NEW, short())).failed().to_string().contains("still answers"));
    place.must("nginx -c DIR/slot/current/nginx.conf -s reload");
    let report = place.run(&loaded(&place, NEW, Map::new()));
    proven(&report, NEW);
    assert_eq!(report.output["workers"], Value::Int(2));
}

#[test]
fn haproxy() {
    let mut place = Place::new();
    let config = format!(
        "global\n  stats socket DIR/admin.sock mode 600 level admin\ndefaults\n  mode http\n  timeout connect 5s\n  \
         timeout client 60s\n  timeout server 60s\nfrontend front\n  bind 127.0.0.1:80\n{}  default_backend none\nbackend none\n",
        documented("haproxy")
    );
    slot(&place, "haproxy.cfg", &config);
    place.start(&["haproxy", "-W", "-p", "DIR/haproxy.pid", "-f", "DIR/slot/current/haproxy.cfg"]);
    proven(&place.run(&loaded(&place, OLD, Map::new())), OLD);
    turn(&place, NEW);
    assert!(place.run(&loaded(&place, NEW, short())).failed().to_string().contains("still answers"));
    place.must("kill -USR2 $(cat DIR/haproxy.pid)");
    let report = place.run(&loaded(&place, NEW, Map::new()));
    proven(&report, NEW);
    assert_eq!(report.output["workers"], Value::Int(1));
}

/// A page that is a file tells what stands on the disk: the age of the process, here one in a container, gives it away.
#[test]
fn a_file_that_tells_the_generation_is_no_proof() {
    let hosts = Hosts::start("bl", 1);
    let host = &hosts.hosts[0];
    let turn = |id: &str| {
        host.must(&format!("cd /data/slot; ln -s generations/{id} new; mv -T new current; sleep 0.1"));
    };
    for id in [OLD, NEW] {
        host.must(&format!("mkdir -p /data/slot/generations/{id}; echo {id} > /data/slot/generations/{id}/generation"));
    }
    turn(OLD);
    host.must(
        "docker run -d --name web1 --network host -v /data/slot:/slot fanli/example:1 \
         httpd -f -p 127.0.0.1:8091 -h /slot >/dev/null",
    );
    let task = |id: &str, more: Map| {
        let mut args = args! {
            "name" => "web1", "url" => "http://127.0.0.1:8091/current/generation", "generation" => id,
            "slot" => "/data/slot", "container" => "web1", "within" => seconds(60),
        };
        args.extend(more);
        crate::balance::place::task("loaded", args)
    };
    let report = host.drive().one(&task(OLD, Map::new()));
    proven(&report, OLD);
    assert_eq!(report.output["workers"], Value::Int(1));
    turn(NEW);
    let told = host.drive().one(&task(NEW, short())).failed().to_string();
    assert!(told.contains("1 worker is left that cannot have read it: process "), "{told}");
    proven(&host.drive().one(&task(NEW, args! { "old_workers" => "any" })), NEW);
    host.must("docker restart -t 1 web1 >/dev/null");
    proven(&host.drive().one(&task(NEW, Map::new())), NEW);
    host.must("docker stop -t 1 web1 >/dev/null");
    let told = host.drive().one(&task(NEW, short())).failed().to_string();
    assert!(told.contains("no answer"), "{told}");
}
