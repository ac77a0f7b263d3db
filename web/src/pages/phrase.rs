//! Figures, spans of time and hostile text, as people read them.

use std::time::Duration;

use crate::api::Time;

/// Says a size: `512 B`, `12.3 KiB`.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match UNITS.iter().find(|(bits, _)| count >> bits > 0) {
        None => format!("{count} B"),
        Some((bits, unit)) => {
            let tenths = (u128::from(count) * 10) >> bits;
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
    }
}

/// Says a span of time in its two largest units: `42 s`, `3 min 5 s`, `2 h 10 min`, `4 d 3 h`.
pub(super) fn duration(span: Duration) -> String {
    let seconds = span.as_secs();
    let pair = |large: u64, small: u64, names: [&str; 2]| match (seconds % large) / small {
        0 => format!("{} {}", seconds / large, names[0]),
        rest => format!("{} {} {rest} {}", seconds / large, names[0], names[1]),
    };
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => pair(60, 1, ["min", "s"]),
        3600..86_400 => pair(3600, 60, ["h", "min"]),
        _ => pair(86_400, 3600, ["d", "h"]),
    }
}

/// Says how long something took, or has taken until now.
pub(super) fn between(from: Time, to: Time) -> String {
    duration(to.timestamp().since(from.timestamp()))
}

/// Counts things: `1 peer`, `2 peers`.
pub(super) fn count(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

/// Takes escape sequences and control characters out of a log. A line that was redrawn by carriage returns keeps its
/// last state.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let line = strip(line);
        let body = line.trim_end_matches(['\r', '\n']);
        out.push_str(body.rsplit('\r').next().unwrap_or(body));
        if line.ends_with('\n') {
            out.push('\n');
        }
    }
    out
}

fn strip(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => match rest.next() {
                Some('[') => while rest.next_if(|c| !('@'..='~').contains(c)).is_some() {},
                Some(']' | 'P' | '_' | '^' | 'X') => {
                    while rest.next_if(|c| !matches!(c, '\u{7}' | '\u{1b}' | '\n')).is_some() {}
                    if rest.next_if_eq(&'\u{1b}').is_none() {
                        continue;
                    }
                }
                Some(_) | None => continue,
            },
            '\t' | '\n' | '\r' => {
                out.push(c);
                continue;
            }
            // Marks that change the direction of text could make a log read as something else.
            c if c.is_control()
                || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                continue;
            }
            c => {
                out.push(c);
                continue;
            }
        }
        // The final byte of a control sequence, or the backslash that ends a string.
        rest.next_if(|c| *c != '\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        let sizes =
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_572_864, "1.5 MiB"), (u64::MAX, "16777215.9 TiB")];
        for (count, text) in sizes {
            assert_eq!(bytes(count), text);
        }
        for (seconds, text) in
            [(0, "0 s"), (185, "3 min 5 s"), (120, "2 min"), (7800, "2 h 10 min"), (356_400, "4 d 3 h")]
        {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
        assert_eq!((count(1, "peer"), count(0, "peer")), ("1 peer".into(), "0 peers".into()));
    }

    #[test]
    fn escape_sequences_never_reach_a_page() {
        let cases = [
            ("\u{1b}[31mred\u{1b}[0m plain", "red plain"),
            ("\u{1b}]0;title\u{7}text", "text"),
            ("\u{1b}]8;;http://evil.example\u{1b}\\link\u{1b}]8;;\u{1b}\\ end", "link end"),
            ("10%\r50%\r100%\nnext\r\n", "100%\nnext\n"),
            ("a\u{0}b\u{8}c\u{202e}d\u{9b}31m", "abcd31m"),
            ("open\u{1b}", "open"),
            ("\u{1b}[", ""),
            ("\u{1b}]0;no end\nnext", "\nnext"),
        ];
        for (text, clean) in cases {
            assert_eq!(plain(text), clean, "{text:?}");
        }
    }
}
