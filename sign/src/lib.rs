//! Detached signatures of a file, in the format of OpenSSF Model Signing with local keys.
//!
//! In: a file, a key of an elliptic curve as PEM, a signature. Out: a signature, or who signed what.
//! Never: knows what is in the file; asks a network.
//!
//! A signature is a Sigstore bundle (`application/vnd.dev.sigstore.bundle.v0.3+json`) around a DSSE
//! envelope around an in-toto statement of the predicate `https://model_signing/signature/v1.0`, which
//! lists files with their SHA-256. The format: <https://github.com/ossf/model-signing-spec>; what is
//! written here, the package `model-signing` reads, and the other way round.

#![forbid(unsafe_code)]

mod bundle;
mod error;
mod key;
mod statement;

#[cfg(test)]
mod tests;

pub use error::SignError;
pub use key::{PrivateKey, PublicKey};

use sha2::{Digest, Sha256};
use statement::Statement;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// What a signature that holds says.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Verified {
    /// Name of what was signed, as the signer called it.
    pub name: String,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// Files that the signature is about; of them, this one was looked at.
    pub files: usize,
    /// SHA-256 of the public key's PEM, in hexadecimal: what signatures call a key by.
    pub key: String,
}

/// The signature of the file at `path`, as the text of a file.
pub fn sign(path: &Path, key: &PrivateKey) -> Result<String, SignError> {
    let name = file_name(path);
    let statement = Statement::of_file(&name, file_sha256(path)?);
    let payload = serde_json::to_vec(&statement).map_err(SignError::json("the statement"))?;
    bundle::seal(&payload, key)
}

/// Fails unless `signature` was made with the private half of `key` for what the file at `path` holds.
pub fn verify(path: &Path, signature: &str, key: &PublicKey) -> Result<Verified, SignError> {
    let payload = bundle::open(signature, key)?;
    let statement = Statement::read(&payload)?;
    let sha256 = file_sha256(path)?;
    let signed = statement.digest_of(&file_name(path))?;
    if *signed != hex(&sha256) {
        let (found, signed) = (hex(&sha256), signed.clone());
        return Err(SignError::OtherFile { path: path.into(), found, signed });
    }
    Ok(Verified {
        name: statement.name().to_string(),
        sha256: hex(&sha256),
        files: statement.files(),
        key: key.hint()?,
    })
}

/// The file's own name.
fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// SHA-256 of a file.
fn file_sha256(path: &Path) -> Result<Vec<u8>, SignError> {
    let fail = |source: io::Error| SignError::Read { path: path.into(), source };
    let mut file = File::open(path).map_err(fail)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(fail)? {
            0 => return Ok(hasher.finalize().to_vec()),
            bytes => hasher.update(&buffer[..bytes]),
        }
    }
}

/// Bytes in hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
