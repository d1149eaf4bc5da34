//! Decodes messages within limits of depth and of memory, whatever their types are.
//!
//! Postcard has neither limit: a frame of nested lists would overflow the stack, and one of empty lists would take forty times its
//! length. Every deserializer, visitor and access of serde is wrapped in [`Bounded`], which counts.

use std::cell::Cell;
use std::fmt;

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
};

/// How deep values may stand in each other, counted in serde's sequences, maps, structs, enums and options. A list in a list
/// counts two, an operator of an expression three: what the language allows fits.
const MOST_DEPTH: usize = 1024;

/// How many entries the leaf of a `BTreeMap` has room for: the first entry allocates them all.
const LEAF: usize = 11;

/// What was over its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    Depth,
    Memory,
}

/// What is left of the limits.
struct Budget {
    depth: Cell<usize>,
    memory: Cell<usize>,
    over: Cell<Option<Over>>,
}

impl Budget {
    /// Takes `bytes` of the memory that is left.
    fn charge<E: de::Error>(&self, bytes: usize) -> Result<(), E> {
        let Some(left) = self.memory.get().checked_sub(bytes) else {
            self.over.set(Some(Over::Memory));
            return Err(E::custom("too much memory"));
        };
        self.memory.set(left);
        Ok(())
    }

    /// Goes one level deeper for the time of `work`.
    fn deeper<T, E: de::Error>(&self, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let Some(left) = self.depth.get().checked_sub(1) else {
            self.over.set(Some(Over::Depth));
            return Err(E::custom("too deep"));
        };
        self.depth.set(left);
        let done = work();
        self.depth.set(left + 1);
        done
    }
}

/// Decodes a message, and all of `bytes`. What it holds beside its text takes at most `most_memory` bytes.
///
/// # Errors
/// The bytes are no such message, or more follow, or a limit is exceeded: said in words.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8], most_memory: usize) -> Result<T, String> {
    let budget = Budget { depth: Cell::new(MOST_DEPTH), memory: Cell::new(most_memory), over: Cell::new(None) };
    let mut decoder = postcard::Deserializer::from_bytes(bytes);
    let decoded = T::deserialize(Bounded { inner: &mut decoder, budget: &budget });
    let message = decoded.map_err(|error| match budget.over.get() {
        Some(Over::Depth) => format!("its values stand in each other more than {MOST_DEPTH} deep"),
        Some(Over::Memory) => format!("it would take more than {most_memory} bytes of memory"),
        None => error.to_string(),
    })?;
    match decoder.finalize() {
        Ok([]) => Ok(message),
        Ok(rest) => Err(format!("{} bytes follow it", rest.len())),
        Err(error) => Err(error.to_string()),
    }
}

/// Something of serde's, with the limits that it works within.
struct Bounded<'b, T> {
    inner: T,
    budget: &'b Budget,
}

impl<'b, T> Bounded<'b, T> {
    /// Something else within the same limits.
    fn with<U>(&self, inner: U) -> Bounded<'b, U> {
        Bounded { inner, budget: self.budget }
    }
}

/// Values that hold no others.
macro_rules! plain {
    ($($name:ident)*) => {
        $(fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$name(visitor)
        })*
    };
}

