//! Lines of `/etc/fstab` (`fstab(5)`): found, compared and replaced without touching the others.

use crate::system::mounts::unescape;

/// The file.
pub(super) const PATH: &str = "/etc/fstab";

/// What a line says, without the two numbers at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) from: String,
    pub(super) point: String,
    pub(super) kind: String,
    pub(super) options: Vec<String>,
}

impl Line {
    fn parse(line: &str) -> Option<(Self, String)> {
        let mut words = line.split_whitespace();
        let first = words.next().filter(|word| !word.starts_with('#'))?;
        let (point, kind) = (words.next()?, words.next()?);
        let options = super::options::split(&[unescape(words.next().unwrap_or_default())]);
        let numbers: Vec<&str> = words.take_while(|word| !word.starts_with('#')).take(2).collect();
        let numbers = if numbers.is_empty() { "0 0".to_owned() } else { numbers.join(" ") };
        let mut point = unescape(point);
        if point.len() > 1 {
            point.truncate(point.trim_end_matches('/').len());
        }
        Some((Self { from: unescape(first), point, kind: kind.to_owned(), options }, numbers))
    }

    /// The same but for the order of options.
    fn agrees(&self, other: &Self) -> bool {
        let sorted = |line: &Self| {
            let mut options = line.options.clone();
            options.sort();
            options
        };
        self.from == other.from && self.kind == other.kind && sorted(self) == sorted(other)
    }

    /// As it stands in the file, without the numbers.
    pub(super) fn show(&self) -> String {
        let options = if self.options.is_empty() { "defaults".to_owned() } else { escape(&self.options.join(",")) };
        format!("{} {} {} {options}", escape(&self.from), escape(&self.point), self.kind)
    }
}

fn escape(field: &str) -> String {
    let mut text = String::with_capacity(field.len());
    for c in field.chars() {
        match c {
            ' ' => text.push_str("\\040"),
            '\t' => text.push_str("\\011"),
            '\n' => text.push_str("\\012"),
            '\\' => text.push_str("\\134"),
            _ => text.push(c),
        }
    }
    text
}

/// What the file says about the mount points, as one text; in the words of `wanted` when it says just that.
pub(super) fn told(text: &str, points: &[&str], wanted: Option<&Line>) -> Option<String> {
    let lines: Vec<Line> = about(text, points).map(|(_, line, _)| line).collect();
    match (lines.as_slice(), wanted) {
        ([], _) => None,
        ([one], Some(wanted)) if one.agrees(wanted) => Some(wanted.show()),
        (all, _) => Some(all.iter().map(Line::show).collect::<Vec<_>>().join("; ")),
    }
}

fn about<'a>(text: &'a str, points: &'a [&'a str]) -> impl Iterator<Item = (usize, Line, String)> + 'a {
    let line = |(at, line)| Line::parse(line).map(|(line, numbers)| (at, line, numbers));
    text.split('\n').enumerate().filter_map(line).filter(|(_, line, _)| points.contains(&line.point.as_str()))
}

/// The file with one line for the mount points, in the place of the first that there is, or with none. Other lines stay byte
/// for byte.
pub(super) fn replaced(text: &str, points: &[&str], wanted: Option<&Line>) -> String {
    let old: Vec<(usize, Line, String)> = about(text, points).collect();
    let numbers = old.first().map_or("0 0", |(_, _, numbers)| numbers.as_str());
    let fresh = wanted.map(|line| format!("{} {numbers}", line.show()));
    let mut lines: Vec<&str> = text.split('\n').collect();
    if lines.last().is_some_and(|last| last.is_empty()) {
        lines.pop();
    }
    let mut kept: Vec<&str> = Vec::new();
    for (at, line) in lines.into_iter().enumerate() {
        if !old.iter().any(|(place, _, _)| *place == at) {
            kept.push(line);
        } else if old.first().is_some_and(|(place, _, _)| *place == at) {
            kept.extend(fresh.as_deref());
        }
    }
    if old.is_empty() {
        kept.extend(fresh.as_deref());
    }
    kept.iter().flat_map(|line| [*line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(from: &str, point: &str, options: &[&str]) -> Line {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        Line { from: from.to_owned(), point: point.to_owned(), kind: "nfs".to_owned(), options }
    }

    const FILE: &str = "# root\nUUID=1\t/ ext4\terrors=remount-ro 0 1\n\ns:/web /opt/x  nfs ro,hard 0 2 # ours\nnone swap swap\ns:/b /opt/x/ nfs";

    #[test]
    fn a_line_is_found_whatever_its_blanks_and_order() {
        let told = |options: &[&str]| {
            told("s:/web \t/opt/x nfs hard,ro", &["/opt/x"], Some(&line("s:/web", "/opt/x", options)))
        };
        assert_eq!(told(&["ro", "hard"]).as_deref(), Some("s:/web /opt/x nfs ro,hard"));
        assert_eq!(told(&["ro"]).as_deref(), Some("s:/web /opt/x nfs hard,ro"));
        assert_eq!(
            super::told(FILE, &["/opt/x"], None).as_deref(),
            Some("s:/web /opt/x nfs ro,hard; s:/b /opt/x nfs defaults")
        );
        assert_eq!(super::told(FILE, &["/opt"], None), None);
        assert_eq!(
            super::told("s:/web /opt/x nfs defaults 0 0", &["/opt/x"], Some(&line("s:/web", "/opt/x", &[]))).as_deref(),
            Some("s:/web /opt/x nfs defaults")
        );
    }

    #[test]
    fn other_lines_stay() {
        let fresh = line("s:/new dir", "/opt/x", &["rw"]);
        assert_eq!(
            replaced(FILE, &["/opt/x"], Some(&fresh)),
            "# root\nUUID=1\t/ ext4\terrors=remount-ro 0 1\n\ns:/new\\040dir /opt/x nfs rw 0 2\nnone swap swap\n"
        );
        assert_eq!(
            replaced(FILE, &["/opt/x"], None),
            "# root\nUUID=1\t/ ext4\terrors=remount-ro 0 1\n\nnone swap swap\n"
        );
        assert_eq!(replaced("", &["/opt/x"], Some(&fresh)), "s:/new\\040dir /opt/x nfs rw 0 0\n");
        assert_eq!(replaced("# a", &["/opt/x"], None), "# a\n");
    }

    proptest! {
        #[test]
        fn what_is_written_is_found(
            before in "([a-z#/ \\t\\\\]{0,12}\n){0,5}",
            from in "[a-z:/ \\\\\t]{1,12}",
            name in "[a-z \\\\]{1,8}",
            options in prop::collection::vec("[a-z=\\\\ ]{1,6}", 0..3),
        ) {
            prop_assume!(options.iter().all(|option| option != "defaults"));
            let point = format!("/{name}");
            let wanted = Line { from, point: point.clone(), kind: "nfs".to_owned(), options };
            let after = replaced(&before, &[&point], Some(&wanted));
            prop_assert_eq!(told(&after, &[&point], Some(&wanted)), Some(wanted.show()));
            prop_assert_eq!(&replaced(&after, &[&point], Some(&wanted)), &after);
            prop_assert_eq!(told(&replaced(&after, &[&point], None), &[&point], Some(&wanted)), None);
            for line in before.lines().filter(|line| Line::parse(line).is_none_or(|(line, _)| line.point != point)) {
                prop_assert!(after.lines().any(|kept| kept == line));
            }
        }
    }
}
