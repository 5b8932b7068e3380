//! Running the program on a frame, without an interface (BPF_PROG_TEST_RUN).

use aya::programs::{TestRun, TestRunOptions};

use crate::{Answer, CARD_BYTES, CardWord, HEAD_BYTES, KernelError, KernelSteer, card_before};

/// Words of `struct xdp_md` (linux/bpf.h): data, data_end, data_meta, three more.
const CONTEXT_WORDS: usize = 6;
const WORD: usize = 4;
/// Room for metadata in what comes back.
const META_BYTES: usize = 256;

/// What XDP does with a packet: the actions of `enum xdp_action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Dropped, as an error of the program.
    Aborted,
    /// Dropped.
    Drop,
    /// On to the host's stack.
    Pass,
    /// Back out of the interface.
    Tx,
    /// To the socket.
    Redirect,
}

/// What came of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// What would happen to it. Without sockets, that is the fallback.
    pub action: Action,
    /// The head before it; `None` if there is none, because the user's program took the packet first.
    pub answer: Option<Answer>,
    /// What the card has told, where that lies before the head.
    pub told: Option<CardWord>,
}

impl KernelSteer {
    /// Runs the program on a frame as it would run on queue 0, counters and memory of fragments included.
    ///
    /// The kernel takes frames from 14 bytes; to some 3500 where they are in one buffer, to 65,535 where
    /// they may span several.
    ///
    /// # Errors
    /// EINVAL, for a frame of any other length.
    pub fn run(&self, frame: &[u8]) -> Result<Run, KernelError> {
        self.run_split(frame, frame.len())
    }

    /// As [`run`](KernelSteer::run), of a program that was loaded to ask the card, as though it had told this.
    ///
    /// # Errors
    /// As those, and on kernels that take no 48 bytes of metadata (before 6.8).
    pub fn run_told(&self, frame: &[u8], told: &CardWord) -> Result<Run, KernelError> {
        let frame = [&told.bytes()[..], &[0; HEAD_BYTES], frame].concat();
        self.run_with(&frame, CARD_BYTES + HEAD_BYTES, frame.len())
    }

    /// As [`run`](KernelSteer::run), with `first` bytes in the first buffer and the rest in others.
    ///
    /// # Errors
    /// EINVAL on kernels that do not split frames where they are told to (before 6.18), and where frames
    /// must be in one buffer.
    pub fn run_split(&self, frame: &[u8], first: usize) -> Result<Run, KernelError> {
        self.run_with(frame, 0, first)
    }

    /// Runs it on bytes of which so many are metadata, with `first` of them in the first buffer.
    fn run_with(&self, frame: &[u8], metadata: usize, first: usize) -> Result<Run, KernelError> {
        let len = u32::try_from(frame.len() - metadata).unwrap_or(u32::MAX);
        let words = [metadata, first].map(|at| u32::try_from(at).unwrap_or(u32::MAX).to_ne_bytes());
        let mut before = [0; CONTEXT_WORDS * WORD];
        for (to, from) in before.iter_mut().zip(words.into_iter().flatten()) {
            *to = from;
        }
        let mut after = before;
        let mut bytes = vec![0; frame.len() + META_BYTES];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut bytes),
            ctx_in: Some(&before),
            ctx_out: Some(&mut after),
            ..TestRunOptions::new()
        };
        let result = self.root_ref()?.test_run(options);
        let result =
            result.map_err(|e| KernelError::system(format!("run the program on a frame of {len} bytes"), &e))?;
        // What is before the packet is as long as the packet's offset.
        let meta = after.first_chunk().map_or(0, |word: &[u8; WORD]| u32::from_ne_bytes(*word) as usize);
        let head: Option<&[u8; HEAD_BYTES]> =
            meta.checked_sub(HEAD_BYTES).and_then(|at| bytes.get(at..)?.first_chunk());
        let card = head.filter(|head| card_before(head)).and(meta.checked_sub(HEAD_BYTES + CARD_BYTES));
        let told = card.and_then(|at| bytes.get(at..)?.first_chunk()).map(CardWord::read);
        let action = match result.return_value {
            1 => Action::Drop,
            2 => Action::Pass,
            3 => Action::Tx,
            4 => Action::Redirect,
            _ => Action::Aborted,
        };
        Ok(Run { action, answer: head.map(Answer::read), told })
    }
}
