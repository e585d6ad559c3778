//! What `docs/rfc.md` says of the sources is so.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn document() -> String {
    fs::read_to_string(root().join("docs/rfc.md")).unwrap()
}

/// Every file below `directory`, by its path from the root of the repository.
fn files(directory: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(root().join(directory)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{directory}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// The sources and tests of all crates.
fn sources() -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        for part in ["src", "tests"].map(|part| format!("{name}/{part}")) {
            if name.starts_with("empath") && root().join(&part).is_dir() {
                files(&part, &mut found);
            }
        }
    }
    files("tests/e2e", &mut found);
    found.retain(|path| {
        Path::new(path).extension().is_some_and(|end| ["rs", "py", "txt"].iter().any(|e| end == *e))
    });
    found
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The sources that are part of the programs.
fn programs() -> impl Iterator<Item = String> {
    sources().into_iter().filter(|path| path.contains("/src/") && !path.starts_with("empath-testkit"))
}

#[test]
fn every_file_dialogue_and_test_that_is_named_exists() {
    let (document, sources, programs) = (document(), sources(), programs().collect::<Vec<_>>());
    let texts: Vec<_> = sources.iter().map(|path| read(path)).collect();
    let (mut named_files, mut named_tests, mut named_dialogues) = (0, 0, 0);
    for name in document.split('`').skip(1).step_by(2) {
        let is_word = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_/.*".contains(&b));
        if !is_word {
            continue;
        }
        if name.contains('.') {
            named_files += 1;
            let suffix = format!("/{name}");
            let meant = programs.iter().filter(|path| path.ends_with(&suffix)).count();
            assert!(meant == 1 || root().join(name).exists(), "{name} means one file");
        } else if name.contains('_') {
            named_tests += 1;
            let heads = [format!("fn {name}("), format!("def {name}(")];
            let exists = texts.iter().any(|text| heads.iter().any(|head| text.contains(head)));
            assert!(exists, "{name} is a test");
        } else {
            named_dialogues += 1;
            let (start, end) = name.split_once('*').unwrap_or((name, ""));
            let exists = sources.iter().any(|path| {
                let folders = ["empath-smtp/tests/dialogues/", "empath-delivery/tests/scenarios/"];
                let file = folders.iter().find_map(|folder| path.strip_prefix(folder));
                let dialogue = file.and_then(|file| file.strip_suffix(".txt"));
                dialogue.is_some_and(|dialogue| {
                    if name.contains('*') {
                        dialogue.starts_with(start) && dialogue.ends_with(end)
                    } else {
                        dialogue == name
                    }
                })
            });
            assert!(exists, "{name} is a dialogue or a scenario");
        }
    }
    assert!(named_files > 50 && named_tests > 50 && named_dialogues > 50);
}

#[test]
fn every_deviation_of_the_sources_is_listed_and_no_other() {
    let document = document();
    let section = document.split("\n## ").find(|section| section.starts_with("Deviations")).unwrap();
    let listed: BTreeSet<_> =
        section.lines().filter_map(|line| line.strip_prefix("- RFC ")?.split(':').next()).collect();
    let texts: Vec<_> = programs().map(|path| read(&path)).collect();
    let found: BTreeSet<_> = texts
        .iter()
        .flat_map(|text| text.split("DEVIATION RFC ").skip(1))
        .map(|rest| rest.split(':').next().unwrap())
        .collect();
    assert!(found.len() > 5);
    assert_eq!(listed, found);
}

#[test]
fn every_rfc_that_the_sources_follow_is_named() {
    let document = document();
    let cited = |text: &str| -> BTreeSet<u16> {
        text.split("RFC ").skip(1).filter_map(|rest| rest.get(..4)?.parse().ok()).collect()
    };
    let known: BTreeSet<u16> =
        document.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect();
    for path in programs() {
        let missing: Vec<_> = cited(&read(&path)).difference(&known).copied().collect();
        assert_eq!(missing, [0_u16; 0], "RFCs in {path}");
    }
}
