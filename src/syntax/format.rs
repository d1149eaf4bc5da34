//! From tree to text: the one way a playbook is laid out. Printing what was printed changes nothing.

use std::fmt::Write as _;

use super::ast::{
    Ast, Block, Element, Expr, ExprKind, Item, Name, Param, Quote, Statement, StatementKind, TextPart, UnaryOp,
};

/// Lines are kept this short where the layout is ours to choose.
const WIDTH: usize = 120;
/// Blanks for each level.
const STEP: usize = 2;

/// The text of a tree: two blanks a level, one blank line at most, `=` and comments in columns, comments where they stood.
pub fn format(ast: &Ast) -> String {
    let mut out = String::new();
    body(&mut out, &ast.body, 0);
    out
}

/// A line, or several of one statement, with the comment behind it.
struct Line {
    /// Without the first line's indentation.
    text: String,
    comment: Option<String>,
}

impl Line {
    fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), comment: None }
    }

    fn is_single(&self) -> bool {
        !self.text.contains('\n')
    }
}

/// Writes lines. The comments behind the lines of one group stand in one column; a blank line, or a statement of several lines,
/// ends a group.
fn write_lines(out: &mut String, lines: &[Line], indent: usize) {
    let (mut width, mut group_ends) = (0, 0);
    for (index, line) in lines.iter().enumerate() {
        if index >= group_ends {
            let ends = |line: &Line| !line.is_single() || line.text.is_empty() && line.comment.is_none();
            let rest = lines.get(index..).unwrap_or_default();
            group_ends = index + rest.iter().position(ends).unwrap_or(rest.len()) + 1;
            let commented = rest.iter().take_while(|line| !ends(line)).filter(|line| line.comment.is_some());
            width = commented.map(|line| columns(&line.text)).max().unwrap_or(0);
        }
        if line.text.is_empty() && line.comment.is_none() {
            out.push('\n');
            continue;
        }
        let _ = write!(out, "{:indent$}{}", "", line.text);
        if let Some(comment) = &line.comment {
            let pad = if line.is_single() { width.saturating_sub(columns(&line.text)) } else { 0 };
            let gap = if line.text.is_empty() { 0 } else { pad + 2 };
            let _ = write!(out, "{:gap$}#{comment}", "");
        }
        out.push('\n');
    }
}

fn columns(text: &str) -> usize {
    text.chars().count()
}

fn body(out: &mut String, items: &[Item], indent: usize) {
    let mut lines: Vec<Line> = Vec::new();
    let mut index = 0;
    // The width of the names in the group of assignments that the current line belongs to.
    let mut names = 0;
    let mut group_ends = 0;
    while let Some(item) = items.get(index) {
        if index >= group_ends {
            (names, group_ends) = group(items, index, indent);
        }
        index += 1;
        match item {
            Item::Blank => lines.push(Line::new("")),
            Item::Comment(text) => lines.push(Line { text: String::new(), comment: Some(text.clone()) }),
            Item::Statement(first) => {
                let together = together(items, index, first, indent);
                if together > index {
                    let mut text = one_line(first).unwrap_or_default();
                    let mut comment = first.comment.as_ref();
                    for next in items.get(index..together).unwrap_or_default() {
                        let Item::Statement(next) = next else { continue };
                        let _ = write!(text, "  {}", one_line(next).unwrap_or_default());
                        comment = next.comment.as_ref().or(next.end_comment.as_ref());
                    }
                    lines.push(Line { text, comment: comment.cloned() });
                    index = together;
                } else {
                    lines.push(statement(first, indent, names));
                }
            }
        }
    }
    write_lines(out, &lines, indent);
}

/// The width of the longest name among the assignments from `from` on, and where that group ends: at a blank line, or behind
/// a block of several lines.
fn group(items: &[Item], from: usize, indent: usize) -> (usize, usize) {
    let (mut width, mut index) = (0, from);
    while let Some(item) = items.get(index) {
        index += 1;
        let one = match item {
            Item::Blank => return (width, index),
            Item::Comment(_) => continue,
            Item::Statement(one) => one,
        };
        let shared = together(items, index, one, indent);
        if shared > index {
            index = shared;
            continue;
        }
        match &one.kind {
            StatementKind::Assign { name, .. } => width = width.max(columns(&name.text)),
            StatementKind::Import(_) => {}
            _ if own_line(one, indent).is_some() => {}
            _ => return (width, index),
        }
    }
    (width, items.len())
}

