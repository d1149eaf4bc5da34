//! What every store must do: the same steps over each of them.

use std::net::IpAddr;
use std::time::Duration;

use fanli::book::rules::owner_key;
use fanli::book::{
    Asked, Book, Bound, Candidates, Commit, Entry, Lan, MOST_WRITES, Predecessor, Record, Refused, Spot, State, Store,
    Write,
};

/// One thing that must hold.
type Rule = fn(Open);

/// Opens the store under test once more: another process would see the same.
pub(crate) type Open<'a> = &'a dyn Fn() -> Box<dyn Store>;

const NET: &str = "web-lan";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn spot(text: &str) -> Spot {
    text.parse().unwrap()
}

fn pool(first: &str, last: &str) -> Candidates {
    Candidates::addresses(ip(first), ip(last))
}

fn book(open: Open, run: &str) -> Book {
    Book::new(open(), run)
}

fn slots(group: &str, count: u64) -> Vec<Asked> {
    (1..=count).map(|index| Asked::slot(group, index)).collect()
}

fn shown(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|entry| entry.record.spot.to_string()).collect()
}

fn on(host: &str) -> Bound {
    Bound { node: Some(format!("node-of-{host}")), host: Some(host.to_owned()), mac: None }
}

fn bind(book: &Book, entries: &[Entry], host: &str) -> Result<Vec<Entry>, Refused> {
    let with: Vec<(Entry, Bound)> = entries.iter().map(|entry| (entry.clone(), on(host))).collect();
    book.bind(&with)
}

fn taken_away(entry: Entry) -> Write {
    let Record { network, spot, owner, .. } = entry.record;
    Write { spot, owner: owner.map(|owner| owner_key(&network, &owner)), expect: entry.revision, record: None }
}

/// Both maps say the same, and no record stands twice.
pub(crate) fn sound(store: &dyn Store) -> Vec<Entry> {
    let everything = store.all().unwrap();
    let mut of_records: Vec<(String, Spot)> = Vec::new();
    let mut spots = std::collections::BTreeSet::new();
    for Entry { record, revision } in &everything.entries {
        assert!(*revision > 0, "{record:?}");
        assert!(spots.insert(record.spot.clone()), "{} stands twice", record.spot);
        if let Some(owner) = &record.owner {
            of_records.push((format!("{}/{owner}", record.network), record.spot.clone()));
        }
    }
    let mut owners = everything.owners.clone();
    owners.sort();
    of_records.sort();
    if owners != of_records {
        let without = |some: &[(String, Spot)], others: &[(String, Spot)]| {
            some.iter().filter(|one| !others.contains(one)).take(5).cloned().collect::<Vec<_>>()
        };
        let (lone_keys, lone_records) = (without(&owners, &of_records), without(&of_records, &owners));
        panic!("the two maps do not agree: keys without records {lone_keys:?}, records without keys {lone_records:?}");
    }
    assert!(owners.windows(2).all(|pair| pair[0].0 != pair[1].0), "an owner stands twice");
    everything.entries
}

/// Every rule, one after the other; each leaves the store empty for the next.
pub(crate) fn conformance(open: Open) {
    let rules: [(&str, Rule); 14] = [
        ("a store has a name", name),
        ("lifecycle", lifecycle),
        ("the same owner gets the same", same_owner),
        ("compare and swap", compare_and_swap),
        ("all or none", all_or_none),
        ("full", full),
        ("edges", edges),
        ("ports", ports),
        ("expiry", expiry),
        ("quarantine", quarantine),
        ("kept out", kept_out),
        ("pages", pages),
        ("moves", moves),
        ("facts", facts),
    ];
    for (name, rule) in rules {
        eprintln!("- {name}");
        rule(open);
        let book = book(open, "cleaner");
        let writes: Vec<Write> = sound(book.store()).into_iter().map(taken_away).collect();
        for some in writes.chunks(MOST_WRITES) {
            assert_ne!(book.store().commit(some).unwrap(), Commit::Conflict);
        }
        assert_eq!(sound(book.store()), [], "{name}");
    }
}

fn name(open: Open) {
    let first = book(open, "r1");
    first.claim(NET, &slots("web", 1), &pool("10.0.0.10", "10.0.0.10")).unwrap();
    let id = first.store().id().unwrap().unwrap();
    assert_eq!(id.len(), 32);
    assert_eq!(book(open, "r2").store().id().unwrap(), Some(id));
}

