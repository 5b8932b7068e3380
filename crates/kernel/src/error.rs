//! What can go wrong, outside the packet path: each says which object, which action, why, and what to do.

use std::error::Error;
use std::fmt;

use aya::programs::ProgramError;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The kernel's program does not do this policy.
    #[error("steering in the kernel cannot have {what}: {remedy}")]
    Policy {
        /// The field and its value.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A number is out of its range.
    #[error("steering in the kernel: {what} is {value}: it must be {allowed}")]
    Number {
        /// What it counts.
        what: &'static str,
        /// What was given.
        value: u64,
        /// What may be.
        allowed: &'static str,
    },
    /// The verifier or the kernel refused a program. The program that was there before still is.
    #[error("cannot load the program {program:?}: {why}{}", excerpt(.log))]
    Refused {
        /// Its name.
        program: String,
        /// The system's word.
        why: String,
        /// All that the verifier said, line by line: the last lines name the instruction and what is
        /// wrong with it.
        log: String,
    },
    /// An object is not one that this can use.
    #[error("the object {object}: {why}: {remedy}")]
    Object {
        /// Its name.
        object: String,
        /// What is wrong with it.
        why: String,
        /// What to do.
        remedy: String,
    },
    /// The system refused something else.
    #[error("cannot {action}: {why}{}{remedy}", if remedy.is_empty() { "" } else { ": " })]
    System {
        /// What was tried.
        action: String,
        /// The system's word.
        why: String,
        /// What to do, if anything.
        remedy: &'static str,
    },
}

impl KernelError {
    pub(crate) fn system(action: impl Into<String>, error: &(dyn Error + 'static)) -> KernelError {
        KernelError::System { action: action.into(), why: words(error), remedy: remedy(error) }
    }

    pub(crate) fn refused(program: &str, error: &ProgramError) -> KernelError {
        match error {
            ProgramError::LoadError { io_error, verifier_log } => KernelError::Refused {
                program: program.to_owned(),
                why: io_error.to_string(),
                log: verifier_log.to_string(),
            },
            other => KernelError::system(format!("load the program {program:?}"), other),
        }
    }
}

/// The last lines of a verifier's log: where it gave up, and why.
fn excerpt(log: &str) -> impl fmt::Display + use<> {
    const LINES: usize = 12;
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let from = lines.len().saturating_sub(LINES);
    let told = lines.get(from..).unwrap_or_default();
    if told.is_empty() {
        return String::new();
    }
    format!("; the verifier said last:\n    {}", told.join("\n    "))
}

/// An error with its causes, in one line.
fn words(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut at = error.source();
    while let Some(cause) = at {
        let more = cause.to_string();
        if !line.contains(&more) {
            line = format!("{line}: {more}");
        }
        at = cause.source();
    }
    line
}

/// What the reader can do about it.
fn remedy(error: &(dyn Error + 'static)) -> &'static str {
    let mut at = Some(error);
    while let Some(error) = at {
        match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error) {
            Some(libc::EPERM | libc::EACCES) => {
                return "it needs CAP_BPF and CAP_NET_ADMIN: run it as root (sudo), or give the program these \
                        (setcap cap_net_admin,cap_bpf+ep PROGRAM)";
            }
            Some(libc::ENOMEM) => return "the kernel has no room for its maps: ask for fewer queues or fragments",
            _ => at = error.source(),
        }
    }
    ""
}
