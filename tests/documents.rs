//! The reference documents agree with the code: template parameters, environment variables, tasks and their fields.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use millrace_maintenance::task::TaskRequest;
use millrace_maintenance::task::registry::TASKS;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::architecture::{self, SourceFile};
use crate::replication::rig::invocation;

const FUNCTIONS: [&str; 5] = ["api", "search", "replicator", "archiver", "maintenance"];

/// The files that contain the names of environment variables, as string literals of capital letters.
const VARIABLE_FILES: [&str; 14] = [
    "functions/api/src/config.rs",
    "functions/search/src/config.rs",
    "functions/replicator/src/config.rs",
    "crates/sinks/src/config.rs",
    "crates/sinks/src/config/configured_replicas.rs",
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

/// The blocks of commands in a text.
fn commands(text: &str) -> Vec<&str> {
    text.split("\n```sh\n").skip(1).map(|block| block.split("\n```").next().unwrap()).collect()
}

/// The drills of docs/operations.md: title and text. `template::alarms` checks their form: alarms first, a check last.
fn drills(manual: &str) -> Vec<(&str, &str)> {
    let (_, drills) = manual.split_once("\n## Drills\n").unwrap();
    let drills = drills.split("\n## ").next().unwrap();
    drills.split("\n### ").skip(1).map(|drill| drill.split_once('\n').unwrap()).collect()
}

#[test]
fn commands_of_the_manual_are_valid_shell_and_their_tasks_are_accepted() {
    let manual = read("docs/operations.md");
    let commands = commands(&manual);
    assert!(commands.len() > 50, "{}", commands.len());
    let mut requests = 0;
    for block in commands {
        let checked = Command::new("bash").args(["-n", "-c", block]).output().expect("bash is not on PATH");
        let message = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success() && message.is_empty(), "{message}\n{block}");
        for request in block.split("task '{").skip(1) {
            let (fields, _) = request.split_once("}'").unwrap_or_else(|| panic!("{request}"));
            let mut request: Value =
                serde_json::from_str(&format!("{{{fields}}}")).unwrap_or_else(|error| panic!("{error}: {block}"));
            if request["segments"].is_number() {
                // The state machine adds it.
                request["segment"] = 0.into();
            }
            let request = RawValue::from_string(request.to_string()).unwrap();
            TaskRequest::parse(&request, &invocation()).unwrap_or_else(|error| panic!("{request}: {error}"));
            requests += 1;
        }
    }
    assert!(requests > 20, "{requests}");
}

#[test]
fn drill_without_an_alarm_says_why_it_is_run() {
    let manual = read("docs/operations.md");
    for (title, text) in drills(&manual) {
        let begin = text.trim_start().lines().next().unwrap();
        let Some(reason) = begin.strip_prefix("**Alarm.** None") else { continue };
        let reasons =
            [": this is a rehearsal.", ": a person decides it", ": this is done on schedule", ": this follows ["];
        assert!(reasons.iter().any(|known| reason.starts_with(known)), "{title}: {begin}");
    }
}

/// Whether a command line changes nothing, or only proves that nothing has to be changed.
fn is_proof(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let reads = |operation: &str| {
        ["describe-", "list-", "get-"].iter().any(|verb| operation.starts_with(verb)) || operation == "ls"
    };
    match words[..] {
        ["aws", _, operation, ..] => reads(operation),
        ["task", request, ..] => {
            ["verify", "audit", "migrate"].iter().any(|task| request.contains(&format!("\"task\":\"{task}\"")))
        }
        _ => false,
    }
}

#[test]
fn check_of_a_drill_proves_its_end_and_changes_nothing() {
    let manual = read("docs/operations.md");
    assert!(drills(&manual).len() > 15, "{:?}", drills(&manual));
    for (title, text) in drills(&manual) {
        let check = *commands(text).last().unwrap_or_else(|| panic!("{title} has no command"));
        let check = check.replace("\\\n", " ");
        for line in check.lines() {
            assert!(is_proof(line), "{title}: {line:?} does not prove the end of the drill");
        }
    }
    for (line, is) in [
        ("aws s3 ls x", true),
        ("aws lambda update-function-configuration", false),
        (r#"task '{"task":"repair"}'"#, false),
        ("sam deploy", false),
    ] {
        assert_eq!(is_proof(line), is, "{line}");
    }
}

#[test]
fn manual_of_search_contains_the_document_of_its_table() {
    let manual = read("docs/search.md");
    let block = format!("```json\n{}```\n", read("functions/search/replication.json"));
    assert!(section(&manual, "## The table that search queries").contains(&block));
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
