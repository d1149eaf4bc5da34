//! `fanli logs keep` and `fanli logs plan`: compress and remove files, and store copies.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::super::log_pipe::size;
use super::super::{complain, exit, failed, play, print};
use crate::failure::Failure;
use crate::logs::codec::Codec;
use crate::logs::keep::{Stays, keep};
use crate::logs::policy::{Place, Policy, Shipping, Unshipped};
use crate::logs::said::{Removed, Said, What};
use crate::logs::ship::{Waiting, ship};
use crate::logs::target::Target;
use crate::report::harmless;
use crate::resource::logs::{Logs, declared, grouped};
use crate::visible::{count, rough_size};
use crate::watch::probe;

#[derive(clap::Args, Debug)]
pub(super) struct Limits {
    /// Folders of log-pipe's templates, each with all that is below it; without one those that `logs`
    /// tasks have declared on this host
    #[arg(value_name = "FOLDER")]
    folders: Vec<PathBuf>,

    /// Compress closed files
    #[arg(long, value_name = "WAY")]
    pack: Option<Way>,

    /// How long after the end of its period a file is compressed
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = play::duration)]
    pack_after: Duration,

    /// Remove files this long after the end of their period
    #[arg(long, value_name = "TIME", value_parser = play::duration)]
    age: Option<Duration>,

    /// The most that the files of a folder take on the disk
    #[arg(long, value_name = "SIZE", value_parser = size)]
    size: Option<u64>,

    /// The most files of a folder
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32))]
    count: Option<u32>,

    /// What is to stay free on the disk
    #[arg(long, value_name = "SIZE", value_parser = size)]
    floor: Option<u64>,

    #[arg(long, value_name = "TARGET", value_parser = target)]
    #[arg(
        help = "Store copies: a directory, rsync://HOST/MODULE/PATH, USER@HOST:/PATH over ssh, or s3://BUCKET/PREFIX"
    )]
    ship: Option<Target>,

    /// The private key for ssh, or the file with the password for an rsync daemon or the account
    /// for S3
    #[arg(long, value_name = "FILE", requires = "ship")]
    ship_key: Option<PathBuf>,

    /// The most that is sent in a second
    #[arg(long, value_name = "SIZE", value_parser = size, requires = "ship")]
    ship_rate: Option<u64>,

    /// Files without a copy stay, or go when a limit says so and all with a copy have gone
    #[arg(long, value_name = "WHAT", default_value = "keep", requires = "ship")]
    unshipped: Fate,

    /// Another state folder than /var/lib/fanli
    #[arg(long, hide = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

impl Limits {
    fn policy(&self) -> Policy {
        let codec = self.pack.map(|way| match way {
            Way::Gzip => Codec::Gzip,
            Way::Zstd => Codec::Zstd,
        });
        Policy {
            pack: codec.map(|codec| (codec, self.pack_after)),
            age: self.age,
            size: self.size,
            count: self.count.and_then(|count| usize::try_from(count).ok()),
            floor: self.floor,
        }
    }

    fn shipping(&self) -> Option<Shipping> {
        let unshipped = match self.unshipped {
            Fate::Keep => Unshipped::Keep,
            Fate::Drop => Unshipped::Drop,
        };
        let to = self.ship.clone()?;
        Some(Shipping { to, key: self.ship_key.clone(), rate: self.ship_rate, unshipped })
    }

    fn state_dir(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(crate::remote::helper::default_state_dir)
    }

