//! The values that playbooks compute with.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A mapping with text keys; ordered, so that everything made from it is the same on each run.
pub type Map = BTreeMap<String, Value>;

/// A value of the language. Literals keep their type to the end: `0755` is a mode, never a number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// `null`: known to be nothing.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number with a fraction; only expressions make them.
    Float(f64),
    /// Text. Always data: it is never rendered again.
    Str(String),
    /// File permissions, written in octal: `0755`.
    Mode(u32),
    /// A span of time: `30s`, `2h`, `7d`, `500ms`.
    Duration(Duration),
    /// A number of bytes: `10GiB`, `512MiB`, `4KB`.
    Size(u64),
    /// A share: `25%`.
    Percent(u32),
    /// An address: `10.88.8.1`, `fd00::1`.
    Ip(IpAddr),
    /// A network: `10.88.8.0/24`.
    Net(IpNet),
    /// Addresses from the first to the last, both included: `10.88.8.10 - 10.88.8.200`.
    Range(IpAddr, IpAddr),
    /// `[a, b]`
    List(Vec<Value>),
    /// `{ a = 1  b = 2 }`
    Map(Map),
    /// A constructor such as `http("http://…/ping", within: 30s)`: plain data with a name.
    Call(Box<Call>),
    /// A mount `"/on/host" -> "/in/container" read_only`.
    Arrow(Box<Arrow>),
    /// A file's bytes by hash; the bytes travel apart, and only when they are needed.
    Blob(Blob),
    /// A directory with everything below it, by hash.
    Tree(Tree),
}

/// A constructor with its arguments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// The constructor's name.
    pub name: String,
    /// Arguments by place.
    pub args: Vec<Value>,
    /// Arguments by name.
    pub named: Map,
}

/// One mount of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrow {
    /// On the host.
    pub from: String,
    /// In the container.
    pub to: String,
    /// The flags after it, such as `read_only`.
    pub flags: Vec<String>,
}

/// SHA-256 of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// The first twelve hex digits: enough for people.
    pub fn short(&self) -> String {
        self.to_string().chars().take(12).collect()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

/// Some bytes that travel apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// Their hash.
    pub digest: Digest,
    /// How many there are.
    pub len: u64,
}

/// A directory by hash: the entries below it in order of their paths.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// Every entry, sorted by path.
    pub entries: Vec<TreeEntry>,
}

/// One entry of a [`Tree`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeEntry {
    /// Path below the tree's root, with `/`, without a leading one.
    pub path: String,
    /// What it is.
    pub kind: TreeEntryKind,
}

/// What a [`TreeEntry`] is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TreeEntryKind {
    /// A directory.
    Directory,
    /// A file.
    File {
        /// Its bytes.
        blob: Blob,
        /// Its permissions: those of [`kept_mode`], or what was declared.
        mode: u32,
    },
    /// A symbolic link and its target, unread.
    Link(String),
}

/// What is kept of the permissions of a file beside a playbook: whether it is a program, and whether its group or others may not
/// read it. The rest is the umask of whoever checked it out, so that the same files are the same tree everywhere.
pub fn kept_mode(mode: u32) -> u32 {
    let closed = match mode {
        _ if mode & 0o004 != 0 => 0o755,
        _ if mode & 0o040 != 0 => 0o750,
        _ => 0o700,
    };
    if mode & 0o100 == 0 { closed & 0o644 } else { closed }
}

impl Tree {
    /// One digest for the whole tree: paths, kinds, bytes, permissions.
    pub fn digest(&self) -> Digest {
        let mut text = String::new();
        for entry in &self.entries {
            // NUL cannot stand in a path, so no two trees can make the same text.
            let kind = match &entry.kind {
                TreeEntryKind::Directory => "d".to_owned(),
                TreeEntryKind::File { blob, mode: 0o644 } => format!("f0{}", blob.digest),
                TreeEntryKind::File { blob, mode: 0o755 } => format!("f1{}", blob.digest),
                TreeEntryKind::File { blob, mode } => format!("f{mode:04o}:{}", blob.digest),
                TreeEntryKind::Link(target) => format!("l{target}"),
            };
            let _ = write!(text, "{}\0{kind}\0", entry.path);
        }
        Digest::of(text.as_bytes())
    }
}

