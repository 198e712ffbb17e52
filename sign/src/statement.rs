//! What is signed: an in-toto statement with the digests of a model's files.

use crate::{SignError, hex};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://model_signing/signature/v1.0";
const WHAT: &str = "the signed statement";
/// Name of the only file of a model that is a file.
const ITSELF: &str = ".";

/// A statement that hangs together.
#[derive(Serialize, Deserialize)]
pub struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: Predicate,
}

#[derive(Serialize, Deserialize)]
struct Subject {
    name: String,
    digest: SubjectDigest,
}

#[derive(Serialize, Deserialize)]
struct SubjectDigest {
    sha256: String,
}

#[derive(Serialize, Deserialize)]
struct Predicate {
    serialization: Serialization,
    resources: Vec<Resource>,
}

/// How the files were read.
#[derive(Serialize, Deserialize)]
struct Serialization {
    method: String,
    hash_type: String,
    allow_symlinks: bool,
    #[serde(default)]
    ignore_paths: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Resource {
    name: String,
    algorithm: String,
    digest: String,
}

impl Statement {
    /// About one file of this SHA-256.
    pub fn of_file(name: &str, sha256: Vec<u8>) -> Statement {
        let digest = SubjectDigest { sha256: hex(&Sha256::digest(&sha256)) };
        Statement {
            kind: STATEMENT.into(),
            subject: vec![Subject { name: name.into(), digest }],
            predicate_type: PREDICATE.into(),
            predicate: Predicate {
                serialization: Serialization {
                    method: "files".into(),
                    hash_type: "sha256".into(),
                    allow_symlinks: false,
                    ignore_paths: vec![],
                },
                resources: vec![Resource {
                    name: ITSELF.into(),
                    algorithm: "sha256".into(),
                    digest: hex(&sha256),
                }],
            },
        }
    }

    /// A signed payload, taken apart. On success its subject is the digest of its files' digests.
    pub fn read(payload: &[u8]) -> Result<Statement, SignError> {
        // The types first: others may have other fields.
        #[derive(Deserialize)]
        struct Types {
            #[serde(rename = "_type")]
            kind: String,
            #[serde(rename = "predicateType")]
            predicate_type: String,
        }
        let types: Types = serde_json::from_slice(payload).map_err(SignError::json(WHAT))?;
        for (found, known) in [(types.kind, STATEMENT), (types.predicate_type, PREDICATE)] {
            if found != known {
                return Err(SignError::format(WHAT, format!("it is `{found}`, not `{known}`")));
            }
        }
        let statement: Statement =
            serde_json::from_slice(payload).map_err(SignError::json(WHAT))?;
        statement.check()?;
        Ok(statement)
    }

    fn check(&self) -> Result<(), SignError> {
        let bad = |problem: &str| SignError::format(WHAT, problem);
        let Serialization { method, hash_type, .. } = &self.predicate.serialization;
        let plain = self.predicate.resources.iter().all(|file| file.algorithm == "sha256");
        if method != "files" || hash_type != "sha256" || !plain {
            return Err(bad("it has other digests than SHA-256 of whole files"));
        }
        let [subject] = &self.subject[..] else { return Err(bad("it has not one subject")) };
        let mut all = Sha256::new();
        for file in &self.predicate.resources {
            all.update(bytes(&file.digest).ok_or_else(|| bad("a digest is not hexadecimal"))?);
        }
        if hex(&all.finalize()) != subject.digest.sha256 {
            return Err(bad("its subject is not the digest of its files' digests"));
        }
        Ok(())
    }

    /// Name of what was signed.
    pub fn name(&self) -> &str {
        self.subject.first().map_or("", |subject| &subject.name)
    }

    /// Number of files.
    pub fn files(&self) -> usize {
        self.predicate.resources.len()
    }

    /// Digest of the only file, or, where a folder was signed, of the file of this name in it.
    pub fn digest_of(&self, name: &str) -> Result<&String, SignError> {
        let files = &self.predicate.resources;
        let found = match &files[..] {
            [file] if file.name == ITSELF => Some(file),
            _ => files.iter().find(|file| file.name == name),
        };
        let missing = || SignError::format(WHAT, format!("it is not about a file `{name}`"));
        found.map(|file| &file.digest).ok_or_else(missing)
    }
}

/// Bytes of a hexadecimal number.
fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        hex.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}
