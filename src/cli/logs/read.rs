//! `fanli logs cat`, `grep` and `tail`: lines of log files, of this host or of the nodes of a playbook.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ZonedDateTime};
use tokio::signal::unix::{SignalKind, signal};

use super::super::asking::{Ended, FORKS, Reaching, planned};
use super::super::play::{When, duration};
use super::super::{complain, exit, request};
use super::lines::{Label, Printer, Shape};
use crate::coordinator::read::{Asked, read};
use crate::event::Target;
use crate::logs::read::{Pattern, Query};
use crate::plan::{Arg, Connection, RunPlan};
use crate::resource::logs::{Logs, declared};
use crate::value::Value;

/// The most lines that `tail` begins with.
const MOST_LAST: u32 = 100_000;

/// Where lines are, and how they are printed.
#[derive(clap::Args, Debug)]
struct Source {
    /// The playbook, whose nodes are read over ssh; or folders on this host. Without either: the folders
    /// that `logs` tasks have declared on this host
    #[arg(value_name = "FILE|FOLDER")]
    from: Vec<PathBuf>,

    #[command(flatten)]
    given: request::Given,

    /// Take only these hosts and nodes: names or patterns, separated by commas; `!` leaves out
    #[arg(long, short, value_name = "PATTERN")]
    limit: Option<String>,

    /// Take only what stands below a directory of this name
    #[arg(long, value_name = "NAME")]
    site: Option<String>,

    /// Print lines as they are, without node and site
    #[arg(long)]
    bare: bool,

    /// Print an object for each line, with its time, host, node, site and file
    #[arg(long, conflicts_with = "bare")]
    json: bool,

    /// Use colour
    #[arg(long, default_value = "auto", value_name = "WHEN")]
    color: When,

    #[command(flatten)]
    reach: Reaching,
}

/// A stretch of time.
#[derive(clap::Args, Debug)]
struct Span {
    /// From this time on: `2h` ago, `15:00` today, `2026-11-30`, `2026-11-30T15:00`, or with an offset from UTC
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<i64>,

    /// Up to this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<i64>,
}

#[derive(clap::Args, Debug)]
pub(super) struct Cat {
    #[command(flatten)]
    from: Source,

    #[command(flatten)]
    span: Span,
}

#[derive(clap::Args, Debug)]
pub(super) struct Grep {
    /// What lines must match
    #[arg(value_name = "PATTERN", value_parser = pattern)]
    pattern: String,

    #[command(flatten)]
    from: Source,

    #[command(flatten)]
    span: Span,

    /// Take small and capital letters for the same
    #[arg(long, short)]
    ignore_case: bool,

    /// Print lines that do not match
    #[arg(long, short = 'v')]
    invert_match: bool,

    /// Go on with lines that are written from now on; earlier ones only with --since
    #[arg(long, short, conflicts_with = "until")]
    follow: bool,
}

#[derive(clap::Args, Debug)]
pub(super) struct Tail {
    #[command(flatten)]
    from: Source,

    /// How many lines
    #[arg(long, short = 'n', value_name = "N", default_value = "20", value_parser = clap::value_parser!(u32).range(..=i64::from(MOST_LAST)))]
    lines: u32,

    /// Go on with lines that are written from now on
    #[arg(long, short)]
    follow: bool,
}

impl Cat {
    pub(super) fn run(self) -> std::process::ExitCode {
        let Span { since, until } = self.span;
        self.from.read(&Query { since, until, ..Query::default() })
    }
}

impl Grep {
    pub(super) fn run(self) -> std::process::ExitCode {
        let Span { since, until } = self.span;
        let pattern = Pattern { text: self.pattern, ignore_case: self.ignore_case, invert: self.invert_match };
        self.from.read(&Query { since, until, pattern: Some(pattern), follow: self.follow, ..Query::default() })
    }
}

impl Tail {
    pub(super) fn run(self) -> std::process::ExitCode {
        let last = usize::try_from(self.lines).ok();
        self.from.read(&Query { last, follow: self.follow, ..Query::default() })
    }
}

fn pattern(text: &str) -> Result<String, String> {
    let pattern = Pattern { text: text.to_owned(), ignore_case: false, invert: false };
    pattern.compile().map(|_| text.to_owned()).map_err(|failure| failure.causes.join(": "))
}

