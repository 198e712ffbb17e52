//! Models of which only the configuration is read.

use crate::fixtures::{import_tiny, tiny};
use std::fs;
use std::path::Path;
use waveloom_frontend::{ImportError, ImportOptions, Imported};
use waveloom_ir::{DType, Dim, Weights};

fn import(path: &Path) -> Result<Imported, ImportError> {
    let options = ImportOptions { config_only: true, ..ImportOptions::default() };
    waveloom_frontend::import(path, options)
}

/// The module is the one that the checkpoint gives, as a file and as a directory.
#[test]
fn the_module_is_that_of_the_checkpoint() {
    for name in ["llama", "llama3", "mistral", "qwen2", "qwen3"] {
        let full = import_tiny(name);
        for path in [tiny(name), tiny(name).join("config.json")] {
            let alone = import(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(alone.module.to_string(), full.module.to_string());
            assert_eq!(alone.info.name, name);
            assert_eq!(alone.info.config, full.info.config);
            assert_eq!((alone.tokenizer_json, alone.chat_template), (None, None));
            let frequencies = |model: &Imported| {
                model.weights.bytes("rope.inv_freq").map(|bytes| bytes.into_owned())
            };
            assert!(frequencies(&full).is_some_and(|bytes| !bytes.is_empty()));
            assert_eq!(
                alone.weights.bytes("rope.inv_freq").map(|b| b.into_owned()),
                frequencies(&full)
            );
        }
    }
}

/// Norms have values, all ones in the dtype of the model; what is learned has none.
#[test]
fn norms_are_one_and_the_rest_is_not_there() {
    for (name, one) in
        [("llama", &1f32.to_le_bytes()[..]), ("qwen2", &[0x00, 0x3c]), ("qwen3", &[0x80, 0x3f])]
    {
        let model = import(&tiny(name)).unwrap();
        for weight in &model.module.weights {
            let bytes = model.weights.bytes(&weight.name);
            if weight.name == "rope.inv_freq" {
                assert_eq!(weight.ty.dtype, DType::F32);
            } else if weight.name.contains("norm") {
                let Some(Dim::Const(elements)) = weight.ty.shape.first() else {
                    panic!("a vector")
                };
                assert_eq!(bytes.as_deref(), Some(&one.repeat(*elements as usize)[..]));
            } else {
                assert_eq!(bytes, None, "{}", weight.name);
            }
        }
    }
}

/// The configurations of the examples have as many parameters as their makers say.
#[test]
fn configurations_of_the_examples_have_the_published_sizes() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/configs");
    for (name, parameters) in [
        ("Llama-3.1-8B", 8_030_261_248),
        ("Llama-3.2-1B", 1_235_814_400),
        ("Qwen2.5-7B", 7_615_616_512),
        ("Qwen3-0.6B", 596_049_920),
        ("SmolLM2-1.7B", 1_711_376_384),
        ("SmolLM2-135M", 134_515_008u64),
    ] {
        let model = import(&directory.join(format!("{name}.json"))).unwrap();
        assert_eq!(model.info.name, name);
        let weights = model.module.weights.iter().filter(|weight| weight.name != "rope.inv_freq");
        let sizes = weights.map(|weight| {
            assert_eq!(weight.ty.dtype, DType::BF16, "{name}");
            let extents = weight.ty.shape.iter().map(|dim| match dim {
                Dim::Const(extent) => *extent,
                Dim::Symbol(_) => panic!("a weight of varying shape"),
            });
            extents.product::<u64>()
        });
        assert_eq!(sizes.sum::<u64>(), parameters, "{name}");
    }
}

/// Without a dtype the weights are bf16; both spellings are read.
#[test]
fn the_dtype_comes_from_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("some.json");
    let json = fs::read_to_string(tiny("llama").join("config.json")).unwrap();
    let dtype = |line: &str| {
        fs::write(&path, json.replace("\"dtype\": \"float32\",", line)).unwrap();
        let model = import(&path).map_err(|error| {
            error.to_string().replace(&directory.path().display().to_string(), "DIR")
        });
        model.map(|model| model.module.weights[0].ty.dtype)
    };
    assert_eq!(dtype(""), Ok(DType::BF16));
    assert_eq!(dtype("\"torch_dtype\": \"float16\","), Ok(DType::F16));
    assert_eq!(dtype("\"dtype\": \"float32\", \"torch_dtype\": \"float16\","), Ok(DType::F32));
    insta::assert_snapshot!(dtype("\"dtype\": \"int8\",").unwrap_err(), @"DIR/some.json: unknown dtype `int8`; known: float32, float16, bfloat16");
}

#[test]
fn what_has_no_configuration_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let replace = |error: ImportError| {
        error.to_string().replace(&directory.path().display().to_string(), "DIR")
    };
    let error = |path: &Path| replace(import(path).err().expect("the import fails"));
    insta::assert_snapshot!(error(directory.path()), @"`DIR` has no description of a model; for synthetic weights give a `config.json`, under any name that ends in `.json`, or a directory with one");
    let gguf = directory.path().join("model.gguf");
    fs::write(&gguf, "GGUF").unwrap();
    insta::assert_snapshot!(error(&gguf), @"`DIR/model.gguf` has no description of a model; for synthetic weights give a `config.json`, under any name that ends in `.json`, or a directory with one");
    let json = directory.path().join("config.json");
    fs::write(&json, "{}").unwrap();
    insta::assert_snapshot!(error(&json), @"DIR/config.json: `architectures` is missing");
    let full = waveloom_frontend::import(&json, ImportOptions::default()).err().unwrap();
    insta::assert_snapshot!(replace(full), @"`DIR/config.json` has no weights; give a directory with `config.json` and `*.safetensors`, or ask for synthetic weights");
}
