//! The hosts, their nodes, the balancer, and the project that rolls out to them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::Duration;

use crate::common::fanli;
use crate::common::kept_lab::Lab;
use crate::supervised::wait_for;

pub const NODES: [&str; 6] = ["web1", "web2", "web3", "web4", "web5", "web6"];

/// What differs between places.
#[derive(Clone, Copy)]
pub struct Site {
    /// What the balancer does with requests that reach no server.
    pub retries: &'static str,
    /// The signal by which supervisor stops Apache.
    pub stop: &'static str,
}

/// Nothing here hides a mistake of a rollout.
pub const STRICT: Site = Site { retries: "retries 0", stop: "WINCH" };

/// What every playbook of a place begins with.
const HOSTS: &str = r#"
hosts docker {
  host "LAB1" { address = NET.0.1  config = "SSH_CONFIG" }
  host "LAB2" { address = NET.0.2  config = "SSH_CONFIG" }
}

hosts balancers {
  host "LAB1" { address = NET.0.1  config = "SSH_CONFIG" }
}

network "lan" {
  mode   = macvlan
  parent = "eth0"
  subnet = NET.0.0/16
}
"#;

const PLAYBOOK: &str = r#"
vars {
  word  = "one"
  extra = ""
  ping  = "/"
}

nodes web {
  addresses = [NET.8.11, NET.8.12, NET.8.13, NET.8.14, NET.8.15, NET.8.16]
  on        = hosts.docker
  network   = "lan"
  name      = "web{{ node.index }}"
}

play "watchers" on hosts.docker {
  watcher {}
}

rollout "apache" on nodes.web batch [1, 2, 100%] {
  settle = 200ms
  within = 10m

  config "/data/conf/{{ node.name }}" {
    from = "templates/conf"

    trial {
      validate = ["/usr/sbin/apache2", "-t", "-f", "/conf/current/httpd.conf"]
      start    = ["/usr/sbin/apache2", "-f", "/conf/current/httpd.conf", "-D", "FOREGROUND"]
      settle   = 1s
      requests = [{ path = "/" }]
    }
  }

  drain on hosts.balancers {
    backend node.name { haproxy = "/run/haproxy.sock"  pool = "web" }
  }

  reload {
    reload node.name {
      supervisor = "apache2"
      steady     = 500ms
      validate   = ["/usr/sbin/apache2", "-t", "-f", "/conf/current/httpd.conf"]
    }
  }

  healthy {
    loaded node.name {
      url        = "http://{{ node.address }}/"
      header     = "X-Generation"
      generation = generation
      container  = node.name
      slot       = "/data/conf/{{ node.name }}"
    }
    http "http://{{ node.address }}{{ ping }}" { times = 2  every = 200ms  within = 15s }
  }
}

play "nodes" on nodes.web {
  container node.name {
    image        = "frt/node:1"
    command      = ["/usr/bin/supervisord", "-n", "-c", "/super/supervisord.conf"]
    tmpfs        = ["/run:mode=0755", "/tmp", "/var/log"]
    mounts       = [
      "/data/usr"                  -> "/usr" read_only,
      "/data/www"                  -> "/www" read_only,
      "/data/super"                -> "/super" read_only,
      "/data/conf/{{ node.name }}" -> "/conf" read_only,
    ]
    stop_timeout = 2s
    attach "lan" { address = node.address }
    healthy      = http("http://{{ node.address }}/", within: 60s)
  }
}
"#;

/// What every node's Apache reads. It keeps idle connections for longer than the balancer does: a request that crosses with the end of
/// one is closed without an answer, which has nothing to do with a rollout.
pub const TEMPLATE: &str = r#"LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule headers_module /usr/lib/apache2/modules/mod_headers.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
LoadModule alias_module /usr/lib/apache2/modules/mod_alias.so
ServerRoot /run
ServerName {{ node.name }}
Listen 80
PidFile /run/httpd.pid
ErrorLog /dev/stderr
DefaultRuntimeDir /run
DocumentRoot /www
User www-data
Group www-data
DirectoryIndex index.html
StartServers 1
ServerLimit 4
ThreadsPerChild 16
MaxRequestWorkers 64
KeepAliveTimeout 300
Header always set X-Generation "{{ generation }}"
Header always set X-Word "{{ word }}"
Include /conf/generations/{{ generation }}/more.conf
"#;

