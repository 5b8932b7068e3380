//! How a user names a port: `KIND:WHAT[/QUEUE][?option&option=value]`.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::PortError;

/// The kinds of port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// AF_XDP sockets on an interface's queues.
    Xdp,
    /// A TPACKET_V3 packet socket on an interface.
    Packet,
    /// A TAP device.
    Tap,
    /// A capture file, read or written.
    Pcap,
    /// Generated traffic.
    Gen,
}

/// Each kind: the word before the colon, and its help: a line, and one of options.
pub const KINDS: [(Kind, &str, &str); 5] = [
    (
        Kind::Xdp,
        "xdp",
        "xdp:IF[/QUEUE]  AF_XDP on an interface (all queues, or one)\n\
         \x20                 ?native ?generic ?copy ?zerocopy ?promisc ?ring=N ?keep ?journal=DIR ?metadata",
    ),
    (
        Kind::Packet,
        "packet",
        "packet:IF       a packet socket (TPACKET_V3) on any interface\n\
         \x20                 ?promisc ?incoming ?hwtime ?fanout=N ?block=KIB ?blocks=N",
    ),
    (
        Kind::Tap,
        "tap",
        "tap:NAME        a TAP device, made if there is none: an interface of this host\n\
         \x20                 ?finished",
    ),
    (
        Kind::Pcap,
        "pcap",
        "pcap:FILE       a capture file (pcap, pcapng, also .gz .zst .lz4; - is standard input)\n\
         \x20                 ?speed=full|recorded|FACTOR ?times=N; ?write: for what consumers send",
    ),
    (
        Kind::Gen,
        "gen",
        "gen:mix         generated traffic (or one kind of it: gen:vxlan, …)\n\
         \x20                 ?flows=N ?packets=N ?seconds=S ?seed=N ?size=60-1500|N|imix ?rate=PPS ?only=NAME,NAME",
    ),
];

/// A port's name, taken apart.
///
/// ```
/// use flowyard_port::{Kind, PortSpec};
/// let spec: PortSpec = "xdp:eth0/2?copy&buffers=4096".parse()?;
/// assert_eq!((spec.kind, spec.what.as_str(), spec.queue), (Kind::Xdp, "eth0", Some(2)));
/// assert_eq!(spec.options["buffers"], "4096");
/// # Ok::<(), flowyard_port::PortError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortSpec {
    /// The kind.
    pub kind: Kind,
    /// Interface, file or traffic mix.
    pub what: String,
    /// The one queue asked for (`xdp:` only).
    pub queue: Option<u32>,
    /// Options after `?`; one without a value maps to the empty string.
    pub options: BTreeMap<String, String>,
}

impl PortSpec {
    /// The name without options, as shown to people.
    pub fn name(&self) -> String {
        let kind = KINDS.iter().find(|(k, ..)| *k == self.kind).map_or("", |(_, word, _)| word);
        match self.queue {
            Some(queue) => format!("{kind}:{}/{queue}", self.what),
            None => format!("{kind}:{}", self.what),
        }
    }

    /// Whether nothing is received from this port: packets are only sent to it.
    pub fn only_sends(&self) -> bool {
        self.kind == Kind::Pcap && self.options.contains_key("write")
    }

    /// A bad option of this port.
    pub fn bad_option(&self, problem: impl Into<String>, remedy: impl Into<String>) -> PortError {
        PortError::Name { name: self.name(), problem: problem.into(), remedy: remedy.into() }
    }

    /// Refuses options that are not among `known`.
    ///
    /// # Errors
    /// [`PortError::Name`] with the unknown option and those there are.
    pub fn only(&self, known: &[&str]) -> Result<(), PortError> {
        match self.options.keys().find(|o| !known.contains(&o.as_str())) {
            Some(unknown) if known.is_empty() => {
                Err(self.bad_option(format!("has no option {unknown:?}"), "this kind of port takes none"))
            }
            Some(unknown) => {
                Err(self.bad_option(format!("has no option {unknown:?}"), format!("options are {}", known.join(", "))))
            }
            None => Ok(()),
        }
    }

