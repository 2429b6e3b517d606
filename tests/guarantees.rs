//! docs/GUARANTEES.md is a contract: every guarantee is numbered, names tests that exist, and has one test with its
//! number in this module: `cargo test -p millrace-tests guarantee_07`.

mod api;
mod archive;
mod cache;
mod delivery;
mod maintenance;
mod relational;
mod search;
mod transforms;

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

/// Returns the numbers in a text such as "1–3, 5 and 7".
fn numbers(text: &str) -> BTreeSet<usize> {
    let parts = text.split(|letter: char| !letter.is_ascii_digit() && letter != '–').filter(|part| !part.is_empty());
    let range = |part: &str| {
        let (first, last) = part.split_once('–').unwrap_or((part, part));
        first.parse::<usize>().unwrap()..=last.parse().unwrap()
    };
    parts.flat_map(range).collect()
}

#[test]
fn guarantees_for_any_table_are_tested_over_a_second_key_schema() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = fs::read_to_string(root.join("docs/GUARANTEES.md")).unwrap();
    let mut lines = text.lines().skip_while(|line| !line.contains(" hold for any table: "));
    let any_table = numbers(lines.next().unwrap().split(" hold for any table").next().unwrap());
    let of_users = numbers(lines.next().unwrap());
    let mut tested: [BTreeSet<usize>; 2] = Default::default();
    for entry in fs::read_dir(root.join("tests/guarantees")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        for test in text.split("async fn ").filter_map(|test| test.strip_prefix("guarantee_")) {
            let body = test.split("\n}\n").next().unwrap();
            let over_each_shape = ["::of_each_shape()", "::of_each_shape_and_mode()"];
            let is_over_each = over_each_shape.iter().any(|scenes| body.contains(scenes));
            tested[usize::from(is_over_each)].insert(test[..2].parse().unwrap());
        }
    }
    assert_eq!(tested, [of_users, any_table], "the guarantees of the users service, and those for any table");
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
