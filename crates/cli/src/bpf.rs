//! The user's own eBPF programs in a yard that steers in the kernel, as the control socket shows them.
//!
//! ```text
//! GET    /bpf                    what stands in the slots, and what the kernel counted
//! PUT    /bpf/before?name=NAME   load the object file in the body and put it into the slot; /bpf/after alike
//! DELETE /bpf/before             take it out; /bpf/after alike
//! GET    /bpf/maps               the maps of these programs
//! GET    /bpf/maps/NAME          a map's entries; ?key=K for one
//! PUT    /bpf/maps/NAME?key=K    set an entry: the value in the body
//! DELETE /bpf/maps/NAME?key=K    remove an entry
//! ```
//!
//! NAME is a map's name in the program, or SLOT:NAME where programs in both slots have one of that name. Keys and values
//! are numbers, in the host's order, or hex:BYTES.
//!
//! Loading keeps maps of the same name and shape as those of the program before it, unless asked not to (?fresh=1).
//!
//! A program that the verifier refuses leaves everything as it is. A yard on several interfaces has each program on all of
//! them, with one set of maps, and shows the sums of their counters.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use flowyard::kernel::{KernelError, KernelSteer, Mark, UserMap, UserSlot};
use serde_json::{Map, Value, json};
use tiny_http::Method;

use crate::control::Answer;

/// The steering program of a yard, if it has one.
pub type Kernel = Option<Arc<Mutex<KernelSteer>>>;

const SLOTS: [(UserSlot, &str); 2] = [(UserSlot::Before, "before"), (UserSlot::After, "after")];

/// Whether a program of the user's stands in a slot.
pub fn has_own(kernel: &Kernel) -> bool {
    kernel.as_ref().is_some_and(|kernel| {
        let kernel = kernel.lock().unwrap_or_else(PoisonError::into_inner);
        SLOTS.iter().any(|(slot, _)| kernel.installed(*slot).is_some())
    })
}

/// Answers a request.
pub fn respond(kernel: &Kernel, method: &Method, path: &[&str], query: &Query, body: &[u8]) -> Answer {
    let Some(kernel) = kernel else {
        return Err((409, "this yard steers in user space: start it with --steer kernel".into()));
    };
    let kernel = kernel.lock().unwrap_or_else(PoisonError::into_inner);
    let refused = |error: KernelError| (409, error.to_string());
    let answer = |value: Value| Ok((200, "application/json", format!("{value:#}\n").into_bytes()));
    let word = match (path, method) {
        ([], Method::Get) => return list(&kernel).map_err(refused).and_then(answer),
        (["maps"], Method::Get) => return answer(maps(&kernel)),
        (["maps", name], _) => {
            let map = find(&kernel, name)?;
            drop(kernel); // a map may have very many entries, and others want the program meanwhile
            return entries(&map, method, query.key.as_deref(), body).and_then(answer);
        }
        ([] | ["maps"], _) => return Err((405, format!("/bpf does not take {method}"))),
        ([word], _) => *word,
        _ => return Err((404, format!("there is no /bpf/{}", path.join("/")))),
    };
    let Some((slot, _)) = SLOTS.into_iter().find(|(_, known)| *known == word) else {
        return Err((404, format!("there is no slot {word:?}: before, after")));
    };
    match method {
        Method::Put => {
            let name = query.name.as_deref().unwrap_or("program");
            let prepared = match query.fresh {
                true => kernel.prepare(name, body),
                false => kernel.prepare_for(slot, name, body),
            };
            let prepared = prepared.map_err(refused)?;
            let kept = prepared.kept().to_vec();
            let maps: Vec<String> = prepared.maps().map(str::to_owned).collect();
            let old = kernel.install(slot, prepared).map_err(refused)?;
            let old = old.map(|old| old.name().to_owned());
            answer(json!({"slot": word, "program": name, "maps": maps, "maps_kept": kept, "instead_of": old}))
        }
        Method::Delete => {
            let old = kernel.take_out(slot).map_err(refused)?;
            answer(json!({"slot": word, "taken_out": old.map(|old| old.name().to_owned())}))
        }
        _ => Err((405, format!("/bpf/{word} does not take {method}"))),
    }
}

/// What is asked for behind the path.
#[derive(Debug, Default)]
pub struct Query {
    pub name: Option<String>,
    pub key: Option<String>,
    pub fresh: bool,
}

