//! The same rollout serves other programs: nginx and HAProxy as what the nodes run.

use super::place::{NODES, Place, STRICT, SUPERVISORD, get};
use super::{CLIENTS, asked_by};

const HEAD: &str = r#"
vars {
  word  = "one"
  extra = ""
}

nodes nginx {
  addresses = [NET.8.11, NET.8.12]
  on        = hosts.docker
  network   = "lan"
  name      = "web{{ node.index }}"
}

nodes haproxy {
  addresses = [NET.8.13, NET.8.14]
  on        = hosts.docker
  network   = "lan"
  name      = "web{{ node.index + 2 }}"
}

play "watchers" on hosts.docker {
  watcher {}
}
"#;

/// The rollout of a program's configuration, and its nodes.
const PROGRAM: &str = r#"
rollout "PROGRAM" on nodes.PROGRAM batch [1, 100%] {
  settle = 200ms
  within = 10m

  config "/data/conf/{{ node.name }}" {
    from = "templates/PROGRAM"

    trial {
      validate = VALIDATE
      start    = START
      settle   = 1s
      requests = [{ path = "/" }]
    }
  }

  drain on hosts.balancers {
    backend node.name { haproxy = "/run/haproxy.sock"  pool = "web" }
  }

  reload {
    reload node.name { supervisor = "PROGRAM"  signal = "SIGNAL"  steady = 500ms  validate = VALIDATE }
  }

  healthy {
    loaded node.name {
      url        = "http://{{ node.address }}/"
      header     = "X-Generation"
      generation = generation
      container  = node.name
      slot       = "/data/conf/{{ node.name }}"
    }
    http "http://{{ node.address }}/" { times = 2  every = 200ms  within = 15s }
  }
}

play "nodes of PROGRAM" on nodes.PROGRAM {
  container node.name {
    image        = "frt/node:1"
    command      = ["/usr/bin/supervisord", "-n", "-c", "/super/PROGRAM.conf"]
    tmpfs        = ["/run:mode=0755", "/tmp", "/var/log", "/var/lib"]
    mounts       = [
      "/data/usr"                  -> "/usr" read_only,
      "/data/super"                -> "/super" read_only,
      "/data/conf/{{ node.name }}" -> "/conf" read_only,
    ]
    stop_timeout = 2s
    attach "lan" { address = node.address }
    healthy      = http("http://{{ node.address }}/", within: 60s)
  }
}
"#;

const SUPERVISED: &str =
    "[program:PROGRAM]\ncommand = COMMAND\nstartsecs = 1\nredirect_stderr = true\nstdout_logfile = /run/out\n";

