//! What consumers have sent: one dispatcher's ways out of all ports of the yard, and the packets on their way there.
//!
//! A consumer returns a packet's slots with [`Verdict::Transmit`](flowyard_mem::Verdict) and the number of a port. They
//! are checked here like all that a consumer writes: the ledger has vouched for the buffer, the rest is held against
//! the buffer's own bounds. Then the port's [`Transmitter`] has the packet. A port that this dispatcher owns a part of
//! sends by that part's own way; any other by one opened beside it.
//!
//! Every packet that was to be sent is counted: `asked = sent + refused`, by port; one for a port that there is not, as
//! that. It was delivered before, and stays so: this is an equation of its own.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use flowyard_mem::abi::TAG_BYTES;
use flowyard_mem::{Buffer, Region, Slot, Stock, Tag, flags, slot_flags};
use flowyard_port::capture::PcapOutput;
use flowyard_port::{
    Departure, Kind, Leaving, PortError, PortInfo, PortSpec, Refusal, TransmitCounters, Transmitter,
    unfinished_checksum,
};

use crate::YardError;
use crate::dispatcher::Dispatcher;

/// Most buffers of one packet: more than the longest has.
const MOST_SEGMENTS: usize = 256;

/// A way out, and the number of its port.
pub(crate) type Numbered = (u16, Box<dyn Transmitter>);
/// One dispatcher's, by port.
type ByPort = Vec<Option<Box<dyn Transmitter>>>;

/// One dispatcher's ways out.
pub(crate) struct WaysOut {
    region: Region,
    ports: Vec<WayOut>,
    /// By outlet: the packet whose slots are coming home.
    coming: Vec<Coming>,
    no_such_port: u64,
    /// Something was sent since the last flush, or is in flight.
    busy: bool,
    /// Something waits to be sent.
    pressing: bool,
}

/// The way out of one port, if it has one.
struct WayOut {
    transmitter: Option<Box<dyn Transmitter>>,
    /// What was refused before the transmitter saw it.
    refused: TransmitCounters,
}

/// A packet of which not all slots have come.
#[derive(Default)]
struct Coming {
    segments: Vec<Leaving>,
    first: Slot,
    tag: Tag,
    /// It was refused: what is left of it is freed.
    refused: bool,
}

/// What was sent, when all has ended.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// By port.
    pub(crate) ports: Vec<TransmitCounters>,
    pub(crate) no_such_port: u64,
    pub(crate) errors: Vec<String>,
}

impl WaysOut {
    fn new(region: &Region, ports: ByPort) -> WaysOut {
        let way = |transmitter| WayOut { transmitter, refused: TransmitCounters::default() };
        WaysOut {
            region: region.clone(),
            ports: ports.into_iter().map(way).collect(),
            coming: Vec::new(),
            no_such_port: 0,
            busy: false,
            pressing: false,
        }
    }

    /// Takes a slot that a consumer returned to be sent, and its buffer, which is ours alone. Answers false if it
    /// continues no packet: then it is freed.
    #[cold]
    pub(crate) fn take(&mut self, outlet: usize, buffer: Buffer, slot: Slot, stock: &mut Stock) -> bool {
        let starts = slot.flags & slot_flags::CONTINUES == 0;
        if starts {
            self.begin(outlet, slot, stock);
            self.coming[outlet].tag = self.region.tag(&buffer);
        }
        let Some(coming) = self.coming.get_mut(outlet) else {
            stock.put(buffer);
            return false;
        };
        if !starts && coming.segments.is_empty() {
            stock.put(buffer);
            let known = coming.refused;
            coming.refused &= slot.flags & slot_flags::MORE != 0;
            return known;
        }
        let Slot { offset, len, .. } = slot;
        coming.segments.push(Leaving { buffer, offset, len });
        let geometry = self.region.geometry();
        let floor = geometry.tag_offset() + TAG_BYTES;
        let (start, end) = (usize::from(offset), usize::from(offset) + usize::from(len));
        if start < floor || end > geometry.buffer_bytes {
            self.refuse(outlet, Refusal::Malformed, stock);
        } else if coming.segments.len() > MOST_SEGMENTS {
            self.refuse(outlet, Refusal::TooLong, stock);
        } else if slot.flags & slot_flags::MORE == 0 {
            self.send(outlet, stock);
            return true;
        }
        self.coming[outlet].refused &= slot.flags & slot_flags::MORE != 0;
        true
    }

