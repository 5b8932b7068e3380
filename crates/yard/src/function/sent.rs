//! Where the user's function sent first fragments, so that later ones follow of which it says nothing.
//!
//! Beside the yard's own memory of first fragments, with the same bounds, shared by all dispatchers in the
//! same way. A verdict is written down in two words, because that memory holds 32 bits a datagram.

use std::sync::{Arc, OnceLock};

use flowyard_steer::{Datagram, Dissection, FragmentMemory};

use super::RawVerdict;
use crate::SharedFragments;

/// Verdicts by datagram. Clones share them. The memory, 12 MiB, is made when the first is written down.
#[derive(Clone, Default)]
pub(crate) struct Sent {
    made: Arc<OnceLock<Tables>>,
    tables: Option<Tables>,
}

#[derive(Clone, Default)]
struct Tables {
    kinds: SharedFragments,
    hashes: SharedFragments,
}

impl Sent {
    /// The tables, if any clone has written something down.
    fn tables(&mut self) -> Option<&mut Tables> {
        if self.tables.is_none() {
            self.tables = self.made.get().cloned();
        }
        self.tables.as_mut()
    }

    /// Makes the memory now, off the packet path, where a function is there that may need it.
    pub(crate) fn prepare(&mut self) {
        self.made.get_or_init(Tables::default);
        self.tables();
    }

    /// Notes where the packet's first fragments went, for their later ones.
    #[cold]
    pub(crate) fn remember(&mut self, dissection: &Dissection, bytes: &[u8], raw: RawVerdict, now_ns: u64) {
        let kind = if raw.kind == RawVerdict::SHUNT { RawVerdict::DROP } else { raw.kind };
        let word = u32::from(kind) << 16 | u32::from(raw.ring);
        let Some(Tables { kinds, hashes }) = self.tables() else { return };
        for datagram in dissection.first_fragments(bytes) {
            // An identifier that is used again: nothing holds any more of what was said of the earlier one.
            if kind != RawVerdict::BUILT_IN || kinds.guess(&datagram, now_ns).is_some() {
                hashes.learn(&datagram, raw.value, now_ns);
                kinds.learn(&datagram, word, now_ns);
            }
        }
    }

    /// What was said of the datagram's first fragment, without its edits; `None` if nothing.
    pub(crate) fn recall(&mut self, datagram: &Datagram, now_ns: u64) -> Option<RawVerdict> {
        // Guessed, not recalled: which datagram of an identifier is meant has been judged already, and
        // its pieces counted.
        let Tables { kinds, hashes } = self.tables()?;
        let word = kinds.guess(datagram, now_ns)?;
        let value = hashes.guess(datagram, now_ns).unwrap_or_default();
        Some(RawVerdict { kind: (word >> 16) as u8, ring: word as u16, value, ..RawVerdict::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::Verdict;
    use flowyard_steer::{Frame, LinkType, Policy, dissect};

    #[test]
    fn later_fragments_follow_and_an_identifier_used_again_starts_anew() {
        let mut packet =
            [0x45, 0, 0, 28, 0, 3, 0x20, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 7, 0, 9, 0, 8, 0, 0];
        let found = |packet: &[u8]| dissect(&Frame::new(packet, LinkType::RAW), &Policy::default(), &mut ());
        let first = found(&packet);
        let mut sent = Sent::default();
        sent.prepare();
        packet[7] = 1;
        let later = found(&packet).awaited(&packet).expect("a later fragment");
        packet[7] = 0;
        assert_eq!(sent.recall(&later, 0), None);
        for verdict in [Verdict::Ring(17), Verdict::Hash(0xdead_beef), Verdict::EveryRing, Verdict::Host, Verdict::Drop]
        {
            let mut raw = RawVerdict { slice: 9, ..RawVerdict::default() };
            raw.set(verdict);
            sent.remember(&first, &packet, raw, 1);
            let recalled = sent.clone().recall(&later, 2).expect("remembered");
            assert_eq!((recalled.get(), recalled.slice), (Some(verdict), 0));
        }
        let mut raw = RawVerdict::default();
        raw.set(Verdict::Shunt { milliseconds: 5 });
        sent.remember(&first, &packet, raw, 1);
        assert_eq!(sent.recall(&later, 2).and_then(|r| r.get()), Some(Verdict::Drop));
        sent.remember(&first, &packet, RawVerdict::default(), 3);
        assert_eq!(sent.recall(&later, 4).and_then(|r| r.get()), Some(Verdict::BuiltIn));
    }
}
