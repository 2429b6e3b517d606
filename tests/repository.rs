//! The documents of the repository: documents, scripts and examples are listed, and the files and headings that they link
//! to exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The documents whose links and paths are checked.
const DOCUMENTS: [&str; 15] = [
    "CHANGELOG.md",
    "CODE_OF_CONDUCT.md",
    "CONTRIBUTING.md",
    "README.md",
    "SECURITY.md",
    "docs/GLOSSARY.md",
    "docs/README.md",
    "docs/api.md",
    "docs/configuration.md",
    "docs/local.md",
    "docs/maintenance.md",
    "docs/search.md",
    "examples/README.md",
    "scripts/README.md",
    ".github/pull_request_template.md",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The names of the files in a folder, without its README.
fn files(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(root().join(folder)).unwrap().map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    files.map(|entry| entry.file_name().into_string().unwrap()).filter(|name| name != "README.md").collect()
}

/// The targets of a Markdown text's inline links.
fn links(text: &str) -> BTreeSet<String> {
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target.to_owned()).collect()
}

/// The anchors of a Markdown text's headings: lowercase, without punctuation, with hyphens for spaces.
fn anchors(text: &str) -> BTreeSet<String> {
    let anchor = |heading: &str| {
        let lowercase = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = lowercase.chars().filter(|letter| letter.is_alphanumeric() || "_- ".contains(*letter));
        kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect::<String>()
    };
    text.lines().filter(|line| line.starts_with('#')).map(anchor).collect()
}

/// The paths in a text's code spans: text with a slash that starts with a top-level entry of the repository and has no
/// placeholder or argument.
fn code_paths(text: &str) -> BTreeSet<String> {
    let is_path = |span: &&str| {
        let named = |letter: char| letter.is_alphanumeric() || "_-./".contains(letter);
        let first = span.split('/').next().unwrap_or_default();
        span.contains('/') && span.chars().all(named) && !first.is_empty() && root().join(first).exists()
    };
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).filter(is_path).map(str::to_owned).collect()
}

#[test]
fn documents_scripts_and_examples_are_listed_in_their_readme() {
    for folder in ["docs", "scripts", "examples"] {
        let linked = links(&read(&format!("{folder}/README.md")));
        let own: BTreeSet<String> = linked.into_iter().filter(|target| !target.contains('/')).collect();
        assert_eq!(own, files(folder), "{folder}/README.md and the files of {folder}/ differ");
    }
}

#[test]
fn documents_name_existing_files() {
    let mut missing = Vec::new();
    for document in DOCUMENTS {
        let text = read(document);
        let folder = Path::new(document).parent().unwrap();
        for link in links(&text).iter().filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link.as_str(), ""));
            let target = if file.is_empty() { root().join(document) } else { root().join(folder).join(file) };
            let is_broken = |anchor: &str| !anchors(&fs::read_to_string(&target).unwrap()).contains(anchor);
            if !target.exists() || (!anchor.is_empty() && is_broken(anchor)) {
                missing.push(format!("{document}: link to {link}"));
            }
        }
        // Environments and build output are created later.
        let created = |path: &String| path.starts_with(".venv") || path.starts_with("target/");
        for path in code_paths(&text).into_iter().filter(|path| !created(path)) {
            if !root().join(&path).exists() {
                missing.push(format!("{document}: path {path}"));
            }
        }
    }
    assert!(missing.is_empty(), "documents name files that do not exist:\n{}", missing.join("\n"));
}

#[test]
fn links_and_paths_are_found() {
    let text =
        "See [a](docs/a.md#b) and [c](https://example.com).\n`scripts/test`, `scripts/<name>`, `a/b`, `GET /users/x`.";
    assert_eq!(links(text).into_iter().collect::<Vec<_>>(), ["docs/a.md#b", "https://example.com"]);
    assert_eq!(code_paths(text).into_iter().collect::<Vec<_>>(), ["scripts/test"]);
    let headings = "# A `b`, c\ntext\n## 400 invalid path: `urn:x:y-z`\n";
    assert_eq!(anchors(headings).into_iter().collect::<Vec<_>>(), ["400-invalid-path-urnxy-z", "a-b-c"]);
}

#[test]
fn test_script_times_are_listed_for_every_step() {
    let steps: Vec<String> = read("scripts/test")
        .lines()
        .filter_map(|line| line.strip_prefix("step \"").or_else(|| line.strip_prefix("step_next_to_others \"")))
        .filter_map(|rest| rest.split_once('"'))
        .map(|(step, _)| step.to_owned())
        .collect();
    let guide = read("CONTRIBUTING.md");
    let listed = guide.split("| step | seconds |").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap();
    let listed: Vec<&str> = listed.lines().skip(2).filter_map(|row| row.split('|').nth(1)).map(str::trim).collect();
    assert_eq!(listed, steps, "the table of CONTRIBUTING.md and the steps of scripts/test differ");
}

/// The dependencies that these options select, each with its features; one that is built twice is listed twice.
fn dependency_features(options: &[&str]) -> BTreeSet<(String, String)> {
    let fixed = ["tree", "--locked", "--offline", "--workspace", "--prefix", "none", "--format", "{p}\t{f}"];
    let listed = Command::new(env!("CARGO")).current_dir(root()).args(fixed).args(options).output().unwrap();
    assert!(listed.status.success(), "cargo tree: {}", String::from_utf8_lossy(&listed.stderr));
    let lines = String::from_utf8(listed.stdout).unwrap();
    // A line that repeats a package ends in (*), and one of this workspace contains its path.
    let lines = lines.lines().map(|line| line.trim_end_matches(" (*)")).filter(|line| !line.contains("(/"));
    lines.filter_map(|line| line.split_once('\t')).map(|(name, all)| (name.to_owned(), all.to_owned())).collect()
}

#[test]
fn test_util_feature_selects_the_dependency_features_of_the_tests() {
    let with_feature = dependency_features(&["--edges", "normal,build", "--features", "test-util"]);
    let mut of_tests = dependency_features(&["--edges", "normal,build,dev"]);
    of_tests.retain(|(package, _)| with_feature.iter().any(|(name, _)| name == package));
    assert!(with_feature.len() > 100, "{with_feature:?}");
    assert_eq!(with_feature, of_tests, "add the features that differ to `test-util` in tests/Cargo.toml");
}
