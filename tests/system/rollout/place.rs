//! The hosts, their nodes, the balancer, and the project that rolls out to them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use crate::common::fanli;
use crate::common::kept_lab::KeptLab;
use crate::supervised::wait_for;

/// The name and the network of a place as the texts here have them; a place of another name has its own in their stead.
const NAME: &str = "frt";
const NETWORK: &str = "10.86.";

pub const NODES: [&str; 6] = ["frt-web1", "frt-web2", "frt-web3", "frt-web4", "frt-web5", "frt-web6"];

const PLAYBOOK: &str = r#"
vars {
  word  = "one"
  extra = ""
  ping  = "/"
}

hosts docker {
  host "frt1" { address = 10.86.0.1  config = "SSH_CONFIG" }
  host "frt2" { address = 10.86.0.2  config = "SSH_CONFIG" }
}

hosts balancers {
  host "frt1" { address = 10.86.0.1  config = "SSH_CONFIG" }
}

network "lan" {
  mode   = macvlan
  parent = "eth0"
  subnet = 10.86.0.0/16
}

nodes web {
  addresses = [10.86.8.11, 10.86.8.12, 10.86.8.13, 10.86.8.14, 10.86.8.15, 10.86.8.16]
  on        = hosts.docker
  network   = "lan"
  name      = "frt-web{{ node.index }}"
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
    http "http://{{ node.address }}{{ ping }}" { times = 2  every = 200ms  within = 5s }
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

/// What every node's Apache reads.
const TEMPLATE: &str = r#"LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
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
Header always set X-Generation "{{ generation }}"
Header always set X-Word "{{ word }}"
Include /conf/generations/{{ generation }}/more.conf
"#;

const SUPERVISOR: &str = "[supervisord]\nnodaemon = true\nuser = root\npidfile = /run/supervisord.pid\n\
    logfile = /run/supervisord.log\n[unix_http_server]\nfile = /run/supervisor.sock\nchmod = 0700\n\
    [rpcinterface:supervisor]\nsupervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n\
    [supervisorctl]\nserverurl = unix:///run/supervisor.sock\n\
    [program:apache2]\ncommand = /usr/sbin/apache2 -f /conf/current/httpd.conf -D FOREGROUND\nstartsecs = 1\n\
    stopsignal = WINCH\nredirect_stderr = true\nstdout_logfile = /run/apache.out\nstdout_logfile_maxbytes = 0\n";

pub struct Place {
    /// Before the folder: the lab goes first.
    _kept: KeptLab,
    dir: tempfile::TempDir,
    name: &'static str,
    network: &'static str,
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
    /// Hosts with images and pages, and a balancer, but no nodes.
    pub fn new() -> Self {
        let place = Self::called(NAME, NETWORK);
        place.write("web.fp", PLAYBOOK);
        place.write("templates/conf/httpd.conf", TEMPLATE);
        place.write("templates/conf/more.conf", "{{ extra }}\n");
        place
    }

    /// The same without a playbook. Every text that it is given, and what it says, has the names and addresses of the usual place.
    pub fn called(name: &'static str, network: &'static str) -> Self {
        let dir = tempfile::Builder::new().prefix("fanli-rollout").tempdir_in("/tmp").unwrap();
        let place = Self { _kept: KeptLab::begin(name), dir, name, network };
        let folder = place.dir.path().to_str().unwrap();
        let range = format!("{network}0.0/16");
        let done = Command::new(fanli())
            .args(["lab", "up", "2", "--name", name, "--network", &range, "--dir", folder])
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
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
            place.on(host, &format!("cat > /data/super/supervisord.conf <<'END'\n{SUPERVISOR}\nEND"));
        }
        let servers = NODES
            .iter()
            .zip(11..)
            .map(|(node, last)| format!("  server {node} 10.86.8.{last}:80 check inter 200 rise 1 fall 2\n"))
            .collect::<Vec<_>>()
            .concat();
        let balancer = format!(
            "global\n  stats socket /run/haproxy.sock mode 600 level admin\ndefaults\n  mode http\n  timeout connect 5s\n  \
             timeout client 60s\n  timeout server 60s\n  retries 0\nfrontend front\n  bind 10.86.0.1:8000\n  default_backend web\n\
             frontend stats\n  bind 10.86.0.1:8001\n  stats enable\n  stats uri /\nbackend web\n  balance leastconn\n  option httpchk GET /\n{servers}"
        );
        place.on(1, &format!("cat > /data/haproxy.cfg <<'END'\n{balancer}\nEND\nhaproxy -D -f /data/haproxy.cfg"));
        place
    }

    fn own(&self, text: &str) -> String {
        text.replace(NAME, self.name).replace(NETWORK, self.network)
    }

    fn usual(&self, text: &str) -> String {
        text.replace(self.name, NAME).replace(self.network, NETWORK)
    }

    /// Where clients ask, and where the balancer tells of itself.
    pub fn front(&self) -> String {
        self.own("10.86.0.1:8000")
    }

    /// The same with every node in traffic.
    pub fn played() -> Self {
        let place = Self::new();
        place.play(&[]).good();
        place.play(&[]).nothing_done();
        all_up();
        place
    }

    fn config(&self) -> String {
        self.dir.path().join(self.name).join("ssh_config").to_str().unwrap().to_owned()
    }

    pub fn project(&self) -> &Path {
        self.dir.path()
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
        std::fs::write(path, self.own(text).replace("SSH_CONFIG", &self.config())).unwrap();
    }

    pub fn try_on(&self, host: usize, command: &str) -> Output {
        let (name, command) = (format!("{}{host}", self.name), self.own(command));
        Command::new("ssh").args(["-F", &self.config(), &name, &command]).output().unwrap()
    }

    #[track_caller]
    pub fn on(&self, host: usize, command: &str) -> String {
        let done = self.try_on(host, command);
        assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
        self.usual(String::from_utf8(done.stdout).unwrap().trim())
    }

    /// A call of fanli on its way.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(fanli());
        command
            .args(arguments.iter().map(|argument| self.own(argument)))
            .current_dir(self.project())
            .env("TERM", "dumb");
        command
    }

    pub fn fanli(&self, arguments: &[&str]) -> Said {
        let done = self.command(arguments).output().unwrap();
        let text = self.usual(&String::from_utf8([done.stdout, done.stderr].concat()).unwrap());
        Said { code: done.status.code().unwrap_or(-1), text }
    }

    pub fn play(&self, more: &[&str]) -> Said {
        self.fanli(&[&["play", "web.fp"], more].concat())
    }

    pub fn all_up(&self) {
        all_up_at(&self.own("10.86.0.1:8001"));
    }

    /// All that a node itself answers.
    pub fn page(&self, node: &str) -> String {
        get(&self.own(&address(node)), "/")
    }

    /// The host that carries a node: they are spread in turn.
    pub fn host_of(node: &str) -> usize {
        let number: usize = node.trim_start_matches("frt-web").parse().unwrap();
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
}

