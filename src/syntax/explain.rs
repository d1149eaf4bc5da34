//! What is wrong where pest could not go on, in the words of the language. Habits from YAML, HCL, shells and other languages
//! get the right form named.

use super::characters::{is_wide, looks_like, narrow};
use super::grammar::Rule;
use super::literal::short;
use crate::diagnostic::Diagnostic;
use crate::source::Span;

/// Words that cannot be names.
pub(super) const KEYWORDS: [&str; 11] = ["and", "or", "not", "in", "is", "if", "else", "for", "true", "false", "null"];

/// The place where reading stopped.
struct Stop<'a> {
    /// Its line up to the place, without indentation.
    before: &'a str,
    /// Its line from the place on.
    rest: &'a str,
    /// What pest could have gone on with.
    expected: &'a [Rule],
}

/// What is said: the length of what is underlined, the message, the ways out.
struct Said {
    /// How far before the place it begins.
    back: usize,
    length: usize,
    message: String,
    help: Vec<String>,
}

#[expect(clippy::unnecessary_wraps, reason = "every caller returns an option")]
fn say(length: usize, message: impl Into<String>, help: impl Into<String>) -> Option<Said> {
    Some(Said { back: 0, length, message: message.into(), help: vec![help.into()] })
}

impl Said {
    /// The same, beginning before the place; what is underlined goes on to where it was to end.
    fn from(self, back: usize) -> Self {
        Self { back, length: self.length + back, ..self }
    }
}

/// The error for a text that pest could not read beyond `at`.
pub(super) fn explain(file: u32, text: &str, at: usize, expected: &[Rule]) -> Diagnostic {
    let (head, tail) = text.split_at_checked(at).unwrap_or((text, ""));
    let line_start = head.rfind('\n').map_or(0, |end| end + 1);
    let line = head.get(line_start..).unwrap_or("");
    let stop = Stop {
        before: line.trim_start_matches([' ', '\t']),
        rest: tail.lines().next().unwrap_or("").trim_end(),
        expected,
    };
    let said = other_languages(&stop)
        .or_else(|| unquoted(&stop))
        .or_else(|| names(&stop))
        .or_else(|| layout(&stop, head))
        .unwrap_or_else(|| plainly(&stop));
    let (start, length) =
        if stop.rest.is_empty() { (head.trim_end().len(), 1) } else { (at - said.back, said.length.max(1)) };
    let offset = |at: usize| u32::try_from(at.min(text.len())).unwrap_or(u32::MAX);
    let span = Span { file, start: offset(start), end: offset(start + length) };
    let mut diagnostic = Diagnostic::new(span, said.message);
    diagnostic.help = said.help;
    diagnostic
}

impl Stop<'_> {
    /// Whether nothing but a name stands before the place: `name`.
    fn only_name(&self) -> Option<&str> {
        let name = self.before.trim_end();
        (is_name(name)).then_some(name)
    }

    /// The last word before the place, when a statement may begin with it.
    fn begun(&self) -> &str {
        let head = self.before.trim_end();
        let start = head.rfind(|c: char| !c.is_ascii_alphanumeric() && c != '_').map_or(0, |end| end + 1);
        let (around, word) = head.split_at_checked(start).unwrap_or(("", ""));
        let around = around.trim_end();
        if around.is_empty() || around.ends_with(['{', '}']) { word } else { "" }
    }

    /// Whether a statement would begin here.
    fn at_start(&self) -> bool {
        self.before.is_empty() || self.before.trim_end().ends_with('{')
    }

    /// What stands before the place within the innermost braces, brackets or commas.
    fn inner(&self) -> &str {
        self.before.rsplit(['{', '(', '[', ',']).next().unwrap_or("")
    }

    /// Whether the place is in a value that is set.
    fn in_value(&self) -> bool {
        self.inner().contains('=')
    }

    /// Whether the place is in a condition.
    fn in_condition(&self) -> bool {
        let inner = self.inner().trim_start();
        inner.starts_with("when ") || inner.contains(" if ")
    }

    fn wants(&self, rules: &[Rule]) -> bool {
        self.expected.iter().any(|rule| rules.contains(rule))
    }

    /// Whether an expression would begin here.
    fn wants_value(&self) -> bool {
        self.wants(&[
            Rule::line_expr,
            Rule::line_choice,
            Rule::line_ops,
            Rule::head_expr,
            Rule::head_choice,
            Rule::head_ops,
            Rule::wide_expr,
            Rule::wide_choice,
            Rule::wide_ops,
            Rule::string,
            Rule::literal,
            Rule::variable,
            Rule::call,
            Rule::group,
        ])
    }
}

fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The word at the beginning of a text, up to a blank; a text in quotes as a whole.
fn word(text: &str) -> &str {
    if let Some(end) = text.strip_prefix('"').and_then(|rest| rest.find('"')) {
        return text.get(..end + 2).unwrap_or(text);
    }
    text.split([' ', '\t', ',', ')', ']', '}']).next().unwrap_or("")
}

fn other_languages(stop: &Stop) -> Option<Said> {
    let Stop { before, rest, .. } = *stop;
    if before.is_empty() && rest == "---" {
        return say(
            3,
            "this is YAML; fanli reads playbooks of its own language",
            "`fanli doc KIND` shows how a task of each kind is written",
        );
    }
    if let Some(item) = rest.strip_prefix("- ").filter(|_| before.is_empty()) {
        if item.split_once(':').is_some_and(|(name, _)| is_name(name)) {
            return say(
                1,
                "tasks and plays are blocks, not `-` lines",
                "write `play \"title\" on hosts.GROUP {`, and inside `directory \"/srv/a\" { mode = 0755 }`",
            );
        }
        let item = short(item.trim().trim_matches(['"', '\'']));
        return say(
            1,
            "a list is not written with `-` lines",
            format!(
                "write it in brackets, with commas: `name = [\"{item}\", …]`; tasks stand in a block without a sign"
            ),
        );
    }
    if rest.starts_with(is_wide) {
        let text = word(rest);
        return say(
            text.len(),
            format!("`{}` is written with full-width characters", short(text)),
            format!("write `{}`", short(&narrow(text))),
        );
    }
    if rest.starts_with(':') && !rest.starts_with("::") && !stop.in_value() {
        if let Some(key) = before.strip_suffix('"').and_then(|head| head.rsplit('"').next()) {
            let key = if is_name(key) { key } else { "name" };
            return say(1, "a key of a map is a name, and `=` follows it", format!("write `{{ {key} = … }}`"));
        }
        let value = short(rest.trim_start_matches([':', '=']).trim());
        let name = before.rsplit([' ', '\t', '{', ',', '(']).next().unwrap_or("").trim();
        if is_name(name) || is_name(before.trim()) {
            let name = if is_name(name) { name } else { before.trim() };
            if rest.starts_with(":=") || !value.is_empty() {
                let shown = match value.as_str() {
                    "yes" | "True" | "on" => "true",
                    "no" | "False" | "off" => "false",
                    value if is_name(value) || looks_plain(value) => value,
                    _ => "…",
                };
                return say(1, format!("`{name}` is set with `=`, not `:`"), format!("write `{name} = {shown}`"));
            }
            return say(1, "a block is opened by `{`, not `:`", format!("write `{name} {{`, and `}}` at its end"));
        }
    }
    let set = before.strip_suffix('=').filter(|_| rest.starts_with('=')).unwrap_or(before).trim_end();
    if rest.starts_with("==") || set.len() < before.trim_end().len() {
        let name = set.rsplit([' ', '\t', '{']).next().filter(|name| is_name(name)).unwrap_or("name");
        let back = usize::from(!rest.starts_with("=="));
        let said = say(2 - back, "`==` compares; it does not set", format!("one `=` sets a value: `{name} = …`"));
        return said.map(|said| said.from(back));
    }
    if rest.starts_with('=') && stop.in_condition() && !before.trim_end().ends_with('=') {
        return say(1, "`=` sets a value; it does not compare", "two values are compared by `==`");
    }
    if rest.starts_with("=>") {
        return say(2, "a key and its value are joined by `=`, not `=>`", "write `key = value`");
    }
    if rest.starts_with("+=") || rest.starts_with("-=") || rest.starts_with("?=") {
        let sign = rest.get(..2).unwrap_or("");
        return say(
            2,
            format!("there is no `{sign}`: a name is bound once"),
            "give the new value another name: `more = all + [\"x\"]`",
        );
    }
    if rest.starts_with('$') {
        let name = rest.trim_start_matches(['$', '{']);
        let name =
            name.get(..name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '.').unwrap_or(name.len()));
        let name = name.filter(|name| !name.is_empty()).unwrap_or("name");
        return say(
            word(rest).len(),
            "`$` has no meaning here",
            format!("a variable is its name alone: `{name}`; inside of a text: `\"{{{{ {name} }}}}\"`"),
        );
    }
    if rest.starts_with("{{") || (rest.starts_with('{') && before.ends_with('{')) {
        let inner = rest.trim_start_matches('{').split("}}").next().unwrap_or("").trim();
        let back = usize::from(!rest.starts_with("{{"));
        let said = say(
            2 - back,
            "`{{ }}` stands inside of texts only",
            format!("an expression outside of a text stands alone: `{}`", short(inner)),
        );
        return said.map(|said| said.from(back));
    }
    if rest.starts_with("{%") || (rest.starts_with('%') && before.ends_with('{')) {
        return say(
            1,
            "`{% %}` belongs into template files",
            "in a playbook it is `for x in list { … }` and `when condition { … }`",
        );
    }
    if rest.starts_with('\'') {
        let text = rest.trim_start_matches('\'').split('\'').next().unwrap_or("");
        let length = (text.len() + 2).min(rest.len());
        return say(length, "a text stands between double quotes", format!("write `\"{}\"`", short(text)));
    }
    if rest.starts_with(['“', '”', '„', '‘', '’', '«']) {
        let length = rest.chars().next().map_or(1, char::len_utf8);
        return say(length, "a typographic quote is no quote", "write the plain one: `\"`");
    }
    if let Some(c) = rest.chars().next().filter(|c| c.is_whitespace() && !c.is_ascii()) {
        return say(
            c.len_utf8(),
            format!("a blank that is none (U+{:04X})", u32::from(c)),
            "write a plain blank; such ones come from web pages",
        );
    }
    for (sign, word) in [("&&", "and"), ("||", "or"), ("!", "not")] {
        if rest.starts_with(sign) && !rest.starts_with("!=") {
            return say(sign.len(), format!("`{sign}` is written `{word}`"), "for example: `when a and not b { … }`");
        }
    }
    if rest.starts_with("/*") || (rest.starts_with("//") && stop.at_start()) {
        return say(2, "a comment begins with `#`", "write `# …`");
    }
    if rest.starts_with('?') {
        return say(1, "there is no `? :`", "write `a if condition else b`");
    }
    if rest.starts_with(';') {
        return say(1, "a statement ends with its line, without `;`", "delete the `;`");
    }
    if rest.starts_with('`') {
        return say(
            1,
            "a back quote has no meaning here",
            "a text stands between double quotes; the output of a command is `command [\"…\"] as result`, then `result.stdout`",
        );
    }
    None
}

