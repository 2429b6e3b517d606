//! The page Doctor: the settings of the running template that lose records, each with its fix and its explanation.
//!
//! The findings are those of `millrace doctor` for the template's file, with the parameters of `--parameter`; of a
//! deployed stack, those of `millrace doctor --stack`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::{Form, Path, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use http::StatusCode;
use maud::{Markup, html};
use millrace_doctor::deployment::SourceLocation;
use millrace_doctor::deployment_file;
use millrace_doctor::diagnosis::{DeploymentDiagnosis, RuleFinding, diagnose};
use millrace_doctor::explanation::explain;
use millrace_doctor::rule_table::{self, DoctorRule, RULES, RuleSeverity};
use millrace_local::stack::StackOptions;
use serde::Deserialize;
use tokio::time::Instant;

use crate::account_doctor::{AccountDoctor, DiagnosisState, StackDiagnosis};
use crate::deployed_stack::DeployedStack;
use crate::stack_stores::StackOrigin;
use crate::{ConsoleContext, DeployedContext, frame};

pub(crate) const PATH: &str = "/doctor";
const TITLE: &str = "Doctor";
/// The time after which the page of a deployed stack shows the progress of the reading.
const SHOWN_AFTER: Duration = Duration::from_secs(5);

/// The diagnosis of a template, and the parts that could not be read.
struct TemplateDiagnosis {
    diagnosis: DeploymentDiagnosis,
    problems: Vec<String>,
}

fn href(rule: &DoctorRule) -> String {
    format!("{PATH}/{}", rule.id)
}

/// Reads and evaluates the template of a stack.
fn evaluate(options: &StackOptions) -> Result<TemplateDiagnosis, String> {
    let reading = deployment_file::read_file(&options.template, &options.parameters);
    let reading = reading.map_err(|error| error.to_string())?;
    Ok(TemplateDiagnosis { diagnosis: diagnose(&reading.deployment), problems: reading.problems })
}

/// Shows the findings.
pub(crate) async fn show(State(context): State<ConsoleContext>) -> Response {
    let options = match &context.origin {
        StackOrigin::Local(local) => local.stack.options().clone(),
        StackOrigin::Deployed(stack) => return show_stack(&context, stack).await,
    };
    let template = options.template.display().to_string();
    let evaluated = tokio::task::spawn_blocking(move || evaluate(&options)).await;
    let evaluated = evaluated.map_err(|panic| panic.to_string()).and_then(|evaluated| evaluated);
    let TemplateDiagnosis { diagnosis, problems } = match evaluated {
        Ok(evaluated) => evaluated,
        Err(reason) => return frame::failed(StatusCode::BAD_GATEWAY, "/", TITLE, &reason),
    };
    let body = html! {
        p.note {
            "Settings of " code { (template) }
            " that lose records, or weaken their protection. " code { "millrace doctor " (template) }
            " prints the same."
        }
        (summary(&diagnosis, problems.is_empty(), "Correct the template, and start millrace up again."))
        (report_sections(&diagnosis, &problems))
        (all_rules())
    };
    frame::page(PATH, TITLE, &body).into_response()
}

/// Renders a diagnosis after its summary.
fn report_sections(diagnosis: &DeploymentDiagnosis, problems: &[String]) -> Markup {
    html! {
        @for problem in problems { (frame::problem(problem)) }
        @for severity in RuleSeverity::ALL { (findings(diagnosis, severity)) }
        @if !diagnosis.ignored.is_empty() {
            h2 { "Intended" }
            p.note { "Findings that the template declares as intended, with the reason." }
            ul { @for (finding, reason) in &diagnosis.ignored { li {
                a href=(href(finding.rule)) { (finding.rule.title) }
                ", " span.mono { (format_location(&finding.location)) }
                ": " (reason)
            } } }
        }
        (unchecked(diagnosis))
    }
}

fn all_rules() -> Markup {
    html! {
        h2 { "All rules" }
        ul.columns {
            @for rule in RULES { li { a href=(href(rule)) { (rule.title) } " " span.note { (rule.severity) } } }
        }
    }
}