/// Waits until the balancer sends to every node.
pub fn all_up() {
    all_up_at("10.86.0.1:8001");
}

fn all_up_at(balancer: &str) {
    wait_for("every node is up", || {
        let said = get(balancer, "/;csv");
        (said.lines().filter(|line| line.starts_with("web,") && line.contains(",UP,")).count() == NODES.len() + 1)
            .then_some(())
    });
}

/// Waits until every node answers, whoever the balancer sends to.
pub fn all_up_again() {
    wait_for("every node answers", || {
        (11..=16).all(|last| TcpStream::connect(format!("10.86.8.{last}:80")).is_ok()).then_some(())
    });
}

/// A header of what a node itself answers; this machine is on the hosts' switch.
#[track_caller]
pub fn header(node: &str, name: &str) -> String {
    let said = get(&address(node), "/");
    let name = format!("{name}: ");
    let found = said.lines().find_map(|line| line.trim().strip_prefix(&name).map(str::to_owned));
    found.unwrap_or_else(|| panic!("{node} does not say {name}: {said}"))
}

fn address(node: &str) -> String {
    let number: usize = node.trim_start_matches("frt-web").parse().unwrap();
    format!("10.86.8.{}:80", 10 + number)
}

/// All that a server answers, from this machine, which is on the hosts' switch.
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
