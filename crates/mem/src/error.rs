//! Errors of setting shared memory up. The packet path has none: it counts.

/// Why a region, ring or pipe could not be made or attached.
///
/// Every variant names the object, the action, the value and the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemError {
    /// A system call failed.
    #[error("{object}: cannot {action} ({value}): {source}{}", hint(.remedy))]
    System {
        /// The object concerned, for example `region "main"`.
        object: String,
        /// What was attempted.
        action: &'static str,
        /// The value it was attempted with.
        value: String,
        /// What the reader can do about it; empty where nothing general can be said.
        remedy: &'static str,
        /// What the kernel answered.
        source: std::io::Error,
    },
    /// A size or count that this ABI cannot represent.
    #[error("{object}: {what} is {value}, but must be {allowed}")]
    Geometry {
        /// The object concerned.
        object: &'static str,
        /// The parameter.
        what: &'static str,
        /// The value given.
        value: u64,
        /// The values that can be had.
        allowed: &'static str,
    },
    /// Shared memory that does not hold what its header should.
    #[error("{object}: {what} is {found:#x}, expected {expected:#x}: {remedy}")]
    Header {
        /// The object concerned.
        object: &'static str,
        /// The header field.
        what: &'static str,
        /// What was found.
        found: u64,
        /// What this library expects.
        expected: u64,
        /// What the reader can do about it.
        remedy: &'static str,
    },
}

fn hint(remedy: &str) -> String {
    if remedy.is_empty() { String::new() } else { format!("; {remedy}") }
}

impl MemError {
    pub(crate) fn system(
        object: impl Into<String>,
        action: &'static str,
        value: impl std::fmt::Display,
        remedy: &'static str,
        source: impl Into<std::io::Error>,
    ) -> Self {
        MemError::System { object: object.into(), action, value: value.to_string(), remedy, source: source.into() }
    }
}
