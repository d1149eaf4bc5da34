//! The end of a container that fanli stops: its interfaces go with it at once.
//!
//! A network namespace outlives its container while the kernel is busy with others, or while something else keeps it. So it is held open
//! over the stop, what fanli plugged is removed while it is certain to be there, and then it is let go.

use super::docker::DockerHands;
use super::netlink::NetlinkHands;
use super::netns::Namespace;
use crate::failure::Failure;

/// The network of a container that is about to be stopped.
pub(super) struct Parting(Namespace);

impl DockerHands {
    /// The network of a container that runs and has none of Docker's. One that cannot be opened is left to the kernel.
    pub(super) async fn plugged_network(&self, name: &str) -> Option<Parting> {
        let found = self.container(name).await.ok()??;
        if found.network_mode != "none" {
            return None;
        }
        self.namespace(&found).await.ok().map(Parting)
    }
}

impl Parting {
    /// Removes fanli's links, whatever becomes of the rest. What could not be removed is found by the next plug.
    pub(super) async fn unplug(self) {
        let _ = remove_links(&self.0).await;
    }
}

async fn remove_links(network: &Namespace) -> Result<(), Failure> {
    let inside = NetlinkHands::open(network)?;
    let done = async {
        for link in inside.links().await?.iter().filter(|link| link.alias.starts_with("fanli:1:")) {
            inside.delete_link(link.index).await?;
        }
        Ok(())
    };
    let done = done.await;
    inside.close().await;
    done
}
