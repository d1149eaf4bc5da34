//! Rollouts from the playbook to the client: two docker hosts over SSH, six nodes with Apache under supervisor, HAProxy before
//! them, and clients with a ledger.

mod image;
mod image_back;
mod interrupted;
mod killed;
mod logs;
mod observed;
mod place;
mod programs;
mod ways;

use crate::balance::ledger::{Client, Load, summary};
use place::{NODES, Place};

/// Clients that notice whatever goes wrong: kept connections, new ones, bodies that come slowly, large ones.
const CLIENTS: [(Client, usize); 5] = [
    (Client::KeepAlive, 2),
    (Client::Once, 2),
    (Client::SlowPost, 3),
    (Client::SlowPostKeepAlive, 1),
    (Client::Upload, 1),
];

/// Does something while clients ask through the balancer; no request of theirs may fail.
#[track_caller]
fn under_load<T>(place: &Place, what: &str, work: impl FnOnce() -> T) -> T {
    asked_by(&CLIENTS, place, what, work)
}

#[track_caller]
fn asked_by<T>(clients: &[(Client, usize)], place: &Place, what: &str, work: impl FnOnce() -> T) -> T {
    let load = Load::start(std::process::id(), &place.front(), clients);
    std::thread::sleep(std::time::Duration::from_millis(500));
    let done = work();
    std::thread::sleep(std::time::Duration::from_millis(500));
    let rows = load.stop();
    eprintln!("{what}: {}", summary(&rows));
    assert!(rows.len() > 50, "{what}: only {} requests", rows.len());
    assert!(rows.iter().all(|row| !row.failed()), "{what}: {}", summary(&rows));
    done
}

impl Place {
    /// Every node shows and has loaded this.
    #[track_caller]
    fn all_have(&self, word: &str) {
        for node in NODES {
            assert_eq!(self.header(node, "X-Word"), word, "{node}");
            assert_eq!(self.header(node, "X-Generation"), self.current(node), "{node}");
        }
    }
}
