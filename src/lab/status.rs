//! `lab status`: what is there and what answers.

use std::io::Write;

use super::layout::Lab;
use super::{daemons, process, say};
use crate::failure::Failure;

/// Lists the lab's hosts.
///
/// # Errors
/// When something that should answer does not; the list is written first.
pub(super) fn status(lab: &Lab, out: &mut (dyn Write + Send)) -> Result<(), Failure> {
    say(out, &format!("lab `{}`: {} on {}, files in {}", lab.name, lab.network, lab.bridge(), lab.dir.display()));
    let word = |answers: bool| if answers { "answers" } else { "down" };
    let mut down = Vec::new();
    for host in lab.hosts() {
        let (ssh, docker) = (daemons::ssh_answers(&host), daemons::docker_answers(&host));
        let count = process::of_host(&host).len();
        let line = format!(
            "{:<12} {:<15} sshd {:<8} dockerd {:<8} {count} processes",
            host.name,
            host.address.to_string(),
            word(ssh),
            word(docker)
        );
        say(out, &line);
        if !(ssh && docker) {
            down.push(host.name);
        }
    }
    if down.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("not everything answers on {}", down.join(", "))).hint(format!(
        "mend it: fanli lab up {} --name {}",
        lab.hosts().len(),
        lab.name
    )))
}
