//! `packet:IF`: a packet socket (TPACKET_V3), for any interface.
//!
//! The fallback where AF_XDP cannot be had. It copies each packet once, out of the kernel's blocks
//! into buffers of the region, and the packet still goes its normal way through the host. It costs
//! more a packet than `xdp:` and sees more: unfinished checksums, merged (GSO) frames, VLAN tags
//! that were taken off, and what the host itself sends are all told in the flags. Frames longer than
//! a buffer span several.
//!
//! Interfaces without Ethernet headers give raw IP packets (tunnels, TUN) or, where the hardware has
//! a header that no parser knows, cooked ones (LINKTYPE_LINUX_SLL; those tell merged TCP frames alone).
//!
//! What this host sends is received as well, flagged OUTGOING, unless `?incoming` says otherwise, or packets are sent by
//! the port: those would come in again. Not on loopback, where everything sent comes in anyway.
//!
//! The kernel hands over whole blocks, at the latest [`RETIRE_MS`] milliseconds after their first
//! packet. When all blocks are full, packets are lost and counted as `kernel-ring-full`.
//!
//! With several parts the sockets form a fan-out group: the kernel's symmetric flow hash settles
//! which of them gets a packet. `?fanout=N` joins the group N of this network namespace instead.

#[cfg(feature = "bench")]
pub(crate) mod bare;
mod frame;
mod port;
mod ring;
mod sink;
mod transmitter;

use std::sync::{Arc, Mutex};

use flowyard_mem::{Region, Stock};

use crate::interface::Interface;
use crate::{Opener, Port, PortError, PortInfo, PortSpec};

pub use sink::PacketSink;
pub(crate) use transmitter::PacketTransmitter;

/// Milliseconds after which the kernel hands over a block that is not full.
const RETIRE_MS: u32 = 4;
/// KiB of a block: room for several frames of 64 KiB.
const BLOCK_KIB: u32 = 256;
/// Blocks of a ring.
const BLOCKS: u32 = 64;
/// Bytes of the longest frame that is not cut: an IP packet of 65535 bytes that the kernel has
/// merged, its Ethernet header with two VLAN tags, or a cooked header.
const LONGEST: usize = 65535 + 22;

/// What the user asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Options {
    promiscuous: bool,
    incoming: bool,
    hardware_time: bool,
    fanout: Option<u16>,
    block_kib: u32,
    blocks: u32,
}

impl Options {
    fn read(spec: &PortSpec) -> Result<Options, PortError> {
        spec.only(&["promisc", "incoming", "hwtime", "fanout", "block", "blocks"])?;
        let block_kib = spec.value("block", "KiB: a power of two from 128 to 4096")?.unwrap_or(BLOCK_KIB);
        if !u32::is_power_of_two(block_kib) || !(128..=4096).contains(&block_kib) {
            return Err(
                spec.bad_option(format!("option block is {block_kib}"), "write a power of two from 128 to 4096")
            );
        }
        let blocks = spec.value("blocks", "a number from 2 to 4096")?.unwrap_or(BLOCKS);
        if !(2..=4096).contains(&blocks) {
            return Err(spec.bad_option(format!("option blocks is {blocks}"), "write a number from 2 to 4096"));
        }
        Ok(Options {
            promiscuous: spec.flag("promisc")?,
            incoming: spec.flag("incoming")?,
            hardware_time: spec.flag("hwtime")?,
            fanout: spec.value("fanout", "a number from 0 to 65535")?,
            block_kib,
            blocks,
        })
    }
}

/// What the openers of one `prepare` share.
#[derive(Debug)]
struct Shared {
    name: String,
    interface: Interface,
    options: Options,
    parts: usize,
    /// The fan-out group, once its first socket has made it.
    group: Mutex<Option<u16>>,
}

struct PacketOpener {
    shared: Arc<Shared>,
    info: PortInfo,
    /// A way out was asked for: then what is sent must not come in again.
    transmit: bool,
}

impl Opener for PacketOpener {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn ask_transmission(&mut self) -> Result<(), PortError> {
        self.transmit = true;
        Ok(())
    }

    fn open(self: Box<Self>, region: &Region, _stock: &mut Stock) -> Result<Box<dyn Port>, PortError> {
        Ok(Box::new(port::PacketPort::open(self.shared, self.info, self.transmit, region)?))
    }
}

/// Looks the interface up; one opener a part.
pub(crate) fn prepare(spec: &PortSpec, parts: usize) -> Result<Vec<Box<dyn Opener>>, PortError> {
    let options = Options::read(spec)?;
    let name = spec.name();
    let interface = Interface::find(&name, &spec.what)?;
    let parts = parts.max(1);
    let info = PortInfo {
        name: name.clone(),
        mode: format!("packet socket, {} blocks of {} KiB", options.blocks, options.block_kib),
        can_wait: false,
        live: true,
        longest_packet: LONGEST,
        buffers_held: 0,
        buffer_bytes: 2048,
    };
    let group = Mutex::new(options.fanout);
    let shared = Arc::new(Shared { name, interface, options, parts, group });
    let opener =
        |_| Box::new(PacketOpener { shared: shared.clone(), info: info.clone(), transmit: false }) as Box<dyn Opener>;
    Ok((0..parts).map(opener).collect())
}

/// What the reader can do about the system's error `errno`.
fn remedy(errno: Option<i32>) -> &'static str {
    match errno {
        Some(libc::EPERM | libc::EACCES) => {
            "it needs CAP_NET_RAW: run it as root (sudo), or `setcap cap_net_raw+ep PROGRAM`"
        }
        Some(libc::ENOMEM) => "ask for fewer or smaller blocks: ?blocks=N&block=KIB",
        Some(libc::ENETDOWN) => "bring the interface up: `ip link set IF up`",
        _ => "",
    }
}
