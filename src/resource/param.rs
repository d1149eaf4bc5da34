//! Reading evaluated values into the Rust types of a kind's parameters.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::schema::ParamType;
use crate::value::{Arrow, Blob, Call, Map, Quoted, Tree, Value};

/// A Rust type that a parameter can have.
pub trait Param: Sized {
    /// Its type in the language.
    const TYPE: ParamType;
    /// Reads a value that [`ParamType::accepts`] has let through; a value that still does not fit is an error.
    fn read(value: Value) -> Result<Self, String>;
    /// The value when the parameter is not given; `None` makes it required.
    fn missing() -> Option<Self> {
        None
    }
    /// As a playbook would write it, for documentation of defaults.
    fn show(&self) -> String;
    /// The value that `read` reads back, for arguments that are kept. Words and what is read from text need no other.
    fn value(&self) -> Value {
        Value::Str(self.show())
    }
}

fn misfit<T>(kind: ParamType, value: &Value) -> Result<T, String> {
    kind.accepts(value).and_then(|()| Err(format!("expected {}, found `{value}`", kind.show())))
}

macro_rules! plain_params {
    ($($rust:ty, $kind:ident, $pattern:pat => $read:expr, $show:expr, $value:expr;)*) => { $(
        impl Param for $rust {
            const TYPE: ParamType = ParamType::$kind;
            fn read(value: Value) -> Result<Self, String> {
                match value {
                    $pattern => Ok($read),
                    other => misfit(Self::TYPE, &other),
                }
            }
            fn value(&self) -> Value {
                let value: fn(&Self) -> Value = $value;
                value(self)
            }
            fn show(&self) -> String {
                let show: fn(&Self) -> String = $show;
                show(self)
            }
        }
    )* };
}

/// File permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(pub u32);

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

/// An absolute path on the host, checked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPath(pub String);

/// A template beside the playbook, rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rendered(pub Blob);

/// A user or group by name or number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A name, looked up on the host.
    Name(String),
    /// A number, taken as it is.
    Id(u32),
}

plain_params! {
    bool, Bool, Value::Bool(flag) => flag, ToString::to_string, |flag| Value::Bool(*flag);
    i64, Int, Value::Int(number) => number, ToString::to_string, |number| Value::Int(*number);
    Mode, Mode, Value::Mode(mode) => Mode(mode), |mode| Value::Mode(mode.0).to_string(), |mode| Value::Mode(mode.0);
    Size, Size, Value::Size(bytes) => Size(bytes), |size| Value::Size(size.0).to_string(), |size| Value::Size(size.0);
    Duration, Duration, Value::Duration(time) => time, |time| Value::Duration(*time).to_string(), |time| Value::Duration(*time);
    IpNet, Net, Value::Net(net) => net, ToString::to_string, |net| Value::Net(*net);
    Map, Map, Value::Map(map) => map, |map| Value::Map(map.clone()).to_string(), |map| Value::Map(map.clone());
    Blob, File, Value::Blob(blob) => blob, |blob| Value::Blob(*blob).to_string(), |blob| Value::Blob(*blob);
    Rendered, Template, Value::Blob(blob) => Rendered(blob), |blob| Value::Blob(blob.0).to_string(), |blob| Value::Blob(blob.0);
    Tree, Tree, Value::Tree(tree) => tree, |tree| Value::Tree(tree.clone()).to_string(), |tree| Value::Tree(tree.clone());
    Arrow, Mount, Value::Arrow(arrow) => *arrow, |arrow| Value::Arrow(Box::new(arrow.clone())).to_string(), |arrow| Value::Arrow(Box::new(arrow.clone()));
}

impl Param for Value {
    const TYPE: ParamType = ParamType::Any;
    fn read(value: Value) -> Result<Self, String> {
        Ok(value)
    }
    fn value(&self) -> Value {
        self.clone()
    }
    fn show(&self) -> String {
        Quoted(self).to_string()
    }
}

impl Param for String {
    const TYPE: ParamType = ParamType::Str;
    fn read(value: Value) -> Result<Self, String> {
        match value {
            Value::Str(text) => Ok(text),
            Value::Int(_) | Value::Ip(_) | Value::Net(_) => Ok(value.to_string()),
            other => misfit(Self::TYPE, &other),
        }
    }
    fn value(&self) -> Value {
        Value::Str(self.clone())
    }
    fn show(&self) -> String {
        format!("\"{self}\"")
    }
}

