//! Docker hosts on this machine: each is a network namespace with an `eth0` into one switch, a mount namespace of its own and
//! a real daemon in it. Everything goes when the value is dropped.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::common::keeper::Keeper;
use crate::drive::Drive;

/// Some hosts on one switch. Their addresses are 10.99.0.1, 10.99.0.2, …; nothing shows in the machine's own network.
#[allow(clippy::struct_field_names)]
pub struct Hosts {
    name: String,
    pub hosts: Vec<Host>,
    // Dropped in this order: what runs in the hosts goes before their files.
    _kept: Keeper,
    dir: tempfile::TempDir,
}

/// One docker host.
pub struct Host {
    pub name: String,
    daemon: Child,
    /// The process that holds its namespaces: the daemon itself.
    pub pid: u32,
}

/// Ends what runs in the hosts whose names begin with `$0`, containers first, and removes their namespaces and their files in `$1`.
const TAKE_DOWN: &str = r#"
for host in $(ip netns list | cut -d' ' -f1 | grep -E "^$0(h[0-9]+|sw)$"); do
    for pid in $(ip netns pids "$host"); do
        [ "$(cat /proc/$pid/comm)" = dockerd ] || continue
        nsenter -t $pid -m -n -u sh -c 'docker ps -aq | timeout 20 xargs -r docker rm -f -v'
        kill $pid
        for turn in $(seq 400); do [ -e /proc/$pid/root/run ] || break; sleep 0.05; done
    done
    for turn in $(seq 400); do
        pids=$(ip netns pids "$host")
        [ -n "$pids" ] || break
        kill -9 $pids
        sleep 0.05
    done
    ip netns del "$host" || failed=1
done
rm -rf "$1"
[ -z "$failed" ]
"#;

fn sh(script: &str) -> Output {
    Command::new("sh").args(["-ec", script]).output().unwrap()
}

fn must(script: &str) -> String {
    let done = sh(script);
    let error = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{script}: {error}");
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

impl Hosts {
    /// Starts `count` hosts; `tag` (a few letters) names everything that belongs to them.
    pub fn start(tag: &str, count: usize) -> Self {
        let name = format!("fdk{tag}{}", std::process::id() % 10_000);
        let dir = tempfile::Builder::new().prefix(&name).tempdir_in("/tmp").unwrap();
        let kept = Keeper::new(TAKE_DOWN, [name.as_ref(), dir.path().as_os_str()]);
        let mut hosts = Self { name, hosts: Vec::new(), _kept: kept, dir };
        let switch = format!("{}sw", hosts.name);
        must(&format!(
            "ip netns add {switch}; ip -n {switch} link add br0 type bridge; ip -n {switch} link set br0 up; \
             ip -n {switch} addr add 10.99.0.254/24 dev br0; ip -n {switch} link set lo up"
        ));
        for index in 1..=count {
            let started = hosts.host(index);
            hosts.hosts.push(started);
        }
        for index in 0..count {
            hosts.wait(index);
        }
        hosts
    }

    fn host(&self, index: usize) -> Host {
        let (name, switch) = (format!("{}h{index}", self.name), format!("{}sw", self.name));
        let (address, place) = (format!("10.99.0.{index}"), self.dir.path().join(&name));
        must(&format!(
            "ip netns add {name}; ip -n {name} link set lo up; \
             ip -n {name} link add eth0 type veth peer name p{index} netns {switch}; \
             ip -n {switch} link set p{index} master br0 up; \
             ip -n {name} addr add {address}/24 dev eth0; ip -n {name} link set eth0 up; \
             ip -n {name} route add default via 10.99.0.254; \
             mkdir -p {0}/run/lock {0}/docker {0}/data {0}/lib {0}/cache",
            place.display()
        ));
        let log = File::create(place.join("dockerd.log")).unwrap();
        let script = format!(
            "mount --make-rprivate /; mkdir -p /var/lib/docker /data /var/lib/fanli /var/cache/fanli; \
             mount --bind {0}/run /run; mount --bind {0}/docker /var/lib/docker; mount --bind {0}/data /data; \
             mount --bind {0}/lib /var/lib/fanli; mount --bind {0}/cache /var/cache/fanli; hostname {name}; \
             exec dockerd --pidfile /run/dockerd.pid --exec-root /run/docker --data-root /var/lib/docker",
            place.display()
        );
        let daemon = Command::new("setsid")
            .args(["nsenter", &format!("--net=/var/run/netns/{name}"), "unshare", "-m", "-u", "sh", "-ec", &script])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Host { name, pid: daemon.id(), daemon }
    }

    fn wait(&mut self, index: usize) {
        let log = self.dir.path().join(&self.hosts[index].name).join("dockerd.log");
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let host = &mut self.hosts[index];
            // Until it has mounts of its own, a daemon of the machine may answer in its place.
            let named = host.sh("docker info --format '{{.Name}}' 2>/dev/null");
            if String::from_utf8_lossy(&named.stdout).trim() == host.name {
                break;
            }
            let gone = host.daemon.try_wait().unwrap().is_some();
            assert!(
                !gone && Instant::now() < deadline,
                "dockerd does not come up: {}",
                std::fs::read_to_string(&log).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        self.hosts[index].busybox("fanli/example:1", "one");
    }

    /// A place that every host sees at the same path.
    #[allow(dead_code)]
    pub fn shared(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// Gives a host a second network card, `eth1`, into the same switch, without an address.
    pub fn second_card(&self, host: &Host) {
        let script = format!(
            "ip link add q{0} type veth peer name eth1 netns {0}; ip link set q{0} master br0 up; \
             nsenter -t {0} -n ip link set eth1 up",
            host.pid
        );
        let done = self.on_switch(&script);
        assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// Runs a script in the switch's namespace, which has 10.99.0.254.
    pub fn on_switch(&self, script: &str) -> Output {
        let net = format!("--net=/var/run/netns/{}sw", self.name);
        Command::new("nsenter").args([&net, "sh", "-ec", script]).output().unwrap()
    }
}

impl Host {
    /// Runs a script inside the host.
    pub fn sh(&self, script: &str) -> Output {
        let pid = self.pid.to_string();
        Command::new("nsenter").args(["-t", &pid, "-m", "-n", "-u", "sh", "-ec", script]).output().unwrap()
    }

    /// The output of a script that must work.
    pub fn must(&self, script: &str) -> String {
        let done = self.sh(script);
        let error = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{script}: {error}");
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    pub fn drive(&self) -> Drive {
        Drive::new(self.pid)
    }

    /// Imports a small image; `mark` makes its ID another one.
    pub fn busybox(&self, image: &str, mark: &str) {
        self.must(&format!(
            "d=$(mktemp -d); mkdir -p $d/bin $d/etc $d/tmp $d/www; cp /bin/busybox $d/bin/; echo {mark} > $d/www/index.html; \
             for applet in sh sleep cat ip httpd ping wget env id hostname true false echo; do ln -s busybox $d/bin/$applet; done; \
             echo root:x:0:0:root:/:/bin/sh > $d/etc/passwd; \
             tar -C $d -c . | docker import - {image} >/dev/null; rm -rf $d"
        ));
    }
}
