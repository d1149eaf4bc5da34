//! How many at a time: `batch 2`, `batch 25%`, `batch [1, 25%, 100%]`.

use super::errors::Errors;
use crate::diagnostic::Diagnostic;
use crate::source::Span;
use crate::value::Value;

/// Sizes of batches; the last one repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sizes(Vec<Size>);

/// A number of nodes, or a share of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Count(usize),
    Percent(usize),
}

impl Size {
    /// Reads a number from 1 or a share from 1% to 100%.
    pub(super) fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Int(count) => usize::try_from(*count).ok().filter(|count| *count > 0).map(Self::Count),
            Value::Percent(share) => {
                usize::try_from(*share).ok().filter(|share| (1..=100).contains(share)).map(Self::Percent)
            }
            _ => None,
        }
    }

    /// Returns how many of `total` that are at most: a share is rounded down, and never less than one.
    pub(super) fn of(self, total: usize) -> usize {
        match self {
            Self::Count(count) => count,
            Self::Percent(share) => (total * share / 100).max(1),
        }
    }
}

/// Reads the value of a `batch` clause.
pub(super) fn read(value: &Value, span: Span, errors: &mut Errors) -> Option<Sizes> {
    let items = match value {
        Value::List(items) if !items.is_empty() => items.clone(),
        single => vec![single.clone()],
    };
    let sizes: Option<Vec<Size>> = items.iter().map(Size::read).collect();
    if sizes.is_none() {
        let error = Diagnostic::new(span, format!("`batch`: {} is no size of a batch", super::expand::told(value)));
        errors.push(error.help("a number from 1, a share from 1% to 100%, or a list of these: `[1, 25%, 100%]`"));
    }
    sizes.map(Sizes)
}

impl Sizes {
    /// How many of `total` go into each batch. Shares are of the whole, rounded up, so that a batch is never empty.
    pub(super) fn cut(&self, total: usize) -> Vec<usize> {
        let (mut left, mut cuts) = (total, Vec::new());
        let last = self.0.last().copied().unwrap_or(Size::Percent(100));
        let mut sizes = self.0.iter().copied().chain(std::iter::repeat(last));
        while left > 0 {
            let size = match sizes.next().unwrap_or(last) {
                Size::Count(count) => count,
                Size::Percent(share) => (total * share).div_ceil(100),
            };
            let size = size.clamp(1, left);
            cuts.push(size);
            left -= size;
        }
        cuts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(items: &[Value], total: usize) -> Vec<usize> {
        let mut errors = Errors::default();
        read(&Value::List(items.to_vec()), Span::default(), &mut errors).unwrap().cut(total)
    }

    #[test]
    fn counts_repeat_and_shares_are_of_the_whole() {
        assert_eq!(cut(&[Value::Int(2)], 5), [2, 2, 1]);
        assert_eq!(cut(&[Value::Percent(25)], 10), [3, 3, 3, 1]);
        assert_eq!(cut(&[Value::Int(1), Value::Percent(25), Value::Percent(100)], 9), [1, 3, 5]);
        assert_eq!(cut(&[Value::Percent(1)], 3), [1, 1, 1]);
        assert_eq!(cut(&[Value::Int(7)], 0), [0usize; 0]);
    }

    #[test]
    fn a_bound_is_rounded_down_and_lets_one_through() {
        let bounds = [(Size::Percent(50), 6), (Size::Percent(50), 3), (Size::Percent(25), 30), (Size::Count(4), 3)];
        assert_eq!(bounds.map(|(size, total)| size.of(total)), [3, 1, 7, 4]);
    }

    #[test]
    fn sizes_that_are_none_are_refused() {
        for wrong in [Value::Int(0), Value::Int(-1), Value::Percent(0), Value::Percent(101), Value::from("2")] {
            assert_eq!(read(&wrong, Span::default(), &mut Errors::default()), None, "{wrong}");
        }
    }
}
