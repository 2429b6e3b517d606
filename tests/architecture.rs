//! The layering of the source code: dependencies point only downwards, `main.rs` contains only wiring, and file names
//! describe the contents.
//!
//! The table in ARCHITECTURE.md assigns a layer to every source file; a file without one fails the test, so that its
//! author has to choose a layer.

use std::collections::{BTreeMap, BTreeSet};
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

/// The table of ARCHITECTURE.md that assigns the modules to layers; it is the only such list.
const LAYERS_TABLE: &str = "| layer | contents | modules |";

/// The folders that contain a crate each; `functions/*` and `crates/*` are expanded.
const CRATE_FOLDERS: [&str; 5] = ["shared", "functions/*", "crates/*", "cli", "bench"];

const MAIN_LINES: usize = 40;
const EMPTY_NAMES: [&str; 10] =
    ["utils", "util", "common", "helpers", "helper", "types", "models", "base", "core", "misc"];
/// File names that were replaced by the field's terms; docs/GLOSSARY.md has the terms.
const REFUSED_FILES: [&str; 26] = [
    "archived",
    "chapters",
    "circle",
    "course",
    "damage",
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
/// Names of functions that were replaced. A constructor or a conversion is named `from_*`, never `of_*`.
const REFUSED_FUNCTIONS: [&str; 22] = [
    "answer", "ask", "asked", "floor", "held", "in_words", "judge", "land", "moment", "of", "place", "reach", "retire",
    "settle", "sound", "spell", "spelled", "surplus", "tell", "teller", "told", "whole",
];
/// Names of variables that were replaced: `response`, `message`, `evaluated`, `position` and `corrupt` are the terms.
const REFUSED_VARIABLES: [&str; 8] = ["answer", "answers", "damaged", "judged", "judge", "place", "places", "said"];
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
    /// The folder of the crate, from the root of the repository.
    pub(crate) folder: String,
    pub(crate) path: PathBuf,
    module: String,
    text: String,
}

impl SourceFile {
    /// Returns whether the file is part of a deployed function.
    pub(crate) fn is_deployed(&self) -> bool {
        self.folder.starts_with("functions/")
            || [
                "shared",
                "crates/http",
                "crates/archive",
                "crates/sinks",
                "crates/transform",
                "crates/dynamodb-client",
                "crates/json-scanner",
            ]
            .contains(&self.folder.as_str())
    }

    /// Returns whether the file is in this module of this crate.
    pub(crate) fn is_in(&self, folder: &str, module: &str) -> bool {
        (self.folder.as_str(), self.module.as_str()) == (folder, module)
    }
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

/// Returns the folders of all crates that contain code, from the root of the repository.
fn crate_folders() -> Vec<String> {
    let mut folders = Vec::new();
    for pattern in CRATE_FOLDERS {
        match pattern.strip_suffix("/*") {
            None => folders.push(pattern.to_owned()),
            Some(parent) => {
                for entry in fs::read_dir(root().join(parent)).unwrap() {
                    let name = entry.unwrap().file_name().into_string().unwrap();
                    folders.push(format!("{parent}/{name}"));
                }
            }
        }
    }
    folders.sort();
    folders
}

/// Returns the name of the crate in this folder, as its code and that of other crates writes it.
fn crate_name(folder: &str) -> String {
    let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
    let package = manifest.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).unwrap();
    package.replace('-', "_")
}