/// Values that hold others.
macro_rules! compound {
    ($($name:ident($($arg:ident: $type:ty),*))*) => {
        $(fn $name<V: Visitor<'de>>(self, $($arg: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            let visitor = self.with(visitor);
            self.budget.deeper(|| self.inner.$name($($arg,)* visitor))
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Bounded<'_, D> {
    type Error = D::Error;

    plain! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64
        deserialize_char deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf deserialize_unit
        deserialize_identifier deserialize_ignored_any
    }

    compound! {
        deserialize_option()
        deserialize_newtype_struct(name: &'static str)
        deserialize_seq()
        deserialize_tuple(len: usize)
        deserialize_tuple_struct(name: &'static str, len: usize)
        deserialize_map()
        deserialize_struct(name: &'static str, fields: &'static [&'static str])
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_unit_struct(name, visitor)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Bounded<'_, V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(formatter)
    }

    fn visit_none<E: de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let deserializer = self.with(deserializer);
        self.inner.visit_some(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let deserializer = self.with(deserializer);
        self.inner.visit_newtype_struct(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let access = self.with(access);
        self.inner.visit_seq(access)
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let access = Entries { access: self.with(access), key: 0, first: true };
        self.inner.visit_map(access)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let access = self.with(access);
        self.inner.visit_enum(access)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Bounded<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        let deserializer = self.with(deserializer);
        self.inner.deserialize(deserializer)
    }
}

/// No hint of the length is passed on: nothing is allocated for what has not arrived.
impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.budget.charge(size_of::<S::Value>())?;
        let seed = self.with(seed);
        self.inner.next_element_seed(seed)
    }
}

/// The entries of a map.
struct Entries<'b, A> {
    access: Bounded<'b, A>,
    /// The size of a key.
    key: usize,
    first: bool,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Entries<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.key = size_of::<S::Value>();
        let seed = self.access.with(seed);
        self.access.inner.next_key_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let entry = self.key + size_of::<S::Value>();
        let entries = if std::mem::take(&mut self.first) { LEAF } else { 2 };
        self.access.budget.charge(entries * entry)?;
        let seed = self.access.with(seed);
        self.access.inner.next_value_seed(seed)
    }
}

impl<'de, 'b, A: EnumAccess<'de>> EnumAccess<'de> for Bounded<'b, A> {
    type Error = A::Error;
    type Variant = Bounded<'b, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let budget = self.budget;
        let seed = self.with(seed);
        let (value, inner) = self.inner.variant_seed(seed)?;
        Ok((value, Bounded { inner, budget }))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.with(seed);
        self.inner.newtype_variant_seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        let visitor = self.with(visitor);
        self.budget.deeper(|| self.inner.tuple_variant(len, visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = self.with(visitor);
        self.budget.deeper(|| self.inner.struct_variant(fields, visitor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::{Map, Value};

    /// How much memory a frame may take in these tests.
    const MEMORY: usize = 32 * 1024 * 1024;

    /// Index of `Value::List`, and of `Value::Map`, on the wire.
    const LIST: u8 = 12;
    const MAP: u8 = 13;

    fn nested(levels: usize) -> Vec<u8> {
        let mut bytes = [LIST, 1].repeat(levels);
        bytes.extend([LIST, 0]);
        bytes
    }

    #[test]
    fn values_read_as_postcard_reads_them() {
        let list = Value::List(vec![Value::Null, Value::from("x"), Value::Int(-7), Value::Percent(5)]);
        let ip = Value::Ip("fd00::1".parse().unwrap());
        let map = Value::Map(Map::from([("a".to_owned(), list), ("b".to_owned(), ip)]));
        let bytes = postcard::to_stdvec(&map).unwrap();
        assert_eq!(decode::<Value>(&bytes, MEMORY), Ok(map));
        let longer = [bytes.as_slice(), b"x"].concat();
        assert_eq!(decode::<Value>(&longer, MEMORY), Err("1 bytes follow it".to_owned()));
    }

    #[test]
    fn what_is_nested_too_deep_is_an_error_and_never_overflows_the_stack() {
        assert!(decode::<Value>(&nested(400), MEMORY).is_ok());
        for levels in [600, 400_000] {
            let error = decode::<Value>(&nested(levels), MEMORY).unwrap_err();
            assert!(error.contains("deep"), "{error}");
        }
        // As deep as may be, on a stack of the size that the threads of a runtime have.
        std::thread::spawn(|| assert!(decode::<Value>(&nested(500), MEMORY).is_ok())).join().unwrap();
    }

    #[test]
    fn short_frames_do_not_become_much_memory() {
        let many = |count: usize, item: &[u8]| {
            let mut bytes = vec![LIST];
            bytes.extend(postcard::to_stdvec(&count).unwrap());
            bytes.extend(item.repeat(count));
            bytes
        };
        assert!(decode::<Value>(&many(10_000, &[LIST, 0]), MEMORY).is_ok());
        // Empty lists, nulls, and maps with one entry, each as many as fit a frame.
        for (count, item) in [(1_000_000, vec![0]), (262_000, vec![MAP, 1, 0, 0])] {
            let error = decode::<Value>(&many(count, &item), MEMORY).unwrap_err();
            assert!(error.contains("memory"), "{error}");
        }
        // A length that is not there.
        assert!(decode::<Value>(&[LIST, 0xff, 0xff, 0xff, 0xff, 0x0f], MEMORY).is_err());
    }
}