/// How far the statements go that share the line of `first`; `next` when it stands alone.
fn together(items: &[Item], next: usize, first: &Statement, indent: usize) -> usize {
    let alone = |one: &Statement| one.comment.is_some() || one.end_comment.is_some();
    let Some(text) = one_line(first).filter(|_| !alone(first)) else { return next };
    let mut width = indent + columns(&text);
    let mut end = next;
    while let Some(Item::Statement(one)) = items.get(end) {
        let Some(text) = one_line(one).filter(|_| one.same_line) else { break };
        width += 2 + columns(&text);
        if width > WIDTH || (one.comment.is_some() && one.end_comment.is_some()) {
            break;
        }
        end += 1;
        if alone(one) {
            break;
        }
    }
    end
}

/// A statement on one line, where it stays on one: it is short enough, or has nothing to put on other lines.
fn own_line(one: &Statement, indent: usize) -> Option<String> {
    let empty = match &one.kind {
        StatementKind::For { body, .. } | StatementKind::Role { body, .. } => body.is_empty(),
        StatementKind::Block(block) => block.body.as_ref().is_none_or(Vec::is_empty),
        StatementKind::Import(_) | StatementKind::Assign { .. } => false,
    };
    one_line(one).filter(|text| empty || indent + columns(text) <= WIDTH)
}

/// A statement with the comment behind it; `names` is the width that assignments give to their names.
fn statement(one: &Statement, indent: usize, names: usize) -> Line {
    let behind = one.comment.as_ref().or(one.end_comment.as_ref()).cloned();
    let (head, items) = match &one.kind {
        StatementKind::Import(path) => {
            return Line { text: format!("import {}", expr(path, indent, indent + 7)), comment: behind };
        }
        StatementKind::Assign { name, value } => {
            let text = format!("{:names$} = ", name.text);
            let column = indent + columns(&text);
            return Line { text: text + &expr(value, indent, column), comment: behind };
        }
        StatementKind::For { name, list, body } => (for_head(name, list, indent), Some(body)),
        StatementKind::Role { name, params, body } => (role_head(name, params, indent), Some(body)),
        StatementKind::Block(block) => (block_head(block, indent), block.body.as_ref()),
    };
    let Some(items) = items else { return Line { text: head, comment: behind } };
    if let Some(text) = own_line(one, indent) {
        return Line { text, comment: behind };
    }
    let mut text = head + " {";
    match &one.comment {
        Some(comment) => {
            let _ = writeln!(text, "  #{comment}");
        }
        None if items.is_empty() => {}
        None => text.push('\n'),
    }
    body(&mut text, items, indent + STEP);
    if text.ends_with('\n') {
        let _ = write!(text, "{:indent$}", "");
    }
    text.push('}');
    Line { text, comment: one.end_comment.clone() }
}

/// A statement on one line, where it may stand on one: no comments inside, and its body was written on one line too.
fn one_line(one: &Statement) -> Option<String> {
    let single = |text: String| Some(text).filter(|text| !text.contains('\n'));
    let (head, items) = match &one.kind {
        StatementKind::Import(path) => return single(format!("import {}", expr(path, 0, 0))),
        StatementKind::Assign { name, value } => return single(format!("{} = {}", name.text, expr(value, 0, 0))),
        StatementKind::For { name, list, body } => (for_head(name, list, 0), Some(body)),
        StatementKind::Role { name, params, body } => (role_head(name, params, 0), Some(body)),
        StatementKind::Block(block) => (block_head(block, 0), block.body.as_ref()),
    };
    let head = single(head)?;
    let Some(items) = items else { return Some(head) };
    if items.is_empty() {
        // With two comments, each needs a line of its own.
        return Some(head + " {}").filter(|_| one.comment.is_none() || one.end_comment.is_none());
    }
    let mut text = head + " {";
    for item in items {
        let Item::Statement(inner) = item else { return None };
        if !inner.same_line || inner.comment.is_some() || inner.end_comment.is_some() {
            return None;
        }
        let gap = if text.ends_with('{') { " " } else { "  " };
        let _ = write!(text, "{gap}{}", one_line(inner)?);
    }
    Some(text + " }")
}

fn for_head(name: &Name, list: &Expr, indent: usize) -> String {
    format!("for {} in {}", name.text, flat(list, indent))
}

fn block_head(block: &Block, indent: usize) -> String {
    let mut text = block.word.text.clone();
    if let Some(label) = &block.label {
        let _ = write!(text, " {}", flat(label, indent));
    }
    for clause in &block.clauses {
        let _ = write!(text, " {} {}", clause.word.text, flat(&clause.value, indent));
    }
    text
}

