//! Long inputs out of short ones: what takes more than linear time shows only in them, and single mutations hardly make one.
//!
//! A part is repeated until the input is as long as it may be: an element of a CBOR list, with the list's length put right; a line;
//! an element of a JSON list or a text in it; or any piece of bytes.

use serde_json::Value;

/// One of so many mutations is a growth.
const RARELY: u32 = 512;
/// The deepest nesting of CBOR that is looked into, strings of bytes that hold CBOR again included.
const DEPTH_MAX: usize = 24;

/// Grows an input now and then, to at most `most` bytes.
pub fn sometimes(bytes: &[u8], most: usize, seed: u32) -> Option<Vec<u8>> {
    let chosen = seed.is_multiple_of(RARELY).then_some((seed / RARELY) as usize)?;
    let grown = grown(bytes, most, chosen)?;
    (grown.len() <= most && grown.len() > bytes.len()).then_some(grown)
}

/// Grows an input in one of many ways; none where there is nothing to grow.
pub fn grown(bytes: &[u8], most: usize, chosen: usize) -> Option<Vec<u8>> {
    let room = most.checked_sub(bytes.len()).filter(|room| *room > 0)?;
    if let Some(items) = cbor(bytes) {
        return list(bytes, &items, (room, most), chosen);
    }
    if let Ok(value) = serde_json::from_slice(bytes) {
        return json(value, room, chosen);
    }
    match chosen % 4 {
        0 => repeated(bytes, piece(bytes, b'\n', chosen / 4)?, room),
        1 => {
            let (from, to) = piece(bytes, b'\n', chosen / 4)?;
            let line = serde_json::from_slice(&bytes[from..to]).ok()?;
            Some([&bytes[..from], &json(line, room, chosen / 64)?, b"\n", &bytes[to..]].concat())
        }
        2 => repeated(bytes, piece(bytes, b',', chosen / 4)?, room),
        _ => {
            let from = (chosen / 4) % bytes.len().max(1);
            repeated(bytes, (from, bytes.len().min(from + 1 + chosen / 64 % 64)), room)
        }
    }
}

