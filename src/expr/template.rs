//! Template files.

use std::collections::BTreeSet;

use minijinja::{Error, ErrorKind};

use super::EvalError;
use super::bridge::{environment, outward};
use crate::source::Span;
use crate::value::{Map, Value};

/// The longest template and the longest result, in bytes.
const MOST_SOURCE: usize = 1024 * 1024;
const MOST_RESULT: usize = 16 * 1024 * 1024;

/// The text of a template file, rendered. `name` stands in messages.
///
/// # Errors
/// A syntax error, an undefined name, a limit that is passed. The span holds offsets in the template's text.
pub fn render(name: &str, text: &str, scope: &Map) -> Result<String, EvalError> {
    check_size(name, text)?;
    let context = outward(&Value::Map(scope.clone()));
    let rendered = environment().render_named_str(name, text, context).map_err(|error| located(text, &error))?;
    if rendered.len() > MOST_RESULT {
        return Err(EvalError::new(Span::default(), format!("`{name}` renders to more than 16 MiB")));
    }
    Ok(rendered)
}

/// The root names that a template takes from its scope.
///
/// # Errors
/// A syntax error, a template that is too long.
pub fn template_names(name: &str, text: &str) -> Result<BTreeSet<String>, EvalError> {
    check_size(name, text)?;
    let template = environment().template_from_named_str(name, text).map_err(|error| located(text, &error))?;
    let globals = ["range", "dict", "debug", "namespace", "loop", "self", "super"];
    Ok(template.undeclared_variables(false).into_iter().filter(|name| !globals.contains(&name.as_str())).collect())
}

fn check_size(name: &str, text: &str) -> Result<(), EvalError> {
    if text.len() > MOST_SOURCE {
        return Err(EvalError::new(Span::default(), format!("the template `{name}` is longer than 1 MiB")));
    }
    Ok(())
}

fn located(text: &str, error: &Error) -> EvalError {
    let clamp = |offset: usize| u32::try_from(offset.min(text.len())).unwrap_or(u32::MAX);
    let line_start = || {
        let line = error.line().unwrap_or(1).saturating_sub(1);
        let start: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
        let length = text.get(start..).and_then(|rest| rest.lines().next()).map_or(0, str::len);
        start..start + length
    };
    let range = error.range().unwrap_or_else(line_start);
    let span = Span { file: 0, start: clamp(range.start), end: clamp(range.end) };
    let mut found = EvalError::new(span, reason(error));
    found.help = advice(error);
    found
}

/// The way out, where one is known.
fn advice(error: &Error) -> Option<String> {
    let detail = error.detail().unwrap_or_default();
    let near = |known: &[&'static str]| {
        let near = crate::diagnostic::nearest(second_word(detail), known.iter().copied())?;
        Some(format!("did you mean `{near}`?"))
    };
    match error.kind() {
        ErrorKind::UndefinedError => {
            Some("every name must be defined; use `x | default(…)` where it may be missing".to_owned())
        }
        ErrorKind::UnknownFilter => near(super::filter_names()),
        ErrorKind::UnknownTest => near(super::test_names()),
        ErrorKind::SyntaxError if detail.contains("end of input") => {
            Some("a `{{`, or a block such as `{% for %}` or `{% if %}`, is not closed".to_owned())
        }
        ErrorKind::SyntaxError if detail.contains("end of variable block") => {
            Some("an expression ends in `}}`".to_owned())
        }
        _ => None,
    }
}

/// The name in "filter NAME is unknown".
fn second_word(detail: &str) -> &str {
    detail.split_whitespace().nth(1).unwrap_or_default()
}

/// What minijinja says, without its own talk about lines of a one-line text.
pub(super) fn reason(error: &Error) -> String {
    let kind = match error.kind() {
        ErrorKind::OutOfFuel => "the work takes more than 1,000,000 steps: is it an endless loop?".to_owned(),
        kind => kind.to_string(),
    };
    match error.detail() {
        Some(detail) if error.kind() == ErrorKind::UnknownFilter => {
            format!("there is no filter `{}`", second_word(detail))
        }
        Some(detail) if error.kind() == ErrorKind::UnknownTest => format!("there is no test `{}`", second_word(detail)),
        Some(detail) if error.kind() == ErrorKind::UndefinedError && detail.ends_with(" is undefined") => {
            format!("{} is not defined", detail.trim_end_matches(" is undefined"))
        }
        Some(detail) if error.kind() == ErrorKind::InvalidOperation => {
            let operator = detail
                .strip_prefix("tried to use ")
                .and_then(|rest| rest.split_once(" operator on unsupported types "));
            operator.map_or_else(|| detail.to_owned(), |(sign, types)| format!("`{sign}` does not take {types}"))
        }
        Some(detail) => format!("{kind}: {detail}"),
        None => kind,
    }
}