/// Whether a value may be repeated in an example: one word or literal.
fn looks_plain(text: &str) -> bool {
    !text.is_empty()
        && !text.contains([' ', '\t', '#', '\''])
        && (text.starts_with(['"', '[']) || text.starts_with(|c: char| c.is_ascii_digit()))
}

/// Text without quotes.
fn unquoted(stop: &Stop) -> Option<Said> {
    let Stop { before, rest, .. } = *stop;
    let c = rest.chars().next()?;
    let quote = |length: usize, text: &str| {
        say(length, format!("a text stands in quotes: `{}`", short(text)), format!("write `\"{}\"`", short(text)))
    };
    let foreign = !c.is_ascii() && !before.ends_with(|c: char| c.is_alphanumeric());
    if stop.wants_value() && (matches!(c, '/' | '~' | '.' | '*' | '@' | '%') || foreign) {
        let text = word(rest);
        return quote(text.len(), text);
    }
    // `a = web-1.example`: what stands before is a name or a number that goes on.
    if matches!(c, '/' | '@' | '.' | '~' | '*') && !before.is_empty() {
        let text = before.rsplit([' ', '\t', '=', '[', '(', ',']).next().unwrap_or("");
        if !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./:".contains(c)) {
            let whole = format!("{text}{}", word(rest));
            return say(
                word(rest).len(),
                format!("a text stands in quotes: `{}`", short(&whole)),
                format!("write `\"{}\"`", short(&whole)),
            );
        }
    }
    None
}

