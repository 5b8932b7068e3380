//! The JSON line of a frame: a contract, whose shape other programs rely on.
//!
//! `{"frame":1,"ring":2,"hash":"…","stack":[…],"src":"…","dst":"…","proto":6,"sport":1,"dport":2,`
//! `"fragment":"none|first|later","ids":{…},"stop":"…"}`; `src`… are the innermost flow's, null where
//! there is none. Written by hand: everything in it is a number, an address or one of our own names,
//! so nothing needs escaping, and a capture has many frames.

use std::fmt::Write;

use flowyard::steer::{Dissection, Fragment, Id};

use crate::layers::Layers;

/// Appends the line up to the ring, which may not be known yet.
pub fn head(line: &mut String, frame: u64) {
    let _ = write!(line, "{{\"frame\":{frame},"); // writing to a String cannot fail
}

/// Appends ring and hash.
pub fn verdict(line: &mut String, ring: u16, hash: u32) {
    let _ = write!(line, "\"ring\":{ring},\"hash\":\"{hash:08x}\",");
}

/// Appends all that the frame itself says.
pub fn tail(line: &mut String, layers: &Layers, dissection: &Dissection, bytes: &[u8]) {
    line.push_str("\"stack\":[");
    list(line, layers.stack(), |line, name| {
        let _ = write!(line, "\"{name}\"");
    });
    line.push(']');
    let number = |line: &mut String, name: &str, value: Option<u64>| {
        let _ = match value {
            Some(value) => write!(line, ",\"{name}\":{value}"),
            None => write!(line, ",\"{name}\":null"),
        };
    };
    match dissection.flow(bytes) {
        Some(flow) => {
            let _ = write!(line, ",\"src\":\"{}\",\"dst\":\"{}\"", flow.src, flow.dst);
            number(line, "proto", Some(flow.proto.into()));
            number(line, "sport", flow.sport.map(u64::from));
            number(line, "dport", flow.dport.map(u64::from));
        }
        None => line.push_str(",\"src\":null,\"dst\":null,\"proto\":null,\"sport\":null,\"dport\":null"),
    }
    let _ = write!(line, ",\"fragment\":\"{}\",\"ids\":{{", fragment(dissection.fragment()));
    ids(line, &layers.ids);
    let _ = write!(line, "}},\"stop\":\"{}\"}}", dissection.stop().name());
}

/// The name of a fragment kind.
pub fn fragment(fragment: Fragment) -> &'static str {
    match fragment {
        Fragment::None => "none",
        Fragment::First => "first",
        Fragment::Later => "later",
    }
}

/// Identifiers by name. What a tunnel can repeat is a list, outermost first; what belongs to the
/// innermost packet alone is one number.
fn ids(line: &mut String, ids: &[Id]) {
    let mut first = true;
    for (at, id) in ids.iter().enumerate() {
        let name = id.name();
        if ids[..at].iter().any(|earlier| earlier.name() == name) {
            continue;
        }
        let comma = if std::mem::take(&mut first) { "" } else { "," };
        let _ = write!(line, "{comma}\"{name}\":");
        let mut values = ids[at..].iter().filter(|i| i.name() == name).map(|i| i.value());
        if matches!(id, Id::FragmentId(_) | Id::IcmpId(_) | Id::IcmpType(_)) {
            let _ = write!(line, "{}", values.next_back().unwrap_or(0));
        } else {
            line.push('[');
            list(line, values, |line, value| {
                let _ = write!(line, "{value}");
            });
            line.push(']');
        }
    }
}

fn list<T>(line: &mut String, items: impl Iterator<Item = T>, mut write: impl FnMut(&mut String, T)) {
    for (n, item) in items.enumerate() {
        if n > 0 {
            line.push(',');
        }
        write(line, item);
    }
}
