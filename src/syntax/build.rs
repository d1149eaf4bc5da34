//! From pest's pairs to the tree: comments and blank lines find their places, literals and strings are read and checked.

use std::sync::LazyLock;

use pest::iterators::{Pair, Pairs};
use pest::pratt_parser::{Assoc, Op, PrattParser};

use super::ast::{
    BinaryOp, Block, Clause, Element, Expr, ExprKind, Item, Name, Param, Quote, Statement, StatementKind, TextPart,
    UnaryOp,
};
use super::explain::KEYWORDS;
use super::grammar::Rule;
use super::{literal, text};
use crate::diagnostic::Diagnostic;
use crate::source::Span;
use crate::value::Value;

type Node<'a> = Pair<'a, Rule>;

/// minijinja's precedence, from the loosest; what stands right behind an operand binds tightest.
static PRATT: LazyLock<PrattParser<Rule>> = LazyLock::new(|| {
    let left = |rule| Op::infix(rule, Assoc::Left);
    PrattParser::new()
        .op(left(Rule::or))
        .op(left(Rule::and))
        .op(Op::prefix(Rule::not))
        .op(left(Rule::equal)
            | left(Rule::not_equal)
            | left(Rule::less)
            | left(Rule::less_equal)
            | left(Rule::greater)
            | left(Rule::greater_equal)
            | left(Rule::is_in)
            | left(Rule::not_in))
        .op(left(Rule::add) | left(Rule::subtract))
        .op(left(Rule::concat))
        .op(left(Rule::multiply) | left(Rule::divide) | left(Rule::floor_divide) | left(Rule::remainder))
        .op(Op::postfix(Rule::filter) | Op::postfix(Rule::test))
        .op(Op::prefix(Rule::minus))
        .op(Op::postfix(Rule::attr) | Op::postfix(Rule::index))
});

/// Builds the tree of one text; what is wrong inside a well-formed text is collected.
pub(super) struct Builder {
    pub(super) file: u32,
    pub(super) errors: std::cell::RefCell<Vec<Diagnostic>>,
}

impl Builder {
    pub(super) fn new(file: u32) -> Self {
        Self { file, errors: std::cell::RefCell::default() }
    }

    fn span(&self, pair: &Node<'_>) -> Span {
        let span = pair.as_span();
        let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Span { file: self.file, start: offset(span.start()), end: offset(span.end()) }
    }

    fn error(&self, diagnostic: Diagnostic) {
        self.errors.borrow_mut().push(diagnostic);
    }

    fn name(&self, pair: &Node<'_>) -> Name {
        // A type's or filter's name wraps a name; its text is the same.
        Name { text: pair.as_str().to_owned(), span: self.span(pair) }
    }

    /// A stand-in where the grammar promises something; only a defect of the grammar could show it.
    fn nothing(&self) -> Expr {
        let kind = ExprKind::Literal { value: Value::Null, text: "null".to_owned() };
        Expr { kind, span: Span { file: self.file, start: 0, end: 0 } }
    }

    /// The items of a file or body, and the comment right behind the brace that opens it.
    pub(super) fn items(&self, pairs: Pairs<'_, Rule>, of_file: bool) -> (Vec<Item>, Option<String>) {
        let (mut items, mut head) = (Vec::new(), None);
        // Whether nothing stands on this line yet; whether an empty line came since the last item.
        let (mut fresh, mut blank) = (of_file, false);
        for pair in pairs {
            match pair.as_rule() {
                Rule::newline => {
                    blank |= fresh;
                    fresh = true;
                    continue;
                }
                Rule::comment if !fresh => {
                    let comment = comment(&pair);
                    match items.last_mut() {
                        Some(Item::Statement(last)) => attach(last, comment, pair.as_span().get_input()),
                        _ => head = Some(comment),
                    }
                    continue;
                }
                Rule::comment | Rule::statement => {}
                _ => continue,
            }
            if std::mem::take(&mut blank) && !items.is_empty() {
                items.push(Item::Blank);
            }
            if pair.as_rule() == Rule::comment {
                items.push(Item::Comment(comment(&pair)));
            } else if let Some(statement) = self.statement(pair, !fresh) {
                items.push(Item::Statement(Box::new(statement)));
            }
            fresh = false;
        }
        (items, head)
    }

