//! What a playbook holds once its words have a meaning.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::resource::Schema;
use crate::source::Span;
use crate::syntax::ast::{Expr, Name, Param};
use crate::value::Map;

/// A name and the expression it is bound to.
pub type Binding = (Name, Expr);

/// A whole playbook with everything it imports.
#[derive(Clone, Debug, Default)]
pub struct Playbook {
    /// The folder of the playbook.
    pub folder: PathBuf,
    /// The project's root: the folder above `playbooks/`, or the playbook's own folder.
    pub root: PathBuf,
    /// The environment's name.
    pub env: String,
    /// Variables of playbook files and of environment files.
    pub vars: Vec<Variable>,
    /// Groups of hosts, in order.
    pub groups: Vec<HostGroup>,
    /// Networks by name.
    pub networks: BTreeMap<String, Network>,
    /// Where addresses are kept: at most one for each layer; the environment's goes before.
    pub stores: Vec<StoreDef>,
    /// Groups of nodes, in order.
    pub nodes: Vec<NodeGroup>,
    /// Roles by name.
    pub roles: BTreeMap<String, Role>,
    /// Plays, in order.
    pub plays: Vec<Play>,
    /// What `--set` binds.
    pub set: Map,
    /// Every name that is declared as a variable or a role's parameter, or that an expression reads; templates apart.
    pub names: BTreeSet<String>,
    /// Whether parts are missing because they could not be read: then nothing can be said of names that seem unbound.
    pub torn: bool,
}

/// Where a variable was declared; later ones win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// `vars { }` in the playbook or a file that it imports.
    Playbook,
    /// `vars { }` in the environment's file or a file that it imports.
    Environment,
}

/// A declared variable.
#[derive(Clone, Debug)]
pub struct Variable {
    /// Its name.
    pub name: Name,
    /// What it is bound to.
    pub value: Expr,
    /// Where it was declared.
    pub layer: Layer,
}

/// `hosts GROUP { … }`
#[derive(Clone, Debug)]
pub struct HostGroup {
    /// The group's name.
    pub name: Name,
    /// Its hosts and loops that make hosts.
    pub items: Vec<HostItem>,
    /// Variables of every host in it.
    pub vars: Vec<Binding>,
}

/// A line in a group of hosts.
#[derive(Clone, Debug)]
pub enum HostItem {
    /// `host "name" { … }`
    Host {
        /// The name.
        name: Expr,
        /// `address`, `user`, `port`, `connection`, `become`, `config`.
        settings: Vec<Binding>,
        /// Variables of this host.
        vars: Vec<Binding>,
    },
    /// `for i in range(1, 51) { host "h{{ i }}" }`
    For {
        /// The loop's variable.
        name: Name,
        /// What it runs over.
        list: Expr,
        /// The body.
        body: Vec<HostItem>,
    },
}

/// `network "name" { … }`
#[derive(Clone, Debug)]
pub struct Network {
    /// Where it is declared.
    pub span: Span,
    /// `mode`, `parent`, `subnet`, …
    pub settings: Vec<Binding>,
}

/// `store { … }`
#[derive(Clone, Debug)]
pub struct StoreDef {
    /// Where it is declared.
    pub span: Span,
    /// `etcd`, `prefix`.
    pub settings: Vec<Binding>,
    /// Whether the playbook or its environment says so.
    pub layer: Layer,
}

/// `nodes GROUP { … }`
#[derive(Clone, Debug)]
pub struct NodeGroup {
    /// The group's name.
    pub name: Name,
    /// `count`, `addresses`, `on`, `network`, `name`.
    pub settings: Vec<Binding>,
    /// Variables of every node in it.
    pub vars: Vec<Binding>,
}

/// `role name(…) { … }`
#[derive(Clone, Debug)]
pub struct Role {
    /// The name.
    pub name: Name,
    /// The parameters.
    pub params: Vec<Param>,
    /// The body.
    pub body: Vec<Task>,
}

/// `play "title" on … { … }`, or a rollout.
#[derive(Clone, Debug)]
pub struct Play {
    /// The title.
    pub title: Expr,
    /// What it runs over.
    pub on: Expr,
    /// How many at a time: a count, a share, or a list of these.
    pub batch: Option<Expr>,
    /// The body; a rollout has its sections instead.
    pub body: Vec<Task>,
    /// What makes it a rollout.
    pub rollout: Option<Box<Rollout>>,
}