fn lifecycle(open: Open) {
    let first = book(open, "r1");
    let all = pool("10.0.0.10", "10.0.0.14");
    let reserved = first.claim(NET, &slots("web", 3), &all).unwrap();
    assert_eq!(shown(&reserved), ["10.0.0.10", "10.0.0.11", "10.0.0.12"]);
    assert!(
        reserved.iter().all(|entry| matches!(entry.record.state, State::Reserved { .. }) && entry.record.run == "r1")
    );
    let bound = bind(&first, &reserved, "h1").unwrap();
    assert!(bound.iter().zip(&reserved).all(|(bound, reserved)| bound.revision > reserved.revision));
    let found = sound(book(open, "r2").store());
    assert_eq!(found, bound, "what was written is what is read");
    let record = &found[0].record;
    assert_eq!(
        (record.state, record.host.as_deref(), record.owner.as_deref()),
        (State::Bound, Some("h1"), Some("web/1"))
    );
    // Again: nothing is written. On another host: only that one is.
    let again = first.claim(NET, &slots("web", 3), &all).unwrap();
    assert_eq!(bind(&first, &again, "h1").unwrap(), bound);
    let moved = bind(&first, &again[..1], "h2").unwrap();
    assert!(moved[0].revision > bound[2].revision && moved[0].record.since == bound[0].record.since);
    assert_eq!(first.free(&all, 9).unwrap(), [spot("10.0.0.13"), spot("10.0.0.14")]);
    assert_eq!(first.free(&all, 1).unwrap(), [spot("10.0.0.13")]);
    // What ends is gone for good, its owner's key too.
    // What is given back is what was seen: a record that changed meanwhile stays.
    assert!(!first.release(&bound[0], Duration::ZERO).unwrap());
    assert_eq!(sound(first.store()).len(), 3);
    assert!(first.release(&moved[0], Duration::ZERO).unwrap());
    assert!(!first.release(&moved[0], Duration::ZERO).unwrap());
    assert_eq!(sound(first.store()).len(), 2);
}

fn same_owner(open: Open) {
    let all = pool("10.0.0.10", "10.0.0.12");
    let first = book(open, "r1").claim(NET, &slots("web", 2), &all).unwrap();
    let other = book(open, "r2").claim(NET, &slots("db", 1), &all).unwrap();
    assert_eq!(shown(&other), ["10.0.0.12"], "its own first candidate is taken: the next one that is free");
    let again = book(open, "r3").claim(NET, &slots("web", 2), &all).unwrap();
    assert_eq!(again, first, "a young reservation is not even written");
    // In another network an owner is another one, and an address is still given once.
    let elsewhere = book(open, "r4").claim("other-lan", &slots("web", 1), &pool("10.0.0.10", "10.0.0.14")).unwrap();
    assert_eq!(shown(&elsewhere), ["10.0.0.13"]);
    // A reservation whose pool was moved moves along; what is bound does not.
    let moved = book(open, "r5").claim(NET, &slots("db", 1), &pool("10.1.0.1", "10.1.0.9")).unwrap();
    assert_eq!(shown(&moved), ["10.1.0.1"]);
    sound(book(open, "r6").store());
    bind(&book(open, "r5"), &moved, "h1").unwrap();
    let refused = book(open, "r6").claim(NET, &slots("db", 1), &all).unwrap_err();
    assert!(matches!(&refused, Refused::Elsewhere(record) if record.spot == spot("10.1.0.1")), "{refused}");
}

