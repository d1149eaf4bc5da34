//! `fanli status`: what the watcher of a host does, and what is attached; of this host, or of all hosts of a playbook.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use super::asking::{Ended, FORKS, Reaching, as_json, as_text, code_of, hosts_of};
use super::{exit, print, request};
use crate::calendar::utc;
use crate::coordinator::ask::statuses;
use crate::failure::Context as _;
use crate::report::harmless;
use crate::resource::attachments::{Attachment, Condition, Watched};
use crate::resource::logs::Kept;
use crate::resource::refreshers::Refreshers;
use crate::resource::rollout::{OUT_HELP, OutSeen, Phase, Rollouts};
use crate::value::show_duration;
use crate::visible::{count as count_of, rough_size};

/// Tell whether the watcher of this host, or of a playbook's hosts, runs, and what is attached
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  fanli status                            on the host itself
  fanli status web-tier.fp --env lab      of every host of a playbook, from here
  fanli status web-tier.fp --env lab --json | jq '.lab1.running'

With a playbook nothing is changed and every host is asked over the same channel as a run uses. A
host that cannot be reached is unknown, and said so: exit code 5. Exits with 4 when something is
attached and no watcher runs, when something could not be plugged, when a slot was put back by the
host itself or is not as its rollout left it, when log files could not be kept, or when the
`fanli refresh` of a container has refused the configuration that stands there.")]
pub(super) struct Args {
    /// The playbook whose hosts are asked; this host itself without one
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,

    #[command(flatten)]
    given: request::Given,

    /// Print JSON; with a playbook a map from the host's name to that, or to `unknown` with the reason
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    reach: Reaching,
}

pub(super) fn run(args: Args) -> ExitCode {
    match args.file {
        Some(file) => of_playbook(&request::Playbook { file, given: args.given }, &args.reach, args.json),
        None => of_this_host(&args),
    }
    .unwrap_or_else(|Ended(code)| code)
    .into()
}

fn of_this_host(args: &Args) -> Result<u8, Ended> {
    if !args.given.is_empty() {
        return Err("`--env` and `--set` go with a playbook".to_owned().into());
    }
    let probe = args.reach.probe();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let watched = runtime.block_on(Watched::look(&probe))?;
    if args.json {
        print(&format!("{:#}\n", json!(watched)));
    } else {
        print(&shown(&watched));
    }
    Ok(if watched.is_wrong() { exit::FAILED } else { exit::OK })
}

fn of_playbook(playbook: &request::Playbook, reaching: &Reaching, json: bool) -> Result<u8, Ended> {
    let hosts = hosts_of(playbook)?;
    let found = reaching.ask::<_, Ended>(|reach| statuses(hosts, reach, FORKS))?;
    print(&if json {
        as_json(&found)
    } else {
        as_text(&found, |watched| shown(watched).lines().map(|line| harmless(line) + "\n").collect())
    });
    let wrong = found.values().any(|one| one.as_ref().is_ok_and(Watched::is_wrong));
    Ok(code_of(&found, wrong))
}

fn shown(watched: &Watched) -> String {
    let (status, runs) = (&watched.watcher, watched.running);
    let mut text = String::new();
    let _ = match (runs, status.pid) {
        (true, pid) => writeln!(
            text,
            "watcher     runs since {} UTC (process {pid}, fanli {})",
            utc(status.started),
            status.version
        ),
        (false, 0) => writeln!(text, "watcher     has never run on this host: `fanli doc watcher`"),
        (false, pid) => writeln!(
            text,
            "watcher     does not run; the last one was process {pid}, started {} UTC",
            utc(status.started)
        ),
    };
    if runs {
        let docker = status.docker.as_ref().map_or_else(|| "answers".to_owned(), |why| format!("is away: {why}"));
        let _ = writeln!(text, "Docker      {docker}");
    }
    let count = |condition: Condition| status.attachments.iter().filter(|one| one.condition == condition).count();
    let _ = writeln!(
        text,
        "attached    {}: {} plugged, {} failed, {} stopped",
        status.attachments.len(),
        count(Condition::Plugged),
        count(Condition::Failed),
        count(Condition::Stopped)
    );
    let width = |of: fn(&Attachment) -> usize| status.attachments.iter().map(of).max().unwrap_or(0);
    let (names, addresses) = (width(|one| one.container.len()), width(|one| one.address.len()));
    for one in &status.attachments {
        let word = match one.condition {
            Condition::Unknown if runs => "not looked at yet",
            Condition::Unknown => "not watched",
            Condition::Plugged => "plugged",
            Condition::Stopped => "its container does not run",
            Condition::Failed => "failed",
        };
        let _ = write!(
            text,
            "\n{:names$}  {:addresses$}  {} on {} ({})  {word}",
            one.container, one.address, one.interface, one.parent, one.network
        );
        if let (Some(done), Some(at)) = (&one.done, one.done_at) {
            let _ = write!(text, "; {} {done}", utc(at / 1_000_000));
        }
        for (label, line) in [("why", &one.why), ("help", &one.hint)] {
            if let Some(line) = line {
                let _ = write!(text, "\n{:names$}  {label}: {line}", "");
            }
        }
    }
    if !status.attachments.is_empty() {
        text.push('\n');
    }
    if let Some(kept) = &status.logs {
        text += &logs_shown(kept);
    }
    text + &slots_shown(&watched.rollout) + &refreshers_shown(&watched.refreshers)
}

