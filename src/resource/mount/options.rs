//! Mount options: as they are declared, and as the kernel tells them of a mount.

use crate::system::mounts::Mount;

/// Options of the mount itself that are on or off: on, off.
const FLAGS: [(&str, &str); 6] = [
    ("ro", "rw"),
    ("nosuid", "suid"),
    ("nodev", "dev"),
    ("noexec", "exec"),
    ("nodiratime", "diratime"),
    ("nosymfollow", "symfollow"),
];

/// How times of reading are kept; one of them holds. `atime` is "not `noatime`".
const TIMES: [&str; 4] = ["noatime", "relatime", "strictatime", "atime"];

/// Cuts declared options at commas outside of quotes. `defaults` stands for none.
pub(super) fn split(declared: &[String]) -> Vec<String> {
    let mut all = Vec::new();
    for text in declared {
        let (mut quoted, mut one) = (false, String::new());
        for c in text.chars() {
            quoted ^= c == '"';
            if c == ',' && !quoted {
                all.push(std::mem::take(&mut one));
            } else {
                one.push(c);
            }
        }
        all.push(one);
    }
    all.retain(|option| !option.is_empty() && option != "defaults");
    all
}

/// The rule for comparing an option, when the kernel tells of it in words that can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// A flag of the mount, by its place in [`FLAGS`].
    Flag(usize),
    /// One of [`TIMES`].
    Times,
    /// `hard` or `soft` of NFS.
    Hardness,
    /// `key=value` of the file system, by its key.
    Value(&'static str),
}

fn rule(kind: &str, option: &str) -> Option<Rule> {
    if let Some(at) = FLAGS.iter().position(|(on, off)| [*on, *off].contains(&option)) {
        return Some(Rule::Flag(at));
    }
    if TIMES.contains(&option) {
        return Some(Rule::Times);
    }
    let key = option.split_once('=').map(|(key, _)| key);
    match kind {
        "nfs" | "nfs4" if ["hard", "soft"].contains(&option) => Some(Rule::Hardness),
        "nfs" | "nfs4" => ["timeo", "retrans"].into_iter().find(|known| key == Some(known)).map(Rule::Value),
        // A share of the memory is told as the bytes that it came to.
        "tmpfs" if !option.ends_with('%') => {
            ["size", "nr_inodes"].into_iter().find(|known| key == Some(known)).map(Rule::Value)
        }
        _ => None,
    }
}

/// The declared options that are compared, `rw` or `ro` first; the last of a kind holds, as for mount(8).
pub(super) fn compared(kind: &str, declared: &[String]) -> Vec<String> {
    let mut rules: Vec<(Rule, String)> = Vec::new();
    // These have no other way.
    if !["iso9660", "squashfs"].contains(&kind) {
        rules.push((Rule::Flag(0), "rw".to_owned()));
    }
    for option in declared {
        let Some(rule) = rule(kind, option) else { continue };
        match rules.iter_mut().find(|(known, _)| *known == rule) {
            Some((_, old)) => old.clone_from(option),
            None => rules.push((rule, option.clone())),
        }
    }
    rules.into_iter().map(|(_, option)| option).collect()
}

/// The same options as the mount has them: in the declared spelling where they agree.
pub(super) fn observed(kind: &str, compared: &[String], mount: &Mount) -> Vec<String> {
    compared.iter().map(|option| one(kind, option, mount)).collect()
}

fn one(kind: &str, declared: &str, mount: &Mount) -> String {
    let has = |flag: &str| mount.flags.iter().any(|found| found == flag);
    match rule(kind, declared) {
        Some(Rule::Flag(at)) => {
            let (on, off) = FLAGS.get(at).copied().unwrap_or_default();
            // A file system that is read-only makes every mount of it so; that is not a bind mount's own affair.
            let by_all = on == "ro" && mount.options.iter().any(|found| found == "ro");
            let set = has(on) || (by_all && (kind != "bind" || declared == "ro"));
            if set { on } else { off }.to_owned()
        }
        Some(Rule::Times) => {
            let found = ["noatime", "relatime"].into_iter().find(|time| has(time)).unwrap_or("strictatime");
            if declared == "atime" && found != "noatime" { declared } else { found }.to_owned()
        }
        Some(Rule::Hardness) => ["hard", "soft"]
            .into_iter()
            .find(|word| mount.options.iter().any(|found| found == word))
            .unwrap_or("?")
            .to_owned(),
        Some(Rule::Value(key)) => {
            let value = |option: &str| option.strip_prefix(key)?.strip_prefix('=').map(str::to_owned);
            let found = mount.options.iter().find_map(|option| value(option));
            let wanted = value(declared);
            let number = |text: &Option<String>| text.as_deref().and_then(|text| amount(key, text));
            if found == wanted || (number(&found).is_some() && number(&found) == number(&wanted)) {
                return declared.to_owned();
            }
            format!("{key}={}", found.as_deref().unwrap_or("default"))
        }
        None => declared.to_owned(),
    }
}

