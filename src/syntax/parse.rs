//! From text to tree, with as many errors at once as can be told.

use pest::Parser as _;
use pest::error::{ErrorVariant, InputLocation};

use super::ast::{Ast, Expr};
use super::build::Builder;
use super::explain::explain;
use super::grammar::{Grammar, Rule};
use super::scan::{Line, scan};
use crate::diagnostic::Diagnostic;

/// The most errors of form that are told of one file, and the most bytes that are read to find them.
const MOST_ERRORS: usize = 20;
const MOST_WORK: usize = 8 * 1024 * 1024;

/// The tree of a file and everything that is wrong with its text. `file` is its number in [`crate::source::Sources`].
///
/// A tree that is not [`whole`](Ast::whole) lacks what could not be read: it is fit to follow its imports, not to run, and
/// not to look for names in.
pub fn parse(file: u32, text: &str) -> (Ast, Vec<Diagnostic>) {
    let scanned = scan(file, text);
    let mut errors = scanned.errors;
    if !scanned.sound {
        return (Ast { body: Vec::new(), whole: false }, errors);
    }
    let mut text = scanned.text;
    let unseen = errors.len();
    let mut whole = errors.is_empty();
    let (mut work, mut limited) = (0, true);
    for _ in 0..MOST_ERRORS {
        let builder = Builder::new(file);
        let (at, expected) = match Grammar::parse(Rule::file, &text) {
            Ok(mut pairs) => {
                let (body, _) = pairs.next().map(|file| builder.items(file.into_inner(), true)).unwrap_or_default();
                errors.extend(builder.errors.into_inner());
                return (Ast { body, whole }, errors);
            }
            Err(error) => stop(error),
        };
        whole = false;
        let error = explain(file, &text, at, &expected);
        // A character that cannot be seen has blanked a part of its line: no second error for that.
        let line = scanned.lines.partition_point(|line| line.start <= at);
        let of_line = |known: &Diagnostic| {
            scanned.lines.partition_point(|line| line.start <= known.at.span.start as usize) == line
        };
        if !errors.get(..unseen).unwrap_or(&[]).iter().any(of_line) {
            errors.push(error);
        }
        if text.trim_start().starts_with("---") {
            // Another language altogether: one error says it.
            limited = false;
            break;
        }
        work += text.len();
        // What cannot be read is blanked, to find the next error behind it.
        match without(&text, at, &scanned.lines) {
            Some(rest) if work < MOST_WORK => text = rest,
            Some(_) => break,
            None => {
                limited = false;
                break;
            }
        }
    }
    if let Some(last) = errors.last_mut().filter(|_| limited) {
        last.notes.push("this file was not searched for further errors of form".to_owned());
    }
    (Ast { body: Vec::new(), whole }, errors)
}

/// One expression on its own, such as the value of `--set name=value`.
///
/// # Errors
/// The first thing that is wrong, in one line with the way out.
pub fn parse_value(text: &str) -> Result<Expr, String> {
    let told = |error: &Diagnostic| match error.help.first() {
        Some(help) => format!("{}; {help}", error.message),
        None => error.message.clone(),
    };
    let scanned = scan(0, text);
    if let Some(error) = scanned.errors.first() {
        return Err(told(error));
    }
    let builder = Builder::new(0);
    let mut pairs = Grammar::parse(Rule::value, text).map_err(|error| {
        let (at, expected) = stop(error);
        told(&explain(0, text, at, &expected))
    })?;
    let expr = pairs.next().and_then(|value| value.into_inner().next()).map(|expr| builder.expr(expr));
    if let Some(error) = builder.errors.into_inner().first() {
        return Err(told(error));
    }
    expr.ok_or_else(|| "there is no value".to_owned())
}

/// Where pest stopped, and what it could have gone on with.
fn stop(error: pest::error::Error<Rule>) -> (usize, Vec<Rule>) {
    let at = match error.location {
        InputLocation::Pos(at) | InputLocation::Span((at, _)) => at,
    };
    match error.variant {
        ErrorVariant::ParsingError { positives, .. } => (at, positives),
        ErrorVariant::CustomError { .. } => (at, Vec::new()),
    }
}

/// The text without the statement that holds `at`; `None` when there is nothing to take off. Its lines go up to where all
/// brackets that it opened are closed; a bracket that it closes for somebody else stays.
fn without(text: &str, at: usize, lines: &[Line]) -> Option<String> {
    // At the end of a line, the text before it is what could not be read.
    let at = text.get(..at)?.trim_end().len().min(at).max(if text.get(at..)?.trim_start().is_empty() { 0 } else { at });
    let behind = lines.partition_point(|line| line.start <= at);
    let first = lines.get(..behind)?.iter().rposition(|line| line.statement)?;
    let base = lines.get(first)?;
    // The line that follows: nothing is open that was not before.
    let next = lines.get(behind..)?.iter().find(|line| line.open <= base.open);
    let (start, end) = (base.start, next.map_or(text.len(), |next| next.start));
    let keep = next.map_or(0, |next| base.open - next.open);
    let (head, rest) = text.split_at_checked(start)?;
    let (statement, tail) = rest.split_at_checked(end - start)?;
    if statement.trim().trim_matches('}').trim().is_empty() {
        return None;
    }
    let mut kept = 0;
    let mut blanked: Vec<char> = Vec::with_capacity(statement.len());
    for c in statement.chars().rev() {
        match c {
            '\n' => blanked.push('\n'),
            '}' if kept < keep => {
                kept += 1;
                blanked.push('}');
            }
            c => blanked.extend(std::iter::repeat_n(' ', c.len_utf8())),
        }
    }
    Some(format!("{head}{}{tail}", blanked.iter().rev().collect::<String>()))
}