/// Microseconds since 1970.
pub(super) fn time(text: &str) -> Result<i64, String> {
    let now = Timestamp::now();
    at(text, &now.to_zoned_datetime(TimeZone::system())).map(Timestamp::as_microsecond).ok_or_else(|| {
        "write how long ago (`30m`, `2h`, `1d`), or when: `15:00`, `2026-11-30`, `2026-11-30T15:00`, `2026-11-30T15:00:00Z`"
            .to_owned()
    })
}

fn at(text: &str, now: &ZonedDateTime) -> Option<Timestamp> {
    if let Ok(ago) = duration(text) {
        return now.timestamp().checked_sub(ago).ok();
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at);
    }
    let date = now.datetime().date();
    // A date alone reads as its first moment, a time alone as that of today.
    let local = match (text.parse::<DateTime>(), text.parse::<Date>(), text.parse::<Time>()) {
        (_, _, Ok(time)) if !text.contains('-') => DateTime::from_parts(date, time),
        (Ok(at), ..) => at,
        (_, Ok(date), _) => DateTime::from_parts(date, Time::midnight()),
        _ => return None,
    };
    now.time_zone().to_timestamp(local).ok()
}

impl Source {
    fn read(&self, query: &Query) -> std::process::ExitCode {
        self.do_read(query).unwrap_or_else(|Ended(code)| code).into()
    }

    fn do_read(&self, query: &Query) -> Result<u8, Ended> {
        // With all that is said of it: `(?u)` allows what the command line did not look at.
        let compiled = query.pattern.as_ref().map(Pattern::compile).transpose();
        compiled.map_err(|failure| failure.to_string())?;
        let query = Query { site: self.site.clone(), ..query.clone() };
        let (asked, labels) = self.asked(&query)?.into_iter().unzip();
        let shape = match (self.json, self.bare) {
            (true, _) => Shape::Json,
            (_, true) => Shape::Bare,
            _ => Shape::Labelled,
        };
        let mut printer = Printer::new(labels, shape, self.color, query.pattern.as_ref())?;
        let stopped = self.reach.ask::<_, Ended>(|reach| async {
            tokio::select! {
                () = read(asked, reach, FORKS, &mut printer) => None,
                code = signalled() => Some(code),
            }
        })?;
        Ok(stopped.unwrap_or_else(|| printer.code()))
    }

    /// What is read on each host, and what its folders are called.
    fn asked(&self, query: &Query) -> Result<Vec<(Asked, Vec<Label>)>, Ended> {
        let are_folders = self.from.iter().all(|path| path.is_dir());
        match self.from.as_slice() {
            [file] if !are_folders => {
                if file.is_file() && file.extension().is_none_or(|end| end != "fp") {
                    let shown = file.display();
                    let why = format!("{shown} is no playbook, whose name ends in .fp; of a log file give the folder");
                    return Err(why.into());
                }
                let playbook = request::Playbook { file: file.clone(), given: self.given.clone() };
                let part = request::Part::of(self.limit.clone());
                planned(&playbook, &part, |plan, _| of_plan(&plan, query))
            }
            folders if are_folders => {
                if !self.given.is_empty() || self.limit.is_some() {
                    return Err("`--env`, `--set` and `--limit` go with a playbook".to_owned().into());
                }
                let folders = if folders.is_empty() { self.declared()? } else { plain(folders)? };
                let alone = folders.len() == 1;
                let label = |path: &PathBuf| Label {
                    host: None,
                    node: None,
                    folder: path.display().to_string(),
                    shown: if alone { String::new() } else { path.display().to_string() },
                };
                let labels = folders.iter().map(label).collect();
                let connection = Connection::Local { r#become: false };
                let query = Query { folders, ..query.clone() };
                Ok(vec![(Asked { host: "this host".to_owned(), connection, query }, labels)])
            }
            several => {
                let odd = several.iter().find(|path| !path.is_dir()).map_or(Path::new(""), PathBuf::as_path);
                Err(format!("{} is no folder on this host; give one playbook, or folders", odd.display()).into())
            }
        }
    }

    /// The folders that `logs` tasks have declared on this host.
    fn declared(&self) -> Result<Vec<PathBuf>, Ended> {
        let declared: Vec<Logs> = declared(&self.reach.probe())?.into_iter().collect::<Result<_, _>>()?;
        if declared.is_empty() {
            return Err("no playbook or folder is given, and no `logs` task has declared one on this host"
                .to_owned()
                .into());
        }
        Ok(declared.iter().map(|logs| logs.path().to_owned()).collect())
    }
}

/// The whole paths of folders on this host, without links: whoever typed them may follow those.
pub(super) fn plain(folders: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    folders.iter().map(|path| path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))).collect()
}