impl Value {
    /// The name of the value's type, as error messages and `fanli doc` say it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Str(_) => "string",
            Self::Mode(_) => "mode",
            Self::Duration(_) => "duration",
            Self::Size(_) => "size",
            Self::Percent(_) => "percent",
            Self::Ip(_) => "ip",
            Self::Net(_) => "cidr",
            Self::Range(..) => "ip range",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Call(_) => "call",
            Self::Arrow(_) => "mount",
            Self::Blob(_) => "file",
            Self::Tree(_) => "directory tree",
        }
    }

    /// The text, when this is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// Whether a condition holds on this value. Only `bool` may stand in a condition; everything else gives `None`.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(flag) => Some(*flag),
            _ => None,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Str(text.to_owned())
    }
}
impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Str(text)
    }
}
impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Bool(flag)
    }
}
impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}
impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Int(i64::from(number))
    }
}

/// As the value stands inside a string: `"{{ value }}"`. Literals print as they are written.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(flag) => write!(f, "{flag}"),
            Self::Int(number) => write!(f, "{number}"),
            Self::Float(number) => write!(f, "{number}"),
            Self::Str(text) => f.write_str(text),
            Self::Mode(mode) => write!(f, "{mode:04o}"),
            Self::Duration(time) => f.write_str(&show_duration(*time)),
            Self::Size(bytes) => f.write_str(&show_size(*bytes)),
            Self::Percent(share) => write!(f, "{share}%"),
            Self::Ip(address) => write!(f, "{address}"),
            Self::Net(net) => write!(f, "{net}"),
            Self::Range(first, last) => write!(f, "{first} - {last}"),
            Self::List(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    write!(f, "{}{}", if index > 0 { ", " } else { "" }, Quoted(item))?;
                }
                f.write_str("]")
            }
            Self::Map(map) => {
                f.write_str("{")?;
                for (key, item) in map {
                    write!(f, " {key} = {}", Quoted(item))?;
                }
                f.write_str(" }")
            }
            Self::Call(call) => {
                write!(f, "{}(", call.name)?;
                for (index, item) in call.args.iter().enumerate() {
                    write!(f, "{}{}", if index > 0 { ", " } else { "" }, Quoted(item))?;
                }
                for (index, (key, item)) in call.named.iter().enumerate() {
                    let comma = if index > 0 || !call.args.is_empty() { ", " } else { "" };
                    write!(f, "{comma}{key}: {}", Quoted(item))?;
                }
                f.write_str(")")
            }
            Self::Arrow(arrow) => {
                write!(f, "\"{}\" -> \"{}\"", arrow.from, arrow.to)?;
                arrow.flags.iter().try_for_each(|flag| write!(f, " {flag}"))
            }
            Self::Blob(blob) => write!(f, "{} ({})", blob.digest.short(), show_size(blob.len)),
            Self::Tree(tree) => write!(f, "{} ({} entries)", tree.digest().short(), tree.entries.len()),
        }
    }
}

/// A value as it would be written in a playbook: text in quotes.
pub struct Quoted<'a>(pub &'a Value);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Str(text) => {
                write!(f, "\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
            }
            other => write!(f, "{other}"),
        }
    }
}

/// `30s`, `1m30s`, `500ms`: how a duration is written.
pub fn show_duration(time: Duration) -> String {
    let (mut left, mut text) = (time.as_millis(), String::new());
    for (unit, millis) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if left >= millis {
            let _ = write!(text, "{}{unit}", left / millis);
            left %= millis;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// `512MiB`, `1500B`: how a size is written; the largest binary unit that divides it evenly.
pub fn show_size(bytes: u64) -> String {
    let binary = [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let decimal = [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("KB", 1_000)];
    let fitting = binary.iter().chain(&decimal).find(|(_, size)| bytes >= *size && bytes.is_multiple_of(*size));
    fitting.map_or_else(|| format!("{bytes}B"), |(unit, size)| format!("{}{unit}", bytes / size))
}

/// Serde's form of bytes in one piece: postcard takes a list of numbers one by one. For `#[serde(with = "as_bytes")]`.
pub mod as_bytes {
    use std::fmt;

    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    /// Writes them.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    /// Reads them.
    ///
    /// # Errors
    /// Those of the deserializer.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_bytes(Bytes)
    }

    struct Bytes;

    impl Visitor<'_> for Bytes {
        type Value = Vec<u8>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("bytes")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }
    }
}
