//! What the kernel says of a network interface: one rtnetlink question, one answer.
//!
//! Reads only; never changes an interface. Works in the network namespace of the thread that made
//! the [`Links`] socket, for as long as it is open.

use std::io;
use std::os::fd::OwnedFd;

use flowyard_kernel::CardFacts;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::PortError;
use crate::error::NO_INTERFACE;

/// An interface as it is now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Interface {
    /// Its name.
    pub name: String,
    /// Its number in its namespace.
    pub index: u32,
    /// ARPHRD_… (include/uapi/linux/if_arp.h): what its frames begin with.
    pub hardware: u16,
    /// IFF_… flags.
    pub flags: u32,
    /// Largest payload of a frame, without layer-2 headers.
    pub mtu: u32,
    /// Receive queues it could use; an upper bound for those it does.
    pub most_queues: u32,
    /// The XDP programs on it: mode (XDP_ATTACHED_…) and id.
    pub xdp: Vec<(XdpPlace, u32)>,
    /// Frames that came in.
    pub packets: u64,
    /// Frames the card dropped because it had no buffer (`rx_missed_errors`).
    pub missed: u64,
    /// Frames dropped on their way out (`tx_dropped`).
    pub send_dropped: u64,
}

/// Where an XDP program sits on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum XdpPlace {
    /// In the driver.
    Native,
    /// In the stack.
    Generic,
    /// On the card.
    Hardware,
}

impl XdpPlace {
    /// What `ip link` calls it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            XdpPlace::Native => "xdpdrv",
            XdpPlace::Generic => "xdpgeneric",
            XdpPlace::Hardware => "xdpoffload",
        }
    }
}

impl Interface {
    /// Whether it is up and has a carrier.
    pub(crate) fn running(&self) -> bool {
        self.flags & (libc::IFF_UP | libc::IFF_RUNNING) as u32 == (libc::IFF_UP | libc::IFF_RUNNING) as u32
    }

    /// Whether it is administratively up.
    pub(crate) fn up(&self) -> bool {
        self.flags & libc::IFF_UP as u32 != 0
    }

    /// Looks interface `name` of port `port` up.
    ///
    /// # Errors
    /// That there is none, and which there are.
    pub(crate) fn find(port: &str, name: &str) -> Result<Interface, PortError> {
        let fail = |problem: io::Error| PortError::action(port, format!("look up interface {name:?}"), problem, "");
        match Links::open().and_then(|links| links.by_name(name)) {
            Ok(found) => Ok(found),
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) || e.raw_os_error() == Some(libc::EINVAL) => {
                Err(PortError::Name {
                    name: port.into(),
                    problem: format!("{NO_INTERFACE} {name:?}"),
                    remedy: match interface_names() {
                        names if names.is_empty() => "`ip link` lists those there are".into(),
                        names => format!("there are {}", names.join(", ")),
                    },
                })
            }
            Err(e) => Err(fail(e)),
        }
    }
}

// include/uapi/linux/genetlink.h, netdev.h
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const GENL_BYTES: usize = 4;
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const NETDEV_A_DEV_XDP_RX_METADATA_FEATURES: u16 = 5;
const NETDEV_XDP_ACT_BASIC: u32 = 1;
const NETDEV_XDP_ACT_XSK_ZEROCOPY: u32 = 8;

/// A socket for asking about interfaces.
#[derive(Debug)]
pub(crate) struct Links(OwnedFd);

// include/uapi/linux/rtnetlink.h, if_link.h
const HEADER_BYTES: usize = 16;
const IFINFO_BYTES: usize = 16;
const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const NLM_F_REQUEST: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_STATS64: u16 = 23;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const XDP_PLACES: [(u16, XdpPlace); 3] = [(5, XdpPlace::Native), (6, XdpPlace::Generic), (7, XdpPlace::Hardware)];
/// `rx_missed_errors` is the 15th u64 of `struct rtnl_link_stats64`.
const MISSED_AT: usize = 14 * 8;
/// `tx_dropped` is the 8th.
const SEND_DROPPED_AT: usize = 7 * 8;

