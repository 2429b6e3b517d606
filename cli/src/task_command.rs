//! `millrace task`: a maintenance task as a subcommand with options of its own, or as a JSON request ([`TaskCommand`]).
//!
//! The subcommands are made from the registry of tasks: an option has the name of the JSON field, with `-` for `_`. The
//! field `dry_run` is the exception: a task that changes something is a dry run unless `--apply` is given.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{Error, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use millrace_local::stack::StackOptions;
use millrace_local::task::{self, RunTaskError, StackPorts, TaskTarget};
use millrace_local::tier::TierServer;
use millrace_maintenance::task::options::TaskOptions;
use millrace_maintenance::task::registry::{TASK_OPTIONS, TASKS, TaskDefinition};
use millrace_maintenance::task::request::{COMMON_FIELDS, InvalidRequest};
use millrace_shared::clock::Clock;
use serde_json::Value;

use crate::options::{DYNAMODB_PORT, PORT, S3_PORT, parameter, refuse};
use crate::stack_source::StackSource;
use crate::standard_output::write_output;

/// The options that describe the stack of a data folder.
const OF_DATA_FOLDER: [&str; 2] = ["template", "parameter"];

/// The options of every task. They may be given before or after the name of the task. Clap passes global options on by
/// their ID, so an option that the program has without a subcommand needs another ID here.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every task")]
struct CommonArguments {
    /// Run this JSON request of the maintenance function, such as '{"task":"verify"}', instead of a named task
    #[arg(long, global = true, value_name = "JSON")]
    request: Option<String>,
    /// Number of segments of the table, 1 to 1000; at most ten run concurrently (default: 1)
    #[arg(long, global = true, value_name = "NUMBER")]
    segments: Option<u32>,
    /// Name of the run in the keys of its reports: 1 to 128 letters, digits, `.`, `-` or `_` (default: a new ID)
    #[arg(long, global = true, value_name = "ID")]
    run_id: Option<String>,
    /// Output: text, or json for one JSON document on standard output
    #[arg(long, global = true, value_name = "text|json", hide_possible_values = true, default_value = "text")]
    output: OutputFormat,
    /// Port of the API
    #[arg(id = "task-port", long = "port", global = true, value_name = "PORT", default_value_t = PORT)]
    port: u16,
    /// Port of DynamoDB
    #[arg(
        id = "task-dynamodb-port",
        long = "dynamodb-port",
        global = true,
        value_name = "PORT",
        default_value_t = DYNAMODB_PORT
    )]
    dynamodb_port: u16,
    /// Port of S3
    #[arg(id = "task-s3-port", long = "s3-port", global = true, value_name = "PORT", default_value_t = S3_PORT)]
    s3_port: u16,
    /// Run on this data folder instead of a running `millrace`; no `millrace` may use it
    #[arg(id = "task-data", long = "data", global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    /// PostgreSQL of the relational tier, if it is on: the URL that `millrace` printed
    #[arg(id = "task-postgres", long = "postgres", global = true, value_name = "URL")]
    postgres: Option<String>,
    /// With --data: the template with the names of tables and buckets (default: that of the folder's last `up`)
    #[arg(id = "task-template", long = "template", global = true, value_name = "PATH")]
    template: Option<PathBuf>,
    /// With --data: a parameter of the template (default: those of the folder's last `up`); can be repeated
    #[arg(id = "task-parameter", long = "parameter", global = true, value_name = "NAME=VALUE", value_parser = parameter)]
    parameters: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum OutputFormat {
    Text,
    Json,
}

/// A task to run, where to run it, and the format of its outcome.
#[derive(Debug)]
pub(crate) struct TaskCommand {
    /// The request in JSON.
    request: String,
    /// The task, if it was named with options and not with a JSON request.
    named: Option<&'static TaskDefinition>,
    /// True if the task was named without `--apply`, which makes its changes.
    is_dry_run: bool,
    common: CommonArguments,
}

