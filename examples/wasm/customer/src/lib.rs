//! Keeps each customer's traffic together, by the innermost addresses, whatever tunnel it comes in.
//!
//! Customers' prefixes are in a shared table, whose name is the configuration:
//!
//! ```text
//! cargo build --release --target wasm32-unknown-unknown
//! flowyard run --table customers:lpm:key=4,value=4,entries=100000 --table-file customers=prefixes.csv \
//!     --steer wasm:customer.wasm?config=name-of-the-table.txt …
//! ```
//!
//! The customer's number, that of the destination or else of the source, is the hash of all of his packets, the tag's mark,
//! and the annotation's first four bytes. Who is nobody's customer goes by the built-in policy.
#![no_std]

#[path = "../../../../crates/wasm/guest/flowyard_guest.rs"]
mod flowyard_guest;

#[cfg(target_arch = "wasm32")]
mod function {
    use core::cell::Cell;

    use crate::flowyard_guest::{ABI, Host, Packet, Table, batch, say, verdict};

    /// A guest has one thread.
    struct Once(Cell<Option<Table>>);
    // SAFETY: as said.
    unsafe impl Sync for Once {}

    static CUSTOMERS: Once = Once(Cell::new(None));

    #[unsafe(no_mangle)]
    extern "C" fn abi() -> u32 {
        ABI
    }

    #[unsafe(no_mangle)]
    extern "C" fn annotation_bytes() -> u32 {
        4
    }

    #[unsafe(no_mangle)]
    extern "C" fn open(_: &Host, config: *const u8, len: usize) -> i32 {
        // SAFETY: what the yard gave us, used within the call.
        let config = unsafe { core::slice::from_raw_parts(config, len) };
        let Ok(name) = core::str::from_utf8(config) else {
            say("the configuration is the name of a table");
            return 1;
        };
        CUSTOMERS.0.set(Table::open(name.trim(), 4, 4));
        i32::from(CUSTOMERS.0.get().is_none()) // the yard says why
    }

    #[unsafe(no_mangle)]
    extern "C" fn steer(packets: *mut Packet, count: u32) -> i32 {
        let Some(customers) = CUSTOMERS.0.get() else { return 1 };
        // SAFETY: what the yard gave us, used within the call.
        for packet in unsafe { batch(packets, count) } {
            let Some(customer) = customer(customers, packet) else { continue };
            packet.tag.user = customer.into();
            if let Some(to) = packet.annotation().first_chunk_mut() {
                *to = customer.to_le_bytes();
            }
            if packet.is_undecided() {
                (packet.verdict.kind, packet.verdict.value) = (verdict::HASH, customer.wrapping_mul(0x9e37_79b1));
            }
        }
        0
    }

    /// Whose packet it is.
    fn customer(customers: Table, packet: &Packet) -> Option<u32> {
        /// Offsets of an IPv4 header: RFC 791, 3.1.
        const SRC: usize = 12;
        const DST: usize = 16;
        const INNER_IPV6: u8 = 8;

        let header = packet.bytes().get(packet.tag.inner_l3.into()..)?;
        if packet.tag.kind & INNER_IPV6 != 0 {
            return None;
        }
        let mut number = [0; 4];
        let is_one = [DST, SRC].into_iter().any(|at| header.get(at..at + 4).is_some_and(|key| customers.get(key, &mut number)));
        is_one.then_some(u32::from_le_bytes(number))
    }

    #[panic_handler]
    fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
        say("panicked");
        core::arch::wasm32::unreachable()
    }
}
