//! Values across the border to minijinja and back, and the one environment with fanli's own filters.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Object, ObjectRepr, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value as JinjaValue};

use crate::value::Value;

/// Steps that one expression or template may take; more is an endless loop in all likelihood.
const FUEL: u64 = 1_000_000;

/// Nesting of template calls.
const DEPTH: usize = 64;

/// A value whose type minijinja does not know; it passes through unharmed and prints as it is written.
#[derive(Debug)]
struct Typed(Value);

impl Object for Typed {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn render(self: &Arc<Self>, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

/// A value for minijinja.
pub(super) fn outward(value: &Value) -> JinjaValue {
    match value {
        Value::Null => JinjaValue::from(()),
        Value::Bool(flag) => JinjaValue::from(*flag),
        Value::Int(number) => JinjaValue::from(*number),
        Value::Float(number) => JinjaValue::from(*number),
        Value::Str(text) => JinjaValue::from(text.as_str()),
        Value::List(items) => items.iter().map(outward).collect(),
        Value::Map(map) => {
            let pairs = map.iter().map(|(key, item)| (key.clone(), outward(item)));
            JinjaValue::from_object(pairs.collect::<std::collections::BTreeMap<String, JinjaValue>>())
        }
        typed => JinjaValue::from_object(Typed(typed.clone())),
    }
}

/// A value back from minijinja. `Err` says what cannot come back (a function, bytes, undefined).
pub(super) fn inward(value: &JinjaValue) -> Result<Value, String> {
    if let Some(typed) = value.downcast_object_ref::<Typed>() {
        return Ok(typed.0.clone());
    }
    match value.kind() {
        ValueKind::None => Ok(Value::Null),
        ValueKind::Bool => Ok(Value::Bool(value.is_true())),
        ValueKind::Number => match i64::try_from(value.clone()) {
            Ok(number) if value.is_integer() => Ok(Value::Int(number)),
            _ if value.is_integer() => Err(format!("the number {value} does not fit 64 bits")),
            _ => f64::try_from(value.clone()).map(Value::Float).map_err(|error| error.to_string()),
        },
        ValueKind::String => Ok(Value::Str(value.as_str().unwrap_or_default().to_owned())),
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter().map_err(|error| error.to_string())?;
            items.map(|item| inward(&item)).collect::<Result<_, _>>().map(Value::List)
        }
        ValueKind::Map => {
            let keys = value.try_iter().map_err(|error| error.to_string())?;
            let pair = |key: JinjaValue| {
                let item = value.get_item(&key).map_err(|error| error.to_string())?;
                Ok((key.to_string(), inward(&item)?))
            };
            keys.map(pair).collect::<Result<_, String>>().map(Value::Map)
        }
        ValueKind::Undefined => Err("the value is undefined".to_owned()),
        other => Err(format!("a {other} cannot be used as a value")),
    }
}

/// The environment that every evaluation shares.
pub(super) fn environment() -> &'static Environment<'static> {
    static SHARED: OnceLock<Environment<'static>> = OnceLock::new();
    SHARED.get_or_init(|| {
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        env.set_auto_escape_callback(|_| AutoEscape::None);
        env.set_fuel(Some(FUEL));
        env.set_recursion_limit(DEPTH);
        env.set_debug(true);
        // As Ansible sets them: a tag on a line of its own leaves no line behind.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build();
        if let Ok(syntax) = syntax {
            env.set_syntax(syntax);
        }
        env.add_filter("format", format_bounded);
        env.add_filter("octets", octets);
        env.add_filter("basename", |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned());
        env.add_filter("dirname", |path: &str| path.rsplit_once('/').map_or(".", |(parent, _)| parent).to_owned());
        env.add_filter("quote", shell_quote);
        env
    })
}

/// The filters that playbooks may use: minijinja's and ours.
pub fn filter_names() -> &'static [&'static str] {
    &[
        "abs",
        "attr",
        "basename",
        "batch",
        "bool",
        "capitalize",
        "chain",
        "default",
        "d",
        "dictsort",
        "dirname",
        "first",
        "float",
        "format",
        "groupby",
        "indent",
        "int",
        "items",
        "join",
        "last",
        "length",
        "count",
        "lines",
        "list",
        "lower",
        "map",
        "max",
        "min",
        "octets",
        "pprint",
        "quote",
        "reject",
        "rejectattr",
        "replace",
        "reverse",
        "round",
        "select",
        "selectattr",
        "slice",
        "sort",
        "split",
        "string",
        "sum",
        "title",
        "tojson",
        "trim",
        "unique",
        "upper",
        "zip",
    ]
}

/// The tests that may follow `is`.
pub fn test_names() -> &'static [&'static str] {
    &[
        "defined",
        "undefined",
        "none",
        "boolean",
        "divisibleby",
        "endingwith",
        "even",
        "false",
        "filter",
        "float",
        "in",
        "integer",
        "iterable",
        "lower",
        "mapping",
        "number",
        "odd",
        "sequence",
        "startingwith",
        "string",
        "true",
        "upper",
    ]
}

/// `10.88.8.246 | octets(3, 4)` gives `08246`: the last one as three digits, those before it as at least two, so that names
/// made this way sort as their addresses do.
#[expect(clippy::needless_pass_by_value, reason = "minijinja calls filters so")]
fn octets(address: &JinjaValue, wanted: minijinja::value::Rest<usize>) -> Result<String, Error> {
    let refuse = |text: String| Error::new(ErrorKind::InvalidOperation, text);
    let text = address.to_string();
    let Ok(IpAddr::V4(parsed)) = text.parse::<IpAddr>() else {
        return Err(refuse(format!("octets: `{text}` is not an IPv4 address")));
    };
    let mut name = String::new();
    for (index, number) in wanted.iter().enumerate() {
        let Some(octet) = number.checked_sub(1).and_then(|at| parsed.octets().get(at).copied()) else {
            return Err(refuse(format!("octets: there is no octet {number}; they are 1 to 4")));
        };
        let width = if index + 1 == wanted.len() { 3 } else { 2 };
        let _ = write!(name, "{octet:0width$}");
    }
    Ok(name)
}

/// The widest field and the most digits that `format` may be asked for. Rust's own formatting ends the process beyond 65,535.
const MOST_DIGITS: u32 = 1000;

/// minijinja's `format`, without numbers in its pattern that would end the process.
fn format_bounded(
    state: &mut minijinja::State,
    pattern: &JinjaValue,
    args: minijinja::value::Rest<minijinja::value::ValueOrKwargs>,
) -> Result<JinjaValue, Error> {
    // Each piece begins behind a `%`: perhaps `(name)`, then flags, width and precision.
    for piece in pattern.as_str().unwrap_or_default().split('%').skip(1) {
        let spec = piece.strip_prefix('(').and_then(|named| named.split_once(')')).map_or(piece, |(_, rest)| rest);
        let spec = spec.split(|c: char| c.is_ascii_alphabetic()).next().unwrap_or_default();
        let mut numbers = spec.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
        let too_large = |digits: &&str| digits.parse::<u32>().map_or(true, |number| number > MOST_DIGITS);
        if let Some(digits) = numbers.find(too_large) {
            let shown: String = digits.chars().take(20).collect();
            let text = format!("format: {shown} is more than {MOST_DIGITS}, the most for a width or a precision");
            return Err(Error::new(ErrorKind::InvalidOperation, text));
        }
    }
    minijinja::filters::format(state, pattern, args)
}

/// For `shell`: one word, whatever is in it.
fn shell_quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
