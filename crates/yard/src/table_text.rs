//! Keys and values of tables as text: what people type and tools print.
//!
//! | form | example | bytes |
//! |---|---|---|
//! | number | `7`, `0x1f` | little-endian, filled up with zeros |
//! | address | `10.0.0.1`, `2001:db8::1` | 4 or 16, as on the wire |
//! | hardware address | `02:00:00:00:00:01` | 6, as on the wire |
//! | bytes | `hex:0a000001` | just these |
//! | text | `text:gold`; as a value also `gold` | UTF-8, filled up with zeros |
//! | prefix | `10.0.0.0/8`, `2001:db8::/32`, `hex:0a00/9` | the key of an lpm, and its length in bits |
//!
//! An address or bytes have the key's or value's exact size; numbers and text may be shorter. A
//! prefix without a length is a whole key.
//!
//! ```
//! use flowyard::table_text::{Form, format_key, parse_key, parse_value};
//! use flowyard::tables::{Kind, Shape};
//!
//! let shape = Shape::new(Kind::Lpm, 4, 8, 100)?;
//! assert_eq!(parse_key(&shape, "10.0.0.0/8")?, [10, 0, 0, 0, 8]);
//! assert_eq!(parse_value(&shape, "7")?, 7u64.to_le_bytes());
//! assert_eq!(format_key(&shape, &[10, 0, 0, 0, 8], Form::Natural), "10.0.0.0/8");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use flowyard_mem::tables::{Kind, Shape};

/// Why a text is no key or value of a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} {reason}; allowed: {allowed}")]
pub struct TextError {
    /// `key` or `value`.
    pub what: &'static str,
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
    /// What it may be.
    pub allowed: String,
}

/// How bytes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// Up to eight bytes as a number, 16 as an IPv6 address if it is a key, text as text, else bytes. Prefixes
    /// as addresses if they have the size.
    #[default]
    Natural,
    /// As a number, if there are 16 bytes at most.
    Number,
    /// As an address: IPv4, IPv6 or hardware, by their number.
    Address,
    /// As bytes.
    Hex,
    /// As text, if it is printable.
    Text,
}

impl FromStr for Form {
    type Err = String;

    /// `natural`, `number`, `address`, `hex`, `text`.
    fn from_str(name: &str) -> Result<Form, String> {
        match name {
            "natural" => Ok(Form::Natural),
            "number" => Ok(Form::Number),
            "address" => Ok(Form::Address),
            "hex" => Ok(Form::Hex),
            "text" => Ok(Form::Text),
            _ => Err(format!("form {name:?} is none of natural, number, address, hex, text")),
        }
    }
}

/// The key that `text` says, as tables set, remove and list it.
///
/// # Errors
/// [`TextError`] names the text, what is wrong and what is allowed.
pub fn parse_key(shape: &Shape, text: &str) -> Result<Vec<u8>, TextError> {
    let mut key = Vec::with_capacity(shape.stored_key_bytes());
    push_key(shape, text, &mut key)?;
    Ok(key)
}

/// The key that `text` says, as look-ups take it: as [`parse_key`], but for an lpm without a length.
///
/// # Errors
/// As [`parse_key`].
pub fn parse_looked_up(shape: &Shape, text: &str) -> Result<Vec<u8>, TextError> {
    let mut key = parse_key(shape, text)?;
    if shape.kind() == Kind::Lpm && text.contains('/') {
        let reason = "is a prefix: what is looked up has no length".into();
        let allowed = format!("an address, or hex: and {} digits", shape.key_bytes() * 2);
        return Err(TextError { what: "key", text: text.to_owned(), reason, allowed });
    }
    key.truncate(shape.key_bytes());
    Ok(key)
}

/// The value that `text` says.
///
/// # Errors
/// As [`parse_key`].
pub fn parse_value(shape: &Shape, text: &str) -> Result<Vec<u8>, TextError> {
    let mut value = Vec::with_capacity(shape.value_bytes());
    push_value(shape, text, &mut value)?;
    Ok(value)
}

/// As [`parse_key`], behind what `keys` has.
pub(crate) fn push_key(shape: &Shape, text: &str, keys: &mut Vec<u8>) -> Result<(), TextError> {
    let len = shape.key_bytes();
    let refuse = |reason: String| {
        let allowed = match shape.kind() {
            Kind::Array => format!("a number below {}, decimal or 0x…", shape.entries()),
            Kind::Hash => allowed(len, "text:"),
            Kind::Lpm => allowed_prefix(len),
        };
        TextError { what: "key", text: text.to_owned(), reason, allowed }
    };
    match shape.kind() {
        Kind::Hash => push(text, len, false, keys).map_err(refuse),
        Kind::Array => match number(text) {
            Some(Ok(index)) if index < shape.entries().into() => {
                keys.extend_from_slice(&(index as u32).to_le_bytes());
                Ok(())
            }
            Some(_) => Err(refuse("is beyond the array".into())),
            None => Err(refuse("is not a number".into())),
        },
        Kind::Lpm => push_prefix(text, len, keys).map_err(refuse),
    }
}

