//! The layering of the source code: dependencies point only downwards, `main.rs` contains only wiring, and file names
//! describe the contents.
//!
//! [`LAYERS`] assigns a layer to every source file; a file without one fails the test, so that its author has to choose
//! a layer. ARCHITECTURE.md contains the same table.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The layer of a module. A dependency may point to a lower layer, never up, and never between decisions and adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SourceLayer {
    /// Process-wide setup, used by composition roots only.
    Runtime,
    /// L0: domain types.
    Domain,
    /// L1: conversions between an external format and the domain types.
    Codec,
    /// L2: pure functions.
    Decision,
    /// L2: I/O.
    Adapter,
    /// L3: reads, decides, applies, and responds.
    Application,
    /// L4: creates the clients once and passes them on.
    CompositionRoot,
    /// L5: may depend on every layer.
    DevTool,
}

use SourceLayer::{Adapter, Application, Codec, CompositionRoot, Decision, DevTool, Domain, Runtime};

/// Crate, module, layer. The submodules of a module are in its layer.
const LAYERS: &[(&str, &str, SourceLayer)] = &[
    ("shared", "user", Domain),
    ("shared", "revision", Domain),
    ("shared", "change", Domain),
    ("shared", "number", Domain),
    ("shared", "clock", Domain),
    ("shared", "version_fence", Domain),
    ("shared", "error_chain", Domain),
    ("shared", "folding", Domain),
    ("shared", "invocation", Domain),
    ("shared", "metric", Domain),
    ("shared", "http", Domain),
    ("shared", "stream", Codec),
    ("shared", "item", Codec),
    ("shared", "raw_item", Codec),
    ("shared", "replica_item", Codec),
    ("shared", "checkpoint", Decision),
    ("shared", "table", Adapter),
    ("shared", "table_reader", Adapter),
    ("shared", "cache", Adapter),
    ("shared", "quarantine", Adapter),
    ("shared", "iam_token", Adapter),
    ("shared", "postgres", Adapter),
    ("shared", "environment", Runtime),
    ("shared", "telemetry", Runtime),
    ("shared", "aws", Runtime),
    ("shared", "lib", DevTool),
    ("front", "response", Application),
    ("front", "base_path", Application),
    ("front", "deadline", Application),
    ("front", "auth", Application),
    ("front", "identifier", Application),
    ("front", "request_telemetry", Application),
    ("front", "path", Application),
    ("front", "problem", Application),
    ("front", "route", Application),
    ("front", "uri", Application),
    ("front", "lambda", CompositionRoot),
    ("front", "lib", DevTool),
    ("api", "access", Application),
    ("api", "body", Application),
    ("api", "cache", Application),
    ("api", "idempotency", Application),
    ("api", "rate_limit", Application),
    ("api", "precondition", Application),
    ("api", "cursor", Application),
    ("api", "router", Application),
    ("api", "users", Application),
    ("search", "access", Application),
    ("search", "openapi", Application),
    ("search", "cursor", Application),
    ("search", "filter", Application),
    ("search", "sort", Application),
    ("search", "sql", Application),
    ("search", "statement", Application),
    ("search", "request", Application),
    ("search", "router", Application),
    ("search", "users", Application),
    ("search", "database", Application),
    ("search", "config", CompositionRoot),
    ("search", "lib", CompositionRoot),
    ("search", "main", CompositionRoot),
    ("replicator", "deduplicate", Decision),
    ("replicator", "confirmed", Decision),
    ("replicator", "sink", Adapter),
    ("replicator", "handler", Application),
    ("archiver", "archive", Decision),
    ("archiver", "store", Adapter),
    ("archiver", "handler", Application),
    ("maintenance", "progress", Domain),
    ("maintenance", "failure_record", Codec),
    ("maintenance", "reconcile", Decision),
    ("maintenance", "parquet", Decision),
    ("maintenance", "row_versions", Application),
    ("maintenance", "archive_scan", Application),
    ("maintenance", "source", Adapter),
    ("maintenance", "mapping", Adapter),
    ("maintenance", "deployment", Adapter),
    ("maintenance", "failure_bucket", Adapter),
    ("maintenance", "archive_objects", Application),
    ("maintenance", "catalog", Application),
    ("maintenance", "failure_index", Application),
    ("maintenance", "repair", Application),
    ("maintenance", "task", Application),
    ("maintenance", "handler", Application),
    ("api", "config", CompositionRoot),
    ("replicator", "config", CompositionRoot),
    ("archiver", "config", CompositionRoot),
    ("api", "openapi", Application),
    ("api", "lib", CompositionRoot),
    ("replicator", "lib", CompositionRoot),
    ("archiver", "lib", CompositionRoot),
    ("maintenance", "lib", CompositionRoot),
    ("maintenance", "config", CompositionRoot),
    ("maintenance", "main", CompositionRoot),
    ("api", "main", CompositionRoot),
    ("replicator", "main", CompositionRoot),
    ("archiver", "main", CompositionRoot),
];

