//! What is counted of a steering function.

/// How a function failed, or what it said that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Failure {
    /// It named a ring that there is not. Its packet goes by the built-in policy.
    BadRing,
    /// A verdict of no known kind, or one that is not a group's to give. As above.
    BadVerdict,
    /// A slice or pull that the packet has no bytes for: ignored, the verdict holds.
    BadEdit,
    /// It sent to the host's stack, to which this yard has no way. By the built-in policy.
    NoHost,
    /// A call took longer than the budget, by its own doing: its batch goes by the built-in policy. So with
    /// the next four.
    OverBudget,
    /// A call panicked.
    Panicked,
    /// The process that the function runs in died, or did not answer in time.
    Crashed,
    /// The sandbox stopped it.
    Trapped,
    /// It said itself that it failed.
    Refused,
}

impl Failure {
    /// Every one.
    pub const ALL: [Failure; 9] = [
        Failure::BadRing,
        Failure::BadVerdict,
        Failure::BadEdit,
        Failure::NoHost,
        Failure::OverBudget,
        Failure::Panicked,
        Failure::Crashed,
        Failure::Trapped,
        Failure::Refused,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Failure::BadRing => "bad-ring",
            Failure::BadVerdict => "bad-verdict",
            Failure::BadEdit => "bad-edit",
            Failure::NoHost => "no-host",
            Failure::OverBudget => "over-budget",
            Failure::Panicked => "panicked",
            Failure::Crashed => "crashed",
            Failure::Trapped => "trapped",
            Failure::Refused => "refused",
        }
    }
}

/// Counts of a function, over its instances or of one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FunctionCounts {
    /// Packets shown to it.
    pub packets: u64,
    /// Packets that went by the built-in policy although it was asked, because it said so or failed.
    pub built_in: u64,
    /// Failures by kind, in packets.
    pub failures: [u64; Failure::ALL.len()],
    /// Flows shunted.
    pub flows_shunted: u64,
    /// Shunted flows that made room for others before their time.
    pub shunts_evicted: u64,
    /// Times it was replaced.
    pub reloads: u64,
    /// Instances that are switched off, because they kept failing.
    pub switched_off: u64,
}

impl FunctionCounts {
    /// The count of one kind of failure.
    pub fn failed(&self, failure: Failure) -> u64 {
        self.failures[failure as usize]
    }

    pub(crate) fn add(&mut self, other: &FunctionCounts) {
        self.packets += other.packets;
        self.built_in += other.built_in;
        for (mine, theirs) in self.failures.iter_mut().zip(other.failures) {
            *mine += theirs;
        }
        // Counted over all dispatchers by each of them.
        self.flows_shunted = self.flows_shunted.max(other.flows_shunted);
        self.shunts_evicted = self.shunts_evicted.max(other.shunts_evicted);
        self.reloads += other.reloads;
        self.switched_off += other.switched_off;
    }
}