fn moves(open: Open) {
    let (first, other) = (book(open, "r1"), book(open, "r2"));
    let all = pool("10.0.0.10", "10.0.0.13");
    let reserved = first.claim(NET, &slots("web", 2), &all).unwrap();
    let bound = bind(&first, &reserved, "h1").unwrap();
    // One commit: the new one is bound, the old one is kept under another name.
    let (new, old) = first.move_to(&bound[0], &spot("10.0.0.20"), &on("h1")).unwrap().unwrap();
    assert_eq!((new.record.owner.as_deref(), new.record.state), (Some("web/1"), State::Bound));
    assert_eq!((old.record.owner.as_deref(), old.record.state), (Some("web/1/old"), State::Bound));
    assert_eq!(
        other.claim(NET, &slots("web", 1), &pool("10.0.0.20", "10.0.0.20")).unwrap(),
        std::slice::from_ref(&new)
    );
    sound(first.store());
    // Whoever saw the record as it was before is too late, and what is taken cannot be moved to.
    assert_eq!(other.move_to(&bound[0], &spot("10.0.0.21"), &on("h1")).unwrap(), None);
    assert!(matches!(other.move_to(&new, &spot("10.0.0.11"), &on("h1")), Err(Refused::Held(_))));
    let (newer, older) = other.move_to(&new, &spot("10.0.0.22"), &on("h1")).unwrap().unwrap();
    assert_eq!(older.record.owner.as_deref(), Some("web/1/old-2"));
    assert!(first.release(&old, Duration::from_secs(60)).unwrap());
    sound(first.store());
    // Something else has it: foreign, and its owner gets another one.
    let to = Bound { node: None, host: Some("h1".to_owned()), mac: Some("02:00:00:00:00:09".to_owned()) };
    assert!(first.lose(&newer, &to, "heard").unwrap());
    assert!(!first.lose(&newer, &to, "heard").unwrap(), "once");
    let again = first.claim(NET, &slots("web", 1), &pool("10.0.0.22", "10.0.0.23")).unwrap();
    assert_eq!(shown(&again), ["10.0.0.23"]);
    let foreign = first.store().of_spots(&[spot("10.0.0.22")]).unwrap().remove(0).unwrap().record;
    assert_eq!((foreign.state, foreign.owner, foreign.mac), (State::Foreign, None, to.mac));
    // What a host shows is written over all that nobody bound, and over nothing that somebody else did.
    assert!(first.settle(NET, "web/1", &spot("10.0.0.22"), &on("h1")).unwrap());
    assert!(!first.settle(NET, "web/1", &spot("10.0.0.22"), &on("h1")).unwrap(), "nothing is left to write");
    assert_eq!(first.store().of_spots(&[spot("10.0.0.23")]).unwrap(), [None], "a reservation is let go of");
    assert!(matches!(first.settle(NET, "web/1", &spot("10.0.0.11"), &on("h1")), Err(Refused::Held(_))));
    assert!(first.settle(NET, "web/1", &spot("10.0.0.12"), &on("h1")).unwrap());
    let kept = first.store().of_spots(&[spot("10.0.0.22")]).unwrap().remove(0).unwrap().record;
    assert_eq!(kept.owner.as_deref(), Some("web/1/old-3"), "what is bound stays so");
    assert!(first.settle(NET, "db/1", &spot("10.0.0.13"), &on("h2")).unwrap(), "a new one");
    sound(first.store());
    // Two that swap in one commit.
    let [one, two] =
        [0, 1].map(|at| first.store().of_owners(&[owner_key(NET, ["web/2", "db/1"][at])]).unwrap().remove(0).unwrap());
    let given = |entry: &Entry, owner: &str| Write {
        spot: entry.record.spot.clone(),
        owner: entry.record.owner.as_ref().map(|owner| owner_key(NET, owner)),
        expect: entry.revision,
        record: Some(Record { owner: Some(owner.to_owned()), ..entry.record.clone() }),
    };
    let swap = [given(&one, "db/1"), given(&two, "web/2")];
    assert!(matches!(first.store().commit(&swap).unwrap(), Commit::Done(_)));
    sound(first.store());
    assert_eq!(first.store().commit(&[given(&one, "web/7")]).unwrap(), Commit::Conflict);
    let now = first.store().of_spots(std::slice::from_ref(&one.record.spot)).unwrap().remove(0).unwrap();
    assert_eq!(first.store().commit(&[given(&now, "web/2")]).unwrap(), Commit::Conflict, "an owner has one");
}

