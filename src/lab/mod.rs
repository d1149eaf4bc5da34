//! The playground: several docker hosts on one machine, with addresses of their own, for trying everything out.
//!
//! ```text
//!   this machine                                  a host: network, mount, pid, uts and ipc namespaces of its own
//!   bridge fl-lab  10.88.255.254/16 ── fl-lab-1 ═ eth0 10.88.0.1/16   sshd, dockerd, /run, /data, /var/lib/docker, …
//!                                  └── fl-lab-2 ═ eth0 10.88.0.2/16   and its own view of /etc, /usr, /opt (overlays)
//! ```
//!
//! The bridge is the switch that real hosts would hang on: macvlan nodes of one host reach those of another through it.
//! Everything of a host lives in its pid namespace, so ending the first process ends it all, even after a crash; everything
//! else (network namespace, link, iptables rules) has a name made from the lab's. So `up` can mend what is missing and
//! `down` can remove what is left, whatever happened in between.

mod daemons;
mod down;
mod inside;
mod layout;
mod process;
mod status;
mod switch;
mod tools;
mod up;

use std::io::Write;
use std::path::PathBuf;

use ipnet::Ipv4Net;

use crate::failure::Failure;

/// Where labs keep the files of their hosts, unless told otherwise.
pub const DIR: &str = "/var/lib/fanli-lab";

/// `fanli lab …`
#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Start hosts, each with its own network, sshd, dockerd and files, or mend those that are there
    #[command(after_help = "Examples:
  fanli lab up 3                     three hosts: lab1, lab2, lab3
  fanli lab up 5 --name big          another lab beside it
  fanli lab up 3 --dir /data/labs    files elsewhere")]
    Up {
        /// So many hosts, 1 to 200
        #[arg(value_name = "HOSTS", value_parser = clap::value_parser!(u8).range(1..=200))]
        hosts: u8,
        /// Name the lab; its hosts' names begin with it: at most 8 of a-z and 0-9
        #[arg(long, default_value = "lab")]
        name: String,
        /// Keep the hosts' files here
        #[arg(long, default_value = DIR)]
        dir: PathBuf,
        /// Use this network, a /16: hosts are x.y.0.1, x.y.0.2, …; this machine is x.y.255.254
        #[arg(long, default_value = "10.88.0.0/16")]
        network: Ipv4Net,
    },
    /// List the hosts, their addresses, and whether their daemons answer
    #[command(after_help = "Examples:
  fanli lab status
  fanli lab status --name big
\nExits with 1 when one does not answer.")]
    Status {
        /// The name of the lab
        #[arg(long, default_value = "lab")]
        name: String,
    },
    /// Remove every process, namespace, link, rule and file of a lab
    #[command(after_help = "Examples:
  fanli lab down           remove everything
  fanli lab down --keep    keep images, containers and data for the next `up`")]
    Down {
        /// The name of the lab
        #[arg(long, default_value = "lab")]
        name: String,
        /// Keep the hosts' files for the next `up`: images, containers, data
        #[arg(long)]
        keep: bool,
    },
    /// The first process of a host. `up` starts it; nobody else should.
    #[command(hide = true)]
    Host {
        /// The host's name.
        #[arg(long)]
        name: String,
        /// The host's files.
        #[arg(long)]
        dir: PathBuf,
    },
}

/// Runs the command; what a person should read goes to `out`.
///
/// # Errors
/// When a lab cannot be started, found or removed, with the way out.
pub fn run(args: Args, out: &mut (dyn Write + Send)) -> Result<(), Failure> {
    match args.command {
        Command::Up { hosts, name, dir, network } => up::up(&layout::Lab::new(&name, &dir, network)?, hosts, out),
        Command::Status { name } => status::status(&layout::Lab::running(&name)?, out),
        Command::Down { name, keep } => down::down(&name, keep, out),
        Command::Host { name, dir } => inside::first_process(&name, &dir),
    }
}

/// A line for people. A reader who went away is no reason to leave a lab half done.
fn say(out: &mut (dyn Write + Send), line: &str) {
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}