impl Query {
    /// Reads `name=…&key=…&fresh=1`; `decoded` undoes the escapes of a URL.
    pub fn read(text: &str, decoded: impl Fn(&str) -> String) -> std::result::Result<Query, (u16, String)> {
        let mut query = Query::default();
        for part in text.split('&').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some(("name", value)) => query.name = Some(decoded(value)),
                Some(("key", value)) => query.key = Some(decoded(value)),
                Some(("fresh", "1")) => query.fresh = true,
                _ => return Err((400, format!("the query {part:?} means nothing: name=NAME, key=KEY, fresh=1"))),
            }
        }
        Ok(query)
    }
}

fn maps(kernel: &KernelSteer) -> Value {
    let of = |(slot, word): (UserSlot, &'static str)| {
        kernel.user_maps(slot).into_iter().map(move |map| {
            json!({
                "map": map.name(), "slot": word, "kind": format!("{:?}", map.kind()), "key_bytes": map.key_bytes(),
                "value_bytes": map.value_bytes(), "most_entries": map.most_entries(), "copies": map.copies(),
            })
        })
    };
    SLOTS.into_iter().flat_map(of).collect()
}

/// The map of that name.
fn find(kernel: &KernelSteer, name: &str) -> std::result::Result<UserMap, (u16, String)> {
    let (wanted, name) = match name.split_once(':') {
        Some((slot, name)) if SLOTS.iter().any(|(_, word)| *word == slot) => (Some(slot), name),
        _ => (None, name),
    };
    let all: Vec<(&str, UserMap)> = SLOTS
        .into_iter()
        .flat_map(|(slot, word)| kernel.user_maps(slot).into_iter().map(move |map| (word, map)))
        .collect();
    let known: Vec<String> = all.iter().map(|(slot, map)| format!("{slot}:{}", map.name())).collect();
    let mut found =
        all.into_iter().filter(|(slot, map)| map.name() == name && wanted.is_none_or(|wanted| wanted == *slot));
    match (found.next(), found.next()) {
        (Some((_, map)), None) => Ok(map),
        (Some(_), Some(_)) => {
            Err((409, format!("both slots have a map {name:?}: write before:{name} or after:{name}")))
        }
        (None, _) => Err((404, format!("there is no map {name:?}: there are {known:?}"))),
    }
}

/// Reads or changes entries.
fn entries(
    map: &UserMap,
    method: &Method,
    key: Option<&str>,
    body: &[u8],
) -> std::result::Result<Value, (u16, String)> {
    let refused = |error: KernelError| (409, error.to_string());
    let bad = |error: String| (400, error);
    let Some(key) = key else {
        if *method != Method::Get {
            return Err((400, format!("write ?key=KEY: all of the map {:?} can only be read", map.name())));
        }
        let mut all = Vec::new();
        map.each(|key, values| {
            all.push(entry(key, values));
            true
        })
        .map_err(refused)?;
        return Ok(all.into());
    };
    let key = bytes_of(key, map.key_bytes(), "the key").map_err(bad)?;
    match method {
        Method::Get => match map.get(&key).map_err(refused)? {
            Some(values) => Ok(entry(&key, &values)),
            None => Err((404, format!("the map {:?} has no entry of that key", map.name()))),
        },
        Method::Put => {
            let text = std::str::from_utf8(body).map_err(|_| bad("the value is no text".into()))?;
            let value = bytes_of(text.trim(), map.value_bytes(), "the value").map_err(bad)?;
            map.set(&key, &value).map_err(refused)?;
            Ok(entry(&key, &[value]))
        }
        Method::Delete => Ok(json!({"removed": map.remove(&key).map_err(refused)?})),
        _ => Err((405, format!("maps do not take {method}"))),
    }
}

/// An entry: bytes, and a number where they can be one.
fn entry(key: &[u8], values: &[Vec<u8>]) -> Value {
    let number = |bytes: &[u8]| -> Value {
        match bytes.len() {
            1 | 2 | 4 | 8 => {
                let mut word = [0; 8];
                let at = if cfg!(target_endian = "big") { 8 - bytes.len() } else { 0 };
                word.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = *from);
                u64::from_ne_bytes(word).into()
            }
            _ => Value::Null,
        }
    };
    let mut entry = Map::new();
    entry.insert("key".into(), hex(key).into());
    entry.insert("key_number".into(), number(key));
    match values {
        [value] => {
            entry.insert("value".into(), hex(value).into());
            entry.insert("value_number".into(), number(value));
        }
        values => {
            entry.insert("values".into(), values.iter().map(|value| hex(value)).collect());
            let numbers: Vec<Value> = values.iter().map(|value| number(value)).collect();
            let sum = numbers.iter().map(Value::as_u64).try_fold(0u64, |sum, n| Some(sum.wrapping_add(n?)));
            entry.insert("value_numbers".into(), numbers.into());
            entry.insert("sum".into(), sum.into());
        }
    }
    entry.into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::from("hex:"), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A key or value of `len` bytes: a number in the host's order, decimal or 0x…, or hex:BYTES.
