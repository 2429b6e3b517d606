//! The layering: imports point only downwards, `main.rs` only wires, and file names say what they contain.
//!
//! Every source file has a room in [`ROOMS`]; a file without one fails the test, so that whoever adds it says where
//! it belongs. ARCHITECTURE.md draws the same table.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Where a module stands. An arrow may point to a lower room, never up, nor across between deciding and applying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SourceLayer {
    /// Process plumbing: for wiring alone.
    Plumbing,
    /// L0.
    Word,
    /// L1: a foreign shape and our words.
    Dialect,
    /// L2: pure.
    Decide,
    /// L2: changes the world.
    Apply,
    /// L3: read, decide, apply, answer.
    Choreography,
    /// L4: clients built once, then handed over.
    Wiring,
    /// L5: sees everything.
    Machine,
}

use SourceLayer::{Apply, Choreography, Decide, Dialect, Machine, Plumbing, Wiring, Word};

/// Crate, module, room. A module's submodules stand in its room.
const ROOMS: &[(&str, &str, SourceLayer)] = &[
    ("shared", "user", Word),
    ("shared", "revision", Word),
    ("shared", "change", Word),
    ("shared", "number", Word),
    ("shared", "clock", Word),
    ("shared", "floor", Word),
    ("shared", "folding", Word),
    ("shared", "invocation", Word),
    ("shared", "metric", Word),
    ("shared", "http", Word),
    ("shared", "stream", Dialect),
    ("shared", "item", Dialect),
    ("shared", "raw_item", Dialect),
    ("shared", "held", Dialect),
    ("shared", "checkpoint", Decide),
    ("shared", "table", Apply),
    ("shared", "raw_table", Apply),
    ("shared", "cache", Apply),
    ("shared", "quarantine", Apply),
    ("shared", "token", Apply),
    ("shared", "postgres", Apply),
    ("shared", "environment", Plumbing),
    ("shared", "telemetry", Plumbing),
    ("shared", "aws", Plumbing),
    ("shared", "lib", Machine),
    ("front", "answer", Choreography),
    ("front", "base_path", Choreography),
    ("front", "deadline", Choreography),
    ("front", "door", Choreography),
    ("front", "identifier", Choreography),
    ("front", "observe", Choreography),
    ("front", "path", Choreography),
    ("front", "problem", Choreography),
    ("front", "route", Choreography),
    ("front", "uri", Choreography),
    ("front", "lambda", Wiring),
    ("front", "lib", Machine),
    ("api", "access", Choreography),
    ("api", "body", Choreography),
    ("api", "cache", Choreography),
    ("api", "idempotency", Choreography),
    ("api", "limit", Choreography),
    ("api", "precondition", Choreography),
    ("api", "page", Choreography),
    ("api", "router", Choreography),
    ("api", "users", Choreography),
    ("search", "access", Choreography),
    ("search", "contract", Choreography),
    ("search", "cursor", Choreography),
    ("search", "filter", Choreography),
    ("search", "sort", Choreography),
    ("search", "sql", Choreography),
    ("search", "statement", Choreography),
    ("search", "question", Choreography),
    ("search", "router", Choreography),
    ("search", "users", Choreography),
    ("search", "database", Choreography),
    ("search", "config", Wiring),
    ("search", "lib", Wiring),
    ("search", "main", Wiring),
    ("replicator", "settle", Decide),
    ("replicator", "confirmed", Decide),
    ("replicator", "sink", Apply),
    ("replicator", "handler", Choreography),
    ("archiver", "archive", Decide),
    ("archiver", "store", Apply),
    ("archiver", "handler", Choreography),
    ("maintenance", "progress", Word),
    ("maintenance", "failure", Dialect),
    ("maintenance", "reconcile", Decide),
    ("maintenance", "columns", Decide),
    ("maintenance", "facts", Choreography),
    ("maintenance", "sweep", Choreography),
    ("maintenance", "source", Apply),
    ("maintenance", "mapping", Apply),
    ("maintenance", "deployment", Apply),
    ("maintenance", "failure_bucket", Apply),
    ("maintenance", "archived", Choreography),
    ("maintenance", "catalog", Choreography),
    ("maintenance", "outstanding", Choreography),
    ("maintenance", "mend", Choreography),
    ("maintenance", "task", Choreography),
    ("maintenance", "handler", Choreography),
    ("api", "config", Wiring),
    ("replicator", "config", Wiring),
    ("archiver", "config", Wiring),
    ("api", "contract", Choreography),
    ("api", "lib", Wiring),
    ("replicator", "lib", Wiring),
    ("archiver", "lib", Wiring),
    ("maintenance", "lib", Wiring),
    ("maintenance", "config", Wiring),
    ("maintenance", "main", Wiring),
    ("api", "main", Wiring),
    ("replicator", "main", Wiring),
    ("archiver", "main", Wiring),
];

const CRATES: [(&str, &str); 10] = [
    ("shared", "shared/src"),
    ("front", "front/src"),
    ("api", "functions/api/src"),
    ("replicator", "functions/replicator/src"),
    ("archiver", "functions/archiver/src"),
    ("maintenance", "functions/maintenance/src"),
    ("search", "functions/search/src"),
    ("contract", "contract/src"),
    ("local", "local/src"),
    ("bench", "bench/src"),
];

const MAIN_LINES: usize = 40;
const EMPTY_NAMES: [&str; 10] =
    ["utils", "util", "common", "helpers", "helper", "types", "models", "base", "core", "misc"];

