//! The invariants of ARCHITECTURE.md as far as a program can see them: it reads every path that stands in `src`.

mod code;
mod rules;

use std::fs;
use std::path::Path;

use code::File;

/// Every file below `src`, and the order that `src/lib.rs` lists.
fn sources() -> (Vec<File>, Vec<String>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut files, mut folders) = (Vec::new(), vec![root.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                files.push(File::new(name, &fs::read_to_string(&path).unwrap()));
            }
        }
    }
    files.sort_by(|left, right| left.name.cmp(&right.name));
    let order = rules::order(&fs::read_to_string(root.join("lib.rs")).unwrap());
    (files, order)
}

#[test]
fn the_house_stands_as_architecture_tells() {
    let (files, order) = sources();
    assert!(files.len() > 100 && order.len() > 10, "{} files, {order:?}", files.len());
    let wrong = rules::violations(&files, &order);
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// What the rules say of one file; its name is below `src`.
fn found(name: &str, text: &str) -> Vec<String> {
    let order = rules::order(
        "pub mod failure;\npub mod expr;\npub mod system;\npub mod resource;\npub mod plan;\npub mod engine;\npub mod report;\n",
    );
    rules::violations(&[File::new(name.to_owned(), text)], &order)
}

#[track_caller]
fn refused(name: &str, text: &str, says: &str) {
    let all = found(name, text);
    assert!(all.len() == 1 && all[0].contains(says), "{text}\n{all:?}");
}

#[track_caller]
fn fine(name: &str, text: &str) {
    assert_eq!(found(name, text), Vec::<String>::new(), "{text}");
}

#[test]
fn an_arrow_that_points_back_is_seen() {
    refused("expr/a.rs", "use crate::plan::Late;", "src/expr/a.rs:1: `expr` uses `plan`, which comes after it");
    refused("expr/a.rs", "\nfn f() -> crate::plan::Late {}", "src/expr/a.rs:2: ");
    refused("expr/a.rs", "use crate::{failure::Failure, plan::{self, Late}};", "`expr` uses `plan`");
    refused("expr.rs", "use super::plan::Late;", "`expr` uses `plan`");
    refused("expr/a/b.rs", "use super::super::super::plan::Late;", "`expr` uses `plan`");
    refused("expr/mod.rs", "use super::plan;", "`expr` uses `plan`");
    refused("failure.rs", "mod tests { fn f() { crate::expr::x() } }", "`failure` uses `expr`");
    refused("expr/a.rs", "use crate::nothing;", "`nothing` is none of the modules that src/lib.rs lists");
    fine(
        "plan/a.rs",
        "use crate::expr::{self, x}; use super::b; use super::super::failure::Failure; use crate::plan::y;",
    );
    fine("failure.rs", "#[cfg(test)]\nmod tests { use super::Failure; }");
    fine(
        "expr/a.rs",
        "// use crate::plan::x;\nconst T: &str = \"crate::plan\"; /* crate::plan */ const R: &str = r#\"\"crate::plan\"#;",
    );
}

#[test]
fn macros_belong_to_the_file_that_makes_them() {
    let files = [
        File::new("resource/param.rs".to_owned(), "#[macro_export]\nmacro_rules! kind { () => {}; }"),
        File::new("resource/a.rs".to_owned(), "crate::kind! {}"),
        File::new("expr/a.rs".to_owned(), "crate::kind! {}"),
    ];
    let order: Vec<String> = ["expr", "resource"].map(str::to_owned).into();
    let wrong = rules::violations(&files, &order);
    assert!(wrong.len() == 1 && wrong[0].contains("src/expr/a.rs:1: `expr` uses `resource`"), "{wrong:?}");
}

#[test]
fn a_way_around_the_doors_is_seen() {
    for outward in [
        "std::fs::read(x)",
        "std::process::id()",
        "tokio::net::TcpStream",
        "rustix::fs::x()",
        "tokio::process::Command",
    ] {
        let says = "has doors for that in src/system/";
        refused("resource/a.rs", &format!("fn f() {{ {outward} }}"), says);
        refused("engine/a.rs", &format!("fn f() {{ {outward} }}"), says);
        fine("system/a.rs", &format!("fn f() {{ {outward} }}"));
    }
    refused("resource/a.rs", "use std::{collections::BTreeMap, fs};", "`std::fs`");
    refused("resource/a.rs", "use std::net::{IpAddr, TcpStream};", "`std::net::TcpStream`");
    refused("resource/a.rs", "use std::os::unix::net::UnixStream;", "`std::os::unix::net`");
    refused("engine/a.rs", "fn f() { std::env::var(x) }", "`std::env`");
    refused("resource/a.rs", "fn f() { println!(\"x\") }", "prints");
    fine("resource/a.rs", "use std::net::IpAddr; use crate::system::fs::Attrs; use tokio::time::sleep;");
}

#[test]
fn hands_and_check_mode_are_the_engines() {
    refused("resource/a.rs", "fn f() { Actuator::new(probe) }", "only src/engine/ may make an `Actuator`");
    fine("engine/a.rs", "fn f() { Actuator::new(probe) }");
    fine("system/a.rs", "#[cfg(test)]\nmod tests {\n fn f() { Actuator::new(probe) }\n}");
    refused("engine/run.rs", "fn f() { if self.options.check {} }", "only src/engine/step.rs reads check mode");
    refused("remote/a.rs", "fn f() { if plan.options.check {} }", "only src/engine/step.rs reads check mode");
    fine("engine/step.rs", "fn f() { if options.check {} }");
    fine("cli/play.rs", "fn f() { asked.options.check = args.check; }");
}

#[test]
fn libraries_stay_in_their_rooms() {
    refused("plan/a.rs", "use pest::Parser;", "`pest` is known to src/syntax/ alone");
    refused("plan/a.rs", "use minijinja::Value;", "`minijinja` is known to src/expr/ alone");
    refused("plan/a.rs", "use bollard::Docker;", "`bollard` is known to src/system/ alone");
    fine("expr/a.rs", "use minijinja::Value;");
    refused("report/a.rs", "use crate::plan::Late;", "a reporter sees events alone");
    fine("report/a.rs", "use crate::failure::Failure; use crate::report::x;");
}

#[test]
fn what_is_left_lying_about_is_seen() {
    refused("plan/a.rs", "fn f() { todo!() }", "`todo!`");
    refused("plan/a.rs", "fn f() { dbg!(x); }", "`dbg!`");
    refused("plan/a.rs", "fn f() { unimplemented!() }", "`unimplemented!`");
    refused("plan/a.rs", "#[allow(dead_code)]\nfn f() {}", "#[expect(");
    refused("plan/a.rs", "#![allow(dead_code)]", "#[expect(");
    refused("plan/a.rs", &"\n".repeat(801), "has 801 lines");
    fine("plan/a.rs", "#[expect(dead_code, reason = \"x\")]\nfn f<'a>(x: &'a str) -> char { '\"' }");
    fine("plan/a.rs", &"\n".repeat(800));
}
