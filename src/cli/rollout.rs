//! `fanli rollout`: how the rollouts of a playbook stand, and what a person does about them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;

use super::asking::{Ended, FORKS, Reaching, as_json, hosts_of};
use super::{complain, exit, play, print, request};
use crate::calendar::utc;
use crate::coordinator::ask::{Answer, halts, rollouts};
use crate::failure::Failure;
use crate::plan::Part;
use crate::report::harmless;
use crate::resource::rollout::{ChangePhase, ContainerSeen, OUT_HELP, OutSeen, Phase, Rollouts, SlotSeen};

/// How many lines of what a container said are shown; `--json` has all that are kept.
const MOST_SAID: usize = 4;

/// Look at the rollouts of a playbook, stop them, go on, or put back what they brought
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  fanli rollout status web-tier.fp --env lab                     what every host shows
  fanli rollout halt web-tier.fp --env lab --because 'a sale'    nothing is switched from now on
  fanli rollout resume web-tier.fp --env lab                     go on with the playbook's rollouts
  fanli rollout rollback web-tier.fp --env lab                   back to what was there before

A `rollout` block goes out with `fanli play` like everything else in a playbook.")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    Status(Status),
    Halt(Halt),
    Resume(Resume),
    Rollback(Rollback),
}

/// Tell which generation every host shows, how far its rollout is, and whether rollouts are halted
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  fanli rollout status web-tier.fp --env lab
  fanli rollout status web-tier.fp --env lab --json | jq '.lab1.slots[].current'

Nothing is changed, and a run that is at work is not waited for. Exits with 4 when something is not
as it should be (halted, put back by the host itself, not confirmed in time, left out of traffic),
with 5 when a host cannot be reached.")]
struct Status {
    #[command(flatten)]
    playbook: request::Playbook,

    /// Print JSON: a map from the host's name to what it shows, or to `unknown` with the reason
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    reach: Reaching,
}

/// Stop rollouts on every host until `fanli rollout resume`: no directory is switched, no container changed
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  fanli rollout halt web-tier.fp --env lab --because 'errors in the shop'

A run that is at work is not waited for: it stops before its next batch. What is done stays as it
is, and what was only taken out of traffic goes back. The halt stays on the hosts through other
runs and restarts. A host that cannot be reached is not halted, and said so: exit code 5.")]
struct Halt {
    #[command(flatten)]
    playbook: request::Playbook,

    /// Why, for those who find it
    #[arg(long, value_name = "TEXT")]
    because: Option<String>,

    #[command(flatten)]
    reach: Reaching,
}

/// Take the halt away, and go on with the playbook's rollouts: what is done already is not done again
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  fanli rollout resume web-tier.fp --env lab
  fanli rollout resume web-tier.fp --env lab --check --diff    what would still go out, changing nothing

It is `fanli play` with the rollouts alone. After a run that was killed it goes on where that was.")]
struct Resume {
    #[command(flatten)]
    play: play::Args,
}

/// Put back what the newest rollout brought, batch by batch: one under way, else the last that came to its end
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  fanli rollout rollback web-tier.fp --env lab
  fanli rollout rollback web-tier.fp --env lab --check    what would be put back, changing nothing

It goes the way of the rollout backwards: drained, put back, reloaded, healthy, back into traffic.
A node that cannot be put back stops it. The next `fanli play` rolls out again what the playbook
declares: mend that first, or `fanli rollout halt`.")]
struct Rollback {
    #[command(flatten)]
    play: play::Args,
}

pub(super) fn run(args: &Args) -> ExitCode {
    let done = match &args.command {
        Command::Status(args) => status(args),
        Command::Halt(args) => halt(&args.playbook, &args.reach, Some(args.because.clone().unwrap_or_default())),
        Command::Resume(args) => return resume(&args.play),
        Command::Rollback(args) => return rollback(&args.play).unwrap_or_else(|Ended(code)| code.into()),
    };
    done.unwrap_or_else(|Ended(code)| code).into()
}