impl Links {
    /// Opens it in the calling thread's network namespace.
    pub(crate) fn open() -> io::Result<Links> {
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None, // NETLINK_ROUTE is protocol 0
        )?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        Ok(Links(fd))
    }

    /// The interface of that name.
    pub(crate) fn by_name(&self, name: &str) -> io::Result<Interface> {
        if name.is_empty() || name.len() >= libc::IFNAMSIZ {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        self.ask(0, Some(name))
    }

    /// The interface of that number. ENODEV when it is gone.
    pub(crate) fn by_index(&self, index: u32) -> io::Result<Interface> {
        self.ask(index, None)
    }

    fn ask(&self, index: u32, name: Option<&str>) -> io::Result<Interface> {
        let mut info = [0u8; IFINFO_BYTES];
        info[4..8].copy_from_slice(&index.to_ne_bytes());
        let attribute = name.map(|name| (IFLA_IFNAME, [name.as_bytes(), &[0]].concat()));
        let mut answer = vec![0u8; 32 << 10];
        let len = exchange(&self.0, RTM_GETLINK, &info, attribute, &mut answer)?;
        parse(&answer[..len]).unwrap_or_else(|| Err(Errno::BADMSG.into()))
    }

    /// Whether the driver of interface `index` runs XDP programs itself. `None` where the kernel does
    /// not say (before 6.3).
    pub(crate) fn driver_has_xdp(&self, index: u32) -> Option<bool> {
        self.driver_says(index, NETDEV_A_DEV_XDP_FEATURES).map(|features| features & NETDEV_XDP_ACT_BASIC != 0)
    }

    /// Whether the driver of interface `index` has packets written into our memory by the card. `None` as above.
    pub(crate) fn driver_has_zero_copy(&self, index: u32) -> Option<bool> {
        self.driver_says(index, NETDEV_A_DEV_XDP_FEATURES).map(|features| features & NETDEV_XDP_ACT_XSK_ZEROCOPY != 0)
    }

    /// What the driver of interface `index` lets an XDP program know of a packet. `None` where the kernel does not say
    /// (before 6.7).
    pub(crate) fn driver_knows(&self, index: u32) -> Option<CardFacts> {
        self.driver_says(index, NETDEV_A_DEV_XDP_RX_METADATA_FEATURES).map(|bits| CardFacts::of_driver(bits.into()))
    }

    /// What the driver of an interface says of XDP: one of its attributes, a set of bits.
    fn driver_says(&self, index: u32, attribute: u16) -> Option<u32> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(rustix::net::netlink::GENERIC),
        )
        .ok()?;
        let mut answer = vec![0u8; 32 << 10];
        let mut ask = |kind: u16, command: u8, attribute, wanted: u16| {
            let len = exchange(&socket, kind, &[command, 1, 0, 0], Some(attribute), &mut answer).ok()?;
            let found = answer.get(..len)?;
            if u16_at(found, 4)? == NLMSG_ERROR {
                return None;
            }
            let value = attributes(found.get(HEADER_BYTES + GENL_BYTES..)?).find(|(k, _)| *k == wanted)?.1;
            Some(if value.len() < 4 { u32::from(u16_at(value, 0)?) } else { u32_at(value, 0)? })
        };
        let name = (CTRL_ATTR_FAMILY_NAME, b"netdev\0".to_vec());
        let family = ask(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, name, CTRL_ATTR_FAMILY_ID)?;
        let which = (NETDEV_A_DEV_IFINDEX, index.to_ne_bytes().to_vec());
        // The low half of a u64, on the little-endian machines that this runs on.
        ask(family as u16, NETDEV_CMD_DEV_GET, which, attribute)
    }
}

