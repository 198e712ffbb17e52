//! Keys of the curves that model signing has and that `p256` and `p384` implement.

use crate::{SignError, hex};
use p256::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePublicKey, LineEnding};
use sha2::{Digest, Sha256};

/// A private key. ECDSA as of RFC 6979: the same input gives the same signature.
pub enum PrivateKey {
    /// Of P-256, which signs SHA-256.
    P256(p256::ecdsa::SigningKey),
    /// Of P-384, which signs SHA-384.
    P384(p384::ecdsa::SigningKey),
}

/// A public key.
pub enum PublicKey {
    /// Of P-256.
    P256(p256::ecdsa::VerifyingKey),
    /// Of P-384.
    P384(p384::ecdsa::VerifyingKey),
}

impl PrivateKey {
    /// A key as PEM: PKCS #8 (`PRIVATE KEY`) or SEC 1 (`EC PRIVATE KEY`), not encrypted.
    pub fn from_pem(pem: &str) -> Result<PrivateKey, SignError> {
        let pem = own_section(pem, "PRIVATE KEY").ok_or(SignError::Key { half: "private" })?;
        let p256 = || p256::SecretKey::from_pkcs8_pem(pem).or(p256::SecretKey::from_sec1_pem(pem));
        let p384 = || p384::SecretKey::from_pkcs8_pem(pem).or(p384::SecretKey::from_sec1_pem(pem));
        if let Ok(key) = p256() {
            return Ok(PrivateKey::P256(key.into()));
        }
        p384()
            .map(|key| PrivateKey::P384(key.into()))
            .map_err(|_| SignError::Key { half: "private" })
    }

    /// Its public half.
    pub fn public(&self) -> PublicKey {
        match self {
            PrivateKey::P256(key) => PublicKey::P256(*key.verifying_key()),
            PrivateKey::P384(key) => PublicKey::P384(*key.verifying_key()),
        }
    }

    /// The signature of `message`, in DER.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        use p256::ecdsa::signature::Signer;
        let cannot = |_| SignError::KeyUse("sign");
        match self {
            PrivateKey::P256(key) => {
                let signature: p256::ecdsa::Signature = key.try_sign(message).map_err(cannot)?;
                Ok(signature.to_der().as_bytes().to_vec())
            }
            PrivateKey::P384(key) => {
                let signature: p384::ecdsa::Signature = key.try_sign(message).map_err(cannot)?;
                Ok(signature.to_der().as_bytes().to_vec())
            }
        }
    }
}

impl PublicKey {
    /// A key as PEM (`PUBLIC KEY`).
    pub fn from_pem(pem: &str) -> Result<PublicKey, SignError> {
        let bad = || SignError::Key { half: "public" };
        let pem = own_section(pem, "PUBLIC KEY").ok_or_else(bad)?;
        if let Ok(key) = p256::ecdsa::VerifyingKey::from_public_key_pem(pem) {
            return Ok(PublicKey::P256(key));
        }
        let p384 = p384::ecdsa::VerifyingKey::from_public_key_pem(pem);
        p384.map(PublicKey::P384).map_err(|_| bad())
    }

    /// The key as PEM.
    pub fn to_pem(&self) -> Result<String, SignError> {
        let pem = match self {
            PublicKey::P256(key) => key.to_public_key_pem(LineEnding::LF),
            PublicKey::P384(key) => key.to_public_key_pem(LineEnding::LF),
        };
        pem.map_err(|_| SignError::KeyUse("be written"))
    }

    /// What signatures call it by: SHA-256 of its PEM.
    pub fn hint(&self) -> Result<String, SignError> {
        Ok(hex(&Sha256::digest(self.to_pem()?)))
    }

    /// Whether `signature`, in DER, is one of `message`.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        use p256::ecdsa::signature::Verifier;
        match self {
            PublicKey::P256(key) => p256::ecdsa::Signature::from_der(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
            PublicKey::P384(key) => p384::ecdsa::Signature::from_der(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
        }
    }
}

/// The part of a PEM file whose label ends so: OpenSSL writes the curve's parameters before a key.
fn own_section<'a>(pem: &'a str, label: &str) -> Option<&'a str> {
    const END: &str = "-----END ";
    let ends = pem.match_indices(END).find_map(|(at, _)| {
        let (name, _) = pem[at + END.len()..].split_once("-----")?;
        name.ends_with(label).then_some((at, name))
    });
    let (end, name) = ends?;
    let begin = pem[..end].rfind(&format!("-----BEGIN {name}-----"))?;
    Some(&pem[begin..end + END.len() + name.len() + "-----".len()])
}
