//! `fanli fmt`: one way to write a playbook.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{complain, exit, print};
use crate::diagnostic::render_as;
use crate::source::{Sources, reason};
use crate::syntax::{format, parse};

/// Write playbooks in the one form
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  fanli fmt playbooks/*.fp            rewrite what differs
  fanli fmt --check playbooks/*.fp    for a CI job: show what differs, exit with 2")]
pub(super) struct Args {
    /// The files
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    /// Change nothing; show what differs and exit with 2
    #[arg(long)]
    check: bool,
}

pub(super) fn run(args: &Args) -> ExitCode {
    let mut wrong = false;
    for file in &args.files {
        match one(file, args.check) {
            Ok(formatted) => wrong |= !formatted,
            Err(message) => {
                complain(&message);
                wrong = true;
            }
        }
    }
    if wrong { exit::BAD_INPUT.into() } else { ExitCode::SUCCESS }
}

/// Formats one file; false when `check` found it to differ.
fn one(file: &Path, check: bool) -> Result<bool, String> {
    let say =
        |what: &str, error: std::io::Error| format!("error: cannot {what} {}: {}", file.display(), reason(&error));
    let text = std::fs::read_to_string(file).map_err(|error| say("read", error))?;
    let mut sources = Sources::default();
    let number = sources.add(file, &text);
    let (ast, errors) = parse(number, &text);
    if !errors.is_empty() {
        return Err(render_as(&errors, &sources, "the file stays as it is"));
    }
    let formatted = format(&ast);
    if formatted == text {
        return Ok(true);
    }
    let name = file.display().to_string();
    if check {
        let diff = similar::TextDiff::from_lines(&text, &formatted);
        print(&diff.unified_diff().header(&name, "formatted").to_string());
        return Ok(false);
    }
    // Written beside and renamed: a full disk must not cost the playbook.
    let file = &std::fs::canonicalize(file).map_err(|error| say("find", error))?;
    let beside = file.with_extension("fp.new");
    std::fs::write(&beside, formatted).map_err(|error| say("write", error))?;
    if let Ok(meta) = std::fs::metadata(file) {
        let _ = std::fs::set_permissions(&beside, meta.permissions());
    }
    std::fs::rename(&beside, file).map_err(|error| say("replace", error))?;
    print(&format!("{name}: formatted\n"));
    Ok(true)
}
