//! Why something is not signed, or a signature does not hold.

use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why a file cannot be signed, or a signature is not to be trusted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SignError {
    /// The operating system refused.
    #[error("cannot read `{path}`: {source}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No key that is known here.
    #[error(
        "this is no {half} key in PEM of the curves P-256 and P-384; `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem` makes a private one, `openssl pkey -in key.pem -pubout -out key.pub` its public half"
    )]
    Key {
        /// `private` or `public`.
        half: &'static str,
    },
    /// The key refused to sign or to be written: our bug.
    #[error("internal error: the key cannot {0}")]
    KeyUse(&'static str),
    /// Not JSON of the format.
    #[error("{what} is not in the format of model signing: {problem}")]
    Format {
        /// The part.
        what: &'static str,
        /// How it shows.
        problem: String,
    },
    /// Made with another key.
    #[error("the signature was made with another key: it names {signed}, the one given is {given}")]
    OtherKey {
        /// The signer's, as signatures call it.
        signed: String,
        /// The one given.
        given: String,
    },
    /// The signature is not one of this key over this statement.
    #[error(
        "the signature does not hold: it is damaged, or was not made with the private half of this key"
    )]
    Invalid,
    /// A signature of something else, or the file was changed.
    #[error(
        "`{path}` is not what was signed: its SHA-256 is {found}, signed was {signed}", path = .path.display()
    )]
    OtherFile {
        /// The file.
        path: PathBuf,
        /// Its digest.
        found: String,
        /// The digest that was signed.
        signed: String,
    },
}

impl SignError {
    /// What the JSON of `what` is not.
    pub(crate) fn json(what: &'static str) -> impl Fn(serde_json::Error) -> SignError {
        move |error| SignError::format(what, error.to_string())
    }

    pub(crate) fn format(what: &'static str, problem: impl Into<String>) -> SignError {
        SignError::Format { what, problem: problem.into() }
    }
}