/// Supervisor itself, with the socket that it is asked over.
pub const SUPERVISORD: &str = "[supervisord]\nnodaemon = true\nuser = root\npidfile = /run/supervisord.pid\n\
    logfile = /run/supervisord.log\n[unix_http_server]\nfile = /run/supervisor.sock\nchmod = 0700\n\
    [rpcinterface:supervisor]\nsupervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n\
    [supervisorctl]\nserverurl = unix:///run/supervisor.sock\n";

const APACHE: &str = "[program:apache2]\ncommand = /usr/sbin/apache2 -f /conf/current/httpd.conf -D FOREGROUND\nstartsecs = 1\n\
    stopsignal = STOP\nredirect_stderr = true\nstdout_logfile = /run/apache.out\nstdout_logfile_maxbytes = 0\n";

pub struct Place {
    pub lab: Lab,
}

pub struct Said {
    pub code: i32,
    pub text: String,
}

impl Said {
    #[track_caller]
    pub fn good(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.text);
        self
    }

    #[track_caller]
    pub fn nothing_done(self) -> Self {
        assert!(self.code == 0 && self.text.contains("nothing to do: everything is as declared"), "{}", self.text);
        self
    }

    #[track_caller]
    pub fn says(self, what: &str) -> Self {
        assert!(self.text.contains(what), "it does not say `{what}`: {}", self.text);
        self
    }
}

impl Place {
    /// Hosts with images and pages, a balancer, and the project, but no nodes.
    pub fn new(site: Site) -> Self {
        let place = Self::bare(site);
        place.playbook(PLAYBOOK);
        place.write("templates/conf/httpd.conf", TEMPLATE);
        place.write("templates/conf/more.conf", "{{ extra }}\n");
        place
    }

    /// The same without a project.
    pub fn bare(site: Site) -> Self {
        let Site { retries, stop } = site;
        let place = Self { lab: Lab::up(("LAB", "NET"), 2) };
        for host in [1, 2] {
            place.on(
                host,
                "d=$(mktemp -d); mkdir -p $d/etc $d/tmp $d/run $d/usr $d/var/log $d/root $d/conf $d/www $d/super; \
                 for link in bin sbin lib lib64; do ln -s usr/$link $d/$link; done; \
                 printf 'root:x:0:0:root:/root:/bin/sh\\nwww-data:x:33:33::/:/bin/false\\n' > $d/etc/passwd; \
                 printf 'root:x:0:\\nwww-data:x:33:\\n' > $d/etc/group; \
                 tar -C $d -c . | docker import - frt/node:1 > /dev/null; rm -r $d; \
                 mkdir -p /data/www /data/super /data/conf /data/usr; mount --bind /usr /data/usr; echo hello | tee /data/www/index.html > /data/www/ping",
            );
        }
        place.supervisor(stop);
        let servers = NODES
            .iter()
            .zip(11..)
            .map(|(node, last)| format!("  server {node} NET.8.{last}:80 check inter 200 rise 1 fall 2\n"))
            .collect::<Vec<_>>()
            .concat();
        let balancer = format!(
            "global\n  stats socket /run/haproxy.sock mode 600 level admin\ndefaults\n  mode http\n  timeout connect 5s\n  \
             timeout client 60s\n  timeout server 60s\n  timeout check 10s\n  {retries}\nfrontend front\n  bind NET.0.1:8000\n  default_backend web\n\
             frontend stats\n  bind NET.0.1:8001\n  stats enable\n  stats uri /\nbackend web\n  balance leastconn\n  option httpchk GET /\n{servers}"
        );
        place.on(1, &format!("cat > /data/haproxy.cfg <<'END'\n{balancer}\nEND\nhaproxy -D -f /data/haproxy.cfg"));
        place
    }

    /// Writes a playbook behind hosts, balancers and network; `LAB`, `NET` and `SSH_CONFIG` stand for this place's own.
    pub fn playbook(&self, text: &str) {
        let text = self.lab.here(&format!("{HOSTS}{text}"));
        self.write("web.fp", &text.replace("SSH_CONFIG", &self.config()));
    }

    /// The same with every node in traffic.
    pub fn played() -> Self {
        Self::played_at(STRICT)
    }

    pub fn played_at(site: Site) -> Self {
        let place = Self::new(site);
        place.play(&[]).good();
        place.play(&[]).nothing_done();
        place.all_up();
        place
    }

    /// Supervisor's configuration for every node, as it is read at its next start or update.
    pub fn supervisor(&self, stop: &str) {
        let text = format!("{SUPERVISORD}{}", APACHE.replace("STOP", stop));
        for host in [1, 2] {
            self.on(host, &format!("cat > /data/super/supervisord.conf <<'END'\n{text}\nEND"));
        }
    }

