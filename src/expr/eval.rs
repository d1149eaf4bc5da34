//! The walk over an expression's tree.

use minijinja::Value as JinjaValue;

use super::bridge::{environment, inward, outward};
use super::{EvalError, operators};
use crate::source::Span;
use crate::syntax::ast::{BinaryOp, Expr, ExprKind, Name, TextPart, UnaryOp};
use crate::value::{Arrow, Call, Map, Quoted, Value};

/// Functions that give a value; every other `name(…)` is a constructor: data with a name.
pub const FUNCTIONS: [&str; 1] = ["range"];

/// The longest text and the most items that one expression may make.
const MOST_TEXT: usize = 16 * 1024 * 1024;
const MOST_ITEMS: i64 = 1_000_000;

/// The value of an expression; `scope` holds every name that it may use.
///
/// # Errors
/// An undefined name, a type that an operator does not take, a limit that is passed: with the place of the part that failed.
pub fn evaluate(expr: &Expr, scope: &Map) -> Result<Value, EvalError> {
    match &expr.kind {
        ExprKind::Literal { value, .. } => Ok(value.clone()),
        ExprKind::Text { parts, .. } => text(parts, scope, expr.span),
        ExprKind::Name(name) => scope.get(name).cloned().ok_or_else(|| {
            EvalError::new(expr.span, format!("`{name}` is not defined"))
                .suggest(name, scope.keys().map(String::as_str))
        }),
        ExprKind::Attr(base, name) => attribute(&evaluate(base, scope)?, &name.text, name.span),
        ExprKind::Index(base, index) => element(&evaluate(base, scope)?, &evaluate(index, scope)?, expr.span),
        ExprKind::List { items, .. } => {
            items.iter().map(|item| evaluate(&item.value, scope)).collect::<Result<_, _>>().map(Value::List)
        }
        ExprKind::Map { entries, .. } => {
            let pair = |(name, value): &(Name, Expr)| Ok((name.text.clone(), evaluate(value, scope)?));
            entries.iter().map(|entry| pair(&entry.value)).collect::<Result<_, _>>().map(Value::Map)
        }
        ExprKind::Call { name, args, named } => call(name, args, named, scope, expr.span),
        ExprKind::Filter { input, name, args, named } => filter(input, name, args, named, scope, expr.span),
        ExprKind::Test { input, name, negated, args } => test(input, name, *negated, args, scope, expr.span),
        ExprKind::Unary(UnaryOp::Not, inner) => Ok(Value::Bool(!condition(inner, scope)?)),
        ExprKind::Unary(UnaryOp::Minus, inner) => {
            let value = evaluate(inner, scope)?;
            if !matches!(value, Value::Int(_) | Value::Float(_)) {
                let message = format!("`-` stands before a number, not before a {}", value.type_name());
                let mut error = EvalError::new(expr.span, message);
                error.help = matches!(value, Value::Duration(_) | Value::Size(_) | Value::Percent(_))
                    .then(|| format!("a {} is never below 0", value.type_name()));
                return Err(error);
            }
            jinja("-a", &[("a", outward(&value))], expr.span)
        }
        ExprKind::Binary(BinaryOp::And, left, right) => {
            Ok(Value::Bool(condition(left, scope)? && condition(right, scope)?))
        }
        ExprKind::Binary(BinaryOp::Or, left, right) => {
            Ok(Value::Bool(condition(left, scope)? || condition(right, scope)?))
        }
        ExprKind::Binary(op, left, right) => {
            operators::apply(*op, &evaluate(left, scope)?, &evaluate(right, scope)?, expr.span)
        }
        ExprKind::Ternary { then, condition: test, otherwise } => {
            evaluate(if condition(test, scope)? { then } else { otherwise }, scope)
        }
        ExprKind::Arrow { from, to, flags } => {
            let path = |side: &Expr| Ok(evaluate(side, scope)?.to_string());
            let flags = flags.iter().map(|flag| flag.text.clone()).collect();
            Ok(Value::Arrow(Box::new(Arrow { from: path(from)?, to: path(to)?, flags })))
        }
        ExprKind::Group(inner) => evaluate(inner, scope),
    }
}

