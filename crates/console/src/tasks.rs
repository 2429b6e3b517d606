//! The page Tasks: a form per maintenance task, made from the registry, and the runs with their progress and reports.
//!
//! On a deployed stack the runs are the executions of its state machine (`task_access`).

use axum::extract::{Form, Path, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use clap::{Arg, ArgAction, Command};
use http::StatusCode;
use maud::{Markup, html};
use millrace_maintenance::task::options::TaskOptions;
use millrace_maintenance::task::registry::{TASK_OPTIONS, TASKS, TaskDefinition};
use serde_json::json;

use crate::task_runs::{RunState, TaskRunView};
use crate::{ConsoleContext, executions, frame};

const PATH: &str = "/tasks";
const TITLE: &str = "Tasks";
/// The field with the token of a form.
const TOKEN: &str = "token";
/// The field with the number of segments on a deployed stack, and its maximum.
const SEGMENTS: &str = "segments";
const MAX_SEGMENTS: u32 = 1_000;

/// Returns the tasks that a person runs, each with its options.
fn tasks() -> impl Iterator<Item = (&'static TaskDefinition, &'static TaskOptions)> {
    TASKS.iter().zip(TASK_OPTIONS).filter(|(task, _)| task.has_segments)
}

/// Returns the parser of a task's fields.
fn command(options: &TaskOptions) -> Command {
    options.augment(Command::new(options.name).no_binary_name(true).disable_help_flag(true))
}

/// Shows the page.
pub(crate) async fn show(State(context): State<ConsoleContext>) -> Response {
    if context.origin.is_local()
        && let Err(missing) = context.stores().await
    {
        return missing.page(PATH, TITLE);
    }
    let own = match context.task_runs().await {
        Ok(own) => own,
        Err(missing) => return missing.page(PATH, TITLE),
    };
    let body = html! {
        h2 { "Runs" }
        (runs(&own, &context))
        @if !context.origin.is_local() {
            p.note { "The last " (executions::SHOWN) " executions of the stack's state machine. Times are in UTC." }
        }
        h2 { "Start a task" }
        @if context.allows_tasks() {
            p.note { "A task that writes is a dry run unless " code { "apply" } " is set." }
            @for (task, options) in tasks() { (form(&context, task, options)) }
        } @else { (context.start_command(&json!({"task": "verify", "segments": 1})).await) }
    };
    frame::page(PATH, TITLE, &body).into_response()
}

fn runs(runs: &[TaskRunView], context: &ConsoleContext) -> Markup {
    html! {
        @if runs.is_empty() {
            p.box {
                "No task has been started "
                @if context.origin.is_local() { "here" } @else { "on this stack" }
                " yet. " code { "verify" } " changes nothing and is a good first one."
            }
        }
        @else {
            div.scroll tabindex="0" role="region" aria-label="Runs" { table {
                thead { tr { th scope="col" { "Started" } th scope="col" { "Task" } th scope="col" { "State" } th scope="col" { "Counts" } } }
                tbody { @for run in runs { tr {
                    td { time datetime=(frame::machine_time(run.started)) { (started(run, context)) } }
                    td { a href=(href(&run.id)) { (run.task) } }
                    td { (state(run)) }
                    td { (run.progress) }
                } } }
            } }
        }
    }
}

/// Returns the time of the start, with its date if the stack is older than this console.
fn started(run: &TaskRunView, context: &ConsoleContext) -> String {
    if context.origin.is_local() {
        return frame::clock_time(run.started);
    }
    format!("{} {}", run.started.date(), frame::clock_time(run.started))
}

fn state(run: &TaskRunView) -> Markup {
    html! {
        @match &run.state {
            RunState::Running => { span.verdict.warn { "running" } }
            RunState::Cancelled => { span.verdict.warn { "cancelled" } }
            RunState::Failed(_) => { span.verdict.bad { "failed" } }
            RunState::Done if run.problems > 0 => { span.verdict.bad { (run.problems) " problems" } }
            RunState::Done => { span.verdict.good { "done" } }
        }
    }
}

fn form(context: &ConsoleContext, task: &TaskDefinition, options: &TaskOptions) -> Markup {
    let command = command(options);
    html! {
        details.box {
            summary { strong { (task.name) } ": " (task.summary) }
            form method="post" action=(format!("{PATH}/{}", task.name)) {
                (frame::token_field(context))
                @for argument in command.get_arguments() { (field(task.name, argument)) }
                @if !context.origin.is_local() { (segments_field(task.name)) }
                button type="submit" { "Run " (task.name) }
            }
        }
    }
}

fn field(task: &str, argument: &Arg) -> Markup {
    let Some(name) = argument.get_long() else { return html! {} };
    let id = format!("{task}-{name}");
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    html! {
        div {
            label for=(id) { (name) }
            @if matches!(argument.get_action(), ArgAction::SetTrue) { input id=(id) type="checkbox" name=(name) value="true"; }
            @else { input id=(id) type="text" name=(name) aria-describedby=(format!("{id}-help")); }
            p.note id=(format!("{id}-help")) { (help) }
        }
    }
}

/// Renders the field of the number of segments, which the state machine processes concurrently.
fn segments_field(task: &str) -> Markup {
    let id = format!("{task}-{SEGMENTS}");
    html! {
        div {
            label for=(id) { (SEGMENTS) }
            input id=(id) type="text" name=(SEGMENTS) aria-describedby=(format!("{id}-help"));
            p.note id=(format!("{id}-help")) {
                "Number of segments of the table, 1 to " (MAX_SEGMENTS) "; at most ten run concurrently (default: 1)"
            }
        }
    }
}

/// Parses the number of segments; an empty text is the default.
fn segments(fields: &[(String, String)]) -> Result<Option<u32>, String> {
    let text = fields.iter().find(|(name, _)| name == SEGMENTS).map_or("", |(_, text)| text.trim());
    if text.is_empty() {
        return Ok(None);
    }
    let number = text.parse().ok().filter(|number| (1..=MAX_SEGMENTS).contains(number));
    number.map(Some).ok_or_else(|| format!("{SEGMENTS}: {text:?} is not a number from 1 to {MAX_SEGMENTS}"))
}

/// Returns the link to the page of a run.
pub(crate) fn href(run: &str) -> String {
    format!("{PATH}/runs/{run}")
}

/// Starts a task with the fields of its form.
pub(crate) async fn start(
    State(context): State<ConsoleContext>,
    Path(name): Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Response {
    let token = fields.iter().find(|(name, _)| name == TOKEN).map(|(_, token)| token.as_str());
    if let Err(rejected) = context.guard.check_token(token) {
        return rejected.into_response();
    }
    let refused = |status, reason: &str| frame::failed(status, PATH, TITLE, reason);
    let Some((task, options)) = tasks().find(|(task, _)| task.name == name) else {
        return refused(StatusCode::NOT_FOUND, &format!("unknown task {name:?}: choose one of the list"));
    };
    let (segments, fields) = if context.origin.is_local() {
        (Ok(None), fields)
    } else {
        let segments = segments(&fields);
        (segments, fields.into_iter().filter(|(name, _)| name != SEGMENTS).collect())
    };
    let request = segments.and_then(|segments| {
        let mut request = request(options, &fields)?;
        request.extend(segments.map(|segments| (SEGMENTS.to_owned(), segments.into())));
        Ok(request)
    });
    let request = match request {
        Ok(request) => request,
        Err(reason) => return refused(StatusCode::BAD_REQUEST, &reason),
    };
    match context.start_task(task.name, request).await {
        Ok(id) => Redirect::to(&href(&id)).into_response(),
        Err(refused) => refused.page(PATH, TITLE),
    }
}

/// Parses the fields of a form as the options of the command line are parsed.
fn request(
    options: &TaskOptions,
    fields: &[(String, String)],
) -> Result<serde_json::Map<String, serde_json::Value>, String> {
    let command = command(options);
    let mut arguments = Vec::new();
    for (name, value) in fields.iter().filter(|(name, value)| name != TOKEN && !value.trim().is_empty()) {
        let argument = command.get_arguments().find(|argument| argument.get_long() == Some(name));
        let argument = argument.ok_or_else(|| format!("unknown field {name:?}: reload the page"))?;
        let is_flag = matches!(argument.get_action(), ArgAction::SetTrue);
        arguments.push(if is_flag { format!("--{name}") } else { format!("--{name}={}", value.trim()) });
    }
    let matches = command.try_get_matches_from(arguments).map_err(|error| message(&error))?;
    options.request(&matches).map_err(|error| message(&error))
}

/// Returns the message of an error without the usage that follows it on a command line.
fn message(error: &clap::Error) -> String {
    let text = error.to_string();
    let text = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Shows a run.
pub(crate) async fn run(State(context): State<ConsoleContext>, Path(id): Path<String>) -> Response {
    let run = match context.task_run(&id).await {
        Ok(Some(run)) => run,
        Ok(None) => {
            let reason = if context.origin.is_local() {
                "There is no run of this ID: only the last 20 since the start are shown. Reports are in the failure bucket."
            } else {
                "The state machine has no execution of this name: choose one of the list."
            };
            return frame::failed(StatusCode::NOT_FOUND, PATH, "Run", reason);
        }
        Err(missing) => return missing.page(PATH, "Run"),
    };
    let is_running = run.state == RunState::Running;
    let body = html! {
        div #run role="status" data-running=(is_running) {
            p { strong { (run.task) } " " (state(&run)) " started at " (started(&run, &context)) " UTC" }
            @if run.request.is_empty() || run.request == "{}" { p.note { "With the default options." } }
            @else { p.mono { (run.request) } }
            @if let RunState::Failed(reason) = &run.state { (frame::problem(reason)) }
            h2 { "Counts" }
            // An execution returns its counts with its output, which it has only if it succeeds.
            @if !context.origin.is_local() && run.state != RunState::Done {
                p.note { "The counts of an execution are known after it has succeeded." }
            } @else {
                @if run.progress.is_empty() { p.note { @if is_running { "Nothing is counted yet." } @else { "No items processed." } } }
                @else { ul { @for count in run.progress.split(", ") { li { (count) } } } }
                p { (run.differences) " differences, " (run.problems) " problems" }
            }
            @if is_running {
                noscript { p.note { "Reload the page to see the progress." } }
            } @else {
                @if run.for_real().is_some() && context.allows_tasks() {
                    form.box.warn method="post" action=(format!("{}/apply", href(&run.id))) {
                        (frame::token_field(&context))
                        p { "This was a dry run: nothing was written. Read the report, then make the changes." }
                        button type="submit" { "Run " (run.task) " for real" }
                    }
                }
                h2 { "Report" }
                @if run.report.is_empty() { p.note { "The report has no entries." } }
                @else { pre tabindex="0" { (run.report.join("\n")) } }
            }
        }
        // Outside of the part that is updated, so that the button keeps the focus.
        @if is_running && !context.origin.is_local() {
            p.note {
                "To end it, stop the execution " code { (run.id) } " of the state machine. What it has done remains."
            }
        } @else if is_running {
            form #cancel method="post" action=(format!("{}/cancel", href(&run.id))) {
                (frame::token_field(&context))
                button type="submit" { "Cancel" }
            }
        }
        p { a href=(PATH) { "All runs" } " · " a href="/quarantine" { "Quarantine" } }
    };
    frame::page(PATH, &format!("Run of {}", run.task), &body).into_response()
}

/// Repeats a dry run for real.
pub(crate) async fn apply(
    State(context): State<ConsoleContext>,
    Path(id): Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Response {
    let token = fields.iter().find(|(name, _)| name == TOKEN).map(|(_, token)| token.as_str());
    if let Err(rejected) = context.guard.check_token(token) {
        return rejected.into_response();
    }
    let refused = |status, reason: &str| frame::failed(status, PATH, TITLE, reason);
    let run = match context.task_run(&id).await {
        Ok(Some(run)) => run,
        Ok(None) => return refused(StatusCode::NOT_FOUND, "There is no run of this ID: start the dry run again."),
        Err(missing) => return missing.page(PATH, TITLE),
    };
    let Some(request) = run.for_real() else {
        return refused(StatusCode::CONFLICT, "The run is not a dry run that has ended: start a dry run first.");
    };
    let Some((task, _)) = tasks().find(|(task, _)| task.name == run.task) else {
        return refused(StatusCode::NOT_FOUND, &format!("unknown task {:?}: choose one of the list", run.task));
    };
    match context.start_task(task.name, request).await {
        Ok(id) => Redirect::to(&href(&id)).into_response(),
        Err(refused) => refused.page(PATH, TITLE),
    }
}

/// Ends a run after its current invocation.
pub(crate) async fn cancel(
    State(context): State<ConsoleContext>,
    Path(id): Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Response {
    let token = fields.iter().find(|(name, _)| name == TOKEN).map(|(_, token)| token.as_str());
    if let Err(rejected) = context.guard.check_token(token) {
        return rejected.into_response();
    }
    if !context.origin.is_local() {
        let reason = "The console does not stop executions: stop it in Step Functions.";
        return frame::failed(StatusCode::CONFLICT, PATH, TITLE, reason);
    }
    context.runs.cancel(&id);
    Redirect::to(&href(&id)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(task: &str, fields: &[(&str, &str)]) -> Result<String, String> {
        let (_, options) = tasks().find(|(own, _)| own.name == task).unwrap();
        let fields: Vec<_> = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        request(options, &fields).map(|request| serde_json::Value::Object(request).to_string())
    }

    #[test]
    fn form_is_a_dry_run_until_apply_is_set() {
        assert_eq!(parsed("redrive", &[("token", "t"), ("prefix", " ")]), Ok(r#"{"dry_run":true}"#.to_owned()));
        let applied = parsed("redrive", &[("apply", "true"), ("prefix", "quarantine/")]).unwrap();
        assert!(applied.contains(r#""dry_run":false"#) && applied.contains(r#""prefix":"quarantine/""#), "{applied}");
    }

    #[test]
    fn number_of_segments_has_limits() {
        let parsed = |text: &str| segments(&[(SEGMENTS.to_owned(), text.to_owned())]);
        assert_eq!((parsed(" 4 "), parsed(""), segments(&[])), (Ok(Some(4)), Ok(None), Ok(None)));
        for text in ["0", "1001", "two", "-1"] {
            assert!(parsed(text).unwrap_err().contains("is not a number from 1 to 1000"), "{text}");
        }
    }

    #[test]
    fn invalid_field_is_named() {
        let error = parsed("verify", &[("recheck-after-seconds", "soon")]).unwrap_err();
        assert!(error.contains("soon") && error.contains("--recheck-after-seconds"), "{error}");
        assert!(parsed("verify", &[("speed", "1")]).unwrap_err().contains("unknown field \"speed\""));
    }
}
