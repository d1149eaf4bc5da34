//! The address book in a file.

mod plan;
pub(crate) mod suite;

use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use fanli::book::redb::FileStore;
use fanli::book::{Commit, Record, State, Store as _, Write};

#[test]
fn a_file_does_what_every_store_must() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/book.redb");
    suite::conformance(&|| Box::new(FileStore::new(&path, "tests")));
    let mode = std::fs::metadata(path.parent().unwrap()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn who_holds_the_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("book.redb");
    let store = FileStore::new(&path, "tests").waiting_for(Duration::from_millis(50));
    let record = Record {
        network: "lan".to_owned(),
        spot: "10.0.0.1".parse().unwrap(),
        owner: None,
        node: None,
        host: None,
        mac: None,
        state: State::Static,
        note: None,
        run: "tests".to_owned(),
        since: 1,
    };
    let write = Write { spot: record.spot.clone(), owner: None, expect: 0, record: Some(record) };
    assert_eq!(store.commit(std::slice::from_ref(&write)).unwrap(), Commit::Done(1));
    let lock = File::open(path.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    for failure in [store.commit(&[write]).unwrap_err(), store.all().unwrap_err()] {
        let text = failure.to_string().replace(&folder.path().display().to_string(), "PROJECT");
        let holder = format!("run tests (process {})", std::process::id());
        let wanted = "the address book PROJECT/book.redb is held by HOLDER: over its limit `book_wait` of 50ms";
        assert_eq!(text.replace(&holder, "HOLDER"), wanted);
    }
    drop(lock);
    assert_eq!(store.all().unwrap().entries.len(), 1);
}

#[test]
fn what_is_no_book_is_told_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("book.redb");
    std::fs::write(&path, "not a book, but somebody's\n").unwrap();
    let store = FileStore::new(&path, "tests");
    for failure in [store.all().unwrap_err(), store.commit(&[]).unwrap_err()] {
        assert!(failure.to_string().starts_with("cannot open the address book "), "{failure}");
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "not a book, but somebody's\n");
}
