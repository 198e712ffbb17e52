//! Round trips, damage of every kind, and the safetensors library as an independent reader.

use super::*;
use crate::toy;
use proptest::prelude::*;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn info() -> ArtifactInfo {
    ArtifactInfo {
        compiler: "waveloom test".into(),
        model: "toy \"quoted\" å".into(),
        targets: vec!["cpu".into()],
    }
}

fn sections() -> Vec<Section<'static>> {
    vec![
        Section::from_bytes(plan_section("cpu"), toy::plan().to_json()),
        Section::from_bytes(code_section("cpu"), b"\x7fELF".as_slice()),
        Section::from_bytes(CHAT_TEMPLATE, b"".as_slice()),
        Section::from_bytes(weight_section("cpu", "a"), vec![1; 64]),
        Section::new(weight_section("cpu", "b"), 64, |out| {
            (0..64).try_for_each(|byte| out.write_all(&[byte]))
        }),
    ]
}

fn write(sections: Vec<Section<'_>>) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("toy.wlm");
    let bytes = write_artifact(&path, &info(), sections).unwrap();
    assert_eq!(bytes, std::fs::metadata(&path).unwrap().len());
    (folder, path)
}

/// Opens and checks everything.
fn check(path: &Path) -> Result<(), ArtifactError> {
    Artifact::open(path)?.verify_all()
}

