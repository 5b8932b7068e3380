//! A peer that writes anything it can reach: counted and ignored, field by field.
#![allow(unsafe_code)] // maps a pipe's memory a second time, as a hostile process would

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use flowyard_mem::abi::HEADER_BYTES;
use flowyard_mem::{
    Consumer, Geometry, Grant, Handover, Ledger, PipeProducer, Region, Returned, Slot, Stock, notify, slot_flags,
};

const SLOTS: u32 = 8;

struct Yard {
    region: Region,
    stock: Stock,
    ledger: Ledger,
    out: PipeProducer,
    parts: Handover,
}

fn yard() -> Yard {
    let (region, stock) = Region::create("hostile", Geometry::new(2048, 64, 32).expect("geometry")).expect("region");
    let mut ledger = Ledger::new(&region);
    let (out, end) = ledger.open_pipe(SLOTS).expect("pipe");
    let parts = end.handover(Grant::Write).expect("handover");
    Yard { region, stock, ledger, out, parts }
}

impl Yard {
    fn send(&mut self) -> bool {
        if self.out.reserve(1) == 0 {
            return false;
        }
        let buffer = self.stock.take().expect("the ring is smaller than the stock");
        let offset = self.region.geometry().packet_offset() as u16;
        let slot = Slot { offset, len: 60, total: 60, ..Slot::default() };
        self.out.send(&mut self.ledger, buffer, slot).expect("just reserved");
        self.out.commit();
        true
    }

    /// Takes returns as the dispatcher does, and then one at a time; answers (freed, violations).
    fn drain(&mut self) -> (u32, u32) {
        let (before, mut violations) = (self.stock.len(), 0);
        let mut count = |stock: &mut Stock, returned| match returned {
            Returned::Free(buffer) => stock.put(buffer),
            Returned::Held => panic!("nobody shares"),
            Returned::Violation => violations += 1,
        };
        let mut left = self.out.look_for_returned().min(SLOTS / 2);
        for _ in 0..2 * SLOTS {
            if left == 0 {
                break;
            }
            if let Some((returned, _)) = self.out.take_home(&mut self.ledger, &mut self.stock, &mut left) {
                count(&mut self.stock, returned);
            }
        }
        assert_eq!(left, 0, "each call takes one at least");
        for _ in 0..4 * SLOTS {
            let Some((returned, _)) = self.out.take_returned(&mut self.ledger) else { break };
            count(&mut self.stock, returned);
        }
        self.out.release_returned();
        ((self.stock.len() - before) as u32, violations)
    }
}

/// A second mapping of the pipe, through which the test writes what a hostile consumer could.
struct Scribble {
    base: *mut u8,
    len: usize,
}

impl Scribble {
    fn over(fd: BorrowedFd<'_>) -> Scribble {
        use rustix::mm::{MapFlags, ProtFlags, mmap};
        let len = rustix::fs::fstat(fd).expect("fstat").st_size as usize;
        // SAFETY: a fresh mapping of a file that cannot shrink.
        let base =
            unsafe { mmap(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, fd, 0) };
        Scribble { base: base.expect("mmap").cast(), len }
    }

    fn get(&self, offset: usize) -> u32 {
        assert!(offset + 4 <= self.len);
        // SAFETY: within the mapping, aligned by the callers' offsets.
        unsafe {
            (*self.base.add(offset).cast::<std::sync::atomic::AtomicU32>()).load(std::sync::atomic::Ordering::SeqCst)
        }
    }

    fn u32(&self, offset: usize, value: u32) {
        assert!(offset + 4 <= self.len);
        // SAFETY: within the mapping, aligned by the callers' offsets.
        unsafe {
            (*self.base.add(offset).cast::<std::sync::atomic::AtomicU32>())
                .store(value, std::sync::atomic::Ordering::SeqCst)
        };
    }
}

