//! The address book under many controllers that are killed, over a file and over an etcd cluster whose members come and go.

#[path = "../book/suite.rs"]
pub(crate) mod suite;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::chance::{Chance, moments, soak};
use fanli::book::etcd::EtcdStore;
use fanli::book::redb::FileStore;
use fanli::book::{Asked, Book, Bound, Candidates, Entry, Place, Refused, State, Store, open};
use fanli::failure::Failure;
use serde::{Deserialize, Serialize};

const WORKER: &str = "FANLI_BOOK_WORKER";
const NET: &str = "web-lan";

/// How many are at it at once.
const CONTROLLERS: usize = 16;

/// How many addresses they bind all together.
fn allocations() -> usize {
    moments(1_000, 10_000)
}

/// Members of etcd on 127.0.0.1; they end with this value, and with this thread.
pub(crate) struct Cluster {
    folder: tempfile::TempDir,
    base: u16,
    members: Vec<Option<Child>>,
}

impl Cluster {
    pub(crate) fn start(size: u16, base: u16) -> Self {
        // In memory: members are killed here, not machines, and three of them on one disk wait for each other's fsync.
        let folder = tempfile::Builder::new().prefix("fanli-fbk").tempdir_in("/dev/shm").unwrap();
        let mut cluster = Self { folder, base, members: Vec::new() };
        for at in 0..size {
            cluster.members.push(None);
            let _ = at;
        }
        for at in 0..cluster.members.len() {
            cluster.raise(at);
        }
        for at in 0..cluster.members.len() {
            cluster.healthy(at);
        }
        cluster
    }

    pub(crate) fn client(&self, at: usize) -> String {
        format!("http://127.0.0.1:{}", self.base + u16::try_from(at).unwrap())
    }

    fn peer(&self, at: usize) -> String {
        format!("http://127.0.0.1:{}", self.base + 50 + u16::try_from(at).unwrap())
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        (0..self.members.len()).map(|at| self.client(at)).collect()
    }

