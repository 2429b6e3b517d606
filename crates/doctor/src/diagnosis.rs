//! Applies the rules to a deployment: [`diagnose`].

use crate::deployment::{DeploymentForm, IgnoredRule, SourceLocation, StreamDeployment};
use crate::rule_table::{DoctorRule, RULES, RuleCheck, RuleSeverity};

/// A setting that loses or blocks records, or weakens their protection.
#[derive(Debug, Clone)]
pub struct RuleFinding {
    /// The rule.
    pub rule: &'static DoctorRule,
    /// Where it is.
    pub location: SourceLocation,
    /// The setting that was found there.
    pub problem: String,
    /// The form of the deployment's files.
    pub form: DeploymentForm,
}

impl RuleFinding {
    /// Returns the fix in the form of the deployment's files.
    #[must_use]
    pub fn fix(&self) -> &'static str {
        match self.form {
            DeploymentForm::CloudFormation | DeploymentForm::Account => self.rule.fix,
            DeploymentForm::Terraform => self.rule.fix_hcl,
        }
    }
}

/// A rule that could not be evaluated, which is not the same as a good result.
#[derive(Debug, Clone)]
pub struct UncheckedRule {
    /// The rule.
    pub rule: &'static DoctorRule,
    /// Where it is, if it concerns one resource.
    pub location: Option<SourceLocation>,
    /// Why it could not be evaluated.
    pub reason: String,
}

/// The result of all rules.
#[derive(Debug, Default)]
pub struct DeploymentDiagnosis {
    /// The findings, the most severe first.
    pub findings: Vec<RuleFinding>,
    /// Findings that the deployment declares as intended, with the reason.
    pub ignored: Vec<(RuleFinding, String)>,
    /// Rules that could not be evaluated.
    pub unchecked: Vec<UncheckedRule>,
    /// Declarations that match no finding.
    pub unused_ignores: Vec<IgnoredRule>,
    /// Parts of the deployment that were not evaluated, with the reason.
    pub unread: Vec<(SourceLocation, String)>,
    /// The number of event source mappings that were evaluated.
    pub mappings: usize,
}

impl DeploymentDiagnosis {
    /// Adds the diagnosis of another deployment.
    pub fn add(&mut self, other: Self) {
        self.findings.extend(other.findings);
        self.ignored.extend(other.ignored);
        self.unchecked.extend(other.unchecked);
        self.unused_ignores.extend(other.unused_ignores);
        self.unread.extend(other.unread);
        self.mappings += other.mappings;
    }

    /// Returns whether a finding is at least as severe.
    #[must_use]
    pub fn has_finding(&self, least: RuleSeverity) -> bool {
        self.findings.iter().any(|finding| finding.rule.severity <= least)
    }
}

/// Applies every rule to a deployment.
#[must_use]
pub fn diagnose(deployment: &StreamDeployment) -> DeploymentDiagnosis {
    let mut diagnosis = DeploymentDiagnosis {
        mappings: deployment.mappings.len(),
        unread: deployment.unread.clone(),
        ..DeploymentDiagnosis::default()
    };
    for (location, reason) in &deployment.unresolved_mappings {
        diagnosis.unread.push((location.clone(), format!("the source of the mapping: {reason}")));
    }
    let mut used = vec![false; deployment.ignored.len()];
    for rule in RULES {
        if rule.needs_account && deployment.form != DeploymentForm::Account {
            let reason = rule.offline.to_owned();
            diagnosis.unchecked.push(UncheckedRule { rule, location: None, reason });
            continue;
        }
        for check in rule.checks {
            for (location, result) in evaluate(deployment, *check) {
                match result {
                    Ok(None) => {}
                    Ok(Some(problem)) => {
                        let finding = RuleFinding { rule, location, problem, form: deployment.form };
                        match deployment.ignored.iter().position(|ignored| concerns(ignored, &finding)) {
                            Some(index) => {
                                used[index] = true;
                                diagnosis.ignored.push((finding, deployment.ignored[index].reason.clone()));
                            }
                            None => diagnosis.findings.push(finding),
                        }
                    }
                    Err(reason) => diagnosis.unchecked.push(UncheckedRule { rule, location: Some(location), reason }),
                }
            }
        }
    }
    diagnosis.findings.sort_by(|a, b| (a.rule.severity, &a.location).cmp(&(b.rule.severity, &b.location)));
    // A rule that was not checked may have the finding.
    let is_checked = |rule: &str| diagnosis.unchecked.iter().all(|unchecked| unchecked.rule.id != rule);
    let unused = deployment.ignored.iter().zip(used).filter(|(ignored, used)| !used && is_checked(&ignored.rule));
    diagnosis.unused_ignores = unused.map(|(ignored, _)| ignored.clone()).collect();
    diagnosis
}

fn evaluate(deployment: &StreamDeployment, check: RuleCheck) -> Vec<(SourceLocation, Result<Option<String>, String>)> {
    match check {
        RuleCheck::Mapping(evaluate) => {
            deployment.mappings.iter().map(|it| (it.location.clone(), evaluate(deployment, it))).collect()
        }
        RuleCheck::Table(evaluate) => {
            deployment.tables.iter().map(|it| (it.location.clone(), evaluate(deployment, it))).collect()
        }
        RuleCheck::Key(evaluate) => deployment.keys.iter().map(|it| (it.location.clone(), evaluate(it))).collect(),
        RuleCheck::Route(evaluate) => deployment.routes.iter().map(|it| (it.location.clone(), evaluate(it))).collect(),
    }
}

fn concerns(ignored: &IgnoredRule, finding: &RuleFinding) -> bool {
    let is_within = |resource: &str| {
        let rest = finding.location.resource.strip_prefix(resource);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    ignored.rule == finding.rule.id && ignored.resource.as_deref().is_none_or(is_within)
}