fn facts(open: Open) {
    let (first, other) = (book(open, "r1"), book(open, "r2"));
    assert_eq!((first.unknown_hosts().unwrap(), first.predecessors().unwrap()), (vec![], vec![]));
    assert_eq!(first.store().revision().unwrap() > 0, first.store().id().unwrap().is_some());
    let all = pool("10.0.0.10", "10.0.0.13");
    let reserved = first.claim(NET, &slots("web", 1), &all).unwrap();
    assert!(first.store().revision().unwrap() >= reserved[0].revision);
    other.set_unknown_hosts(&["h2".to_owned(), "h3".to_owned()]).unwrap();
    let refused = first.claim(NET, &slots("web", 2), &all).unwrap_err();
    assert_eq!(refused.to_string(), "nothing new is given: nobody knows which addresses h2, h3 hold");
    let mine = first.claim(NET, &slots("web", 1), &all).unwrap();
    assert_eq!(shown(&mine), ["10.0.0.10"], "what somebody has is given all the same");
    let bound = bind(&first, &mine, "h1").unwrap();
    assert!(matches!(first.move_to(&bound[0], &spot("10.0.0.12"), &on("h1")), Err(Refused::Unknown(_))));
    other.set_unknown_hosts(&[]).unwrap();
    assert_eq!(first.claim(NET, &slots("web", 2), &all).unwrap().len(), 2);
    let one = |revision| Predecessor { store: "a".to_owned(), revision };
    first.accept(&[one(3)]).unwrap();
    other.accept(&[one(2), Predecessor { store: "b".to_owned(), revision: 1 }]).unwrap();
    let told: Vec<String> = first.predecessors().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(told, ["a@3", "b@1"]);
}

fn compare_and_swap(open: Open) {
    let (first, second) = (book(open, "r1"), book(open, "r2"));
    let all = pool("10.0.0.10", "10.0.0.12");
    let reserved = first.claim(NET, &slots("web", 1), &all).unwrap();
    // Two runs of one playbook bind the same: the second finds it done.
    let bound = bind(&first, &reserved, "h1").unwrap();
    assert_eq!(bind(&second, &reserved, "h1").unwrap(), bound);
    // Two that disagree: one wins, the other is told.
    assert_eq!(bind(&second, &reserved, "h2"), Err(Refused::Lost(spot("10.0.0.10"))));
    // A write for a revision that is gone does nothing.
    let store = open();
    let owner = owner_key(NET, "web/1");
    let late =
        Write { spot: spot("10.0.0.10"), owner: Some(owner.clone()), expect: reserved[0].revision, record: None };
    assert_eq!(store.commit(&[late]).unwrap(), Commit::Conflict);
    let record =
        |at: &str, owner: &str| Record { spot: spot(at), owner: Some(owner.to_owned()), ..bound[0].record.clone() };
    let fresh = |at: &str, owner: &str| Write {
        spot: spot(at),
        owner: Some(owner_key(NET, owner)),
        expect: 0,
        record: Some(record(at, owner)),
    };
    assert_eq!(store.commit(&[fresh("10.0.0.11", "web/1")]).unwrap(), Commit::Conflict, "an owner has one spot");
    assert_eq!(store.commit(&[fresh("10.0.0.10", "web/2")]).unwrap(), Commit::Conflict, "a spot has one owner");
    assert!(
        matches!(store.commit(&[fresh("10.0.0.11", "web/2")]).unwrap(), Commit::Done(number) if number > bound[0].revision)
    );
}

fn all_or_none(open: Open) {
    let store = open();
    let here = book(open, "r1");
    here.keep(NET, &[(spot("10.0.0.12"), Bound::default(), None)], State::Static).unwrap();
    let wanted: Vec<_> =
        (10..=12).map(|last| (owner_key(NET, &format!("web/{last}")), spot(&format!("10.0.0.{last}")))).collect();
    let refused = here.reserve(&wanted).unwrap_err();
    assert!(matches!(&refused, Refused::Held(record) if record.spot == spot("10.0.0.12")), "{refused}");
    assert_eq!(sound(&*store).len(), 1);
}

