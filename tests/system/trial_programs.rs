//! `trial` with other programs than Apache: nothing in it knows one.

use std::time::Duration;

use fanli::resource::kinds::schema;
use fanli::value::Value;

use crate::common::Bench;
use crate::docker_hosts::Hosts;
use crate::drive::{Task, task};
use crate::file_examples::planned_args;
use crate::trial::{Site, list, map};

#[test]
fn nginx_is_tried_like_anything_else() {
    let hosts = Hosts::start("ftrn", 1);
    let mut site = Site::new(&hosts.hosts[0]);
    site.common.extend([
        ("validate", list(&["nginx", "-t", "-c", "/conf/current/nginx.conf"])),
        ("start", list(&["nginx", "-c", "/conf/current/nginx.conf", "-g", "daemon off;"])),
        ("requests", map(&[("path", "/index.html".into()), ("contains", "hello".into())])),
        ("ready_within", Value::Duration(Duration::from_secs(3))),
    ]);
    let conf = |server: &str| {
        format!(
            "user www-data;\npid /tmp/nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log /var/log/apache2/access.log;\n{server}\n}}"
        )
    };
    let good = "server { listen 80; root /srv/www/a; }";
    site.stage('a', "nginx.conf", &conf(good), "");
    site.node("nginx -c /conf/current/nginx.conf -g 'daemon off;'", "10.83.0.6");
    site.host.must("docker exec -d ftr-web busybox httpd -f -p 8081");
    assert_eq!(site.try_it('a', &[]).fields(), ["tried"]);
    site.try_it('a', &[]).no_change();

    let mut snaps = crate::snap::Snaps::beside("system");
    let cases = [
        ("syntax", "server { listen 80; rooot /srv/www/a; }"),
        ("upstream", "server { listen 80; location / { proxy_pass http://db.internal; } }"),
        ("root", "server { listen 80; root /srv/www/none; }"),
        ("taken_port", "server { listen 80; listen 8081; root /srv/www/a; }"),
        ("foreign_address", "server { listen 80; listen 10.83.9.9:8080; root /srv/www/a; }"),
        ("own_port_only", "server { listen 8080; root /srv/www/a; }"),
    ];
    for ((name, server), letter) in cases.iter().zip('1'..) {
        site.stage(letter, "nginx.conf", &conf(server), "");
        snaps.compare(&format!("trial_nginx_{name}"), &site.refused(letter, &[]));
    }
    // A name that the configuration needs is given instead of a name server.
    let known = [
        ("hosts", list(&["db.internal:10.0.0.5"])),
        ("requests", map(&[("status", Value::Int(502))])),
        ("listens", Value::List(vec![Value::Int(80)])),
    ];
    assert_eq!(site.try_it('2', &known).fields(), ["tried"]);
    snaps.end();
}

#[test]
fn haproxy_is_tried_like_anything_else() {
    let hosts = Hosts::start("ftrp", 1);
    let mut site = Site::new(&hosts.hosts[0]);
    site.stage('a', "haproxy.cfg", "", "");
    site.node("sleep 600", "10.83.0.7");
    site.common.extend([
        ("validate", list(&["haproxy", "-c", "-f", "/conf/current/haproxy.cfg"])),
        ("start", list(&["haproxy", "-db", "-f", "/conf/current/haproxy.cfg"])),
        ("requests", map(&[("status", Value::Int(503))])),
    ]);
    let conf = |bind: &str, more: &str| {
        format!(
            "global\n  user www-data\n  group www-data\ndefaults\n  mode http\n  timeout connect 1s\n  timeout client 5s\n  timeout server 5s\n\
             frontend site\n{bind}\n  default_backend nodes\nbackend nodes\n  server one 10.83.0.50:80 check\n{more}"
        )
    };
    let mut snaps = crate::snap::Snaps::beside("system");
    site.stage('b', "haproxy.cfg", &conf("  bind :80\n  bind 10.83.0.7:8080", ""), "");
    assert_eq!(site.try_it('b', &[]).fields(), ["tried"]);
    site.try_it('b', &[]).no_change();
    let cases = [
        ("syntax", conf("  bind :80", "  balanec roundrobin")),
        ("certificate", conf("  bind :80\n  bind :443 ssl crt /conf/current/haproxy.cfg", "")),
        ("foreign_address", conf("  bind :80\n  bind 10.83.9.9:80", "")),
    ];
    for ((name, text), letter) in cases.iter().zip('1'..) {
        site.stage(letter, "haproxy.cfg", text, "");
        snaps.compare(&format!("trial_haproxy_{name}"), &site.refused(letter, &[]));
    }
    snaps.end();
}