/// The same handover with another file for the region.
fn with_region(parts: &Handover, region: OwnedFd) -> Handover {
    let fds = parts.descriptors();
    let [pipe, wakeup] = [fds[1], fds[2]].map(|fd| fd.try_clone_to_owned().expect("dup"));
    // SAFETY: the original is not attached.
    unsafe { Handover::from_descriptors(region, vec![(pipe, wakeup)]) }
}

const OUT_TAIL: usize = HEADER_BYTES;
const OUT_HEAD: usize = HEADER_BYTES + 128;
const BACK_TAIL: usize = HEADER_BYTES + 256;
const BACK_SLOTS: usize = 2 * HEADER_BYTES + SLOTS as usize * 32;

#[test]
fn the_head_of_the_ring_out_cannot_free_what_was_not_sent() {
    let mut yard = yard();
    let hostile = Scribble::over(yard.parts.descriptors()[1]);
    while yard.send() {}
    for head in [SLOTS + 1, u32::MAX, 1 << 31] {
        hostile.u32(OUT_HEAD, head);
        let before = yard.out.violations();
        assert!(!yard.send(), "a ring with an impossible head stays full");
        assert!(yard.out.violations() > before);
    }
    hostile.u32(OUT_HEAD, 3);
    assert!(yard.send() && yard.send() && yard.send() && !yard.send(), "a possible head frees what it says");
    hostile.u32(OUT_HEAD, 1);
    assert!(!yard.send(), "a head that goes backwards frees nothing");
}

#[test]
fn the_tail_of_the_ring_back_cannot_return_more_than_fits() {
    let mut yard = yard();
    let hostile = Scribble::over(yard.parts.descriptors()[1]);
    assert!(yard.send());
    for tail in [2 * SLOTS + 1, u32::MAX] {
        hostile.u32(BACK_TAIL, tail);
        assert_eq!(yard.drain(), (0, 0));
    }
    assert!(yard.out.violations() >= 2);
}

/// What asks for nothing but to be freed goes home by fewer steps, which look as well.
#[test]
fn buffers_to_be_freed_are_held_against_the_ledger() {
    let mut yard = yard();
    let hostile = Scribble::over(yard.parts.descriptors()[1]);
    let sent: Vec<u32> = (0..3).map(|n| if yard.send() { n } else { panic!("room for three") }).collect();
    // Two genuine around one that is not the consumer's, one twice, and some that there are not; over the ring's end.
    let mut tail = 0;
    for (returned, genuine) in
        [(vec![sent[0], 7, sent[1]], 2), (vec![sent[1], 32, u32::MAX], 0), (vec![0; 9], 0), (vec![1, sent[2], 2, 9], 1)]
    {
        for (n, buffer) in (tail..).zip(&returned) {
            let at = BACK_SLOTS + (n % (2 * SLOTS)) as usize * 16;
            [*buffer, 0, 0, 0].into_iter().enumerate().for_each(|(word, value)| hostile.u32(at + 4 * word, value));
        }
        tail += returned.len() as u32;
        hostile.u32(BACK_TAIL, tail);
        assert_eq!(yard.drain(), (genuine, returned.len() as u32 - genuine), "{returned:?}");
    }
    assert_eq!((yard.stock.len(), yard.out.outstanding(), yard.ledger.held()), (32, 0, 0));
}

#[test]
fn returned_indices_are_held_against_the_ledger() {
    let mut yard = yard();
    let hostile = Scribble::over(yard.parts.descriptors()[1]);
    assert!(yard.send());
    // Twice the same, another's, out of range, and nonsense in every other field of the slot.
    for (n, buffer) in [0, 0, 1, 31, 32, u32::MAX].into_iter().enumerate() {
        let at = BACK_SLOTS + n * 16;
        hostile.u32(at, buffer);
        hostile.u32(at + 4, 0xffff_ffff); // offset and length
        hostile.u32(at + 8, 0xffff_ffff); // hash
        hostile.u32(at + 12, 0xffff_ffff); // flags, verdict, port
    }
    hostile.u32(BACK_TAIL, 6);
    assert_eq!(yard.drain(), (1, 5), "one genuine return, the rest counted");
    assert_eq!(yard.stock.len(), 32);
    assert_eq!(yard.out.outstanding(), 0);
}