impl Param for IpAddr {
    const TYPE: ParamType = ParamType::Ip;
    fn read(value: Value) -> Result<Self, String> {
        match value {
            Value::Ip(address) => Ok(address),
            Value::Str(text) => text.parse().map_err(|_| format!("`{text}` is not an address")),
            other => misfit(Self::TYPE, &other),
        }
    }
    fn value(&self) -> Value {
        Value::Ip(*self)
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Param for HostPath {
    const TYPE: ParamType = ParamType::Path;
    fn read(value: Value) -> Result<Self, String> {
        Self::TYPE.accepts(&value)?;
        String::read(value).map(Self)
    }
    fn value(&self) -> Value {
        Value::Str(self.0.clone())
    }
    fn show(&self) -> String {
        format!("\"{}\"", self.0)
    }
}

impl Param for Owner {
    const TYPE: ParamType = ParamType::Owner;
    fn read(value: Value) -> Result<Self, String> {
        match value {
            Value::Str(name) => Ok(Self::Name(name)),
            Value::Int(id) => u32::try_from(id).map(Self::Id).map_err(|_| format!("`{id}` is not a user number")),
            other => misfit(Self::TYPE, &other),
        }
    }
    fn value(&self) -> Value {
        match self {
            Self::Name(name) => Value::Str(name.clone()),
            Self::Id(id) => Value::Int((*id).into()),
        }
    }
    fn show(&self) -> String {
        match self {
            Self::Name(name) => format!("\"{name}\""),
            Self::Id(id) => id.to_string(),
        }
    }
}

impl<T: Param> Param for Option<T> {
    const TYPE: ParamType = T::TYPE;
    fn read(value: Value) -> Result<Self, String> {
        if value == Value::Null { Ok(None) } else { T::read(value).map(Some) }
    }
    fn missing() -> Option<Self> {
        Some(None)
    }
    fn value(&self) -> Value {
        self.as_ref().map_or(Value::Null, Param::value)
    }
    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "none".to_owned(), Param::show)
    }
}

impl<T: Param> Param for Vec<T> {
    const TYPE: ParamType = ParamType::List(&T::TYPE);
    fn read(value: Value) -> Result<Self, String> {
        match value {
            Value::List(items) => items.into_iter().map(T::read).collect(),
            single => Ok(vec![T::read(single)?]),
        }
    }
    fn value(&self) -> Value {
        Value::List(self.iter().map(Param::value).collect())
    }
    fn show(&self) -> String {
        format!("[{}]", self.iter().map(Param::show).collect::<Vec<_>>().join(", "))
    }
}

crate::choice! {
    /// Whether a thing is to be there: the `state` of most kinds.
    pub enum Presence {
        /// It is there, as declared.
        Present = "present",
        /// It is not there.
        Absent = "absent",
    }
}

/// Reads a constructor whose name is one of `names`.
pub fn read_call(value: Value, names: &'static [&'static str]) -> Result<Call, String> {
    match value {
        Value::Call(call) if names.contains(&call.name.as_str()) => Ok(*call),
        other => misfit(ParamType::Call(names), &other),
    }
}

