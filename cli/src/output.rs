//! Standard output for results, standard error for everything else.

use crate::Failure;
use serde::Serialize;
use std::fmt::Display;
use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Writes `text` to standard output at once, so that streamed text is seen as it comes.
pub fn write(text: impl Display) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    write!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(stdout_failure)
}

/// Writes one JSON value and a newline to standard output.
pub fn write_json(value: &impl Serialize) -> Result<(), Failure> {
    write(serde_json::to_string_pretty(value)? + "\n")
}

/// Writes `text` and a newline to standard error. That nobody listens there is no error.
pub fn note(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// A file in the making, under a temporary name beside its own: that is either whole or untouched.
pub struct PendingFile {
    path: PathBuf,
    file: NamedTempFile,
}

impl PendingFile {
    /// Fails early where the file could not be written, before work is spent on its content.
    pub fn create(path: &Path) -> Result<PendingFile, Failure> {
        let folder = path.parent().filter(|parent| *parent != Path::new(""));
        // As any program creates files: what the umask leaves of rw-rw-rw-.
        let mode = Permissions::from_mode(0o666);
        let mut builder = tempfile::Builder::new();
        let file = builder.permissions(mode).tempfile_in(folder.unwrap_or(Path::new(".")));
        let file = file.map_err(|error| write_failure(path, &cause(&error)))?;
        Ok(PendingFile { path: path.to_path_buf(), file })
    }

    /// Writes the content and gives the file its name. `write` may write to the file or replace
    /// what is at its temporary path.
    pub fn finish<E: Display>(
        mut self,
        write: impl FnOnce(&mut NamedTempFile) -> Result<(), E>,
    ) -> Result<(), Failure> {
        write(&mut self.file).map_err(|error| write_failure(&self.path, &error))?;
        let named = self.file.persist(&self.path);
        named.map_err(|error| write_failure(&self.path, &cause(&error.error)))?;
        Ok(())
    }
}

fn write_failure(path: &Path, error: &dyn Display) -> Failure {
    Failure::new(format!("cannot write `{}`: {error}", path.display()))
}

/// The system's words, without the temporary path that comes after them.
fn cause(error: &io::Error) -> String {
    let text = error.to_string();
    text.split_once(" at path ").map_or(text.clone(), |(words, _)| words.to_string())
}

fn stdout_failure(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::ReaderGone,
        _ => Failure::new(format!("cannot write to standard output: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_closed_pipe_is_forgiven() {
        let failure = stdout_failure(io::ErrorKind::BrokenPipe.into());
        assert!(matches!(failure, Failure::ReaderGone));
        let failure = stdout_failure(io::ErrorKind::StorageFull.into());
        let Failure::Error { message, .. } = failure else { panic!("a full disk is an error") };
        assert_eq!(message, "cannot write to standard output: no storage space");
    }

    #[test]
    fn a_file_is_whole_or_untouched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let pending = || PendingFile::create(&path).unwrap();
        pending().finish(|file| file.write_all(b"first")).unwrap();
        let failed = pending().finish(|file| {
            file.write_all(b"second")?;
            Err(io::Error::other("disk on fire"))
        });
        let Err(Failure::Error { message, .. }) = failed else { panic!("not written") };
        assert_eq!(message, format!("cannot write `{}`: disk on fire", path.display()));
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        drop(pending());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_is_refused_early() {
        let failed = PendingFile::create(Path::new("/nowhere/at/all")).map(|_| ());
        let Err(Failure::Error { message, .. }) = failed else { panic!("there is no such place") };
        assert_eq!(
            message,
            "cannot write `/nowhere/at/all`: No such file or directory (os error 2)"
        );
    }
}
