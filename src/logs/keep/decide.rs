//! What is to be done with segments: a decision by numbers alone, which looks at no disk.
//!
//! Within a folder the oldest goes first; where copies are stored elsewhere, those without a copy stay, or go after all others. Where a disk is
//! short of room it is the folder that holds most that gives: one node that floods its logs takes nothing from the others.

use std::borrow::Borrow;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use crate::logs::codec::Codec;
use crate::logs::folder::{Piece, Shelf, State};
use crate::logs::policy::Policy;
use crate::value::{show_duration, show_size};
use crate::visible::count;

/// What is done with a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// It goes, for this reason.
    Remove(String),
    /// It is closed in the place of its writer.
    Seal,
    /// It is compressed.
    Pack(Codec),
}

/// A deed, and what it is done to: the folder and the segment by their numbers.
pub(super) type Todo = (usize, usize, Deed);

/// Decides for all folders at once. What gives room comes first.
pub(super) fn decide(shelves: &[impl Borrow<Shelf>], policy: &Policy, now: i64) -> Vec<Todo> {
    let mut views: Vec<View> = shelves.iter().map(|shelf| View::new(shelf.borrow())).collect();
    for view in &mut views {
        view.by_age(policy.age, now);
        view.by_count(policy.count);
        view.by_size(policy.size);
    }
    by_floor(&mut views, policy.floor);
    let (mut todo, mut later) = (Vec::new(), Vec::new());
    for (number, view) in views.into_iter().enumerate() {
        let gone: BTreeSet<usize> = view.gone.iter().map(|(at, _)| *at).collect();
        for (at, piece) in view.shelf.pieces.iter().enumerate().filter(|(at, _)| !gone.contains(at)) {
            if piece.state == State::Left {
                later.push((number, at, Deed::Seal));
            }
            let may_be_packed = matches!(piece.state, State::Left | State::Closed);
            let due = policy.pack.filter(|(_, after)| may_be_packed && since(piece.end, now) >= *after);
            later.extend(due.map(|(codec, _)| (number, at, Deed::Pack(codec))));
        }
        todo.extend(view.gone.into_iter().map(|(at, why)| (number, at, Deed::Remove(why))));
    }
    todo.extend(later);
    todo
}

/// How long ago a moment was.
fn since(end: i64, now: i64) -> Duration {
    Duration::from_secs(u64::try_from(now.saturating_sub(end)).unwrap_or(0))
}

/// A folder while it is decided about.
struct View<'a> {
    shelf: &'a Shelf,
    /// What may go and stays so far, by number: what goes first is at the end.
    may_go: Vec<usize>,
    /// What stays: how many, and how many bytes they take.
    stays: (usize, u64),
    gone: Vec<(usize, String)>,
}

impl<'a> View<'a> {
    fn new(shelf: &'a Shelf) -> Self {
        let may_go = |piece: &Piece| piece.state != State::Writing && (piece.stored || !shelf.held_back);
        let may_go = shelf.pieces.iter().enumerate().filter(|(_, piece)| may_go(piece));
        let mut may_go: Vec<(bool, i64, usize)> = may_go.map(|(at, piece)| (!piece.stored, piece.end, at)).collect();
        may_go.sort_unstable_by_key(|key| Reverse(*key));
        let bytes = shelf.pieces.iter().map(|piece| piece.bytes).sum();
        let may_go = may_go.into_iter().map(|(_, _, at)| at).collect();
        Self { shelf, may_go, stays: (shelf.pieces.len(), bytes), gone: Vec::new() }
    }

    /// Lets the next one go; how many bytes that gives.
    fn drop_next(&mut self, why: &str) -> u64 {
        self.may_go.pop().map_or(0, |at| self.drop(at, why))
    }