pub(crate) fn sources() -> Vec<SourceFile> {
    let mut sources = Vec::new();
    for folder in crate_folders() {
        let base = root().join(&folder).join("src");
        let mut files = Vec::new();
        rust_files(&base, &mut files);
        assert!(!files.is_empty(), "{folder} holds no Rust file");
        for path in files {
            let relative = path.strip_prefix(&base).unwrap().to_owned();
            let first = relative.components().next().unwrap().as_os_str().to_string_lossy();
            let module = first.trim_end_matches(".rs").to_owned();
            let text = fs::read_to_string(&path).unwrap();
            let path = Path::new(&folder).join("src").join(relative);
            sources.push(SourceFile { folder: folder.clone(), path, module, text });
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

/// The layer of each module, by the folder of its crate and its name; `*` for all other modules of the crate.
struct AssignedLayers(BTreeMap<(String, String), SourceLayer>);

impl AssignedLayers {
    /// Reads the table in ARCHITECTURE.md. The last cell of a row lists crates, separated by semicolons: the folder of a
    /// crate in backticks, and after a colon the modules if they are not all others of the crate.
    fn read() -> Self {
        let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
        let rows = text.split_once(LAYERS_TABLE).unwrap().1.lines().skip(2).take_while(|line| line.starts_with('|'));
        let mut layers = BTreeMap::new();
        for row in rows {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            let [name, _, modules] = cells[..] else { panic!("a row of three cells: {row}") };
            let layer = layer_of_row(name);
            for entry in modules.split(';') {
                let (folder, names) = entry.split_once(':').unwrap_or((entry, "`*`"));
                for folder in expanded(quoted(folder).first().unwrap_or_else(|| panic!("a crate in `{entry}`"))) {
                    assert!(root().join(&folder).join("Cargo.toml").exists(), "{folder} is not a crate");
                    for module in quoted(names) {
                        let before = layers.insert((folder.clone(), module.clone()), layer);
                        assert!(before.is_none(), "{folder}: {module} is in two rows");
                    }
                }
            }
        }
        Self(layers)
    }

    fn of(&self, folder: &str, module: &str) -> Option<SourceLayer> {
        let assigned = |module: &str| self.0.get(&(folder.to_owned(), module.to_owned())).copied();
        // A library's lib.rs that is not assigned declares its modules, and no other crate uses it.
        let root = (module == "lib").then_some(DevTool);
        assigned(module).or_else(|| assigned("*")).or(root)
    }
}

fn layer_of_row(name: &str) -> SourceLayer {
    match name {
        "Dev tools" => DevTool,
        "Composition root" => CompositionRoot,
        "Application" => Application,
        "Decisions" => Decision,
        "Adapters" => Adapter,
        "Codecs" => Codec,
        "Domain" => Domain,
        "Runtime" => Runtime,
        other => panic!("ARCHITECTURE.md has a layer that this test does not know: {other}"),
    }
}

/// Returns the texts in backticks.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn expanded(folder: &str) -> Vec<String> {
    match folder.strip_suffix('*') {
        None => vec![folder.to_owned()],
        Some(parent) => crate_folders().into_iter().filter(|folder| folder.starts_with(parent)).collect(),
    }
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
    let layers = AssignedLayers::read();
    let crates: Vec<_> = crate_folders().into_iter().map(|folder| (crate_name(&folder), folder)).collect();
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| !is_test(source)) {
        let Some(from) = layers.of(&source.folder, &source.module) else {
            wrong.push(format!("{} is in no row of the layers table in ARCHITECTURE.md", source.path.display()));
            continue;
        };
        let code = code(source);
        for (krate, folder) in &crates {
            let own = *folder == source.folder;
            let mut modules = named(&code, krate);
            if own {
                modules.extend(named(&code, "crate"));
            }
            for module in modules {
                if own && module == source.module {
                    continue;
                }
                let modules = root().join(folder).join("src");
                let is_file = modules.join(&module).with_extension("rs").exists() || modules.join(&module).is_dir();
                // A name without a file is an item of the crate root.
                let to = layers.of(folder, if is_file { &module } else { "lib" });
                let arrow = format!("{} ({from:?}) → {krate}::{module}", source.path.display());
                match to {
                    Some(to) if may_import(from, to) => {}
                    Some(to) => wrong.push(format!("{arrow} ({to:?})")),
                    None => wrong.push(format!("{arrow}, which is in no row")),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "dependencies that go up a layer:\n{}", wrong.join("\n"));
}

#[test]
fn every_row_of_the_layers_table_names_modules_that_exist() {
    let known: BTreeSet<(String, String)> =
        sources().into_iter().map(|source| (source.folder, source.module)).collect();
    let gone = AssignedLayers::read().0.into_keys().filter(|(_, module)| module != "*");
    let gone: Vec<_> = gone.filter(|assigned| !known.contains(assigned)).collect();
    assert!(gone.is_empty(), "not in the source tree: {gone:?}");
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
        let dialect = source.is_in("shared", "stream");
        assert!(!names || dialect, "{} names aws_lambda_events", source.path.display());
    }
}

#[test]
fn only_the_metric_registry_emits_metrics() {
    for source in sources() {
        let emits = ["counter!(", "gauge!(", "histogram!("].iter().any(|call| code(&source).contains(call));
        let registry = source.is_in("shared", "metric");
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

/// Returns the names of the functions that the code defines.
fn defined_functions(code: &str) -> impl Iterator<Item = String> {
    code.lines().filter_map(|line| {
        let (before, name) = line.split_once("fn ")?;
        let is_declared = before.is_empty() || before.ends_with(' ');
        word(name).filter(|_| is_declared && !before.contains('"'))
    })
}

#[test]
fn replaced_function_names_do_not_come_back() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| !is_test(source)) {
        for name in defined_functions(&code(source)) {
            if REFUSED_FUNCTIONS.contains(&name.as_str()) || name.starts_with("of_") {
                wrong.push(format!("{}: the function name {name}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "see docs/GLOSSARY.md for the terms:\n{}", wrong.join("\n"));
}

/// The names that a line binds with `let` or as the first parameter of a closure.
fn bound_variables(line: &str) -> impl Iterator<Item = String> {
    let after = |separator: &'static str| line.split(separator).skip(1);
    after("let ").chain(after("|")).filter_map(|name| word(name.strip_prefix("mut ").unwrap_or(name)))
}

#[test]
fn replaced_variable_names_do_not_come_back() {
    let mut wrong = Vec::new();
    for source in sources() {
        for name in code(&source).lines().flat_map(bound_variables) {
            if REFUSED_VARIABLES.contains(&name.as_str()) {
                wrong.push(format!("{}: the variable name {name}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let bound: Vec<_> = bound_variables("let mut said = list.map(|place| place + 1);").collect();
    assert_eq!(bound, ["said", "place"]);
}

#[test]
fn replaced_names_do_not_come_back() {
    let mut files = Vec::new();
    for folder in crate_folders() {
        rust_files(&root().join(folder).join("src"), &mut files);
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
fn defined_functions_are_found_whatever_their_qualifiers() {
    let code =
        "pub(crate) const fn of<T>() {}\n    async fn from_text(text: &str) {}\nlet call: fn(u8) = next;\n\"a fn b\"";
    assert_eq!(defined_functions(code).collect::<Vec<_>>(), ["of", "from_text"]);
}

#[test]
fn defined_types_are_found_whatever_their_visibility() {
    let text = "pub struct One<'a> {}\n    pub(crate) enum TwoWords {}\nstruct Own;\npub fn not(type_of: u8) {}\ntype Alias = u8;";
    let expected = [("One", true), ("TwoWords", true), ("Own", false), ("Alias", false)];
    assert_eq!(defined_types(text), expected.map(|(name, public)| (name.to_owned(), public)));
}