/// The sections of `rollout "title" on nodes.GROUP batch [1, 25%] { … }`.
#[derive(Clone, Debug, Default)]
pub struct Rollout {
    /// `budget`, `keep`, `settle`, `within`.
    pub settings: Vec<Binding>,
    /// Trees of configuration that nodes mount.
    pub configs: Vec<ConfigTree>,
    /// How a node is taken out of traffic and put back.
    pub drain: Option<Drain>,
    /// What else is done to a node, such as making its container anew.
    pub change: Vec<Task>,
    /// What makes a node load what is there: after the change, and after it was put back.
    pub reload: Vec<Task>,
    /// What must hold before the next batch.
    pub healthy: Vec<Task>,
    /// What nodes write of their requests, read while a batch settles.
    pub access_log: Option<AccessLog>,
    /// The head of the block.
    pub span: Span,
}

impl Rollout {
    /// The bodies of all sections.
    pub fn bodies(&self) -> impl Iterator<Item = &Vec<Task>> {
        let drain = self.drain.iter().map(|drain| &drain.body);
        drain.chain([&self.change, &self.reload, &self.healthy])
    }
}

/// `access_log "/path/*.log" { worse = 1% }`: a node that answers with more server errors than the others fails.
#[derive(Clone, Debug)]
pub struct AccessLog {
    /// The node's log files on its host, with `*`.
    pub path: Expr,
    /// `worse`, `at_least`.
    pub settings: Vec<Binding>,
    /// The word and the path.
    pub span: Span,
}

/// `config "/path" { from = … }`: a directory that nodes mount, filled from a folder of templates.
#[derive(Clone, Debug)]
pub struct ConfigTree {
    /// The directory on the host; nodes of one host with the same one share it.
    pub path: Expr,
    /// `from`, `inside`.
    pub settings: Vec<Binding>,
    /// How it is tried before any node sees it.
    pub trial: Option<StepDef>,
    /// The head of the block.
    pub span: Span,
}

/// `drain on hosts.GROUP { … }`
#[derive(Clone, Debug)]
pub struct Drain {
    /// The hosts of the balancer.
    pub on: Expr,
    /// Its tasks, of the kind `backend`: once for each node.
    pub body: Vec<Task>,
    /// The word.
    pub span: Span,
}

/// A line in a play's or role's body.
#[derive(Clone, Debug)]
pub enum Task {
    /// A task of a kind.
    Step(Box<StepDef>),
    /// A role, called.
    Role(Box<RoleCall>),
    /// `for x in list { … }`
    For {
        /// The loop's variable.
        name: Name,
        /// What it runs over.
        list: Expr,
        /// The body.
        body: Vec<Task>,
    },
    /// `when condition { … }`
    When {
        /// The condition.
        condition: Expr,
        /// The body.
        body: Vec<Task>,
    },
    /// `name = value`
    Let(Binding),
    /// `handler "name" { … }`
    Handler {
        /// The name.
        name: Expr,
        /// The body.
        body: Vec<Task>,
    },
}

/// A task of a kind.
#[derive(Clone, Debug)]
pub struct StepDef {
    /// The kind's description.
    pub schema: &'static Schema,
    /// The kind's own parameters; the title is among them under its parameter's name.
    pub args: Vec<Binding>,
    /// The parameters that every task has.
    pub common: Common,
    /// `as name`
    pub register: Option<Name>,
    /// The head of the task.
    pub span: Span,
    /// Tasks that follow it: its children and its steps in constructor form.
    pub followers: Vec<StepDef>,
}

/// A role, called.
#[derive(Clone, Debug)]
pub struct RoleCall {
    /// The role's name.
    pub name: Name,
    /// The arguments.
    pub args: Vec<Binding>,
    /// `when` and `tags`; the others do not apply to roles.
    pub common: Common,
}

/// The parameters that every task has.
#[derive(Clone, Debug, Default)]
pub struct Common {
    /// The task is done only when this holds.
    pub when: Option<Expr>,
    /// Handlers to run at the end of the play when the task changed something.
    pub notify: Option<Expr>,
    /// The task's own time limit.
    pub timeout: Option<Expr>,
    /// Words for `--tags`.
    pub tags: Option<Expr>,
    /// Whether a failure does not stop the target.
    pub ignore_failure: Option<Expr>,
}

/// The parameters that every task has, with type and meaning; `fanli doc` prints them.
pub const COMMON: [(&str, &str, &str); 5] = [
    ("when", "bool", "the task is done only when this holds; may use `facts` and results"),
    ("notify", "string or list", "handlers to run at the end of the play when the task changed something"),
    ("timeout", "duration", "the task's own time limit, instead of `--step-limit`"),
    ("tags", "string or list", "words by which `--tags` and `--skip-tags` choose tasks"),
    ("ignore_failure", "bool", "a failure is reported, and counted as ignored, but does not stop the host or node"),
];