    /// Lets one go that is no longer among those that may.
    fn drop(&mut self, at: usize, why: &str) -> u64 {
        let bytes = self.shelf.pieces.get(at).map_or(0, |piece| piece.bytes);
        self.stays = (self.stays.0.saturating_sub(1), self.stays.1.saturating_sub(bytes));
        self.gone.push((at, why.to_owned()));
        bytes
    }

    /// How many bytes what goes gives.
    fn given(&self) -> u64 {
        self.gone.iter().filter_map(|(at, _)| self.shelf.pieces.get(*at)).map(|piece| piece.bytes).sum()
    }

    fn by_age(&mut self, age: Option<Duration>, now: i64) {
        let Some(age) = age else { return };
        let why = format!("older than {}", show_duration(age));
        let shelf = self.shelf;
        let is_old = |at: &usize| shelf.pieces.get(*at).is_some_and(|piece| since(piece.end, now) > age);
        let (old, young): (Vec<usize>, Vec<usize>) = self.may_go.iter().partition(|at| is_old(at));
        self.may_go = young;
        old.into_iter().rev().for_each(|at| {
            self.drop(at, &why);
        });
    }

    fn by_count(&mut self, most: Option<usize>) {
        let Some(most) = most else { return };
        let why = format!("more than {}", count(most, "file"));
        while self.stays.0 > most && !self.may_go.is_empty() {
            self.drop_next(&why);
        }
    }

    fn by_size(&mut self, most: Option<u64>) {
        let Some(most) = most else { return };
        let why = format!("more than {} in the folder", show_size(most));
        while self.stays.1 > most && !self.may_go.is_empty() {
            self.drop_next(&why);
        }
    }
}

