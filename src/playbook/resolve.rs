//! Gives the trees their meaning: which block is what, and whether it may stand where it stands.

use std::collections::BTreeSet;

use super::load::Tree;
use super::model::{HostGroup, Layer, Network, NodeGroup, Play, Playbook, Role, StoreDef, Variable};
use super::{blocks, rollouts, tasks};
use crate::diagnostic::Diagnostic;
use crate::source::Span;
use crate::syntax::ast::{Block, Expr, ExprKind, Item, Name, Statement, StatementKind, TextPart};

/// The words that may open a block at the top of a file.
pub const TOP_WORDS: [&str; 9] = ["import", "vars", "hosts", "store", "network", "nodes", "role", "play", "rollout"];

/// The settings of a `network` block.
pub const NETWORK_SETTINGS: [&str; 24] = [
    "mode",
    "variant",
    "parent",
    "vlan",
    "bridge",
    "vni",
    "udp",
    "peers",
    "subnet",
    "gateway",
    "routes",
    "subnet6",
    "gateway6",
    "pool",
    "exclude",
    "ports",
    "inside",
    "shim",
    "mtu",
    "cluster",
    "dns",
    "search",
    "interface",
    "probe",
];

/// The settings of the `store` block.
pub const STORE_SETTINGS: [&str; 2] = ["etcd", "prefix"];

/// The settings of a `nodes` block.
pub const NODE_SETTINGS: [&str; 5] = ["count", "addresses", "on", "network", "name"];

/// Fills the playbook from its trees; returns every error.
pub(super) fn resolve(trees: &[Tree], playbook: &mut Playbook) -> Vec<Diagnostic> {
    let statements: Vec<(&Statement, Layer)> = trees
        .iter()
        .flat_map(|tree| tree.ast.body.iter().map(move |item| (item, tree.layer)))
        .filter_map(|(item, layer)| match item {
            Item::Statement(statement) => Some((&**statement, layer)),
            _ => None,
        })
        .collect();
    // Roles first: their names are words in every body.
    let role_name = |(statement, _): &(&Statement, Layer)| match &statement.kind {
        StatementKind::Role { name, .. } => Some(name.text.clone()),
        _ => None,
    };
    let role_names: BTreeSet<String> = statements.iter().filter_map(role_name).collect();
    let mut resolver = Resolver { playbook, role_names, errors: Vec::new() };
    for (statement, layer) in statements {
        resolver.statement(statement, layer);
    }
    resolver.cycles();
    resolver.errors
}

struct Resolver<'a> {
    playbook: &'a mut Playbook,
    role_names: BTreeSet<String>,
    errors: Vec<Diagnostic>,
}

