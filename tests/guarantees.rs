//! docs/GUARANTEES.md is a contract: every guarantee is numbered, names tests that exist, and has one test with its
//! number in this module: `cargo test -p millrace-tests guarantee_07`.

mod api;
mod archive;
mod cache;
mod delivery;
mod maintenance;
mod relational;
mod search;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn tests_of(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests_of(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            // A test's name is on the first `fn` line after its attribute; the properties of a contract suite have no
            // attribute.
            let functions = text.lines().filter_map(|line| line.trim_start().split_once("fn "));
            names.extend(functions.filter_map(|(_, rest)| rest.split(['(', '<']).next()).map(str::to_owned));
        }
    }
}

#[test]
fn every_guarantee_names_existing_tests_and_has_one_of_its_number() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut names = BTreeSet::new();
    for folder in ["tests", "shared/src", "functions", "crates"] {
        tests_of(&root.join(folder), &mut names);
    }
    let text = fs::read_to_string(root.join("docs/GUARANTEES.md")).unwrap();
    let guaranteed = text.split("\n## Guaranteed\n").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let mut numbers = 0;
    for guarantee in guaranteed.split("\n\n").map(str::trim).filter(|part| !part.is_empty()).flat_map(paragraphs) {
        numbers += 1;
        assert!(guarantee.starts_with(&format!("{numbers}. ")), "guarantee {numbers} is out of order:\n{guarantee}");
        let (_, shown) = guarantee.split_once("Shown by ").unwrap_or_else(|| panic!("no test shows:\n{guarantee}"));
        let shown: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        let own = format!("guarantee_{numbers:02}_");
        assert!(
            shown.first().is_some_and(|first| first.starts_with(&own)),
            "no test of its number shows:\n{guarantee}"
        );
        for name in shown {
            assert!(names.contains(name), "guarantee {numbers} names {name}, which is no test");
        }
    }
    let of_a_number = names.iter().filter(|name| name.starts_with("guarantee_")).count();
    assert_eq!(of_a_number, numbers, "each guarantee has one test of its number, and each of those its guarantee");
}

/// The items of a numbered list; an item begins on a line that starts with its number.
fn paragraphs(block: &str) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    for line in block.lines() {
        let begins = line.split_once(". ").is_some_and(|(number, _)| number.parse::<u32>().is_ok());
        match items.last_mut() {
            Some(item) if !begins => {
                item.push(' ');
                item.push_str(line.trim());
            }
            _ => items.push(line.to_owned()),
        }
    }
    items
}
