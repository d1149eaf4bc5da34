//! `fanli logs`: keeps what `fanli log-pipe` has written.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;

use super::log_pipe::size;
use super::{complain, exit, failed, play, print};
use crate::logs::keep::{Codec, Policy, Said, What, keep};
use crate::report::harmless;
use crate::visible::{count, rough_size};

/// Compress and remove what `fanli log-pipe` has written
#[derive(clap::Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Compress and remove files as the limits say, and close those of killed writers
    #[command(after_help = "Examples:
  fanli logs keep --age 30d --pack zstd /data/weblogs/*
  fanli logs keep --size 20GiB --floor 5GiB /data/weblogs/*      the oldest go first
  7 * * * * root fanli logs keep --age 90d --pack gzip /var/log/shop   in /etc/cron.d

Only files with a seal are touched, and none that is being written. Within a folder the oldest goes
first; where a disk is short of room, the folder that holds most gives. It can be killed
at any moment.
Exit codes: 0 all is done; 1 a folder cannot be looked at: nothing was done; 2 bad input;
4 something could not be done.")]
    Keep(Limits),
    /// Tell what `keep` would do, and why
    #[command(after_help = "Examples:
  fanli logs plan --age 30d --pack zstd /data/weblogs/*
  fanli logs plan --floor 200GiB /data/weblogs/*         what would go if the disk were that full")]
    Plan(Limits),
}

#[derive(clap::Args, Debug)]
struct Limits {
    /// Folders of log-pipe's templates, each with all that is below it
    #[arg(required = true, value_name = "FOLDER")]
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
    #[arg(long, value_name = "N")]
    count: Option<usize>,

    /// What is to stay free on the disk
    #[arg(long, value_name = "SIZE", value_parser = size)]
    floor: Option<u64>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Way {
    Gzip,
    Zstd,
}

pub(super) fn run(args: &Args) -> ExitCode {
    let (limits, check) = match &args.command {
        Command::Keep(limits) => (limits, false),
        Command::Plan(limits) => (limits, true),
    };
    if let Some(odd) = limits.folders.iter().find(|folder| !folder.is_absolute()) {
        complain(&format!("error: `{}` is not an absolute path", odd.display()));
        return exit::BAD_INPUT.into();
    }
    let codec = limits.pack.map(|way| match way {
        Way::Gzip => Codec::Gzip,
        Way::Zstd => Codec::Zstd,
    });
    let policy = Policy {
        pack: codec.map(|codec| (codec, limits.pack_after)),
        age: limits.age,
        size: limits.size,
        count: limits.count,
        floor: limits.floor,
    };
    let mut wrong = 0;
    let say = |said: Said| {
        if let What::Failed(failure) = &said.what {
            wrong += 1;
            return complain(&harmless(&format!("error: {}: {failure}", said.path.display())));
        }
        let [what, path, more] = shown(&said, check);
        print(&format!("{}\n", harmless(&format!("{what:12}  {path}{more}"))));
    };
    match keep(&limits.folders, &policy, check, say) {
        Ok(stays) => {
            print(&format!("{} stay, {} on the disk\n", count(stays.segments, "file"), rough_size(stays.bytes)));
            if wrong == 0 { ExitCode::SUCCESS } else { exit::FAILED.into() }
        }
        Err(failure) => failed(&failure),
    }
}

/// What was done, to which segment, and what more there is to say.
fn shown(said: &Said, check: bool) -> [String; 3] {
    let word = |done: &str, would: &str| if check { format!("would {would}") } else { done.to_owned() };
    let (what, more) = match &said.what {
        What::Removed(why, bytes) => (word("removed", "remove"), format!("{why}; {}", rough_size(*bytes))),
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
