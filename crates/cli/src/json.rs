//! The JSON line of a frame: a contract, whose shape other programs rely on.
//!
//! `{"frame":1,"ring":2,"hash":"…","stack":[…],"src":"…","dst":"…","proto":6,"sport":1,"dport":2,`
//! `"fragment":"none|first|later","ids":{…},"stop":"…"}`; `src`… are the innermost flow's, null where
//! there is none. Written by hand: everything in it is a number, an address or one of our own names,
//! so nothing needs escaping, and a capture has many frames.

use flowyard::steer::{Dissection, Fragment, Id};

use crate::digits::Digits;
use crate::layers::Layers;

/// Appends the line up to the ring, which may not be known yet.
pub fn head(line: &mut String, frame: u64) {
    line.push_str("{\"frame\":");
    line.number(frame);
    line.push(',');
}

/// Appends ring and hash.
pub fn verdict(line: &mut String, ring: u16, hash: u32) {
    line.push_str("\"ring\":");
    line.number(ring.into());
    line.push_str(",\"hash\":\"");
    line.hex8(hash);
    line.push_str("\",");
}

/// Appends all that the frame itself says.
pub fn tail(line: &mut String, layers: &Layers, dissection: &Dissection, bytes: &[u8]) {
    line.push_str("\"stack\":[");
    list(line, layers.stack(), |line, name| {
        line.push('"');
        line.push_str(name);
        line.push('"');
    });
    line.push(']');
    let number = |line: &mut String, name: &str, value: Option<u64>| {
        line.push_str(name);
        match value {
            Some(value) => line.number(value),
            None => line.push_str("null"),
        }
    };
    match dissection.flow(bytes) {
        Some(flow) => {
            line.push_str(",\"src\":\"");
            line.address(flow.src);
            line.push_str("\",\"dst\":\"");
            line.address(flow.dst);
            number(line, "\",\"proto\":", Some(flow.proto.into()));
            number(line, ",\"sport\":", flow.sport.map(u64::from));
            number(line, ",\"dport\":", flow.dport.map(u64::from));
        }
        None => line.push_str(",\"src\":null,\"dst\":null,\"proto\":null,\"sport\":null,\"dport\":null"),
    }
    line.push_str(",\"fragment\":\"");
    line.push_str(fragment(dissection.fragment()));
    line.push_str("\",\"ids\":{");
    ids(line, &layers.ids);
    line.push_str("},\"stop\":\"");
    line.push_str(dissection.stop().name());
    line.push_str("\"}");
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
        line.push_str(if std::mem::take(&mut first) { "\"" } else { ",\"" });
        line.push_str(name);
        line.push_str("\":");
        let mut values = ids[at..].iter().filter(|i| i.name() == name).map(|i| i.value());
        if matches!(id, Id::FragmentId(_) | Id::IcmpId(_) | Id::IcmpType(_)) {
            line.number(values.next_back().unwrap_or(0).into());
        } else {
            line.push('[');
            list(line, values, |line, value| line.number(value.into()));
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
