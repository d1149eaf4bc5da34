//! The command line: arguments, one file for each subcommand, exit codes.

mod booking;
mod asking;
mod check;
mod daemon;
mod doc;
pub mod exit;
mod fmt;
mod gate;
mod hosts;
mod ip;
mod lab;
mod log_pipe;
mod logs;
mod net;
mod play;
mod refresh;
mod request;
mod rollout;
mod status;
mod watch;
mod why;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::Failure;
use crate::system::process::keep_descriptors;

/// Bring hosts and the containers on them to their declared state
#[derive(Parser, Debug)]
#[command(name = "fanli", version, after_help = exit::TABLE, max_term_width = 100, subcommand_required = true)]
#[command(arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Play(play::Args),
    Rollout(rollout::Args),
    Check(check::Args),
    Fmt(fmt::Args),
    Doc(doc::Args),
    Hosts(hosts::Args),
    Why(why::Args),
    Ip(ip::Args),
    Lab(lab::Args),
    Watch(watch::Args),
    Status(status::Args),
    Gate(gate::Args),
    Refresh(refresh::Args),
    LogPipe(log_pipe::Args),
    Logs(logs::Args),
    Net(net::Args),
    /// The far end of a channel; started by fanli itself
    #[command(hide = true)]
    Helper {
        /// fanli's own folder on this host
        #[arg(long)]
        state_dir: Option<PathBuf>,
    },
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let survives = std::env::args_os().nth(1).is_some_and(|word| word == "log-pipe");
    let _survived = match survives.then(log_pipe::survive).transpose() {
        Ok(kept) => kept,
        Err(failure) => return failed(&failure),
    };
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { exit::BAD_INPUT.into() } else { ExitCode::SUCCESS };
        }
    };
    // The program behind a gate is the container's own: it gets what the container was given.
    if !matches!(cli.command, Command::Gate(_)) {
        keep_descriptors();
    }
    match cli.command {
        Command::Play(args) => play::run(&args),
        Command::Rollout(args) => rollout::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Fmt(args) => fmt::run(&args),
        Command::Doc(args) => doc::run(&args),
        Command::Hosts(args) => hosts::run(&args),
        Command::Why(args) => why::run(&args),
        Command::Ip(args) => ip::run(&args),
        Command::Lab(args) => lab::run(args),
        Command::Watch(args) => watch::run(&args),
        Command::Status(args) => status::run(args),
        Command::Gate(args) => gate::run(&args),
        Command::Refresh(args) => refresh::run(args),
        Command::LogPipe(args) => log_pipe::run(args),
        Command::Logs(args) => logs::run(args),
        Command::Net(args) => net::run(args),
        Command::Helper { state_dir } => {
            let state_dir = state_dir.unwrap_or_else(crate::remote::helper::default_state_dir);
            crate::remote::helper::main(&state_dir)
        }
    }
}

/// Prints to stdout; a reader that went away (`| head`) is no failure.
fn print(text: &str) {
    use std::io::Write as _;
    let mut stdout = std::io::stdout();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Lines whose cells stand below each other.
fn columns<const N: usize>(rows: &[[String; N]]) -> impl Iterator<Item = String> {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    rows.iter().map(move |row| {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    })
}

/// Says what failed, and the way out; gives the exit code for that.
fn failed(failure: &Failure) -> ExitCode {
    complain(&format!("error: {failure}"));
    if let Some(hint) = &failure.hint {
        complain(&format!("help: {hint}"));
    }
    exit::INTERNAL.into()
}

/// Says why a command could not be carried out.
fn complain(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
}