/// The folders that a plan declares, for each host.
fn of_plan(plan: &RunPlan, query: &Query) -> Result<Vec<(Asked, Vec<Label>)>, Ended> {
    let mut asked = Vec::new();
    let mut late = BTreeSet::new();
    for run in &plan.hosts {
        let mut folders: BTreeMap<PathBuf, Label> = BTreeMap::new();
        let targets = run.plan.stages.iter().flat_map(|stage| &stage.targets);
        for (target, step) in targets.flat_map(|plan| plan.steps.iter().map(|step| (&plan.target, step))) {
            if step.kind != "logs" {
                continue;
            }
            match folder(&step.args) {
                Ok(Some(path)) => drop(folders.entry(path).or_insert_with_key(|path| label(target, path))),
                Ok(None) => {}
                Err(Late) => drop(late.insert(&step.at)),
            }
        }
        if folders.is_empty() {
            continue;
        }
        let (folders, labels) = folders.into_iter().unzip();
        let query = Query { folders, ..query.clone() };
        asked.push((Asked { host: run.plan.host.clone(), connection: run.connection.clone(), query }, labels));
    }
    for at in late {
        complain(&format!("warning: {at}: which folder this is is known only while a play runs; it is left out"));
    }
    if asked.is_empty() {
        return Err("no `logs` task of the playbook declares a folder on these hosts and nodes".to_owned().into());
    }
    Ok(asked)
}

/// It needs facts or results.
struct Late;

/// The folder of a `logs` task; `None` where it ends the keeping of one.
fn folder(args: &BTreeMap<String, Arg>) -> Result<Option<PathBuf>, Late> {
    let ready = args.iter().filter_map(|(name, arg)| match arg {
        Arg::Ready(value) => Some((name.as_str(), value)),
        Arg::Late(_) => None,
    });
    let ready: BTreeMap<&str, &Value> = ready.collect();
    if ready.get("state").is_some_and(|state| **state == Value::from("absent")) {
        return Ok(None);
    }
    match ready.get("folder") {
        Some(Value::Str(path)) => Ok(Some(Path::new(path).components().collect())),
        _ => Err(Late),
    }
}

fn label(target: &Target, path: &Path) -> Label {
    let shown = target.node.as_ref().unwrap_or(&target.host).clone();
    Label { host: Some(target.host.clone()), node: target.node.clone(), folder: path.display().to_string(), shown }
}

/// Waits for a signal that ends it, and gives the exit code.
async fn signalled() -> u8 {
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()), signal(SignalKind::hangup()));
    let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) = signals else { return std::future::pending().await };
    tokio::select! {
        _ = interrupt.recv() => exit::INTERRUPTED,
        _ = terminate.recv() => exit::TERMINATED,
        _ = hangup.recv() => exit::HUNG_UP,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let zone = TimeZone::get("Asia/Shanghai").unwrap();
        let now = "2026-11-30T08:03:12Z".parse::<Timestamp>().unwrap().to_zoned_datetime(zone);
        let of = |text: &str| at(text, &now).map(|at| at.to_string());
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(of("2h"), some("2026-11-30T06:03:12Z"));
        assert_eq!(of("1d"), some("2026-11-29T08:03:12Z"));
        assert_eq!(of("15:00"), some("2026-11-30T07:00:00Z"));
        assert_eq!(of("15:00:30"), some("2026-11-30T07:00:30Z"));
        assert_eq!(of("2026-11-30"), some("2026-11-29T16:00:00Z"));
        assert_eq!(of("2026-11-30T15:00"), some("2026-11-30T07:00:00Z"));
        assert_eq!(of("2026-11-30 15:00:01.5"), some("2026-11-30T07:00:01.5Z"));
        assert_eq!(of("2026-11-30T15:00:00Z"), some("2026-11-30T15:00:00Z"));
        assert_eq!(of("2026-11-30T15:00:00+01:00"), some("2026-11-30T14:00:00Z"));
        for odd in ["", "yesterday", "25:00", "2026-13-01", "now", "-2h"] {
            assert_eq!(of(odd), None, "{odd}");
        }
    }
}