    fn raise(&mut self, at: usize) {
        let all: Vec<String> = (0..self.members.len()).map(|at| format!("m{at}={}", self.peer(at))).collect();
        let log = self.folder.path().join(format!("m{at}.log"));
        let log = File::options().create(true).append(true).open(log).unwrap();
        let (client, peer, data) = (self.client(at), self.peer(at), self.folder.path().join(format!("m{at}")));
        let (client, peer) = (client.as_str(), peer.as_str());
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "etcd", "--name", &format!("m{at}"), "--data-dir"])
            .arg(data)
            .args(["--listen-client-urls", client, "--advertise-client-urls", client])
            .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
            .args(["--initial-cluster", &all.join(","), "--initial-cluster-token", &format!("fbk{}", self.base)])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.members[at] = Some(child);
    }

    /// Waits until a member says that it is well.
    fn healthy(&self, at: usize) {
        let start = Instant::now();
        while !self.well(at) {
            let log = std::fs::read_to_string(self.folder.path().join(format!("m{at}.log"))).unwrap();
            let last: Vec<&str> = log.lines().rev().take(5).collect();
            assert!(start.elapsed() < Duration::from_secs(90), "member {at} does not come up: {last:#?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn well(&self, at: usize) -> bool {
        use std::io::Read as _;
        let address = self.client(at).replace("http://", "").parse().unwrap();
        let ask = || -> std::io::Result<String> {
            let mut stream = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
            stream.set_read_timeout(Some(Duration::from_secs(3)))?;
            write!(stream, "GET /health HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().is_ok_and(|answer| answer.contains("\"health\":\"true\""))
    }

    pub(crate) fn signal(&self, at: usize, signal: &str) {
        let pid = self.members[at].as_ref().unwrap().id().to_string();
        let done = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(done.success(), "{signal} {at}");
    }

    fn reap(&mut self, at: usize) {
        self.members[at].take().unwrap().wait().unwrap();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.members.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn etcd_does_what_every_store_must() {
    let cluster = Cluster::start(1, 23110);
    let endpoints = cluster.endpoints();
    suite::conformance(&|| Box::new(EtcdStore::new(&endpoints, "/fanli/suite").unwrap()));
    // Two prefixes are two books.
    let other = EtcdStore::new(&endpoints, "/fanli/suite2").unwrap();
    assert_eq!(other.id().unwrap(), None);
}

#[test]
fn a_member_that_is_down_is_passed_over_and_another_store_is_seen() {
    let cluster = Cluster::start(1, 23120);
    let endpoints = ["http://127.0.0.1:23129".to_owned(), cluster.client(0), "http://127.0.0.1:23128".to_owned()];
    for round in 0..6 {
        let book = Book::new(Box::new(EtcdStore::new(&endpoints, "/fanli/over").unwrap()), "tests");
        let pool = Candidates::addresses("10.71.0.1".parse().unwrap(), "10.71.0.1".parse().unwrap());
        assert_eq!(book.claim(NET, &[Asked::slot("web", 1)], &pool).unwrap().len(), 1, "{round}");
    }
    // Another format is refused, and so is a store that was emptied under a run.
    let store = EtcdStore::new(&endpoints, "/fanli/over").unwrap();
    let entry = store.all().unwrap().entries.remove(0);
    let write =
        fanli::book::Write { spot: "10.71.0.9".parse().unwrap(), owner: None, expect: 0, record: Some(entry.record) };
    let free = fanli::book::Write {
        record: Some(fanli::book::Record { owner: None, ..write.record.clone().unwrap() }),
        ..write
    };
    assert!(matches!(store.commit(std::slice::from_ref(&free)).unwrap(), fanli::book::Commit::Done(_)));
    put(&cluster, "/fanli/over/id", "another");
    let failure = store.commit(std::slice::from_ref(&free)).unwrap_err();
    assert!(failure.to_string().contains("is not the one that this run began with"), "{failure}");
    put(&cluster, "/fanli/over/format", "99");
    let failure = EtcdStore::new(&endpoints, "/fanli/over").unwrap().id().unwrap_err();
    assert!(failure.to_string().contains("has format 99; this fanli knows format 1"), "{failure}");
}

fn put(cluster: &Cluster, key: &str, value: &str) {
    use base64::Engine as _;
    let coded = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let body = format!(r#"{{"key":"{}","value":"{}"}}"#, coded(key), coded(value));
    let answer = ureq::post(format!("{}/v3/kv/put", cluster.client(0))).send(body.as_bytes()).unwrap();
    assert_eq!(answer.status().as_u16(), 200);
}

/// Asks etcd's gateway.
pub(crate) fn ask(cluster: &Cluster, path: &str, body: &str) -> String {
    let mut answer = ureq::post(format!("{}/v3/{path}", cluster.client(0))).send(body.as_bytes()).unwrap();
    assert_eq!(answer.status().as_u16(), 200, "{path}");
    answer.body_mut().read_to_string().unwrap()
}

#[test]
fn a_play_over_etcd_with_a_login() {
    let cluster = Cluster::start(1, 23130);
    let project = tempfile::tempdir().unwrap();
    let text = r#"
store {
  etcd   = ["ENDPOINT"]
  prefix = "/fanli/shop/{{ env }}"
}
hosts docker {
  host "fbk1" { connection = local }
}
network "lan" {
  subnet = 10.71.0.0/24
  pool   = 10.71.0.10 - 10.71.0.14
}
nodes web {
  count   = 2
  on      = hosts.docker
  network = "lan"
  name    = "web{{ node.address | octets(4) }}"
}
play "pages" on nodes.web {
  file "{{ folder }}/{{ node.name }}" { content = "x" }
}
vars { folder = "FOLDER" }
"#;
    let text = text.replace("ENDPOINT", &cluster.client(0)).replace("FOLDER", project.path().to_str().unwrap());
    std::fs::write(project.path().join("main.fp"), text).unwrap();
    let fanli = |arguments: &[&str], login: Option<&str>| {
        let mut command = Command::new(crate::common::fanli());
        command.args(arguments).current_dir(project.path()).env_clear().env("PATH", "/usr/bin:/bin");
        let login = login.map(|password| [("FANLI_ETCD_USER", "root"), ("FANLI_ETCD_PASSWORD", password)]);
        let output = command.envs(login.into_iter().flatten()).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    };
    let play = ["play", "main.fp", "--state-dir", project.path().join("state").to_str().unwrap()].map(str::to_owned);
    let play: Vec<&str> = play.iter().map(String::as_str).collect();
    let (code, said) = fanli(&play, None);
    assert_eq!(code, 0, "{said}");
    assert!(project.path().join("web011").exists() && !project.path().join(".fanli").exists());
    ask(&cluster, "auth/user/add", r#"{"name":"root","password":"right"}"#);
    ask(&cluster, "auth/user/grant", r#"{"user":"root","role":"root"}"#);
    ask(&cluster, "auth/enable", "{}");
    let (code, said) = fanli(&play, Some("right"));
    assert!(code == 0 && said.contains("nothing to do"), "{said}");
    let (code, said) = fanli(&["ip", "reserve", "10.71.0.12", "main.fp"], Some("right"));
    assert_eq!((code, said.as_str()), (0, "10.71.0.12: 1 reserved in `lan`\n"));
    let (code, said) = fanli(&["ip", "list", "main.fp", "--json"], Some("right"));
    assert!(code == 0 && said.matches("\"address\"").count() == 3, "{said}");
    for login in [None, Some("wrong")] {
        let (code, said) = fanli(&["ip", "list", "main.fp"], login);
        assert!(code == 1 && said.contains("refuses the login") && !said.contains("wrong"), "{login:?}: {said}");
        let (code, said) = fanli(&play, login);
        assert!(code == 2 && said.contains("refuses the login"), "{login:?}: {said}");
    }
}

/// What a controller is told.
#[derive(Serialize, Deserialize)]
struct Job {
    number: u64,
    seed: u64,
    file: Option<PathBuf>,
    endpoints: Vec<String>,
    log: PathBuf,
    stop: PathBuf,
}

impl Job {
    fn store(&self) -> Result<Box<dyn Store>, Failure> {
        let place = match &self.file {
            Some(path) => Place::File(path.clone()),
            None => Place::Etcd { endpoints: self.endpoints.clone(), prefix: "/fanli/many".to_owned() },
        };
        open(&place, &format!("w{}", self.number))
    }
}

/// 10.71.64.0/18 without its first and last addresses.
fn pool() -> Candidates {
    Candidates::addresses("10.71.64.1".parse().unwrap(), "10.71.127.254".parse().unwrap())
}

/// One controller, as long as nobody kills it. Does nothing unless a test started it.
#[test]
fn controller() {
    let Ok(job) = std::env::var(WORKER) else { return };
    let job: Job = serde_json::from_str(&job).unwrap();
    let mut log = File::options().create(true).append(true).open(&job.log).unwrap();
    // One write for each line: a line is there whole, or not.
    let mut say = |line: String| log.write_all(format!("{line}\n").as_bytes()).unwrap();
    let mut chance = Chance::of(job.seed ^ job.number.wrapping_mul(7919));
    let run = format!("w{}", job.number);
    let book = Book::new(job.store().unwrap(), &run).reserving_for(Duration::from_secs(20));
    let mut next = 0;
    let mut mine: Vec<Entry> = Vec::new();
    while !job.stop.exists() {
        // As many as a play with some dozens of nodes asks for at once.
        let count = 1 + chance.below(40);
        // Some owners are everybody's; the others are this one's, but their first candidates are everybody's.
        let asked: Vec<Asked> = if chance.below(10) == 0 {
            let first = chance.below(60);
            (first..first + count).map(|index| Asked::slot("shared", index + 1)).collect()
        } else {
            let first = next;
            next += count;
            let slot = |index: u64| Asked {
                start: u128::from((job.number * 61 + index * 3) % 9000),
                ..Asked::slot(&run, index + 1)
            };
            (first..first + count).map(slot).collect()
        };
        let done = book.claim(NET, &asked, &pool()).and_then(|entries| {
            let fresh: Vec<bool> = entries.iter().map(|entry| entry.record.state != State::Bound).collect();
            let bound = Bound { node: None, host: Some(run.clone()), mac: None };
            let with: Vec<(Entry, Bound)> = entries.into_iter().map(|entry| (entry, bound.clone())).collect();
            Ok((book.bind(&with)?, fresh))
        });
        match done {
            Ok((entries, fresh)) => {
                for (entry, fresh) in entries.into_iter().zip(fresh) {
                    let owner = entry.record.owner.clone().unwrap();
                    if fresh {
                        say(format!("bound {owner} {} {}", entry.record.spot, entry.revision));
                    }
                    if !owner.starts_with("shared") {
                        mine.push(entry);
                    }
                }
            }
            // Another controller was faster, or this one stood still for too long.
            Err(Refused::Lost(_)) => {}
            Err(other) => {
                say(format!("error {other}"));
                return;
            }
        }
        if chance.below(12) == 0 && !mine.is_empty() {
            let at = usize::try_from(chance.below(mine.len() as u64)).unwrap();
            let entry = mine.swap_remove(at);
            say(format!("releasing {} {}", entry.record.owner.as_ref().unwrap(), entry.record.spot));
            match book.release(&entry, Duration::ZERO) {
                Ok(true) => {}
                Ok(false) => return say(format!("error {} is not what it was", entry.record.spot)),
                Err(failure) => return say(format!("error {failure}")),
            }
        }
    }
}

struct Crowd {
    folder: tempfile::TempDir,
    file: Option<PathBuf>,
    endpoints: Vec<String>,
    seed: u64,
    children: Vec<Child>,
    number: u64,
    killed: usize,
}

impl Crowd {
    fn start(file: Option<&Path>, endpoints: &[String], seed: u64) -> Self {
        let mut crowd = Self {
            folder: tempfile::tempdir().unwrap(),
            file: file.map(Path::to_owned),
            endpoints: endpoints.to_vec(),
            seed,
            children: Vec::new(),
            number: 0,
            killed: 0,
        };
        for _ in 0..CONTROLLERS {
            let child = crowd.spawn();
            crowd.children.push(child);
        }
        crowd
    }

    fn spawn(&mut self) -> Child {
        self.number += 1;
        let job = Job {
            number: self.number,
            seed: self.seed,
            file: self.file.clone(),
            endpoints: self.endpoints.clone(),
            log: self.folder.path().join(format!("w{}.log", self.number)),
            stop: self.folder.path().join("stop"),
        };
        Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "book::controller", "--nocapture", "--test-threads=1"])
            .env(WORKER, serde_json::to_string(&job).unwrap())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Kills one at any moment; another one takes its place.
    fn kill_one(&mut self, chance: &mut Chance) {
        let at = usize::try_from(chance.below(self.children.len() as u64)).unwrap();
        self.children[at].kill().unwrap();
        self.children[at].wait().unwrap();
        self.killed += 1;
        let child = self.spawn();
        self.children[at] = child;
    }

    fn lines(&self) -> Vec<String> {
        let logs = (1..=self.number).map(|number| self.folder.path().join(format!("w{number}.log")));
        let texts: Vec<String> = logs.filter_map(|log| std::fs::read_to_string(log).ok()).collect();
        texts.iter().flat_map(|text| text.lines()).map(str::to_owned).collect()
    }

    fn bound(&self) -> usize {
        let lines = self.lines();
        if let Some(error) = lines.iter().find(|line| line.starts_with("error")) {
            panic!("a controller failed: {error}");
        }
        lines.iter().filter(|line| line.starts_with("bound")).count()
    }

    /// Lets everybody come to an end.
    fn end(&mut self) {
        File::create(self.folder.path().join("stop")).unwrap();
        for child in &mut self.children {
            let status = child.wait().unwrap();
            assert!(status.success(), "a controller ended with {status}");
        }
    }

    /// What was told to a controller is what stands there, once.
    fn check(&self, store: &dyn Store) {
        let entries = suite::sound(store);
        let of_owner: BTreeMap<&str, &Entry> =
            entries.iter().map(|entry| (entry.record.owner.as_deref().unwrap(), entry)).collect();
        assert_eq!(of_owner.len(), entries.len(), "an owner has two");
        let lines = self.lines();
        let words: Vec<Vec<&str>> = lines.iter().map(|line| line.split(' ').collect()).collect();
        let released: BTreeSet<&str> = words.iter().filter(|line| line[0] == "releasing").map(|line| line[1]).collect();
        let (mut told, mut spots, mut revisions) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        for line in words.iter().filter(|line| line[0] == "bound" && !released.contains(line[1])) {
            let (owner, spot) = (line[1], line[2]);
            // Two that bound the same shared owner are told the same.
            let before = told.insert(owner, spot);
            assert!(before.is_none_or(|before| before == spot), "{owner} was given {before:?} and {spot}");
            assert!(before.is_some() || spots.insert(spot), "{spot} was given twice");
            revisions.insert(line[3]);
        }
        for (owner, spot) in &told {
            let entry = of_owner.get(owner).unwrap_or_else(|| panic!("{owner} was told {spot}, and it is gone"));
            assert_eq!((entry.record.spot.to_string().as_str(), entry.record.state), (*spot, State::Bound), "{owner}");
        }
        assert!(revisions.len() > if soak() { 100 } else { 20 }, "{} commits", revisions.len());
        eprintln!(
            "{} bound, {} owners told and kept, {} released, {} records, {} controllers killed",
            words.iter().filter(|line| line[0] == "bound").count(),
            told.len(),
            released.len(),
            entries.len(),
            self.killed
        );
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// How long a crowd may take: a limit for a test that hangs, not a measure.
const LONGEST: Duration = Duration::from_secs(1500);

#[test]
fn sixteen_controllers_share_a_file() {
    let mut chance = Chance::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("book.redb");
    let start = Instant::now();
    let mut crowd = Crowd::start(Some(&path), &[], chance.next());
    let store = FileStore::new(&path, "tests");
    let most = allocations();
    while crowd.bound() < most {
        assert!(start.elapsed() < LONGEST, "only {} bound", crowd.bound());
        std::thread::sleep(Duration::from_millis(200 + chance.below(1500)));
        crowd.kill_one(&mut chance);
        if chance.below(8) == 0 {
            suite::sound(&store);
        }
    }
    crowd.end();
    eprintln!("a file: {} bound in {:?}", crowd.bound(), start.elapsed());
    crowd.check(&store);
}

#[test]
fn sixteen_controllers_share_a_cluster_whose_members_come_and_go() {
    let mut chance = Chance::new();
    let mut cluster = Cluster::start(3, 23210);
    let endpoints = cluster.endpoints();
    let start = Instant::now();
    let mut crowd = Crowd::start(None, &endpoints, chance.next());
    let store = EtcdStore::new(&endpoints, "/fanli/many").unwrap();
    let mut done: BTreeMap<&str, usize> = BTreeMap::new();
    let pause = |chance: &mut Chance, crowd: &mut Crowd, most: u64| {
        for _ in 0..=chance.below(most) {
            std::thread::sleep(Duration::from_millis(200 + chance.below(800)));
            crowd.kill_one(chance);
        }
    };
    // Members are troubled at least so often, however fast the addresses go.
    let most = allocations();
    while crowd.bound() < most || done.len() < 4 {
        assert!(start.elapsed() < LONGEST, "only {} bound; {done:?}", crowd.bound());
        let at = usize::try_from(chance.below(3)).unwrap();
        match chance.below(4) {
            0 => {
                *done.entry("stopped").or_default() += 1;
                cluster.signal(at, "-TERM");
                cluster.reap(at);
                pause(&mut chance, &mut crowd, 3);
                cluster.raise(at);
            }
            1 => {
                *done.entry("killed").or_default() += 1;
                cluster.signal(at, "-KILL");
                cluster.reap(at);
                pause(&mut chance, &mut crowd, 3);
                cluster.raise(at);
            }
            2 => {
                *done.entry("frozen").or_default() += 1;
                cluster.signal(at, "-STOP");
                pause(&mut chance, &mut crowd, 8);
                cluster.signal(at, "-CONT");
            }
            _ => {
                // Two of three: nobody can be given anything meanwhile, and nobody fails.
                *done.entry("no majority").or_default() += 1;
                let other = (at + 1) % 3;
                cluster.signal(at, "-STOP");
                cluster.signal(other, "-STOP");
                pause(&mut chance, &mut crowd, 3);
                cluster.signal(at, "-CONT");
                cluster.signal(other, "-CONT");
            }
        }
        for at in 0..3 {
            cluster.healthy(at);
        }
        suite::sound(&store);
        pause(&mut chance, &mut crowd, 2);
    }
    crowd.end();
    eprintln!("etcd: {} bound in {:?}; members {done:?}", crowd.bound(), start.elapsed());
    crowd.check(&store);
}
