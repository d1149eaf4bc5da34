use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use rustix::fs::Mode;

use super::*;
use crate::logs::codec::Codec;
use crate::logs::period::Period;
use crate::logs::seal::Why;
use crate::logs::segment::Segment;
use crate::logs::spool::Dropped;

const HOUR: &str = "2026-11-30T15:00:00Z";

fn moment(seconds: i64) -> Timestamp {
    HOUR.parse::<Timestamp>().unwrap().checked_add(SignedDuration::from_secs(seconds)).unwrap()
}

/// A line of an access log, written so many seconds into the hour.
fn access(seconds: i64, what: &str) -> String {
    format!("192.0.2.1 - - [{}] \"GET {what}\" 200\n", moment(seconds).strftime("%d/%b/%Y:%H:%M:%S +0000"))
}

/// A segment of the hour `hour` hours after [`HOUR`], that is being written.
fn begun(folder: &Path, path: &str, hour: i64, text: &str) -> Segment {
    let begin = moment(hour * 3_600);
    let period = Period { begin, end: moment((hour + 1) * 3_600), number: 0 };
    let dir = OwnedFd::from(File::open(folder).unwrap());
    let mut segment = Segment::make(&dir, Path::new(path), period, Mode::from_raw_mode(0o644), None).unwrap();
    add(&mut segment, text);
    segment
}

fn add(segment: &mut Segment, text: &str) {
    assert_eq!(segment.append(text.as_bytes()).unwrap(), text.len());
}

fn closed(folder: &Path, path: &str, hour: i64, text: &str) {
    begun(folder, path, hour, text).seal(Why::End, Dropped::default()).unwrap();
}

fn packed(folder: &Path, path: &str, codec: Codec) {
    let plain = folder.join(path);
    let to = File::create(format!("{}{}", plain.display(), codec.extension())).unwrap();
    codec.pack(File::open(&plain).unwrap(), to).unwrap();
    fs::remove_file(plain).unwrap();
}

/// Keeps what is told. Every line must be of a file that was named, and that is not over.
#[derive(Default)]
struct Kept {
    files: BTreeMap<u32, String>,
    text: String,
    places: Vec<i64>,
    failures: Vec<String>,
    most: Option<usize>,
}

impl Sink for Kept {
    fn take(&mut self, told: Told) -> bool {
        match told {
            Told::File { number, path, .. } => assert_eq!(self.files.insert(number, path), None),
            Told::Line { file, line } => {
                assert!(self.files.contains_key(&file));
                self.text += &String::from_utf8_lossy(&line.text);
                self.places.push(line.at);
            }
            Told::Over { number } => assert!(self.files.remove(&number).is_some()),
            Told::Failed(failure) => self.failures.push(failure.to_string()),
            Told::Current | Told::End => {}
        }
        self.most.is_none_or(|most| self.places.len() < most)
    }

    fn flush(&mut self) -> bool {
        true
    }
}

fn kept(folder: &Path, query: Query) -> Kept {
    let mut kept = Kept::default();
    read(&Query { folders: vec![folder.to_owned()], ..query }, &mut kept).unwrap();
    kept
}

fn text(folder: &Path, query: Query) -> String {
    let kept = kept(folder, query);
    assert_eq!(kept.failures, [""; 0]);
    assert!(kept.places.is_sorted());
    kept.text
}

fn micros(seconds: i64) -> i64 {
    moment(seconds).as_microsecond()
}

