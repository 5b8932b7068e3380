//! EtherTypes (IANA "IEEE 802 Numbers"): which protocol comes next.

use crate::walk::Step;
use crate::{Layer, Stop};

/// The EtherTypes that are looked into or known to lead nowhere. To register one, add a line.
#[rustfmt::skip]
const BUILT_IN: &[(u16, Layer)] = &[
    (0x0800, Layer::Ip),
    (0x86dd, Layer::Ipv6),
    (0x8100, Layer::Vlan),
    (0x9100, Layer::Vlan),
    (0x9200, Layer::Vlan),
    (0x9300, Layer::Vlan),
    (0x88a8, Layer::Dot1ad),
    (0x8847, Layer::Mpls),
    (0x8848, Layer::Mpls),
    (0x8864, Layer::Pppoe),
    (0x8863, Layer::PppoeDisc),
    (0x880b, Layer::Ppp),
    (0x6558, Layer::Eth),
    (0x8903, Layer::FabricPath),
    (0x8909, Layer::Cmd),
    (0x8926, Layer::VnTag),
    (0x893f, Layer::ETag),
    (0x88e5, Layer::Macsec),
    (0x88e7, Layer::Dot1ah),
    (0x894f, Layer::Nsh),
    (0x22f3, Layer::Trill),
    (0x6559, Layer::Fr),
    (0x0806, Layer::Arp),
    (0x8035, Layer::Arp),
];

/// The protocol behind an EtherType. One look-up and one comparison, so that a mix of types costs
/// the branch predictor no more than a single one.
#[inline(always)]
pub(crate) fn next(ethertype: u16) -> Step {
    let (known, layer) = TABLE[place(ethertype, FACTOR)];
    // A place that nobody took holds type 0, which is none.
    if known == ethertype && ethertype != 0 { Ok(layer) } else { Err(Stop::UnknownEthertype) }
}

const PLACES: usize = 64;

/// A multiplier that gives each registered type a place of its own.
const FACTOR: u16 = {
    let mut factor = 1;
    while table(factor).is_none() {
        factor += 2;
    }
    factor
};

const TABLE: [(u16, Layer); PLACES] = match table(FACTOR) {
    Some(table) => table,
    None => panic!("raise PLACES"),
};

#[inline(always)]
const fn place(ethertype: u16, factor: u16) -> usize {
    (ethertype.wrapping_mul(factor) >> 10) as usize & (PLACES - 1)
}

const fn table(factor: u16) -> Option<[(u16, Layer); PLACES]> {
    // 0 is no EtherType.
    let mut table = [(0, Layer::Eth); PLACES];
    let mut index = 0;
    while index < BUILT_IN.len() {
        let place = place(BUILT_IN[index].0, factor);
        if table[place].0 != 0 {
            return None;
        }
        table[place] = BUILT_IN[index];
        index += 1;
    }
    Some(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_found_and_no_other() {
        let mut found = 0;
        for ethertype in 0..=u16::MAX {
            let expected = BUILT_IN.iter().find(|known| known.0 == ethertype).map(|known| known.1);
            assert_eq!(next(ethertype).ok(), expected);
            found += usize::from(expected.is_some());
        }
        assert_eq!(found, BUILT_IN.len());
    }
}