    /// Takes note of a slot to be sent whose buffer others hold as well.
    #[cold]
    pub(crate) fn take_shared(&mut self, outlet: usize, slot: Slot, stock: &mut Stock) {
        if slot.flags & slot_flags::CONTINUES == 0 {
            self.begin(outlet, slot, stock);
            self.refuse(outlet, Refusal::Shared, stock);
        } else if self.coming.get(outlet).is_some_and(|coming| !coming.segments.is_empty()) {
            self.refuse(outlet, Refusal::Shared, stock);
        }
        if let Some(coming) = self.coming.get_mut(outlet) {
            coming.refused &= slot.flags & slot_flags::MORE != 0;
        }
    }

    /// A new packet of this outlet.
    fn begin(&mut self, outlet: usize, first: Slot, stock: &mut Stock) {
        self.abandon(outlet, stock);
        if outlet >= self.coming.len() {
            self.coming.resize_with(outlet + 1, Coming::default);
        }
        let coming = &mut self.coming[outlet];
        (coming.first, coming.refused) = (first, false);
    }

    /// Refuses what has come of a packet whose end has not.
    pub(crate) fn abandon(&mut self, outlet: usize, stock: &mut Stock) {
        if self.coming.get(outlet).is_some_and(|coming| !coming.segments.is_empty()) {
            self.refuse(outlet, Refusal::Malformed, stock);
        }
    }

    fn refuse(&mut self, outlet: usize, why: Refusal, stock: &mut Stock) {
        let coming = &mut self.coming[outlet];
        coming.refused = true;
        coming.segments.drain(..).for_each(|segment| stock.put(segment.buffer));
        match self.ports.get_mut(usize::from(coming.first.port)) {
            Some(way) => {
                way.refused.asked += 1;
                way.refused.refuse(why);
            }
            None => self.no_such_port += 1,
        }
    }

    /// Sends a packet that is all there.
    fn send(&mut self, outlet: usize, stock: &mut Stock) {
        let coming = &mut self.coming[outlet];
        let way = self.ports.get_mut(usize::from(coming.first.port));
        let Some(transmitter) = way.and_then(|way| way.transmitter.as_mut()) else {
            return self.refuse(outlet, Refusal::ReceiveOnly, stock); // or there is no such port, which it sees
        };
        let as_received = self.region.geometry().packet_offset();
        match departure(&coming.first, &coming.tag, as_received, transmitter.link()) {
            Ok(_) if coming.segments.iter().all(|segment| segment.len == 0) => {
                self.refuse(outlet, Refusal::Malformed, stock);
            }
            Ok(mut departure) => {
                if departure.flags & flags::CHECKSUM_PARTIAL != 0 && pulled_with_it(&self.region, coming, as_received) {
                    departure.flags &= !flags::CHECKSUM_PARTIAL;
                }
                transmitter.send(&mut coming.segments, &departure, stock);
                self.busy = true;
            }
            Err(why) => self.refuse(outlet, why, stock),
        }
        self.coming[outlet].refused = false;
    }

    /// Has ports send what was gathered, and takes buffers home that they are done with.
    #[inline]
    pub(crate) fn flush(&mut self, stock: &mut Stock) {
        if self.busy {
            self.flush_all(stock);
        }
    }

    #[cold]
    fn flush_all(&mut self, stock: &mut Stock) {
        (self.busy, self.pressing) = (false, false);
        for transmitter in self.ports.iter_mut().filter_map(|way| way.transmitter.as_mut()) {
            self.pressing |= transmitter.flush(stock);
            self.busy |= self.pressing || transmitter.in_flight() > 0;
        }
    }

