//! `fanli log-pipe`: stands behind a program's pipe, and writes its lines into files of one period each.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jiff::tz::TimeZone;
use tokio::signal::unix::{SignalKind, signal};

use super::{exit, failed, play};
use crate::failure::{Context as _, Failure};
use crate::logs::fifo;
use crate::logs::period::Every;
use crate::logs::pipe::{Input, Orders, run as write_lines};
use crate::logs::spool::OnFull;
use crate::logs::template::Template;

/// Signals that do not end it: a server sends them to a writer that still has lines to read, or to everything in its group.
const SURVIVED: [fn() -> SignalKind; 5] =
    [SignalKind::terminate, SignalKind::hangup, SignalKind::user_defined1, SignalKind::user_defined2, window];

fn window() -> SignalKind {
    SignalKind::window_change()
}

/// Write log lines from standard input into files of one period each
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  CustomLog \"|/.fanli/fanli log-pipe /data/weblogs/www/%Y%m%d%H.log\" combined
                                                     Apache, a file an hour
  fanli log-pipe --fifo /run/nginx/access.log /var/log/nginx/access.%Y%m%d.log
                                                     nginx: `access_log /run/nginx/access.log;`
  fanli log-pipe --every 15m --zone UTC /var/log/app/app.%Y%m%d-%H%M.log < pipe
  fanli log-pipe --size 512MiB --on-full drop /var/log/app/%Y/%m/%d.log

Files are named as the template says, with an ID before the extension: 2026113015.k3f9q2ab.log.
Each writer has files of its own, so that an old and a new one may overlap. A file is closed when
its period ends, also without traffic; then `.NAME.seal` beside it tells its lines, bytes and hash.
The folder before the first conversion must exist; root goes on as the folder's owner. It ends when
its input does, and not by TERM, HUP, USR1, USR2 or WINCH. With `--fifo`, whose writers come and go,
it ends by TERM or INT, once it has read what is there.
Exit codes: 0 everything is written; 1 lines were lost at the end, or nothing could be read;
2 bad input.")]
pub(super) struct Args {
    /// Where lines go: a path with conversions of strftime(3), as cronolog has them
    #[arg(value_name = "TEMPLATE")]
    template: String,

    /// Read from this FIFO instead of standard input; it is made where it is missing
    #[arg(long, value_name = "PATH")]
    fifo: Option<PathBuf>,

    /// The period of a file: `15m`, `hour`, `day`, `month`, `year`; by default that of the finest conversion
    #[arg(long, value_name = "TIME", value_parser = every)]
    every: Option<Every>,

    /// Begin another file when one is as long as this
    #[arg(long, value_name = "SIZE", value_parser = size)]
    size: Option<u64>,

    /// The time zone of names and periods; by default the system's
    #[arg(long, value_name = "ZONE", value_parser = zone)]
    zone: Option<TimeZone>,

    /// The name of the link to the newest file
    #[arg(long, value_name = "NAME", default_value = "latest", value_parser = name)]
    latest: String,

    /// Make no such link
    #[arg(long, conflicts_with = "latest")]
    no_latest: bool,

    /// The permissions of files
    #[arg(long, value_name = "MODE", default_value = "0644", value_parser = mode)]
    mode: u32,

    /// Text that stands in each file's seal, such as the generation of the configuration
    #[arg(long, value_name = "TEXT", value_parser = tag)]
    tag: Option<String>,

    /// How much may wait while the disk is full or slow
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = spool)]
    spool: u64,

    /// What happens to more: the program waits, or lines are left out and counted
    #[arg(long, value_name = "WHAT", default_value = "block")]
    on_full: Full,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Full {
    Block,
    Drop,
}

fn every(text: &str) -> Result<Every, String> {
    match text {
        "minute" => Ok(Every::MINUTE),
        "hour" => Ok(Every::HOUR),
        "day" => Ok(Every::Day),
        "month" => Ok(Every::Month),
        "year" => Ok(Every::Year),
        _ => Every::lasting(play::duration(text)?).map_err(shown),
    }
}

