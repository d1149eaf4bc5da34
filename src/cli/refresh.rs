//! `fanli refresh`: keeps a program in a container at its configuration.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::{complain, daemon, exit, failed, play, print};
use crate::calendar::utc;
use crate::failure::{Context as _, Failure};
use crate::refresh::{FILE, How, Settings, Status, in_container, run as refresh};
use crate::report::harmless;
use crate::system::http::check_url;
use crate::system::supervisor::SOCKET;

/// In a container: reload a program when its configuration has changed and can be used
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  fanli refresh /usr/local/apache2/conf --program apache2 --validate 'apachectl -t'
  fanli refresh /etc/nginx --reload 'nginx -s reload' --validate 'nginx -t'
  fanli refresh --status                     what it knows; exits with 4 unless all is well
  fanli refresh --status --container web1    the same, on the host

It compares what stands on the disk with what it has last had loaded: behind DIR/current where there
is such a link, else in DIR itself. What cannot be used is told in its log and not loaded. Words of
a command are set apart by blanks, and no shell reads them. It runs under the container's
supervisor, as `/.fanli/fanli refresh …`: docs/refresh.md has the lines to use.")]
pub(super) struct Args {
    /// The directory with the configuration
    #[arg(value_name = "DIR", required_unless_present = "status")]
    directory: Option<PathBuf>,

    /// The program of this container's supervisor to reload
    #[arg(long, value_name = "NAME", conflicts_with = "reload")]
    program: Option<String>,

    /// The signal that has it reload
    #[arg(long, value_name = "SIGNAL", default_value = "USR1", value_parser = signal_name)]
    signal: String,

    /// Or the command that reloads
    #[arg(long, value_name = "COMMAND")]
    reload: Option<String>,

    /// A command that fails when the configuration cannot be used
    #[arg(long, value_name = "COMMAND")]
    validate: Option<String>,

    /// A command that starts the program beside the one that runs; it must stay up for 2 s, and is ended then
    #[arg(long = "try", value_name = "COMMAND")]
    attempt: Option<String>,

    /// A page that holds the generation that is loaded
    #[arg(long, value_name = "URL", value_parser = url)]
    proof: Option<String>,

    /// Leave a new generation that long to whoever switched to it, and take the proof's word
    #[arg(long, default_value = "0s", value_name = "TIME", value_parser = play::duration, requires = "proof")]
    after: Duration,

    /// Wait until nothing has changed for that long
    #[arg(long, default_value = "300ms", value_name = "TIME", value_parser = play::duration)]
    settle: Duration,

    /// Look that often, besides what the kernel tells
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = some_time)]
    every: Duration,

    /// Look that often where the kernel does not tell
    #[arg(long, default_value = "2s", value_name = "TIME", value_parser = some_time)]
    poll: Duration,

    /// How long a command, or the program on its way up, may take
    #[arg(long, default_value = "1m", value_name = "TIME", value_parser = some_time)]
    limit: Duration,

    /// Supervisor's socket
    #[arg(long, default_value = SOCKET, value_name = "FILE")]
    socket: PathBuf,

    /// Keep a copy of what was last good there
    #[arg(long, default_value = "/run/fanli/refresh", value_name = "DIR")]
    keep: PathBuf,

    /// Keep the state there
    #[arg(long, default_value = FILE, value_name = "FILE")]
    state: PathBuf,

    /// Print the state of the refresher and end
    #[arg(long)]
    status: bool,

    /// That of a container on this host, seen from the host
    #[arg(long, value_name = "NAME", requires = "status")]
    container: Option<String>,
}

fn signal_name(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
    if fits { Ok(text.to_owned()) } else { Err("write a signal as in USR1, HUP, WINCH".to_owned()) }
}

fn url(text: &str) -> Result<String, String> {
    check_url(text).map(|()| text.to_owned())
}

fn some_time(text: &str) -> Result<Duration, String> {
    let time = play::duration(text)?;
    let fits = (Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&time);
    if fits { Ok(time) } else { Err("write a time from 100ms to 1h".to_owned()) }
}

fn words(command: &str) -> Vec<String> {
    command.split_whitespace().map(str::to_owned).collect()
}

pub(super) fn run(args: Args) -> ExitCode {
    if args.status {
        return status(&args);
    }
    let how = match (args.program, args.reload.as_deref().map(words)) {
        (Some(program), _) => How::Program(program, args.signal, args.socket),
        (None, Some(command)) if !command.is_empty() => How::Command(command),
        _ => {
            complain("error: how is it reloaded? give `--program NAME` or `--reload COMMAND`");
            return exit::BAD_INPUT.into();
        }
    };
    let settings = Settings {
        directory: args.directory.unwrap_or_default(),
        how,
        validate: args.validate.as_deref().map(words).filter(|words| !words.is_empty()),
        attempt: args.attempt.as_deref().map(words).filter(|words| !words.is_empty()),
        proof: args.proof,
        after: args.after,
        settle: args.settle,
        every: args.every,
        poll: args.poll,
        limit: args.limit,
        keep: args.keep,
        state: args.state,
    };
    if !settings.directory.is_absolute() {
        complain("error: write the directory as an absolute path");
        return exit::BAD_INPUT.into();
    }
    daemon::run(|stopping| refresh(settings, |line| print(&format!("{line}\n")), stopping))
}

fn status(args: &Args) -> ExitCode {
    let found = match &args.container {
        None => Status::read(&args.state),
        Some(container) => match looked_up(container, args) {
            Ok(found) => found,
            Err(failure) => return failed(&failure),
        },
    };
    let Some(status) = found else {
        complain(&format!("error: no refresher has left a state in {}", args.state.display()));
        return exit::INTERNAL.into();
    };
    print(&shown(&status));
    if status.is_well() { ExitCode::SUCCESS } else { exit::FAILED.into() }
}

fn looked_up(container: &str, args: &Args) -> Result<Option<Status>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(in_container(container, &args.state))
}

fn shown(status: &Status) -> String {
    let id = |id: &Option<crate::refresh::Id>| match id {
        Some(id) => id.generation.as_ref().map_or_else(|| id.digest.clone(), |name| format!("{name}  {}", id.digest)),
        None => "not known".to_owned(),
    };
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:10}  {}", harmless(value));
    };
    line("directory", &status.directory);
    line("refresher", &format!("process {}, fanli {}; {}", status.pid, status.version, status.watching));
    line("wanted", &id(&status.wanted));
    let since = if status.loaded.is_some() { format!(", since {} UTC", utc(status.since)) } else { String::new() };
    line("loaded", &format!("{}{since}", id(&status.loaded)));
    line("reloads", &status.reloads.to_string());
    if let Some(error) = &status.error {
        line("trouble", &format!("since {} UTC: {error}", utc(status.error_since)));
    }
    text
}