/// A value where only yes or no makes sense: nothing else counts as true, so that `"false"` cannot.
fn condition(expr: &Expr, scope: &Map) -> Result<bool, EvalError> {
    let value = evaluate(expr, scope)?;
    value.as_bool().ok_or_else(|| {
        let mut error = EvalError::new(
            expr.span,
            format!("expected true or false, found {} `{}`", value.type_name(), Quoted(&value)),
        );
        error.help = Some("compare it: `x == \"…\"`, `x | length > 0`, `x is defined`".to_owned());
        error
    })
}

fn text(parts: &[TextPart], scope: &Map, span: Span) -> Result<Value, EvalError> {
    let mut out = String::new();
    for part in parts {
        match part {
            TextPart::Plain(plain) => out.push_str(plain),
            TextPart::Computed(expr) => match evaluate(expr, scope)? {
                Value::Null => {
                    let mut error = EvalError::new(expr.span, "the value is null; it cannot stand in a text");
                    error.help =
                        Some("decide before: `when x is not none { … }`, or `a if x is none else b`".to_owned());
                    return Err(error);
                }
                Value::Call(call) => {
                    let error = EvalError::new(expr.span, format!("there is no function `{}`", call.name));
                    return Err(
                        error.suggest(&call.name, FUNCTIONS.into_iter().chain(super::filter_names().iter().copied()))
                    );
                }
                value => out.push_str(&value.to_string()),
            },
        }
        if out.len() > MOST_TEXT {
            return Err(EvalError::new(span, "the text is longer than 16 MiB"));
        }
    }
    Ok(Value::Str(out))
}

fn attribute(base: &Value, name: &str, span: Span) -> Result<Value, EvalError> {
    match base {
        Value::Map(map) => map.get(name).cloned().ok_or_else(|| {
            let error = EvalError::new(span, format!("the map has no `{name}`"));
            let mut error = error.suggest(name, map.keys().map(String::as_str));
            if error.help.is_none() && map.len() < 20 {
                error.help = Some(format!("it has {}", map.keys().cloned().collect::<Vec<_>>().join(", ")));
            }
            error
        }),
        other => Err(EvalError::new(span, format!("a {} has no fields, so no `{name}`", other.type_name()))),
    }
}

fn element(base: &Value, index: &Value, span: Span) -> Result<Value, EvalError> {
    match (base, index) {
        (Value::Map(_), Value::Str(name)) => attribute(base, name, span),
        (Value::List(items), Value::Int(number)) => {
            let from_end = usize::try_from(number.unsigned_abs()).ok().and_then(|back| items.len().checked_sub(back));
            let at = if *number < 0 { from_end } else { usize::try_from(*number).ok() };
            at.and_then(|at| items.get(at))
                .cloned()
                .ok_or_else(|| EvalError::new(span, format!("there is no item {number} in a list of {}", items.len())))
        }
        _ => {
            let message = format!("a {} cannot be indexed by a {}", base.type_name(), index.type_name());
            Err(EvalError::new(span, message))
        }
    }
}

fn call(name: &Name, args: &[Expr], named: &[(Name, Expr)], scope: &Map, span: Span) -> Result<Value, EvalError> {
    let args: Vec<Value> = args.iter().map(|arg| evaluate(arg, scope)).collect::<Result<_, _>>()?;
    if name.text == "range" {
        return range(&args, span);
    }
    let pair = |(name, value): &(Name, Expr)| Ok((name.text.clone(), evaluate(value, scope)?));
    let named = named.iter().map(pair).collect::<Result<_, _>>()?;
    Ok(Value::Call(Box::new(Call { name: name.text.clone(), args, named })))
}