/// Shows the findings of a deployed stack. They take up to some minutes, so the page shows the progress until then.
async fn show_stack(context: &ConsoleContext, stack: &Arc<DeployedStack>) -> Response {
    let read_until = Instant::now() + SHOWN_AFTER;
    let state = loop {
        match AccountDoctor::get(stack, false, context.clock.now()) {
            DiagnosisState::Reading(_) if Instant::now() < read_until => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            state => break state,
        }
    };
    let is_reading = matches!(state, DiagnosisState::Reading(_));
    let body = html! {
        p.note {
            "Settings of the stack " code { (stack.name()) } " that lose records, or weaken their protection. "
            code { "millrace doctor --stack " (stack.name()) } " prints the same."
        }
        // The script replaces the content until it is complete.
        div #run role="status" data-running=(is_reading) {
            @match &state {
                DiagnosisState::None => {}
                DiagnosisState::Reading(calls) => {
                    p.box.warn { "Reading the account: " (calls.load(Ordering::Relaxed)) " calls so far." }
                    noscript { p.note { "Reload the page to see the progress." } }
                }
                DiagnosisState::Done(read) => {
                    @match &**read {
                        Err(reason) => { (frame::problem(reason)) }
                        Ok(StackDiagnosis { diagnosis, problems, read_at }) => {
                            p.note { "Read at " (frame::clock_time(*read_at)) " UTC." }
                            @let is_complete = problems.is_empty() && diagnosis.unchecked.is_empty() && diagnosis.unread.is_empty();
                            (summary(diagnosis, is_complete, "Correct the template, and deploy it."))
                            (report_sections(diagnosis, problems))
                        }
                    }
                    form method="post" action=(PATH) {
                        (frame::token_field(context))
                        button type="submit" { "Read the account again" }
                    }
                }
            }
        }
        (all_rules())
    };
    frame::page(PATH, TITLE, &body).into_response()
}

/// The form that reads the account again.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct AgainForm {
    token: Option<String>,
}

/// Reads the account of a deployed stack again.
pub(crate) async fn again(State(context): State<DeployedContext>, Form(form): Form<AgainForm>) -> Response {
    if let Err(rejected) = context.guard.check_token(form.token.as_deref()) {
        return rejected.into_response();
    }
    AccountDoctor::get(&context.stack, true, context.clock.now());
    Redirect::to(PATH).into_response()
}

/// Renders the number of findings. `is_complete` is whether everything that the rules need was read.
fn summary(diagnosis: &DeploymentDiagnosis, is_complete: bool, fix: &str) -> Markup {
    let (found, mappings) = (diagnosis.findings.len(), diagnosis.mappings);
    html! {
        @if found == 0 && !is_complete {
            p.box.warn role="status" {
                "No finding in " (frame::count(mappings, "event source mapping")) ", but not everything could be checked."
            }
        } @else if found == 0 {
            p.box.good role="status" { "No finding in " (frame::count(mappings, "event source mapping")) "." }
        } @else {
            p.box.bad role="status" {
                (frame::count(found, "finding")) " in " (frame::count(mappings, "event source mapping")) ". " (fix)
            }
        }
    }
}

fn findings(diagnosis: &DeploymentDiagnosis, severity: RuleSeverity) -> Markup {
    let of_severity: Vec<&RuleFinding> =
        diagnosis.findings.iter().filter(|finding| finding.rule.severity == severity).collect();
    html! {
        @if !of_severity.is_empty() {
            h2 { (severity) ": " (severity.meaning()) }
            @for rule in RULES {
                @let own: Vec<_> = of_severity.iter().filter(|finding| finding.rule.id == rule.id).collect();
                @if let Some(first) = own.first() {
                    section.box aria-label=(rule.title) {
                        h3 { (rule.title) " " span class=(badge(severity)) { (severity) } }
                        ul {
                            @for finding in &own {
                                li { span.mono { (format_location(&finding.location)) } ": " (finding.problem) }
                            }
                        }
                        p { (rule.loss) }
                        p { "Fix:" }
                        pre tabindex="0" data-copy=(rule.id) { (first.fix()) }
                        p {
                            a href=(href(rule)) { "Explanation of " (rule.id) }
                            " · " a href=(rule.source) rel="noreferrer" { "Source" }
                        }
                    }
                }
            }
        }
    }
}