    /// What is to be kept, and how: as this command line says, or as this host's `logs` tasks do.
    fn groups(&self) -> Result<Vec<(Policy, Vec<Place>)>, Failure> {
        if !self.folders.is_empty() {
            let place = |path: &PathBuf| Place { path: path.clone(), ship: self.shipping() };
            let folders: BTreeSet<PathBuf> = self.folders.iter().map(|folder| folder.components().collect()).collect();
            return Ok(vec![(self.policy(), folders.iter().map(place).collect())]);
        }
        let probe = probe(self.state_dir());
        let declared: Vec<Logs> = declared(&probe)?.into_iter().collect::<Result<_, _>>()?;
        if declared.is_empty() {
            return Err(Failure::new("no folder is given, and no `logs` task has declared one on this host"));
        }
        Ok(grouped(declared))
    }
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Way {
    Gzip,
    Zstd,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Fate {
    Keep,
    Drop,
}

fn target(text: &str) -> Result<Target, String> {
    text.parse()
}

/// Does what the limits say, or with `check` tells what would be done.
pub(super) fn run(limits: &Limits, check: bool) -> ExitCode {
    if limits.folders.is_empty() && (limits.policy() != Policy::default() || limits.ship.is_some()) {
        complain("error: limits go with folders; without one, those of this host's `logs` tasks count");
        return exit::BAD_INPUT.into();
    }
    if let Some(odd) = limits.folders.iter().find(|folder| !folder.is_absolute()) {
        complain(&format!("error: `{}` is not an absolute path", odd.display()));
        return exit::BAD_INPUT.into();
    }
    if let Some(Err((name, why))) = limits.shipping().map(|ship| ship.check()) {
        complain(&format!("error: --{} {why}", name.replace('_', "-")));
        return exit::BAD_INPUT.into();
    }
    let groups = match limits.groups() {
        Ok(groups) => groups,
        Err(failure) => return failed(&failure),
    };
    let mut wrong = 0;
    let mut say = |said: Said| {
        if let What::Failed(failure) = &said.what {
            wrong += 1;
            complain(&harmless(&format!("error: {}: {failure}", said.path.display())));
            return failure.hint.iter().for_each(|hint| complain(&harmless(&format!("help: {hint}"))));
        }
        let [what, path, more] = shown(&said, check);
        print(&format!("{}\n", harmless(&format!("{what:12}  {path}{more}"))));
    };
    let (mut stays, mut waits, state_dir) = (Stays::default(), Waiting::default(), limits.state_dir());
    for (policy, places) in groups {
        let held_back: Vec<Place> = places.iter().map(Place::holding_back).collect();
        let mut kept = keep(&held_back, &policy, &state_dir, check, &mut say);
        let mut failed = false;
        let waiting = ship(&places, &policy, &state_dir, check, |said| {
            failed |= matches!(said.what, What::Failed(_));
            say(said);
        });
        // What could not be stored may go now, where that was asked for.
        if failed && places.iter().any(Place::may_drop) {
            kept = keep(&places, &policy, &state_dir, check, &mut say);
        }
        stays = Stays { segments: stays.segments + kept.segments, bytes: stays.bytes + kept.bytes };
        waits = Waiting { segments: waits.segments + waiting.segments, bytes: waits.bytes + waiting.bytes, ..waits };
    }
    print(&format!("{} stay, {} on the disk\n", count(stays.segments, "file"), rough_size(stays.bytes)));
    if waits.segments > 0 {
        print(&format!("{} of them without a copy, {}\n", waits.segments, rough_size(waits.bytes)));
    }
    if wrong == 0 { ExitCode::SUCCESS } else { exit::FAILED.into() }
}

/// What was done, to which segment, and what more there is to say.
fn shown(said: &Said, check: bool) -> [String; 3] {
    let word = |done: &str, would: &str| if check { format!("would {would}") } else { done.to_owned() };
    let (what, more) = match &said.what {
        What::Removed(Removed { why, bytes, unshipped }) => {
            let copy = if *unshipped { "; NO COPY of it is stored" } else { "" };
            (word("removed", "remove"), format!("{why}; {}{copy}", rough_size(*bytes)))
        }
        What::Shipped(bytes) => (word("stored", "store"), format!("a copy of {}", rough_size(*bytes))),
        What::Closed => (word("closed", "close"), "its writer was killed".to_owned()),
        What::Packed(codec, None) => (word("compressed", "compress"), format!("{codec:?}").to_lowercase()),
        What::Packed(_, Some((before, after))) => {
            (word("compressed", "compress"), format!("{} to {}", rough_size(*before), rough_size(*after)))
        }
        What::Cleared => (word("cleared", "clear"), "half-made, by a program that was killed".to_owned()),
        What::Failed(_) => return Default::default(),
    };
    [what, said.path.display().to_string(), format!("  {more}")]
}
