//! What a tree says, without places and layout: two texts mean the same when their shapes are equal.

use std::fmt::Write as _;

use fanli::syntax::ast::{Ast, Block, Expr, ExprKind, Item, Name, Statement, StatementKind, TextPart};

/// The shape of a tree, and its comments in the order of the alphabet: layout may move them, but loses none.
pub(super) fn shape(ast: &Ast) -> (String, Vec<String>) {
    let mut shaper = Shaper { out: String::new(), comments: Vec::new() };
    shaper.items(&ast.body);
    shaper.comments.sort();
    (shaper.out, shaper.comments)
}

struct Shaper {
    out: String,
    comments: Vec<String>,
}

impl Shaper {
    fn say(&mut self, text: impl AsRef<str>) {
        self.out.push_str(text.as_ref());
        self.out.push(' ');
    }

    fn items(&mut self, items: &[Item]) {
        self.say("{");
        for item in items {
            match item {
                Item::Blank => {}
                Item::Comment(text) => self.comments.push(text.clone()),
                Item::Statement(one) => self.statement(one),
            }
        }
        self.say("}");
    }

    fn statement(&mut self, one: &Statement) {
        self.comments.extend(one.comment.iter().chain(&one.end_comment).cloned());
        match &one.kind {
            StatementKind::Import(path) => {
                self.say("import");
                self.expr(path);
            }
            StatementKind::Assign { name, value } => {
                self.say(format!("{} =", name.text));
                self.expr(value);
            }
            StatementKind::For { name, list, body } => {
                self.say(format!("for {}", name.text));
                self.expr(list);
                self.items(body);
            }
            StatementKind::Role { name, params, body } => {
                self.say(format!("role {}", name.text));
                for param in params {
                    self.say(format!("{}: {}", param.name.text, param.kind.text));
                    param.default.iter().for_each(|default| self.expr(default));
                }
                self.items(body);
            }
            StatementKind::Block(Block { word, label, clauses, body }) => {
                self.say(format!("block {}", word.text));
                label.iter().for_each(|label| self.expr(label));
                for clause in clauses {
                    self.say(format!("clause {}", clause.word.text));
                    self.expr(&clause.value);
                }
                match body {
                    Some(body) => self.items(body),
                    None => self.say("bare"),
                }
            }
        }
        self.say(";");
    }

    fn exprs<'a>(&mut self, word: &str, all: impl IntoIterator<Item = &'a Expr>) {
        self.say(format!("({word}"));
        all.into_iter().for_each(|one| self.expr(one));
        self.say(")");
    }

    fn call(&mut self, word: &str, args: &[Expr], named: &[(Name, Expr)]) {
        self.say(format!("({word}"));
        args.iter().for_each(|one| self.expr(one));
        for (name, value) in named {
            self.say(format!("{}:", name.text));
            self.expr(value);
        }
        self.say(")");
    }

    fn expr(&mut self, one: &Expr) {
        match &one.kind {
            ExprKind::Literal { value, text } => self.say(format!("{value:?} {text:?}")),
            ExprKind::Text { parts, quote } => {
                self.say(format!("({quote:?}"));
                for part in parts {
                    match part {
                        TextPart::Plain(text) => self.say(format!("{text:?}")),
                        TextPart::Computed(inner) => self.expr(inner),
                    }
                }
                self.say(")");
            }
            ExprKind::Name(name) => self.say(name),
            ExprKind::Attr(base, name) => self.exprs(&format!(".{}", name.text), [&**base]),
            ExprKind::Index(base, index) => self.exprs("index", [&**base, &**index]),
            ExprKind::List { items, trailing, .. } => {
                for item in items {
                    self.comments.extend(item.before.iter().chain(&item.after).cloned());
                }
                self.comments.extend(trailing.iter().cloned());
                self.exprs("list", items.iter().map(|item| &item.value));
            }
            ExprKind::Map { entries, trailing, .. } => {
                let mut keys = String::new();
                for entry in entries {
                    self.comments.extend(entry.before.iter().chain(&entry.after).cloned());
                    let _ = write!(keys, " {:?}", entry.value.0.text);
                }
                self.comments.extend(trailing.iter().cloned());
                self.exprs(&format!("map{keys}"), entries.iter().map(|entry| &entry.value.1));
            }
            ExprKind::Call { name, args, named } => self.call(&format!("call {}", name.text), args, named),
            ExprKind::Filter { input, name, args, named } => {
                self.exprs("input", [&**input]);
                self.call(&format!("filter {}", name.text), args, named);
            }
            ExprKind::Test { input, name, negated, args } => {
                self.exprs("input", [&**input]);
                self.call(&format!("test {negated} {}", name.text), args, &[]);
            }
            ExprKind::Unary(op, inner) => self.exprs(&format!("{op:?}"), [&**inner]),
            ExprKind::Binary(op, left, right) => self.exprs(&format!("{op:?}"), [&**left, &**right]),
            ExprKind::Ternary { then, condition, otherwise } => self.exprs("if", [&**then, &**condition, &**otherwise]),
            ExprKind::Arrow { from, to, flags } => {
                let flags: Vec<&str> = flags.iter().map(|flag| flag.text.as_str()).collect();
                self.exprs(&format!("-> {flags:?}"), [&**from, &**to]);
            }
            ExprKind::Group(inner) => self.exprs("group", [&**inner]),
        }
    }
}
