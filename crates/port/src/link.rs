//! What an interface's frames begin with, in the words that capture files use.

/// LINKTYPE_ETHERNET.
pub(crate) const ETHERNET: u16 = 1;
/// LINKTYPE_RAW: an IPv4 or IPv6 packet, told apart by its first nibble.
pub(crate) const RAW: u16 = 101;
/// LINKTYPE_LINUX_SLL: a cooked header of 16 bytes, for whatever has no better one.
pub(crate) const COOKED: u16 = 113;

// include/uapi/linux/if_arp.h
const ARPHRD_RAWIP: u16 = 519;
const ARPHRD_NONE: u16 = 0xfffe;

/// Link type for an interface whose hardware type is `hardware` (ARPHRD_…).
pub(crate) fn link_type(hardware: u16) -> u16 {
    match hardware {
        libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK => ETHERNET,
        // Tunnels and TUN devices: IP packets with nothing of their own in front.
        ARPHRD_NONE
        | ARPHRD_RAWIP
        | libc::ARPHRD_PPP
        | libc::ARPHRD_TUNNEL
        | libc::ARPHRD_TUNNEL6
        | libc::ARPHRD_SIT => RAW,
        _ => COOKED,
    }
}
