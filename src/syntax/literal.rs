//! Typed literals: from their spelling to a checked value. Arithmetic is checked; nothing wraps and nothing is rounded.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::grammar::Rule;
use crate::value::{Value, show_duration, show_size};
use crate::visible::shortened;

/// The units of sizes.
const SIZES: [&str; 9] = ["B", "KB", "MB", "GB", "TB", "KiB", "MiB", "GiB", "TiB"];

/// What is wrong with a literal, and the way out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) help: Option<String>,
}

fn wrong<T>(message: impl Into<String>, help: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { message: message.into(), help: Some(help.into()) })
}

/// The value that `text` spells; `rule` is the kind of literal that the grammar saw.
pub(super) fn read(rule: Rule, text: &str) -> Result<Value, Wrong> {
    match rule {
        Rule::constant => Ok(match text {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ => Value::Null,
        }),
        Rule::int => int(text),
        Rule::mode => mode(text),
        Rule::duration => duration(text),
        Rule::size => size(text),
        Rule::percent => percent(text),
        Rule::ipv4 | Rule::ipv6 => address_or_net(text),
        Rule::ip_range => range(text),
        _ => Err(unknown(text)),
    }
}

fn int(text: &str) -> Result<Value, Wrong> {
    text.parse().map(Value::Int).or_else(|_| {
        wrong(
            format!("the number `{}` is too large", short(text)),
            format!("whole numbers go up to {}; write a longer one as text, in quotes", i64::MAX),
        )
    })
}

fn mode(text: &str) -> Result<Value, Wrong> {
    let digits = text.trim_start_matches('0');
    if let Some(digit) = digits.chars().find(|digit| !('0'..='7').contains(digit)) {
        return wrong(
            format!("`{}` is not a mode: `{digit}` is not an octal digit", short(text)),
            "a number that begins with 0 is a file mode such as `0755`; leave the 0 out for a plain number",
        );
    }
    match u32::from_str_radix(if digits.is_empty() { "0" } else { digits }, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(Value::Mode(mode)),
        _ => wrong(
            format!("the mode `{}` is too large", short(text)),
            "a file mode goes up to 07777: set-id and sticky bits, then owner, group, others",
        ),
    }
}

fn duration(text: &str) -> Result<Value, Wrong> {
    let too_long = || {
        wrong(
            format!("the duration `{}` is too long", short(text)),
            "a duration must fit 64 bits of milliseconds; 36500d is a hundred years",
        )
    };
    let (mut total, mut last, mut rest) = (0u64, u64::MAX, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let millis: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => 86_400_000,
        };
        if millis >= last {
            return wrong(
                format!("the units of the duration `{}` are out of order", short(text)),
                "the larger unit comes first, and each only once: `1h30m`, `1m30s`, `1s500ms`",
            );
        }
        let Some(sum) =
            number.parse::<u64>().ok().and_then(|n| n.checked_mul(millis)).and_then(|n| n.checked_add(total))
        else {
            return too_long();
        };
        (total, last, rest) = (sum, millis, after);
    }
    Ok(Value::Duration(Duration::from_millis(total)))
}

fn size(text: &str) -> Result<Value, Wrong> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let (power, base): (u32, u64) = match unit {
        "B" => (0, 1),
        "KB" => (1, 1000),
        "MB" => (2, 1000),
        "GB" => (3, 1000),
        "TB" => (4, 1000),
        "KiB" => (1, 1024),
        "MiB" => (2, 1024),
        "GiB" => (3, 1024),
        _ => (4, 1024),
    };
    let bytes = number.parse::<u64>().ok().and_then(|n| n.checked_mul(base.checked_pow(power)?));
    bytes.map(Value::Size).map_or_else(
        || wrong(format!("the size `{}` is too large", short(text)), "a size must fit 64 bits: below 16777216TiB"),
        Ok,
    )
}

fn percent(text: &str) -> Result<Value, Wrong> {
    text.trim_end_matches('%').parse().map(Value::Percent).or_else(|_| {
        wrong(format!("the share `{}` is too large", short(text)), format!("a share goes up to {}%", u32::MAX))
    })
}

fn address_or_net(text: &str) -> Result<Value, Wrong> {
    let Some((address, length)) = text.split_once('/') else { return address(text).map(Value::Ip) };
    let address = self::address(address)?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    // Host bits are kept: `10.88.8.1/24` is an address with its network, which is what an interface has.
    match length.parse::<u8>().ok().filter(|length| length.to_string() == *text_after(text)) {
        Some(length) if length <= most => {
            IpNet::new(address, length).map(Value::Net).or_else(|_| wrong(format!("`{text}` is not a network"), ""))
        }
        _ => wrong(
            format!("`/{}` is not a prefix length in `{}`", short(length), short(text)),
            format!("after an {} address it is a number from 0 to {most}", family(&address)),
        ),
    }
}

fn text_after(text: &str) -> &str {
    text.split_once('/').map_or("", |(_, length)| length)
}

