//! The one list of kinds. A new kind is a file in this folder and a line here.

use std::future::Future;

use super::{ArgError, Declared, Nature, Observed, Resource, Schema};
use crate::change::{Change, State};
use crate::failure::Failure;
use crate::system::{Actuator, Probe};
use crate::value::Map;

macro_rules! kinds {
    ($($file:ident :: $name:ident),+ $(,)?) => {
        /// A task of any kind. A closed enum: the helper is the same binary, and every match is exhaustive.
        #[derive(Clone, Debug)]
        #[expect(missing_docs, reason = "each kind documents itself")]
        #[allow(clippy::large_enum_variant)]
        pub enum Kind { $($name(super::$file::$name)),+ }

        /// The descriptions of all kinds, in the order of the list.
        pub fn schemas() -> &'static [Schema] {
            static SCHEMAS: std::sync::OnceLock<Vec<Schema>> = std::sync::OnceLock::new();
            SCHEMAS.get_or_init(|| vec![$(<super::$file::$name as Declared>::schema()),+])
        }

        impl Kind {
            /// Reads evaluated arguments for the kind of that name; every error at once.
            pub fn build(kind: &str, args: Map) -> Result<Self, Vec<ArgError>> {
                let index = schemas().iter().position(|schema| schema.name == kind);
                let mut at = 0..;
                $(
                    if at.next() == index {
                        return <super::$file::$name as Declared>::build(args).map(Self::$name);
                    }
                )+
                Err(vec![ArgError::new("", format!("there is no kind `{kind}`"))])
            }
        }

        impl Resource for Kind {
            fn check(&self) -> Result<(), ArgError> {
                match self { $(Self::$name(kind) => kind.check()),+ }
            }
            fn nature(&self) -> Nature {
                match self { $(Self::$name(kind) => kind.nature()),+ }
            }
            fn desired(&self) -> State {
                match self { $(Self::$name(kind) => kind.desired()),+ }
            }
            fn observe(&self, probe: &Probe) -> impl Future<Output = Result<Observed, Failure>> + Send {
                async move { match self { $(Self::$name(kind) => kind.observe(probe).await),+ } }
            }
            fn apply(&self, change: &Change, hands: &Actuator) -> impl Future<Output = Result<Map, Failure>> + Send {
                async move { match self { $(Self::$name(kind) => kind.apply(change, hands).await),+ } }
            }
            fn stands_on(&self, probe: &Probe) -> impl Future<Output = Result<Vec<(&'static str, String)>, Failure>> + Send {
                async move { match self { $(Self::$name(kind) => kind.stands_on(probe).await),+ } }
            }
            fn is_open(&self, probe: &Probe) -> impl Future<Output = Result<bool, Failure>> + Send {
                async move { match self { $(Self::$name(kind) => kind.is_open(probe).await),+ } }
            }
            fn confirm(&self, hands: &Actuator) -> impl Future<Output = Result<(), Failure>> + Send {
                async move { match self { $(Self::$name(kind) => kind.confirm(hands).await),+ } }
            }
            fn explain(&self, failure: Failure, probe: &Probe) -> impl Future<Output = Failure> + Send {
                async move { match self { $(Self::$name(kind) => kind.explain(failure, probe).await),+ } }
            }
            fn put_back(&self, failure: Failure, hands: &Actuator) -> impl Future<Output = Failure> + Send {
                async move { match self { $(Self::$name(kind) => kind.put_back(failure, hands).await),+ } }
            }
        }
    };
}

kinds! {
    attach::Attach,
    container::Container,
    file::File,
    directory::Directory,
    template::Template,
    line::Line,
    image::Image,
    link::Link,
    logs::Logs,
    group::Group,
    user::User,
    package::Package,
    service::Service,
    mount::Mount,
    watcher::Watcher,
    rollout::Slot,
    rollout::Switch,
    rollout::Confirm,
    rollout::Revert,
    rollout::Former,
    rollout::Halt,
    rollout::Slots,
    rollout::Standing,
    rollout::LeftOut,
    rollout::Settle,
    rollout::Reload,
    rollout::Program,
    command::Command,
    shell::Shell,
    http::Http,
    tcp::Tcp,
    rollout::Backend,
    rollout::Loaded,
    interfaces::Interfaces,
    attachments::Attachments,
    log_folders::LogFolders,
    log_audit::LogAudit,
    trace::Trace,
    rollout::Trial,
}

/// The description of a kind by its word.
pub fn schema(kind: &str) -> Option<&'static Schema> {
    schemas().iter().find(|schema| schema.name == kind)
}