    pub fn config(&self) -> String {
        self.lab.config()
    }

    pub fn project(&self) -> &Path {
        self.lab.project()
    }

    /// Changes a file of the project.
    pub fn edit(&self, name: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.project().join(name)).unwrap();
        assert!(text.contains(from), "{name} has no `{from}`");
        self.write(name, &text.replacen(from, to, 1));
    }

    pub fn write(&self, name: &str, text: &str) {
        let path: PathBuf = self.project().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub fn try_on(&self, host: usize, command: &str) -> Output {
        self.lab.try_on(host, command)
    }

    #[track_caller]
    pub fn on(&self, host: usize, command: &str) -> String {
        self.lab.on(host, command)
    }

    /// A call of fanli on its way.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(fanli());
        command.args(arguments).current_dir(self.project()).env("TERM", "dumb");
        command
    }

    pub fn fanli(&self, arguments: &[&str]) -> Said {
        let done = self.command(arguments).output().unwrap();
        let text = String::from_utf8([done.stdout, done.stderr].concat()).unwrap();
        Said { code: done.status.code().unwrap_or(-1), text }
    }

    pub fn play(&self, more: &[&str]) -> Said {
        self.fanli(&[&["play", "web.fp"], more].concat())
    }

    /// A play that is on its way; its output so far is in [`Place::log`].
    pub fn begin(&self, more: &[&str]) -> Child {
        let log = std::fs::File::create(self.project().join("log")).unwrap();
        self.command(&[&["play", "web.fp"], more].concat()).stdout(log).spawn().unwrap()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.project().join("log")).unwrap()
    }

    /// Waits until the play that was begun last says so.
    #[track_caller]
    pub fn waits_for(&self, text: &str) {
        wait_for(text, || self.log().contains(text).then_some(()));
    }

    /// The host that carries a node: they are spread in turn.
    pub fn host_of(node: &str) -> usize {
        let number: usize = node.trim_start_matches("web").parse().unwrap();
        2 - number % 2
    }

    /// The generation that a node's slot shows.
    #[track_caller]
    pub fn current(&self, node: &str) -> String {
        let link = self.on(Self::host_of(node), &format!("readlink /data/conf/{node}/current"));
        link.trim_start_matches("generations/").to_owned()
    }

    /// Everything in a node's slot that it shows: names, modes, owners and contents.
    #[track_caller]
    pub fn tree(&self, node: &str) -> String {
        let script = format!(
            "cd /data/conf/{node}/current/ && find . | sort | xargs stat -c '%n %A %u %g' && find . -type f | sort | xargs sha256sum"
        );
        self.on(Self::host_of(node), &script)
    }

    /// Waits until the balancer sends to every node.
    pub fn all_up(&self) {
        self.up(NODES.len());
    }

    /// Waits until it sends to so many.
    pub fn up(&self, nodes: usize) {
        wait_for(&format!("{nodes} nodes are up"), || {
            let said = get(&self.stats(), "/;csv");
            (said.lines().filter(|line| line.starts_with("web,") && line.contains(",UP,")).count() == nodes + 1)
                .then_some(())
        });
    }

    /// Waits until every node answers, whoever the balancer sends to.
    pub fn all_up_again(&self) {
        wait_for("every node answers", || {
            NODES.iter().all(|node| TcpStream::connect(self.address(node)).is_ok()).then_some(())
        });
    }

    /// Where the balancer listens.
    pub fn front(&self) -> String {
        format!("{}.0.1:8000", self.lab.net())
    }

    /// Where the balancer tells of itself.
    pub fn stats(&self) -> String {
        format!("{}.0.1:8001", self.lab.net())
    }

    /// Where a node's Apache listens; this machine is on the hosts' switch.
    pub fn address(&self, node: &str) -> String {
        let number: usize = node.trim_start_matches("web").parse().unwrap();
        format!("{}.8.{}:80", self.lab.net(), 10 + number)
    }

    /// A header of what a node itself answers.
    #[track_caller]
    pub fn header(&self, node: &str, name: &str) -> String {
        let said = get(&self.address(node), "/");
        let name = format!("{name}: ");
        let found = said.lines().find_map(|line| line.trim().strip_prefix(&name).map(str::to_owned));
        found.unwrap_or_else(|| panic!("{node} does not say {name}: {said}"))
    }
}

/// All that a server answers.
#[track_caller]
pub fn get(address: &str, path: &str) -> String {
    try_get(address, path).unwrap()
}

/// The same from a server that may not answer.
pub fn try_get(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: web\r\n\r\n").as_bytes())?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}
