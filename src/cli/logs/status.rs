//! `fanli logs status`: what folders of log files hold, what waits for its copy, and what was lost; for people and for a monitor.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::super::asking::{Ended, FORKS, Reaching, as_json, as_text, code_of, hosts_of};
use super::super::play::duration;
use super::super::{exit, print, request};
use crate::calendar::utc;
use crate::coordinator::ask::log_folders;
use crate::logs::survey::{Copies, Survey};
use crate::report::harmless;
use crate::resource::log_folders::Folders;
use crate::visible::{count, rough_size};

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The playbook whose hosts are asked; this host itself without one
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,

    #[command(flatten)]
    given: request::Given,

    /// How long after the end of its period a file may be without a copy
    #[arg(long, value_name = "TIME", default_value = "6h", value_parser = duration)]
    max_lag: Duration,

    /// Print JSON; with a playbook a map from the host's name to that, or to `unknown` with the reason
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    reach: Reaching,
}

pub(super) fn run(args: Args) -> ExitCode {
    let lag = Lag { most: args.max_lag, now: SystemTime::now() };
    match args.file {
        Some(file) => of_playbook(&request::Playbook { file, given: args.given }, &args.reach, args.json, lag),
        None => of_this_host(&args, lag),
    }
    .unwrap_or_else(|Ended(code)| code)
    .into()
}

fn of_this_host(args: &Args, lag: Lag) -> Result<u8, Ended> {
    if !args.given.is_empty() {
        return Err("`--env` and `--set` go with a playbook".to_owned().into());
    }
    let found = Folders::look(&args.reach.probe())?;
    print(&if args.json { format!("{:#}\n", json!(found)) } else { shown(&found, lag) });
    Ok(if is_wrong(&found, lag) { exit::FAILED } else { exit::OK })
}

fn of_playbook(playbook: &request::Playbook, reaching: &Reaching, json: bool, lag: Lag) -> Result<u8, Ended> {
    let hosts = hosts_of(playbook)?;
    let found = reaching.ask::<_, Ended>(|reach| log_folders(hosts, reach, FORKS))?;
    print(&if json { as_json(&found) } else { as_text(&found, |found| shown(found, lag)) });
    let wrong = found.values().any(|one| one.as_ref().is_ok_and(|found| is_wrong(found, lag)));
    Ok(code_of(&found, wrong))
}

/// How late a copy may be.
#[derive(Clone, Copy)]
struct Lag {
    most: Duration,
    now: SystemTime,
}

impl Lag {
    fn is_over(self, copies: &Copies) -> bool {
        let end = copies.oldest.and_then(|oldest| u64::try_from(oldest).ok()).map(Duration::from_secs);
        let end = end.and_then(|end| SystemTime::UNIX_EPOCH.checked_add(end));
        end.is_some_and(|end| self.now.duration_since(end).is_ok_and(|late| late > self.most))
    }
}

fn is_wrong(found: &Folders, lag: Lag) -> bool {
    let is_late = |survey: &Survey| survey.copies.as_ref().is_some_and(|copies| lag.is_over(copies));
    found.folders.iter().any(|survey| !survey.trouble.is_empty() || survey.dropped_lines > 0 || is_late(survey))
}

fn shown(found: &Folders, lag: Lag) -> String {
    if found.folders.is_empty() {
        return "no `logs` task has declared a folder\n".to_owned();
    }
    found.folders.iter().map(|survey| folder_shown(survey, lag)).collect::<Vec<_>>().concat()
}

fn folder_shown(survey: &Survey, lag: Lag) -> String {
    let Survey { path, files, bytes, free, writing, dropped_lines, dropped_bytes, copies, trouble } = survey;
    let mut text = format!(
        "{}  {}, {}; {writing} being written; {} free on the disk\n",
        harmless(path),
        count(*files, "file"),
        rough_size(*bytes),
        rough_size(*free)
    );
    if let Some(copies) = copies {
        let to = harmless(&copies.to);
        let _ = match copies.oldest {
            None => writeln!(text, "  copies  all are stored at {to}"),
            Some(oldest) => writeln!(
                text,
                "  copies  {} ({}) without one at {to}, the oldest of {} UTC{}",
                count(copies.waiting, "file"),
                rough_size(copies.bytes),
                utc(u64::try_from(oldest).unwrap_or(0)),
                if lag.is_over(copies) { ": LATE" } else { "" }
            ),
        };
    }
    if *dropped_lines > 0 {
        let lines = count(*dropped_lines, "line");
        let _ = writeln!(text, "  LOST    {lines} ({}) left out in the last day", rough_size(*dropped_bytes));
    }
    for why in trouble {
        let _ = writeln!(text, "  wrong   {}", harmless(why));
    }
    text
}
