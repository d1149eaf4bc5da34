//! The examples of the file kinds, from their text to this machine's files.

use std::fs;

use fanli::diagnostic::render;
use fanli::plan::{Arg, load, make};
use fanli::resource::kinds::{Kind, schema};
use fanli::source::Sources;
use fanli::value::{Map, Value};

use crate::common::{Bench, build};

/// What the examples make on this machine, gone before and after.
struct Made;

impl Made {
    fn clear() {
        let _ = fs::remove_file("/etc/fanli-example.conf");
        let _ = fs::remove_file("/etc/fanli-example");
        let _ = fs::remove_dir_all("/srv/fanli-example");
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        Self::clear();
    }
}

pub fn planned(bench: &Bench, example: &str) -> Kind {
    let (kind, args) = planned_args(bench, example);
    build(&kind, args)
}

/// The one task of an example, planned as a playbook of its own for this machine.
pub fn planned_args(bench: &Bench, example: &str) -> (String, Map) {
    let folder = tempfile::tempdir().unwrap();
    let templates = folder.path().join("templates");
    fs::create_dir(&templates).unwrap();
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/templates/example.conf"), templates.join("example.conf")).unwrap();
    let playbook = folder.path().join("play.fp");
    let text = format!(
        "hosts here {{\n  host \"here\" {{ connection = local }}\n}}\nplay \"example\" on hosts.here {{\n{example}\n}}\n"
    );
    fs::write(&playbook, text).unwrap();
    let request = crate::common::request(playbook);
    let mut sources = Sources::default();
    let (playbook, errors) = load(&request, &mut sources);
    let made = make(&playbook, errors, &request, &mut sources, &mut fanli::book::View::new("tests"));
    let (run, _) = made.unwrap_or_else(|errors| panic!("{}", render(&errors, &sources)));
    let steps = &run.hosts[0].plan.stages[0].targets[0].steps;
    assert_eq!(steps.len(), 1);
    let args = steps[0].args.iter().map(|(name, arg)| match arg {
        Arg::Ready(value) => {
            if let Value::Blob(blob) = value {
                bench.blob(&run.contents.read(blob.digest).unwrap());
            }
            (name.clone(), value.clone())
        }
        Arg::Late(late) => panic!("{name} is late: {late:?}"),
    });
    (steps[0].kind.clone(), args.collect())
}

#[test]
fn examples_of_the_file_kinds_work() {
    let bench = Bench::new();
    let _made = Made;
    for kind in ["file", "directory", "template", "line", "link"] {
        Made::clear();
        let task = planned(&bench, schema(kind).unwrap().example);
        assert!(bench.converge(&task).unwrap().is_some(), "{kind} changed nothing");
        assert_eq!(bench.plan(&task).unwrap(), None, "{kind}");
    }
    Made::clear();
    for kind in ["directory", "logs"] {
        let task = planned(&bench, schema(kind).unwrap().example);
        assert!(bench.converge(&task).unwrap().is_some(), "{kind} changed nothing");
        assert_eq!(bench.plan(&task).unwrap(), None, "{kind}");
    }
}