#[test]
fn a_sleeping_flag_that_is_always_set_costs_only_wakeups() {
    let mut yard = yard();
    let hostile = Scribble::over(yard.parts.descriptors()[1]);
    for _ in 0..100_000 {
        hostile.u32(OUT_HEAD + 8, 1);
        notify([&mut yard.out]); // the socket fills up; the call must not block
    }
    assert!(!yard.out.consumer_gone());
}

/// One who sends for ever what is no packet, or a packet without an end, keeps nobody busy for ever.
#[test]
fn a_producer_without_an_end_is_left() {
    const MANY: u32 = 64;
    let no_end = Slot { len: 60, flags: slot_flags::MORE, ..Slot::default() };
    let no_part = Slot { buffer: u32::MAX, len: 60, ..Slot::default() };
    for slot in [no_end, no_part] {
        let (region, _stock) =
            Region::create("hostile", Geometry::new(2048, 64, 32).expect("geometry")).expect("region");
        let (_out, end) = Ledger::new(&region).open_pipe(MANY).expect("pipe");
        let parts = end.handover(Grant::Write).expect("handover");
        let hostile = Scribble::over(parts.descriptors()[1]);
        let mut consumer = Consumer::attach(parts, Grant::Write).expect("attached");
        for (at, word) in
            (0..MANY as usize).flat_map(|at| slot.to_words().into_iter().enumerate().map(move |w| (at, w)))
        {
            let offset = 2 * HEADER_BYTES + at * 32 + word.0 * 8;
            hostile.u32(offset, word.1 as u32);
            hostile.u32(offset + 4, (word.1 >> 32) as u32);
        }
        let (done, left) = std::sync::mpsc::channel();
        let consuming = std::thread::spawn(move || {
            for _ in 0..100 {
                consumer.next();
            }
            let _ = done.send(consumer.malformed());
        });
        let began = std::time::Instant::now();
        let malformed = loop {
            // All places but those it was not given back are filled again, at once.
            hostile.u32(OUT_TAIL, hostile.get(OUT_HEAD).wrapping_add(MANY));
            match left.try_recv() {
                Ok(malformed) => break malformed,
                Err(_) => assert!(began.elapsed().as_secs() < 20, "next() goes on for ever"),
            }
        };
        consuming.join().expect("no panic");
        assert!(malformed > 0 || slot.flags != 0, "they are counted");
        assert!(malformed <= 100 * u64::from(MANY), "a call looks at a ring's slots at most: {malformed}");
    }
}

#[test]
fn the_rest_of_the_pipes_memory_means_nothing_to_the_yard() {
    let mut yard = yard();
    let hostile = Scribble::over(yard.parts.descriptors()[1]);
    for offset in (0..HEADER_BYTES).step_by(4).chain((BACK_SLOTS..hostile.len - 4).step_by(4)) {
        hostile.u32(offset, 0x5a5a_5a5a);
    }
    assert!(yard.send());
    assert_eq!(yard.drain(), (0, 0));
}

#[test]
fn a_region_with_foreign_writers_is_read_by_copy() {
    let yard = yard();
    let mut stock = yard.stock;
    let mut buffer = stock.take().expect("free");
    assert!(yard.region.foreign_writers());
    assert!(yard.region.write(&mut buffer, 1000, b"seen"));
    let mut scratch = [0; 2];
    let seen = yard.region.peek(&buffer, 1000, 4, &mut scratch).to_vec();
    assert_eq!(seen, b"se", "no more than the private copy holds");
    assert_eq!(&scratch, b"se");
}

