//! Exit codes: the contract with Jenkins and scripts, in one place.

use std::process::ExitCode;

use crate::event::Verdict;

/// Everything is as declared, whether something was done or not.
pub const OK: u8 = 0;
/// fanli itself failed in a way that has no code of its own.
pub const INTERNAL: u8 = 1;
/// The playbook or the command line is wrong; nothing was sent to any host. Also `fmt --check` with files to format.
pub const BAD_INPUT: u8 = 2;
/// `--check --detailed-exit-code`: something would change, or cannot be known.
pub const WOULD_CHANGE: u8 = 3;
/// Steps failed on some host.
pub const FAILED: u8 = 4;
/// No step failed, but hosts could not be reached, went away, or said what they may not.
pub const UNREACHABLE: u8 = 5;
/// Another run was at work on a host and did not end within `--lock-wait`; nothing was done on any host.
pub const BUSY: u8 = 6;
/// Stopped by SIGHUP: the terminal or the connection that the run was started from is gone.
pub const HUNG_UP: u8 = 129;
/// Stopped by SIGINT (Ctrl-C).
pub const INTERRUPTED: u8 = 130;
/// Stopped by SIGTERM (Jenkins' abort).
pub const TERMINATED: u8 = 143;

/// The table that `fanli --help` shows.
pub const TABLE: &str = "\
Examples:
  fanli doc                                          the kinds of tasks
  fanli doc playbook                                 the language on one page
  fanli check web-tier.fp                            look for errors, touch no host
  fanli play web-tier.fp --env lab --check --diff    show what would change
  fanli play web-tier.fp --env lab                   change it

Exit codes:
  0    everything is as declared, whether something was done or not; but for failures
       that `ignore_failure` lets pass, which are counted
  1    fanli itself failed
  2    the playbook or the command line is wrong, or --tags, --limit or --set choose or
       set what is not there: nothing was sent to any host;
       fmt --check: a file is not formatted
  3    --check --detailed-exit-code: something would change, or cannot be known
  4    steps failed (also when other hosts could not be reached)
  5    hosts could not be reached, went away or are not trusted; no step failed
  6    another run was at work on a host; nothing was done on any
  129  stopped by SIGHUP (the terminal is gone)
  130  stopped by SIGINT (Ctrl-C)
  143  stopped by SIGTERM (Jenkins' abort)";

/// The exit code of a run. `signal` is the one that stopped it.
pub fn of(verdict: Verdict, detailed: bool, signal: Option<i32>) -> ExitCode {
    let code = match verdict {
        Verdict::WouldChange if detailed => WOULD_CHANGE,
        Verdict::Converged | Verdict::WouldChange => OK,
        Verdict::Failed => FAILED,
        Verdict::Unreachable => UNREACHABLE,
        Verdict::Busy => BUSY,
        Verdict::Aborted => match signal {
            Some(1) => HUNG_UP,
            Some(15) => TERMINATED,
            _ => INTERRUPTED,
        },
    };
    code.into()
}