/// Repeats the first element of a list, or the content of a text.
fn json(mut value: Value, room: usize, chosen: usize) -> Option<Vec<u8>> {
    let mut places = Vec::new();
    find(&value, String::new(), &mut places);
    let place = places.get(chosen % places.len().max(1))?;
    let chosen = chosen / places.len();
    let times = |room: usize| if chosen.is_multiple_of(3) { room.min(chosen / 3 % 5000) } else { room };
    match value.pointer_mut(place)? {
        Value::Array(list) => {
            let first = list.first()?.clone();
            let text = first.to_string();
            let times = times(room / (text.len() + 1));
            let counted = copies(text.as_bytes(), times, true);
            let counted = counted.chunks(text.len()).map(|copy| serde_json::from_slice(copy).unwrap_or(first.clone()));
            list.extend(counted);
        }
        // Four letters, so that base64 stays base64.
        Value::String(text) => {
            let part: String = text.chars().take(4).collect();
            *text = part.repeat(times(room / part.len().max(1))) + text;
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => return None,
    }
    serde_json::to_vec(&value).ok()
}

/// Finds the lists and texts of a document.
fn find(value: &Value, place: String, places: &mut Vec<String>) {
    let below = |name: &str| format!("{place}/{}", name.replace('~', "~0").replace('/', "~1"));
    match value {
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(at, value)| find(value, below(&at.to_string()), places));
            places.push(place);
        }
        Value::Object(map) => map.iter().for_each(|(name, value)| find(value, below(name), places)),
        Value::String(_) => places.push(place),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Chooses a piece that ends with a separator.
fn piece(bytes: &[u8], separator: u8, chosen: usize) -> Option<(usize, usize)> {
    let ends: Vec<usize> =
        bytes.iter().enumerate().filter(|(_, byte)| **byte == separator).map(|(at, _)| at + 1).collect();
    let at = chosen % ends.len().max(1);
    let end = *ends.get(at)?;
    Some((at.checked_sub(1).map_or(0, |before| ends[before]), end))
}

fn repeated(bytes: &[u8], (from, to): (usize, usize), room: usize) -> Option<Vec<u8>> {
    let part = bytes.get(from..to).filter(|part| !part.is_empty())?;
    Some([&bytes[..to], &copies(part, room / part.len(), true), &bytes[to..]].concat())
}

/// Copies a part so often. Where they are counted, each differs from the others in its last letters and digits: names that must differ
/// do, and those that must be sorted are for a while.
fn copies(part: &[u8], times: usize, counted: bool) -> Vec<u8> {
    let mut all = Vec::with_capacity(part.len() * times);
    for copy in 1..=times {
        let begin = all.len();
        all.extend_from_slice(part);
        let mut left = if counted { copy } else { 0 };
        for byte in all[begin..].iter_mut().rev().filter(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
            let (first, count) = if byte.is_ascii_digit() { (b'0', 10) } else { (b'a', 26) };
            let sum = usize::from(*byte - first) + left;
            *byte = first + u8::try_from(sum % count).unwrap_or(0);
            left = sum / count;
            if left == 0 {
                break;
            }
        }
    }
    all
}

/// An item of CBOR: where it begins, where its content begins, and where it ends.
#[derive(Debug, Clone, Copy)]
struct Item {
    major: u8,
    begin: usize,
    content: usize,
    end: usize,
    /// The item that it is in, by its place.
    parent: Option<usize>,
}

/// Gives every item of canonical CBOR, also of that in strings of bytes; none where the bytes are something else.
fn cbor(bytes: &[u8]) -> Option<Vec<Item>> {
    protocol::codec::check_canonical(bytes).ok()?;
    let mut items = Vec::new();
    read(bytes, 0, None, &mut items, 0)?;
    Some(items)
}

fn read(bytes: &[u8], begin: usize, parent: Option<usize>, items: &mut Vec<Item>, depth: usize) -> Option<usize> {
    let first = *bytes.get(begin)?;
    let (major, info) = (first >> 5, first & 0x1f);
    let width = match info {
        0..24 => 0,
        24..28 => 1 << (info - 24),
        _ => return None,
    };
    let content = begin + 1 + width;
    let long = bytes.get(begin + 1..content)?.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    let count = usize::try_from(if width == 0 { u64::from(info) } else { long }).ok()?;
    let at = items.len();
    items.push(Item { major, begin, content, end: content, parent });
    let mut end = content;
    match major {
        2 | 3 => {
            end = content.checked_add(count).filter(|end| *end <= bytes.len())?;
            let inner = &bytes[content..end];
            if major == 2 && depth < DEPTH_MAX && protocol::codec::check_canonical(inner).is_ok() {
                read(bytes, content, Some(at), items, depth + 1)?;
            }
        }
        4 | 5 if depth < DEPTH_MAX => {
            for _ in 0..count.checked_mul(usize::from(major - 3))? {
                end = read(bytes, end, Some(at), items, depth + 1)?;
            }
        }
        4 | 5 => return None,
        _ => {}
    }
    items[at].end = end;
    Some(end)
}

/// Repeats the first element of a list, or the content of a string, and puts right every length around it.
fn list(bytes: &[u8], items: &[Item], (room, most): (usize, usize), chosen: usize) -> Option<Vec<u8>> {
    let grows = |item: &&Item| matches!(item.major, 2..=4) && item.content < item.end;
    let all: Vec<&Item> = items.iter().filter(grows).collect();
    let item = **all.get(chosen % all.len().max(1))?;
    let (first, count) = match item.major {
        4 => {
            let own = |other: &&Item| other.begin >= item.content && other.end <= item.end;
            let first = items.iter().filter(own).find(|other| other.begin == item.content)?;
            let place = items.iter().position(|other| other.begin == item.begin && other.content == item.content)?;
            (first.end - first.begin, items.iter().filter(|other| other.parent == Some(place)).count())
        }
        _ => (1, item.end - item.content),
    };
    // Lengths around it may take some bytes more.
    let times = room.saturating_sub(9 * DEPTH_MAX) / first;
    // Fewer too, so that limits of numbers are met from both sides.
    let times = if chosen.is_multiple_of(3) { times.min(chosen / all.len() % 5000) } else { times };
    let part = &bytes[item.content..item.content + first];
    let counted = copies(part, times, item.major == 4 && chosen.is_multiple_of(2));
    // Letters that are counted may have been no letters.
    let whole = protocol::codec::check_canonical(&[head(4, times), counted.clone()].concat()).is_ok();
    let copied = if item.major == 4 && !whole { part.repeat(times) } else { counted };
    let content = if chosen.is_multiple_of(5) {
        [copied.as_slice(), &bytes[item.content..item.end]].concat()
    } else {
        [&bytes[item.content..item.content + first], &copied, &bytes[item.content + first..item.end]].concat()
    };
    let mut grown = [head(item.major, count + times), content].concat();
    let (mut inner, mut parent) = (item, item.parent);
    while let Some(outer) = parent.map(|at| items[at]) {
        let around = [&bytes[outer.content..inner.begin], &grown, &bytes[inner.end..outer.end]].concat();
        let head = if outer.major == 2 { head(2, around.len()) } else { bytes[outer.begin..outer.content].to_vec() };
        grown = [head, around].concat();
        (inner, parent) = (outer, outer.parent);
    }
    Some(grown).filter(|grown| grown.len() <= most && protocol::codec::check_canonical(grown).is_ok())
}

fn head(major: u8, count: usize) -> Vec<u8> {
    let first = |info: u8| major << 5 | info;
    match count as u64 {
        few @ 0..24 => vec![first(few as u8)],
        few @ 24..0x100 => vec![first(24), few as u8],
        more @ 0x100..0x1_0000 => [&[first(25)], &(more as u16).to_be_bytes()[..]].concat(),
        more @ 0x1_0000..0x1_0000_0000 => [&[first(26)], &(more as u32).to_be_bytes()[..]].concat(),
        many => [&[first(27)], &many.to_be_bytes()[..]].concat(),
    }
}

#[cfg(test)]
mod tests {
    use protocol::{codec, message::Octets, testing::samples};

    use super::*;

    #[test]
    fn what_is_grown_is_long_and_canonical_again() {
        let lock = samples::lock().to_bytes();
        let wrapped = codec::encode(&(Octets(lock.clone()), "x"));
        for bytes in [lock, wrapped] {
            let mut longest = 0;
            for chosen in 0..200 {
                let Some(grown) = grown(&bytes, 1 << 16, chosen) else { continue };
                assert!(grown.len() <= 1 << 16);
                codec::check_canonical(&grown).unwrap();
                longest = longest.max(grown.len());
            }
            assert!(longest > 1 << 15, "{longest}");
        }
    }

    #[test]
    fn a_list_of_json_is_repeated() {
        let lists: Vec<_> =
            (0..40).filter_map(|chosen| grown(br#"{"a":"abcd","b":[{"c":1,"d":"x"}]}"#, 4000, chosen)).collect();
        let long = |bytes: &Vec<u8>| serde_json::from_slice::<Value>(bytes).unwrap()["b"].as_array().unwrap().len();
        assert!(lists.iter().map(long).max() > Some(100));
        assert!(lists.iter().all(|bytes| bytes.len() <= 4100));
    }

    #[test]
    fn a_line_is_repeated() {
        let grown = grown(b"a\nb0\nd\n", 100, 4).unwrap();
        assert!(grown.starts_with(b"a\nb0\nb1\nb2\n") && grown.ends_with(b"d\n") && grown.len() > 90);
        assert_eq!(sometimes(b"a\n", 100, 1), None);
    }
}
