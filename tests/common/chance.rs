//! Choices by a seed that is printed, and how much of a long sweep a run takes.

use std::time::{SystemTime, UNIX_EPOCH};

/// Repeats the choices of an earlier run.
const SEED: &str = "FANLI_TEST_SEED";

/// Says how many moments of a sweep are tried: a number, or `all`.
const MOMENTS: &str = "FANLI_TEST_MOMENTS";

/// Set by `tests/run soak`: sweeps are run whole.
const SOAK: &str = "FANLI_TEST_SOAK";

/// Returns how many moments of a sweep this run tries: `usual`, `soak` in a soak, or what `FANLI_TEST_MOMENTS` says.
pub fn moments(usual: usize, soak: usize) -> usize {
    match std::env::var(MOMENTS).ok().as_deref() {
        Some("all") => soak,
        Some(number) => {
            number.parse().unwrap_or_else(|_| panic!("{MOMENTS}: `{number}` is neither a number nor `all`"))
        }
        None if self::soak() => soak,
        None => usual,
    }
}

/// Whether this is a soak: what is tried together elsewhere is tried one after the other.
pub fn soak() -> bool {
    std::env::var_os(SOAK).is_some()
}

/// Random numbers that a seed gives again (splitmix64).
pub struct Chance(u64);

impl Chance {
    /// Takes the seed from `FANLI_TEST_SEED`, or from the clock, and prints it.
    pub fn new() -> Self {
        let asked = std::env::var(SEED)
            .ok()
            .map(|text| text.parse().unwrap_or_else(|_| panic!("{SEED}: `{text}` is not a number")));
        let seed = asked.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            u64::from(now.subsec_nanos())
        });
        eprintln!("{SEED}={seed} repeats these choices");
        Self::of(seed)
    }

    /// Takes a seed that is known, and prints nothing.
    pub const fn of(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap()
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.index(of.len())]
    }

    /// Returns `count` of the items in their order, one from each of as many equal stretches.
    pub fn some<T>(&mut self, items: impl IntoIterator<Item = T>, count: usize) -> Vec<T> {
        let mut items: Vec<Option<T>> = items.into_iter().map(Some).collect();
        let (all, count) = (items.len(), count.min(items.len()));
        let mut one = |stretch: usize| {
            let (start, end) = (stretch * all / count, (stretch + 1) * all / count);
            items[start + self.index(end - start)].take()
        };
        (0..count).filter_map(&mut one).collect()
    }
}
