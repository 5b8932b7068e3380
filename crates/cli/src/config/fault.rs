//! What is wrong with a configuration file, and where: file, line, column, and the line itself with a caret.

use std::ops::Range;
use std::sync::Arc;

use miette::{Diagnostic, NamedSource, Report, SourceSpan};
use thiserror::Error;

use crate::output;

/// One mistake.
#[derive(Debug, Error, Diagnostic)]
#[error("{place}: {message}")]
pub struct Fault {
    /// `FILE:LINE:COLUMN`.
    place: String,
    message: String,
    #[source_code]
    text: NamedSource<Arc<str>>,
    #[label("{label}")]
    at: SourceSpan,
    label: &'static str,
    #[help]
    help: Option<String>,
}

/// All mistakes that were found in one file.
#[derive(Debug, Error, Diagnostic)]
#[error("{}", all.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Faults {
    #[related]
    all: Vec<Fault>,
}

impl Fault {
    /// What is wrong at `span` of the file, and what to do about it.
    pub fn new(file: &str, text: &Arc<str>, span: Range<usize>, message: String, help: Option<String>) -> Fault {
        let (line, column) = place(text, span.start);
        Fault {
            place: format!("{file}:{line}:{column}"),
            message,
            text: NamedSource::new(file, text.clone()),
            at: span.into(),
            label: "here",
            help,
        }
    }
}

impl Faults {
    /// An error, if there are any.
    pub fn raise(all: Vec<Fault>) -> Result<(), Report> {
        if all.is_empty() { Ok(()) } else { Err(Faults { all }.into()) }
    }
}

/// Line and column of a place in the text, from 1.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (1 + before.matches('\n').count(), 1 + before[start..].chars().count())
}

/// Says on standard error why a verb could not be done: where a file is wrong, with the line.
pub fn explain(error: &Report) {
    let Some(faults) = error.downcast_ref::<Faults>() else {
        output::say(output::chain(error));
        return;
    };
    let handler = miette::MietteHandlerOpts::new().width(110).build();
    for fault in &faults.all {
        struct Shown<'a>(&'a miette::MietteHandler, &'a Fault);
        impl std::fmt::Debug for Shown<'_> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                miette::ReportHandler::debug(self.0, self.1, f)
            }
        }
        output::say(fault);
        let shown = format!("{:?}", Shown(&handler, fault));
        // Its first line says the same again, broken to fit.
        let lines = shown
            .lines()
            .skip_while(|line| !line.contains("─[") && !line.contains(",-["))
            .collect::<Vec<_>>()
            .join("\n");
        eprintln!("{lines}");
    }
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn places_count_lines_and_characters_from_one() {
        let text = "a = 1\nü = 2\n";
        assert_eq!((place(text, 0), place(text, 4), place(text, 6)), ((1, 1), (1, 5), (2, 1)));
        assert_eq!(place(text, text.find('2').expect("there")), (2, 5));
    }
}
