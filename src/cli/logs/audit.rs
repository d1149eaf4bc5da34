//! `fanli logs audit`: whether every log file is accounted for, from its seal to its copy; for people and for a monitor.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::super::asking::{Ended, FORKS, Reaching, as_json, as_text, code_of, hosts_of};
use super::super::{complain, exit, print, request};
use super::read::{plain, time};
use crate::coordinator::ask::log_audit;
use crate::logs::audit::{Amount, Audit, Copies, Happened, Scope, Wrong};
use crate::report::harmless;
use crate::resource::log_audit::Audits;
use crate::visible::{count, rough_size};

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The playbook whose hosts are asked over ssh; or folders on this host. Without either: the folders that
    /// `logs` tasks have declared on this host
    #[arg(value_name = "FILE|FOLDER")]
    from: Vec<PathBuf>,

    #[command(flatten)]
    given: request::Given,

    /// Take only files whose period ended at this time or later: `30d` ago, `15:00` today, `2026-11-30`
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<i64>,

    /// Take only this file, and tell all that happened to it: a name as `fanli logs grep --json` gives it
    #[arg(long, value_name = "NAME")]
    file: Option<String>,

    /// Print JSON; with a playbook a map from the host's name to that, or to `unknown` with the reason
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    reach: Reaching,
}

pub(super) fn run(args: &Args) -> ExitCode {
    let are_folders = args.from.iter().all(|path| path.is_dir());
    match args.from.as_slice() {
        [file] if !are_folders => of_playbook(args, file.clone()),
        folders if are_folders => of_this_host(args, folders),
        _ => Err("give one playbook, or folders on this host".to_owned().into()),
    }
    .unwrap_or_else(|Ended(code)| code)
    .into()
}

impl Args {
    fn scope(&self) -> Result<Scope, String> {
        let ago = |at: i64| {
            let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(u64::try_from(at).unwrap_or(0)));
            at.and_then(|at| SystemTime::now().duration_since(at).ok()).ok_or("`--since` is in the future")
        };
        Ok(Scope { since: self.since.map(ago).transpose()?, segment: self.file.clone() })
    }

    /// Whether something was found that was asked for; says so where not.
    fn told<'a>(&self, mut folders: impl Iterator<Item = &'a Audit> + Clone) -> bool {
        let is_known = |audit: &Audit| !audit.events.is_empty() || !audit.findings.is_empty();
        match &self.file {
            None if folders.clone().next().is_none() => {
                complain("error: no folder of log files is declared: nothing was looked at");
            }
            Some(name) if !folders.any(is_known) => complain(&harmless(&format!("error: no file `{name}` is known"))),
            _ => return true,
        }
        false
    }
}

fn of_this_host(args: &Args, folders: &[PathBuf]) -> Result<u8, Ended> {
    if !args.given.is_empty() {
        return Err("`--env` and `--set` go with a playbook".to_owned().into());
    }
    let mut folders = plain(folders)?;
    folders.sort();
    folders.dedup();
    let found = Audits::look(&args.reach.probe(), &folders, &args.scope()?)?;
    print(&if args.json { format!("{:#}\n", json!(found)) } else { shown(&found) });
    let told = args.told(found.folders.iter());
    Ok(if told && found.folders.iter().all(Audit::is_good) { exit::OK } else { exit::FAILED })
}

fn of_playbook(args: &Args, file: PathBuf) -> Result<u8, Ended> {
    let hosts = hosts_of(&request::Playbook { file, given: args.given.clone() })?;
    let scope = args.scope()?;
    if std::io::stderr().is_terminal() {
        complain(&format!("all files of {} are read, which may take a while", count(hosts.len(), "host")));
    }
    let found = args.reach.ask::<_, Ended>(|reach| log_audit(hosts, scope, reach, FORKS))?;
    print(&if args.json { as_json(&found) } else { as_text(&found, shown) });
    let folders = || found.values().flatten().flat_map(|found| &found.folders);
    let good = args.told(folders()) && folders().all(Audit::is_good);
    Ok(code_of(&found, !good))
}

fn shown(found: &Audits) -> String {
    if found.folders.is_empty() {
        return "no `logs` task has declared a folder\n".to_owned();
    }
    found.folders.iter().map(folder_shown).collect()
}

fn folder_shown(audit: &Audit) -> String {
    let Audit {
        path,
        whole,
        writing,
        left,
        unsealed,
        dropped_lines,
        dropped_bytes,
        copies,
        events,
        findings,
        more_findings,
        trouble,
    } = audit;
    let mut text = format!("{}  {} intact", harmless(path), amount(*whole));
    for (number, what) in
        [(*writing, "being written"), (*left, "left by writers that were killed"), (*unsealed, "without a seal")]
    {
        if number > 0 {
            let _ = write!(text, "; {number} {what}");
        }
    }
    text.push('\n');
    if let Some(copies) = copies {
        text.push_str(&copies_shown(copies));
    }
    if *dropped_lines > 0 {
        let _ =
            writeln!(text, "  LOST     {} ({}) left out", count(*dropped_lines, "line"), rough_size(*dropped_bytes));
    }
    let mut last = "";
    for Happened { segment, at, event, detail } in events {
        if last != segment {
            last = segment;
            let _ = writeln!(text, "  {}", harmless(segment));
        }
        let _ = writeln!(text, "    {}", harmless(&format!("{at}  {event:7}  {detail}")));
    }
    for finding in findings {
        let word = match finding.wrong {
            Wrong::Changed => "CHANGED",
            Wrong::Gone => "GONE",
            Wrong::NoCopy => "NO COPY",
        };
        let _ = writeln!(text, "  {word:8} {}", harmless(&format!("{}: {}", finding.segment, finding.why)));
    }
    if *more_findings > 0 {
        let _ = writeln!(text, "  … and {more_findings} more");
    }
    for why in trouble {
        let _ = writeln!(text, "  wrong    {}", harmless(why));
    }
    text
}

fn copies_shown(copies: &Copies) -> String {
    let Copies { to, stored, found, waiting, removed, lost } = copies;
    let there = match found {
        None if stored.files == 0 => String::new(),
        None => ", not looked at".to_owned(),
        Some(found) if *found == stored.files => ", all there".to_owned(),
        Some(found) => format!(", {found} of them there"),
    };
    let mut text = format!("  copies   {} at {}{there}\n", amount(*stored), harmless(to));
    for (number, what) in [(waiting, "without a copy yet"), (removed, "removed by limits, once they had a copy")] {
        if number.files > 0 {
            let _ = writeln!(text, "           {} {what}", amount(*number));
        }
    }
    if lost.files > 0 {
        let _ = writeln!(text, "  LOST     {} removed by limits without a copy", amount(*lost));
    }
    text
}

fn amount(amount: Amount) -> String {
    format!("{} ({})", count(amount.files, "file"), count(amount.lines, "line"))
}
