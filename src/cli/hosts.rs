//! `fanli hosts`: the inventory as it resolves.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::{complain, exit, print, request};
use crate::book::View;
use crate::plan::{self, Connection};
use crate::source::Sources;

/// List hosts and nodes: names, addresses, who carries whom
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  fanli hosts web-tier.fp --env lab
  fanli hosts web-tier.fp --env lab --set web_nodes=5    what if")]
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
    let inventory = match plan::make(&playbook, found, &asked, &mut sources, &mut View::new(&asked.run)) {
        Ok((_, inventory)) => inventory,
        Err(errors) => {
            complain(&request::errors(&errors, &sources));
            return exit::BAD_INPUT.into();
        }
    };
    let names = inventory.hosts.iter().map(|host| &host.name).chain(inventory.nodes.iter().map(|node| &node.name));
    let width = names.map(String::len).max().unwrap_or(0);
    let mut text = String::new();
    for (index, host) in inventory.hosts.iter().enumerate() {
        let reached = match &host.connection {
            Connection::Local { .. } => "this machine".to_owned(),
            Connection::Ssh { destination, user, .. } => {
                let user = user.as_ref().map_or_else(String::new, |user| format!("{user}@"));
                format!("ssh {user}{destination}")
            }
        };
        let _ = writeln!(text, "{:width$}  {reached}  ({})", host.name, host.groups.join(", "));
        for node in inventory.nodes.iter().filter(|node| node.host == index) {
            let address = node.address.map_or_else(|| "no address".to_owned(), |address| address.to_string());
            let _ = writeln!(text, "  {:width$}  {address}  ({})", node.name, node.group);
        }
    }
    print(&text);
    ExitCode::SUCCESS
}
