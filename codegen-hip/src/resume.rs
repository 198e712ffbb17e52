//! What a module's text carries so that its compilation can go on from there: notes that say where it
//! stands, of which model and for what, and with each weight's declaration the digest of its bytes.
//!
//! The bytes themselves are mapped from the model's files again, by name. So the text is small, and
//! what is compiled from it is what would have been compiled, or an error that names the weight.

use crate::compile::{CompileError, CompileOptions, find_point, points};
use crate::{CodegenError, Target};
use blake3::Hasher;
use std::path::PathBuf;
use thiserror::Error;
use waveloom_ir::{Digest, Module, Weights};
use waveloom_passes::WeightDtype;

/// Bytes from which on several processors hash.
const PARALLEL_BYTES: usize = 1 << 18;

/// Where a module stands in which compilation.
#[derive(Clone, Debug)]
pub struct Resume {
    /// One of [`points`].
    pub after: &'static str,
    /// The model's file or directory.
    pub model: PathBuf,
    /// What is asked of the compilation.
    pub options: CompileOptions,
    /// Tokens that end a generation.
    pub stop_tokens: Vec<u32>,
    /// Seed of synthetic weights.
    pub synthetic: Option<u64>,
    /// Whether the file shall have no self-test.
    pub no_self_test: bool,
}

/// Why a compilation cannot go on from a module.
#[derive(Debug, Error)]
pub enum ResumeError {
    /// A note that must be there is not.
    #[error(
        "the module does not say `note {0} = …`, so a compilation cannot go on from it; \
         `compile --compile-to` and `--dump-phases-to` write modules that do"
    )]
    Missing(&'static str),
    /// A note that makes no sense.
    #[error("the module's `note {name} = \"{value}\"`: {problem}")]
    Note {
        /// Of the note.
        name: &'static str,
        /// What it says.
        value: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The model has no such weight.
    #[error(
        "the model has no weight `{weight}` any more; give the model that the module was made from"
    )]
    Gone {
        /// Its name.
        weight: String,
    },
    /// The model's weight is another one.
    #[error(
        "weight `{weight}` is not the one that the module was made from: its BLAKE3 digest is {found}, \
         the module says {expected}; give the model that the module was made from, or take `blake3 …` \
         out of the weight's declaration"
    )]
    Changed {
        /// Its name.
        weight: String,
        /// Digest of what the model has.
        found: Digest,
        /// Digest in the module.
        expected: Digest,
    },
}

impl Resume {
    /// Writes the notes.
    pub fn write(&self, module: &mut Module) {
        let targets: Vec<&str> = self.options.targets.iter().map(Target::name).collect();
        module.set_note("after", self.after);
        module.set_note("model", self.model.display().to_string());
        module.set_note("target", targets.join(","));
        module.set_note("dtype", self.options.dtype.to_string());
        module.set_note("decode", self.options.decode.to_string());
        let tokens: Vec<String> = self.stop_tokens.iter().map(u32::to_string).collect();
        module.set_note("stop_tokens", tokens.join(","));
        if let Some(seed) = self.synthetic {
            module.set_note("synthetic_weights", seed.to_string());
        }
        if self.no_self_test {
            module.set_note("self_test", "off");
        }
    }

    /// Reads what [`Resume::write`] wrote.
    pub fn read(module: &Module) -> Result<Resume, ResumeError> {
        let note = |name| module.note(name).ok_or(ResumeError::Missing(name));
        let wrong = |name: &'static str, problem: String| {
            let value = module.note(name).unwrap_or_default().to_string();
            ResumeError::Note { name, value, problem }
        };
        let after = find_point(note("after")?)
            .map_err(|error: CompileError| wrong("after", error.to_string()))?;
        let targets = note("target")?.split(',').map(Target::from_name);
        let targets = targets
            .collect::<Result<_, _>>()
            .map_err(|error: CodegenError| wrong("target", error.to_string()))?;
        let dtype = WeightDtype::parse(note("dtype")?);
        let dtype = dtype.ok_or_else(|| wrong("dtype", "there is no such dtype".to_string()))?;
        let decode = note("decode")?.parse();
        let decode = decode
            .map_err(|error: crate::persistent::UnknownForm| wrong("decode", error.to_string()))?;
        let tokens = note("stop_tokens")?.split(',').filter(|token| !token.is_empty());
        let tokens = tokens.map(str::parse).collect::<Result<_, _>>();
        let stop_tokens =
            tokens.map_err(|_| wrong("stop_tokens", "not a list of tokens".to_string()))?;
        let seed = module.note("synthetic_weights").map(str::parse).transpose();
        let synthetic = seed.map_err(|_| wrong("synthetic_weights", "not a seed".to_string()))?;
        let model = PathBuf::from(note("model")?);
        let options = CompileOptions { targets, dtype, decode };
        let no_self_test = match module.note("self_test") {
            None => false,
            Some("off") => true,
            Some(_) => return Err(wrong("self_test", "there is only `off` to say".to_string())),
        };
        Ok(Resume { after, model, options, stop_tokens, synthetic, no_self_test })
    }

    /// The place of `point` among [`points`].
    pub fn number(point: &str) -> usize {
        points().position(|known| known == point).unwrap_or(0)
    }
}

