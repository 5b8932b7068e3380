//! What a rule does with the packets that it matches.

use flowyard_steer::{Conversation, FIXED_SEED, default_hash};

use super::facts::{self, Facts};
use super::set::Ends;
use crate::function::{Packet, Verdict};

/// Where packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Go {
    BuiltIn,
    /// These rings, by the built-in hash; often one.
    Rings(u16, u16),
    Hash(By),
    Drop,
    Shunt {
        milliseconds: u32,
    },
    EveryRing,
    Host,
}

/// What is hashed in place of the conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// Both addresses of the flow.
    Addresses,
    /// Both addresses of the outermost IP header.
    OuterAddresses,
    /// The outermost VLAN.
    Vlan,
    /// Kind and identifier of the innermost tunnel.
    TunnelId,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Action {
    pub(super) go: Go,
    /// Bytes to keep; 0 all.
    pub(super) slice: u32,
    /// Bytes to take off the start.
    pub(super) pull: u16,
    pub(super) mark: Option<u64>,
}

/// What a verdict may be, for those who wrote another.
pub(super) const VERDICTS: &str = "must be \"built-in\", \"ring N\", \"rings N-M\", \"hash addresses\", \
     \"hash outer-addresses\", \"hash vlan\", \"hash tunnel-id\", \"drop\", \"shunt TIME\" (such as 500ms, 60s, 5m, 1h), \
     \"every-ring\" or \"host\"";

impl Go {
    /// Reads a verdict as it is written.
    pub(super) fn read(text: &str) -> Option<Go> {
        let number = |text: &str| text.parse::<u16>().ok();
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        Some(match (word, rest.trim()) {
            ("built-in", "") => Go::BuiltIn,
            ("drop", "") => Go::Drop,
            ("every-ring", "") => Go::EveryRing,
            ("host", "") => Go::Host,
            ("ring", ring) => Go::Rings(number(ring)?, number(ring)?),
            ("rings", rings) => {
                let (first, last) = rings.split_once('-')?;
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Go::Rings(first, last))?
            }
            ("hash", "addresses") => Go::Hash(By::Addresses),
            ("hash", "outer-addresses") => Go::Hash(By::OuterAddresses),
            ("hash", "vlan") => Go::Hash(By::Vlan),
            ("hash", "tunnel-id") => Go::Hash(By::TunnelId),
            ("shunt", time) => Go::Shunt { milliseconds: milliseconds(time)? },
            _ => return None,
        })
    }

    /// Whether it asks what a later fragment may not show.
    pub(super) fn needs_flow(self) -> bool {
        matches!(self, Go::Hash(By::Addresses | By::TunnelId))
    }

    /// What it says of a packet. `facts` are there where something else than the conversation is hashed.
    #[inline]
    fn verdict(self, facts: Option<&Facts>, packet: &mut Packet<'_>) -> Verdict {
        match self {
            Go::BuiltIn => Verdict::BuiltIn,
            Go::Rings(first, last) => {
                let rings = u64::from(last - first) + 1;
                Verdict::Ring(first + ((u64::from(packet.hash()) * rings) >> 32) as u16)
            }
            Go::Hash(by) => {
                facts.and_then(|facts| by.hash(facts, packet.bytes())).map_or(Verdict::BuiltIn, Verdict::Hash)
            }
            Go::Drop => Verdict::Drop,
            Go::Shunt { milliseconds } => Verdict::Shunt { milliseconds },
            Go::EveryRing => Verdict::EveryRing,
            Go::Host => Verdict::Host,
        }
    }
}

impl By {
    /// The hash; `None` for a packet that has nothing of the kind.
    fn hash(self, facts: &Facts, bytes: &[u8]) -> Option<u32> {
        let half = |address: u128| [(address >> 64) as u64, address as u64];
        let of_ends = |ends| match ends {
            Ends::V4(src, dst) => Conversation::v4((src, 0), (dst, 0), 0, 0),
            Ends::V6(src, dst) => Conversation::v6((half(src), 0), (half(dst), 0), 0, 0),
        };
        let of_number =
            |kind: u32, number: u32| Conversation::Link { link: 0, extra: u64::from(kind) << 32 | u64::from(number) };
        let conversation = match self {
            By::Addresses => of_ends(facts.ends(bytes)?),
            By::OuterAddresses => of_ends(facts.outer_ends(bytes)?),
            By::Vlan => of_number(VLAN, Some(facts.part(facts::VLAN)).filter(|&vlan| vlan != facts::NO_VLAN)?),
            By::TunnelId => of_number(Some(facts.part(facts::TUNNEL)).filter(|&kind| kind != 0)?, facts.tunnel_id),
        };
        Some(default_hash(FIXED_SEED, &conversation))
    }
}

/// Stands for VLANs beside the kinds of tunnels.
const VLAN: u32 = 0x100;

impl Action {
    /// Does it.
    #[inline]
    pub(super) fn apply(&self, facts: Option<&Facts>, packet: &mut Packet<'_>) {
        let verdict = self.go.verdict(facts, packet);
        packet.decide(verdict);
        if self.slice != 0 {
            packet.slice(self.slice);
        }
        if self.pull != 0 {
            packet.pull(self.pull);
        }
        if let Some(mark) = self.mark {
            packet.mark(mark);
        }
    }
}

/// A time such as 500ms, 60s, 5m, 1h: from 1 ms to 2^32 - 1.
fn milliseconds(text: &str) -> Option<u32> {
    let unit = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit);
    let unit_ms = match unit.trim_start() {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.parse::<u32>().ok()?.checked_mul(unit_ms).filter(|&ms| ms > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_as_they_are_written() {
        for (text, go) in [
            ("built-in", Go::BuiltIn),
            ("ring 3", Go::Rings(3, 3)),
            ("rings 2-5", Go::Rings(2, 5)),
            ("hash addresses", Go::Hash(By::Addresses)),
            ("hash outer-addresses", Go::Hash(By::OuterAddresses)),
            ("hash vlan", Go::Hash(By::Vlan)),
            ("hash tunnel-id", Go::Hash(By::TunnelId)),
            ("drop", Go::Drop),
            ("shunt 500ms", Go::Shunt { milliseconds: 500 }),
            ("shunt 60s", Go::Shunt { milliseconds: 60_000 }),
            ("shunt 5 m", Go::Shunt { milliseconds: 300_000 }),
            ("shunt 1h", Go::Shunt { milliseconds: 3_600_000 }),
            ("every-ring", Go::EveryRing),
            ("host", Go::Host),
        ] {
            assert_eq!(Go::read(text), Some(go), "{text}");
        }
        for text in
            "|ring|ring -1|ring 65536|rings 3|rings 5-2|hash|hash ports|drop 3|shunt|shunt 60|shunt 0s|shunt 1194h|shunt ms"
                .split('|')
        {
            assert_eq!(Go::read(text), None, "{text}");
        }
    }
}