fn role_head(name: &Name, params: &[Param], indent: usize) -> String {
    let one = |param: &Param| {
        let default = param.default.as_ref().map(|value| format!(" = {}", flat(value, indent + STEP)));
        format!("{}: {}{}", param.name.text, param.kind.text, default.unwrap_or_default())
    };
    let params: Vec<String> = params.iter().map(one).collect();
    let text = format!("role {}({})", name.text, params.join(", "));
    if indent + columns(&text) + 2 <= WIDTH {
        return text;
    }
    let inner = indent + STEP;
    let mut text = format!("role {}(\n", name.text);
    for param in &params {
        let _ = writeln!(text, "{:inner$}{param},", "");
    }
    let _ = write!(text, "{:indent$})", "");
    text
}

/// An expression whose layout is not ours to choose: lists stay on their line however long they are.
fn flat(one: &Expr, indent: usize) -> String {
    expr(one, indent, 0)
}

/// An expression that begins at `column`; the lines after its first stand at `indent` and deeper.
fn expr(one: &Expr, indent: usize, column: usize) -> String {
    let inner = |part: &Expr| flat(part, indent);
    match &one.kind {
        ExprKind::Literal { text, .. } => text.clone(),
        ExprKind::Text { parts, quote: Quote::Double } => plain_string(parts, indent),
        ExprKind::Text { parts, quote: Quote::Block } => block_string(parts, indent + STEP),
        ExprKind::Name(name) => name.clone(),
        ExprKind::Attr(base, name) => format!("{}.{}", inner(base), name.text),
        ExprKind::Index(base, index) => format!("{}[{}]", inner(base), inner(index)),
        ExprKind::List { items, multiline, trailing } => {
            // The arrows of mounts stand in one column.
            let left = |item: &Expr| match &item.kind {
                ExprKind::Arrow { from, .. } => columns(&flat(from, indent)),
                _ => 0,
            };
            let widest = items.iter().map(|item| left(&item.value)).max().unwrap_or(0);
            let text = |item: &Expr, at: usize| match &item.kind {
                ExprKind::Arrow { from, to, flags } if at > indent => arrow(from, to, flags, at, widest),
                _ => expr(item, at, at),
            };
            list(items, trailing, *multiline, (indent, column), &["[", ", ", "]"], text)
        }
        ExprKind::Map { entries, multiline, trailing } => map(entries, trailing, *multiline, indent, column),
        ExprKind::Call { name, args, named } => format!("{}{}", name.text, arguments(args, named, indent)),
        ExprKind::Filter { input, name, args, named } if args.is_empty() && named.is_empty() => {
            format!("{} | {}", inner(input), name.text)
        }
        ExprKind::Filter { input, name, args, named } => {
            format!("{} | {}{}", inner(input), name.text, arguments(args, named, indent))
        }
        ExprKind::Test { input, name, negated, args } => {
            let not = if *negated { "not " } else { "" };
            let args = if args.is_empty() { String::new() } else { arguments(args, &[], indent) };
            format!("{} is {not}{}{args}", inner(input), name.text)
        }
        ExprKind::Unary(UnaryOp::Not, operand) => format!("not {}", inner(operand)),
        ExprKind::Unary(UnaryOp::Minus, operand) => format!("-{}", inner(operand)),
        ExprKind::Binary(op, left, right) => format!("{} {} {}", inner(left), op.symbol(), inner(right)),
        ExprKind::Ternary { then, condition, otherwise } => {
            format!("{} if {} else {}", inner(then), inner(condition), inner(otherwise))
        }
        ExprKind::Arrow { from, to, flags } => arrow(from, to, flags, indent, 0),
        ExprKind::Group(operand) => format!("({})", inner(operand)),
    }
}

/// A mount; what stands left of the arrow takes `width` columns at least.
fn arrow(from: &Expr, to: &Expr, flags: &[Name], indent: usize, width: usize) -> String {
    let mut text = format!("{:width$} -> {}", flat(from, indent), flat(to, indent));
    for flag in flags {
        let _ = write!(text, " {}", flag.text);
    }
    text
}

fn arguments(args: &[Expr], named: &[(Name, Expr)], indent: usize) -> String {
    let by_place = args.iter().map(|arg| flat(arg, indent));
    let by_name = named.iter().map(|(name, arg)| format!("{}: {}", name.text, flat(arg, indent)));
    format!("({})", by_place.chain(by_name).collect::<Vec<_>>().join(", "))
}

