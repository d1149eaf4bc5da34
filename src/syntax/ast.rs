//! The tree of one `.fp` file: what stands there, comments and blank lines too, and nothing about what it means.
//!
//! Not every tree is a valid playbook. The tree knows three shapes of statement (assignment, loop, block) and expressions;
//! which blocks and names exist is `playbook/`'s business, so a new kind of block needs no change here.

use serde::{Deserialize, Serialize};

use crate::source::Span;
use crate::value::Value;

/// A whole file.
#[derive(Clone, Debug, PartialEq)]
pub struct Ast {
    /// What stands in it, in order.
    pub body: Vec<Item>,
    /// Whether all of the text could be read. What could not is missing from the body.
    pub whole: bool,
}

/// A line of a body, or several.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// One or more empty lines.
    Blank,
    /// `# …` on a line of its own, without the `#`; blanks at its end are taken off.
    Comment(String),
    /// Something that counts.
    Statement(Box<Statement>),
}

/// A statement, and the comment at the end of its first line.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// What it is.
    pub kind: StatementKind,
    /// All of it.
    pub span: Span,
    /// `# …` at the end of its (first) line, without the `#`.
    pub comment: Option<String>,
    /// `# …` at the end of its last line, when that is another line than the first.
    pub end_comment: Option<String>,
    /// Whether it stands on the same line as the statement before it, or as the brace that opens its body:
    /// `{ state = running  enabled = true }`.
    pub same_line: bool,
}

/// The shapes of statements.
#[derive(Clone, Debug, PartialEq)]
pub enum StatementKind {
    /// `import "path"`
    Import(Expr),
    /// `name = value`
    Assign {
        /// The name on the left.
        name: Name,
        /// The value.
        value: Expr,
    },
    /// `for name in list { … }`
    For {
        /// The loop's variable.
        name: Name,
        /// What it runs over.
        list: Expr,
        /// The body.
        body: Vec<Item>,
    },
    /// `role name(parameter: type = default, …) { … }`
    Role {
        /// The role's name.
        name: Name,
        /// Its parameters.
        params: Vec<Param>,
        /// The body.
        body: Vec<Item>,
    },
    /// `word label… clause… { … }`: everything else.
    Block(Block),
}

/// A name and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// The text.
    pub text: String,
    /// The place.
    pub span: Span,
}

/// One parameter of a role.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// Its name.
    pub name: Name,
    /// Its type's name: `string`, `int`, `bool`, `list`, `map`, `mode`, `duration`, `size`, `percent`, `ip`, `cidr`, `any`.
    pub kind: Name,
    /// Its default; a parameter without one must be given.
    pub default: Option<Expr>,
}

/// `play "docker hosts" on hosts.docker batch 2 { … }`, `package ["a", "b"]`, `web_node { … }`.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// The first word: `play`, `file`, a role's name.
    pub word: Name,
    /// The expression right after it: `"title"`, `nginx`, `["a", "b"]`, `node.name`. `nodes web` has the name `web`.
    pub label: Option<Expr>,
    /// Clauses after the label, in order: `on hosts.docker`, `batch 2`, `as result`.
    pub clauses: Vec<Clause>,
    /// The body; `None` when there are no braces.
    pub body: Option<Vec<Item>>,
}

/// A word and its argument in a block's head.
#[derive(Clone, Debug, PartialEq)]
pub struct Clause {
    /// `on`, `batch`, `as`.
    pub word: Name,
    /// What follows.
    pub value: Expr,
}

/// An expression. It travels to hosts as it is when it needs facts or earlier results, so it is plain data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// Where it stands.
    pub span: Span,
}

/// The shapes of expressions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ExprKind {
    /// `0755`, `30s`, `true`, `10.88.8.0/24`, `10.88.8.10 - 10.88.8.200`, `null`.
    Literal {
        /// The value.
        value: Value,
        /// As it was written, so that the formatter keeps the spelling.
        text: String,
    },
    /// A string with `{{ }}` parts; also `"""` blocks.
    Text {
        /// Plain and computed parts in turn.
        parts: Vec<TextPart>,
        /// How it was quoted.
        quote: Quote,
    },
    /// A name on its own.
    Name(String),
    /// `a.b`
    Attr(Box<Expr>, Name),
    /// `a[b]`
    Index(Box<Expr>, Box<Expr>),
    /// `[a, b]`; one item a line when `multiline`.
    List {
        /// The items.
        items: Vec<Element<Expr>>,
        /// Whether it was written over several lines.
        multiline: bool,
        /// Comments after the last item.
        trailing: Vec<String>,
    },
    /// `{ a = 1  b = 2 }`
    Map {
        /// The entries.
        entries: Vec<Element<(Name, Expr)>>,
        /// Whether it was written over several lines.
        multiline: bool,
        /// Comments after the last entry.
        trailing: Vec<String>,
    },
    /// `debian("bookworm", packages: ["a"])`
    Call {
        /// The constructor's or function's name.
        name: Name,
        /// Arguments by place.
        args: Vec<Expr>,
        /// Arguments by name.
        named: Vec<(Name, Expr)>,
    },
    /// `a | filter(b)`
    Filter {
        /// What goes in.
        input: Box<Expr>,
        /// The filter's name.
        name: Name,
        /// Its arguments by place.
        args: Vec<Expr>,
        /// Its arguments by name.
        named: Vec<(Name, Expr)>,
    },
    /// `a is defined`, `a is not none`, `a is divisibleby(2)`
    Test {
        /// What is tested.
        input: Box<Expr>,
        /// The test's name.
        name: Name,
        /// Whether `not` stands before it.
        negated: bool,
        /// Its arguments; by place, all of them.
        args: Vec<Expr>,
    },
    /// `not a`, `-a`
    Unary(UnaryOp, Box<Expr>),
    /// `a + b`, `a and b`, `a in b`
    Binary(BinaryOp, Box<Expr>, Box<Expr>),
    /// `a if c else b`
    Ternary {
        /// The value when the condition holds.
        then: Box<Expr>,
        /// The condition.
        condition: Box<Expr>,
        /// The value when it does not.
        otherwise: Box<Expr>,
    },
    /// `"/on/host" -> "/in/container" read_only`
    Arrow {
        /// Left of the arrow.
        from: Box<Expr>,
        /// Right of it.
        to: Box<Expr>,
        /// Flags after it.
        flags: Vec<Name>,
    },
    /// `(a)`: kept for the formatter.
    Group(Box<Expr>),
}

