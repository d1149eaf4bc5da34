//! What a kind's parameters are: for `fanli doc`, for the checks before the first connection, and for reading arguments.

use std::fmt;

use crate::failure::Failure;
use crate::value::Value;

/// A kind, described.
#[derive(Clone, Debug)]
pub struct Schema {
    /// The word in playbooks: `file`.
    pub name: &'static str,
    /// The documentation, markdown; its first line is the summary.
    pub doc: String,
    /// Parameters; the first is the title (the expression after the word).
    pub fields: Vec<FieldSpec>,
    /// What `as NAME` gives besides `changed`.
    pub results: &'static [ResultSpec],
    /// Kinds that may stand as blocks inside this one; they become steps of their own right after it.
    pub children: &'static [&'static str],
    /// A task that the tests run for real.
    pub example: &'static str,
}

impl Schema {
    /// The parameter of that name.
    pub fn field(&self, name: &str) -> Option<&FieldSpec> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The parameter that the title fills.
    pub fn title(&self) -> Option<&FieldSpec> {
        self.fields.first()
    }

    /// A title as people read it, in one line: the words of a command, the items of another list.
    pub fn show_title(&self, value: &Value) -> String {
        let all = match value {
            Value::List(items) => {
                let between = if self.name == "command" { " " } else { ", " };
                items.iter().map(ToString::to_string).collect::<Vec<_>>().join(between)
            }
            single => single.to_string(),
        };
        all.lines().next().unwrap_or_default().to_owned()
    }
}

/// One parameter.
#[derive(Clone, Debug)]
pub struct FieldSpec {
    /// Its name.
    pub name: &'static str,
    /// Its documentation.
    pub doc: String,
    /// Its type.
    pub kind: ParamType,
    /// Whether it must be given.
    pub required: bool,
    /// Its default, as written in a playbook.
    pub default: Option<String>,
}

/// One field of a step's result.
#[derive(Clone, Copy, Debug)]
pub struct ResultSpec {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub doc: &'static str,
}

/// One wrong argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgError {
    /// The parameter.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl ArgError {
    /// An error about one parameter.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// As a sentence: `` `port` is a number from 1 to 65535 ``.
impl fmt::Display for ArgError {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        if self.field.is_empty() {
            out.write_str(&self.message)
        } else {
            write!(out, "`{}` {}", self.field, self.message)
        }
    }
}

impl From<ArgError> for Failure {
    fn from(error: ArgError) -> Self {
        Self::new(error.to_string())
    }
}

/// The type of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the language's own type names")]
pub enum ParamType {
    Any,
    Bool,
    Int,
    Str,
    Mode,
    Duration,
    Size,
    Percent,
    Ip,
    Net,
    Map,
    /// An absolute path on the host: no `..`, no NUL.
    Path,
    /// A user or group: a name or a number.
    Owner,
    /// A file beside the playbook; travels by hash.
    File,
    /// A template file beside the playbook; rendered to bytes.
    Template,
    /// A folder beside the playbook; travels by hash.
    Tree,
    /// `"/on/host" -> "/in/container"`
    Mount,
    /// One of some words.
    Choice(&'static [&'static str]),
    /// A list; a single item stands for a list of one.
    List(&'static ParamType),
    /// A constructor, one of these.
    Call(&'static [&'static str]),
    /// A step of one of these kinds, in constructor form (`healthy = http("…", within: 30s)`); it follows its block.
    Step(&'static [&'static str]),
}

impl ParamType {
    /// The type as documentation and errors say it.
    pub fn show(self) -> String {
        match self {
            Self::Any => "any".to_owned(),
            Self::Bool => "bool".to_owned(),
            Self::Int => "int".to_owned(),
            Self::Str => "string".to_owned(),
            Self::Mode => "mode".to_owned(),
            Self::Duration => "duration".to_owned(),
            Self::Size => "size".to_owned(),
            Self::Percent => "percent".to_owned(),
            Self::Ip => "ip".to_owned(),
            Self::Net => "cidr".to_owned(),
            Self::Map => "map".to_owned(),
            Self::Path => "path".to_owned(),
            Self::Owner => "user name or number".to_owned(),
            Self::File => "file beside the playbook".to_owned(),
            Self::Template => "template beside the playbook".to_owned(),
            Self::Tree => "folder beside the playbook".to_owned(),
            Self::Mount => "mount".to_owned(),
            Self::Choice(words) => words.join(" | "),
            Self::List(item) => format!("list of {}", item.show()),
            Self::Call(names) | Self::Step(names) => {
                names.iter().map(|name| format!("{name}(…)")).collect::<Vec<_>>().join(" | ")
            }
        }
    }

