//! The reference documents agree with the code: template parameters, environment variables, tasks and their fields.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use millrace_maintenance::task::registry::TASKS;

use crate::architecture::{self, SourceFile};

const FUNCTIONS: [&str; 5] = ["api", "search", "replicator", "archiver", "maintenance"];

/// The files that contain the names of environment variables, as string literals of capital letters.
const VARIABLE_FILES: [&str; 13] = [
    "functions/api/src/config.rs",
    "functions/search/src/config.rs",
    "functions/replicator/src/config.rs",
    "crates/sinks/src/config.rs",
    "crates/sinks/src/document.rs",
    "crates/sinks/src/postgres.rs",
    "crates/archive/src/config.rs",
    "functions/archiver/src/config.rs",
    "functions/maintenance/src/config.rs",
    "shared/src/cache/settings.rs",
    "shared/src/postgres/auth.rs",
    "shared/src/postgres/settings.rs",
    "shared/src/telemetry.rs",
];

/// Other files that use the type `Environment`: its definition, the start of a function, the S3 client, which looks for
/// the SDK's variables, and the keys of hashes, which are stored in it under the ARNs of their secrets.
const OTHER_ENVIRONMENT_FILES: [&str; 4] =
    ["crates/sinks/src/hash_keys.rs", "shared/src/aws.rs", "shared/src/environment.rs", "shared/src/runtime.rs"];

fn read(path: &str) -> String {
    fs::read_to_string(architecture::root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The text below a heading of a Markdown document, up to the next heading of the same or a higher level.
fn section<'t>(text: &'t str, heading: &str) -> &'t str {
    let (_, rest) = text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading}"));
    let level = heading.bytes().take_while(|byte| *byte == b'#').count();
    let headings = (1..=level).filter_map(|level| rest.find(&format!("\n{} ", "#".repeat(level))));
    let end = headings.min().unwrap_or(rest.len());
    &rest[..end]
}

/// The table rows of a text whose first cell is a name in backticks: the name and the second cell.
fn rows(text: &str) -> Vec<(String, String)> {
    let row = |row: &str| {
        let (name, cells) = row.split_once("` | ").unwrap_or_else(|| panic!("the first cell is not one name: {row}"));
        let second = cells.split(" | ").next().unwrap_or_default();
        (name.to_owned(), second.trim_end_matches('|').trim().to_owned())
    };
    text.lines().filter_map(|line| line.strip_prefix("| `")).map(row).collect()
}

/// The same by name; no name has two rows.
fn rows_by_name(text: &str) -> BTreeMap<String, String> {
    let rows = rows(text);
    let count = rows.len();
    let by_name: BTreeMap<String, String> = rows.into_iter().collect();
    assert_eq!(by_name.len(), count, "a name has two rows");
    by_name
}

/// The parameters of a template and their defaults, empty if there is none.
fn parameters(path: &str) -> BTreeMap<String, String> {
    let template = read(path);
    let (_, rest) = template.split_once("\nParameters:\n").unwrap();
    let mut parameters = BTreeMap::new();
    let mut name = "";
    for line in rest.lines().take_while(|line| line.is_empty() || line.starts_with(' ')) {
        if let Some(own) = line.strip_prefix("  ").filter(|own| !own.starts_with([' ', '#'])) {
            name = own.trim_end_matches(':');
            parameters.insert(name.to_owned(), String::new());
        } else if let Some(default) = line.strip_prefix("    Default: ") {
            parameters.insert(name.to_owned(), default.trim_matches('"').to_owned());
        }
    }
    parameters
}

fn is_one_of(source: &SourceFile, files: &[&str]) -> bool {
    files.iter().any(|file| source.path.as_path() == Path::new(file))
}

/// The names of environment variables in a file.
fn variables(source: &SourceFile) -> BTreeSet<String> {
    let is_variable =
        |text: &&str| text.len() > 2 && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    architecture::code(source).split('"').filter(is_variable).map(str::to_owned).collect()
}

#[test]
fn documented_template_parameters_and_defaults_are_those_of_the_template() {
    let document = read("docs/configuration.md");
    let documented = rows_by_name(section(&document, "## Template parameters"));
    let documented: BTreeMap<String, String> =
        documented.into_iter().map(|(name, default)| (name, default.trim_matches('`').to_owned())).collect();
    assert_eq!(documented, parameters("template.yaml"));
}