/// An item of a list or map with the comments that belong to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Element<T> {
    /// Comments on the lines before it.
    pub before: Vec<String>,
    /// The item.
    pub value: T,
    /// The comment at the end of its line.
    pub after: Option<String>,
}

impl<T> Element<T> {
    fn bare(value: T) -> Self {
        Self { before: Vec::new(), value, after: None }
    }
}

/// Expressions that stand in no text.
impl Expr {
    /// Returns an expression for a value.
    pub fn literal(value: Value) -> Self {
        Self { kind: ExprKind::Literal { value, text: String::new() }, span: Span::NOWHERE }
    }

    /// Returns a list of expressions.
    pub fn list(items: Vec<Self>) -> Self {
        let items = items.into_iter().map(Element::bare).collect();
        Self { kind: ExprKind::List { items, multiline: false, trailing: Vec::new() }, span: Span::NOWHERE }
    }

    /// Returns the value of a literal.
    pub fn value(&self) -> Option<&Value> {
        match &self.kind {
            ExprKind::Literal { value, .. } => Some(value),
            _ => None,
        }
    }

    /// Returns the items of a list; none of anything else.
    pub fn items_mut(&mut self) -> impl Iterator<Item = &mut Self> {
        let items = match &mut self.kind {
            ExprKind::List { items, .. } => items.as_mut_slice(),
            _ => &mut [],
        };
        items.iter_mut().map(|item| &mut item.value)
    }

    /// Returns what a map has under that name.
    pub fn entry_mut(&mut self, name: &str) -> Option<&mut Self> {
        let ExprKind::Map { entries, .. } = &mut self.kind else { return None };
        let found = entries.iter_mut().find(|entry| entry.value.0.text == name);
        found.map(|entry| &mut entry.value.1)
    }

    /// Adds a value to a map that has none under that name.
    pub fn add_entry(&mut self, name: &str, value: &Value) {
        if self.entry_mut(name).is_none()
            && let ExprKind::Map { entries, .. } = &mut self.kind
        {
            let name = Name { text: name.to_owned(), span: Span::NOWHERE };
            entries.push(Element::bare((name, Self::literal(value.clone()))));
        }
    }

    /// Returns a map of expressions.
    pub fn map(entries: impl IntoIterator<Item = (String, Self)>) -> Self {
        let named = |(text, value)| Element::bare((Name { text, span: Span::NOWHERE }, value));
        let entries = entries.into_iter().map(named).collect();
        Self { kind: ExprKind::Map { entries, multiline: false, trailing: Vec::new() }, span: Span::NOWHERE }
    }
}

/// A part of a string.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum TextPart {
    /// Plain text, escapes already read.
    Plain(String),
    /// `{{ expression }}`
    Computed(Expr),
}

/// How a string is written. Nothing is escaped in a block: `{{ "{{" }}` stands for the braces themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Quote {
    /// `"…"` with escapes `\n \t \" \\ \{`; the text of its parts has them read already.
    Double,
    /// `"""` … `"""` over several lines; common indentation is taken off.
    Block,
}

/// Operators with one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnaryOp {
    /// `not`
    Not,
    /// `-`
    Minus,
}

/// Operators with two operands; minijinja's, with its precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the operators")]
pub enum BinaryOp {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    NotIn,
    Add,
    Subtract,
    Concat,
    Multiply,
    Divide,
    FloorDivide,
    Remainder,
}

impl BinaryOp {
    /// As it is written, in fanli and in minijinja alike.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Or => "or",
            Self::And => "and",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessEqual => "<=",
            Self::Greater => ">",
            Self::GreaterEqual => ">=",
            Self::In => "in",
            Self::NotIn => "not in",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Concat => "~",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::FloorDivide => "//",
            Self::Remainder => "%",
        }
    }
}