fn names(stop: &Stop) -> Option<Said> {
    let Stop { before, rest, .. } = *stop;
    let c = rest.chars().next()?;
    // `web-nodes = 3` is read as a block with a negative title.
    let name = before.trim_end().rsplit([' ', '\t', '{']).next().unwrap_or("");
    if c == '=' && name.contains('-') && is_name(&name.replace('-', "_")) {
        let said = say(
            0,
            format!("`{}` is not a name", short(name)),
            format!("names have letters, digits and `_`: `{}`", short(&name.replace('-', "_"))),
        );
        let gap = before.len() - before.trim_end().len();
        return said.map(|said| Said { back: name.len() + gap, length: name.len(), ..said });
    }
    if let Some(name) = stop.only_name() {
        let whole = format!("{name}{}", rest.split([' ', '\t', '=', '{', '(']).next().unwrap_or(""));
        if c == '-' && before.ends_with(name) {
            return say(
                1,
                format!("`{}` is not a name", short(&whole)),
                format!("names have letters, digits and `_`: `{}`", short(&whole.replace('-', "_"))),
            );
        }
        if c == '.' && before.ends_with(name) {
            return say(1, "a field of a value cannot be set", format!("write the whole: `{name} = {{ … }}`"));
        }
        if c == '[' {
            return say(1, "an item of a value cannot be set", format!("write the whole: `{name} = [ … ]`"));
        }
    }
    if !c.is_ascii() && c.is_alphanumeric() && (stop.at_start() || before.ends_with(|c: char| c.is_alphanumeric())) {
        let start = before.rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |end| end + 1);
        let head = before.get(start..).unwrap_or("");
        let tail =
            rest.get(..rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())).unwrap_or("");
        let whole = format!("{head}{tail}");
        let message = format!("`{}` is not a name", short(&whole));
        let latin: String = whole.chars().map(|c| looks_like(c).unwrap_or(c)).collect();
        let help = if is_name(&latin) {
            format!("`{c}` in it is U+{:04X} and only looks like a Latin letter: write `{latin}`", u32::from(c))
        } else {
            "names have the letters a to z, digits and `_`; a text stands in quotes".to_owned()
        };
        let said = say(tail.len(), message, help);
        return said.map(|said| said.from(head.len()));
    }
    let here = word(rest);
    let here =
        here.get(..here.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(here.len())).unwrap_or("");
    let begun = if here.is_empty() || !stop.begun().is_empty() { stop.begun() } else { here };
    let back = if begun == stop.begun() && !begun.is_empty() {
        before.len() - before.trim_end().len() + begun.len()
    } else {
        0
    };
    let at_word = |said: Option<Said>| said.map(|said| Said { back, length: begun.len(), ..said });
    if stop.at_start() || before.ends_with('}') || back > 0 {
        match begun {
            "else" | "elif" | "elsif" => {
                return at_word(say(
                    0,
                    format!("`when` has no `{begun}`"),
                    "write a second block with the opposite: `when not (…) { … }`; for a value: `a if condition else b`",
                ));
            }
            "if" | "unless" => {
                let message = format!("a condition around tasks is written `when`, not `{begun}`");
                return at_word(say(0, message, "write `when condition { … }`"));
            }
            _ => {}
        }
    }
    if KEYWORDS.contains(&here) && (stop.at_start() || (!stop.wants_value() && before.is_empty())) {
        return say(
            here.len(),
            format!("`{here}` is a word of the language; it cannot be a name"),
            format!("take another name, such as `{here}_`"),
        );
    }
    None
}

