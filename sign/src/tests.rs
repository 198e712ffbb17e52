//! Signatures of this crate and of the Python package `model-signing` 1.1.1, and what does not hold.
//!
//! `tests/fixtures/*.sig` were made by `model_signing sign key --private_key CURVE.pem`, on
//! `model.bin` and on a folder that holds it.

use super::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use std::path::PathBuf;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(fixture(name)).unwrap()
}

fn private(curve: &str) -> PrivateKey {
    PrivateKey::from_pem(&text(&format!("{curve}.pem"))).unwrap()
}

fn public(curve: &str) -> PublicKey {
    PublicKey::from_pem(&text(&format!("{curve}.pub"))).unwrap()
}

/// The error without this machine's folders.
fn message(error: SignError) -> String {
    error.to_string().replace(&fixture("").display().to_string(), "")
}

#[test]
fn what_is_signed_verifies() {
    for curve in ["p256", "p384"] {
        let signature = sign(&fixture("model.bin"), &private(curve)).unwrap();
        assert_eq!(signature, sign(&fixture("model.bin"), &private(curve)).unwrap());
        let verified = verify(&fixture("model.bin"), &signature, &public(curve)).unwrap();
        assert_eq!((verified.name.as_str(), verified.files), ("model.bin", 1));
        assert_eq!(verified.key, public(curve).hint().unwrap());
        assert_eq!(private(curve).public().to_pem().unwrap(), text(&format!("{curve}.pub")));
    }
}

#[test]
fn signatures_of_the_python_package_verify() {
    for curve in ["p256", "p384"] {
        let signature = text(&format!("model.{curve}.sig"));
        verify(&fixture("model.bin"), &signature, &public(curve)).unwrap();
    }
    let folder = verify(&fixture("model.bin"), &text("folder.p256.sig"), &public("p256")).unwrap();
    assert_eq!((folder.name.as_str(), folder.files), ("folder", 2));
}

/// The statement, in the words of the Python package.
#[test]
fn the_format_is_that_of_the_python_package() {
    let statement = |signature: &str| -> Value {
        let bundle: Value = serde_json::from_str(signature).unwrap();
        let payload = bundle["dsseEnvelope"]["payload"].as_str().unwrap();
        serde_json::from_slice(&BASE64.decode(payload).unwrap()).unwrap()
    };
    let ours = sign(&fixture("model.bin"), &private("p256")).unwrap();
    let (mut ours, mut theirs) = (statement(&ours), statement(&text("model.p256.sig")));
    for statement in [&mut ours, &mut theirs] {
        statement["predicate"]["serialization"]["ignore_paths"] = json!([]);
    }
    assert_eq!(ours, theirs);
}