pub(crate) struct SourceFile {
    pub(crate) krate: &'static str,
    pub(crate) path: PathBuf,
    module: String,
    text: String,
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

pub(crate) fn sources() -> Vec<SourceFile> {
    let mut sources = Vec::new();
    for (krate, folder) in CRATES {
        let base = root().join(folder);
        let mut files = Vec::new();
        rust_files(&base, &mut files);
        assert!(!files.is_empty(), "{folder} holds no Rust file");
        for path in files {
            let relative = path.strip_prefix(&base).unwrap().to_owned();
            let first = relative.components().next().unwrap().as_os_str().to_string_lossy();
            let module = first.trim_end_matches(".rs").to_owned();
            let text = fs::read_to_string(&path).unwrap();
            sources.push(SourceFile { krate, path: Path::new(folder).join(relative), module, text });
        }
    }
    sources
}

/// Without comments, and without the tests: they may look at anything.
pub(crate) fn code(source: &SourceFile) -> String {
    let production = source.text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    production.lines().filter(is_code).collect::<Vec<_>>().join("\n")
}

pub(crate) fn is_test(source: &SourceFile) -> bool {
    source.path.file_stem().is_some_and(|stem| stem.to_string_lossy().contains("tests"))
        || source.path.components().any(|part| part.as_os_str() == "tests")
}

/// The modules of crate `krate` (`crate` for the file's own) that the code names, in paths and in use groups.
fn named(code: &str, krate: &str) -> BTreeSet<String> {
    let prefix = format!("{krate}::");
    let mut modules = BTreeSet::new();
    for (at, _) in code.match_indices(&prefix) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_' || letter == ':') {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            None => modules.extend(word(rest)),
            Some(group) => {
                let mut depth = 0;
                for part in group.split_inclusive(['{', '}', ',']) {
                    if depth == 0 {
                        modules.extend(word(part.trim_start()));
                    }
                    depth += part.matches('{').count();
                    if part.ends_with('}') {
                        if depth == 0 {
                            break;
                        }
                        depth -= 1;
                    }
                }
            }
        }
    }
    modules
}

fn word(text: &str) -> Option<String> {
    let word: String = text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
    (!word.is_empty()).then_some(word)
}

fn room(krate: &str, module: &str) -> Option<SourceLayer> {
    if ["contract", "local", "bench"].contains(&krate) {
        return Some(Machine);
    }
    ROOMS.iter().find(|(owner, name, _)| (*owner, *name) == (krate, module)).map(|(_, _, room)| *room)
}

fn may_import(from: SourceLayer, to: SourceLayer) -> bool {
    match (from, to) {
        (Machine, _) => true,
        (Wiring, to) => to != Machine,
        (Choreography, to) => !matches!(to, Wiring | Machine | Plumbing),
        (Apply, to) => matches!(to, Apply | Dialect | Word),
        (Decide, to) => matches!(to, Decide | Dialect | Word),
        (Dialect, to) => matches!(to, Dialect | Word),
        (Word, to) => to == Word,
        (Plumbing, to) => matches!(to, Plumbing | Word),
    }
}

#[test]
fn imports_point_only_downwards() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| !is_test(source)) {
        let Some(from) = room(source.krate, &source.module) else {
            wrong.push(format!("{} has no room in tests/architecture.rs", source.path.display()));
            continue;
        };
        let code = code(source);
        for (krate, _) in CRATES {
            let own = krate == source.krate;
            let mut modules = named(&code, krate);
            if own {
                modules.extend(named(&code, "crate"));
            }
            for module in modules {
                if own && module == source.module {
                    continue;
                }
                // A capital letter is an item that the crate's root shows: wiring.
                let to = if module.starts_with(char::is_uppercase) { Some(Wiring) } else { room(krate, &module) };
                let arrow = format!("{} ({from:?}) → {krate}::{module}", source.path.display());
                match to {
                    Some(to) if may_import(from, to) => {}
                    Some(to) => wrong.push(format!("{arrow} ({to:?})")),
                    // A function of the crate's root, seen by wiring and the machine.
                    None if matches!(from, Wiring | Machine) => {}
                    None => wrong.push(format!("{arrow}, which has no room")),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that point up:\n{}", wrong.join("\n"));
}

#[test]
fn an_arrow_is_found_in_every_form_of_import() {
    let code = "use crate::{sink::{Sink, dynamodb::X}, settle};\nlet x = crate::handler::run();\nuse mycrate::nothing;";
    let found: Vec<_> = named(code, "crate").into_iter().collect();
    assert_eq!(found, ["handler", "settle", "sink"]);
    assert!(!may_import(Decide, Apply) && !may_import(Apply, Decide) && !may_import(Choreography, Wiring));
}

#[test]
fn only_the_stream_dialect_names_the_event_crate() {
    for source in sources() {
        let names = code(&source).contains("aws_lambda_events");
        let dialect = source.krate == "shared" && source.module == "stream";
        assert!(!names || dialect, "{} names aws_lambda_events", source.path.display());
    }
}

#[test]
fn only_the_metric_registry_emits_metrics() {
    for source in sources() {
        let emits = ["counter!(", "gauge!(", "histogram!("].iter().any(|call| code(&source).contains(call));
        let registry = source.krate == "shared" && source.module == "metric";
        assert!(!emits || registry, "{} emits a metric that is not in the registry", source.path.display());
    }
}

#[test]
fn main_files_only_wire() {
    for source in sources().iter().filter(|source| source.path.ends_with("main.rs")) {
        let lines = source.text.lines().count();
        assert!(lines < MAIN_LINES, "{} has {lines} lines; at most {MAIN_LINES} are allowed", source.path.display());
    }
}

#[test]
fn names_say_what_they_hold() {
    for source in sources() {
        let stem = source.path.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(!EMPTY_NAMES.contains(&stem.as_str()), "{} says nothing", source.path.display());
    }
}
