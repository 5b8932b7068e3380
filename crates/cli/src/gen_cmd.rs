//! `flowyard gen`: generated traffic into a capture or an interface.

use clap::Args;
use miette::Result;

use crate::Outcome;

/// Generate traffic into a capture or an interface.
#[derive(Debug, Args)]
pub struct Gen {}

impl Gen {
    /// Runs it.
    pub fn run(self) -> Result<Outcome> {
        Ok(Outcome::Partial)
    }
}