#[test]
fn what_does_not_hold_is_refused() {
    let model = fixture("model.bin");
    let error = |path: &Path, signature: &str, curve: &str| {
        message(verify(path, signature, &public(curve)).unwrap_err())
    };
    let signature = sign(&model, &private("p256")).unwrap();
    insta::assert_snapshot!(error(&fixture("p256.pub"), &text("folder.p256.sig"), "p256"), @"the signed statement is not in the format of model signing: it is not about a file `p256.pub`");
    let other = error(&fixture("p256.pub"), &signature, "p256");
    assert!(other.starts_with("`p256.pub` is not what was signed: its SHA-256 is "), "{other}");
    let other = error(&model, &signature, "p384");
    assert!(other.starts_with("the signature was made with another key: it names "), "{other}");
    insta::assert_snapshot!(error(&fixture("missing"), &signature, "p256"), @"cannot read `missing`: No such file or directory (os error 2)");
    insta::assert_snapshot!(error(&model, "{}", "p256"), @"the signature is not in the format of model signing: missing field `mediaType` at line 1 column 2");
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut bundle: Value = serde_json::from_str(&signature).unwrap();
        change(&mut bundle);
        error(&model, &bundle.to_string(), "p256")
    };
    insta::assert_snapshot!(changed(&|b| b["mediaType"] = json!("x")), @"the signature is not in the format of model signing: it is `x`, not `application/vnd.dev.sigstore.bundle.v0.3+json`");
    insta::assert_snapshot!(changed(&|b| b["verificationMaterial"] = json!({})), @"the signature is not in the format of model signing: it was not made with a local key; `model_signing` verifies it");
    insta::assert_snapshot!(changed(&|b| b["dsseEnvelope"]["signatures"] = json!([])), @"the signature is not in the format of model signing: it has 0 signatures in its envelope, not one");
    insta::assert_snapshot!(changed(&|b| b["dsseEnvelope"]["payloadType"] = json!("y")), @"the signature is not in the format of model signing: it is about `y`, not `application/vnd.in-toto+json`");
    insta::assert_snapshot!(changed(&|b| b["dsseEnvelope"]["signatures"][0]["sig"] = json!("AAAA")), @"the signature does not hold: it is damaged, or was not made with the private half of this key");
    insta::assert_snapshot!(changed(&|b| b["dsseEnvelope"]["payload"] = json!(BASE64.encode("{}"))), @"the signature does not hold: it is damaged, or was not made with the private half of this key");
}

/// Statements that are signed, and wrong all the same.
#[test]
fn lies_that_are_signed_are_refused() {
    let key = private("p256");
    let lie = |change: &dyn Fn(&mut Value)| {
        let digest = file_sha256(&fixture("model.bin")).unwrap();
        let mut statement = serde_json::to_value(Statement::of_file("m", digest)).unwrap();
        change(&mut statement);
        let signature = bundle::seal(statement.to_string().as_bytes(), &key).unwrap();
        message(verify(&fixture("model.bin"), &signature, &key.public()).unwrap_err())
    };
    insta::assert_snapshot!(lie(&|s| s["_type"] = json!("z")), @"the signed statement is not in the format of model signing: it is `z`, not `https://in-toto.io/Statement/v1`");
    insta::assert_snapshot!(lie(&|s| s["predicateType"] = json!("z")), @"the signed statement is not in the format of model signing: it is `z`, not `https://model_signing/signature/v1.0`");
    insta::assert_snapshot!(lie(&|s| s["subject"][0]["digest"]["sha256"] = json!("00")), @"the signed statement is not in the format of model signing: its subject is not the digest of its files' digests");
    insta::assert_snapshot!(lie(&|s| s["predicate"]["resources"][0]["digest"] = json!("é")), @"the signed statement is not in the format of model signing: a digest is not hexadecimal");
    insta::assert_snapshot!(lie(&|s| s["predicate"]["serialization"]["method"] = json!("shards")), @"the signed statement is not in the format of model signing: it has other digests than SHA-256 of whole files");
    insta::assert_snapshot!(lie(&|s| s["subject"] = json!([])), @"the signed statement is not in the format of model signing: it has not one subject");
}

#[test]
fn other_keys_are_refused() {
    let private = |pem: &str| PrivateKey::from_pem(pem).err().map(|error| error.to_string());
    let public = |pem: &str| PublicKey::from_pem(pem).err().map(|error| error.to_string());
    let no_key = private("").unwrap();
    insta::assert_snapshot!(no_key, @"this is no private key in PEM of the curves P-256 and P-384; `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem` makes a private one, `openssl pkey -in key.pem -pubout -out key.pub` its public half");
    assert_eq!(private(&text("p256.pub")), Some(no_key.clone()));
    assert_eq!(private(&text("p256.pem").replace("MHc", "MHd")), Some(no_key.clone()));
    assert_eq!(public(&text("p256.pem")), Some(no_key.replace("no private", "no public")));
    // The parameters that OpenSSL may write before a key do not disturb.
    let parameters =
        "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    assert_eq!(private(&(parameters.to_string() + &text("p256.pem"))), None);
}
