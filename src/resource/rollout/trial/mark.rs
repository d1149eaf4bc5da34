//! What is remembered of a generation that passed: that it did, and what it listened on.

use std::path::Path;

use crate::failure::{Context, Failure};
use crate::system::fs::Attrs;
use crate::system::sockets::Listening;
use crate::system::{Actuator, Probe};
use crate::value::{Map, Value};

/// How many are kept on a host.
const KEPT: usize = 256;
/// The longest one, in bytes.
const MOST: u64 = 1 << 20;

/// What a generation listened on: address, port, program.
pub(super) type Listens = Vec<(std::net::IpAddr, u16, String)>;

pub(super) fn of(found: Vec<Listening>) -> Listens {
    let mut listens: Listens = found.into_iter().map(|socket| (socket.address, socket.port, socket.program)).collect();
    // Several sockets share a port where each worker has its own.
    listens.dedup();
    listens
}

/// `None` when it did not pass yet.
pub(super) fn read(mark: &Path, probe: &Probe) -> Result<Option<Listens>, Failure> {
    // One that cannot be read says nothing: the generation is tried again.
    Ok(probe.read(mark, MOST)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

pub(super) fn write(mark: &Path, listens: &Listens, hands: &Actuator) -> Result<(), Failure> {
    let Some(dir) = mark.parent() else { return Ok(()) };
    hands.own_dirs([dir.parent().unwrap_or(dir), dir])?;
    let bytes = serde_json::to_vec(listens).context("cannot write down what was listened on")?;
    hands.replace(mark, &bytes, Attrs::mode(0o600))?;
    let mut all = Vec::new();
    for name in hands.list(dir)?.unwrap_or_default() {
        let path = dir.join(name);
        if let Some(entry) = hands.stat(&path)? {
            all.push((entry.mtime, path));
        }
    }
    all.sort();
    let many = all.len().saturating_sub(KEPT);
    all.into_iter().take(many).try_for_each(|(_, path)| hands.remove_file(path))
}

/// As a step's result.
pub(super) fn shown(listens: &Listens) -> Value {
    let one = |(address, port, program): &(std::net::IpAddr, u16, String)| {
        Value::Map(Map::from([
            ("address".to_owned(), Value::Ip(*address)),
            ("port".to_owned(), Value::Int((*port).into())),
            ("program".to_owned(), Value::from(program.as_str())),
        ]))
    };
    Value::List(listens.iter().map(one).collect())
}