/// Frees disks that are short of room: each time the folder that holds most gives the next one.
fn by_floor(views: &mut [View<'_>], floor: Option<u64>) {
    let Some(floor) = floor else { return };
    let why = format!("less than {} free on the disk", show_size(floor));
    let disks: BTreeSet<u64> = views.iter().map(|view| view.shelf.disk).collect();
    for disk in disks {
        let on_it = || views.iter().filter(|view| view.shelf.disk == disk);
        let free = on_it().map(|view| view.shelf.free).min().unwrap_or(0);
        let given: u64 = on_it().map(View::given).sum();
        let mut missing = floor.saturating_sub(free.saturating_add(given));
        while missing > 0 {
            let able = views.iter_mut().filter(|view| view.shelf.disk == disk && !view.may_go.is_empty());
            let Some(view) = able.max_by_key(|view| view.stays.1) else { break };
            missing = missing.saturating_sub(view.drop_next(&why));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_000_000;

    fn piece(age: i64, bytes: u64, state: State) -> Piece {
        Piece { end: NOW - age, bytes, state, stored: false }
    }

    /// What is left after what was decided.
    fn after(shelves: &[Shelf], todo: &[Todo]) -> Vec<Shelf> {
        let mut left: Vec<Shelf> = shelves.to_vec();
        let mut given = std::collections::BTreeMap::new();
        for (number, shelf) in left.iter_mut().enumerate() {
            let of = |at: usize| todo.iter().filter(move |(one, other, _)| (*one, *other) == (number, at));
            let mut kept = Vec::new();
            for (at, piece) in shelf.pieces.iter().enumerate() {
                let mut piece = *piece;
                let mut gone = false;
                for (_, _, deed) in of(at) {
                    match deed {
                        Deed::Remove(_) => gone = true,
                        Deed::Seal => piece.state = State::Closed,
                        Deed::Pack(_) => piece.state = State::Packed,
                    }
                }
                if gone {
                    *given.entry(shelf.disk).or_insert(0) += piece.bytes;
                } else {
                    kept.push(piece);
                }
            }
            shelf.pieces = kept;
        }
        left.iter_mut().for_each(|shelf| shelf.free += given.get(&shelf.disk).copied().unwrap_or(0));
        left
    }

    #[test]
    fn the_oldest_goes_and_what_is_written_stays() {
        let pieces = vec![
            piece(10, 5, State::Closed),
            piece(90, 5, State::Writing),
            piece(30, 5, State::Packed),
            piece(20, 5, State::Left),
        ];
        let shelves = [Shelf { disk: 1, free: 100, held_back: false, pieces }];
        let todo = decide(&shelves, &Policy { count: Some(3), ..Policy::default() }, NOW);
        assert_eq!(todo, [(0, 2, Deed::Remove("more than 3 files".to_owned())), (0, 3, Deed::Seal)]);
        let hour = Duration::from_secs(15);
        let todo = decide(&shelves, &Policy { pack: Some((Codec::Gzip, hour)), ..Policy::default() }, NOW);
        assert_eq!(todo, [(0, 3, Deed::Seal), (0, 3, Deed::Pack(Codec::Gzip))]);
        let age = Policy { age: Some(Duration::from_secs(9)), ..Policy::default() };
        assert_eq!(decide(&shelves, &age, NOW).len(), 3);
        assert!(
            decide(&shelves, &age, 0).iter().all(|todo| todo.2 == Deed::Seal),
            "a clock that was set back removes nothing"
        );
    }

    #[test]
    fn on_a_full_disk_the_folder_that_floods_gives() {
        let small = Shelf {
            disk: 1,
            free: 10,
            held_back: false,
            pieces: vec![piece(900, 20, State::Packed), piece(10, 20, State::Closed)],
        };
        let pieces = (0..10).map(|age| piece(age, 100, State::Closed)).collect();
        let flood = Shelf { disk: 1, free: 10, held_back: false, pieces };
        let elsewhere = Shelf { disk: 2, free: 1, held_back: false, pieces: vec![piece(5, 1, State::Closed)] };
        let todo = decide(&[small, flood, elsewhere], &Policy { floor: Some(300), ..Policy::default() }, NOW);
        let gone: Vec<(usize, usize)> = todo.iter().map(|(folder, piece, _)| (*folder, *piece)).collect();
        assert_eq!(gone, [(1, 9), (1, 8), (1, 7), (2, 0)]);
    }

    #[test]
    fn what_has_no_copy_stays_or_goes_last() {
        let stored = |age: i64| Piece { stored: true, ..piece(age, 5, State::Packed) };
        let pieces = vec![piece(90, 5, State::Packed), stored(30), piece(20, 5, State::Left), stored(10)];
        let gone = |held_back: bool, policy: &Policy| -> Vec<usize> {
            let shelves = [Shelf { disk: 1, free: 0, held_back, pieces: pieces.clone() }];
            let removed = |todo: &Todo| matches!(todo.2, Deed::Remove(_)).then_some(todo.1);
            decide(&shelves, policy, NOW).iter().filter_map(removed).collect()
        };
        let count = Policy { count: Some(1), ..Policy::default() };
        let age = Policy { age: Some(Duration::from_secs(15)), ..Policy::default() };
        let floor = |bytes| Policy { floor: Some(bytes), ..Policy::default() };
        assert_eq!(gone(true, &count), [1, 3]);
        assert_eq!(gone(true, &age), [1]);
        assert_eq!(gone(true, &floor(100)), [1, 3]);
        assert_eq!(gone(false, &count), [1, 3, 0]);
        assert_eq!(gone(false, &age), [1, 0, 2]);
        assert_eq!(gone(false, &floor(6)), [1, 3]);
    }

    fn shelves() -> impl Strategy<Value = Vec<Shelf>> {
        let state = prop::sample::select(vec![State::Writing, State::Left, State::Closed, State::Packed]);
        let piece = (0_i64..2_000, 0_u64..50, state, any::<bool>()).prop_map(|(age, bytes, state, stored)| Piece {
            stored: stored && state != State::Writing,
            ..piece(age, bytes, state)
        });
        let shelf = (0_u64..2, any::<bool>(), prop::collection::vec(piece, 0..12));
        let with_free = |shelves: Vec<(u64, bool, Vec<Piece>)>, free: [u64; 2]| {
            let shelf = |(disk, held_back, pieces): (u64, bool, Vec<Piece>)| Shelf {
                disk,
                free: free[usize::try_from(disk).unwrap()],
                held_back,
                pieces,
            };
            shelves.into_iter().map(shelf).collect()
        };
        (prop::collection::vec(shelf, 0..4), [0_u64..200, 0_u64..200]).prop_map(move |(all, free)| with_free(all, free))
    }

    fn policies() -> impl Strategy<Value = Policy> {
        let maybe = |most: u64| prop::option::of(0..most);
        let all = (maybe(2_500), maybe(2_500), maybe(500), maybe(12), maybe(600));
        all.prop_map(|(pack, age, size, count, floor)| Policy {
            pack: pack.map(|after| (Codec::Gzip, Duration::from_secs(after))),
            age: age.map(Duration::from_secs),
            size,
            count: count.map(|count| usize::try_from(count).unwrap()),
            floor,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        /// Every limit holds afterwards, or nothing is left that may go; what is written stays, and so does what has no copy where it must; the
        /// oldest of those with a copy goes first, then the oldest of the others; and a second look finds nothing to do.
        #[test]
        fn limits_hold_and_nothing_goes_in_vain(shelves in shelves(), policy in policies()) {
            let todo = decide(&shelves, &policy, NOW);
            let left = after(&shelves, &todo);
            let may_go = |shelf: &Shelf, piece: &Piece| {
                piece.state != State::Writing && (piece.stored || !shelf.held_back)
            };
            let old = |piece: &Piece| policy.age.is_some_and(|age| since(piece.end, NOW) > age);
            for (number, shelf) in left.iter().enumerate() {
                let any_may_go = shelf.pieces.iter().any(|piece| may_go(shelf, piece));
                let bytes: u64 = shelf.pieces.iter().map(|piece| piece.bytes).sum();
                prop_assert!(policy.count.is_none_or(|most| shelf.pieces.len() <= most) || !any_may_go);
                prop_assert!(policy.size.is_none_or(|most| bytes <= most) || !any_may_go);
                prop_assert!(!shelf.pieces.iter().any(|piece| may_go(shelf, piece) && old(piece)));
                let mut on_disk = left.iter().filter(|other| other.disk == shelf.disk);
                let any_on_disk = on_disk.any(|shelf| shelf.pieces.iter().any(|piece| may_go(shelf, piece)));
                prop_assert!(policy.floor.is_none_or(|floor| shelf.free >= floor) || !any_on_disk);
                let is_gone = |at: usize| todo.iter().any(|(one, other, deed)| {
                    (*one, *other) == (number, at) && matches!(deed, Deed::Remove(_))
                });
                let (gone, stays): (Vec<_>, Vec<_>) =
                    shelves[number].pieces.iter().enumerate().partition(|(at, _)| is_gone(*at));
                prop_assert!(gone.iter().all(|(_, piece)| may_go(shelf, piece)));
                // Of two that may go, the one that goes is old by the clock, or comes before the one that stays.
                for (_, gone) in gone.iter().filter(|(_, piece)| !old(piece)) {
                    for (at, stays) in stays.iter().filter(|(_, piece)| may_go(shelf, piece)) {
                        prop_assert!((!gone.stored, gone.end) <= (!stays.stored, stays.end), "{} {}", number, at);
                    }
                }
            }
            prop_assert_eq!(decide(&left, &policy, NOW), []);
            // Without limits of room, only what is too old or too much goes.
            if policy.age.is_none() && policy.count.is_none() && policy.size.is_none() && policy.floor.is_none() {
                prop_assert!(!todo.iter().any(|(_, _, deed)| matches!(deed, Deed::Remove(_))));
            }
        }
    }
}