fn full(open: Open) {
    let here = book(open, "r1");
    let all = pool("10.0.0.10", "10.0.0.15");
    bind(&here, &here.claim(NET, &slots("web", 3), &all).unwrap(), "h1").unwrap();
    here.claim(NET, &slots("db", 1), &all).unwrap();
    here.keep(NET, &[(spot("10.0.0.14"), Bound::default(), Some("printer".to_owned()))], State::Static).unwrap();
    let refused = here.claim(NET, &slots("cache", 2), &all).unwrap_err();
    assert_eq!(refused.to_string(), "all 6 are taken: 3 by `web`, 1 by `db` (reserved), 1 by static reservations");
    assert_eq!(sound(here.store()).len(), 5, "nothing is left of what did not fit");
    // The last one goes to exactly one.
    here.claim(NET, &slots("cache", 1), &all).unwrap();
    assert!(matches!(here.claim(NET, &slots("late", 1), &all), Err(Refused::Full { .. })));
    assert!(matches!(here.claim(NET, &slots("late", 1), &Candidates::default()), Err(Refused::Full { size: 0, .. })));
}

fn edges(open: Open) {
    let lan = |subnet: &str, first: &str, last: &str, gateway: Option<&str>| {
        let (name, exclude) = (NET.to_owned(), Vec::new());
        Lan { name, subnet: subnet.parse().ok(), gateway: gateway.map(ip), pool: Some((ip(first), ip(last))), exclude }
    };
    for (lan, wanted) in [
        (lan("10.9.0.0/30", "10.9.0.0", "10.9.0.3", Some("10.9.0.2")), vec!["10.9.0.1"]),
        (lan("10.9.1.0/31", "10.9.1.0", "10.9.1.1", None), vec!["10.9.1.0", "10.9.1.1"]),
        (lan("10.9.2.7/32", "10.9.2.7", "10.9.2.7", None), vec!["10.9.2.7"]),
        (lan("fd00:9::/126", "fd00:9::", "fd00:9::3", Some("fd00:9::2")), vec!["fd00:9::1", "fd00:9::3"]),
        (lan("255.255.255.0/24", "255.255.255.254", "255.255.255.255", None), vec!["255.255.255.254"]),
    ] {
        let here = book(open, "r1");
        let group = format!("edge-{}", lan.subnet.unwrap());
        let got = here.claim(NET, &slots(&group, wanted.len() as u64), &lan.candidates()).unwrap();
        assert_eq!(shown(&got), wanted);
        let more = slots(&group, wanted.len() as u64 + 1);
        assert!(matches!(here.claim(NET, &more, &lan.candidates()), Err(Refused::Full { .. })), "{lan:?}");
    }
    // A /64 is no loop.
    let huge = Candidates::addresses(ip("fd00:64::"), ip("fd00:64::ffff:ffff:ffff:ffff"))
        .without(ip("fd00:64::"), ip("fd00:64::ffff"));
    let got = book(open, "r1").claim(NET, &slots("huge", 3), &huge).unwrap();
    assert_eq!(shown(&got), ["fd00:64::1:0", "fd00:64::1:1", "fd00:64::1:2"]);
}

fn ports(open: Open) {
    let here = book(open, "r1");
    let got = here.claim(NET, &slots("web", 2), &Candidates::ports("lab1", 80, 82)).unwrap();
    assert_eq!(shown(&got), ["lab1:80", "lab1:81"]);
    let got = here.claim(NET, &slots("db", 2), &Candidates::ports("lab2", 80, 82)).unwrap();
    assert_eq!(shown(&got), ["lab2:80", "lab2:81"]);
    assert_eq!(here.free(&Candidates::ports("lab1", 80, 82), 9).unwrap(), [spot("lab1:82")]);
    sound(here.store());
}

fn expiry(open: Open) {
    let all = pool("10.0.0.10", "10.0.0.10");
    // Seconds are counted whole: of one, a moment may be left, which a busy machine needs for the next two lines.
    let short = book(open, "r1").reserving_for(Duration::from_secs(3));
    let reserved = short.claim(NET, &slots("web", 1), &all).unwrap();
    assert!(matches!(book(open, "r2").claim(NET, &slots("db", 1), &all), Err(Refused::Full { .. })));
    gone(open, "10.0.0.10");
    assert_eq!(sound(&*open()), [], "it is gone both ways");
    assert_eq!(bind(&short, &reserved, "h1"), Err(Refused::Lost(spot("10.0.0.10"))), "and cannot be bound");
    let next = book(open, "r2").claim(NET, &slots("db", 1), &all).unwrap();
    assert_eq!(
        bind(&short, &reserved, "h1"),
        Err(Refused::Lost(spot("10.0.0.10"))),
        "least of all when another one has it"
    );
    // What is bound stays.
    bind(&book(open, "r2").reserving_for(Duration::from_secs(1)), &next, "h1").unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(sound(&*open()).len(), 1);
}

