//! `fanli logs`: keeps what `fanli log-pipe` has written, stores copies of it, reads it back, and accounts for it.

mod audit;
mod keep;
mod lines;
mod read;
mod status;

use std::process::ExitCode;

use clap::Subcommand;

/// Read, compress, copy, remove and audit what `fanli log-pipe` has written
#[derive(clap::Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Print lines of all nodes in the order of time
    #[command(after_help = "Examples:
  fanli logs cat web-tier.fp --env lab --since 2h            of all nodes, over ssh
  fanli logs cat web-tier.fp --env lab --limit web08010 --site shop --since 15:00 --until 15:10
  fanli logs cat web-tier.fp --env lab --since 1d --bare | goaccess -
  fanli logs cat /data/weblogs                               of a folder on this host

A line's time is that which stands in it; one without a time follows the line before it. Each line
begins with its node and its site, which is the directory below the folder; without them: --bare.
A host that cannot be reached is told, and the others are read.
Exit codes: 0 all was read; 2 bad input; 4 something could not be read; 5 a host was not reached.")]
    Cat(read::Cat),
    /// Print lines that match a pattern
    #[command(after_help = "Examples:
  fanli logs grep ' 50[0-9] ' web-tier.fp --env lab --since 1h
  fanli logs grep 8d0f3c web-tier.fp --env lab --json | jq -r '.node + \" \" + .file'
  fanli logs grep -i timeout web-tier.fp --env lab --follow     from now on, as they come

The pattern is a regular expression (docs.rs/regex) over bytes. Each host looks through its own
files, and sends only what matches.
Exit codes: 0 all was read, whether something matched or not; 2 bad input; 4 something could not be
read; 5 a host was not reached.")]
    Grep(read::Grep),
    /// Print the last lines of all nodes together, and with --follow those that come
    #[command(after_help = "Examples:
  fanli logs tail web-tier.fp --env lab                  the last 20 lines of all nodes together
  fanli logs tail -f web-tier.fp --env lab               and then what comes, until Ctrl-C
  fanli logs tail -f -n 0 web-tier.fp --env lab --limit lab1 --site shop
  fanli logs tail -f                                     on a host: of what its `logs` tasks declare

Exit codes: 0 all was read; 2 bad input; 4 something could not be read; 5 a host was not reached;
130 ended by Ctrl-C.")]
    Tail(read::Tail),
    /// Tell what folders hold, what has no copy yet, and what was lost; for a monitor, too
    #[command(after_help = "Examples:
  fanli logs status                                         of what is declared on this host
  fanli logs status web-tier.fp --env lab                   of every host of a playbook, over ssh
  fanli logs status web-tier.fp --env prod --max-lag 2h --json || page   as a check of a monitor

`fanli status` tells what the watcher could not do, and why.
Exit codes: 0 all is well; 4 a copy is late, lines were left out in the last day (their disk was
full), or something could not be looked at; 5 a host was not reached.")]
    Status(status::Args),
    /// Account for every file: that it holds what was written, and that its copy is stored
    #[command(after_help = "Examples:
  fanli logs audit                                          of what is declared on this host
  fanli logs audit web-tier.fp --env lab                    of every host of a playbook, over ssh
  fanli logs audit web-tier.fp --env prod --since 30d --json || page   as a check of a monitor
  fanli logs audit /srv/weblogs                             copies, on the host that stores them
  fanli logs audit web-tier.fp --file 2026113015.k3f9q2ab.log   all that happened to a file

It reads every file and compares it with its seal, and looks for every copy at its storage:
  CHANGED   a file does not hold what was written
  GONE      a file was stored, and something else than a limit has removed it
  NO COPY   a copy is not at the storage any more, or has another length
  LOST      lines were left out, or removed before a copy was stored, as the policy says
Exit codes: 0 all is accounted for; 4 something of the above, or something could not be looked at;
5 a host was not reached.")]
    Audit(audit::Args),
    /// Compress and remove files as the limits say, close those of killed writers, and store copies
    #[command(after_help = "Examples:
  fanli logs keep --age 30d --pack zstd /data/weblogs/*
  fanli logs keep --size 20GiB --floor 5GiB /data/weblogs/*      the oldest go first
  fanli logs keep --ship rsync://store/logs/web1 --age 30d /data/weblogs   none goes without a copy
  7 * * * * root fanli logs keep --age 90d --pack gzip /var/log/shop   in /etc/cron.d

Only files with a seal are touched, and none that is being written. Within a folder the oldest goes
first; where a disk is short of room, the folder that holds most gives. Copies are compared with
the files before they count. It can be killed at any moment.
Exit codes: 0 all is done; 1 no folder is known; 2 bad input; 4 something could not be done.")]
    Keep(keep::Limits),
    /// Tell what `keep` would do, and why
    #[command(after_help = "Examples:
  fanli logs plan                                        of what is declared on this host
  fanli logs plan --age 30d --pack zstd /data/weblogs/*
  fanli logs plan --floor 200GiB /data/weblogs/*         what would go if the disk were that full")]
    Plan(keep::Limits),
}

pub(super) fn run(args: Args) -> ExitCode {
    match args.command {
        Command::Cat(args) => args.run(),
        Command::Grep(args) => args.run(),
        Command::Tail(args) => args.run(),
        Command::Status(args) => status::run(args),
        Command::Audit(args) => audit::run(&args),
        Command::Keep(limits) => keep::run(&limits, false),
        Command::Plan(limits) => keep::run(&limits, true),
    }
}