/// It reads whole bodies before it answers, as a proxy does.
const NGINX: &str = r#"user www-data;
pid /run/nginx.pid;
error_log stderr;
worker_processes 2;
events { }
http {
  access_log off;
  client_body_temp_path /tmp/body;
  proxy_temp_path /tmp/proxy;
  fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi;
  scgi_temp_path /tmp/scgi;
  {{ extra }}
  server {
    listen 80;
    add_header X-Generation "{{ generation }}" always;
    add_header X-Word "{{ word }}" always;
    location / { proxy_pass http://127.0.0.1:8081; }
  }
  server {
    listen 127.0.0.1:8081;
    location / { return 200 "{{ node.name }}\n"; }
  }
}
"#;

const HAPROXY: &str = r#"global
  user www-data
  hard-stop-after 60s
{{ extra }}
defaults
  mode http
  timeout client 60s
  timeout http-request 60s
frontend front
  bind :80
  option http-buffer-request
  http-request return status 200 content-type text/plain string "{{ node.name }}" hdr X-Generation "{{ generation }}" hdr X-Word "{{ word }}"
"#;

/// A program that nodes run, and the signal by which it reads its configuration again.
struct Runs {
    program: &'static str,
    file: &'static str,
    template: &'static str,
    validate: &'static str,
    start: &'static str,
    signal: &'static str,
    nodes: [&'static str; 2],
    /// A line that it does not understand.
    broken: &'static str,
}

const PROGRAMS: [Runs; 2] = [
    Runs {
        program: "nginx",
        file: "nginx.conf",
        template: NGINX,
        validate: r#"["/usr/sbin/nginx", "-t", "-c", "/conf/current/nginx.conf"]"#,
        start: r#"["/usr/sbin/nginx", "-c", "/conf/current/nginx.conf", "-g", "daemon off;"]"#,
        signal: "HUP",
        nodes: [NODES[0], NODES[1]],
        broken: "no_such_directive on;",
    },
    Runs {
        program: "haproxy",
        file: "haproxy.cfg",
        template: HAPROXY,
        validate: r#"["/usr/sbin/haproxy", "-c", "-f", "/conf/current/haproxy.cfg"]"#,
        start: r#"["/usr/sbin/haproxy", "-W", "-f", "/conf/current/haproxy.cfg"]"#,
        signal: "USR2",
        nodes: [NODES[2], NODES[3]],
        broken: "  no-such-keyword on",
    },
];

impl Runs {
    fn filled(&self, text: &str) -> String {
        let text = text.replace("VALIDATE", self.validate).replace("START", self.start).replace("SIGNAL", self.signal);
        text.replace("PROGRAM", self.program)
    }

    /// What supervisor runs: the words of `start`, each in quotes.
    fn supervisor(&self) -> String {
        let command = self.start.trim_matches(['[', ']']).replace("\", \"", "\" \"");
        format!("{SUPERVISORD}{}", SUPERVISED.replace("PROGRAM", self.program).replace("COMMAND", &command))
    }

    /// The processes that supervisor has started: it is reloaded, not started anew.
    fn pids(&self, place: &Place) -> Vec<String> {
        let pid = |node: &&str| {
            let asked = format!("docker exec {node} supervisorctl -c /super/{0}.conf pid {0}", self.program);
            place.on(Place::host_of(node), &asked)
        };
        self.nodes.iter().map(pid).collect()
    }

    #[track_caller]
    fn have(&self, place: &Place, word: &str) {
        for node in self.nodes {
            assert_eq!(place.header_of(node, "x-word"), word, "{node}");
            assert_eq!(place.header_of(node, "x-generation"), place.current(node), "{node}");
        }
    }
}

impl Place {
    /// As [`Place::header`], whatever the case of its name.
    #[track_caller]
    fn header_of(&self, node: &str, name: &str) -> String {
        let said = get(&self.address(node), "/");
        let found = said
            .lines()
            .filter_map(|line| line.trim().split_once(": "))
            .find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.unwrap_or_else(|| panic!("{node} does not say {name}: {said}")).1.to_owned()
    }
}

#[test]
fn nginx_and_haproxy_are_rolled_out_as_apache_is() {
    let place = Place::bare(STRICT);
    let blocks: String = PROGRAMS.iter().map(|runs| runs.filled(PROGRAM)).collect();
    place.playbook(&format!("{HEAD}{blocks}"));
    for runs in &PROGRAMS {
        place.write(&format!("templates/{}/{}", runs.program, runs.file), runs.template);
        for host in [1, 2] {
            place.on(host, &format!("cat > /data/super/{}.conf <<'END'\n{}\nEND", runs.program, runs.supervisor()));
        }
    }
    place.play(&[]).good();
    place.play(&[]).nothing_done();
    place.up(4);
    // HAProxy as a server answers before it has read a large body.
    let clients = &CLIENTS[..4];
    let pids: Vec<_> = PROGRAMS.iter().map(|runs| runs.pids(&place)).collect();

    let said = asked_by(clients, &place, "one line", || place.play(&["--set", "word=two"]).good());
    eprintln!("{}", said.text);
    PROGRAMS.iter().for_each(|runs| runs.have(&place, "two"));
    place.play(&["--set", "word=two"]).nothing_done();

    for runs in &PROGRAMS {
        let said = place.play(&["--set", "word=two", "--set", &format!("extra={}", runs.broken)]);
        assert_eq!(said.code, 4, "{}", said.text);
        said.says(runs.broken.split_whitespace().next().unwrap()).says("no node was touched");
        runs.have(&place, "two");
    }

    let said = asked_by(clients, &place, "back", || place.fanli(&["rollout", "rollback", "web.fp"]).good());
    eprintln!("{}", said.text);
    PROGRAMS.iter().for_each(|runs| runs.have(&place, "one"));
    assert_eq!(PROGRAMS.iter().map(|runs| runs.pids(&place)).collect::<Vec<_>>(), pids, "reloaded, never restarted");
    place.play(&[]).nothing_done();
}