/// As [`parse_value`], behind what `values` has.
pub(crate) fn push_value(shape: &Shape, text: &str, values: &mut Vec<u8>) -> Result<(), TextError> {
    let len = shape.value_bytes();
    push(text, len, true, values).map_err(|reason| {
        let allowed = allowed(len, "text or text:");
        TextError { what: "value", text: text.to_owned(), reason, allowed }
    })
}

fn allowed(len: usize, text: &str) -> String {
    let mut all = match len {
        1..16 => format!("a number below 2^{}, decimal or 0x…", len * 8),
        _ => "a number, decimal or 0x…".to_owned(),
    };
    all += match len {
        4 => ", an IPv4 address",
        6 => ", a hardware address as 02:00:00:00:00:01",
        16 => ", an IPv6 address",
        _ => "",
    };
    let _ = write!(all, ", hex: and {} digits, {text} and at most {len} bytes", len * 2);
    all
}

fn allowed_prefix(len: usize) -> String {
    let address = match len {
        4 => "an IPv4 address as 10.0.0.0",
        16 => "an IPv6 address as 2001:db8::",
        _ => "",
    };
    let or = if address.is_empty() { "" } else { " or " };
    format!("{address}{or}hex: and {} digits, then / and a length of 0 to {}", len * 2, len * 8)
}

/// The number that `text` is, or how it fails to be one; none if it does not look like one.
fn number(text: &str) -> Option<Result<u128, String>> {
    let too_large = |_| "is too large a number".to_owned();
    if let Some(digits) = text.strip_prefix("0x") {
        let hex = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
        return Some(if hex {
            u128::from_str_radix(digits, 16).map_err(too_large)
        } else {
            Err("is not a number in hexadecimal".into())
        });
    }
    let decimal = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    decimal.then(|| text.parse().map_err(too_large))
}

/// Appends the `len` bytes that `text` says.
fn push(text: &str, len: usize, bare_text: bool, bytes: &mut Vec<u8>) -> Result<(), String> {
    if let Some(number) = number(text) {
        let number = number?;
        let le = number.to_le_bytes();
        if len < le.len() && number >> (len * 8) != 0 {
            return Err(format!("does not fit into {len} bytes"));
        }
        bytes.extend_from_slice(&le[..len.min(le.len())]);
        bytes.extend(std::iter::repeat_n(0, len.saturating_sub(le.len())));
        return Ok(());
    }
    if text.starts_with("hex:") {
        return push_exact(text, len, bytes);
    }
    if let Some(text) = text.strip_prefix("text:") {
        return push_text(text, len, bytes);
    }
    if is_address(text) {
        return push_exact(text, len, bytes).map_err(|reason| {
            if bare_text { format!("{reason}, and would have to be text:{text} if it is text") } else { reason }
        });
    }
    if bare_text { push_text(text, len, bytes) } else { Err("has none of the forms of a key".into()) }
}

fn push_text(text: &str, len: usize, bytes: &mut Vec<u8>) -> Result<(), String> {
    if text.len() > len {
        return Err(format!("has {} bytes of text, more than {len}", text.len()));
    }
    bytes.extend_from_slice(text.as_bytes());
    bytes.extend(std::iter::repeat_n(0, len - text.len()));
    Ok(())
}

fn is_address(text: &str) -> bool {
    text.parse::<Ipv4Addr>().is_ok() || text.contains(':') && (mac(text).is_some() || text.parse::<Ipv6Addr>().is_ok())
}

fn mac(text: &str) -> Option<[u8; 6]> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next()?;
        let digits = part.len() <= 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
        *byte = digits.then(|| u8::from_str_radix(part, 16).ok())??;
    }
    parts.next().is_none().then_some(bytes)
}

