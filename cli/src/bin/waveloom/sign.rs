//! `sign` and `verify-signature`: detached signatures.

use std::io::Write;
use std::path::{Path, PathBuf};
use waveloom_cli::args::{SignArgs, VerifySignatureArgs};
use waveloom_cli::output::PendingFile;
use waveloom_cli::{Failure, format, output};
use waveloom_sign::{PrivateKey, PublicKey, Verified};

/// Signs a file.
pub fn run(args: &SignArgs) -> Result<(), Failure> {
    let signature = args.output.clone().unwrap_or_else(|| beside(&args.file));
    let pending = PendingFile::create(&signature)?;
    let key = PrivateKey::from_pem(&read(&args.key)?).map_err(|error| of(&args.key, error))?;
    let text = waveloom_sign::sign(&args.file, &key)?;
    pending.finish(|file| file.write_all(text.as_bytes()))?;
    let hint = key.public().hint()?;
    output::write(format!("{}: signed with the key {hint}\n", signature.display()))
}

/// Verifies a signature.
pub fn verify(args: &VerifySignatureArgs) -> Result<(), Failure> {
    let signature = args.signature.clone().unwrap_or_else(|| beside(&args.file));
    let key = PublicKey::from_pem(&read(&args.key)?).map_err(|error| of(&args.key, error))?;
    let text = read(&signature)?;
    let verified = waveloom_sign::verify(&args.file, &text, &key)
        .map_err(|error| Failure::from(error).with_help(HELP))?;
    match args.json {
        true => output::write_json(&verified),
        false => output::write(told(&args.file, &verified)),
    }
}

const HELP: &str =
    "do not use the file before its signer has said which signature and key are right";

fn told(file: &Path, verified: &Verified) -> String {
    let Verified { name, sha256, files, key } = verified;
    let rows = [
        ("signed as", name.clone()),
        ("files", format::count(*files as u64, "file")),
        ("sha256", sha256.clone()),
        ("key", key.clone()),
    ];
    let rows = rows.map(|(name, value)| vec![format!("  {name}"), value]);
    format!("{}: the signature holds\n", file.display()) + &format::table(&rows, &[])
}

/// Where the signature of a file is, unless said otherwise.
fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_os_string();
    name.push(".sig");
    name.into()
}

fn read(path: &Path) -> Result<String, Failure> {
    let failed = |error| Failure::new(format!("cannot read `{}`: {error}", path.display()));
    std::fs::read_to_string(path).map_err(failed)
}

fn of(path: &Path, error: impl std::error::Error) -> Failure {
    Failure::new(format!("`{}`: {error}", path.display()))
}