#[test]
fn documented_parameters_of_nested_templates_are_those_of_the_templates() {
    let document = read("docs/configuration.md");
    for entry in fs::read_dir(architecture::root().join("infra")).unwrap() {
        let path = format!("infra/{}", entry.unwrap().file_name().into_string().unwrap());
        // The Terraform module has the parameters of infra/replication.yaml.
        if path == "infra/terraform" {
            continue;
        }
        let documented = rows_by_name(section(&document, &format!("### `{path}`")));
        let declared = parameters(&path);
        assert_eq!(documented.keys().collect::<Vec<_>>(), declared.keys().collect::<Vec<_>>(), "{path}");
    }
}

#[test]
fn documented_environment_variables_are_those_that_the_functions_read() {
    let sources = architecture::sources();
    let files: Vec<&SourceFile> = sources.iter().filter(|source| is_one_of(source, &VARIABLE_FILES)).collect();
    assert_eq!(files.len(), VARIABLE_FILES.len(), "a file of VARIABLE_FILES does not exist");
    let read_by_code: BTreeSet<String> = files.iter().flat_map(|source| variables(source)).collect();
    let document = read("docs/configuration.md");
    let documented = rows_by_name(section(&document, "## Environment variables"));
    assert_eq!(documented.keys().cloned().collect::<BTreeSet<_>>(), read_by_code);
    // The second cell names the functions.
    for function in FUNCTIONS {
        let config = format!("functions/{function}/src/config.rs");
        let config = files.iter().find(|source| is_one_of(source, &[config.as_str()])).unwrap();
        for variable in variables(config) {
            let functions = &documented[&variable];
            assert!(functions.contains(&format!("`{function}`")), "{variable} is read by {function}, too: {functions}");
        }
    }
}

#[test]
fn environment_variables_are_read_in_the_scanned_files_only() {
    for source in architecture::sources() {
        let is_known = is_one_of(&source, &VARIABLE_FILES)
            || is_one_of(&source, &OTHER_ENVIRONMENT_FILES)
            || source.path.ends_with("src/main.rs");
        if source.is_deployed() && !architecture::is_test(&source) && !is_known {
            let uses = architecture::code(&source).contains("Environment");
            assert!(!uses, "{} uses the environment: add it to VARIABLE_FILES", source.path.display());
        }
    }
}

#[test]
fn documented_tasks_are_those_of_the_code_in_the_same_order() {
    let document = read("docs/maintenance.md");
    let documented = rows(section(&document, "## Tasks")).into_iter();
    // Markdown marks names; the help of the command line does not.
    let documented: Vec<(String, String)> =
        documented.map(|(name, purpose)| (name, purpose.replace('`', ""))).collect();
    let registered = TASKS.iter().map(|task| (task.name.to_owned(), task.summary.to_owned()));
    assert_eq!(documented, registered.collect::<Vec<_>>());
}

#[test]
fn documented_fields_of_each_task_are_those_that_it_accepts() {
    let document = read("docs/maintenance.md");
    for task in TASKS {
        let documented = rows_by_name(section(&document, &format!("### `{}`", task.name)));
        let accepted: BTreeSet<String> = task.fields().iter().map(|field| (*field).to_owned()).collect();
        assert_eq!(documented.into_keys().collect::<BTreeSet<_>>(), accepted, "{}", task.name);
    }
}

#[test]
fn sections_and_rows_are_found() {
    let text =
        "# T\n\n## A\n\n| N | D |\n| --- | --- |\n| `a` | `1` | x |\n\n### B\n\n| `b` | 2 |\n\n## C\n\n| `c` | 3 |\n";
    let pair = |name: &str, cell: &str| (name.to_owned(), cell.to_owned());
    assert_eq!(rows(section(text, "## A")), [pair("a", "`1`"), pair("b", "2")]);
    assert_eq!(rows(section(text, "### B")), [pair("b", "2")]);
    assert_eq!(rows(section(text, "## C")), [pair("c", "3")]);
}