/// Makes an enum whose variants are words of the language: `choice! { pub enum Run { Running = "running", … } }`.
#[macro_export]
macro_rules! choice {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$vmeta:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name { $($(#[$vmeta])* $variant),+ }

        impl $crate::resource::Param for $name {
            const TYPE: $crate::resource::ParamType = $crate::resource::ParamType::Choice(&[$($word),+]);
            fn read(value: $crate::value::Value) -> Result<Self, String> {
                Self::TYPE.accepts(&value)?;
                match value.as_str() {
                    $(Some($word) => Ok(Self::$variant),)+
                    _ => Err(format!("expected {}, found `{value}`", Self::TYPE.show())),
                }
            }
            fn show(&self) -> String {
                match self { $(Self::$variant => $word.to_owned()),+ }
            }
        }
    };
}

/// A step in constructor form is taken out of its block before the kind reads its arguments, so a kind only declares it.
#[macro_export]
macro_rules! follow_up {
    ($(#[$meta:meta])* $vis:vis struct $name:ident [$($kind:literal),+]) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis struct $name;

        impl $crate::resource::Param for $name {
            const TYPE: $crate::resource::ParamType = $crate::resource::ParamType::Step(&[$($kind),+]);
            fn read(_: $crate::value::Value) -> Result<Self, String> {
                Ok(Self)
            }
            fn show(&self) -> String {
                String::new()
            }
        }
    };
}

/// Declares a kind: its struct, its schema and the reading of its arguments, from one text.
///
/// ```text
/// kind! {
///     /// Keeps a file as declared.          <- the summary, then more lines of markdown
///     pub struct File = "file" {
///         /// Where it stands.
///         path: HostPath,                    <- the first field is the title; no default: required
///         /// Its permissions.
///         mode: Mode = Mode(0o644),          <- a default
///         /// Its owner.
///         owner: Option<Owner>,              <- optional
///     }
///     results { "lines": "how many" }        <- may be left out
///     children ["attach"]                    <- may be left out
///     example r#"file "/tmp/x" { content = "a" }"#
/// }
/// ```
#[macro_export]
macro_rules! kind {
    (
        $(#[doc = $doc:literal])+
        $vis:vis struct $name:ident = $word:literal {
            $($(#[doc = $fdoc:literal])+ $field:ident : $type:ty $(= $default:expr)? ),+ $(,)?
        }
        $(results { $($result:literal : $rdoc:literal),+ $(,)? })?
        $(children [$($child:literal),+])?
        example $example:literal
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug)]
        $vis struct $name { $($(#[doc = $fdoc])+ pub $field: $type),+ }

        impl $crate::resource::Declared for $name {
            fn schema() -> $crate::resource::Schema {
                $crate::resource::Schema {
                    name: $word,
                    doc: $crate::resource::param::doc_text(&[$($doc),+]),
                    fields: vec![$({
                        let default: Option<$type> = $crate::kind!(@default $type $(, $default)?);
                        $crate::resource::FieldSpec {
                            name: $crate::resource::param::plain(stringify!($field)),
                            doc: $crate::resource::param::doc_text(&[$($fdoc),+]),
                            kind: <$type as $crate::resource::Param>::TYPE,
                            required: default.is_none(),
                            default: default.map(|value| $crate::resource::Param::show(&value)),
                        }
                    }),+],
                    results: &[$($($crate::resource::ResultSpec { name: $result, doc: $rdoc }),+)?],
                    children: &[$($($child),+)?],
                    example: $example,
                }
            }

            fn from_args(mut args: $crate::value::Map) -> Result<Self, Vec<$crate::resource::ArgError>> {
                let mut errors = Vec::new();
                $(
                    let $field: Option<$type> = match args.remove($crate::resource::param::plain(stringify!($field))) {
                        Some(value) => match <$type as $crate::resource::Param>::read(value) {
                            Ok(read) => Some(read),
                            Err(message) => {
                                errors.push($crate::resource::ArgError::new($crate::resource::param::plain(stringify!($field)), message));
                                None
                            }
                        },
                        None => {
                            let default: Option<$type> = $crate::kind!(@default $type $(, $default)?);
                            if default.is_none() {
                                let name = $crate::resource::param::plain(stringify!($field));
                                errors.push($crate::resource::ArgError::new(name, "is required"));
                            }
                            default
                        }
                    };
                )+
                for unknown in args.into_keys() {
                    errors.push($crate::resource::ArgError::new(unknown, "is not a parameter of this kind"));
                }
                match ($($field,)+) {
                    ($(Some($field),)+) if errors.is_empty() => Ok(Self { $($field),+ }),
                    _ => Err(errors),
                }
            }

            fn args(&self) -> $crate::value::Map {
                let all = [$(($crate::resource::param::plain(stringify!($field)), $crate::resource::Param::value(&self.$field))),+];
                let given = all.into_iter().filter(|(_, value)| *value != $crate::value::Value::Null);
                given.map(|(name, value)| (name.to_owned(), value)).collect()
            }
        }
    };
    (@default $type:ty, $default:expr) => { Some($default) };
    (@default $type:ty) => { <$type as $crate::resource::Param>::missing() };
}

/// A field's name in playbooks: `r#type` in Rust is `type` there.
pub fn plain(name: &'static str) -> &'static str {
    name.strip_prefix("r#").unwrap_or(name)
}

/// Doc comment lines as one text, without the blank that rustdoc leaves before each.
pub fn doc_text(lines: &[&str]) -> String {
    lines.iter().map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n")
}