    /// A name that a statement binds. A word of the language could be bound, but never used.
    fn bound(&self, pair: &Node<'_>) -> Name {
        let name = self.name(pair);
        if KEYWORDS.contains(&name.text.as_str()) {
            let error =
                Diagnostic::new(name.span, format!("`{}` is a word of the language; it cannot be a name", name.text));
            self.error(error.help(format!("take another name, such as `{}_`", name.text)));
        }
        name
    }

    fn statement(&self, pair: Node<'_>, same_line: bool) -> Option<Statement> {
        let span = self.span(&pair);
        let inner = pair.into_inner().next()?;
        let rule = inner.as_rule();
        let mut parts = inner.into_inner();
        let mut comment = None;
        let mut body = |pair: Option<Node<'_>>| {
            let (items, head) = pair.map(|pair| self.items(pair.into_inner(), false)).unwrap_or_default();
            comment = head;
            items
        };
        let kind = match rule {
            Rule::import => StatementKind::Import(self.expr(parts.next()?)),
            Rule::for_loop => {
                let (name, list) = (self.bound(&parts.next()?), self.expr(parts.next()?));
                StatementKind::For { name, list, body: body(parts.next()) }
            }
            Rule::role => {
                let name = self.bound(&parts.next()?);
                let params = parts.next()?.into_inner().filter_map(|param| self.param(param)).collect();
                StatementKind::Role { name, params, body: body(parts.next()) }
            }
            Rule::assign => {
                let name = self.bound(&parts.next()?);
                let value = parts.find(|part| part.as_rule() == Rule::line_expr);
                StatementKind::Assign { name, value: self.expr(value?) }
            }
            _ => {
                let mut block = Block { word: self.name(&parts.next()?), label: None, clauses: Vec::new(), body: None };
                for part in parts {
                    match part.as_rule() {
                        Rule::label => block.label = part.into_inner().next().map(|label| self.expr(label)),
                        Rule::clause => block.clauses.extend(self.clause(part)),
                        Rule::body => block.body = Some(body(Some(part))),
                        _ => {}
                    }
                }
                StatementKind::Block(block)
            }
        };
        Some(Statement { kind, span, comment, end_comment: None, same_line })
    }

    fn clause(&self, pair: Node<'_>) -> Option<Clause> {
        let mut parts = pair.into_inner();
        Some(Clause { word: self.name(&parts.next()?), value: self.expr(parts.next()?) })
    }

    fn param(&self, pair: Node<'_>) -> Option<Param> {
        let mut parts = pair.into_inner();
        let (name, kind) = (self.bound(&parts.next()?), self.name(&parts.next()?));
        Some(Param { name, kind, default: parts.next().map(|default| self.expr(default)) })
    }

    /// An expression in any of its three dresses.
    pub(super) fn expr(&self, pair: Node<'_>) -> Expr {
        let span = self.span(&pair);
        let mut parts = pair.into_inner();
        let Some(first) = parts.next().map(|choice| self.choice(choice)) else { return self.nothing() };
        let mut to = None;
        let mut flags = Vec::new();
        for part in parts {
            match part.as_rule() {
                Rule::arrow => {}
                Rule::flag => flags.push(self.name(&part)),
                _ => to = Some(self.choice(part)),
            }
        }
        match to {
            Some(to) => Expr { kind: ExprKind::Arrow { from: Box::new(first), to: Box::new(to), flags }, span },
            None => first,
        }
    }

    /// `a if c else b`, or `a` alone.
    fn choice(&self, pair: Node<'_>) -> Expr {
        let span = self.span(&pair);
        let words = |part: &Node<'_>| !matches!(part.as_rule(), Rule::if_word | Rule::else_word);
        let mut parts = pair.into_inner().filter(words);
        let Some(then) = parts.next().map(|ops| self.operations(ops)) else { return self.nothing() };
        let (Some(condition), Some(otherwise)) = (parts.next(), parts.next()) else { return then };
        let condition = Box::new(self.operations(condition));
        let otherwise = Box::new(self.choice(otherwise));
        Expr { kind: ExprKind::Ternary { then: Box::new(then), condition, otherwise }, span }
    }

    fn operations(&self, pair: Node<'_>) -> Expr {
        PRATT
            .map_primary(|operand| self.operand(operand))
            .map_prefix(|sign, inner| {
                let span = self.span(&sign).to(inner.span);
                let op = if sign.as_rule() == Rule::not { UnaryOp::Not } else { UnaryOp::Minus };
                Expr { kind: ExprKind::Unary(op, Box::new(inner)), span }
            })
            .map_postfix(|input, tail| self.postfix(input, tail))
            .map_infix(|left, sign, right| self.binary(left, &sign, right))
            .parse(pair.into_inner())
    }

    fn binary(&self, left: Expr, sign: &Node<'_>, right: Expr) -> Expr {
        let op = match sign.as_rule() {
            Rule::or => BinaryOp::Or,
            Rule::and => BinaryOp::And,
            Rule::equal => BinaryOp::Equal,
            Rule::not_equal => BinaryOp::NotEqual,
            Rule::less => BinaryOp::Less,
            Rule::less_equal => BinaryOp::LessEqual,
            Rule::greater => BinaryOp::Greater,
            Rule::greater_equal => BinaryOp::GreaterEqual,
            Rule::is_in => BinaryOp::In,
            Rule::not_in => BinaryOp::NotIn,
            Rule::add => BinaryOp::Add,
            Rule::subtract => BinaryOp::Subtract,
            Rule::concat => BinaryOp::Concat,
            Rule::multiply => BinaryOp::Multiply,
            Rule::divide => BinaryOp::Divide,
            Rule::floor_divide => BinaryOp::FloorDivide,
            _ => BinaryOp::Remainder,
        };
        if let ExprKind::Binary(before, ..) = &left.kind
            && is_comparison(*before)
            && is_comparison(op)
        {
            let (first, second) = (before.symbol(), op.symbol());
            self.error(
                Diagnostic::new(self.span(sign), format!("`{first}` and `{second}` cannot be chained"))
                    .label("a second comparison")
                    .help("compare twice: `a < b and b < c`; or put one comparison in parentheses"),
            );
        }
        let span = left.span.to(right.span);
        Expr { kind: ExprKind::Binary(op, Box::new(left), Box::new(right)), span }
    }

    fn postfix(&self, input: Expr, tail: Node<'_>) -> Expr {
        let span = input.span.to(self.span(&tail));
        let rule = tail.as_rule();
        let mut parts = tail.into_inner();
        let input = Box::new(input);
        let Some(first) = parts.next() else { return *input };
        let kind = match rule {
            Rule::attr => ExprKind::Attr(input, self.name(&first)),
            Rule::index => ExprKind::Index(input, Box::new(self.expr(first))),
            Rule::filter => {
                let (args, named) = parts.next().map(|args| self.args(args)).unwrap_or_default();
                ExprKind::Filter { input, name: self.name(&first), args, named }
            }
            _ => {
                let negated = first.as_rule() == Rule::negation;
                let name = if negated { parts.next().unwrap_or(first) } else { first };
                let (args, named) = parts.next().map(|args| self.args(args)).unwrap_or_default();
                if let Some((first, _)) = named.first() {
                    let error = Diagnostic::new(first.span, "a test takes its arguments by place");
                    self.error(error.help("leave the name out: `x is divisibleby(3)`"));
                }
                ExprKind::Test { input, name: self.name(&name), negated, args }
            }
        };
        Expr { kind, span }
    }

    fn args(&self, pair: Node<'_>) -> (Vec<Expr>, Vec<(Name, Expr)>) {
        let (mut args, mut named): (Vec<Expr>, Vec<(Name, Expr)>) = (Vec::new(), Vec::new());
        for arg in pair.into_inner() {
            let mut parts = arg.into_inner();
            let Some(first) = parts.next() else { continue };
            if first.as_rule() != Rule::arg_name {
                let value = self.expr(first);
                if !named.is_empty() {
                    self.error(
                        Diagnostic::new(value.span, "an argument by place stands behind one by name")
                            .help("arguments by place come first: `f(1, 2, name: 3)`"),
                    );
                }
                args.push(value);
                continue;
            }
            let (Some(name), Some(value)) = (first.into_inner().next(), parts.next()) else { continue };
            let name = self.name(&name);
            if let Some((first, _)) = named.iter().find(|(known, _)| known.text == name.text) {
                self.error(
                    Diagnostic::new(name.span, format!("the argument `{}` is given twice", name.text))
                        .also(first.span, "given here already"),
                );
            }
            named.push((name, self.expr(value)));
        }
        (args, named)
    }

    fn operand(&self, pair: Node<'_>) -> Expr {
        let span = self.span(&pair);
        let kind = match pair.as_rule() {
            Rule::constant => self.literal(&pair, span),
            Rule::literal => match pair.into_inner().next() {
                Some(inner) => self.literal(&inner, span),
                None => return self.nothing(),
            },
            Rule::string => self.string(pair, span),
            Rule::list => self.list(pair),
            Rule::map => self.map(pair),
            Rule::group => match pair.into_inner().next() {
                Some(inner) => ExprKind::Group(Box::new(self.expr(inner))),
                None => return self.nothing(),
            },
            Rule::call => {
                let mut parts = pair.into_inner();
                let (Some(name), Some(args)) = (parts.next(), parts.next()) else { return self.nothing() };
                let (args, named) = self.args(args);
                ExprKind::Call { name: self.name(&name), args, named }
            }
            _ => ExprKind::Name(pair.as_str().to_owned()),
        };
        Expr { kind, span }
    }

    fn literal(&self, pair: &Node<'_>, span: Span) -> ExprKind {
        let text = pair.as_str();
        let value = literal::read(pair.as_rule(), text).unwrap_or_else(|wrong| {
            let mut diagnostic = Diagnostic::new(span, wrong.message);
            diagnostic.help.extend(wrong.help);
            self.error(diagnostic);
            Value::Null
        });
        let text = match &value {
            Value::Range(..) => text.split('-').map(str::trim).collect::<Vec<_>>().join(" - "),
            _ => text.to_owned(),
        };
        ExprKind::Literal { value, text }
    }

    fn string(&self, pair: Node<'_>, span: Span) -> ExprKind {
        let Some(inner) = pair.into_inner().next() else { return self.nothing().kind };
        let quote = if inner.as_rule() == Rule::block_string { Quote::Block } else { Quote::Double };
        let mut parts = Vec::new();
        for part in inner.into_inner() {
            let place = self.span(&part);
            match part.as_rule() {
                Rule::computed => {
                    parts.extend(part.into_inner().next().map(|expr| TextPart::Computed(self.expr(expr))));
                }
                Rule::escape => match part.as_str().chars().nth(1).map(|letter| (letter, text::escape(letter))) {
                    Some((_, Some(c))) => text::push(&mut parts, c.encode_utf8(&mut [0; 4])),
                    Some((letter, None)) => self.error(
                        Diagnostic::new(place, format!("there is no escape `\\{letter}`"))
                            .help(format!("a backslash itself is written twice: `\\\\{letter}`"))
                            .help("the escapes are \\n \\t \\\" \\\\ \\{; in a \"\"\" block nothing is escaped"),
                    ),
                    None => {}
                },
                _ => text::push(&mut parts, part.as_str()),
            }
        }
        if quote == Quote::Block {
            parts = text::dedent(parts).unwrap_or_else(|problem| {
                let what = match problem {
                    text::BlockError::Opening => "nothing may stand behind the opening `\"\"\"` on its line",
                    text::BlockError::Closing => "nothing may stand before the closing `\"\"\"` on its line",
                };
                self.error(Diagnostic::new(span, what).help(
                    "a block has its quotes on lines of their own; text of one line is written in plain quotes: `\"…\"`",
                ));
                Vec::new()
            });
        }
        ExprKind::Text { parts, quote }
    }

    fn list(&self, pair: Node<'_>) -> ExprKind {
        let (items, multiline, trailing) = elements(pair, |element| element.into_inner().next().map(|e| self.expr(e)));
        ExprKind::List { items, multiline, trailing }
    }

    fn map(&self, pair: Node<'_>) -> ExprKind {
        let (entries, multiline, trailing) = elements(pair, |entry| self.entry(entry));
        let mut seen = std::collections::HashMap::new();
        for Element { value: (key, _), .. } in &entries {
            if let Some(first) = seen.insert(key.text.clone(), key.span) {
                self.error(
                    Diagnostic::new(key.span, format!("the key `{}` stands twice in one map", key.text))
                        .also(first, "it stands here already"),
                );
            }
        }
        ExprKind::Map { entries, multiline, trailing }
    }

    fn entry(&self, pair: Node<'_>) -> Option<(Name, Expr)> {
        let mut parts = pair.into_inner();
        let key = parts.next()?;
        let mut name = self.name(&key);
        if let Some(string) = key.into_inner().next().filter(|inner| inner.as_rule() == Rule::string) {
            let ExprKind::Text { parts, .. } = self.string(string, name.span) else { return None };
            name.text = match parts.as_slice() {
                [] => String::new(),
                [TextPart::Plain(text)] => text.clone(),
                _ => {
                    self.error(
                        Diagnostic::new(name.span, "a key cannot be computed").help("write the key as plain text"),
                    );
                    String::new()
                }
            };
        }
        let value = parts.find(|part| part.as_rule() == Rule::wide_expr)?;
        Some((name, self.expr(value)))
    }
}

