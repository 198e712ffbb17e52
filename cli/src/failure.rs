//! How a command fails: one line of what and where, a line of help, an exit code.

use std::error::Error;
use std::process::ExitCode;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub enum Failure {
    /// Something went wrong; exit code 1.
    Error {
        /// What and where.
        message: String,
        /// What to do, where the message does not say it.
        help: Option<String>,
    },
    /// Whoever read standard output has seen enough; nothing to say about it.
    ReaderGone,
}

impl Failure {
    /// An error that says all there is to say.
    pub fn new(message: impl Into<String>) -> Failure {
        Failure::Error { message: message.into(), help: None }
    }

    /// An error at a place of a text: line and column count from 1, columns in characters.
    pub fn in_text(
        name: impl std::fmt::Display,
        text: &str,
        [line, column]: [usize; 2],
        problem: impl std::fmt::Display,
    ) -> Failure {
        let mut message = format!("{name}:{line}:{column}: {problem}");
        if let Some(found) = text.lines().nth(line.saturating_sub(1)) {
            let (number, found) = (line.to_string(), found.replace('\t', " "));
            let blank = " ".repeat(number.len());
            let (part, column) = window(&found, column.saturating_sub(1));
            message += &format!("\n{number} | {part}\n{blank} | {}^", " ".repeat(column));
        }
        Failure::new(message)
    }

    /// The same failure with a line of help; a help that is there stays.
    pub fn with_help(self, text: impl Into<String>) -> Failure {
        match self {
            Failure::Error { message, help } => {
                Failure::Error { message, help: help.or_else(|| Some(text.into())) }
            }
            Failure::ReaderGone => Failure::ReaderGone,
        }
    }

    /// What goes to standard error.
    fn text(&self) -> Option<String> {
        let Failure::Error { message, help } = self else {
            return None;
        };
        let mut text = format!("error: {}\n", indented(message));
        if let Some(help) = help {
            text += &format!("help: {}\n", indented(help));
        }
        Some(text)
    }
}

/// What is shown of a long line around a column, and where the column is in it.
fn window(line: &str, column: usize) -> (String, usize) {
    const WIDTH: usize = 90;
    const BEFORE: usize = 60;
    let start = if line.chars().count() > WIDTH { column.saturating_sub(BEFORE) } else { 0 };
    let part: String = line.chars().skip(start).take(WIDTH).collect();
    (part.trim_end().to_string(), column - start)
}

/// Further lines, which only the compiler's own tools produce, stand under the first.
fn indented(text: &str) -> String {
    text.trim_end().replace('\n', "\n  ")
}

/// Any typed error with its causes, as far as it does not spell them itself.
impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !message.contains(&text) {
                message += &format!(": {text}");
            }
            cause = error.source();
        }
        Failure::new(message)
    }
}

/// Prints a failure, if there is one, and gives the exit code.
pub fn exit_code(result: Result<(), Failure>) -> ExitCode {
    let Err(failure) = result else {
        return ExitCode::SUCCESS;
    };
    let Some(text) = failure.text() else {
        return ExitCode::SUCCESS;
    };
    crate::output::note(text.trim_end());
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn a_failure_is_a_line_and_a_line_of_help() {
        let failure = Failure::new("no such model").with_help("give a file").with_help("ignored");
        assert_eq!(failure.text().unwrap(), "error: no such model\nhelp: give a file\n");
        assert_eq!(Failure::new("a\nb\n").text().unwrap(), "error: a\n  b\n");
        assert_eq!(Failure::ReaderGone.text(), None);
    }

    #[test]
    fn a_place_in_a_text_is_shown() {
        let text = "module @m {\n  weight @w : f23[4]\n}\n";
        let failure = Failure::in_text("a.wl", text, [2, 15], "expected a dtype");
        let shown = "error: a.wl:2:15: expected a dtype\n  2 |   weight @w : f23[4]\n    |               ^\n";
        assert_eq!(failure.text().unwrap(), shown);
        let long = format!("{}x", "0123456789".repeat(20));
        let text = Failure::in_text("a", &long, [1, 201], "no").text().unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1].chars().nth(lines[2].find('^').unwrap()), Some('x'));
        let text = Failure::in_text("a", "", [9, 9], "no").text().unwrap();
        assert_eq!(text, "error: a:9:9: no\n");
    }

    #[derive(Debug)]
    struct Outer(&'static str, io::Error);
    impl std::fmt::Display for Outer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }
    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.1)
        }
    }

    #[test]
    fn causes_are_told_once() {
        let told = Failure::from(Outer("cannot read `x`: gone", io::Error::other("gone")));
        assert_eq!(told.text().unwrap(), "error: cannot read `x`: gone\n");
        let untold = Failure::from(Outer("cannot read `x`", io::Error::other("gone")));
        assert_eq!(untold.text().unwrap(), "error: cannot read `x`: gone\n");
    }
}
