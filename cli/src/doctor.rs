//! `millrace doctor`: the settings of a deployment that lose records, found in its files ([`DoctorCommand`]).
//!
//! The crate `millrace-doctor` reads the files and judges; this module has the arguments, the exit code and the files.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use millrace_doctor::deployment_file;
use millrace_doctor::diagnosis::{DeploymentDiagnosis, diagnose};
use millrace_doctor::explanation;
use millrace_doctor::report;
use millrace_doctor::rule_table::{self, DoctorRule, RULES, RuleSeverity};

use crate::options::{REFUSED, parameter, refuse};
use crate::standard_output::write_output;

/// The arguments of `millrace doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorCommand {
    /// Templates of CloudFormation or SAM, in YAML or JSON, or Terraform plans in JSON; nested templates with a local
    /// path are read, too
    #[arg(value_name = "TEMPLATE", required_unless_present_any = ["explain", "list_rules"])]
    templates: Vec<PathBuf>,
    /// Parameter of the template with another value than its default; can be repeated
    #[arg(long = "parameter", value_name = "NAME=VALUE", value_parser = parameter)]
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
    /// Explain a rule: what is lost and how, replayed in the simulator of the event source mapping, the fix, the source
    #[arg(long, value_name = "RULE", conflicts_with = "templates", value_parser = rule)]
    explain: Option<&'static DoctorRule>,
    /// Print the rules
    #[arg(long, conflicts_with_all = ["templates", "explain"])]
    list_rules: bool,
}

fn rule(text: &str) -> Result<&'static DoctorRule, String> {
    let names = || RULES.iter().map(|rule| rule.id).collect::<Vec<_>>().join(", ");
    rule_table::find(text).ok_or_else(|| format!("expected one of {}", names()))
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
    /// Judges the templates and prints the result. The exit code is 0 without a finding, 1 with one of the severity of
    /// `--fail-on` or above, and 2 if a part could not be read; the rest is judged then, too.
    pub(crate) fn run(&self) -> ExitCode {
        let outcome = match self.outcome() {
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

    fn outcome(&self) -> Result<DoctorOutcome, String> {
        let about_rules = self.explain.map(explanation::explain).or_else(|| self.list_rules.then(explanation::list));
        if about_rules.is_some() {
            return Ok(DoctorOutcome { text: about_rules, problems: Vec::new(), code: 0 });
        }
        let mut diagnosis = DeploymentDiagnosis::default();
        let mut problems = Vec::new();
        let read = self.judge(&mut diagnosis, &mut problems)?;
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

    /// Judges each template and returns the number of those that could be read.
    fn judge(&self, diagnosis: &mut DeploymentDiagnosis, problems: &mut Vec<String>) -> Result<usize, String> {
        let parameters: BTreeMap<String, String> = self.parameters.iter().cloned().collect();
        let mut ignored = Vec::new();
        if let Some(path) = &self.ignore {
            let (entries, of_file) = deployment_file::read_ignored(path).map_err(|error| error.to_string())?;
            ignored = entries;
            problems.extend(of_file);
        }
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
        TestCommand::try_parse_from(line).unwrap().doctor.outcome().unwrap()
    }

    #[test]
    fn the_exit_code_tells_findings_of_a_severity_from_files_that_cannot_be_read() {
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
    fn the_rest_is_judged_if_a_file_cannot_be_read() {
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
}
