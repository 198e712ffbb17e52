//! Progress of a compilation on standard error: a bar where that is a terminal, else a line for
//! each phase.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, IsTerminal};
use std::time::Duration;
use waveloom_cli::output;

/// Shows how far a compilation is.
pub enum Progress {
    /// On a terminal.
    Bar(ProgressBar),
    /// In a log.
    Lines,
    /// Nothing.
    Silent,
}

impl Progress {
    /// Progress as standard error can show it.
    pub fn new(silent: bool) -> Progress {
        if silent {
            return Progress::Silent;
        }
        if !io::stderr().is_terminal() {
            return Progress::Lines;
        }
        let bar = ProgressBar::no_length().with_style(style("{spinner} {msg} {elapsed}"));
        bar.enable_steady_tick(Duration::from_millis(100));
        Progress::Bar(bar)
    }

    /// A phase begins.
    pub fn phase(&self, name: &str) {
        match self {
            Progress::Bar(bar) => {
                bar.set_style(style("{spinner} {msg} {elapsed}"));
                bar.set_message(name.to_string());
            }
            Progress::Lines => output::note(name),
            Progress::Silent => {}
        }
    }

    /// The phase got so far.
    pub fn set(&self, done: u64, total: u64) {
        if let Progress::Bar(bar) = self {
            if bar.length() != Some(total) || done <= 1 {
                bar.set_style(style("{spinner} {msg} {wide_bar} {percent}% {elapsed}"));
                bar.set_length(total);
            }
            bar.set_position(done);
        }
    }

    /// Does something that writes to a terminal.
    pub fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        match self {
            Progress::Bar(bar) => bar.suspend(write),
            Progress::Lines | Progress::Silent => write(),
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        if let Progress::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are those above, which are well-formed; any style is better than a panic.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