/// Waits until a spot has no record.
fn gone(open: Open, at: &str) {
    let start = std::time::Instant::now();
    while open().of_spots(&[spot(at)]).unwrap() != [None] {
        assert!(start.elapsed() < Duration::from_secs(30), "{at} does not end");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn release(book: &Book, at: &str, quarantine: Duration) {
    let entry = book.store().of_spots(&[spot(at)]).unwrap().remove(0).unwrap();
    assert!(book.release(&entry, quarantine).unwrap());
}

fn quarantine(open: Open) {
    let all = pool("10.0.0.10", "10.0.0.10");
    let here = book(open, "r1");
    bind(&here, &here.claim(NET, &slots("web", 1), &all).unwrap(), "h1").unwrap();
    release(&here, "10.0.0.10", Duration::from_secs(3));
    let refused = here.claim(NET, &slots("db", 1), &all).unwrap_err();
    assert_eq!(refused.to_string(), "all 1 are taken: 1 by `web` (releasing)");
    // A second release makes it no longer.
    release(&here, "10.0.0.10", Duration::from_secs(600));
    gone(open, "10.0.0.10");
    assert_eq!(sound(&*open()), []);
    // Its own owner may have it back at once.
    bind(&here, &here.claim(NET, &slots("web", 1), &all).unwrap(), "h1").unwrap();
    release(&here, "10.0.0.10", Duration::from_secs(600));
    let back = here.claim(NET, &slots("web", 1), &all).unwrap();
    assert!(matches!(back[0].record.state, State::Reserved { .. }), "{back:?}");
    // A mere reservation needs no quarantine.
    release(&here, "10.0.0.10", Duration::from_secs(600));
    assert_eq!(sound(&*open()), []);
}

fn kept_out(open: Open) {
    let here = book(open, "r1");
    let printer = (spot("10.0.0.10"), Bound::default(), Some("printer".to_owned()));
    let seen = Bound { mac: Some("52:54:00:00:00:01".to_owned()), ..on("h1") };
    assert_eq!(here.keep(NET, std::slice::from_ref(&printer), State::Static).unwrap(), 1);
    assert_eq!(here.keep(NET, std::slice::from_ref(&printer), State::Static).unwrap(), 0, "once is enough");
    assert_eq!(here.keep(NET, &[(spot("10.0.0.11"), seen, None)], State::Foreign).unwrap(), 1);
    let all = pool("10.0.0.10", "10.0.0.12");
    let got = here.claim(NET, &slots("web", 1), &all).unwrap();
    assert_eq!(shown(&got), ["10.0.0.12"]);
    let refused = here.claim(NET, &slots("web", 2), &all).unwrap_err();
    let text = "all 3 are taken: 1 by `web` (reserved), 1 by foreign reservations, 1 by static reservations";
    assert_eq!(refused.to_string(), text);
    let refused = here.keep(NET, &[(spot("10.0.0.12"), Bound::default(), None)], State::Static).unwrap_err();
    assert_eq!(refused.to_string(), "10.0.0.12 is held by `web/1`");
    let refused = here.reserve(&[(owner_key(NET, "db/1"), spot("10.0.0.11"))]).unwrap_err();
    let text = "10.0.0.11 is held by something that is not fanli's (node node-of-h1, on h1, MAC 52:54:00:00:00:01)";
    assert_eq!(refused.to_string(), text);
}

/// More than fits one read and one commit.
fn pages(open: Open) {
    let here = book(open, "r1");
    let all = pool("10.2.0.0", "10.2.15.255");
    let got = here.claim(NET, &slots("web", 700), &all).unwrap();
    assert_eq!((got[0].record.spot.clone(), got[699].record.spot.clone()), (spot("10.2.0.0"), spot("10.2.2.187")));
    bind(&here, &got, "h1").unwrap();
    // One whose first candidates are all taken passes over them.
    let next = book(open, "r2").claim(NET, &slots("db", 2), &all).unwrap();
    assert_eq!(shown(&next), ["10.2.2.188", "10.2.2.189"]);
    assert_eq!(sound(here.store()).len(), 702);
}