/// Appends an address or bytes, which have just this size.
fn push_exact(text: &str, len: usize, bytes: &mut Vec<u8>) -> Result<(), String> {
    let start = bytes.len();
    if let Some(digits) = text.strip_prefix("hex:") {
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err("has other characters than hexadecimal digits".into());
        }
        if digits.len() != len * 2 {
            return Err(format!("has {} digits, but {} are {len} bytes", digits.len(), len * 2));
        }
        let digit = |b: u8| (b as char).to_digit(16).unwrap_or(0) as u8;
        bytes.extend(digits.as_bytes().chunks_exact(2).map(|two| digit(two[0]) << 4 | digit(two[1])));
    } else if let Ok(address) = text.parse::<Ipv4Addr>() {
        bytes.extend_from_slice(&address.octets());
    } else if let Some(address) = mac(text) {
        bytes.extend_from_slice(&address);
    } else if let Ok(address) = text.parse::<Ipv6Addr>() {
        bytes.extend_from_slice(&address.octets());
    } else {
        return Err("is no address".into());
    }
    let has = bytes.len() - start;
    if has == len {
        return Ok(());
    }
    bytes.truncate(start);
    Err(format!("is an address of {has} bytes, not {len}"))
}

fn push_prefix(text: &str, len: usize, keys: &mut Vec<u8>) -> Result<(), String> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => match length.parse::<u8>() {
            Ok(length) if usize::from(length) <= len * 8 => (address, length),
            _ => return Err(format!("has a length that is not 0 to {}", len * 8)),
        },
        None => (text, (len * 8) as u8),
    };
    let start = keys.len();
    push_exact(address, len, keys)?;
    for (n, byte) in keys[start..].iter().enumerate() {
        let own = usize::from(length).saturating_sub(n * 8).min(8);
        if *byte & (0xff_u16 >> own) as u8 != 0 {
            keys.truncate(start);
            return Err("has bits set behind its length: clear them, or make it longer".into());
        }
    }
    keys.push(length);
    Ok(())
}

/// A key, as tables list it, in text that [`parse_key`] reads.
pub fn format_key(shape: &Shape, key: &[u8], form: Form) -> String {
    match shape.kind() {
        Kind::Array => format(key, Form::Number, false),
        Kind::Hash => format(key, form, true),
        Kind::Lpm => {
            let (bytes, length) = key.split_at(key.len().saturating_sub(1));
            let form = if form == Form::Hex || bytes.len() == 6 { Form::Hex } else { Form::Address };
            format!("{}/{}", format(bytes, form, true), length.first().unwrap_or(&0))
        }
    }
}

/// A value in text that [`parse_value`] reads.
pub fn format_value(value: &[u8], form: Form) -> String {
    format(value, form, false)
}