/// Sends one netlink request, a fixed part and at most one attribute, and receives its answer.
fn exchange(
    socket: &OwnedFd,
    kind: u16,
    fixed: &[u8],
    attribute: Option<(u16, Vec<u8>)>,
    answer: &mut [u8],
) -> io::Result<usize> {
    let mut request = vec![0u8; HEADER_BYTES];
    request.extend(fixed);
    if let Some((kind, value)) = attribute {
        request.extend((4 + value.len() as u16).to_ne_bytes());
        request.extend(kind.to_ne_bytes());
        request.extend(value);
        request.resize(request.len().next_multiple_of(4), 0);
    }
    let len = request.len() as u32;
    request[0..4].copy_from_slice(&len.to_ne_bytes());
    request[4..6].copy_from_slice(&kind.to_ne_bytes());
    request[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    rustix::net::send(socket, &request, SendFlags::empty())?;
    Ok(rustix::net::recv(socket, answer, RecvFlags::empty())?.0)
}

/// One answer: an interface, or the kernel's error. `None` if it is neither.
fn parse(message: &[u8]) -> Option<io::Result<Interface>> {
    let kind = u16_at(message, 4)?;
    if kind == NLMSG_ERROR {
        return Some(Err(io::Error::from_raw_os_error(-(u32_at(message, HEADER_BYTES)? as i32))));
    }
    if kind != RTM_NEWLINK {
        return None;
    }
    let info = message.get(HEADER_BYTES..)?;
    let mut found = Interface {
        hardware: u16_at(info, 2)?,
        index: u32_at(info, 4)?,
        flags: u32_at(info, 8)?,
        most_queues: 1,
        ..Interface::default()
    };
    for (kind, value) in attributes(info.get(IFINFO_BYTES..)?) {
        match kind {
            IFLA_IFNAME => found.name = String::from_utf8_lossy(value).trim_end_matches('\0').into(),
            IFLA_MTU => found.mtu = u32_at(value, 0)?,
            IFLA_NUM_RX_QUEUES => found.most_queues = u32_at(value, 0)?.max(1),
            IFLA_STATS64 => {
                found.missed = u64_at(value, MISSED_AT).unwrap_or(0);
                found.packets = u64_at(value, 0).unwrap_or(0);
                found.send_dropped = u64_at(value, SEND_DROPPED_AT).unwrap_or(0);
            }
            IFLA_XDP => found.xdp = programs(value),
            _ => {}
        }
    }
    Some(Ok(found))
}

/// The programs in an IFLA_XDP attribute.
fn programs(value: &[u8]) -> Vec<(XdpPlace, u32)> {
    let place = |kind| XDP_PLACES.iter().find(|(k, _)| *k == kind).map(|(_, place)| *place);
    let mut found: Vec<_> =
        attributes(value).filter_map(|(kind, value)| Some((place(kind)?, u32_at(value, 0)?))).collect();
    if found.is_empty() {
        // One program alone is told in two attributes: where it sits, and its id.
        let attached = attributes(value).find(|(k, _)| *k == IFLA_XDP_ATTACHED).and_then(|(_, v)| v.first().copied());
        let id = attributes(value).find(|(k, _)| *k == IFLA_XDP_PROG_ID).and_then(|(_, v)| u32_at(v, 0));
        let place = match attached {
            Some(1) => Some(XdpPlace::Native),
            Some(2) => Some(XdpPlace::Generic),
            Some(3) => Some(XdpPlace::Hardware),
            _ => None,
        };
        found.extend(place.zip(id));
    }
    found
}

/// The attributes in `bytes`, up to the first that does not fit.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & 0x3fff; // without NLA_F_NESTED and NLA_F_NET_BYTEORDER
        let value = rest.get(4..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// What is unique to the calling thread's network namespace as long as the machine runs: its cookie, or before
/// Linux 5.14 the number of its inode, which another may have after it.
pub(crate) fn namespace() -> u64 {
    /// include/uapi/asm-generic/socket.h
    const SO_NETNS_COOKIE: i32 = 71;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    let cookie = socket.ok().and_then(|fd| crate::sys::option::<u64>(fd, libc::SOL_SOCKET, SO_NETNS_COOKIE).ok());
    let inode = || Some(std::os::unix::fs::MetadataExt::ino(&std::fs::metadata("/proc/thread-self/ns/net").ok()?));
    cookie.or_else(inode).unwrap_or(0)
}

/// Names of the interfaces there are, in the calling thread's namespace.
fn interface_names() -> Vec<String> {
    // /proc/thread-self, because /sys/class/net shows the namespace it was mounted in.
    let table = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    table.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_there_and_nonsense_is_not() {
        let links = Links::open().expect("a netlink socket needs no privilege");
        let lo = links.by_name("lo").expect("every namespace has one");
        assert_eq!((lo.name.as_str(), lo.hardware), ("lo", libc::ARPHRD_LOOPBACK));
        assert_eq!(links.by_index(lo.index).expect("it is still there").index, lo.index);
        let error = Interface::find("xdp:nosuch0", "nosuch0").expect_err("there is none").to_string();
        assert!(error.contains("there are") && error.contains("lo"), "{error}");
        assert!(links.by_index(u32::MAX >> 1).is_err());
        assert_ne!(links.driver_has_xdp(lo.index), Some(true), "loopback has no XDP of its own");
    }

    #[test]
    fn cut_answers_are_refused_not_trusted() {
        let mut message = [0u8; 48];
        message[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
        message[32..34].copy_from_slice(&200u16.to_ne_bytes()); // longer than what is there
        for len in 0..message.len() {
            let _ = parse(&message[..len]);
        }
    }
}