impl Resolver<'_> {
    fn statement(&mut self, statement: &Statement, layer: Layer) {
        match &statement.kind {
            StatementKind::Import(_) => {}
            StatementKind::Role { name, params, body } => {
                if RESERVED.contains(&name.text.as_str()) || TOP_WORDS.contains(&name.text.as_str()) {
                    let message = format!("`{}` is a word of the language; a role needs another name", name.text);
                    self.errors.push(Diagnostic::new(name.span, message));
                }
                let body = tasks::body(body, &self.role_names, &mut self.errors);
                blocks::check_params(params, &mut self.errors);
                if let Some(first) = self.playbook.roles.get(&name.text) {
                    self.errors.push(twice("role", name, first.name.span));
                } else if crate::resource::kinds::schema(&name.text).is_some() {
                    let message = format!("`{}` is a kind of task already; a role needs another name", name.text);
                    self.errors.push(Diagnostic::new(name.span, message));
                } else {
                    let role = Role { name: name.clone(), params: params.clone(), body };
                    self.playbook.roles.insert(name.text.clone(), role);
                }
            }
            StatementKind::Assign { name, .. } => {
                let block = TOP_WORDS.contains(&name.text.as_str());
                self.errors.push(if block {
                    Diagnostic::new(name.span, format!("`{}` is a block, not a variable", name.text))
                        .help(format!("write `{} … {{ … }}` without `=`", name.text))
                } else {
                    Diagnostic::new(name.span, format!("`{}` stands outside of any block", name.text))
                        .help("variables stand in `vars { … }`")
                });
                self.playbook.torn = true;
            }
            StatementKind::For { name, .. } => {
                let error = Diagnostic::new(name.span, "a loop cannot stand at the top of a file");
                self.errors.push(error.help("put it into a `play`, a `role` or a `hosts` block"));
            }
            StatementKind::Block(block) => self.block(block, layer),
        }
    }

    fn block(&mut self, block: &Block, layer: Layer) {
        match block.word.text.as_str() {
            "vars" => self.vars(block, layer),
            "hosts" => self.hosts(block),
            "store" => self.store(block, layer),
            "network" => self.network(block),
            "nodes" => self.nodes(block),
            "play" | "rollout" => self.play(block),
            word => {
                let span = block.word.span;
                let error = if crate::resource::kinds::schema(word).is_some() || self.role_names.contains(word) {
                    Diagnostic::new(span, format!("`{word}` is a task: it must stand in a play or a role"))
                        .help("wrap it: `play \"title\" on hosts.GROUP { … }`")
                } else if word == "host" {
                    Diagnostic::new(span, "a host stands in a group of hosts")
                        .help("wrap it: `hosts GROUP { host \"web1\" { address = 10.0.0.1 } }`")
                } else if word == "logs" {
                    Diagnostic::new(span, format!("`{word}` is not built yet")).help("see CHANGELOG.md for what is")
                } else {
                    let known = format!("a file holds {}", TOP_WORDS.join(", "));
                    let error = Diagnostic::new(span, format!("unknown block `{word}`")).suggest(word, TOP_WORDS);
                    if error.help.is_empty() { error.help(known) } else { error }
                };
                self.errors.push(error);
                // Nobody knows what it was to bind.
                self.playbook.torn = true;
            }
        }
    }

    fn vars(&mut self, block: &Block, layer: Layer) {
        for (name, value) in blocks::bindings("vars", block, &mut self.errors) {
            let known = |known: &&Variable| known.name.text == name.text && known.layer == layer;
            if RESERVED.contains(&name.text.as_str()) {
                self.errors.push(own_name(&name));
            } else if let Some(first) = self.playbook.vars.iter().find(known) {
                self.errors.push(twice("variable", &name, first.name.span));
            } else {
                self.playbook.vars.push(Variable { name, value, layer });
            }
        }
    }

    fn hosts(&mut self, block: &Block) {
        let Some(name) = blocks::name_label("hosts", block, &mut self.errors) else {
            self.playbook.torn = true;
            return;
        };
        blocks::no_clauses(block, &mut self.errors);
        let (items, vars) = blocks::hosts(block.body.as_deref().unwrap_or(&[]), &mut self.errors);
        if let Some(first) = self.playbook.groups.iter().find(|group| group.name.text == name.text) {
            self.errors.push(twice("group of hosts", &name, first.name.span));
        } else if name.text == "all" {
            self.errors.push(Diagnostic::new(name.span, "`hosts.all` is every host; a group needs another name"));
        } else {
            self.playbook.groups.push(HostGroup { name, items, vars });
        }
    }

    fn network(&mut self, block: &Block) {
        let Some(text) = blocks::text_label("network", block, &mut self.errors) else {
            self.playbook.torn = true;
            return;
        };
        blocks::no_clauses(block, &mut self.errors);
        let (settings, _) = blocks::settings("network", &NETWORK_SETTINGS, false, block, &mut self.errors);
        let span = block.label.as_ref().map_or(block.word.span, |label| label.span);
        if let Some(first) = self.playbook.networks.get(&text) {
            self.errors.push(twice("network", &Name { text, span }, first.span));
        } else {
            self.playbook.networks.insert(text, Network { span, settings });
        }
    }

    fn store(&mut self, block: &Block, layer: Layer) {
        if let Some(label) = &block.label {
            self.errors.push(Diagnostic::new(label.span, "`store` has no title").help("`store { etcd = […] }`"));
        }
        blocks::no_clauses(block, &mut self.errors);
        let (settings, _) = blocks::settings("store", &STORE_SETTINGS, false, block, &mut self.errors);
        let span = block.word.span;
        if let Some(first) = self.playbook.stores.iter().find(|known| known.layer == layer) {
            let error = Diagnostic::new(span, "there are two `store` blocks").also(first.span, "first here");
            self.errors.push(error.help("one in the playbook, and one in an environment file, which goes before"));
        } else {
            self.playbook.stores.push(StoreDef { span, settings, layer });
        }
    }

    fn nodes(&mut self, block: &Block) {
        let Some(name) = blocks::name_label("nodes", block, &mut self.errors) else {
            self.playbook.torn = true;
            return;
        };
        blocks::no_clauses(block, &mut self.errors);
        let (settings, vars) = blocks::settings("nodes", &NODE_SETTINGS, true, block, &mut self.errors);
        let head = block.word.span.to(name.span);
        for (needed, help) in [
            ("on", "say which hosts carry them: `on = hosts.GROUP`"),
            ("name", "say how they are called: `name = \"web{{ node.index }}\"`"),
        ] {
            if !settings.iter().any(|(setting, _)| setting.text == needed) {
                self.errors.push(Diagnostic::new(head, format!("`nodes` needs `{needed}`")).help(help));
            }
        }
        if let Some(first) = self.playbook.nodes.iter().find(|group| group.name.text == name.text) {
            self.errors.push(twice("group of nodes", &name, first.name.span));
        } else {
            self.playbook.nodes.push(NodeGroup { name, settings, vars });
        }
    }

    fn play(&mut self, block: &Block) {
        let is_rollout = block.word.text == "rollout";
        let Some(title) = block.label.clone() else {
            let what = &block.word.text;
            let error = Diagnostic::new(block.word.span, format!("a {what} needs a title"));
            let on = if is_rollout { "nodes.GROUP" } else { "hosts.GROUP" };
            self.errors.push(error.help(format!("`{what} \"what it does\" on {on} {{ … }}`")));
            return;
        };
        let (mut on, mut batch) = (None, None);
        for clause in &block.clauses {
            let slot = match clause.word.text.as_str() {
                "on" => &mut on,
                "batch" => &mut batch,
                other => {
                    let message = format!("a {} has no clause `{other}`", block.word.text);
                    self.errors.push(Diagnostic::new(clause.word.span, message).help("it has `on` and `batch`"));
                    continue;
                }
            };
            if let Some(first) = slot.replace(clause.value.clone()) {
                let error = Diagnostic::new(clause.word.span, format!("`{}` is said twice", clause.word.text));
                self.errors.push(error.also(first.span, "first said here"));
            }
        }
        tasks::needs_body(block, &mut self.errors);
        let (mut body, mut rollout) = (Vec::new(), None);
        if is_rollout {
            rollout = Some(Box::new(rollouts::rollout(block, &self.role_names, &mut self.errors)));
        } else {
            body = tasks::body(block.body.as_deref().unwrap_or(&[]), &self.role_names, &mut self.errors);
        }
        match on {
            Some(on) => self.playbook.plays.push(Play { title, on, batch, body, rollout }),
            None => {
                let message = format!("the {} does not say what it runs over", block.word.text);
                let error = Diagnostic::new(block.word.span.to(title.span), message);
                self.errors.push(error.help(if is_rollout {
                    "add `on nodes.GROUP` after the title"
                } else {
                    "add `on hosts.GROUP`, `on hosts.all` or `on nodes.GROUP` after the title"
                }));
            }
        }
    }

    /// Roles that call themselves, however far around.
    fn cycles(&mut self) {
        let mut done = BTreeSet::new();
        for role in self.playbook.roles.values() {
            walk(self.playbook, role, &mut Vec::new(), &mut done, &mut self.errors);
        }
    }
}