#[test]
fn headers_that_lie_are_refused_with_the_field_named() {
    // Each field of both headers, made wrong in a file that is otherwise whole.
    for (offset, field) in [
        (0usize, "magic"),
        (8, "byte order"),
        (12, "ABI version"),
        (16, "kind"),
        (20, "buffer size"),
        (24, "length"),
        (28, "annotation size"),
        (40, "length"),
    ] {
        let Yard { parts, .. } = yard();
        Scribble::over(parts.descriptors()[0]).u32(offset, 0x00ff_fff7);
        let error = Consumer::attach(parts, Grant::Read).expect_err("a wrong region").to_string();
        assert!(error.contains(field), "{offset}: {error}");
    }
    for (offset, field) in [
        (0usize, "magic"),
        (8, "byte order"),
        (12, "ABI version"),
        (16, "kind"),
        (20, "slot size"),
        (24, "number of slots"),
        (28, "slot size"),
        (32, "region"),
        (40, "length"),
    ] {
        let Yard { parts, .. } = yard();
        Scribble::over(parts.descriptors()[1]).u32(offset, 0x00ff_fff7);
        let error = Consumer::attach(parts, Grant::Read).expect_err("a wrong pipe").to_string();
        assert!(error.contains(field), "{offset}: {error}");
    }
}

#[test]
fn a_file_that_could_shrink_is_refused() {
    let Yard { parts, .. } = yard();
    let file = rustix::fs::memfd_create("plain", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd");
    rustix::fs::ftruncate(&file, 1 << 20).expect("ftruncate");
    let error = Consumer::attach(with_region(&parts, file), Grant::Read).expect_err("unsealed").to_string();
    assert!(error.contains("shrink"), "{error}");
}

#[test]
fn memfds_are_private_and_sealed() {
    let Yard { parts, .. } = yard();
    for fd in &parts.descriptors()[..2] {
        let mode = rustix::fs::fstat(fd).expect("fstat").st_mode & 0o777;
        assert_eq!(mode, 0o600);
        assert!(rustix::fs::ftruncate(fd, 0).is_err(), "cannot shrink");
        assert!(rustix::fs::ftruncate(fd, 1 << 30).is_err(), "cannot grow");
    }
}

#[test]
fn a_read_grant_cannot_be_turned_into_writing() {
    let (region, mut stock) = Region::create("sealed", Geometry::new(2048, 0, 8).expect("geometry")).expect("region");
    let (_out, end) = Ledger::new(&region).open_pipe(2).expect("pipe");
    let parts = end.handover(Grant::Read).expect("handover");
    let path = format!("/proc/self/fd/{}", parts.descriptors()[0].as_raw_fd());
    if let Ok(again) = std::fs::OpenOptions::new().read(true).write(true).open(path) {
        assert!(
            rustix::io::pwrite(&again, b"x", 8192).is_err(),
            "sealed against writing through a reopened descriptor"
        );
        assert!(
            Consumer::attach(with_region(&parts, again.into()), Grant::Write).is_err(),
            "nor can it be mapped writable"
        );
    }
    let mut buffer = stock.take().expect("free");
    assert!(region.write(&mut buffer, 512, b"the yard itself still writes"));
    assert!(region.grant(Grant::Write).is_err());
}

#[test]
fn a_writer_cannot_seal_others_out() {
    let Yard { region, parts, .. } = yard();
    let theirs = parts.descriptors()[0];
    use rustix::fs::{SealFlags, fcntl_add_seals};
    assert!(fcntl_add_seals(theirs, SealFlags::FUTURE_WRITE).is_err(), "the set of seals is closed");
    let again = region.grant(Grant::Write).expect("another writer");
    assert!(Region::attach(again, Grant::Write).is_ok());
}

#[test]
fn a_consumer_that_floods_and_closes_is_seen_to_be_gone() {
    let Yard { mut stock, mut out, mut ledger, parts, .. } = yard();
    out.send(&mut ledger, stock.take().expect("free"), Slot::default()).expect("room");
    let wakeup = parts.descriptors()[2];
    while rustix::net::send(wakeup, &[0; 4096], rustix::net::SendFlags::DONTWAIT).is_ok() {}
    assert!(!out.reclaim(&mut ledger, |_| panic!("it is still there")));
    drop(parts);
    assert!(out.reclaim(&mut ledger, |buffer| stock.put(buffer)));
    assert_eq!((stock.len(), out.held(&ledger)), (32, 0));
}