    /// Whether something waits to be sent, so that it is no time to sleep.
    pub(crate) fn is_pressing(&self) -> bool {
        self.pressing
    }

    /// Ends all ways: what can still be sent is.
    pub(crate) fn close(mut self, stock: &mut Stock) -> Sent {
        (0..self.coming.len()).for_each(|outlet| self.abandon(outlet, stock));
        let mut sent = Sent { no_such_port: self.no_such_port, ..Sent::default() };
        for way in self.ports {
            let mut counters = way.refused;
            if let Some(transmitter) = way.transmitter {
                let (theirs, done) = transmitter.close(stock);
                counters.add(&theirs);
                sent.errors.extend(done.err().map(|error| error.to_string()));
            }
            sent.ports.push(counters);
        }
        sent
    }
}

/// What is known of a packet that a consumer returns to be sent by a port of link type `link`. Its slot says what is
/// still undone, its tag the values that belong to that.
fn departure(slot: &Slot, tag: &Tag, as_received: usize, link: u16) -> Result<Departure, Refusal> {
    const UNDONE: [(u16, u32); 4] = [
        (slot_flags::TRUNCATED, flags::TRUNCATED),
        (slot_flags::CHECKSUM_PARTIAL, flags::CHECKSUM_PARTIAL),
        (slot_flags::GSO, flags::GSO),
        (slot_flags::VLAN_STRIPPED, flags::VLAN_STRIPPED),
    ];
    let undone = UNDONE.iter().filter(|(shown, _)| slot.flags & shown != 0).fold(0, |all, (_, flag)| all | flag);
    let mut departure = Departure::of(tag);
    departure.flags = undone | tag.flags & flags::VLAN_SERVICE;
    match usize::from(slot.offset).cmp(&as_received) {
        std::cmp::Ordering::Equal => {}
        // The header that the VLAN tag belongs to is inside now, where it cannot be put back.
        std::cmp::Ordering::Less if undone & flags::VLAN_STRIPPED != 0 => return Err(Refusal::VlanInside),
        // Its start was moved: it begins as packets of that port do. A pulled header's VLAN tag is gone with it.
        _ => {
            departure.flags &= !flags::VLAN_STRIPPED;
            departure.link = link;
        }
    }
    Ok(departure)
}

/// Whether the checksum that is not filled in was in headers that were pulled. They lie before the packet still.
fn pulled_with_it(region: &Region, coming: &Coming, as_received: usize) -> bool {
    let Some(first) = coming.segments.first().filter(|first| usize::from(first.offset) > as_received) else {
        return false;
    };
    let (pulled, whole) =
        (usize::from(first.offset) - as_received, usize::from(first.offset + first.len) - as_received);
    let mut scratch = [0; 4096]; // used only beside foreign writers
    let bytes = region.peek(&first.buffer, as_received, whole, &mut scratch);
    let rest = coming.segments[1..].iter().map(|segment| usize::from(segment.len)).sum::<usize>();
    unfinished_checksum(bytes, whole + rest, coming.tag.link).is_some_and(|start| start < pulled)
}

/// What a yard that transmits needs to know of its ports.
pub(crate) struct Plan {
    /// Number of ports.
    ports: usize,
    /// Those that nothing is received from.
    files: Vec<(u16, PcapOutput)>,
}

impl Plan {
    /// Looks at the ports that are only sent to. Answers `None` for a yard that does not transmit.
    ///
    /// # Errors
    /// Such a port where nothing is sent; one that would overwrite what another reads or writes.
    pub(crate) fn new(transmit: bool, ports: &[PortSpec]) -> Result<Option<Plan>, YardError> {
        let mut files = Vec::new();
        for (number, spec) in ports.iter().enumerate().filter(|(_, spec)| spec.only_sends()) {
            if !transmit {
                let remedy = "have consumers send (YardConfig::transmit, --transmit), or leave ?write out to read it";
                return Err(spec
                    .bad_option("is only sent to (?write), and nothing is sent in this yard", remedy)
                    .into());
            }
            let same = |(other, they): &(usize, &PortSpec)| {
                *other != number && they.kind == Kind::Pcap && same_file(&they.what, &spec.what)
            };
            if let Some((_, they)) = ports.iter().enumerate().find(same) {
                let remedy = "write to another file";
                return Err(spec.bad_option(format!("would overwrite {}", they.name()), remedy).into());
            }
            files.push((number as u16, PcapOutput::new(spec)?));
        }
        Ok(transmit.then_some(Plan { ports: ports.len(), files }))
    }

