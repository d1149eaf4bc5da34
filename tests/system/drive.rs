//! Runs tasks of any kind inside another host's namespaces: this test binary starts itself there.
//!
//! What the engine does in a run is done here by hand: observe, compare, apply, observe again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fanli::change::{self, Change};
use fanli::failure::Failure;
use fanli::resource::kinds::Kind;
use fanli::resource::{Nature, Resource};
use fanli::system::{Actuator, BlobFuture, BlobSource, Probe};
use fanli::value::{Digest, Map, Value};
use serde::{Deserialize, Serialize};

const REQUEST: &str = "FANLI_DRIVE_REQUEST";

/// One task for a host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Task {
    pub kind: String,
    pub args: Map,
}

#[derive(Serialize, Deserialize)]
struct Request {
    tasks: Vec<Task>,
    apply: bool,
    blobs: Vec<(Digest, Vec<u8>)>,
    state_dir: String,
    threads: usize,
}

/// What became of a task.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub change: Option<Change>,
    pub failure: Option<Failure>,
    pub output: Map,
    pub progress: Vec<String>,
    pub observe_us: u64,
    pub apply_us: u64,
    /// What a second look still finds different.
    pub left: Option<Change>,
}

impl Report {
    /// The names of the fields that differ, in order. Fails when the task failed.
    pub fn fields(&self) -> Vec<String> {
        assert!(self.failure.is_none(), "task failed: {}", self.failure.as_ref().unwrap());
        self.change.iter().flat_map(|change| change.fields.iter().map(|field| field.field.clone())).collect()
    }

    pub fn no_change(&self) {
        assert!(self.failure.is_none(), "task failed: {}", self.failure.as_ref().unwrap());
        assert!(self.change.is_none(), "changes: {:?}", self.change);
    }

    pub fn failed(&self) -> &Failure {
        self.failure.as_ref().unwrap_or_else(|| panic!("did not fail: {:?}", self.change))
    }
}

struct Blobs(BTreeMap<Digest, Arc<[u8]>>);

impl BlobSource for Blobs {
    fn get(&self, digest: Digest) -> BlobFuture<'_> {
        Box::pin(async move { self.0.get(&digest).cloned().ok_or_else(|| Failure::new("no such blob")) })
    }
}

/// A task in short.
pub fn task(kind: &str, args: impl IntoIterator<Item = (&'static str, Value)>) -> Task {
    Task { kind: kind.to_owned(), args: args.into_iter().map(|(name, value)| (name.to_owned(), value)).collect() }
}

/// How tasks are run.
#[derive(Clone, Debug)]
pub struct Drive {
    /// The process whose namespaces they run in.
    pub pid: u32,
    pub apply: bool,
    pub blobs: Vec<(Digest, Vec<u8>)>,
    pub state_dir: String,
    /// A program in front, such as strace with its arguments.
    pub wrap: Vec<String>,
    /// Whether they run in the host's network, or in this machine's own, which leads to a mirror.
    pub own_network: bool,
    /// Whether they see the host's processes only.
    pub own_processes: bool,
    /// Threads of its runtime.
    pub threads: usize,
}

impl Drive {
    pub fn new(pid: u32) -> Self {
        Self {
            pid,
            apply: true,
            blobs: Vec::new(),
            state_dir: "/var/lib/fanli".to_owned(),
            wrap: Vec::new(),
            own_network: true,
            own_processes: false,
            threads: 2,
        }
    }

    /// Runs the tasks; one that is killed in the middle gives `None`.
    pub fn try_run(&self, tasks: &[Task]) -> Option<Vec<Report>> {
        let (apply, blobs) = (self.apply, self.blobs.clone());
        let request =
            Request { tasks: tasks.to_vec(), apply, blobs, state_dir: self.state_dir.clone(), threads: self.threads };
        let file = tempfile::NamedTempFile::new_in("/tmp").unwrap();
        serde_json::to_writer(&file, &request).unwrap();
        let exe = std::env::current_exe().unwrap();
        let pid = self.pid.to_string();
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &pid, "-m", "-u"])
            .args(self.own_network.then_some("-n"))
            .args(self.own_processes.then_some("-p"))
            .arg("--")
            .args(&self.wrap)
            .arg(exe);
        command.args(["--exact", "drive::inside", "--nocapture", "--test-threads=1"]);
        let done = command.env(REQUEST, file.path()).output().unwrap();
        let answer = std::fs::read(file.path().with_extension("answer")).ok();
        let _ = std::fs::remove_file(file.path().with_extension("answer"));
        let Some(answer) = answer else {
            let text = String::from_utf8_lossy(&done.stderr).into_owned();
            assert!(!self.wrap.is_empty(), "no answer: {text}{}", String::from_utf8_lossy(&done.stdout));
            return None;
        };
        Some(serde_json::from_slice(&answer).unwrap())
    }

    pub fn run(&self, tasks: &[Task]) -> Vec<Report> {
        self.try_run(tasks).expect("the helper was killed")
    }

    pub fn one(&self, task: &Task) -> Report {
        self.run(std::slice::from_ref(task)).remove(0)
    }
}