const CRATES: [(&str, &str); 10] = [
    ("shared", "shared/src"),
    ("front", "crates/http/src"),
    ("api", "functions/api/src"),
    ("replicator", "functions/replicator/src"),
    ("archiver", "functions/archiver/src"),
    ("maintenance", "functions/maintenance/src"),
    ("search", "functions/search/src"),
    ("contract", "crates/contract/src"),
    ("local", "crates/local/src"),
    ("bench", "bench/src"),
];

const MAIN_LINES: usize = 40;
const EMPTY_NAMES: [&str; 10] =
    ["utils", "util", "common", "helpers", "helper", "types", "models", "base", "core", "misc"];
/// File names that were replaced by the field's terms; docs/GLOSSARY.md has the terms.
const REFUSED_FILES: [&str; 24] = [
    "archived",
    "chapters",
    "course",
    "door",
    "facts",
    "fault",
    "flight",
    "floor",
    "gate",
    "held",
    "judge",
    "laws",
    "lives",
    "marks",
    "mend",
    "mending",
    "observe",
    "owed",
    "pace",
    "settle",
    "shelf",
    "stream_pump",
    "sweep",
    "told",
];
/// Type names that were replaced. Most of them had several definitions, so that a search by name found the wrong one.
const REFUSED_TYPES: [&str; 46] = [
    "Ailing", "Answer", "Answered", "Aside", "Asked", "At", "BadOrder", "Course", "Damage", "Debt", "Debts", "Done",
    "Door", "Failure", "Fault", "Flaw", "Flight", "Flights", "Floor", "Found", "Gate", "Given", "Held", "House",
    "Library", "Line", "Look", "Looked", "Mend", "Mended", "Mistake", "Obstacle", "Order", "Owed", "Patience", "Place",
    "Refusal", "Shelf", "Sought", "Spell", "Stage", "Theatre", "Told", "Unread", "Unsound", "World",
];
/// Types of one word that other files may name, because the word is a term of the field or of the domain.
const ONE_WORD_TYPES: [&str; 34] = [
    "Cache",
    "Caller",
    "Change",
    "Clock",
    "Compression",
    "Coverage",
    "Email",
    "Endpoints",
    "Environment",
    "Execution",
    "Health",
    "Invocation",
    "Key",
    "Patch",
    "Precondition",
    "Problem",
    "Quarantine",
    "Replacement",
    "Replica",
    "Revision",
    "Scenario",
    "Scope",
    "Simulation",
    "Sink",
    "Stats",
    "Summary",
    "Telemetry",
    "Timestamp",
    "User",
    "Weakness",
    "Output",
    "Error",
    "Item",
    "Value",
];

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

/// The code of a file without comments and without its unit tests, which may depend on everything.
pub(crate) fn code(source: &SourceFile) -> String {
    let production = source.text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    production.lines().filter(is_code).collect::<Vec<_>>().join("\n")
}

pub(crate) fn is_test(source: &SourceFile) -> bool {
    source.path.file_stem().is_some_and(|stem| stem.to_string_lossy().contains("tests"))
        || source.path.components().any(|part| part.as_os_str() == "tests")
}

/// The modules of crate `krate` (`crate` for the file's own crate) that the code names, in paths and in use groups.
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

fn layer(krate: &str, module: &str) -> Option<SourceLayer> {
    if ["contract", "local", "bench"].contains(&krate) {
        return Some(DevTool);
    }
    LAYERS.iter().find(|(owner, name, _)| (*owner, *name) == (krate, module)).map(|(_, _, layer)| *layer)
}