fn status(args: &Status) -> Result<u8, Ended> {
    let hosts = hosts_of(&args.playbook)?;
    let found = args.reach.ask::<_, Ended>(|reach| rollouts(hosts, reach, FORKS))?;
    print(&if args.json { as_json(&found) } else { shown(&found) });
    let wrong = |seen: &Rollouts| {
        seen.halted.is_some() || seen.is_wrong() || seen.containers.iter().any(|container| container.trouble.is_some())
    };
    Ok(match (found.values().any(Result::is_err), found.values().flatten().any(wrong)) {
        (true, _) => exit::UNREACHABLE,
        (false, true) => exit::FAILED,
        (false, false) => exit::OK,
    })
}

/// Sets the halt on every host, with its reason, or takes it away.
fn halt(playbook: &request::Playbook, reaching: &Reaching, because: Option<String>) -> Result<u8, Ended> {
    let hosts = hosts_of(playbook)?;
    let word = if because.is_some() { "halted" } else { "goes on" };
    let by = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_default();
    let told = reaching.ask::<_, Ended>(|reach| halts(hosts, because, by, reach, FORKS))?;
    let mut text = String::new();
    for (name, answer) in &told {
        let _ = match problem(answer) {
            None => writeln!(text, "{name}  {word}"),
            Some(failure) => writeln!(text, "{name}  NOT {word}: {}", harmless(&failure.to_string())),
        };
    }
    print(&text);
    Ok(if told.values().any(|answer| problem(answer).is_some()) { exit::UNREACHABLE } else { exit::OK })
}

/// Why a host did not do what it was told.
fn problem(answer: &Answer) -> Option<&Failure> {
    match answer {
        Ok(steps) => steps.iter().find_map(|step| step.as_ref().err()),
        Err(failure) => Some(failure),
    }
}

fn resume(args: &play::Args) -> ExitCode {
    if !args.only_looks() {
        match halt(args.playbook(), &args.reaching(), None) {
            Ok(exit::OK) => {}
            Ok(code) | Err(Ended(code)) => return code.into(),
        }
    }
    play::part(args, Part::Rollouts)
}

/// What is under way is put back; where nothing is, the newest run that confirmed something is undone.
fn rollback(args: &play::Args) -> Result<ExitCode, Ended> {
    let hosts = hosts_of(args.playbook())?;
    let found = args.reaching().ask::<_, Ended>(|reach| rollouts(hosts, reach, FORKS))?;
    if let Some((name, Err(failure))) = found.iter().find(|(_, seen)| seen.is_err()) {
        complain(&format!("error: {name} is unknown, so nobody knows what is to be put back: {failure}"));
        complain("help: run again when it is back; `fanli rollout status` tells what the others show");
        return Err(Ended(exit::UNREACHABLE));
    }
    let slots = || found.values().flatten().flat_map(|seen| &seen.slots);
    let containers = || found.values().flatten().flat_map(|seen| &seen.containers);
    let open = slots().any(|slot| matches!(slot.phase, Some(Phase::Switching | Phase::Switched)))
        || containers().any(|container| container.phase == Some(ChangePhase::Changing));
    // A run's name begins with its time.
    let time = |run: &&String| u64::from_str_radix(run.split('-').next().unwrap_or_default(), 16).unwrap_or_default();
    let runs = slots().filter_map(|slot| slot.run.as_ref());
    let newest = runs.chain(containers().filter_map(|container| container.run.as_ref())).max_by_key(time);
    let undo = newest.filter(|_| !open).cloned();
    // Better before anything is drained than half-way.
    let goes = |one: &&ContainerSeen| one.phase == Some(ChangePhase::Changing) || (undo.is_some() && one.run == undo);
    let gone: Vec<&ContainerSeen> = containers().filter(|one| one.gone).filter(goes).collect();
    if let Some(first) = gone.first().filter(|_| args.is_everybody()) {
        let names: Vec<&str> = gone.iter().map(|one| one.container.as_str()).collect();
        let (image, names) = (first.before.as_deref().unwrap_or_default(), names.join(", "));
        complain(&format!("error: the earlier image {image} is gone from the hosts of {names}: nothing was touched"));
        complain(
            "help: bring it back (`docker load`), put back the others alone (`--limit`), or declare an image that is there",
        );
        return Err(Ended(exit::FAILED));
    }
    Ok(play::part(args, Part::PutBack { undo }))
}