fn badge(severity: RuleSeverity) -> &'static str {
    match severity {
        RuleSeverity::Loses | RuleSeverity::Blocks | RuleSeverity::Exposes => "verdict bad",
        RuleSeverity::Diverges | RuleSeverity::Weakens => "verdict warn",
    }
}

fn format_location(location: &SourceLocation) -> String {
    let name = std::path::Path::new(&location.file).file_name().unwrap_or_default().to_string_lossy().into_owned();
    if location.line == 0 {
        return format!("{name} {}", location.resource);
    }
    format!("{name}:{} {}", location.line, location.resource)
}

fn unchecked(diagnosis: &DeploymentDiagnosis) -> Markup {
    html! {
        @if !diagnosis.unchecked.is_empty() || !diagnosis.unread.is_empty() {
            details.box {
                summary { "Not possible: " (frame::count(diagnosis.unchecked.len() + diagnosis.unread.len(), "check")) }
                p.note {
                    "This does not mean that nothing is wrong: these rules need the account, or a value that "
                    "only a deployment has."
                }
                ul {
                    @for unchecked in &diagnosis.unchecked { li {
                        a href=(href(unchecked.rule)) { (unchecked.rule.id) }
                        @if let Some(location) = &unchecked.location { ", " span.mono { (format_location(location)) } }
                        ": " (unchecked.reason)
                    } }
                    @for (location, reason) in &diagnosis.unread {
                        li { span.mono { (format_location(location)) } ": " (reason) }
                    }
                }
            }
        }
    }
}

/// Shows the explanation of a rule, as `millrace doctor --explain` prints it.
pub(crate) async fn show_rule(Path(id): Path<String>) -> Response {
    let Some(rule) = rule_table::find(&id) else {
        let reason = format!("unknown rule {id:?}: choose one of the list");
        return frame::failed(StatusCode::NOT_FOUND, PATH, TITLE, &reason);
    };
    // The replay is computed, but takes no more than some milliseconds.
    let body = html! {
        nav.pages aria-label="Doctor" {
            a href=(PATH) { "All findings" } a href=(rule.source) rel="noreferrer" { "Source" }
        }
        p {
            "Rule " code { (rule.id) }
            ", severity " span class=(badge(rule.severity)) { (rule.severity) }
            ": " (rule.severity.meaning()) "."
        }
        pre tabindex="0" { (explain(rule)) }
    };
    frame::page(PATH, rule.title, &body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finding_of_a_template_has_its_fix_and_every_text_is_escaped() {
        let folder = tempfile::tempdir().unwrap();
        let template = folder.path().join("t.yaml");
        let text = "Resources:\n  Users: {Type: AWS::DynamoDB::Table}\n  \"<script>\":\n    Type: \
                    AWS::Lambda::EventSourceMapping\n    Properties:\n      EventSourceArn: !GetAtt Users.StreamArn\n      \
                    FunctionName: f\n      StartingPosition: LATEST\n";
        std::fs::write(&template, text).unwrap();
        let options = StackOptions { template: template.clone(), ..StackOptions::default() };
        let evaluated = evaluate(&options).unwrap();
        let page = RuleSeverity::ALL.map(|severity| findings(&evaluated.diagnosis, severity).into_string()).concat();
        for text in ["loses: records are lost without a trace", "t.yaml:", "href=\"/doctor/starts-at-latest\"", "Fix:"]
        {
            assert!(page.contains(text), "{text} is missing: {page}");
        }
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script>"), "{page}");
        assert!(summary(&evaluated.diagnosis, true, "").into_string().contains(" in 1 event source mapping."));
        std::fs::write(&template, "a: [\n").unwrap();
        assert!(evaluate(&options).is_err_and(|reason| reason.contains("t.yaml:2: invalid YAML")));
    }
}
