//! Errors of opening and losing ports.

/// How the problem of an interface that is not there begins.
pub(crate) const NO_INTERFACE: &str = "there is no interface";

/// Why a port could not be opened, or stopped working.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// The port's name does not say what to open.
    #[error("port {name:?}: {problem}; {remedy}")]
    Name {
        /// What the user wrote.
        name: String,
        /// What is wrong with it.
        problem: String,
        /// How to write it.
        remedy: String,
    },
    /// Something could not be done to the port.
    #[error("{} {name:?}: cannot {action}: {problem}{}", object(.name), hint(.remedy))]
    Action {
        /// The port.
        name: String,
        /// What was attempted, with its value.
        action: String,
        /// What happened.
        problem: String,
        /// What the reader can do; empty where nothing general can be said.
        remedy: String,
    },
    /// A capture file is damaged; what was readable before has been delivered.
    #[error("capture {name:?} is damaged at byte {offset}, after {packets} packets: {problem}")]
    Damaged {
        /// The file.
        name: String,
        /// Where, in bytes of the (decompressed) file.
        offset: u64,
        /// Packets read before the damage.
        packets: u64,
        /// What is wrong there.
        problem: String,
    },
    /// Memory for the port could not be had.
    #[error(transparent)]
    Memory(#[from] flowyard_mem::MemError),
}

fn hint(remedy: &str) -> String {
    if remedy.is_empty() { String::new() } else { format!("; {remedy}") }
}

/// A name with a kind before it is a port's; one without is a capture file's.
fn object(name: &str) -> &'static str {
    let has_kind = crate::KINDS.iter().any(|(_, kind, _)| name.strip_prefix(kind).is_some_and(|r| r.starts_with(':')));
    if has_kind { "port" } else { "capture" }
}

impl PortError {
    /// Whether the port would be one if its interface were there.
    pub fn is_missing_interface(&self) -> bool {
        matches!(self, PortError::Name { problem, .. } if problem.starts_with(NO_INTERFACE))
    }

    /// An action on port `name` that failed.
    pub fn action(
        name: impl Into<String>,
        action: impl Into<String>,
        problem: impl std::fmt::Display,
        remedy: impl Into<String>,
    ) -> PortError {
        PortError::Action {
            name: name.into(),
            action: action.into(),
            problem: problem.to_string(),
            remedy: remedy.into(),
        }
    }
}