/// A variable of a name that fanli binds.
pub(super) fn own_name(name: &Name) -> Diagnostic {
    let error =
        Diagnostic::new(name.span, format!("`{}` is fanli's own name; a variable needs another one", name.text));
    error.help(format!("fanli binds {}", RESERVED.map(|name| format!("`{name}`")).join(", ")))
}

/// Names that playbooks cannot bind: fanli binds them itself.
pub const RESERVED: [&str; 6] = ["env", "facts", "host", "hosts", "node", "nodes"];

/// How deep roles may call roles.
pub const DEEPEST_ROLES: usize = 64;

/// The error for a call that is deeper.
pub fn too_deep(call: &Name) -> Diagnostic {
    let error = Diagnostic::new(call.span, format!("roles call each other more than {DEEPEST_ROLES} deep"));
    error.help("put what they share into one role")
}

fn walk<'a>(
    playbook: &'a Playbook,
    role: &'a Role,
    path: &mut Vec<&'a str>,
    done: &mut BTreeSet<&'a str>,
    errors: &mut Vec<Diagnostic>,
) {
    if done.contains(role.name.text.as_str()) {
        return;
    }
    path.push(&role.name.text);
    for call in tasks::calls(&role.body) {
        if let Some(start) = path.iter().position(|name| *name == call.text) {
            let around: Vec<&str> = path.iter().skip(start).copied().chain([call.text.as_str()]).collect();
            let error = Diagnostic::new(call.span, format!("the role calls itself: {}", around.join(" -> ")));
            errors.push(error.help("work that repeats is a loop: `for x in list { … }`"));
        } else if path.len() > DEEPEST_ROLES {
            let error = too_deep(call);
            if !errors.iter().any(|known| known.message == error.message) {
                errors.push(error);
            }
        } else if let Some(next) = playbook.roles.get(&call.text) {
            walk(playbook, next, path, done, errors);
        }
    }
    path.pop();
    done.insert(&role.name.text);
}

/// A second definition of a name, with the place of the first.
pub(super) fn twice(what: &str, name: &Name, first: Span) -> Diagnostic {
    Diagnostic::new(name.span, format!("{what} `{}` is defined twice", name.text)).also(first, "first defined here")
}

/// The text of a string without computed parts.
pub(super) fn plain_text(expr: &Expr) -> Option<String> {
    match &expr.kind {
        ExprKind::Text { parts, .. } => parts
            .iter()
            .map(|part| match part {
                TextPart::Plain(text) => Some(text.as_str()),
                TextPart::Computed(_) => None,
            })
            .collect(),
        _ => None,
    }
}