impl Args for TaskCommand {
    fn augment_args(command: Command) -> Command {
        let tasks = TASK_OPTIONS.iter().zip(TASKS).filter(|(_, task)| task.has_segments);
        let subcommand = |(options, task): (&TaskOptions, &TaskDefinition)| {
            // The options bring the description of the request with them.
            options.augment(Command::new(task.name)).about(capitalized(task.summary))
        };
        CommonArguments::augment_args(command)
            .subcommands(tasks.map(subcommand))
            .subcommand_value_name("TASK")
            .subcommand_help_heading("Tasks")
            .disable_help_subcommand(true)
            // An unknown name is parsed by `FromArgMatches`, whose error lists the tasks.
            .allow_external_subcommands(true)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for TaskCommand {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let Some((name, of_task)) = matches.subcommand() else {
            let common = CommonArguments::from_arg_matches(matches)?;
            let request = common.request.clone().ok_or_else(missing_task)?;
            reject_other_source(matches, None)?;
            return Self { request, named: None, is_dry_run: false, common }.checked(matches);
        };
        let definition = TaskDefinition::find(name).map_err(|error| unknown_task(name, &error))?;
        let options = TASK_OPTIONS.iter().find(|options| options.name == name);
        let Some(options) = options.filter(|_| definition.has_segments) else {
            let error = RunTaskError::RunsAutomatically(definition.name);
            return Err(Error::raw(ErrorKind::InvalidSubcommand, error));
        };
        // A common option before the name of the task is passed on to it.
        let common = CommonArguments::from_arg_matches(of_task)?;
        if common.request.is_some() {
            reject_other_source(of_task, Some(name))?;
        }
        let mut request = options.request(of_task)?;
        request.insert("task".to_owned(), name.into());
        request.extend(common.segments.map(|segments| ("segments".to_owned(), segments.into())));
        request.extend(common.run_id.clone().map(|run_id| ("run_id".to_owned(), run_id.into())));
        let is_dry_run = request.get("dry_run").is_some_and(|dry_run| dry_run == true);
        let request = Value::Object(request).to_string();
        Self { request, named: Some(definition), is_dry_run, common }.checked(of_task)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl TaskCommand {
    /// Fails if options contradict each other.
    fn checked(self, matches: &ArgMatches) -> Result<Self, Error> {
        let contradiction = if self.common.data.is_some() {
            given(matches).find(|option| option.ends_with("port")).map(|port| {
                format!("--data and --{port} cannot be used together: a data folder has no running millrace")
            })
        } else {
            given(matches).find(|option| OF_DATA_FOLDER.contains(&option.as_str())).map(|option| {
                format!("--{option} is for --data: a running millrace reports its own tables, omit --{option}")
            })
        };
        match contradiction {
            Some(text) => Err(Error::raw(ErrorKind::ArgumentConflict, text)),
            None => Ok(self),
        }
    }

    /// Runs the task to completion, prints its outcome, and returns the exit code: 0 if the task succeeded, 1 if it has
    /// problems to report or failed after it started, 2 if it was rejected before.
    pub(crate) async fn run(self) -> ExitCode {
        let Self { request, named, is_dry_run, common } = self;
        let output = common.output;
        let target = match common.target() {
            Ok(target) => target,
            Err(problem) => return refuse(&problem),
        };
        match Box::pin(task::run(&request, target, &Clock::system())).await {
            Ok(outcome) => {
                let text = match output {
                    OutputFormat::Text if is_dry_run => format!("{outcome}dry run: --apply makes the changes\n"),
                    OutputFormat::Text => outcome.to_string(),
                    OutputFormat::Json => format!("{}\n", outcome.to_json()),
                };
                write_output(text).map_or_else(|problem| refuse(&problem), |()| outcome.code())
            }
            Err(error) => {
                let code = refuse(&named.map_or_else(|| error.to_string(), |task| in_options(task, &error)));
                if error.is_failure() { ExitCode::FAILURE } else { code }
            }
        }
    }
}

impl CommonArguments {
    /// Returns the stack that the options name.
    fn target(self) -> Result<TaskTarget, String> {
        if self.data.is_none() {
            let ports = StackPorts { api: self.port, dynamodb: self.dynamodb_port, s3: self.s3_port };
            return Ok(TaskTarget::Running { ports, postgres: self.postgres });
        }
        let parameters = self.parameters.into_iter().collect();
        let source = StackSource { template: self.template, parameters, ..StackSource::default() };
        let options = source.or_remembered(self.data.as_deref())?.options()?;
        let postgres = self.postgres.map_or(TierServer::Off, TierServer::At);
        Ok(TaskTarget::Own(Box::new(StackOptions { data: self.data, postgres, ..options })))
    }
}

/// Returns the names of the options that are given on the command line.
fn given(matches: &ArgMatches) -> impl Iterator<Item = String> {
    let is_given = |id: &&clap::Id| matches.value_source(id.as_str()) == Some(ValueSource::CommandLine);
    // The matches of a group, which a derived type declares, are no option.
    let names = matches.ids().filter(is_given).map(|id| id.as_str().trim_start_matches("task-").replace('_', "-"));
    names.filter(|name| {
        name.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-')
    })
}

/// Fails if a JSON request is given together with a task or with options that are fields of a request.
fn reject_other_source(matches: &ArgMatches, task: Option<&str>) -> Result<(), Error> {
    let target = ["request", "output", "port", "dynamodb-port", "s3-port", "data", "postgres"];
    let is_field = |option: &str| !target.contains(&option) && !OF_DATA_FOLDER.contains(&option);
    let fields = given(matches).filter(|option| is_field(option)).map(|option| format!("--{option}"));
    let others: Vec<String> = task.map(|task| format!("the task {task}")).into_iter().chain(fields).collect();
    if others.is_empty() {
        return Ok(());
    }
    let text = format!("--request and {} cannot be used together: put all fields into the request", others.join(", "));
    Err(Error::raw(ErrorKind::ArgumentConflict, text))
}

fn missing_task() -> Error {
    let names: Vec<&str> = TASKS.iter().filter(|task| task.has_segments).map(|task| task.name).collect();
    let text = format!("no task is given: name one of {}, or pass a JSON request with --request", names.join(", "));
    Error::raw(ErrorKind::MissingSubcommand, text)
}

fn unknown_task(name: &str, error: &InvalidRequest) -> Error {
    let text = if name.trim_start().starts_with('{') {
        format!("unknown task {name:?}: pass a JSON request with --request")
    } else {
        error.to_string()
    };
    Error::raw(ErrorKind::InvalidSubcommand, text)
}

/// Returns the message of an error with options in place of fields: the field that it begins with, and every other whose
/// name has an underscore and is therefore no English word.
fn in_options(task: &TaskDefinition, error: &RunTaskError) -> String {
    let mut text = error.to_string();
    for field in task.fields().iter().chain(&COMMON_FIELDS).filter(|field| field.contains('_')) {
        let option = format!("--{}", field.replace('_', "-"));
        text = text.replace(&format!("\"{field}\": true"), &option);
        // In quotes, it is an attribute of a key.
        let quoted = format!("\"{field}\"");
        text = text.split(&quoted).map(|part| part.replace(field, &option)).collect::<Vec<_>>().join(&quoted);
    }
    // Only a list of the fields of which one is required can contain fields that are English words.
    if let Some((before, (list, after))) =
        text.split_once(" needs ").and_then(|(before, rest)| Some((before, rest.split_at_checked(rest.find(" (")?)?)))
    {
        let option = |word: &str| {
            let name = word.trim_end_matches(',');
            if task.fields().contains(&name) { format!("--{word}") } else { word.to_owned() }
        };
        let list: Vec<String> = list.split(' ').map(option).collect();
        text = format!("{before} needs {}{after}", list.join(" "));
    }
    let is_named = |field: &&&str| text.strip_prefix(**field).is_some_and(|rest| rest.starts_with(" is "));
    match task.fields().iter().chain(&COMMON_FIELDS).find(is_named) {
        Some(field) => format!("--{}{}", field.replace('_', "-"), &text[field.len()..]),
        None => text,
    }
}

fn capitalized(text: &str) -> String {
    let (first, rest) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
    first.to_uppercase() + rest
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use aws_sdk_dynamodb::types::AttributeValue;
    use millrace_local::stack::LocalStack;
    use serde_json::json;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<TaskCommand, String> {
        let command = TaskCommand::augment_args(Command::new("task"));
        let arguments: Vec<OsString> = ["task"].iter().chain(arguments).map(Into::into).collect();
        let matches = command.try_get_matches_from(arguments).map_err(|error| error.to_string())?;
        TaskCommand::from_arg_matches(&matches).map_err(|error| error.to_string())
    }

    fn request(arguments: &[&str]) -> Value {
        serde_json::from_str(&parse(arguments).unwrap().request).unwrap()
    }

    #[test]
    fn options_of_a_task_are_its_fields() {
        for (options, task) in TASK_OPTIONS.iter().zip(TASKS) {
            assert_eq!(options.name, task.name);
            let command = options.augment(Command::new(task.name));
            let mut names: Vec<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
            let mut fields: Vec<String> = task.fields().iter().map(|field| field.replace('_', "-")).collect();
            // The list of results is written by the state machine, and not by a person.
            fields.retain(|field| field != "segment-results");
            fields.iter_mut().filter(|field| *field == "dry-run").for_each(|field| "apply".clone_into(field));
            names.sort_unstable();
            fields.sort_unstable();
            assert_eq!(names, fields, "{}", task.name);
            assert!(command.get_arguments().all(|argument| argument.get_help().is_some()), "{}", task.name);
        }
    }

    #[test]
    fn every_task_with_segments_is_a_subcommand_with_its_purpose() {
        let command = TaskCommand::augment_args(Command::new("task"));
        let purpose = |task: &Command| (task.get_name().to_owned(), task.get_about().map(ToString::to_string));
        let subcommands: Vec<_> = command.get_subcommands().map(purpose).collect();
        let tasks = TASKS.iter().filter(|task| task.name != "summary");
        let tasks: Vec<_> = tasks.map(|task| (task.name.to_owned(), Some(capitalized(task.summary)))).collect();
        assert_eq!(subcommands, tasks);
        let help = command.clone().render_help().to_string();
        assert!(help.contains("\n  verify               Compares the table with its replicas"), "{help}");
    }

    #[test]
    fn request_contains_the_fields_that_are_given() {
        assert_eq!(request(&["verify"]), json!({"task": "verify"}));
        let verify = ["verify", "--segments", "4", "--run-id", "monday", "--recheck-after-seconds", "0"];
        let fields = json!({"task": "verify", "segments": 4, "run_id": "monday", "recheck_after_seconds": 0});
        assert_eq!(request(&verify), fields);
        let key = r#"{"user_id":{"S":"ada"}}"#;
        let restore = ["restore", "--key", key, "--never-expires", "--overwrite", "--versions", "all", "--apply"];
        let fields = json!({
            "task": "restore", "key": {"user_id": {"S": "ada"}}, "never_expires": true, "overwrite": true,
            "versions": "all", "dry_run": false,
        });
        assert_eq!(request(&restore), fields);
        let keys = json!({"task": "audit", "keys": [{"user_id": {"S": "ada"}}, {"user_id": {"S": "ada"}}]});
        assert_eq!(request(&["audit", "--keys", key, "--keys", key]), keys);
        assert_eq!(parse(&["--request", "{ }"]).unwrap().request, "{ }", "a JSON request is passed on as it is");
    }

    #[test]
    fn task_is_a_dry_run_unless_apply_is_given() {
        for task in TASKS.iter().filter(|task| task.fields().contains(&"dry_run")) {
            assert_eq!(request(&[task.name])["dry_run"], true, "{}", task.name);
            assert!(parse(&[task.name]).unwrap().is_dry_run && !parse(&[task.name, "--apply"]).unwrap().is_dry_run);
            assert_eq!(request(&[task.name, "--apply"])["dry_run"], false, "{}", task.name);
        }
    }

    #[test]
    fn common_options_may_precede_or_follow_the_task() {
        for arguments in [
            ["--port", "1", "--segments", "2", "--output", "json", "verify"],
            ["verify", "--port", "1", "--segments", "2", "--output", "json"],
            ["--port", "1", "verify", "--segments", "2", "--output", "json"],
        ] {
            let command = parse(&arguments).unwrap();
            assert_eq!((command.common.port, command.common.segments), (1, Some(2)));
            assert_eq!((command.common.s3_port, command.common.output), (S3_PORT, OutputFormat::Json));
            assert!(command.request.contains("\"segments\":2"), "{}", command.request);
        }
    }

    #[test]
    fn contradicting_options_are_named() {
        for (arguments, error_text) in [
            (&["--request", "{}", "verify"][..], "--request and the task verify cannot be used together"),
            (&["verify", "--request", "{}"], "--request and the task verify cannot be used together"),
            (&["redrive", "--request", "{}", "--apply"], "--request and the task redrive, --apply cannot"),
            (&["--request", "{}", "--segments", "2"], "--request and --segments cannot be used together"),
            (&["--request", "{}", "--run-id", "x", "--port", "1"], "--request and --run-id cannot be used together"),
            (&["--data", "d", "verify", "--s3-port", "1"], "--data and --s3-port cannot be used together"),
            (&["verify", "--data", "d", "--port", "1"], "--data and --port cannot be used together"),
            (&["verify", "--template", "t"], "--template is for --data: a running millrace reports its own tables"),
            (&["verify", "--parameter", "A=b"], "--parameter is for --data"),
            (&["--template", "t", "--request", "{}"], "--template is for --data"),
            (&["--data", "d", "--request", "{}", "--dynamodb-port", "1"], "--data and --dynamodb-port cannot"),
            (&[], "name one of backfill, verify, repair"),
            (&["summary"], "summary runs automatically after the last segment"),
            (&["restroe"], "unknown task \"restroe\": expected one of backfill"),
            (&["{\"task\":\"verify\"}"], "pass a JSON request with --request"),
            (&["restore", "--key", "{"], "--key"),
            (&["verify", "--segment", "1"], "--segment"),
            (&["verify", "--cursor", "{}"], "--cursor"),
        ] {
            let error = parse(arguments).unwrap_err();
            assert!(error.contains(error_text), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn error_names_the_option_and_not_the_field() {
        let task = TaskDefinition::find("verify").unwrap();
        let (field, wanted) = ("recheck_after_seconds", "a number from 0 to 300".to_owned());
        let invalid = InvalidRequest::Value { field, found: "301".to_owned(), wanted };
        let error_text = in_options(task, &RunTaskError::from(invalid));
        assert_eq!(error_text, "--recheck-after-seconds is 301: set it to a number from 0 to 300");
        let missing = RunTaskError::from(InvalidRequest::MissingField("restore", "key"));
        assert_eq!(in_options(task, &missing), "restore needs key");
        let restore = TaskDefinition::find("restore").unwrap();
        let needs = "either expires_in_seconds or \"never_expires\": true, not {\"user_id\":{\"S\":\"ada\"}}";
        let missing = RunTaskError::from(InvalidRequest::MissingField("restore", needs));
        let error_text =
            "restore needs either --expires-in-seconds or --never-expires, not {\"user_id\":{\"S\":\"ada\"}}";
        assert_eq!(in_options(restore, &missing), error_text);
        let missing =
            RunTaskError::from(InvalidRequest::MissingField("restore", "key, user_id, from or to (the items)"));
        assert_eq!(in_options(restore, &missing), "restore needs --key, --user-id, --from or --to (the items)");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn exit_code_is_0_for_success_1_for_problems_and_2_for_a_rejection() {
        let stack = LocalStack::start(StackOptions::default()).await.unwrap();
        let port = |url: &str| url.rsplit(':').next().unwrap().to_owned();
        let (api, dynamodb, s3) = (port(stack.api_url()), port(stack.dynamodb_url()), port(stack.s3_url()));
        let code = async |arguments: &[&str]| {
            let ports = ["--port", &api, "--dynamodb-port", &dynamodb, "--s3-port", &s3];
            let arguments = [arguments, &ports].concat();
            format!("{:?}", Box::pin(parse(&arguments).unwrap().run()).await)
        };
        let [success, failure, rejected] = [0, 1, 2].map(|code| format!("{:?}", ExitCode::from(code)));
        let key = || {
            let key =
                [("user_id", AttributeValue::S("ada".to_owned())), ("timestamp", AttributeValue::N("1".to_owned()))];
            Some(key.map(|(name, value)| (name.to_owned(), value)).into())
        };
        stack.dynamodb().put_item().table_name("Users").set_item(key()).send().await.unwrap();
        stack.wait_until_drained().await;
        let verify = ["verify", "--recheck-after-seconds", "0", "--segments", "2"];
        assert_eq!(code(&verify).await, success);
        stack.dynamodb().delete_item().table_name("UsersReplica").set_key(key()).send().await.unwrap();
        assert_eq!(code(&verify).await, failure, "a difference");
        assert_eq!(code(&["repair", "--recheck-after-seconds", "0"]).await, success, "a dry run");
        assert_eq!(code(&[&verify[..], &["--output", "json"]].concat()).await, failure, "which has written nothing");
        assert_eq!(code(&["repair", "--recheck-after-seconds", "0", "--apply"]).await, success);
        assert_eq!(code(&["--request", r#"{"task":"verify","recheck_after_seconds":0}"#]).await, success);
        assert_eq!(code(&["verify", "--recheck-after-seconds", "301"]).await, rejected);
        assert_eq!(code(&["--request", r#"{"task":"verify","dry_run":true}"#]).await, rejected);
        assert_eq!(code(&["migrate"]).await, rejected, "without the relational tier");
        stack.stop().await;
        assert_eq!(code(&verify).await, rejected, "without a stack");
    }
}