/// Lines, commas, braces.
fn layout(stop: &Stop, head: &str) -> Option<Said> {
    let Stop { before, rest, .. } = *stop;
    let c = rest.chars().next();
    if head.trim().is_empty() && matches!(c, Some('{' | '[')) {
        return say(
            1,
            "this looks like JSON; fanli reads playbooks of its own language",
            "`fanli doc playbook` shows a whole one",
        );
    }
    if stop.at_start() && c == Some('{') && before.is_empty() {
        let last = head.trim_end().rsplit('\n').next().unwrap_or("").trim();
        return say(1, "the `{` of a block stands on the block's first line", format!("write `{} {{`", short(last)));
    }
    if stop.at_start() && c == Some('"') {
        return say(
            1,
            "a text alone is no statement",
            "write `name = \"…\"`, or the kind of task before it: `directory \"/srv\" { … }`",
        );
    }
    if stop.at_start() && c.is_some_and(|c| c.is_ascii_digit()) {
        return say(
            word(rest).len(),
            "a statement begins with a name",
            "write `name = value`, or a block: `word … { … }`",
        );
    }
    if c == Some(',') && stop.before.ends_with(',') {
        return say(1, "a value is missing between two commas", "delete one of them");
    }
    if c == Some(',') && !stop.wants(&[Rule::comma]) && !stop.wants_value() {
        return say(
            1,
            "statements are not separated by commas",
            "one stands on each line, or blanks between them: `{ state = running  enabled = true }`",
        );
    }
    if c == Some('=') && stop.wants_value() && before.trim_end().ends_with('=') {
        return say(1, "a value is missing", "`=` stands once: `name = value`");
    }
    let closes = c.is_none_or(|c| matches!(c, '}' | ']' | ')' | ',' | '#'));
    if closes && stop.wants_value() {
        let sign = before.trim_end().rsplit([' ', '\t']).next().unwrap_or("");
        let after = if sign.is_empty() { String::new() } else { format!(" after `{}`", short(sign)) };
        let help = if before.trim_end().ends_with('=') {
            "a value stands on the line of its `=`; `null` says that there is none"
        } else {
            "an expression goes on to the next line inside of brackets only: `(a or`, then `b)`"
        };
        return say(1, format!("a value is missing{after}"), help);
    }
    if closes && stop.wants(&[Rule::else_word]) && before.contains(" if ") {
        return say(
            1,
            "the `else` of this `if` is missing",
            "write `a if condition else b`; a task has `when = condition` inside",
        );
    }
    if c == Some('"') && stop.wants(&[Rule::body]) {
        return say(word(rest).len(), "a block has one title", "what else it takes stands inside: `{ name = value }`");
    }
    if closes && stop.wants(&[Rule::body]) {
        return say(1, "the block's `{` is missing", "a block stands in braces: `word … { … }`");
    }
    None
}

/// Nothing better is known: what stands there, and what could.
fn plainly(stop: &Stop) -> Said {
    let Stop { before, rest, .. } = *stop;
    let here = word(rest);
    let name: &str =
        here.get(..here.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(here.len())).unwrap_or("");
    let here = if here.starts_with('"') {
        here
    } else if name.is_empty() {
        rest.chars().next().map_or("", |c| rest.get(..c.len_utf8()).unwrap_or(""))
    } else {
        name
    };
    let found = if rest.is_empty() { "the end of the line".to_owned() } else { format!("`{}`", short(here)) };
    let length = here.len();
    let (what, help) = if stop.wants_value() {
        ("a value", "a text stands in quotes; a number, a name, a list `[ ]` or a map `{ }` stands as it is")
    } else if stop.at_start() {
        ("a statement", "a line is `name = value`, a block `word … { … }`, or a comment `# …`")
    } else if stop.wants(&[Rule::key, Rule::entry]) {
        ("`key = value` or `}`", "a map is written `{ a = 1  b = 2 }`")
    } else if stop.wants(&[Rule::comma]) {
        ("`,` or the closing bracket", "items of a list have commas between them: `[1, 2]`")
    } else if stop.wants(&[Rule::param]) {
        ("a parameter", "a role's parameters are written `(name: type, other: type = default)`")
    } else if before.trim_start().starts_with("for ") {
        ("the rest of a loop", "a loop is written `for name in list { … }`")
    } else if before.trim_start().starts_with("role ") {
        ("the rest of a role", "a role is written `role name(parameter: type) { … }`")
    } else if stop.wants(&[Rule::body]) {
        ("`{`", "a block is written `word … { … }`; what stands before the `{` is one expression")
    } else if stop.wants(&[Rule::arg, Rule::args]) {
        ("an argument", "arguments have commas between them: `f(1, name: 2)`")
    } else {
        ("an operator or the end of the line", "is a quote, a comma or an operator missing?")
    };
    Said { back: 0, length, message: format!("expected {what}, found {found}"), help: vec![help.to_owned()] }
}