    /// The name of the type and how its values are written, for documentation; `None` where the name says it all.
    pub fn form(self) -> Option<(&'static str, &'static str)> {
        Some(match self {
            Self::Any => return None,
            Self::Bool => ("bool", "`true` or `false`"),
            Self::Int => ("int", "a whole number: `8080`"),
            Self::Str => ("string", "text in quotes; `{{ }}` in it is computed: `\"web {{ host.name }}\"`"),
            Self::Mode => ("mode", "octal, with a leading zero: `0644`"),
            Self::Duration => ("duration", "`500ms`, `30s`, `5m`, `1h30m`, `7d`"),
            Self::Size => ("size", "`512MiB`, `10GiB` (by 1024); `512MB`, `10GB` (by 1000)"),
            Self::Percent => ("percent", "`25%`"),
            Self::Ip => ("ip", "an address: `10.0.0.5`, `fd00::5`"),
            Self::Net => ("cidr", "a network: `10.0.0.0/24`"),
            Self::Map => ("map", "`{ name = value  other = value }`"),
            Self::Path => ("path", "an absolute path on the host, in quotes: `\"/srv/a\"`"),
            Self::Owner => ("user name or number", "`\"www-data\"` or `33`"),
            Self::File => {
                ("file beside the playbook", "a path in quotes, relative to the playbook or to the project's root")
            }
            Self::Template => (
                "template beside the playbook",
                "a path in quotes; the file is a Jinja template that sees what tasks see",
            ),
            Self::Tree => {
                ("folder beside the playbook", "a path in quotes, relative to the playbook or to the project's root")
            }
            Self::Mount => ("mount", "`\"/on/host\" -> \"/inside\"`, flags such as `read_only` behind it"),
            Self::Choice(_) => ("a | b", "one of these words, without quotes"),
            Self::List(_) => ("list of …", "`[a, b]`; a single item stands for a list of one"),
            Self::Call(_) | Self::Step(_) => {
                ("name(…)", "its title first, other parameters by name: `name(\"…\", within: 30s)`")
            }
        })
    }

    /// Whether a value fits, by type alone. The text says what is wrong, to follow "`field`: ".
    pub fn accepts(self, value: &Value) -> Result<(), String> {
        let fits = match (self, value) {
            (Self::List(item), Value::List(items)) => return items.iter().try_for_each(|value| item.accepts(value)),
            (Self::List(item), single) => return item.accepts(single),
            (Self::Choice(words), Value::Str(text)) => {
                if words.contains(&text.as_str()) {
                    return Ok(());
                }
                let hint = meant(text, words).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
                return Err(format!("`{text}` is none of {}{hint}", words.join(", ")));
            }
            (Self::Call(names) | Self::Step(names), Value::Call(call)) => names.contains(&call.name.as_str()),
            (Self::Path, Value::Str(text)) => return absolute(text),
            (Self::Any, _)
            | (Self::Bool, Value::Bool(_))
            | (Self::Int, Value::Int(_))
            | (Self::Str, Value::Str(_) | Value::Int(_) | Value::Ip(_) | Value::Net(_))
            | (Self::Mode, Value::Mode(_))
            | (Self::Duration, Value::Duration(_))
            | (Self::Size, Value::Size(_))
            | (Self::Percent, Value::Percent(_))
            | (Self::Ip, Value::Ip(_))
            | (Self::Net, Value::Net(_))
            | (Self::Map, Value::Map(_))
            | (Self::Owner, Value::Str(_) | Value::Int(0..=4_294_967_294))
            | (Self::File | Self::Template, Value::Blob(_))
            | (Self::Tree, Value::Tree(_))
            | (Self::Mount, Value::Arrow(_)) => true,
            (Self::Ip, Value::Str(text)) => text.parse::<std::net::IpAddr>().is_ok(),
            _ => false,
        };
        if fits { Ok(()) } else { Err(format!("expected {}, found {} `{value}`", self.show(), value.type_name())) }
    }
}

