//! `millrace doctor`: the settings of a deployment that lose records, found in its files or in an account
//! ([`DoctorCommand`]).
//!
//! The crate `millrace-doctor` reads and evaluates; this module has the arguments and the exit code, and
//! [`account_client`] makes the calls.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use millrace_doctor::account_call;
use millrace_doctor::account_recording::AccountTarget;
use millrace_doctor::deployment::IgnoredRule;
use millrace_doctor::deployment_file;
use millrace_doctor::diagnosis::{DeploymentDiagnosis, diagnose};
use millrace_doctor::explanation;
use millrace_doctor::report;
use millrace_doctor::rule_table::{self, DoctorRule, RULES, RuleSeverity};

use crate::attach::account::{AccountConnection, AccountOptions};
use crate::options::{REFUSED, parameter, refuse};
use crate::standard_output::write_output;

pub(crate) mod account_client;
mod xml_document;

/// The arguments of `millrace doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorCommand {
    /// Templates of CloudFormation or SAM, in YAML or JSON, or Terraform plans in JSON; nested templates with a local
    /// path are read, too
    #[arg(
        value_name = "TEMPLATE",
        required_unless_present_any = ["explain", "list_rules", "print_policy", "stack", "function", "table"]
    )]
    templates: Vec<PathBuf>,
    /// Check a deployed stack of CloudFormation with its nested stacks, with read-only calls
    #[arg(long, value_name = "NAME", group = "target", conflicts_with = "templates", value_parser = stack)]
    stack: Option<String>,
    /// Check the mappings of a function, by its name or ARN
    #[arg(long, value_name = "NAME", group = "target", conflicts_with = "templates", value_parser = function)]
    function: Option<String>,
    /// Check the mappings of a table's streams, by its name or ARN
    #[arg(long, value_name = "NAME", group = "target", conflicts_with = "templates", value_parser = table)]
    table: Option<String>,
    /// Print the IAM policy that allows the calls of --stack, --function and --table
    #[arg(long, conflicts_with_all = ["templates", "target", "explain", "list_rules"])]
    print_policy: bool,
    /// Send all requests to this URL, such as that of an emulator
    #[arg(long, value_name = "URL", requires = "target")]
    endpoint_url: Option<String>,
    /// Profile of the AWS configuration files (default: as for the AWS CLI)
    #[arg(long, value_name = "NAME", requires = "target")]
    profile: Option<String>,
    /// Region (default: that of an ARN, or as for the AWS CLI)
    #[arg(long, value_name = "NAME", requires = "target")]
    region: Option<String>,
    /// Parameter of the template with another value than its default; can be repeated
    #[arg(long = "parameter", value_name = "NAME=VALUE", conflicts_with = "target", value_parser = parameter)]
    parameters: Vec<(String, String)>,
    /// Findings that are intended: a YAML file with a list of rule, resource and reason
    #[arg(long, value_name = "FILE")]
    ignore: Option<PathBuf>,
    /// Output: human, json, sarif or junit
    #[arg(long, value_name = "human|json|sarif|junit", hide_possible_values = true, default_value = "human")]
    output: DoctorFormat,
    /// The least severity for the exit code 1: loses, blocks, diverges, exposes or weakens
    #[arg(
        long,
        value_name = "SEVERITY",
        hide_possible_values = true,
        value_parser = severity,
        default_value = "weakens"
    )]
    fail_on: RuleSeverity,
    /// Explain a rule: the records that are lost in a replay in the event source mapping simulator, the fix, the source
    #[arg(long, value_name = "RULE", conflicts_with_all = ["templates", "target"], value_parser = rule)]
    explain: Option<&'static DoctorRule>,
    /// Print the rules
    #[arg(long, conflicts_with_all = ["templates", "target", "explain"])]
    list_rules: bool,
}

fn rule(text: &str) -> Result<&'static DoctorRule, String> {
    let names = || RULES.iter().map(|rule| rule.id).collect::<Vec<_>>().join(", ");
    rule_table::find(text).ok_or_else(|| format!("expected one of {}", names()))
}

/// Returns whether a text is an ARN of a service whose resource begins with this word.
fn is_arn(text: &str, service: &str, resource: &str) -> bool {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    matches!(parts[..], ["arn", partition, of, region, account, rest]
        if !partition.is_empty() && of == service && !region.is_empty() && !account.is_empty()
            && rest.strip_prefix(resource).is_some_and(|name| !name.is_empty()))
}

