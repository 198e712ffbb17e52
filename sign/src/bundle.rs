//! The bundle and the envelope in it: <https://docs.sigstore.dev/about/bundle/>,
//! <https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md>.

use crate::{PrivateKey, PublicKey, SignError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    verification_material: Material,
    dsse_envelope: Envelope,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    /// Missing where the signature was made with a certificate or with Sigstore's own keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<KeyName>,
    #[serde(default)]
    tlog_entries: Vec<serde_json::Value>,
}

#[derive(Serialize, Deserialize)]
struct KeyName {
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Serialize, Deserialize)]
struct Signature {
    sig: String,
    #[serde(default)]
    keyid: String,
}

/// What is signed of a payload: DSSE's pre-authentication encoding.
fn encoded(payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

/// A signed payload.
pub fn seal(payload: &[u8], key: &PrivateKey) -> Result<String, SignError> {
    let bundle = Bundle {
        media_type: MEDIA_TYPE.into(),
        verification_material: Material {
            public_key: Some(KeyName { hint: Some(key.public().hint()?) }),
            tlog_entries: vec![],
        },
        dsse_envelope: Envelope {
            payload: BASE64.encode(payload),
            payload_type: PAYLOAD_TYPE.into(),
            signatures: vec![Signature {
                sig: BASE64.encode(key.sign(&encoded(payload))?),
                keyid: String::new(),
            }],
        },
    };
    serde_json::to_string(&bundle).map_err(SignError::json("the bundle"))
}

/// The payload of a bundle, once its signature is known to hold.
pub fn open(text: &str, key: &PublicKey) -> Result<Vec<u8>, SignError> {
    let bad = |problem: String| SignError::format("the signature", problem);
    let bundle: Bundle = serde_json::from_str(text).map_err(SignError::json("the signature"))?;
    if bundle.media_type != MEDIA_TYPE {
        return Err(bad(format!("it is `{}`, not `{MEDIA_TYPE}`", bundle.media_type)));
    }
    let Some(KeyName { hint }) = bundle.verification_material.public_key else {
        return Err(bad("it was not made with a local key; `model_signing` verifies it".into()));
    };
    let given = key.hint()?;
    if let Some(signed) = hint.filter(|signed| *signed != given) {
        return Err(SignError::OtherKey { signed, given });
    }
    let Envelope { payload, payload_type, signatures } = bundle.dsse_envelope;
    if payload_type != PAYLOAD_TYPE {
        return Err(bad(format!("it is about `{payload_type}`, not `{PAYLOAD_TYPE}`")));
    }
    let [signature] = &signatures[..] else {
        return Err(bad(format!(
            "it has {} signatures in its envelope, not one",
            signatures.len()
        )));
    };
    let decode = |text: &str| BASE64.decode(text).map_err(|error| bad(error.to_string()));
    let (payload, signature) = (decode(&payload)?, decode(&signature.sig)?);
    match key.verifies(&encoded(&payload), &signature) {
        true => Ok(payload),
        false => Err(SignError::Invalid),
    }
}