    /// The ports that nothing is received from.
    pub(crate) fn infos(&self) -> impl Iterator<Item = (u16, PortInfo)> {
        self.files.iter().map(|(number, file)| (*number, file.info().clone()))
    }

    /// Gives every dispatcher a way out of every port that has one. Answers how each port sends.
    ///
    /// # Errors
    /// What could not be had.
    pub(crate) fn open(
        self,
        dispatchers: &mut [Dispatcher],
        region: &Region,
    ) -> Result<Vec<Option<String>>, PortError> {
        let mut ways: Vec<ByPort> = Vec::new();
        for dispatcher in &mut *dispatchers {
            let mut own: Vec<_> = (0..self.ports).map(|_| None).collect();
            for (number, transmitter) in dispatcher.transmitters()? {
                own[usize::from(number)] = Some(transmitter);
            }
            ways.push(own);
        }
        for (number, file) in self.files {
            if let Some(first) = ways.first_mut() {
                first[usize::from(number)] = Some(file.open(region)?);
            }
        }
        let mut modes = Vec::new();
        for port in 0..self.ports {
            let Some(owner) = ways.iter().position(|own| own[port].is_some()) else {
                modes.push(None);
                continue;
            };
            modes.push(ways[owner][port].as_ref().map(|transmitter| transmitter.mode().to_owned()));
            for at in 0..ways.len() {
                if ways[at][port].is_none() {
                    let another = ways[owner][port].as_ref().map(|transmitter| transmitter.another()).transpose()?;
                    ways[at][port] = another;
                }
            }
        }
        for (dispatcher, own) in dispatchers.iter_mut().zip(ways) {
            dispatcher.outlets.ways = Some(Box::new(WaysOut::new(region, own)));
        }
        Ok(modes)
    }
}