pub(super) fn size(text: &str) -> Result<u64, String> {
    match crate::syntax::parse_value(text).ok().and_then(|expr| crate::expr::literal(&expr)) {
        Some(crate::value::Value::Size(bytes)) if bytes > 0 => Ok(bytes),
        _ => Err("a size is a number and a unit: `512MiB`, `1GiB`".to_owned()),
    }
}

/// The least and the most of a spool, in bytes.
const SPOOL: (u64, u64) = (128 * 1024, 64 * 1024 * 1024);

fn spool(text: &str) -> Result<u64, String> {
    let bytes = size(text)?;
    if (SPOOL.0..=SPOOL.1).contains(&bytes) { Ok(bytes) } else { Err("from 128KiB to 64MiB".to_owned()) }
}

fn zone(text: &str) -> Result<TimeZone, String> {
    TimeZone::get(text).map_err(|_| "no such time zone: `UTC`, `Asia/Shanghai`, `Europe/Berlin`".to_owned())
}

fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("three octal digits: `0644`, `0640`".to_owned()),
    }
}

fn tag(text: &str) -> Result<String, String> {
    let fits = text.len() <= 200 && !text.contains(char::is_control);
    if fits { Ok(text.to_owned()) } else { Err("up to 200 bytes without control characters".to_owned()) }
}

fn name(text: &str) -> Result<String, String> {
    let odd = text.is_empty() || text.len() > 200 || text.starts_with('.') || text.contains(['/', '\0']);
    if odd { Err("a name without `/` that does not begin with a dot".to_owned()) } else { Ok(text.to_owned()) }
}

fn shown(failure: Failure) -> String {
    match failure.hint {
        Some(hint) => format!("{}; {hint}", failure.message),
        None => failure.message,
    }
}

pub(super) fn run(args: Args) -> ExitCode {
    let template = match Template::parse(&args.template) {
        Ok(template) => template,
        Err(failure) => {
            let _ = failed(&failure);
            return exit::BAD_INPUT.into();
        }
    };
    let Some(every) = args.every.or(template.every()) else {
        let failure = Failure::new("it is not said how long a file is for")
            .hint("put the time into the name (`/var/log/app/app.%Y%m%d.log`), or say `--every day`");
        let _ = failed(&failure);
        return exit::BAD_INPUT.into();
    };
    let orders = Orders {
        template,
        every,
        zone: args.zone.unwrap_or_else(TimeZone::system),
        size: args.size,
        latest: (!args.no_latest).then_some(args.latest),
        mode: args.mode,
        tag: args.tag.filter(|tag| !tag.is_empty()),
        spool: usize::try_from(args.spool).unwrap_or(usize::MAX),
        on_full: match args.on_full {
            Full::Block => OnFull::Block,
            Full::Drop => OnFull::Drop,
        },
    };
    let done = match &args.fifo {
        Some(path) => from_fifo(path, orders),
        None => write_lines(orders, Input { lines: std::io::stdin().as_fd(), stop: None }),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = failed(&failure);
            ExitCode::FAILURE
        }
    }
}

fn from_fifo(path: &Path, orders: Orders) -> Result<(), Failure> {
    let (lines, stop) = (fifo::open(path)?, ends_at_a_signal()?);
    write_lines(orders, Input { lines: lines.as_fd(), stop: Some(stop.as_fd()) })
}

/// Returns a pipe that ends at SIGTERM or SIGINT.
fn ends_at_a_signal() -> Result<OwnedFd, Failure> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("no pipe")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().context("no runtime")?;
    let entered = runtime.enter();
    let mut signals = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
    drop(entered);
    let wait = move || {
        if let [Ok(terminate), Ok(interrupt)] = &mut signals {
            runtime.block_on(async {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            });
        }
        drop(writer);
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(wait).context("cannot start a thread")?;
    Ok(reader)
}

/// Has the signals do nothing, as long as what is returned is there. It comes first of all: Apache may send TERM to a writer that it has
/// started a moment ago.
pub(super) fn survive() -> Result<impl Sized, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().context("no runtime")?;
    let entered = runtime.enter();
    let kept = SURVIVED.map(|kind| signal(kind())).into_iter().collect::<Result<Vec<_>, _>>();
    drop(entered);
    Ok((kept.context("cannot take signals")?, runtime))
}
