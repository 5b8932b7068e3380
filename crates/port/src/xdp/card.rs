//! What the card knows of a packet: asked for when the program is loaded, read from before the packet.
//!
//! ```text
//! steered in user space:            | card (16) | packet …
//! steered in the kernel: | card (16) | head (32) | packet …      if the head says so
//! ```

use flowyard_kernel::{CARD_BYTES, CardCalls, CardFacts, CardWord, HEAD_BYTES, card_before};
use flowyard_mem::{Buffer, Clock, Region, Tag, flags};

use super::release;
use crate::Arrival;
use crate::interface::Links;

/// Bytes of both.
const BOTH_BYTES: usize = CARD_BYTES + HEAD_BYTES;

/// Where what the card knows lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum CardPlace {
    /// Nobody has asked.
    #[default]
    Nowhere,
    /// Right before the packet.
    BeforePacket,
    /// Before the head of the tag.
    BeforeHead,
}

impl CardPlace {
    /// Adds what the card knows of the packet at `offset` of a buffer.
    #[inline]
    pub(super) fn tell(self, region: &Region, buffer: &Buffer, offset: usize, arrival: &mut Arrival) {
        let bytes = match self {
            CardPlace::Nowhere => return,
            CardPlace::BeforePacket => CARD_BYTES,
            CardPlace::BeforeHead => BOTH_BYTES,
        };
        let Some(at) = offset.checked_sub(bytes) else { return };
        let mut scratch = [0; BOTH_BYTES];
        let found = region.peek(buffer, at, bytes, &mut scratch);
        let told = match self {
            CardPlace::BeforeHead => found.first_chunk().and_then(before_head),
            _ => found.first_chunk().map(CardWord::read),
        };
        let Some(told) = told else { return };
        arrival.flags |= told.flags;
        (arrival.card_hash, arrival.stripped_vlan) = (told.hash, told.vlan);
        if told.flags & flags::HARDWARE_TIME != 0 {
            (arrival.time_ns, arrival.clock) = (told.time_ns, Clock::Hardware);
        }
    }
}

/// What stands before a head, if that says so.
fn before_head(bytes: &[u8; BOTH_BYTES]) -> Option<CardWord> {
    let head = bytes.last_chunk().filter(|head| card_before(head))?;
    let _: &[u8; HEAD_BYTES] = head;
    bytes.first_chunk().map(CardWord::read)
}

/// Adds what the card knows to a tag whose head follows it.
#[inline]
pub(super) fn complete(tag: &mut Tag, bytes: Option<&[u8; BOTH_BYTES]>) {
    let Some(told) = bytes.and_then(before_head) else { return };
    tag.flags |= told.flags;
    (tag.card_hash, tag.stripped_vlan) = (told.hash, told.vlan);
    if told.flags & flags::HARDWARE_TIME != 0 {
        tag.time_ns = told.time_ns;
        tag.set_clock(Clock::Hardware);
    }
}

/// What can be asked on an interface.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking {
    pub calls: CardCalls,
    pub facts: CardFacts,
}

impl Asking {
    /// Finds out; an error is the reason why nothing can be.
    pub(super) fn find(links: &Links, index: u32) -> Result<Asking, String> {
        let calls = CardCalls::find().map_err(|e| e.to_string())?;
        if !calls.facts().any() {
            return Err(format!("Linux has it from 6.3 on, and this is {}", release::running()));
        }
        // Asked blindly, a driver without room for metadata would have no packet come at all.
        let Some(driver) = links.driver_knows(index) else {
            return Err(format!("which drivers tell what Linux says from 6.7 on, and this is {}", release::running()));
        };
        let facts = driver.and(calls.facts());
        match facts.any() {
            true => Ok(Asking { calls, facts }),
            false => Err("its driver tells XDP programs nothing".into()),
        }
    }

    /// What is had and what is not, in words.
    pub(super) fn words(&self) -> String {
        let missing = CardFacts::ALL.without(self.facts);
        match missing.any() {
            true => format!("the card tells {}, not {missing}", self.facts),
            false => format!("the card tells {}", self.facts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_card_told_counts_only_where_the_head_says_so() {
        let mut bytes = [0; BOTH_BYTES];
        bytes[..8].copy_from_slice(&77u64.to_ne_bytes());
        bytes[8..12].copy_from_slice(&0xabcdu32.to_ne_bytes());
        bytes[12..14].copy_from_slice(&7u16.to_ne_bytes());
        let told = flags::HARDWARE_TIME | flags::CARD_HASH | flags::VLAN_STRIPPED;
        bytes[14..16].copy_from_slice(&(told as u16).to_ne_bytes());
        let mut before = Tag { time_ns: 5, ..Tag::default() };
        before.set_clock(Clock::Realtime);
        let mut tag = before;
        complete(&mut tag, Some(&bytes));
        assert_eq!(tag, before);
        bytes[CARD_BYTES + 15] = 0x40;
        complete(&mut tag, Some(&bytes));
        assert_eq!((tag.time_ns, tag.card_hash, tag.stripped_vlan), (77, 0xabcd, 7));
        assert!(tag.has(told) && tag.clock() == Clock::Hardware);
    }

    #[test]
    fn what_is_had_and_what_is_not_is_said() {
        let calls = CardCalls::default();
        let of = |bits| Asking { calls, facts: CardFacts::of_driver(bits) }.words();
        assert_eq!(of(0b111), "the card tells time, hash, VLAN");
        assert_eq!(of(0b010), "the card tells hash, not time, VLAN");
    }
}