fn map(
    entries: &[Element<(Name, Expr)>],
    trailing: &[String],
    multiline: bool,
    indent: usize,
    column: usize,
) -> String {
    let widest = entries.iter().map(|entry| columns(&key(&entry.value.0))).max().unwrap_or(0);
    let one = |(name, value): &(Name, Expr), at: usize| {
        // On a line of its own an entry stands deeper than the map, and its sign in the column of the others.
        let width = if at > indent { widest } else { 0 };
        let text = format!("{:width$} = ", key(name));
        let column = at + columns(&text);
        text + &expr(value, at, column)
    };
    list(entries, trailing, multiline, (indent, column), &["{ ", "  ", " }"], one)
}

/// A map's key: in quotes only where it must be.
fn key(name: &Name) -> String {
    let mut letters = name.text.chars();
    let plain = letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && letters.all(|c| c.is_ascii_alphanumeric() || c == '_');
    if plain { name.text.clone() } else { format!("\"{}\"", escaped(&name.text, false)) }
}

/// What lists and maps share. `signs` open, separate and close; at `(indent, column)` it stands.
fn list<T>(
    items: &[Element<T>],
    trailing: &[String],
    multiline: bool,
    (indent, column): (usize, usize),
    [open, between, close]: &[&str; 3],
    text: impl Fn(&T, usize) -> String,
) -> String {
    let commented = !trailing.is_empty() || items.iter().any(|item| !item.before.is_empty() || item.after.is_some());
    if items.is_empty() && !commented {
        return format!("{}{}", open.trim(), close.trim());
    }
    if !multiline && !commented {
        let row: Vec<String> = items.iter().map(|item| text(&item.value, indent)).collect();
        let row = format!("{open}{}{close}", row.join(between));
        let first = row.split('\n').next().unwrap_or(&row);
        if column == 0 || column + columns(first) <= WIDTH || row.contains('\n') {
            return row;
        }
    }
    let inner = indent + STEP;
    let comma = if between.starts_with(',') { "," } else { "" };
    let mut lines = Vec::new();
    let alone = |comment: &String| Line { text: String::new(), comment: Some(comment.clone()) };
    for item in items {
        lines.extend(item.before.iter().map(alone));
        lines.push(Line { text: text(&item.value, inner) + comma, comment: item.after.clone() });
    }
    lines.extend(trailing.iter().map(alone));
    let mut out = format!("{}\n", open.trim());
    write_lines(&mut out, &lines, inner);
    let _ = write!(out, "{:indent$}{}", "", close.trim());
    out
}

fn plain_string(parts: &[TextPart], indent: usize) -> String {
    let mut out = String::from("\"");
    for (index, part) in parts.iter().enumerate() {
        match part {
            TextPart::Plain(text) => {
                let computed_next = matches!(parts.get(index + 1), Some(TextPart::Computed(_)));
                out.push_str(&escaped(text, computed_next));
            }
            TextPart::Computed(one) => {
                let _ = write!(out, "{{{{ {} }}}}", flat(one, indent));
            }
        }
    }
    out.push('"');
    out
}

/// Text as it stands between quotes. A brace is escaped where it would open a computed part.
fn escaped(text: &str, computed_next: bool) -> String {
    let mut out = String::new();
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '"' | '\\' => out.extend(['\\', letter]),
            '{' if letters.peek().map_or(computed_next, |next| *next == '{') => out.push_str("\\{"),
            _ => out.push(letter),
        }
    }
    out
}

/// A `"""` block: its lines at `indent`, and its closing quotes too, so that exactly this indentation is taken off again.
fn block_string(parts: &[TextPart], indent: usize) -> String {
    let mut content = String::new();
    // Only line ends of plain text begin lines of the block; those inside of computed parts are layout.
    let mut fresh = true;
    for part in parts {
        match part {
            TextPart::Plain(text) => {
                for line in text.split_inclusive('\n') {
                    if fresh && line != "\n" {
                        let _ = write!(content, "{:indent$}", "");
                    }
                    content.push_str(line);
                    fresh = line.ends_with('\n');
                }
            }
            TextPart::Computed(one) => {
                if std::mem::take(&mut fresh) {
                    let _ = write!(content, "{:indent$}", "");
                }
                let _ = write!(content, "{{{{ {} }}}}", flat(one, indent));
            }
        }
    }
    format!("\"\"\"\n{content}{:indent$}\"\"\"", "")
}