/// Parses the name or ARN of a stack.
pub(crate) fn stack(text: &str) -> Result<String, String> {
    if is_arn(text, "cloudformation", "stack/") {
        return Ok(text.to_owned());
    }
    crate::attach::stack_name(text).map_err(|problem| format!("{problem}, or an ARN"))
}

fn function(text: &str) -> Result<String, String> {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '$');
    let is_valid = |name: &str| !name.is_empty() && name.len() <= 140 && name.chars().all(is_name);
    let name = if is_arn(text, "lambda", "function:") { text.splitn(7, ':').last().unwrap_or_default() } else { text };
    if name.splitn(2, ':').all(is_valid) {
        Ok(text.to_owned())
    } else {
        Err("expected the name of a function, 1 to 140 of A-Za-z0-9_-, or its ARN".to_owned())
    }
}

fn table(text: &str) -> Result<String, String> {
    if is_arn(text, "dynamodb", "table/") || millrace_local::table_description::is_table_name(text) {
        Ok(text.to_owned())
    } else {
        Err("expected the name of a table, 3 to 255 of A-Za-z0-9_.-, or its ARN".to_owned())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum DoctorFormat {
    Human,
    Json,
    Sarif,
    Junit,
}

/// The output and the exit code.
#[derive(Debug)]
struct DoctorOutcome {
    text: Option<String>,
    problems: Vec<String>,
    code: u8,
}

fn severity(text: &str) -> Result<RuleSeverity, String> {
    let found = RuleSeverity::ALL.into_iter().find(|severity| severity.name() == text);
    found.ok_or_else(|| format!("expected one of {}", RuleSeverity::ALL.map(RuleSeverity::name).join(", ")))
}

impl DoctorCommand {
    /// Evaluates the templates or the account and prints the result. The exit code is 0 without a finding, 1 with one
    /// of the severity of `--fail-on` or above, and 2 if a part could not be read; the rest is evaluated then, too.
    pub(crate) async fn run(&self) -> ExitCode {
        let outcome = match self.outcome().await {
            Ok(outcome) => outcome,
            Err(refusal) => return refuse(&refusal),
        };
        if let Some(text) = &outcome.text
            && let Err(problem) = write_output(format!("{text}\n"))
        {
            return refuse(&problem);
        }
        for problem in &outcome.problems {
            eprintln!("error: {problem}");
        }
        ExitCode::from(outcome.code)
    }

    async fn outcome(&self) -> Result<DoctorOutcome, String> {
        let text = self.explain.map(explanation::explain).or_else(|| self.list_rules.then(explanation::list));
        let text = text.or_else(|| self.print_policy.then(account_call::policy));
        if text.is_some() {
            return Ok(DoctorOutcome { text, problems: Vec::new(), code: 0 });
        }
        let mut diagnosis = DeploymentDiagnosis::default();
        let mut problems = Vec::new();
        let read = match self.target() {
            Some((target, name)) => {
                Box::pin(self.evaluate_account(target, name, &mut diagnosis, &mut problems)).await?;
                1
            }
            None => self.evaluate(&mut diagnosis, &mut problems)?,
        };
        let text = match self.output {
            DoctorFormat::Human => (read > 0).then(|| report::human(&diagnosis)),
            DoctorFormat::Json => Some(report::json(&diagnosis, &problems)),
            DoctorFormat::Sarif => Some(report::sarif(&diagnosis, &problems)),
            DoctorFormat::Junit => Some(report::junit(&diagnosis, &problems)),
        };
        let code = match (problems.is_empty(), diagnosis.has_finding(self.fail_on)) {
            (false, _) => REFUSED,
            (true, has_finding) => u8::from(has_finding),
        };
        Ok(DoctorOutcome { text, problems, code })
    }

    /// Returns the part of the account that is evaluated, and the name that the command line gives.
    fn target(&self) -> Option<(AccountTarget, &str)> {
        match (&self.stack, &self.function, &self.table) {
            (Some(name), ..) => Some((AccountTarget::Stack(name.clone()), name)),
            (None, Some(name), _) => {
                let own = name.split_once(":function:").map_or(name.as_str(), |(_, own)| own);
                Some((AccountTarget::Function(own.to_owned()), name))
            }
            (None, None, Some(name)) => Some((AccountTarget::Table(name.clone()), name)),
            (None, None, None) => None,
        }
    }

    async fn evaluate_account(
        &self,
        target: AccountTarget,
        name: &str,
        diagnosis: &mut DeploymentDiagnosis,
        problems: &mut Vec<String>,
    ) -> Result<(), String> {
        let of_arn = if name.starts_with("arn:") { name.split(':').nth(3) } else { None };
        let region = match (of_arn, self.region.as_deref()) {
            (Some(of_arn), Some(region)) if of_arn != region => {
                return Err(format!("--region {region} is not the Region of {name}: omit --region"));
            }
            (of_arn, region) => of_arn.or(region).map(str::to_owned),
        };
        let ignored = self.read_ignored(problems)?;
        let options = AccountOptions { region, profile: self.profile.clone(), endpoint_url: self.endpoint_url.clone() };
        let connection = AccountConnection::open(options).await.map_err(|error| error.to_string())?;
        let mut reading = account_client::read_account(&connection, target).await?;
        problems.append(&mut reading.problems);
        reading.deployment.ignored.extend(ignored);
        diagnosis.add(diagnose(&reading.deployment));
        // A part that could not be read may have the findings that are ignored.
        if !problems.is_empty() {
            diagnosis.unused_ignores.clear();
        }
        Ok(())
    }

    /// Reads the file of intended findings, if there is one.
    fn read_ignored(&self, problems: &mut Vec<String>) -> Result<Vec<IgnoredRule>, String> {
        let Some(path) = &self.ignore else { return Ok(Vec::new()) };
        let (entries, of_file) = deployment_file::read_ignored(path).map_err(|error| error.to_string())?;
        problems.extend(of_file);
        Ok(entries)
    }

    /// Evaluates each template and returns the number of those that could be read.
    fn evaluate(&self, diagnosis: &mut DeploymentDiagnosis, problems: &mut Vec<String>) -> Result<usize, String> {
        let parameters: BTreeMap<String, String> = self.parameters.iter().cloned().collect();
        let ignored = self.read_ignored(problems)?;
        // With several templates, a parameter is one of those that have it.
        let mut missing = vec![0_usize; parameters.len()];
        let mut read = 0;
        for path in &self.templates {
            let mut reading = match deployment_file::read_file(path, &parameters) {
                Ok(reading) => reading,
                Err(error) => {
                    problems.push(error.to_string());
                    continue;
                }
            };
            read += 1;
            for (count, name) in missing.iter_mut().zip(parameters.keys()) {
                *count += usize::from(reading.unknown_parameters.contains(name));
            }
            problems.append(&mut reading.problems);
            reading.deployment.ignored.extend(ignored.iter().cloned());
            diagnosis.add(diagnose(&reading.deployment));
        }
        // An entry of the file is of use if it is to any template.
        if self.templates.len() > 1 {
            diagnosis.unused_ignores.retain(|unused| !ignored.contains(unused));
        }
        let nowhere = parameters.keys().zip(missing).filter(|(_, count)| read > 0 && *count == read);
        problems.extend(nowhere.map(|(name, _)| format!("--parameter {name}: no template has such a parameter")));
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct TestCommand {
        #[command(flatten)]
        doctor: DoctorCommand,
    }

    const FAULTY: &str = "Parameters:\n  Start: {Type: String, Default: LATEST}\nResources:\n  Users: {Type: \
                          AWS::DynamoDB::Table}\n  Changes:\n    Type: AWS::Lambda::EventSourceMapping\n    \
                          Properties:\n      \
                          EventSourceArn: !GetAtt Users.StreamArn\n      FunctionName: f\n      StartingPosition: \
                          !Ref Start\n      \
                          MaximumRecordAgeInSeconds: 3600\n      BisectBatchOnFunctionError: true\n      \
                          DestinationConfig: {OnFailure: {Destination: arn:aws:s3:::failures}}\n";

    fn outcome(arguments: &[&str]) -> DoctorOutcome {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("t.yaml"), FAULTY).unwrap();
        std::fs::write(folder.path().join("bad.yaml"), "a: [\n").unwrap();
        std::fs::write(
            folder.path().join("ignore.yaml"),
            "- {rule: starts-at-latest, resource: Changes, reason: a cache that is filled elsewhere}\n",
        )
        .unwrap();
        let path = |argument: &&str| match *argument {
            name if name.contains(".yaml") => folder.path().join(name).display().to_string(),
            other => other.to_owned(),
        };
        let line = std::iter::once("doctor".to_owned()).chain(arguments.iter().map(path));
        run(&TestCommand::try_parse_from(line).unwrap().doctor).unwrap()
    }

    fn run(command: &DoctorCommand) -> Result<DoctorOutcome, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(command.outcome())
    }

    #[test]
    fn exit_code_is_1_for_findings_and_2_for_unreadable_input() {
        for (arguments, code) in [
            (&["t.yaml"][..], 1),
            (&["t.yaml", "--fail-on", "loses"], 1),
            (&["t.yaml", "--fail-on", "loses", "--parameter", "Start=TRIM_HORIZON"], 0),
            (&["t.yaml", "--fail-on", "loses", "--ignore", "ignore.yaml"], 0),
            (&["bad.yaml"], 2),
            (&["gone.yaml"], 2),
            (&["t.yaml", "--parameter", "Begin=LATEST"], 2),
        ] {
            let outcome = outcome(arguments);
            assert_eq!(outcome.code, code, "{arguments:?}: {outcome:?}");
            assert_eq!(outcome.problems.len(), usize::from(code == 2), "{outcome:?}");
        }
    }

    #[test]
    fn the_rest_is_evaluated_if_a_file_cannot_be_read() {
        let outcome = outcome(&["bad.yaml", "t.yaml"]);
        assert_eq!(outcome.code, 2);
        assert!(outcome.text.is_some_and(|text| text.contains("starts-at-latest")));
        assert!(outcome.problems[0].contains("bad.yaml:2: invalid YAML"), "{:?}", outcome.problems);
    }

    #[test]
    fn a_rule_is_explained_without_a_template() {
        let text = outcome(&["--explain", "starts-at-latest"]).text.unwrap();
        assert!(text.contains("lost:                  1, 2, 3"), "{text}");
        assert!(outcome(&["--list-rules"]).text.is_some_and(|text| text.contains("poison-record-blocks-shard")));
        let error = TestCommand::try_parse_from(["doctor", "--explain", "latest"]).unwrap_err();
        assert!(error.to_string().contains("expected one of discarded-without-destination"), "{error}");
    }

    #[test]
    fn a_severity_that_does_not_exist_is_rejected_with_those_that_do() {
        let error = TestCommand::try_parse_from(["doctor", "t.yaml", "--fail-on", "high"]).unwrap_err();
        assert!(error.to_string().contains("expected one of loses, blocks, diverges, exposes, weakens"), "{error}");
    }

    fn parsed(arguments: &[&str]) -> Result<DoctorCommand, clap::Error> {
        let line = std::iter::once("doctor").chain(arguments.iter().copied());
        TestCommand::try_parse_from(line).map(|parsed| parsed.doctor)
    }

    #[test]
    fn the_target_is_a_name_or_an_arn_whose_region_is_used() {
        let stream_arn = "arn:aws:dynamodb:eu-west-1:123456789012:table/Users";
        for (arguments, accepted) in [
            (&["--stack", "users-1"][..], true),
            (&["--stack", "arn:aws:cloudformation:eu-west-1:123456789012:stack/users/1"], true),
            (&["--stack", "users/1"], false),
            (&["--function", "copier:live"], true),
            (&["--function", "arn:aws:lambda:eu-west-1:123456789012:function:copier"], true),
            (&["--function", "a/b"], false),
            (&["--table", stream_arn], true),
            (&["--table", "a"], false),
            (&["--table", "Users", "--stack", "users"], false),
            (&["--table", "Users", "t.yaml"], false),
            (&["t.yaml", "--region", "eu-west-1"], false),
            (&["--print-policy"], true),
            (&[], false),
        ] {
            assert_eq!(parsed(arguments).is_ok(), accepted, "{arguments:?}");
        }
        let problem = run(&parsed(&["--table", stream_arn, "--region", "us-east-1"]).unwrap()).unwrap_err();
        assert_eq!(problem, format!("--region us-east-1 is not the Region of {stream_arn}: omit --region"));
        let command = parsed(&["--function", "arn:aws:lambda:eu-west-1:123456789012:function:copier:live"]).unwrap();
        assert_eq!(command.target().unwrap().0, AccountTarget::Function("copier:live".to_owned()));
    }

    #[test]
    fn the_policy_is_printed_without_an_account() {
        let outcome = outcome(&["--print-policy"]);
        assert!(outcome.text.is_some_and(|text| text.contains("\"lambda:ListEventSourceMappings\"")));
    }
    #[test]
    fn a_terraform_plan_is_evaluated_as_a_file() {
        let plan = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/doctor/src/tests/plan.json");
        let outcome = run(&parsed(&[plan, "--fail-on", "loses"]).unwrap()).unwrap();
        assert_eq!((outcome.code, outcome.problems), (1, Vec::new()));
        let text = outcome.text.unwrap();
        for part in [
            "module.consumer[\"search\"].aws_lambda_event_source_mapping.this[0]: StartingPosition is LATEST",
            "module.consumer[\"billing.eu\"].aws_lambda_event_source_mapping.this[0]: MaximumRetryAttempts is 3",
            "bisect_batch_on_function_error = true",
            "the policy is known after the deployment",
            "2 mappings of DynamoDB streams: 2 loses, 2 weakens;",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn each_bad_template_is_one_line_that_names_the_place_and_the_exit_code_is_2() {
        let folder = tempfile::tempdir().unwrap();
        let mapping = "  M:\n    Type: AWS::Lambda::EventSourceMapping\n    Properties: {FunctionName: f, \
                       EventSourceArn: arn:aws:dynamodb:eu-west-1:1:table/T/stream/1, StartingPosition: LATEST}\n";
        let lines = |line: &dyn Fn(usize) -> String| (0..2_001).map(line).collect::<Vec<_>>().concat();
        let many = lines(&|number| format!("  T{number}: {{Type: AWS::S3::Bucket}}\n"));
        let stream = "Type: DynamoDB, Properties: {Stream: arn:aws:dynamodb:eu-west-1:1:table/T/stream/1}";
        let events = lines(&|number| format!("        E{number}: {{{stream}}}\n"));
        let events = format!("    Properties:\n      Events:\n{events}");
        // Each of two nested templates has an output of the other as its parameter.
        let inner = "Parameters: {In: {Type: String}}\nResources:\n  B: {Type: AWS::S3::Bucket, Properties: {BucketName: \
                     !Ref In}}\nOutputs: {Out: {Value: !Ref In}}\n";
        std::fs::write(folder.path().join("inner.yaml"), inner).unwrap();
        let nested = |id: &str, other: &str| {
            format!(
                "  {id}:\n    Type: AWS::Serverless::Application\n    Properties: {{Location: inner.yaml, Parameters: \
                 {{In: !GetAtt {other}.Outputs.Out}}}}\n"
            )
        };
        let outputs = nested("One", "Two") + &nested("Two", "One");
        let itself = "  Self: {Type: AWS::Serverless::Application, Properties: {Location: bad.yaml}}\n";
        for (text, problem, evaluated) in [
            ("Resources: ]".to_owned(), "bad.yaml:1: invalid YAML", false),
            ("\u{7f}ELF\u{1}".to_owned(), "bad.yaml:1: ", false),
            (format!("Resources:\n  A: !Rf b\n{mapping}"), "bad.yaml:2: unknown tag !Rf", false),
            ("a: b\n".repeat(1_000_001), "the template has 5000005 bytes", false),
            (
                format!("Resources:\n{mapping}").replace("    Properties", "    Condition: Gone\n    Properties"),
                "condition Gone is not defined",
                true,
            ),
            (
                format!("Conditions:\n  A: !Not [!Condition B]\n  B: !Not [!Condition A]\nResources:\n{mapping}")
                    .replace("    Properties", "    Condition: A\n    Properties"),
                "condition A depends on itself",
                true,
            ),
            (format!("Resources:\n{mapping}{itself}"), "contains itself", true),
            (String::new(), "bad.yaml:1: the file contains no template", false),
            ("[1, 2]".to_owned(), "bad.yaml:1: no Resources", false),
            (format!("Resources:\n{mapping}---\nResources: {{}}\n"), "a second YAML document", false),
            (format!("A: &a b\nB: *a\nResources:\n{mapping}"), "bad.yaml:2: YAML alias", false),
            ("[".repeat(100_000), "bad.yaml:1: invalid YAML: recursion limit exceeded", false),
            ("- ".repeat(200), "bad.yaml:1: nested too deeply", false),
            (format!("Resources:\n{mapping}{many}"), "the template has 2002 resources: at most 2000", false),
            (
                format!("Resources:\n{mapping}  F:\n    Type: AWS::Serverless::Function\n{events}"),
                "2002 mappings",
                false,
            ),
            (format!("Resources:\n{mapping}{outputs}"), "a value depends on itself", true),
        ] {
            let path = folder.path().join("bad.yaml");
            std::fs::write(&path, &text).unwrap();
            let outcome = run(&parsed(&[path.to_str().unwrap()]).unwrap()).unwrap();
            let start = text.chars().take(60).collect::<String>();
            assert_eq!((outcome.code, outcome.problems.len()), (REFUSED, 1), "{start}: {:?}", outcome.problems);
            let message = &outcome.problems[0];
            assert!(
                message.contains(problem) && message.contains("bad.yaml") && !message.contains('\n'),
                "{start}: {message}"
            );
            let has_finding = outcome.text.is_some_and(|text| text.contains("StartingPosition is LATEST"));
            assert_eq!(has_finding, evaluated, "{start}: the rest is evaluated");
        }
    }
}