/// The message without the folder, which differs from run to run.
fn message(folder: &TempDir, error: ArtifactError) -> String {
    error.to_string().replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn reads_back_what_was_written() {
    let (_folder, path) = write(sections());
    let artifact = Artifact::open(&path).unwrap();
    assert_eq!(artifact.targets(), ["cpu"]);
    assert_eq!(artifact.manifest().model, info().model);
    assert_eq!(artifact.plan("cpu").unwrap(), toy::plan());
    assert_eq!(artifact.code("cpu").unwrap(), b"\x7fELF");
    assert_eq!(artifact.text(CHAT_TEMPLATE).unwrap(), "");
    let constants = artifact.constants("cpu").unwrap();
    assert_eq!(constants[..64], [1; 64]);
    assert_eq!(constants[64..], (0..64).collect::<Vec<u8>>());
    assert_eq!(constants.as_ptr() as usize % 64, 0);
    assert!(!artifact.has(TOKENIZER));
    let offsets = artifact.sections().filter(|s| s.name.starts_with("weights."));
    assert!(offsets.map(|s| s.offset).all(|offset| offset % 64 == 0));
}

#[test]
fn the_safetensors_library_reads_it() {
    let (_folder, path) = write(sections());
    let bytes = std::fs::read(&path).unwrap();
    let (head, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!((head + 8) % 64, 0);
    assert!(metadata.metadata().as_ref().unwrap().contains_key("waveloom.manifest"));
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.tensor("weights.cpu.a").unwrap().data(), [1; 64]);
    assert_eq!(tensors.tensor("weights.cpu.a").unwrap().dtype(), safetensors::Dtype::U8);
    let names = Artifact::open(&path).unwrap().sections().count();
    assert_eq!(tensors.names().len(), names);
}

#[test]
fn the_same_sections_give_the_same_bytes() {
    let ((_a, a), (_b, b)) = (write(sections()), write(sections()));
    assert_eq!(std::fs::read(a).unwrap(), std::fs::read(b).unwrap());
}

#[test]
fn every_changed_byte_is_found() {
    let (_folder, path) = write(sections());
    let whole = std::fs::read(&path).unwrap();
    let sections: Vec<(String, u64, u64)> = Artifact::open(&path)
        .unwrap()
        .sections()
        .map(|s| (s.name.to_string(), s.offset, s.offset + s.bytes))
        .collect();
    let file = File::options().write(true).open(&path).unwrap();
    for (at, byte) in whole.iter().enumerate() {
        let at = at as u64;
        let section = sections.iter().find(|(_, start, end)| (*start..*end).contains(&at));
        for flip in [1, 0x20] {
            file.write_all_at(&[byte ^ flip], at).unwrap();
            let error = check(&path).expect_err("a byte differs");
            match section {
                Some((name, ..)) => {
                    let named =
                        matches!(&error, ArtifactError::Damaged { section, .. } if section == name);
                    assert!(named, "{at}: {error}");
                }
                None => assert!(error.to_string().contains("header"), "{at}: {error}"),
            }
        }
        file.write_all_at(&[*byte], at).unwrap();
    }
    check(&path).unwrap();
}

#[test]
fn every_truncation_is_found() {
    let (folder, path) = write(sections());
    let file = File::options().write(true).open(&path).unwrap();
    let bytes = file.metadata().unwrap().len();
    file.set_len(bytes + 1).unwrap();
    insta::assert_snapshot!(message(&folder, check(&path).unwrap_err()), @"`toy.wlm` has 4353 bytes, its header says 4352; copy or compile the file again");
    for length in (0..bytes).rev() {
        file.set_len(length).unwrap();
        assert!(check(&path).is_err(), "{length} bytes");
    }
}

#[test]
fn large_sections_are_checked_in_chunks() {
    let bytes: Vec<u8> = (0..9_000_000u32).map(|i| (i % 251) as u8).collect();
    let large = Section::from_bytes("large", bytes.clone());
    let (folder, path) = write(vec![large]);
    let artifact = Artifact::open(&path).unwrap();
    assert_eq!(artifact.section("large").unwrap(), bytes);
    assert_eq!(artifact.manifest().sections[0].blake3.len(), 3);
    let mut damaged = std::fs::read(&path).unwrap();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let path = folder.path().join("damaged.wlm");
    std::fs::write(&path, damaged).unwrap();
    let error = Artifact::open(&path).unwrap().section("large").map(drop).unwrap_err();
    insta::assert_snapshot!(message(&folder, error), @"section `large` of `damaged.wlm` is damaged: its digest does not match; copy or compile the file again");
}

#[test]
fn a_failed_write_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("toy.wlm");
    std::fs::write(&path, "what was there").unwrap();
    let failing: Vec<(&str, Section<'_>)> = vec![
        ("full", Section::new("full", 9, |_| Err(std::io::ErrorKind::StorageFull.into()))),
        ("short", Section::new("short", 9, |out| out.write_all(b"12345"))),
        ("long", Section::new("long", 3, |out| out.write_all(b"12345"))),
    ];
    let mut messages = vec![];
    for (_, section) in failing {
        let error = write_artifact(&path, &info(), vec![section]).unwrap_err();
        messages.push(message(&folder, error));
    }
    insta::assert_snapshot!(messages.join("\n"), @r#"
    cannot write section `full` of `toy.wlm`: no storage space
    cannot write section `short` of `toy.wlm`: 4 bytes short of its size
    cannot write section `long` of `toy.wlm`: more bytes than its size
    "#);
    assert_eq!(std::fs::read(&path).unwrap(), b"what was there");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn bad_lists_of_sections_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("toy.wlm");
    let none = |name: &str| Section::from_bytes(name, b"".as_slice());
    let weight = |name: &str| none(&weight_section("cpu", name));
    let error = |sections| write_artifact(&path, &info(), sections).unwrap_err().to_string();
    insta::assert_snapshot!(error(vec![none("a"), none("a")]), @"section `a` cannot be written: there are two of this name");
    insta::assert_snapshot!(error(vec![none("__metadata__")]), @"section `__metadata__` cannot be written: the name is taken by the format");
    insta::assert_snapshot!(error(vec![weight("a"), none("b"), weight("c")]), @"section `weights.cpu.` cannot be written: other sections stand between its weights");
    let odd = Section::from_bytes(weight_section("cpu", "a"), vec![0; 65]);
    insta::assert_snapshot!(error(vec![odd]), @"section `weights.cpu.a` cannot be written: its size is not a multiple of 64");
    let over = write_artifact(folder.path(), &info(), vec![]).unwrap_err();
    insta::assert_snapshot!(over.to_string().replace(&folder.path().display().to_string(), "FOLDER"), @"cannot write `FOLDER`: it exists and is not a file");
}

/// Writes a header made from `manifest` by hand over no data.
fn with_header(folder: &TempDir, manifest: &Manifest, sizes: &[u64], data: &[u8]) -> PathBuf {
    let path = folder.path().join("made.wlm");
    let mut bytes = header::encode(manifest, sizes);
    bytes.extend_from_slice(data);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn names_what_a_file_is_not() {
    let (folder, path) = write(sections());
    let error = |path: &Path| message(&folder, check(path).unwrap_err());
    let artifact = Artifact::open(&path).unwrap();
    insta::assert_snapshot!(message(&folder, artifact.section("a").map(drop).unwrap_err()), @"`toy.wlm` has no section `a`");
    insta::assert_snapshot!(message(&folder, artifact.plan("gfx942").map(drop).unwrap_err()), @"`toy.wlm` was compiled for cpu, not for gfx942: recompile the model with `--target gfx942`");
    insta::assert_snapshot!(error(&folder.path().join("missing")), @"cannot read `missing`: No such file or directory (os error 2)");
    insta::assert_snapshot!(check(folder.path()).unwrap_err().to_string().replace(&folder.path().display().to_string(), "FOLDER"), @"cannot read `FOLDER`: it is not a file");
    let other = folder.path().join("other");
    std::fs::write(&other, "").unwrap();
    insta::assert_snapshot!(error(&other), @"`other` is not a Waveloom artifact: it is empty; make one with `waveloom compile`");
    std::fs::write(&other, "GGUF\x03\0\0\0\0\0\0\0").unwrap();
    insta::assert_snapshot!(error(&other), @"`other` is not a Waveloom artifact: no header starts at byte 8; make one with `waveloom compile`");
    std::fs::write(&other, b"\x02\0\0\0\0\0\0\0{}").unwrap();
    insta::assert_snapshot!(error(&other), @"`other` is not a Waveloom artifact: its header has no `waveloom.manifest`; make one with `waveloom compile`");
    std::fs::write(&other, b"\xff\xff\xff\xff\xff\xff\xff\xff{}").unwrap();
    insta::assert_snapshot!(error(&other), @"`other` is not a Waveloom artifact: it begins with an absurd header length; make one with `waveloom compile`");
    std::fs::write(&other, b"\xff\0\0\0\0\0\0\0{}").unwrap();
    insta::assert_snapshot!(error(&other), @"the header of `other` is damaged: it needs 263 bytes, the file has 10; copy or compile the file again");
}

#[test]
fn names_lies_of_a_signed_header() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = |format, digests: usize| Manifest {
        format,
        compiler: String::new(),
        model: String::new(),
        targets: vec![],
        sections: vec![SectionDigests { name: "a".into(), blake3: vec![String::new(); digests] }],
    };
    let error = |path: PathBuf| message(&folder, check(&path).unwrap_err());
    insta::assert_snapshot!(error(with_header(&folder, &manifest(3, 1), &[4], b"data")), @"`made.wlm` has format version 3, this program reads 2: recompile the model");
    insta::assert_snapshot!(error(with_header(&folder, &manifest(2, 2), &[4], b"data")), @"the header of `made.wlm` is damaged: section `a`: wrong number of digests; copy or compile the file again");
    insta::assert_snapshot!(error(with_header(&folder, &manifest(2, 1), &[9], b"data")), @"`made.wlm` has 324 bytes, its header says 329; copy or compile the file again");
    insta::assert_snapshot!(error(with_header(&folder, &manifest(2, 1), &[4], b"data")), @"section `a` of `made.wlm` is damaged: its digest does not match; copy or compile the file again");
    insta::assert_snapshot!(error(with_header(&folder, &manifest(2, 1), &[], b"")), @"the header of `made.wlm` is damaged: section `a`: not among the tensors; copy or compile the file again");
}

proptest! {
    /// Headers that are wrong but signed get past the digest, to everything behind it.
    #[test]
    fn mutated_headers_do_not_panic(
        changes in prop::collection::vec((8usize..2000, any::<u8>()), 1..4),
    ) {
        let digests = |name: &str, count| SectionDigests {
            name: name.into(),
            blake3: vec!["0".repeat(64); count],
        };
        let manifest = Manifest {
            format: 1,
            compiler: "c".into(),
            model: "m".into(),
            targets: vec!["cpu".into()],
            sections: vec![digests("a", 1), digests("b", 2)],
        };
        let mut head = header::encode(&manifest, &[64, 5 << 20]);
        let bytes = head.len();
        for (at, byte) in changes {
            head[8 + at % (bytes - 8)] = byte;
        }
        if let Some(place) = header::digest_place(&head) {
            head[place].fill(b'0');
        }
        header::sign(&mut head);
        head.resize(bytes + 64 + (5 << 20), 0);
        if let Ok(header) = header::decode(Path::new("x"), &head) {
            prop_assert_eq!(header.ranges.len(), header.manifest.sections.len());
            prop_assert!(header.ranges.iter().all(|range| range.end <= head.len()));
        }
    }
}
