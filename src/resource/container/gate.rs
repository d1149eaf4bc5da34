//! `gate`: fanli stands before a container's program until its interface is there.
//!
//! Not a second container whose network the first one joins: when the holder restarts, the program stays in the old network,
//! and after a crash of the daemon the two start in any order (research/networking.md, section 5). Here the container is one,
//! restarts as one, and each start waits anew.

use std::path::Path;

use super::super::watcher;
use crate::failure::Failure;
use crate::system::container_body::{Bind, Body, Propagation};
use crate::system::docker::Image;
use crate::system::{Actuator, Probe};

/// The field that says whether fanli is there to be mounted.
pub(super) const FIELD: &str = "gate_program";

/// Where it shows in the container.
const INSIDE: &str = "/.fanli";

pub(super) fn installed(probe: &Probe) -> Result<bool, Failure> {
    Ok(probe.is_own_program(Path::new(watcher::PROGRAM))?.is_some())
}

/// Installs fanli where it is missing. Another version stays: a `watcher` task keeps it up to date, and a gate is a gate.
pub(super) fn install(hands: &Actuator) -> Result<(), Failure> {
    if installed(hands)? { Ok(()) } else { watcher::install(Path::new(watcher::PROGRAM), hands) }
}

/// The program that stands behind the gate, or the program itself where there is none.
pub(in crate::resource) fn behind(command: &[String]) -> &[String] {
    match command {
        [program, word, dashes, rest @ ..] if program.starts_with(INSIDE) && word == "gate" && dashes == "--" => rest,
        all => all,
    }
}

/// What Docker would have started is what the gate becomes.
pub(super) fn stand_before(body: &mut Body, image: Image) -> Result<(), Failure> {
    // As Docker has it: an entry point of one's own leaves the image's command out.
    let own = body.entrypoint.take();
    let default = if own.is_some() { Vec::new() } else { image.command };
    let mut program = own.unwrap_or(image.entrypoint);
    program.extend(body.command.take().unwrap_or(default));
    if program.is_empty() {
        return Err(Failure::new(format!("image {} has no command that could start behind the gate", body.image))
            .hint("declare `command`"));
    }
    let name = Path::new(watcher::PROGRAM).file_name().unwrap_or_default();
    body.entrypoint = Some(vec![format!("{INSIDE}/{}", name.to_string_lossy()), "gate".to_owned(), "--".to_owned()]);
    body.command = Some(program);
    Ok(())
}

/// Mounts fanli into the container. The directory, so that a newer program is seen after a restart.
pub(super) fn bring_along(body: &mut Body) {
    let file = Path::new(watcher::PROGRAM);
    let (from, to) = (file.parent().unwrap_or(file).to_string_lossy().into_owned(), INSIDE.to_owned());
    body.binds.push(Bind { from, to, read_only: true, propagation: Propagation::Private });
}