/// The word of a choice that another word means, or is near to.
fn meant<'a>(text: &str, words: &[&'a str]) -> Option<&'a str> {
    let same = match text {
        "started" | "start" | "up" | "on" => "running",
        "stop" | "down" | "off" => "stopped",
        "latest" | "installed" | "file" | "directory" | "touch" => "present",
        "removed" | "deleted" | "uninstalled" => "absent",
        other => other,
    };
    let word = words.iter().copied().find(|word| *word == same);
    word.or_else(|| crate::diagnostic::nearest(text, words.iter().copied()))
}

impl ParamType {
    /// Whether it is a choice (or a list of them) with that word.
    pub fn has_word(self, word: &str) -> bool {
        match self {
            Self::Choice(words) => words.contains(&word),
            Self::List(item) => item.has_word(word),
            _ => false,
        }
    }

    /// The way out for a value that [`ParamType::accepts`] refuses, where one can be named.
    pub fn advice(self, value: &Value) -> Option<String> {
        let word = |text: &str| matches!(text, "yes" | "no" | "true" | "false" | "on" | "off");
        Some(match (self, value) {
            (Self::List(item), _) => return item.advice(value),
            (Self::Choice(words), Value::Str(text)) => {
                format!("did you mean `{}`?", meant(text, words)?)
            }
            (Self::Choice(words), _) => format!("write one of these words, without quotes: {}", words.join(", ")),
            (Self::Mode, Value::Int(number)) if is_octal(&number.to_string()) => {
                format!("a mode is octal, with a leading zero: `0{number:03}`")
            }
            (Self::Mode, Value::Str(text)) if text.starts_with('0') && is_octal(text) => {
                format!("write it without quotes: `{text}`")
            }
            (Self::Mode, _) => "a mode is octal, with a leading zero: `0644`".to_owned(),
            (Self::Duration, Value::Int(number)) => format!("say the unit: `{number}s`, `{number}m`"),
            (Self::Duration, _) => "a duration is a number and a unit, without quotes: `30s`, `5m`, `1h30m`".to_owned(),
            (Self::Size, Value::Int(number)) => format!("say the unit: `{number}MiB`, `{number}GiB`"),
            (Self::Size, _) => "a size is a number and a unit, without quotes: `512MiB`, `10GiB`".to_owned(),
            (Self::Percent, Value::Int(number)) => format!("say the unit: `{number}%`"),
            (Self::Bool, Value::Str(text)) if word(text) => "write `true` or `false`, without quotes".to_owned(),
            (Self::Bool, _) => "write `true` or `false`".to_owned(),
            (Self::Int, Value::Str(text)) if text.parse::<i64>().is_ok() => {
                format!("write it without quotes: `{text}`")
            }
            (Self::Str, Value::Bool(flag)) => format!("write it in quotes: `\"{flag}\"`"),
            (Self::Str, Value::List(_)) => "join the items: `… | join(\" \")`".to_owned(),
            (Self::Path, Value::Str(text)) if !text.starts_with('/') => "a path on a host begins with `/`".to_owned(),
            (Self::Ip, _) => "an address stands without quotes: `10.0.0.1`".to_owned(),
            (Self::Net, _) => "a network stands without quotes: `10.0.0.0/24`".to_owned(),
            (Self::Mount, _) => {
                "a mount is `\"/on/host\" -> \"/in/container\"`, with `read_only` behind it if need be".to_owned()
            }
            (Self::Call(names) | Self::Step(names), _) => format!("for example `{}(…)`", names.first()?),
            _ => return None,
        })
    }
}

/// Whether a text is the digits of a mode.
fn is_octal(text: &str) -> bool {
    (1..=5).contains(&text.len()) && text.bytes().all(|digit| (b'0'..=b'7').contains(&digit))
}

/// Absolute, without `..`, `.`, doubled or trailing slashes or NUL: refused, never "cleaned".
fn absolute(text: &str) -> Result<(), String> {
    if !text.starts_with('/') {
        return Err(format!("`{text}` is not an absolute path"));
    }
    if text.contains('\0') || text.len() > 4096 {
        return Err("the path holds a NUL or is longer than 4096 bytes".to_owned());
    }
    let odd = |part: &str| part == ".." || part == "." || part.is_empty() || part.len() > 255;
    if text != "/" && text.split('/').skip(1).any(odd) {
        return Err(format!("`{text}` holds `..`, `.`, an empty part or one longer than 255 bytes; write it plainly"));
    }
    Ok(())
}