fn may_import(from: SourceLayer, to: SourceLayer) -> bool {
    match (from, to) {
        (DevTool, _) => true,
        (CompositionRoot, to) => to != DevTool,
        (Application, to) => !matches!(to, CompositionRoot | DevTool | Runtime),
        (Adapter, to) => matches!(to, Adapter | Codec | Domain),
        (Decision, to) => matches!(to, Decision | Codec | Domain),
        (Codec, to) => matches!(to, Codec | Domain),
        (Domain, to) => to == Domain,
        (Runtime, to) => matches!(to, Runtime | Domain),
    }
}

#[test]
fn imports_point_only_downwards() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| !is_test(source)) {
        let Some(from) = layer(source.krate, &source.module) else {
            wrong.push(format!("{} is assigned to no layer in tests/architecture.rs", source.path.display()));
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
                // A capitalized name is an item that the crate root exports, so it belongs to the composition root.
                let to =
                    if module.starts_with(char::is_uppercase) { Some(CompositionRoot) } else { layer(krate, &module) };
                let arrow = format!("{} ({from:?}) → {krate}::{module}", source.path.display());
                match to {
                    Some(to) if may_import(from, to) => {}
                    Some(to) => wrong.push(format!("{arrow} ({to:?})")),
                    // A function of the crate root, which only composition roots and dev tools may use.
                    None if matches!(from, CompositionRoot | DevTool) => {}
                    None => wrong.push(format!("{arrow}, which is assigned to no layer")),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "dependencies that go up a layer:\n{}", wrong.join("\n"));
}

#[test]
fn an_arrow_is_found_in_every_form_of_import() {
    let code =
        "use crate::{sink::{Sink, dynamodb::X}, deduplicate};\nlet x = crate::handler::run();\nuse mycrate::nothing;";
    let found: Vec<_> = named(code, "crate").into_iter().collect();
    assert_eq!(found, ["deduplicate", "handler", "sink"]);
    assert!(
        !may_import(Decision, Adapter) && !may_import(Adapter, Decision) && !may_import(Application, CompositionRoot)
    );
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

/// Returns the names of the types that a source file defines, and whether another file may name each of them.
fn defined_types(text: &str) -> Vec<(String, bool)> {
    let mut types = Vec::new();
    for line in text.lines() {
        let declared = line.trim_start();
        let public = declared.starts_with("pub");
        let bare =
            declared.split_once(") ").filter(|(visibility, _)| visibility.starts_with("pub(")).map(|(_, rest)| rest);
        let bare = bare.or_else(|| declared.strip_prefix("pub ")).unwrap_or(declared);
        for keyword in ["struct ", "enum ", "trait ", "type "] {
            let name = bare.strip_prefix(keyword).and_then(word);
            types.extend(name.filter(|name| name.starts_with(char::is_uppercase)).map(|name| (name, public)));
        }
    }
    types
}

#[test]
fn replaced_names_do_not_come_back() {
    let mut files = Vec::new();
    for (_, folder) in CRATES {
        rust_files(&root().join(folder), &mut files);
    }
    rust_files(&root().join("tests"), &mut files);
    let mut wrong = Vec::new();
    for path in files {
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        if REFUSED_FILES.contains(&stem.as_str()) {
            wrong.push(format!("{}: the file name {stem}", path.display()));
        }
        for (name, public) in defined_types(&fs::read_to_string(&path).unwrap()) {
            if REFUSED_TYPES.contains(&name.as_str()) {
                wrong.push(format!("{}: the type name {name}", path.display()));
            }
            let words = name.chars().filter(|letter| letter.is_uppercase()).count();
            if public && words < 2 && !ONE_WORD_TYPES.contains(&name.as_str()) {
                wrong.push(format!("{}: the public type {name} has one word", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "see docs/GLOSSARY.md for the terms:\n{}", wrong.join("\n"));
}

#[test]
fn defined_types_are_found_whatever_their_visibility() {
    let text = "pub struct One<'a> {}\n    pub(crate) enum TwoWords {}\nstruct Own;\npub fn not(type_of: u8) {}\ntype Alias = u8;";
    let expected = [("One", true), ("TwoWords", true), ("Own", false), ("Alias", false)];
    assert_eq!(defined_types(text), expected.map(|(name, public)| (name.to_owned(), public)));
}