#[test]
fn lines_of_several_writers_come_in_the_order_of_time() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let trace = format!("{}  at Shop.checkout\n  at Shop.main\n", access(20, "/b"));
    closed(folder, "www/15.a.log", 0, &[access(10, "/a"), trace.clone(), access(40, "/d")].concat());
    // A graceful reload: another writer of the same hour.
    closed(folder, "www/15.b.log", 0, &[access(30, "/c"), access(50, "/e")].concat());
    closed(folder, "shop/15.a.log", 0, &access(25, "/shop"));
    closed(folder, "www/16.a.log", 1, &access(3_700, "/late"));
    let all = [
        access(10, "/a"),
        trace.clone(),
        access(25, "/shop"),
        access(30, "/c"),
        access(40, "/d"),
        access(50, "/e"),
        access(3_700, "/late"),
    ];
    assert_eq!(text(folder, Query::default()), all.concat());
    for codec in Codec::ALL {
        packed(folder, ["www/15.a.log", "shop/15.a.log"][usize::from(codec == Codec::Zstd)], codec);
        assert_eq!(text(folder, Query::default()), all.concat());
    }
    let span = Query { since: Some(micros(20)), until: Some(micros(30)), ..Query::default() };
    assert_eq!(text(folder, span), all[1..4].concat());
    assert_eq!(text(folder, Query { since: Some(micros(3_601)), ..Query::default() }), all[6]);
    let site = |site: &str| Query { site: Some(site.to_owned()), ..Query::default() };
    assert_eq!(text(folder, site("shop")), all[2]);
    assert_eq!(text(folder, site("sho")), "");
    let pattern = |text: &str, ignore_case, invert| {
        let pattern = Some(Pattern { text: text.to_owned(), ignore_case, invert });
        Query { pattern, site: Some("www".to_owned()), ..Query::default() }
    };
    assert_eq!(text(folder, pattern("GET /[de]\"", false, false)), all[4..6].concat());
    assert_eq!(text(folder, pattern("get /[de]\"", true, false)), all[4..6].concat());
    assert_eq!(text(folder, pattern("get /[de]\"", false, false)), "");
    assert_eq!(text(folder, pattern("GET", false, true)), "  at Shop.checkout\n  at Shop.main\n");
    assert_eq!(text(folder, pattern("main$", false, false)), "  at Shop.main\n");
    let odd = Query { folders: vec![folder.to_owned()], ..pattern("a(", false, false) };
    let failure = read(&odd, &mut Kept::default()).unwrap_err().to_string();
    assert!(failure.starts_with("`a(` is no regular expression"), "{failure}");
}

#[test]
fn a_time_that_cannot_be_holds_no_other_line_up() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let odd = [access(10, "/a"), access(999_999_999, "/odd"), access(20, "/b"), access(-999_999, "/early")];
    closed(folder, "15.a.log", 0, &odd.concat());
    closed(folder, "15.b.log", 0, &access(15, "/c"));
    closed(folder, "16.a.log", 1, &access(3_600, "/d"));
    // Those behind it are at the end of the hour at most, and in their own order.
    assert_eq!(
        text(folder, Query::default()),
        [&odd[0], &access(15, "/c"), &odd[1], &odd[2], &odd[3], &access(3_600, "/d")].map(String::as_str).concat()
    );
}

#[test]
fn a_long_line_stays_together_and_what_is_not_whole_yet_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let long = access(10, &"x".repeat(3 * MOST_PIECE));
    closed(folder, "15.a.log", 0, &[long.clone(), access(12, "/b")].concat());
    let mut writing = begun(folder, "15.b.log", 0, &[access(10, "/same"), access(11, "/c")].concat());
    add(&mut writing, "half of a li");
    closed(folder, "14.a.log", -1, "no end");
    let all = ["no end\n", &long, &access(10, "/same"), &access(11, "/c"), &access(12, "/b")].concat();
    assert!(text(folder, Query::default()) == all);
    add(&mut writing, "ne\n");
    drop(writing);
    // Its writer was killed.
    let all =
        ["no end\n", &long, &access(10, "/same"), &access(11, "/c"), "half of a line\n", &access(12, "/b")].concat();
    assert!(text(folder, Query::default()) == all);
}

