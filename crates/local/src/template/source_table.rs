//! Source table of a template that replicates a table outside of it, such as `infra/replication.yaml` deployed by itself:
//! this machine creates the table, as a description of an existing table says, or with the key that the parameters
//! describe.
//!
//! The template has the parameters `SourceTableName`, `SourceTableArn` and `SourceStreamArn` of the table. Only the first
//! can be set here, since the ARNs are those of the engine.

use super::document::TemplateDocument;
use super::node::TemplateNode;
use super::{AttributeType, KeyDefinition, ParameterOverrides, PropertyError, SourceTable, TableResource};
use crate::table_description::{KeyAttribute, KeyType, TABLE_NAME_RULE, TableDescription, TimeToLive, is_table_name};

/// The logical ID of the table, which is in no template.
const ID: &str = "SourceTable";
/// The stream view type that replication requires.
const VIEW: &str = "NEW_AND_OLD_IMAGES";
/// The parameters that describe the table, which a description replaces.
pub(super) const DESCRIBING_PARAMETERS: [&str; 5] =
    ["SourceTableName", "SourceTableArn", "SourceStreamArn", "PartitionKey", "SortKey"];

/// The name of the table unless `SourceTableName` is set.
const NAME: &str = "Source";

/// Returns the source table of the template; `None` if the template has no parameter `SourceStreamArn`.
///
/// # Errors
/// Fails if a parameter that describes the table is missing or malformed, sets an ARN, or contradicts the description,
/// or if a table is described for a template that does not take one.
pub(super) fn source_table(
    document: &TemplateDocument,
    choices: &ParameterOverrides,
    source: &SourceTable,
) -> Result<Option<TableResource>, PropertyError> {
    let Some(parameters) = document.node.get("Parameters").filter(|all| all.get("SourceStreamArn").is_some()) else {
        let option = match source {
            SourceTable { description: Some(_), .. } => "--table",
            SourceTable { ttl_attribute: Some(_), .. } => "--ttl-attribute",
            SourceTable { description: None, ttl_attribute: None } => return Ok(None),
        };
        let problem = format!(
            "{option}: the template has a source table of its own (no parameter SourceStreamArn): choose \
             infra/replication.yaml with --template"
        );
        return Err(document.node.fault(problem));
    };
    let table = match &source.description {
        Some(description) => described_table(parameters, choices, description)?,
        None => parameter_table(parameters, choices)?,
    };
    let chosen = source.ttl_attribute.as_deref().map(TimeToLive::from_option).transpose();
    let ttl_attribute = match chosen.map_err(|problem| document.node.fault(format!("--ttl-attribute: {problem}")))? {
        None | Some(TimeToLive::Unknown) => table.ttl_attribute,
        Some(TimeToLive::Disabled) => None,
        Some(TimeToLive::Enabled { attribute }) => {
            let typed = table.attributes.iter().find(|declared| declared.name == attribute);
            if let Some(kind) = typed.map(|declared| &declared.kind).filter(|kind| *kind != "N") {
                return Err(document.node.fault(format!(
                    "--ttl-attribute: {attribute:?} is of type {kind} in the table's keys, and a TTL attribute is a \
                     number: name another attribute, or none if TTL is off"
                )));
            }
            Some(attribute)
        }
    };
    Ok(Some(TableResource { ttl_attribute, ..table }))
}

impl TableResource {
    /// Returns whether the table is the source table of a template that does not contain it.
    pub(crate) fn is_outside_template(&self) -> bool {
        self.logical_id == ID
    }
}

/// Returns the key attributes of the table as values of the template's parameters.
pub(super) fn key_parameters(table: &TableResource) -> impl Iterator<Item = (&'static str, String)> {
    ["PartitionKey", "SortKey"].into_iter().zip(&table.keys).map(|(parameter, key)| {
        let attribute = table.attributes.iter().find(|attribute| attribute.name == key.name);
        let kind = attribute.and_then(|attribute| KeyType::parse(&attribute.kind)).unwrap_or(KeyType::String);
        (parameter, KeyAttribute { name: key.name.clone(), kind }.to_parameter())
    })
}

/// Returns the table of a description. Its stream is on, as replication requires, even if the described one's is off.
fn described_table(
    parameters: &TemplateNode,
    choices: &ParameterOverrides,
    description: &TableDescription,
) -> Result<TableResource, PropertyError> {
    if let Some(name) = DESCRIBING_PARAMETERS.into_iter().find(|name| choices.parameters.contains_key(*name)) {
        let problem = format!("Parameters.{name}: --table describes the source table: omit --parameter {name}");
        return Err(parameters.get(name).unwrap_or(parameters).fault(problem));
    }
    Ok(TableResource {
        logical_id: ID.to_owned(),
        name: description.name.clone(),
        keys: description.key_definitions(),
        attributes: description.attributes.clone(),
        indexes: description.global_indexes.clone(),
        local_indexes: description.local_indexes.clone(),
        ttl_attribute: description.ttl_attribute().map(str::to_owned),
        stream_view: Some(VIEW.to_owned()),
    })
}

/// Returns the table that the parameters describe.
fn parameter_table(parameters: &TemplateNode, choices: &ParameterOverrides) -> Result<TableResource, PropertyError> {
    let fault = |name: &str, problem: &str| {
        parameters.get(name).unwrap_or(parameters).fault(format!("Parameters.{name}: {problem}"))
    };
    let chosen = |name: &str| choices.parameters.get(name).map(String::as_str);
    if let Some(arn) = ["SourceTableArn", "SourceStreamArn"].into_iter().find(|name| chosen(name).is_some()) {
        return Err(fault(arn, "cannot be set, since millrace creates the source table: set SourceTableName"));
    }
    let name = chosen("SourceTableName").unwrap_or(NAME);
    if !is_table_name(name) {
        let problem = format!("{name:?} is not {TABLE_NAME_RULE}");
        return Err(fault("SourceTableName", &problem));
    }
    let partition = chosen("PartitionKey");
    let partition = partition.ok_or_else(|| {
        fault("PartitionKey", "no value: set it with --parameter PartitionKey=NAME:TYPE, such as pk:S")
    })?;
    let sort = chosen("SortKey").filter(|sort| *sort != "none");
    let mut table = TableResource {
        logical_id: ID.to_owned(),
        name: name.to_owned(),
        keys: Vec::new(),
        attributes: Vec::new(),
        indexes: Vec::new(),
        local_indexes: Vec::new(),
        ttl_attribute: None,
        stream_view: Some(VIEW.to_owned()),
    };
    for (parameter, role, text) in [("PartitionKey", "HASH", Some(partition)), ("SortKey", "RANGE", sort)] {
        let Some(text) = text else { continue };
        let key = KeyAttribute::from_parameter(text).ok_or_else(|| {
            let problem = format!(
                "{text:?} is not a name and a type (S, N or B): write it as NAME:TYPE, such as pk:S, with %3A for a \
                 colon in the name"
            );
            fault(parameter, &problem)
        })?;
        if table.keys.iter().any(|former| former.name == key.name) {
            let problem = format!(
                "{text:?} names the attribute of PartitionKey: set it to another attribute, or omit \
                 --parameter SortKey if the table has no sort key"
            );
            return Err(fault(parameter, &problem));
        }
        table.keys.push(KeyDefinition { name: key.name.clone(), role: role.to_owned() });
        table.attributes.push(AttributeType { name: key.name, kind: key.kind.as_str().to_owned() });
    }
    Ok(table)
}