/// What lists and maps share: items with the comments around them, and whether a line end stood between them.
fn elements<T>(pair: Node<'_>, read: impl Fn(Node<'_>) -> Option<T>) -> (Vec<Element<T>>, bool, Vec<String>) {
    let (mut items, mut multiline, mut pending): (Vec<Element<T>>, bool, Vec<String>) = (Vec::new(), false, Vec::new());
    // Whether the last item stands on the line that is being read.
    let mut open = false;
    for part in pair.into_inner() {
        match part.as_rule() {
            Rule::newline => (multiline, open) = (true, false),
            Rule::comment => match items.last_mut().filter(|_| open) {
                Some(last) => last.after = Some(comment(&part)),
                None => pending.push(comment(&part)),
            },
            Rule::element | Rule::entry => {
                open = true;
                items.extend(read(part).map(|value| Element {
                    before: std::mem::take(&mut pending),
                    value,
                    after: None,
                }));
            }
            _ => {}
        }
    }
    (items, multiline, pending)
}

fn is_comparison(op: BinaryOp) -> bool {
    use BinaryOp::{Equal, Greater, GreaterEqual, In, Less, LessEqual, NotEqual, NotIn};
    matches!(op, Equal | NotEqual | Less | LessEqual | Greater | GreaterEqual | In | NotIn)
}

/// A comment's text without its `#` and without blanks at its end.
fn comment(pair: &Node<'_>) -> String {
    pair.as_str().strip_prefix('#').unwrap_or_default().trim_end().to_owned()
}

/// Gives a statement the comment behind it: the one of its first line, or the one of its last.
fn attach(statement: &mut Statement, comment: String, input: &str) {
    let range = statement.span.start as usize..statement.span.end as usize;
    let one_line = input.get(range).is_none_or(|text| !text.contains('\n'));
    if one_line && statement.comment.is_none() {
        statement.comment = Some(comment);
    } else {
        statement.end_comment = Some(comment);
    }
}