#[test]
fn what_cannot_be_read_is_told_and_the_rest_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (letter, second) in ["a", "b", "c", "d", "e"].into_iter().zip(1..) {
        closed(folder, &format!("15.{letter}.log"), 0, &access(second, letter).repeat(5_000));
    }
    packed(folder, "15.a.log", Codec::Zstd);
    let mut bytes = fs::read(folder.join("15.a.log.zst")).unwrap();
    let half = bytes.len() / 2;
    bytes[half..].fill(7);
    fs::write(folder.join("15.a.log.zst"), bytes).unwrap();
    fs::hard_link(folder.join("15.b.log"), folder.join("other")).unwrap();
    fs::remove_file(folder.join("15.c.log")).unwrap();
    symlink("/etc/hostname", folder.join("15.c.log")).unwrap();
    // Bytes that its seal does not know of.
    fs::write(folder.join("15.d.log"), access(4, "d").repeat(50_000)).unwrap();
    packed(folder, "15.d.log", Codec::Gzip);
    let query = Query { folders: vec![folder.to_owned(), folder.join("none")], ..Query::default() };
    let mut found = Kept::default();
    read(&query, &mut found).unwrap();
    let lines = |what: &str| found.text.matches(&format!("GET {what}\"")).count();
    assert_eq!((lines("b"), lines("c"), lines("d"), lines("e")), (0, 0, 5_000, 5_000));
    assert_eq!(found.text.lines().count(), 10_000 + lines("a"));
    let at = folder.display();
    assert!(found.failures.contains(&format!("there is no directory {at}/none")), "{:?}", found.failures);
    assert!(found.failures.iter().any(|failure| failure.ends_with("15.b.log is left as it is: it has several names")));
    assert!(found.failures.iter().any(|failure| failure.starts_with(&format!("cannot read {at}/15.a.log"))));
    let length = 5_000 * access(4, "d").len();
    let more = format!("cannot read {at}/15.d.log to its end: it has more bytes than the {length} of its seal");
    assert!(found.failures.contains(&more), "{:?}", found.failures);
    assert_eq!(found.failures.len(), 4, "{:?}", found.failures);
    // Less than that, and a byte that is another one.
    fs::write(folder.join("15.e.log"), access(5, "e").repeat(4_999)).unwrap();
    assert_eq!(kept(folder, Query::default()).failures.len(), 4);
    closed(folder, "16.a.log", 1, &access(3_601, "f").repeat(5_000));
    packed(folder, "16.a.log", Codec::Gzip);
    let mut bytes = fs::read(folder.join("16.a.log.gz")).unwrap();
    let crc = bytes.len() - 8;
    bytes[crc] ^= 1;
    fs::write(folder.join("16.a.log.gz"), bytes).unwrap();
    assert_eq!(kept(folder, Query::default()).failures.len(), 5);
    // What wants no more is told no more.
    let mut few = Kept { most: Some(7), ..Kept::default() };
    read(&query, &mut few).unwrap();
    assert_eq!(few.places.len(), 7);
}

#[test]
fn a_long_line_is_matched_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (begin, rest) = ("x".repeat(MOST_PIECE - 9), "y".repeat(MOST_PIECE));
    let long = |number: usize| format!("start{number} {begin}needle{rest} end\n");
    let very = format!("start3 {} end\n", "z".repeat(3 * MOST_LINE));
    closed(folder, "15.a.log", 0, &[long(1), "short\n".to_owned(), long(2), very.clone()].concat());
    let grep = |pattern: &str, invert| {
        let pattern = Some(Pattern { text: pattern.to_owned(), ignore_case: false, invert });
        text(folder, Query { pattern, ..Query::default() })
    };
    assert!(grep("needle", false) == [long(1), long(2)].concat());
    assert!(grep("^start1.* end$", false) == long(1));
    assert!(grep("^start3", false) == very);
    assert!(grep("start", true) == "short\n");
    assert!(grep("^$", false).is_empty());
}

#[test]
fn lines_of_one_time_come_as_their_files_were_begun() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut all = String::new();
    // By name the other way round.
    for letter in ('a'..='z').rev() {
        let line = access(10, &letter.to_string());
        closed(folder, &format!("15.{letter}.log"), 0, &line);
        all += &line;
    }
    assert_eq!(text(folder, Query::default()), all);
    let two = Query { last: Some(2), ..Query::default() };
    assert_eq!(text(folder, two), [access(10, "b"), access(10, "a")].concat());
}

#[test]
fn the_last_lines_are_placed_by_what_is_before_them() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    closed(folder, "x/15.a.log", 0, &format!("{}  at 1\n  at 2\n", access(10, "/x")));
    closed(folder, "y/15.a.log", 0, &[access(15, "/y1"), access(16, "/y2"), access(17, "/y3")].concat());
    closed(folder, "z/15.a.log", 0, &[access(30, "/z1"), access(1, "/back")].concat());
    let all = text(folder, Query::default());
    let lines: Vec<&str> = all.split_inclusive('\n').collect();
    for most in 0..=lines.len() {
        let last = Query { last: Some(most), ..Query::default() };
        assert_eq!(text(folder, last), lines[lines.len() - most..].concat(), "{most}");
    }
}