    /// Whether a valueless option is given.
    ///
    /// # Errors
    /// If it has a value.
    pub fn flag(&self, option: &str) -> Result<bool, PortError> {
        match self.options.get(option).map(String::as_str) {
            None => Ok(false),
            Some("") => Ok(true),
            Some(value) => {
                Err(self
                    .bad_option(format!("option {option} takes no value, not {value:?}"), format!("write ?{option}")))
            }
        }
    }

    /// The value of an option, parsed.
    ///
    /// # Errors
    /// If it does not parse; `allowed` says what does.
    pub fn value<T: FromStr>(&self, option: &str, allowed: &str) -> Result<Option<T>, PortError> {
        let Some(text) = self.options.get(option) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| {
            self.bad_option(format!("option {option} is {text:?}"), format!("write ?{option}=VALUE with {allowed}"))
        })
    }
}

impl FromStr for PortSpec {
    type Err = PortError;

    fn from_str(text: &str) -> Result<PortSpec, PortError> {
        let kinds = || KINDS.map(|(_, word, _)| format!("{word}:")).join(", ");
        let fail = |problem: String, remedy: String| PortError::Name { name: text.into(), problem, remedy };
        let Some((word, rest)) = text.split_once(':') else {
            return Err(fail(
                "has no kind".into(),
                format!(
                    "write KIND:NAME with a kind of {}; for a capture file pcap:{text}, for an interface xdp:{text}",
                    kinds()
                ),
            ));
        };
        let Some((kind, ..)) = KINDS.iter().find(|(_, w, _)| *w == word) else {
            return Err(fail(format!("has no known kind {word:?}"), format!("kinds are {}", kinds())));
        };
        // A file's name may hold anything, so only a `?` after its last `/` begins options.
        let cut = match kind {
            Kind::Pcap => {
                rest.rfind('?').filter(|&at| !rest[at..].contains('/') && !std::path::Path::new(rest).exists())
            }
            _ => rest.find('?'),
        };
        let (what, options) = cut.map_or((rest, ""), |at| (&rest[..at], &rest[at + 1..]));
        let (what, queue) = match (kind, what.rsplit_once('/')) {
            (Kind::Xdp, Some((interface, queue))) => {
                let number = queue.parse().map_err(|_| {
                    fail(
                        format!("queue {queue:?} is not a number"),
                        format!("write xdp:{interface}/0, or xdp:{interface} for all"),
                    )
                })?;
                (interface, Some(number))
            }
            _ => (what, None),
        };
        if what.is_empty() {
            return Err(fail("names nothing".into(), format!("write {word}:NAME")));
        }
        let options = options
            .split('&')
            .filter(|o| !o.is_empty())
            .map(|o| o.split_once('=').unwrap_or((o, "")))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        Ok(PortSpec { kind: *kind, what: what.into(), queue, options })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> PortSpec {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn names_come_apart() {
        let spec = parse("pcap:/tmp/a?b/c.pcap?speed=recorded&times=3");
        assert_eq!(spec.what, "/tmp/a?b/c.pcap");
        assert_eq!(spec.value::<u32>("times", "a number").ok().flatten(), Some(3));
        assert_eq!(spec.name(), "pcap:/tmp/a?b/c.pcap");
        assert_eq!(parse("xdp:eth0/3?copy").name(), "xdp:eth0/3");
        assert!(parse("xdp:eth0?copy").flag("copy").is_ok_and(|on| on));
        assert!(parse("xdp:eth0?copy=1").flag("copy").is_err());
        assert!(parse("xdp:eth0?cppy").only(&["copy"]).is_err_and(|e| e.to_string().contains("cppy")));
    }

    #[test]
    fn errors_say_what_to_write() {
        for (text, expect) in
            [("eth0", "xdp:eth0"), ("nic:eth0", "kinds are xdp:"), ("xdp:eth0/x", "not a number"), ("gen:", "gen:NAME")]
        {
            let error = text.parse::<PortSpec>().expect_err(text).to_string();
            assert!(error.contains(expect), "{error}");
        }
    }
}