/// `range(end)` or `range(start, end)`: whole numbers, the end left out.
fn range(args: &[Value], span: Span) -> Result<Value, EvalError> {
    let (start, end) = match args {
        [Value::Int(end)] => (0, *end),
        [Value::Int(start), Value::Int(end)] => (*start, *end),
        _ => return Err(EvalError::new(span, "range takes one or two whole numbers: `range(1, 4)` is 1, 2, 3")),
    };
    if end.saturating_sub(start) > MOST_ITEMS {
        return Err(EvalError::new(span, "the range has more than 1,000,000 items"));
    }
    Ok(Value::List((start..end).map(Value::Int).collect()))
}

fn filter(
    input: &Expr,
    name: &Name,
    args: &[Expr],
    named: &[(Name, Expr)],
    scope: &Map,
    span: Span,
) -> Result<Value, EvalError> {
    let subject = match evaluate(input, scope) {
        Ok(value) => outward(&value),
        // `x | default(…)` is there for names that may be missing.
        Err(_) if matches!(name.text.as_str(), "default" | "d") && is_path(input) => JinjaValue::UNDEFINED,
        Err(error) => return Err(error),
    };
    let mut context = vec![("a".to_owned(), subject)];
    let mut written = Vec::new();
    for (index, arg) in args.iter().enumerate() {
        context.push((format!("p{index}"), outward(&evaluate(arg, scope)?)));
        written.push(format!("p{index}"));
    }
    for (index, (key, arg)) in named.iter().enumerate() {
        context.push((format!("n{index}"), outward(&evaluate(arg, scope)?)));
        written.push(format!("{}=n{index}", key.text));
    }
    let source = format!("a|{}({})", name.text, written.join(","));
    jinja(&source, &context, span).map_err(|error| self::named("filter", &name.text, error))
}

fn test(input: &Expr, name: &Name, negated: bool, args: &[Expr], scope: &Map, span: Span) -> Result<Value, EvalError> {
    let subject = match evaluate(input, scope) {
        Ok(value) => outward(&value),
        Err(_) if matches!(name.text.as_str(), "defined" | "undefined") && is_path(input) => JinjaValue::UNDEFINED,
        Err(error) => return Err(error),
    };
    let mut context = vec![("a".to_owned(), subject)];
    let mut written = Vec::new();
    for (index, arg) in args.iter().enumerate() {
        context.push((format!("p{index}"), outward(&evaluate(arg, scope)?)));
        written.push(format!("p{index}"));
    }
    let args = if written.is_empty() { String::new() } else { format!("({})", written.join(",")) };
    let not = if negated { "not " } else { "" };
    let source = format!("a is {not}{}{args}", name.text);
    jinja(&source, &context, span).map_err(|error| self::named("test", &name.text, error))
}

/// An error that does not say itself which filter or test has a wrong number of arguments.
fn named(what: &str, name: &str, mut error: EvalError) -> EvalError {
    let wrong = match error.message.as_str() {
        "missing argument" => "needs another argument",
        "too many arguments" => "takes fewer arguments",
        _ => return error,
    };
    error.message = format!("the {what} `{name}` {wrong}");
    error.help.get_or_insert_with(|| "grammar/GRAMMAR.md shows every filter and test with its arguments".to_owned());
    error
}

fn is_path(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Name(_) => true,
        ExprKind::Attr(base, _) | ExprKind::Index(base, _) | ExprKind::Group(base) => is_path(base),
        _ => false,
    }
}

/// Evaluates a line of minijinja over values that are already known.
pub(super) fn jinja<K: AsRef<str>>(source: &str, context: &[(K, JinjaValue)], span: Span) -> Result<Value, EvalError> {
    let context: std::collections::BTreeMap<String, JinjaValue> =
        context.iter().map(|(name, value)| (name.as_ref().to_owned(), value.clone())).collect();
    let expression = environment().compile_expression(source);
    let value = expression.and_then(|compiled| compiled.eval(JinjaValue::from_object(context)));
    let value = value.map_err(|error| {
        let mut found = EvalError::new(span, super::template::reason(&error));
        if found.message.starts_with("`+` does not take") {
            found.help = Some("`~` joins texts; `x | int` makes a number of a text".to_owned());
        }
        found
    })?;
    inward(&value).map_err(|message| EvalError::new(span, message))
}
