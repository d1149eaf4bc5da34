//! Which nodes go together, and in which batch.

use std::collections::BTreeMap;

use super::super::batch::Sizes;
use super::super::model::{Arg, Step};
use super::images;
use super::parts::Part;
use crate::value::{Map, Value};

/// Nodes that go together, by place: those of one host that share a directory.
pub(super) fn units(parts: &[Part]) -> Vec<Vec<usize>> {
    let mut units: Vec<Vec<usize>> = Vec::new();
    let mut of_path: BTreeMap<(usize, &str), usize> = BTreeMap::new();
    for (at, part) in parts.iter().enumerate() {
        let paths = || part.slots.iter().map(|slot| (part.host, slot.path.as_str()));
        let known = paths().find_map(|path| of_path.get(&path).copied());
        let unit = known.unwrap_or_else(|| {
            units.push(Vec::new());
            units.len() - 1
        });
        if let Some(members) = units.get_mut(unit) {
            members.push(at);
        }
        // Two directories that are shared with different nodes make one unit of all of them.
        for path in paths() {
            if let Some(other) = of_path.insert(path, unit).filter(|other| *other != unit) {
                let moved = units.get_mut(other).map(std::mem::take).unwrap_or_default();
                if let Some(members) = units.get_mut(unit) {
                    members.extend(moved);
                }
                of_path.values_mut().filter(|known| **known == other).for_each(|known| *known = unit);
            }
        }
    }
    units.retain(|unit| !unit.is_empty());
    units
}

/// Batches of whole units: a batch has at least one, and no more nodes than its size and than `most` unless the first unit is larger.
pub(super) fn cut(units: Vec<Vec<usize>>, sizes: Option<&Sizes>, most: usize) -> Vec<Vec<usize>> {
    let total = units.iter().map(Vec::len).sum();
    let cuts = sizes.map_or_else(|| vec![total], |sizes| sizes.cut(total));
    let (mut batches, mut cuts) = (Vec::new(), cuts.into_iter());
    let mut left = units.into_iter().peekable();
    let mut last = 1;
    while left.peek().is_some() {
        let size = cuts.next().unwrap_or(last).min(most.max(1));
        last = size;
        let mut batch = left.next().unwrap_or_default();
        while let Some(unit) = left.next_if(|unit| batch.len() + unit.len() <= size) {
            batch.extend(unit);
        }
        batches.push(batch);
    }
    batches
}

/// What a host does by itself, after it has put a directory back: the steps that bring its nodes back and make them load it.
pub(super) fn reverts(parts: &[Part], rollout: &str) -> BTreeMap<(usize, String), Value> {
    let mut found: BTreeMap<(usize, String), Vec<Value>> = BTreeMap::new();
    for part in parts {
        // What is attached comes back by the watcher that does this.
        let back = images::formers(part, rollout, "back", &[]);
        let steps: Vec<Value> = back.iter().chain(&part.reload).filter_map(plain).collect();
        for slot in &part.slots {
            found.entry((part.host, slot.path.clone())).or_default().extend(steps.iter().cloned());
        }
    }
    found.into_iter().map(|(slot, steps)| (slot, Value::List(steps))).collect()
}

/// A step as data that a host can keep; one that needs facts or results cannot be.
pub(super) fn plain(step: &Step) -> Option<Value> {
    let args = Value::Map(Arg::all_ready(&step.args)?);
    let step = [("kind".to_owned(), Value::from(step.kind.as_str())), ("args".to_owned(), args)];
    Some(Value::Map(Map::from(step)))
}