#[test]
fn without_a_node_the_image_is_enough() {
    let hosts = Hosts::start("ftri", 1);
    let site = Site::new(&hosts.hosts[0]);
    site.stage('a', "index.html", "a page", "");
    site.host.must("echo kept > /data/logs/sites/access.log; chmod 700 /data/logs");
    let arrow = |from: &str, to: &str| {
        let (from, to) = (from.to_owned(), to.to_owned());
        Value::Arrow(Box::new(fanli::value::Arrow { from, to, flags: Vec::new() }))
    };
    // It can write logs and documents, and sees nothing of the first and all of the second; the node's own files stay.
    let script = "test $STAGE = two; test -d /logs/sites; ! test -e /logs/sites/access.log; echo new > /logs/sites/new; \
                  test -e /docs/a/index.html; ! echo x > /docs/x; ! echo x > /conf/current/x; test $(id -u) = 0; \
                  httpd -p [fd00:83::9]:81 -h /docs/a; exec httpd -f -p 10.83.0.9:80 -h /conf/current";
    let common = [
        ("path", "/data/slot".into()),
        ("generation", crate::trial::id('a').into()),
        ("image", "fanli/example:1".into()),
        ("inside", "/conf".into()),
        ("mounts", Value::List(vec![arrow("/data/logs", "/logs"), arrow("/data/www", "/docs")])),
        ("contents", list(&["/docs"])),
        ("env", map(&[("STAGE", "two".into())])),
        ("start", list(&["sh", "-ec", script])),
        (
            "requests",
            Value::List(vec![
                map(&[("contains", "page".into())]),
                map(&[("contains", "hello".into()), ("port", Value::Int(81)), ("host", "six.example".into())]),
            ]),
        ),
        ("addresses", list(&["10.83.0.9", "fd00:83::9"])),
    ];
    let drive = site.host.drive();
    let before = site.host.must("find /data -ls | sort");
    assert_eq!(drive.one(&task("trial", common.clone())).fields(), ["tried"]);
    drive.one(&task("trial", common.clone())).no_change();
    assert_eq!(site.host.must("find /data -ls | sort; docker ps -aq"), before);
    // Another image of the same name is another trial; so is another generation.
    site.host.busybox("fanli/example:1", "two");
    assert_eq!(drive.one(&task("trial", common.clone())).fields(), ["tried"]);
    drive.one(&task("trial", common.clone())).no_change();
    let foreign = common.iter().filter(|(name, _)| *name != "addresses").cloned();
    let refused = drive.one(&task("trial", foreign));
    let text = crate::trial::shown(refused.failed());
    assert!(text.contains("10.83.0.9:80, and 10.83.0.9 is no address of the node"), "{text}");
    assert_eq!(site.host.must("find /data -ls | sort; docker ps -aq"), before);
}

#[test]
fn the_example_runs() {
    let hosts = Hosts::start("ftre", 1);
    let host = &hosts.hosts[0];
    host.must(
        "mount -t tmpfs none /srv; mkdir -p /srv/fanli-example/generations/0123456789ab; \
         echo conf > /srv/fanli-example/generations/0123456789ab/main.conf; \
         docker run -d --name fanli-example --net none -v /srv/fanli-example:/conf fanli/example:1 sleep 600",
    );
    let (kind, args) = planned_args(&Bench::new(), schema("trial").unwrap().example);
    let example = Task { kind, args };
    assert_eq!(host.drive().one(&example).fields(), ["tried"]);
    host.drive().one(&example).no_change();
}