/// `64m` as a number; sizes in whole pages of 4 KiB, as the kernel keeps them.
fn amount(key: &str, text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let shift = match text.get(digits.len()..)?.to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    let number = digits.parse::<u64>().ok()?.checked_mul(1 << shift)?;
    Some(if key == "size" { number.div_ceil(4096) } else { number })
}

/// All flags for a remount that changes only what is declared: those of the mount as it is, with the declared ones put in.
/// The old mount(2) sets every flag that a remount does not name back.
pub(super) fn flags_for_remount(declared: &[String], mount: &Mount) -> Vec<String> {
    let mut flags: Vec<String> = mount.flags.iter().filter(|flag| rule("", flag).is_some()).cloned().collect();
    for option in declared {
        let Some(new) = rule("", option) else { continue };
        flags.retain(|flag| rule("", flag) != Some(new));
        flags.push(option.clone());
    }
    flags
}

/// Whether an option is a flag of the mount, which any mount can change while it is in use.
pub(super) fn is_flag(option: &str) -> bool {
    rule("", option).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::mounts::MountTable;

    fn words(text: &str) -> Vec<String> {
        split(&[text.to_owned()])
    }

    fn look(kind: &str, declared: &str, line: &str) -> (String, String) {
        let table = MountTable::parse(line);
        let compared = compared(kind, &words(declared));
        (compared.join(","), observed(kind, &compared, &table.all()[0]).join(","))
    }

    #[test]
    fn options_are_cut_outside_of_quotes() {
        assert_eq!(words("ro,,context=\"a,b\",defaults,x=1"), ["ro", "context=\"a,b\"", "x=1"]);
        assert_eq!(split(&["ro".to_owned(), "hard,timeo=5".to_owned()]), ["ro", "hard", "timeo=5"]);
    }

    #[test]
    fn what_the_kernel_tells_is_compared_and_nothing_else() {
        let nfs = "5 1 0:5 / /x rw,nosuid,noatime - nfs4 s:/x rw,vers=4.2,hard,timeo=600,retrans=2";
        assert_eq!(look("nfs", "", nfs), ("rw".into(), "rw".into()));
        assert_eq!(
            look("nfs", "ro,soft,_netdev,vers=3,noatime,dev", nfs),
            ("ro,soft,noatime,dev".into(), "rw,hard,noatime,dev".into())
        );
        assert_eq!(
            look("nfs", "timeo=50,relatime,rw", nfs),
            ("rw,timeo=50,relatime".into(), "rw,timeo=600,noatime".into())
        );
        let tmpfs = "5 1 0:5 / /x rw,relatime - tmpfs t rw,size=65536k,nr_inodes=20";
        assert_eq!(
            look("tmpfs", "size=64m,nr_inodes=20,mode=0700", tmpfs),
            ("rw,size=64m,nr_inodes=20".into(), "rw,size=64m,nr_inodes=20".into())
        );
        assert_eq!(look("tmpfs", "size=1g", tmpfs), ("rw,size=1g".into(), "rw,size=65536k".into()));
        assert_eq!(look("tmpfs", "size=10%", tmpfs), ("rw".into(), "rw".into()));
        let plain = "5 1 0:5 / /x rw,relatime - tmpfs t rw";
        assert_eq!(look("tmpfs", "size=1g,atime", plain), ("rw,size=1g,atime".into(), "rw,size=default,atime".into()));
        assert_eq!(look("ext4", "strictatime", plain), ("rw,strictatime".into(), "rw,relatime".into()));
    }

    #[test]
    fn read_only_of_the_file_system_counts_except_for_binds() {
        let line = "5 1 8:1 / /x rw,relatime - ext4 /dev/sda1 ro";
        assert_eq!(look("ext4", "", line), ("rw".into(), "ro".into()));
        assert_eq!(look("bind", "", line), ("rw".into(), "rw".into()));
        assert_eq!(look("bind", "ro", line), ("ro".into(), "ro".into()));
        assert_eq!(look("squashfs", "", line), (String::new(), String::new()));
    }

    #[test]
    fn a_remount_keeps_what_is_not_declared() {
        let table = MountTable::parse("5 1 0:5 / /x rw,nosuid,nodev,relatime - tmpfs t rw");
        let flags = |declared: &str| flags_for_remount(&words(declared), &table.all()[0]).join(",");
        assert_eq!(flags("ro,size=1g"), "nosuid,nodev,relatime,ro");
        assert_eq!(flags("dev,noatime"), "rw,nosuid,dev,noatime");
    }
}
