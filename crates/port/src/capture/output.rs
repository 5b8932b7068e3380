//! `pcap:FILE?write`: a capture file that packets are sent to. Nothing is received from it.
//!
//! Checksums are filled in and VLAN tags put back as for an interface; a merged frame is written as the one long packet
//! that it is. Times are those at which packets came, lengths those at which they leave, with what a snap length took
//! from them counted in the length on the wire. All dispatchers write to one file, each packet whole.
//!
//! Whether a file exists is no matter: it is replaced, as by any program that writes one. That it is no other port's
//! input, the yard sees to.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use flowyard_mem::{Region, Stock, flags};

use super::CaptureWriter;
use crate::transmit::headers::Headers;
use crate::transmit::{Departure, Leaving, Refusal, TransmitCounters, Transmitter, gather};
use crate::{Outgoing, PortError, PortInfo, PortSpec, Sink};

/// A capture to be written.
#[derive(Debug)]
pub struct PcapOutput {
    info: PortInfo,
    path: String,
}

impl PcapOutput {
    /// Looks at the options; makes no file yet.
    ///
    /// # Errors
    /// An option that cannot be.
    pub fn new(spec: &PortSpec) -> Result<PcapOutput, PortError> {
        spec.only(&["write"])?;
        spec.flag("write")?;
        let info = PortInfo {
            name: spec.name(),
            mode: "written".into(),
            can_wait: true,
            live: false,
            longest_packet: super::LONGEST_PACKET,
            buffers_held: 0,
            buffer_bytes: 2048,
        };
        Ok(PcapOutput { info, path: spec.what.clone() })
    }

    /// What it will be.
    pub fn info(&self) -> &PortInfo {
        &self.info
    }

    /// Makes the file.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(self, region: &Region) -> Result<Box<dyn Transmitter>, PortError> {
        let writer = Arc::new(Mutex::new(CaptureWriter::create(Path::new(&self.path))?));
        Ok(Box::new(PcapTransmitter {
            writer,
            region: region.clone(),
            whole: Vec::new(),
            failed: None,
            counters: TransmitCounters::default(),
        }))
    }
}

struct PcapTransmitter {
    writer: Arc<Mutex<CaptureWriter>>,
    region: Region,
    whole: Vec<u8>,
    /// What went wrong first.
    failed: Option<PortError>,
    counters: TransmitCounters,
}

impl PcapTransmitter {
    fn take(&mut self, packet: &[Leaving], departure: &Departure) -> Result<(), Refusal> {
        self.whole.clear();
        if !gather::append(&self.region, packet, departure, &mut self.whole) {
            return Err(Refusal::Malformed);
        }
        if self.whole.len() > super::longest_packet(departure.link) {
            return Err(Refusal::TooLong);
        }
        let cut = departure.has(flags::TRUNCATED);
        let open = if cut { None } else { Headers::of(&self.whole, departure.link).unfinished(&self.whole) };
        match open {
            Some(sum) => sum.complete(&mut self.whole),
            None if departure.has(flags::CHECKSUM_PARTIAL) => return Err(Refusal::Checksum),
            None => {}
        }
        let out = Outgoing {
            bytes: &self.whole,
            time_ns: departure.time_ns,
            wire_len: self.whole.len() as u32 + departure.cut_bytes,
            link: departure.link,
            comment: "",
        };
        let written = self.writer.lock().unwrap_or_else(PoisonError::into_inner).send(&out);
        written.map_err(|error| {
            self.failed.get_or_insert(error);
            Refusal::System
        })?;
        self.counters.checksums += u64::from(open.is_some());
        Ok(())
    }
}

impl Transmitter for PcapTransmitter {
    fn mode(&self) -> &str {
        "written"
    }

    fn send(&mut self, packet: &mut Vec<Leaving>, departure: &Departure, stock: &mut Stock) {
        self.counters.asked += 1;
        let outcome = self.take(packet, departure);
        self.counters.settle(gather::len(packet), outcome);
        gather::free(packet, stock);
    }

    fn flush(&mut self, _stock: &mut Stock) -> bool {
        false
    }

    fn counters(&self) -> TransmitCounters {
        self.counters
    }

    fn another(&self) -> Result<Box<dyn Transmitter>, PortError> {
        Ok(Box::new(PcapTransmitter {
            writer: self.writer.clone(),
            region: self.region.clone(),
            whole: Vec::new(),
            failed: None,
            counters: TransmitCounters::default(),
        }))
    }

    fn close(self: Box<Self>, _stock: &mut Stock) -> (TransmitCounters, Result<(), PortError>) {
        let flushed = self.writer.lock().unwrap_or_else(PoisonError::into_inner).flush();
        (self.counters, self.failed.map_or(flushed, Err))
    }
}