fn bytes_of(text: &str, len: usize, what: &str) -> std::result::Result<Vec<u8>, String> {
    let wrong =
        |why: &str| Err(format!("{what} is {text:?}, which {why}: it has {len} bytes; write a number or hex:BYTES"));
    if let Some(digits) = text.strip_prefix("hex:") {
        let digits: Vec<u32> = digits.chars().filter(|c| *c != ' ').filter_map(|c| c.to_digit(16)).collect();
        let plain = text.chars().skip(4).all(|c| c == ' ' || c.is_ascii_hexdigit());
        if !plain || digits.len() != len * 2 {
            return wrong("is not so many bytes");
        }
        return Ok(digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect());
    }
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse::<u64>().ok().or_else(|| text.parse::<i64>().ok().map(|n| n as u64)),
    };
    let Some(number) = number else { return wrong("is no number") };
    let negative = text.starts_with('-');
    let fits = match len {
        1 | 2 | 4 if negative => (number as i64) >= -(1i64 << (len * 8 - 1)),
        1 | 2 | 4 => number < 1 << (len * 8),
        8 => true,
        _ => return wrong("cannot be a number of that length"),
    };
    if !fits {
        return wrong("is too large");
    }
    let word = number.to_ne_bytes();
    Ok(if cfg!(target_endian = "big") { word[8 - len..].to_vec() } else { word[..len].to_vec() })
}

fn list(kernel: &KernelSteer) -> std::result::Result<Value, KernelError> {
    let slots: Vec<Value> =
        SLOTS.iter().map(|(slot, word)| json!({"slot": word, "program": kernel.installed(*slot)})).collect();
    let sum = kernel.company_counts()?;
    let marked: Map<_, _> =
        Mark::ALL.iter().map(|mark| (mark.name().to_owned(), json!(sum.marked_by(*mark)))).collect();
    let actions = ["aborted", "dropped", "passed", "sent-back", "redirected"];
    let verdicts: Map<_, _> =
        actions.iter().zip(sum.verdicts).map(|(name, n)| ((*name).to_owned(), json!(n))).collect();
    Ok(json!({
        "slots": slots, "seen": sum.seen, "redirected": sum.redirected, "passed": sum.passed, "too_long": sum.too_long,
        "without_metadata": sum.no_room, "to_host": sum.to_host, "unserved": sum.unserved,
        "ended_in_users_program": sum.by_user(), "verdicts": verdicts, "marked": marked,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_are_numbers_or_bytes() {
        assert_eq!(bytes_of("hex:00 ff1a", 3, "the key"), Ok(vec![0, 0xff, 0x1a]));
        assert_eq!(bytes_of("0x102", 4, "the key"), Ok(0x102u32.to_ne_bytes().to_vec()));
        assert_eq!(bytes_of("-1", 2, "the key"), Ok(vec![0xff, 0xff]));
        assert_eq!(bytes_of("18446744073709551615", 8, "the key"), Ok(vec![0xff; 8]));
        for (text, len) in [("256", 1), ("-129", 1), ("hex:0", 1), ("hex:0g", 1), ("x", 4), ("1", 3), ("", 4), ("1", 0)]
        {
            assert!(bytes_of(text, len, "the key").is_err_and(|e| e.contains("hex:BYTES")), "{text}");
        }
        let one = entry(&7u32.to_ne_bytes(), &[vec![1, 2, 3]]);
        assert_eq!(
            (&one["key_number"], &one["value"], &one["value_number"]),
            (&7.into(), &"hex:010203".into(), &Value::Null)
        );
        let several = entry(&[1], &[2u64.to_ne_bytes().to_vec(), 3u64.to_ne_bytes().to_vec()]);
        assert_eq!((&several["sum"], &several["value_numbers"]), (&5.into(), &json!([2, 3])));
    }

    #[test]
    fn what_means_nothing_is_refused() {
        let query = |text| Query::read(text, str::to_owned);
        assert!(query("name=a&key=b&fresh=1").is_ok_and(|q| q.fresh && q.key.as_deref() == Some("b")));
        assert!(query("frog=1").is_err() && query("fresh").is_err() && query("").is_ok());
    }
}
