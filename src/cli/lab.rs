//! `fanli lab`: the playground.

use std::process::ExitCode;

use super::failed;

/// Make docker hosts on this machine, to try everything out
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  fanli lab up 3                                start three hosts, as root
  fanli play playbooks/web-tier.fp --env lab    bring the web tier up on them, over SSH
  fanli lab status                              ask whether they answer
  fanli lab down                                remove everything again")]
pub(super) struct Args {
    #[command(flatten)]
    lab: crate::lab::Args,
}

pub(super) fn run(args: Args) -> ExitCode {
    match crate::lab::run(args.lab, &mut std::io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failed(&failure),
    }
}