/// Passes on what is told, as long as somebody takes it.
struct Live(Sender<Told>);

impl Sink for Live {
    fn take(&mut self, told: Told) -> bool {
        self.0.send(told).is_ok()
    }

    fn flush(&mut self) -> bool {
        // Something that nobody waits for: it shows whether the other end is there.
        self.0.send(Told::Current).is_ok()
    }
}

fn next_lines(from: &Receiver<Told>, count: usize) -> String {
    let mut text = String::new();
    while text.lines().count() < count || !text.ends_with('\n') {
        match from.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| panic!("{count} lines, not {text:?}")) {
            Told::Line { line, .. } => text += &String::from_utf8(line.text).unwrap(),
            Told::Failed(failure) => panic!("{failure}"),
            _ => {}
        }
    }
    text
}

#[test]
fn lines_are_followed_from_file_to_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    closed(&path, "14.a.log", -1, &access(-100, "/old"));
    let mut first = begun(&path, "www/15.a.log", 0, &access(1, "/before"));
    for (since, before) in [(None, 0), (Some(micros(0)), 1)] {
        let (sender, told) = channel();
        let query = Query { folders: vec![path.clone()], since, follow: true, ..Query::default() };
        let reading = std::thread::spawn(move || read(&query, &mut Live(sender)));
        let mut told_of_it = 0;
        while told_of_it < 2 {
            match told.recv_timeout(Duration::from_secs(20)).unwrap() {
                Told::Current => told_of_it += 1,
                Told::Line { .. } => assert_eq!(before, 1),
                _ => {}
            }
        }
        add(&mut first, &access(2, "/a"));
        assert_eq!(next_lines(&told, 1), access(2, "/a"));
        add(&mut first, "half");
        let second = begun(&path, &format!("shop/{before}/15.a.log"), 0, &access(3, "/new"));
        assert_eq!(next_lines(&told, 1), access(3, "/new"));
        add(&mut first, " and half\n");
        assert_eq!(next_lines(&told, 1), "half and half\n");
        second.seal(Why::Period, Dropped::default()).unwrap();
        drop(second);
        // Begun and closed between two looks.
        closed(&path, &format!("shop/{before}/16.a.log"), 1, &access(3_601, "/short"));
        assert_eq!(next_lines(&told, 1), access(3_601, "/short"));
        drop(told);
        reading.join().unwrap().unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn every_line_comes_once_and_the_last_ones_are_the_end_of_all(
        lines in proptest::collection::vec((0_usize..6, 0_usize..3), 0..120),
        ways in proptest::array::uniform6(0_usize..4),
        most in 0_usize..40,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        // Line n has time n; which of the files has it is up to chance.
        let mut files: [String; 6] = Default::default();
        let mut all = Vec::new();
        for (second, (file, more)) in (0..).zip(&lines) {
            let line = access(second, &second.to_string());
            files[*file] += &line;
            all.push(line);
            for number in 0..*more {
                // Without a time.
                let line = format!("  more {number}\n");
                files[*file] += &line;
                all.push(line);
            }
        }
        let mut live = Vec::new();
        for (number, (file, way)) in files.iter().zip(ways).enumerate() {
            let path = format!("{}/{number}.log", number % 2);
            let segment = begun(folder, &path, 0, file);
            if way == 0 {
                live.push(segment);
                continue;
            }
            segment.seal(Why::End, Dropped::default()).unwrap();
            if let Some(codec) = Codec::ALL.get(way - 1) {
                packed(folder, &path, *codec);
            }
        }
        prop_assert_eq!(text(folder, Query::default()), all.concat());
        // Lines without a time follow theirs only where that was read, too.
        if lines.iter().all(|(_, more)| *more == 0) {
            let from = all.len().saturating_sub(most);
            prop_assert_eq!(text(folder, Query { last: Some(most), ..Query::default() }), all[from..].concat());
        }
        let last = kept(folder, Query { last: Some(most), ..Query::default() });
        prop_assert_eq!(last.places.len(), most.min(all.len()));
    }
}
