//! Source table of a template that replicates a table outside of it, such as `infra/replication.yaml` deployed by itself:
//! this machine creates the table, with the key that the parameters describe.
//!
//! The template has the parameters `SourceTableName`, `SourceTableArn` and `SourceStreamArn` of the table. Only the first
//! can be set here, since the ARNs are those of the engine.

use super::document::TemplateDocument;
use super::{AttributeType, KeyDefinition, ParameterOverrides, PropertyError, TableResource};

/// The name of the table unless `SourceTableName` is set.
const NAME: &str = "Source";

/// Returns the source table of the template; `None` if the template has no parameter `SourceStreamArn`.
///
/// # Errors
/// Fails if a parameter that describes the table is missing or malformed, or sets an ARN.
pub(super) fn source_table(
    document: &TemplateDocument,
    choices: &ParameterOverrides,
) -> Result<Option<TableResource>, PropertyError> {
    let Some(parameters) = document.node.get("Parameters").filter(|all| all.get("SourceStreamArn").is_some()) else {
        return Ok(None);
    };
    let fault = |name: &str, problem: &str| {
        parameters.get(name).unwrap_or(parameters).fault(format!("Parameters.{name}: {problem}"))
    };
    let chosen = |name: &str| choices.parameters.get(name).map(String::as_str);
    if let Some(arn) = ["SourceTableArn", "SourceStreamArn"].into_iter().find(|name| chosen(name).is_some()) {
        return Err(fault(arn, "cannot be set, since millrace creates the source table: set SourceTableName"));
    }
    let name = chosen("SourceTableName").unwrap_or(NAME);
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || "_.-".contains(letter);
    if !(3..=255).contains(&name.len()) || !name.chars().all(is_name) {
        let problem = format!("{name:?} is not a table name: expected 3 to 255 of A-Za-z0-9_.-");
        return Err(fault("SourceTableName", &problem));
    }
    let partition = chosen("PartitionKey");
    let partition = partition.ok_or_else(|| {
        fault("PartitionKey", "no value: set it with --parameter PartitionKey=NAME:TYPE, such as pk:S")
    })?;
    let sort = chosen("SortKey").filter(|sort| *sort != "none");
    let mut table = TableResource {
        logical_id: "SourceTable".to_owned(),
        name: name.to_owned(),
        keys: Vec::new(),
        attributes: Vec::new(),
        indexes: Vec::new(),
        ttl_attribute: None,
        stream_view: Some("NEW_AND_OLD_IMAGES".to_owned()),
    };
    for (parameter, role, text) in [("PartitionKey", "HASH", Some(partition)), ("SortKey", "RANGE", sort)] {
        let Some(text) = text else { continue };
        let malformed = || {
            fault(
                parameter,
                &format!("{text:?} is not a name and a type (S, N or B): write it as NAME:TYPE, such as pk:S"),
            )
        };
        let (attribute, kind) = text.split_once(':').ok_or_else(malformed)?;
        if attribute.is_empty() || !["S", "N", "B"].contains(&kind) {
            return Err(malformed());
        }
        table.keys.push(KeyDefinition { name: attribute.to_owned(), role: role.to_owned() });
        table.attributes.push(AttributeType { name: attribute.to_owned(), kind: kind.to_owned() });
    }
    Ok(Some(table))
}