/// Does nothing unless [`Drive`] started it.
#[test]
fn inside() {
    let Ok(path) = std::env::var(REQUEST) else { return };
    let request: Request = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(request.threads).enable_all().build().unwrap();
    let home = std::fs::read_link("/proc/self/ns/net").unwrap();
    let reports = runtime.block_on(async {
        let mut reports = Vec::new();
        for task in &request.tasks {
            reports.push(run(task, &request).await);
        }
        reports
    });
    assert_eq!(strayed("self", &home), None, "a thread was left in another namespace");
    let answer = std::path::Path::new(&path).with_extension("answer");
    std::fs::write(answer, serde_json::to_vec(&reports).unwrap()).unwrap();
}

/// A thread of the process that is, and stays, in another network namespace than `home`. One that has been joined is still shown
/// there for a moment: the kernel tells who waits before it takes the thread off the list.
pub fn strayed(process: &str, home: &Path) -> Option<PathBuf> {
    let place =
        |thread: std::io::Result<std::fs::DirEntry>| std::fs::read_link(thread.ok()?.path().join("ns/net")).ok();
    let look = || {
        let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
        threads.filter_map(place).find(|place| place != home)
    };
    for _ in 0..100 {
        look()?;
        std::thread::sleep(Duration::from_millis(10));
    }
    look()
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap()
}

async fn run(task: &Task, request: &Request) -> Report {
    let said = Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = Arc::clone(&said);
    let blobs = Blobs(request.blobs.iter().map(|(digest, bytes)| (*digest, bytes.clone().into())).collect());
    let progress = move |text: &str, _| sink.lock().unwrap().push(text.to_owned());
    let probe = Probe::new(Arc::new(blobs), Arc::new(progress), request.state_dir.clone().into());
    let mut report = Report {
        change: None,
        failure: None,
        output: Map::new(),
        progress: Vec::new(),
        observe_us: 0,
        apply_us: 0,
        left: None,
    };
    if let Err(failure) = steps(task, request.apply, &probe, &mut report).await {
        report.failure = Some(failure);
    }
    report.progress.clone_from(&said.lock().unwrap());
    report
}

async fn steps(task: &Task, apply: bool, probe: &Probe, report: &mut Report) -> Result<(), Failure> {
    let kind = Kind::build(&task.kind, task.args.clone())
        .map_err(|errors| Failure::new(format!("bad arguments: {errors:?}")))?;
    if task.kind == "file" {
        // What a run does at the beginning of a stage.
        probe.learn_container_mounts().await?;
    }
    let started = Instant::now();
    let observed = kind.observe(probe).await?;
    report.observe_us = micros(started);
    report.output = observed.output;
    report.change = change::between(&kind.desired(), &observed.state);
    if !apply {
        return Ok(());
    }
    let done = apply_and_look(&kind, task, probe, report).await;
    let hands = Actuator::new(probe);
    let done = match done {
        Ok(false) => return Ok(()),
        Ok(true) => kind.confirm(&hands).await,
        Err(failure) => Err(failure),
    };
    match done {
        Ok(()) => Ok(()),
        Err(failure) => Err(kind.put_back(kind.explain(failure, probe).await, &hands).await),
    }
}

/// Whether there is something to confirm.
async fn apply_and_look(kind: &Kind, task: &Task, probe: &Probe, report: &mut Report) -> Result<bool, Failure> {
    let Some(change) = &report.change else { return kind.is_open(probe).await };
    let started = Instant::now();
    report.output = kind.apply(change, &Actuator::new(probe)).await?;
    report.apply_us = micros(started);
    let after = kind.observe(probe).await?;
    report.left = change::between(&kind.desired(), &after.state);
    for (name, value) in after.output {
        report.output.entry(name).or_insert(value);
    }
    let action = kind.nature() == Nature::Action { verify: false };
    match &report.left {
        Some(left) if !action => Err(Failure::new(format!("{} did not converge: {left:?}", task.kind))),
        _ => Ok(true),
    }
}