/// Falls back to bytes where the form does not fit.
fn format(bytes: &[u8], form: Form, key: bool) -> String {
    let len = bytes.len();
    let text = match form {
        Form::Number => as_number(bytes),
        Form::Address => as_address(bytes),
        Form::Text => as_text(bytes),
        Form::Natural if len <= 8 => as_number(bytes),
        Form::Natural if key && len == 16 => as_address(bytes),
        Form::Natural => as_text(bytes),
        Form::Hex => None,
    };
    text.unwrap_or_else(|| {
        bytes.iter().fold("hex:".to_owned(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    })
}

fn as_number(bytes: &[u8]) -> Option<String> {
    let mut le = [0; 16];
    le.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(u128::from_le_bytes(le).to_string())
}

fn as_address(bytes: &[u8]) -> Option<String> {
    match *bytes {
        [a, b, c, d] => Some(Ipv4Addr::new(a, b, c, d).to_string()),
        [a, b, c, d, e, f] => Some(format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")),
        _ => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_string()),
    }
}

fn as_text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let text = &bytes[..end];
    let printable = !text.is_empty() && text.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
    // Blanks at the ends do not survive every file.
    let printable = printable && !text.starts_with(b" ") && !text.ends_with(b" ");
    printable.then(|| format!("text:{}", String::from_utf8_lossy(text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hash(key_bytes: usize, value_bytes: usize) -> Shape {
        Shape::new(Kind::Hash, key_bytes, value_bytes, 100).expect("shape")
    }

    #[test]
    fn every_form_is_its_bytes() {
        let key = |len, text| parse_key(&hash(len, 1), text).expect(text);
        assert_eq!(key(4, "258"), [2, 1, 0, 0]);
        assert_eq!(key(2, "0xfFfe"), [0xfe, 0xff]);
        assert_eq!(key(20, "258")[..3], [2, 1, 0]);
        assert_eq!(key(4, "10.0.0.1"), [10, 0, 0, 1]);
        assert_eq!(key(6, "aa:BB:0:1:02:ff"), [0xaa, 0xbb, 0, 1, 2, 255]);
        assert_eq!(key(16, "2001:db8::1")[..4], [0x20, 1, 0xd, 0xb8]);
        assert_eq!(key(3, "hex:00Ff10"), [0, 255, 16]);
        assert_eq!(key(5, "text:abc"), *b"abc\0\0");
        let value = |len, text| parse_value(&hash(1, len), text).expect(text);
        assert_eq!(value(8, "gold plan"[..4].trim()), *b"gold\0\0\0\0");
        assert_eq!(value(4, "10.0.0.1"), [10, 0, 0, 1]);
        assert_eq!(value(9, "text:12"), *b"12\0\0\0\0\0\0\0");
        assert_eq!(value(1, ""), [0]);
        let prefix = |len, text| parse_key(&Shape::new(Kind::Lpm, len, 1, 10).expect("shape"), text).expect(text);
        assert_eq!(prefix(4, "10.128.0.0/9"), [10, 128, 0, 0, 9]);
        assert_eq!(prefix(4, "10.1.2.3"), [10, 1, 2, 3, 32]);
        let lpm = Shape::new(Kind::Lpm, 4, 1, 10).expect("shape");
        assert_eq!(parse_looked_up(&lpm, "10.1.2.3"), Ok(vec![10, 1, 2, 3]));
        assert!(parse_looked_up(&lpm, "10.0.0.0/8").is_err_and(|e| e.to_string().contains("no length")));
        assert_eq!(prefix(2, "hex:8000/1"), [128, 0, 1]);
        assert_eq!(prefix(16, "::/0"), [0; 17]);
    }

    #[test]
    fn refusals_name_what_is_wrong_and_what_is_allowed() {
        for (kind, len, text, says) in [
            (Kind::Hash, 4, "4294967296", "does not fit into 4 bytes"),
            (Kind::Hash, 4, "10.0.0.300", "an IPv4 address"),
            (Kind::Hash, 4, "2001:db8::1", "an address of 16 bytes"),
            (Kind::Hash, 4, "0xg", "hexadecimal"),
            (Kind::Hash, 4, "hex:0011", "4 digits, but 8"),
            (Kind::Hash, 4, "hex:0011223g", "other characters"),
            (Kind::Hash, 4, "text:12345", "5 bytes of text"),
            (Kind::Hash, 4, "gold", "none of the forms"),
            (Kind::Hash, 4, "", "none of the forms"),
            (Kind::Hash, 16, "340282366920938463463374607431768211456", "too large"),
            (Kind::Array, 4, "100", "below 100"),
            (Kind::Array, 4, "10.0.0.1", "not a number"),
            (Kind::Lpm, 4, "10.0.0.0/33", "not 0 to 32"),
            (Kind::Lpm, 4, "10.0.0.1/8", "behind its length"),
            (Kind::Lpm, 4, "167772160/8", "no address"),
            (Kind::Lpm, 16, "10.0.0.0/8", "not 16"),
        ] {
            let shape = Shape::new(kind, len, 8, 100).expect("shape");
            let refusal = parse_key(&shape, text).expect_err(text).to_string();
            assert!(refusal.contains(says) && refusal.contains("allowed"), "{refusal}");
        }
        let refusal = parse_value(&hash(4, 8), "10.0.0.1").expect_err("of another size").to_string();
        assert!(refusal.contains("text:10.0.0.1"), "{refusal}");
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0u8), 32u8..127], 1..40), form in 0usize..5,
            length in 0u32..=128,
        ) {
            let form = [Form::Natural, Form::Number, Form::Address, Form::Hex, Form::Text][form];
            let shape = hash(bytes.len(), bytes.len());
            let text = format_key(&shape, &bytes, form);
            prop_assert_eq!(parse_key(&shape, &text).expect("reads"), &bytes[..], "{}", text);
            let text = format_value(&bytes, form);
            prop_assert_eq!(parse_value(&shape, &text).expect("reads"), &bytes[..], "{}", text);
            let len = bytes.len().min(16);
            let shape = Shape::new(Kind::Lpm, len, 1, 1).expect("shape");
            let mut key = [0; 16];
            key[..len].copy_from_slice(&bytes[..len]);
            let length = length.min(len as u32 * 8);
            let bits = u128::from_be_bytes(key) & u128::MAX.checked_shl(128 - length).unwrap_or(0);
            let mut key = bits.to_be_bytes()[..len].to_vec();
            key.push(length as u8);
            let text = format_key(&shape, &key, form);
            prop_assert_eq!(parse_key(&shape, &text).expect("reads"), key, "{}", text);
        }

        #[test]
        fn nothing_that_is_typed_panics(text in "\\PC{0,40}", len in 1usize..20) {
            for kind in [Kind::Hash, Kind::Lpm] {
                let shape = Shape::new(kind, len.min(16), len, 10).expect("shape");
                let _ = (parse_key(&shape, &text), parse_value(&shape, &text));
            }
        }
    }
}