fn family(address: &IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// One address. Parts with leading zeros are refused: some programs read them as octal.
fn address(text: &str) -> Result<IpAddr, Wrong> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if !text.contains(':') {
        let part = text.split('.').find(|part| part.parse::<u8>().map_or(true, |byte| byte.to_string() != **part));
        let part = short(part.unwrap_or_default());
        return wrong(
            format!("`{}` is not an IPv4 address: `{part}` is out of range", short(text)),
            "each of the four parts is a number from 0 to 255, without leading zeros",
        );
    }
    let groups: Vec<&str> = text.split(':').collect();
    if groups.len() == 6 && groups.iter().all(|group| group.len() == 2) {
        return wrong(
            format!("`{text}` looks like a MAC address"),
            format!("a MAC address is text: write it in quotes, `\"{text}\"`"),
        );
    }
    wrong(
        format!("`{}` is not an IPv6 address", short(text)),
        "it has eight groups of up to four hex digits, or fewer with one `::` for the zeros left out: `fd00::1`",
    )
}

fn range(text: &str) -> Result<Value, Wrong> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (address(first.trim())?, address(last.trim())?);
    if first.is_ipv4() != last.is_ipv4() {
        return wrong(
            format!("a range cannot go from an {} to an {} address", family(&first), family(&last)),
            "both ends must be of one family",
        );
    }
    if first > last {
        return wrong(
            format!("the range begins behind its end: {first} comes after {last}"),
            format!("write the smaller address first: `{last} - {first}`"),
        );
    }
    Ok(Value::Range(first, last))
}

/// A word that begins with a digit and is no literal: what may have been meant.
fn unknown(text: &str) -> Wrong {
    let shown = short(text);
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    let number = short(number);
    let lower = rest.to_ascii_lowercase();
    let unit = |right: &str| format!("write `{number}{right}`");
    let (message, help) = if text.starts_with("0o") {
        let octal = text.trim_start_matches("0o");
        (format!("`{shown}` is not a number"), format!("a mode is written with a leading zero: `0{}`", short(octal)))
    } else if text.starts_with("0x") || text.starts_with("0b") {
        (
            format!("`{shown}` is not a number"),
            "numbers are decimal, modes octal with a leading zero (`0755`)".to_owned(),
        )
    } else if rest.starts_with('_') {
        (format!("`{shown}` is not a number"), format!("write it without `_`: `{}`", short(&text.replace('_', ""))))
    } else if rest.starts_with('.') && rest.chars().all(|c| c.is_ascii_digit() || c == '.') {
        (
            format!("`{shown}` is neither a whole number nor an address"),
            format!("there are no fractions; a version is text: `\"{shown}\"`. `1500ms` is one and a half seconds"),
        )
    } else if let Some(whole) = without_fraction(text) {
        (format!("`{shown}`: there are no fractions"), format!("write `{whole}`"))
    } else if rest.starts_with('.') {
        (format!("`{shown}` is not a number"), format!("text is written in quotes: `\"{shown}\"`"))
    } else if rest.starts_with(':') {
        (format!("`{shown}` is not a number"), format!("times of day and ports are text: write `\"{shown}\"`"))
    } else {
        let help = match lower.as_str() {
            "sec" | "secs" | "second" | "seconds" => unit("s"),
            "min" | "mins" | "minute" | "minutes" => unit("m"),
            "hour" | "hours" | "hr" | "hrs" => unit("h"),
            "day" | "days" => unit("d"),
            "w" | "week" | "weeks" => "weeks are written in days: `7d`".to_owned(),
            "msec" | "millis" | "milliseconds" => unit("ms"),
            "k" | "ki" | "kb" | "kib" => format!("write `{number}KiB` (1024 bytes) or `{number}KB` (1000 bytes)"),
            "mi" | "mb" | "mib" => format!("write `{number}MiB` (1024 KiB) or `{number}MB` (1000 KB)"),
            "g" | "gi" | "gb" | "gib" => format!("write `{number}GiB` (1024 MiB) or `{number}GB` (1000 MB)"),
            "t" | "ti" | "tb" | "tib" => format!("write `{number}TiB` or `{number}TB`"),
            _ => format!(
                "durations end in ms, s, m, h or d; sizes in B, KB, KiB, MB, MiB, GB, GiB, TB or TiB; text is in quotes: `\"{shown}\"`"
            ),
        };
        (format!("`{shown}` is not a number with a unit that fanli knows"), help)
    };
    Wrong { message, help: Some(help) }
}

/// How a duration or a size with a fraction is written in whole numbers: `1.5h` as `1h30m`; `None` for anything else.
fn without_fraction(text: &str) -> Option<String> {
    let (whole, rest) = text.split_once('.')?;
    let (fraction, unit) = rest.split_at_checked(rest.find(|c: char| !c.is_ascii_digit())?)?;
    let is_time = ["ms", "s", "m", "h", "d"].contains(&unit);
    let one = format!("1{unit}");
    let units = match if is_time { duration(&one) } else { size(&one) } {
        Ok(Value::Duration(time)) => u64::try_from(time.as_millis()).ok()?,
        Ok(Value::Size(bytes)) if SIZES.contains(&unit) => bytes,
        _ => return None,
    };
    let parts = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part = fraction.parse::<u64>().ok()?.checked_mul(units)?;
    let total = whole.parse::<u64>().ok()?.checked_mul(units)?.checked_add(part / parts)?;
    let exact = part.is_multiple_of(parts) && total > 0;
    exact.then(|| if is_time { show_duration(Duration::from_millis(total)) } else { show_size(total) })
}

/// A text fit for a message: its first 60 characters.
pub(super) fn short(text: &str) -> String {
    shortened(text, 60)
}
