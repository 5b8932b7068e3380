//! The way out: what is written, the host receives as if from a network. A frame a system call, nothing held back.

use std::fs::File;
use std::io::IoSlice;

use flowyard_mem::{Region, Stock};
use rustix::io::Errno;

use crate::PortError;
use crate::transmit::virtio::{self, Way};
use crate::transmit::watch::{self, Watch};
use crate::transmit::{Departure, Leaving, Refusal, TransmitCounters, Transmitter, gather};

/// One dispatcher's way out of a TAP device.
pub(super) struct TapTransmitter {
    name: String,
    file: File,
    watch: Watch,
    region: Region,
    whole: Vec<u8>,
    part: Vec<u8>,
    counters: TransmitCounters,
}

impl TapTransmitter {
    pub(super) fn new(name: &str, file: File, watch: Watch, region: &Region) -> TapTransmitter {
        TapTransmitter {
            name: name.into(),
            file,
            watch,
            region: region.clone(),
            whole: Vec::with_capacity(super::LONGEST),
            part: Vec::new(),
            counters: TransmitCounters::default(),
        }
    }

    fn take(&mut self, packet: &[Leaving], departure: &Departure) -> Result<(), Refusal> {
        self.watch.look_now_and_then();
        self.watch.accepts(departure.link)?;
        self.whole.clear();
        if !gather::append(&self.region, packet, departure, &mut self.whole) {
            return Err(Refusal::Malformed);
        }
        match virtio::way(&self.whole, departure, self.watch.longest(&self.whole))? {
            Way::Whole(header) => self.write(&header, &self.whole),
            Way::Apart(cut) => {
                for part in 0..cut.parts {
                    self.part.clear();
                    if !cut.append(&self.whole, part, &mut self.part) {
                        return Err(Refusal::Merged);
                    }
                    self.write(&[0; virtio::BYTES], &self.part)?;
                }
                self.counters.taken_apart += 1;
                Ok(())
            }
        }
    }

    fn write(&self, header: &[u8], frame: &[u8]) -> Result<(), Refusal> {
        loop {
            match rustix::io::writev(&self.file, &[IoSlice::new(header), IoSlice::new(frame)]) {
                Ok(_) => return Ok(()), // a device takes a frame whole or not at all
                Err(Errno::INTR) => {}
                Err(Errno::IO) => return Err(Refusal::LinkDown), // tun_get_user, drivers/net/tun.c
                Err(e) => return Err(watch::refusal(Some(e.raw_os_error()))),
            }
        }
    }
}

impl Transmitter for TapTransmitter {
    fn mode(&self) -> &str {
        "TAP device"
    }

    fn send(&mut self, packet: &mut Vec<Leaving>, departure: &Departure, stock: &mut Stock) {
        self.counters.asked += 1;
        let outcome = self.take(packet, departure);
        self.counters.settle(gather::len(packet), outcome);
        if matches!(outcome, Err(Refusal::LinkDown | Refusal::Gone)) {
            self.watch.look();
        }
        gather::free(packet, stock);
    }

    fn flush(&mut self, _stock: &mut Stock) -> bool {
        false
    }

    fn counters(&self) -> TransmitCounters {
        self.counters
    }

    fn another(&self) -> Result<Box<dyn Transmitter>, PortError> {
        let file = self.file.try_clone();
        let file = file.map_err(|e| PortError::action(&self.name, "use its file for sending", e, ""))?;
        Ok(Box::new(TapTransmitter::new(&self.name, file, self.watch.another()?, &self.region)))
    }

    fn close(self: Box<Self>, _stock: &mut Stock) -> (TransmitCounters, Result<(), PortError>) {
        (self.counters, Ok(()))
    }
}