/// Whether two names are of one file, or would be.
fn same_file(one: &str, other: &str) -> bool {
    let place = |name: &str| std::fs::metadata(name).ok().map(|m| (m.dev(), m.ino()));
    let whole = |name: &str| {
        let path = Path::new(name);
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Some((folder.canonicalize().ok()?, path.file_name()?.to_owned()))
    };
    match (place(one), place(other)) {
        (Some(one), Some(other)) => one == other,
        _ => one == other || whole(one).zip(whole(other)).is_some_and(|(one, other)| one == other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowyard_mem::Geometry;
    use std::sync::{Arc, Mutex};

    type Said = Arc<Mutex<Vec<(Vec<u8>, Departure)>>>;

    /// A way out that writes down what it is given.
    struct Notes {
        region: Region,
        said: Said,
        counters: TransmitCounters,
    }

    impl Transmitter for Notes {
        fn mode(&self) -> &str {
            "notes"
        }
        fn send(&mut self, packet: &mut Vec<Leaving>, departure: &Departure, stock: &mut Stock) {
            let mut bytes = Vec::new();
            for Leaving { buffer, offset, len } in packet.drain(..) {
                bytes.extend_from_slice(self.region.peek(&buffer, offset.into(), len.into(), &mut [0; 4096]));
                stock.put(buffer);
            }
            self.said.lock().expect("no panic").push((bytes, *departure));
            self.counters.asked += 1;
            self.counters.sent += 1;
        }
        fn flush(&mut self, _stock: &mut Stock) -> bool {
            false
        }
        fn counters(&self) -> TransmitCounters {
            self.counters
        }
        fn another(&self) -> Result<Box<dyn Transmitter>, PortError> {
            unreachable!("one dispatcher")
        }
        fn close(self: Box<Self>, _stock: &mut Stock) -> (TransmitCounters, Result<(), PortError>) {
            (self.counters, Ok(()))
        }
    }

    /// Ways out of port 0, which takes notes, and of port 1, which has none.
    fn ways() -> (WaysOut, Region, Stock, Said) {
        let (region, stock) = Region::create("ways", Geometry::new(2048, 64, 600).expect("geometry")).expect("memory");
        let said = Said::default();
        let notes = Notes { region: region.clone(), said: said.clone(), counters: TransmitCounters::default() };
        (WaysOut::new(&region, vec![Some(Box::new(notes)), None]), region, stock, said)
    }

    const AT: u16 = 320;

    fn slot(offset: u16, len: u16, flags: u16, port: u8) -> Slot {
        Slot { offset, len, flags, port, verdict: 1, ..Slot::default() }
    }

    fn buffer(region: &Region, stock: &mut Stock, bytes: &[u8]) -> Buffer {
        let mut buffer = stock.take().expect("enough");
        assert!(region.write(&mut buffer, AT.into(), bytes));
        region.set_tag(&mut buffer, &Tag { link: 1, stripped_vlan: 9, ..Tag::default() });
        buffer
    }

    fn end(ways: WaysOut, mut stock: Stock) -> (Vec<Vec<(&'static str, u64)>>, u64) {
        let sent = ways.close(&mut stock);
        assert_eq!(stock.len(), stock.capacity(), "every buffer is home");
        let named = |counters: &TransmitCounters| {
            assert!(counters.sums_agree(), "{counters:?}");
            let each = Refusal::ALL.iter().zip(counters.refused);
            each.filter(|(_, n)| *n > 0).map(|(why, n)| (why.name(), n)).collect()
        };
        (sent.ports.iter().map(named).collect(), sent.no_such_port)
    }

    #[test]
    fn segments_of_two_outlets_are_put_together_each_for_itself() {
        let (mut ways, region, mut stock, said) = ways();
        let (more, rest) = (slot_flags::MORE, slot_flags::CONTINUES);
        for (outlet, bytes, flags) in
            [(0, "ab", more), (7, "xy", more), (0, "cd", more | rest), (7, "z", rest), (0, "e", rest)]
        {
            let buffer = buffer(&region, &mut stock, bytes.as_bytes());
            assert!(ways.take(outlet, buffer, slot(AT, bytes.len() as u16, flags, 0), &mut stock));
        }
        let said: Vec<_> = said.lock().expect("no panic").iter().map(|(bytes, _)| bytes.clone()).collect();
        assert_eq!(said, [b"xyz".to_vec(), b"abcde".to_vec()]);
        assert_eq!(end(ways, stock), (vec![vec![], vec![]], 0));
    }

    #[test]
    fn what_a_consumer_writes_is_held_against_the_buffer() {
        let (mut ways, region, mut stock, said) = ways();
        let mut take = |outlet, slot| {
            let buffer = buffer(&region, &mut stock, b"packet");
            ways.take(outlet, buffer, slot, &mut stock)
        };
        let (more, rest) = (slot_flags::MORE, slot_flags::CONTINUES);
        assert!(take(0, slot(127, 6, 0, 0))); // into the tag
        assert!(take(0, slot(0, 6, 0, 0)));
        assert!(take(0, slot(2047, 2, 0, 0)));
        assert!(take(0, slot(u16::MAX, u16::MAX, 0, 0)));
        assert!(take(0, slot(AT, 0, 0, 0)));
        assert!(take(0, slot(AT, 6, more, 0)) && take(0, slot(5, 6, more | rest, 0))); // the second is not right
        assert!(take(0, slot(AT, 6, rest, 0)), "the rest of it is freed");
        assert!(!take(0, slot(AT, 6, rest, 0)), "of nothing");
        assert!(!take(3, slot(AT, 6, rest, 0)), "of an outlet of which nothing came");
        assert!(take(0, slot(AT, 6, more, 0))); // and no end: the next one begins
        assert!(take(0, slot(AT, 6, 0, 1)));
        assert!(take(0, slot(AT, 6, 0, 2)));
        assert!(take(0, slot(AT, 6, 0, 255)));
        assert!(take(0, slot(AT, 6, more, 0)));
        for _ in 0..MOST_SEGMENTS {
            assert!(take(0, slot(AT, 6, more | rest, 0)));
        }
        assert!(take(0, slot(AT, 6, 0, 0)));
        assert!(take(1, slot(AT, 6, more, 0))); // open at the end
        assert_eq!(said.lock().expect("no panic").len(), 1);
        let refused = vec![vec![("too-long", 1), ("malformed", 8)], vec![("receive-only", 1)]];
        assert_eq!(end(ways, stock), (refused, 2));
    }

    #[test]
    fn shared_buffers_are_refused_and_what_is_left_of_them_freed() {
        let (mut ways, region, mut stock, said) = ways();
        let (more, rest) = (slot_flags::MORE, slot_flags::CONTINUES);
        ways.take_shared(0, slot(AT, 6, 0, 0), &mut stock);
        ways.take_shared(0, slot(AT, 6, more, 0), &mut stock);
        let second = buffer(&region, &mut stock, b"packet");
        assert!(ways.take(0, second, slot(AT, 6, rest, 0), &mut stock), "the other holder let go meanwhile");
        let first = buffer(&region, &mut stock, b"packet");
        assert!(ways.take(0, first, slot(AT, 6, more, 0), &mut stock));
        ways.take_shared(0, slot(AT, 6, rest, 0), &mut stock);
        assert!(said.lock().expect("no panic").is_empty());
        assert_eq!(end(ways, stock), (vec![vec![("shared", 3)], vec![]], 0));
    }

    #[test]
    fn a_vlan_tag_goes_back_only_where_it_came_from() {
        let tag = Tag { link: 101, stripped_vlan: 9, flags: flags::VLAN_STRIPPED, ..Tag::default() };
        let of = |offset, shown| departure(&slot(offset, 6, shown, 0), &tag, AT.into(), 1);
        let stripped = slot_flags::VLAN_STRIPPED;
        assert_eq!(of(AT, stripped).map(|d| (d.flags, d.stripped_vlan, d.link)), Ok((flags::VLAN_STRIPPED, 9, 101)));
        assert_eq!(of(AT, 0).map(|d| d.flags), Ok(0), "the consumer has seen to it");
        assert_eq!(of(AT + 50, stripped).map(|d| (d.flags, d.link)), Ok((0, 1)));
        assert_eq!(of(AT - 50, stripped), Err(Refusal::VlanInside));
        assert_eq!(of(AT - 50, 0).map(|d| d.link), Ok(1));
    }

    #[test]
    fn an_output_does_not_overwrite_what_is_read_or_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(path("in.pcap"), "").expect("a file");
        std::os::unix::fs::symlink(path("in.pcap"), path("link.pcap")).expect("a link");
        let plan = |names: &[String]| {
            let specs: Vec<PortSpec> = names.iter().map(|name| name.parse().expect("a good name")).collect();
            Plan::new(true, &specs).map(drop).map_err(|e| e.to_string())
        };
        let (input, link) = (format!("pcap:{}", path("in.pcap")), format!("pcap:{}?write", path("link.pcap")));
        let wrong = plan(&[input.clone(), link]).expect_err("the same file");
        assert!(wrong.contains("would overwrite") && wrong.contains("in.pcap"), "{wrong}");
        let out = format!("pcap:{}?write", path("out.pcap"));
        let dotted = format!("pcap:{}/./out.pcap?write", folder.path().display());
        assert!(plan(&[out.clone(), dotted]).is_err_and(|e| e.contains("would overwrite")));
        assert_eq!(plan(&[input, out.clone()]), Ok(()));
        let nothing = Plan::new(false, &[out.parse().expect("a good name")]).map(drop).map_err(|e| e.to_string());
        assert!(nothing.is_err_and(|e| e.contains("--transmit")));
    }
}