/// What became of log files.
fn logs_shown(kept: &Kept) -> String {
    let (folders, files) = (count_of(kept.folders, "folder"), count_of(kept.files, "file"));
    let mut text = format!("logs        {folders}, {files} ({}); {} UTC\n", rough_size(kept.bytes), utc(kept.at));
    if let Some(shipped) = &kept.shipped {
        let _ = match shipped.oldest {
            None => writeln!(text, "copies      all are stored; {} UTC", utc(shipped.at)),
            Some(oldest) => writeln!(
                text,
                "copies      {} ({}) to be stored, the oldest of {} UTC; {} UTC",
                count_of(shipped.waiting, "file"),
                rough_size(shipped.bytes),
                utc(u64::try_from(oldest).unwrap_or(0)),
                utc(shipped.at)
            ),
        };
    }
    for trouble in kept.all_trouble() {
        let _ = writeln!(text, "  wrong: {}", harmless(trouble.strip_prefix("logs: ").unwrap_or(trouble)));
    }
    text
}

/// What refreshers say; nothing where there are none.
fn refreshers_shown(refreshers: &Refreshers) -> String {
    let mut text = String::new();
    if let Some(why) = &refreshers.unseen {
        let _ = writeln!(text, "refreshers  cannot be looked at: {}", harmless(why));
    }
    if refreshers.seen.is_empty() {
        return text;
    }
    let wrong = refreshers.seen.iter().filter(|one| one.trouble.is_some()).count();
    let _ = writeln!(text, "refreshers  {}: {wrong} cannot load what stands on the disk", refreshers.seen.len());
    let width = refreshers.seen.iter().map(|one| one.container.chars().count()).max().unwrap_or(0);
    for one in &refreshers.seen {
        let word = match (one.loaded, &one.trouble) {
            (_, Some(_)) => "NOT loaded",
            (true, None) => "loaded",
            (false, None) => "not loaded yet",
        };
        let _ = write!(text, "\n{:width$}  {}  {word}", one.container, harmless(&one.directory));
        if let Some(why) = &one.trouble {
            let since = if one.since > 0 { format!(", since {} UTC", utc(one.since)) } else { String::new() };
            let _ = write!(text, "{since}\n{:width$}  why: {}", "", harmless(why));
        }
    }
    text.push('\n');
    text
}

/// The servers that rollouts have taken out of traffic; nothing where there are none.
fn out_shown(out: &[OutSeen]) -> String {
    let mut text = String::new();
    if out.is_empty() {
        return text;
    }
    let _ = writeln!(text, "traffic     {} out of it", count_of(out.len() as u64, "server"));
    let width = out.iter().map(|one| one.server.len()).max().unwrap_or(0);
    for one in out {
        let state = one.state.as_deref().unwrap_or("unknown");
        let _ = write!(text, "\n{:width$}  {state}", one.server);
        if !one.rollout.is_empty() {
            let _ = write!(text, "; taken out by `{}` at {} UTC", one.rollout, utc(one.since));
        }
        if one.left {
            let _ = write!(text, ", and no run is at work\n{:width$}  help: {OUT_HELP}", "");
        }
        if let Some(why) = &one.trouble {
            let _ = write!(text, "\n{:width$}  why: {why}", "");
        }
    }
    text.push('\n');
    text
}

/// The slots of a host; nothing where there are none.
fn slots_shown(rollout: &Rollouts) -> String {
    let mut text = String::new();
    if let Some(mark) = &rollout.halted {
        let _ = writeln!(text, "rollouts    halted {}", mark.show());
    }
    text.push_str(&out_shown(&rollout.out));
    if rollout.slots.is_empty() {
        return text;
    }
    let phases = [Phase::Confirmed, Phase::Switching, Phase::Switched, Phase::Reverted].map(|phase| {
        let count = rollout.slots.iter().filter(|slot| slot.phase == Some(phase)).count();
        (count > 0).then(|| format!("{count} {}", phase.show()))
    });
    let phases: Vec<String> = phases.into_iter().flatten().collect();
    let _ = writeln!(text, "slots       {}: {}", rollout.slots.len(), phases.join(", "));
    let width = rollout.slots.iter().map(|slot| slot.path.len()).max().unwrap_or(0);
    for slot in &rollout.slots {
        let shows = slot.current.as_deref().unwrap_or("nothing");
        let phase = slot.phase.map_or("unknown", Phase::show);
        let brought = format!("`{}` with generation {}", slot.rollout, slot.generation);
        let _ = write!(text, "\n{:width$}  shows {shows}; {brought}: {phase}", slot.path);
        if slot.changed > 0 {
            let _ = write!(text, " at {} UTC", utc(slot.changed));
        }
        match slot.left_ms {
            Some(0) => text.push_str("; its time for a confirmation has passed"),
            Some(left) => {
                let left = show_duration(Duration::from_secs(left.div_ceil(1000)));
                let _ = write!(text, "; put back in {left} unless it is confirmed");
            }
            None => {}
        }
        if slot.owed > 0 {
            let _ = write!(text, "; tasks that still have to follow: {}", slot.owed);
        }
        for (label, line) in [("why", &slot.why), ("wrong", &slot.trouble)] {
            if let Some(line) = line {
                let _ = write!(text, "\n{:width$}  {label}: {line}", "");
            }
        }
    }
    text.push('\n');
    text
}
