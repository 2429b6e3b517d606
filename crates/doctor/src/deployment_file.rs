//! Reads a deployment from a file: [`read_file`]; and a file of ignored findings: [`read_ignored`].

use std::collections::BTreeMap;
use std::path::Path;

use crate::deployment::{IgnoredRule, SourceLocation};
use crate::deployment_builder;
use crate::template_document::read_text;
use crate::template_error::TemplateError;
use crate::template_node::TemplateNode;
use crate::template_reader::{self, DeploymentReading};
use crate::template_scope::ResolvedNode;
use crate::terraform_plan;

/// The maximum size of a file; a template has a limit of its own.
const MAX_BYTES: u64 = 64_000_000;
/// The maximum number of mappings that are evaluated.
const MAX_MAPPINGS: usize = 2_000;

/// Reads a deployment from a template of `CloudFormation` or SAM, or from a Terraform plan in JSON.
///
/// # Errors
/// A [`TemplateError`], if the file cannot be read or is none of these.
pub fn read_file(path: &Path, parameters: &BTreeMap<String, String>) -> Result<DeploymentReading, TemplateError> {
    let text = read_text(path, MAX_BYTES)?;
    let file = path.display().to_string();
    if text.trim_start().starts_with('{')
        && let Ok(document) = serde_json::from_str::<serde_json::Value>(&text)
        && terraform_plan::is_plan(&document)
    {
        let unknown_parameters = parameters.keys().cloned().collect();
        return limited(DeploymentReading { unknown_parameters, ..terraform_plan::read(&document, &file) }, &file);
    }
    let folder =
        path.parent().map_or(Path::new("."), |folder| if folder == Path::new("") { Path::new(".") } else { folder });
    limited(template_reader::read(&text, &file, Some(folder), parameters)?, &file)
}

/// Rejects a deployment with too many mappings: each is compared with all others.
fn limited(reading: DeploymentReading, file: &str) -> Result<DeploymentReading, TemplateError> {
    let count = reading.deployment.mappings.len();
    if count > MAX_MAPPINGS {
        let problem = format!("{count} mappings of DynamoDB streams: at most {MAX_MAPPINGS} are checked");
        return Err(TemplateError::new(0, problem).in_file(file));
    }
    Ok(reading)
}

/// Reads a list of `{rule, resource, reason}`. The result contains the problems of entries that are not usable.
///
/// # Errors
/// A [`TemplateError`], if the file cannot be read or is not YAML.
pub fn read_ignored(path: &Path) -> Result<(Vec<IgnoredRule>, Vec<String>), TemplateError> {
    let file = path.display().to_string();
    let list = TemplateNode::parse(&read_text(path, MAX_BYTES)?).map_err(|error| error.in_file(&file))?;
    let mut problems = Vec::new();
    let location = SourceLocation { file, line: list.line, resource: String::new() };
    let ignored = deployment_builder::parse_ignored(&ResolvedNode::from_node(&list), &location, None, &mut problems);
    Ok((ignored, problems))
}