/// The digest of each weight of a module of which there are bytes.
pub fn digests(module: &Module, weights: &dyn Weights) -> Vec<(String, Digest)> {
    let digest = |weight: &waveloom_ir::Weight| {
        Some((weight.name.clone(), digest_of(&weights.bytes(&weight.name)?)))
    };
    module.weights.iter().filter_map(digest).collect()
}

/// Writes digests to the declarations of the weights.
pub fn write_digests(module: &mut Module, digests: &[(String, Digest)]) {
    for weight in &mut module.weights {
        let known = digests.iter().find(|(name, _)| *name == weight.name);
        weight.digest = known.map(|(_, digest)| *digest);
    }
}

/// Requires that each weight of which the module has a digest is what it was.
pub fn check_digests(module: &Module, weights: &dyn Weights) -> Result<(), ResumeError> {
    for weight in &module.weights {
        let Some(expected) = weight.digest else { continue };
        let weight = weight.name.clone();
        let Some(bytes) = weights.bytes(&weight) else {
            return Err(ResumeError::Gone { weight });
        };
        let found = digest_of(&bytes);
        if found != expected {
            return Err(ResumeError::Changed { weight, found, expected });
        }
    }
    Ok(())
}

fn digest_of(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new();
    match bytes.len() < PARALLEL_BYTES {
        true => hasher.update(bytes),
        false => hasher.update_rayon(bytes),
    };
    Digest(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DecodeForm;
    use insta::assert_snapshot;
    use std::collections::HashMap;
    use waveloom_ir::parse;

    const TEXT: &str = "module @m {
        note after = \"choose-layouts\"
        note model = \"model.gguf\"
        note target = \"cpu-v3,gfx942\"
        note dtype = \"keep\"
        note decode = \"persistent:8\"
        note stop_tokens = \"0,2\"
        note synthetic_weights = \"7\"
        note self_test = \"off\"
    }";

    #[test]
    fn notes_round_trip() {
        let module = parse(TEXT).unwrap();
        let resume = Resume::read(&module).unwrap();
        assert_eq!((resume.after, resume.synthetic), ("choose-layouts", Some(7)));
        assert_eq!((&resume.stop_tokens[..], resume.no_self_test), (&[0, 2][..], true));
        assert_eq!(resume.options.decode, DecodeForm::Persistent(Some(8)));
        let mut written = Module::new("m");
        resume.write(&mut written);
        assert_eq!(written, module);
    }

    #[test]
    fn notes_that_are_wrong_say_so() {
        let error = |from: &str, to: &str| {
            let module = parse(&TEXT.replace(from, to)).unwrap();
            Resume::read(&module).unwrap_err().to_string()
        };
        assert_snapshot!(error("note model = \"model.gguf\"", ""), @"the module does not say `note model = …`, so a compilation cannot go on from it; `compile --compile-to` and `--dump-phases-to` write modules that do");
        assert_snapshot!(error("choose-layouts", "lunch"), @r#"the module's `note after = "lunch"`: there is no point `lunch` in a compilation; there are import, convert-weights, simplify, raise, fuse-map, fuse-gemm-inputs, fuse-prologue, fuse-epilogue, wrap-decode-loop, choose-layouts, choose-tiles"#);
        assert_snapshot!(error("\"7\"", "\"x\""), @r#"the module's `note synthetic_weights = "x"`: not a seed"#);
    }

    #[test]
    fn a_changed_weight_is_named() {
        let mut module = parse("module @m { weight @a : f32[1] weight @b : f32[1] }").unwrap();
        let mut weights: HashMap<String, Vec<u8>> = HashMap::new();
        weights.insert("a".into(), vec![0; 4]);
        let known = digests(&module, &weights);
        write_digests(&mut module, &known);
        assert_eq!(module.weights[1].digest, None);
        check_digests(&module, &weights).unwrap();
        weights.insert("a".into(), vec![1; 4]);
        let changed = check_digests(&module, &weights).unwrap_err();
        assert!(
            matches!(&changed, ResumeError::Changed { weight, .. } if weight == "a"),
            "{changed}"
        );
        weights.remove("a");
        assert_snapshot!(check_digests(&module, &weights).unwrap_err(), @"the model has no weight `a` any more; give the model that the module was made from");
    }
}
