//! `fanli why`: where a value comes from.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::{complain, exit, print, request};
use crate::book::View;
use crate::diagnostic::nearest;
use crate::plan;
use crate::source::Sources;

/// Tell why a variable has its value on a host or node
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  fanli why release lab1 web-tier.fp --env lab            on a host
  fanli why node_size web08010 web-tier.fp --env lab      on a node

Precedence: role default < playbook < environment file < host < node < --set")]
pub(super) struct Args {
    /// The variable
    name: String,

    /// A host or a node
    target: String,

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
    let inventory = match plan::make(&playbook, found, &asked, &mut sources, &mut View::new(&asked.run)) {
        Ok((_, inventory)) => inventory,
        Err(errors) => {
            complain(&request::errors(&errors, &sources));
            return exit::BAD_INPUT.into();
        }
    };
    match plan::why(&args.name, &args.target, &playbook, &inventory, &sources) {
        Ok(answer) if answer.candidates.is_empty() => {
            let roles = playbook.roles.values().flat_map(|role| &role.params).map(|param| param.name.text.as_str());
            let known = playbook.vars.iter().map(|var| var.name.text.as_str()).chain(roles);
            let near = nearest(&args.name, known);
            let hint = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            complain(&format!("error: no variable is called `{}` on {}{hint}", args.name, args.target));
            exit::BAD_INPUT.into()
        }
        Ok(answer) => {
            let mut text = format!(
                "{} on {}: {}\n",
                args.name,
                args.target,
                answer.value.as_deref().unwrap_or("(cannot be evaluated)")
            );
            for candidate in &answer.candidates {
                let mark = if candidate.won { "->" } else { "  " };
                let at = if candidate.at.is_empty() { "the command line" } else { &candidate.at };
                let _ = writeln!(text, "  {mark} {:12}  {}  ({at})", candidate.layer, candidate.written);
            }
            print(&text);
            ExitCode::SUCCESS
        }
        Err(message) => {
            complain(&format!("error: {message}"));
            exit::BAD_INPUT.into()
        }
    }
}
