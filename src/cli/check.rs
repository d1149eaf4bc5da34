//! `fanli check`: everything that can be known without a host.

use std::process::ExitCode;

use super::{complain, exit, print, request};
use crate::book::View;
use crate::plan;
use crate::source::Sources;
use crate::visible::count;

/// Look for errors in a playbook, for every host, touching none
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  fanli check web-tier.fp                  in the environment `local`
  fanli check web-tier.fp --env staging    in another one

Exits with 2 when there are errors.")]
pub(super) struct Args {
    #[command(flatten)]
    playbook: request::Playbook,
}

pub(super) fn run(args: &Args) -> ExitCode {
    let asked = match request::request(&args.playbook, &request::Part::default()) {
        Ok(asked) => asked,
        Err(message) => {
            complain(&format!("error: {message}"));
            return exit::BAD_INPUT.into();
        }
    };
    let mut sources = Sources::default();
    let (playbook, found) = plan::load(&asked, &mut sources);
    match plan::make(&playbook, found, &asked, &mut sources, &mut View::new(&asked.run)) {
        Ok((run, inventory)) => {
            let steps: usize = run
                .hosts
                .iter()
                .flat_map(|host| &host.plan.stages)
                .flat_map(|stage| &stage.targets)
                .map(|target| target.steps.len())
                .sum();
            print(&format!(
                "{}: no errors; {}, {}, {}, {}\n",
                args.playbook.file.display(),
                count(inventory.hosts.len(), "host"),
                count(inventory.nodes.len(), "node"),
                count(playbook.plays.len(), "play"),
                count(steps, "step"),
            ));
            ExitCode::SUCCESS
        }
        Err(errors) => {
            complain(&request::errors(&errors, &sources));
            exit::BAD_INPUT.into()
        }
    }
}
