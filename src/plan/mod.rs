//! From a playbook to one plan per host: plain data that travels whole.

mod batch;
mod errors;
mod expand;
mod files;
mod idle;
mod ignore;
pub mod inventory;
pub mod late;
mod make;
pub mod model;
mod needs;
mod network;
mod pool;
mod rollout;
mod scope;
mod select;
mod store;
mod why;

pub use inventory::{Host, Inventory, Node, hosts};
pub use late::{Late, LateSource, LateValue};
pub use make::{Part, PlanRequest, load, make};
pub use model::{
    Arg, Connection, Contents, Handler, HostPlan, HostRun, Judged, RolloutInfo, RolloutPart, RunOptions, RunPlan,
    Stage, StageInfo, Step, TargetPlan,
};
pub use store::{book_file, book_of, holders, lans, left_over, slot, stamp};
pub use why::{Answer, Candidate, why};
