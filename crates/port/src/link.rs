//! What an interface's frames begin with, in the words that capture files use.

/// LINKTYPE_ETHERNET.
pub(crate) const ETHERNET: u16 = 1;
/// LINKTYPE_PPP: a PPP frame, with or without address and control field.
pub(crate) const PPP: u16 = 9;
/// LINKTYPE_RAW: an IPv4 or IPv6 packet, told apart by its first nibble.
pub(crate) const RAW: u16 = 101;
/// LINKTYPE_LINUX_SLL: the kernel's cooked header of 16 bytes.
pub(crate) const COOKED: u16 = 113;

// include/uapi/linux/if_arp.h
const ARPHRD_RAWIP: u16 = 519;
const ARPHRD_NONE: u16 = 0xfffe;

/// Link type of an interface whose hardware type is `hardware` (ARPHRD_…). `None` where its frames
/// begin with something that no parser here knows, so that cooked ones must be asked for.
pub(crate) fn link_type(hardware: u16) -> Option<u16> {
    match hardware {
        libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK => Some(ETHERNET),
        libc::ARPHRD_PPP => Some(PPP),
        // Tunnels without a layer-2 header: a packet socket sees their inner IP packet.
        ARPHRD_NONE
        | ARPHRD_RAWIP
        | libc::ARPHRD_TUNNEL
        | libc::ARPHRD_TUNNEL6
        | libc::ARPHRD_SIT
        | libc::ARPHRD_IPGRE => Some(RAW),
        _ => None,
    }
}