/// Each host's name, and below it its slots.
fn shown(found: &BTreeMap<String, Result<Rollouts, Failure>>) -> String {
    let mut text = String::new();
    for (name, found) in found {
        let _ = writeln!(text, "{name}");
        match found {
            Err(failure) => {
                let _ = writeln!(text, "  unknown: {}", harmless(&failure.to_string()));
            }
            Ok(seen) => {
                if let Some(mark) = &seen.halted {
                    let _ = writeln!(text, "  HALTED {}", harmless(&mark.show()));
                }
                if seen.slots.is_empty() && seen.containers.is_empty() && seen.out.is_empty() {
                    let _ = writeln!(text, "  no rollout has changed anything here");
                }
                seen.slots.iter().for_each(|slot| one_slot(&mut text, slot));
                seen.containers.iter().for_each(|container| one_container(&mut text, container));
                seen.out.iter().for_each(|server| one_server(&mut text, server));
            }
        }
    }
    text
}

fn one_slot(text: &mut String, slot: &SlotSeen) {
    let phase = slot.phase.map_or("unknown", Phase::show);
    let current = slot.current.as_deref().unwrap_or("nothing");
    let before = slot.previous.as_ref().map_or_else(String::new, |previous| format!(", before it {previous}"));
    let at = if slot.changed == 0 { String::new() } else { format!(", {} UTC", utc(slot.changed)) };
    let _ = writeln!(text, "  {}  {current}  {phase}{before}{at}", harmless(&slot.path));
    if !slot.rollout.is_empty() {
        let _ = writeln!(text, "    by rollout \"{}\"", harmless(&slot.rollout));
    }
    if let Some(left) = slot.left_ms {
        let left = crate::value::show_duration(std::time::Duration::from_millis(left));
        let _ = writeln!(text, "    not confirmed: the host puts it back by itself in {left}");
    }
    for (label, line) in [("put back by the host", &slot.why), ("trouble", &slot.trouble)] {
        if let Some(line) = line {
            let _ = writeln!(text, "    {label}: {}", harmless(line));
        }
    }
}

fn one_server(text: &mut String, server: &OutSeen) {
    let state = server.state.as_deref().unwrap_or("unknown");
    let at =
        if server.since == 0 { String::new() } else { format!(", taken out of traffic at {} UTC", utc(server.since)) };
    let _ = writeln!(text, "  server {}  {}{at}", harmless(&server.server), harmless(state));
    if !server.rollout.is_empty() {
        let _ = writeln!(text, "    by rollout \"{}\"", harmless(&server.rollout));
    }
    if server.left {
        let _ = writeln!(text, "    no run is at work that would bring it back: {OUT_HELP}");
    }
    if let Some(trouble) = &server.trouble {
        let _ = writeln!(text, "    trouble: {}", harmless(trouble));
    }
}

fn one_container(text: &mut String, container: &ContainerSeen) {
    let phase = container.phase.map_or("unknown", ChangePhase::show);
    let before = container.before.as_ref().map_or_else(String::new, |before| format!(", before it {before}"));
    let at = if container.changed == 0 { String::new() } else { format!(", {} UTC", utc(container.changed)) };
    let _ = writeln!(text, "  container {}  {phase}{}{at}", harmless(&container.container), harmless(&before));
    if !container.rollout.is_empty() {
        let _ = writeln!(text, "    by rollout \"{}\"", harmless(&container.rollout));
    }
    if container.gone {
        text.push_str("    that earlier image is gone from the host\n");
    }
    if !container.said.is_empty() {
        text.push_str("    what did not come through had said last:\n");
    }
    let lines: Vec<&str> = container.said.lines().collect();
    for line in lines.iter().skip(lines.len().saturating_sub(MOST_SAID)) {
        let _ = writeln!(text, "      {}", harmless(line));
    }
    if let Some(trouble) = &container.trouble {
        let _ = writeln!(text, "    trouble: {}", harmless(trouble));
    }
}
