//! Deployment template: the tables, buckets, functions and event source mappings in `template.yaml` that `millrace` runs.
//!
//! The local stack runs the same definitions that are deployed, without a second copy of them. Only the parts that
//! `millrace` uses are read (`document` reads the files of the template and of its nested applications, `node` parses a
//! file to a tree, `resolve` resolves its intrinsic functions, `resources` interprets the resources). Within these parts
//! nothing is ignored: an unknown function, event or property is an error that names its line, because a stack without
//! it would differ from the deployed one.
//!
//! Names on this machine are derived from logical IDs: see [`names`].

use std::collections::BTreeMap;
use std::path::Path;

use crate::table_description::TableDescription;

mod document;
pub mod names;
mod node;
mod resolve;
mod resolved_mapping;
mod resources;
mod source_table;
#[cfg(test)]
mod tests;

/// A template that cannot be run here, with a one-line message that names the location.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}: {problem}")]
pub struct TemplateError {
    file: String,
    line: usize,
    problem: String,
}

/// An error in a part of a template, before the file's name is added.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PropertyError {
    line: usize,
    problem: String,
    /// The file of the template or of a nested application; `None` until it is added.
    file: Option<String>,
}

impl PropertyError {
    fn new(line: usize, problem: String) -> Self {
        Self { line, problem, file: None }
    }

    /// Adds the file, unless the error already names one.
    fn in_file(mut self, file: &str) -> Self {
        self.file.get_or_insert_with(|| file.to_owned());
        self
    }

    fn into_template_error(self, path: &str) -> TemplateError {
        let Self { line, problem, file } = self;
        TemplateError { file: file.unwrap_or_else(|| path.to_owned()), line, problem }
    }
}

/// Parameters and outputs that this machine sets in place of the deployment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParameterOverrides {
    /// Parameters with values other than their defaults.
    pub parameters: BTreeMap<String, String>,
    /// Outputs of nested stacks, which are not created here, as `Stack.Outputs.Name`.
    pub outputs: BTreeMap<String, String>,
    /// Parameters in place of the outputs of a nested stack, by the stack's logical ID. They are set in a template that
    /// has these parameters and not the stack.
    pub stack_parameters: BTreeMap<String, BTreeMap<String, String>>,
}

impl ParameterOverrides {
    /// Returns the overrides of this template, with [`ParameterOverrides::stack_parameters`] in place of the outputs of
    /// nested stacks that the template does not have.
    fn for_template(&self, document: &document::TemplateDocument) -> Self {
        let has = |section: &str, name: &str| document.node.get(section).is_some_and(|all| all.get(name).is_some());
        let mut choices = self.clone();
        for (stack, parameters) in &self.stack_parameters {
            if has("Resources", stack) || !parameters.keys().all(|name| has("Parameters", name)) {
                continue;
            }
            choices.outputs.retain(|output, _| output.split_once('.').is_none_or(|(of, _)| of != stack));
            for (name, value) in parameters {
                choices.parameters.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
        choices
    }
}

/// The source table that this machine creates for a template that replicates a table outside of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceTable {
    /// The description of a table that exists; without it, the template's parameters describe the table.
    pub description: Option<TableDescription>,
    /// The TTL attribute, or `none` if TTL is off; `None` for that of the description, if it has one.
    pub ttl_attribute: Option<String>,
}

/// The parts of the template that `millrace` runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SamTemplate {
    /// The tables.
    pub tables: Vec<TableResource>,
    /// The buckets.
    pub buckets: Vec<BucketResource>,
    /// The functions.
    pub functions: Vec<FunctionResource>,
    /// The routes of the HTTP API.
    pub routes: Vec<ApiRoute>,
}

impl SamTemplate {
    /// Reads the template from a file.
    ///
    /// # Errors
    ///
    /// A [`TemplateError`] if the file cannot be read, is not YAML, or contains something that `millrace` cannot run.
    pub fn load(path: &Path) -> Result<Self, TemplateError> {
        Self::load_with(path, &ParameterOverrides::default())
    }

    /// Reads the template from a file with the overrides of this machine.
    ///
    /// # Errors
    ///
    /// Same as [`SamTemplate::load`]; also if an override is not possible in the template.
    pub fn load_with(path: &Path, choices: &ParameterOverrides) -> Result<Self, TemplateError> {
        Self::load_for(path, choices, &SourceTable::default())
    }

    /// Reads the template from a file with the overrides of this machine, for a source table.
    ///
    /// # Errors
    ///
    /// Same as [`SamTemplate::load_with`]; also if the template has a source table of its own, or if an override
    /// contradicts the description.
    pub fn load_for(path: &Path, choices: &ParameterOverrides, source: &SourceTable) -> Result<Self, TemplateError> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => {
                let template = Self::read(&text, &file, path.parent(), choices, source);
                template.map_err(|error| error.into_template_error(&file))
            }
            Err(error) => {
                let problem = format!("{error}: specify the SAM template with --template");
                Err(TemplateError { file, line: 0, problem })
            }
        }
    }

    /// Reads the template from a text.
    ///
    /// # Errors
    ///
    /// Same as [`SamTemplate::load`]; also if it contains a nested application, which is in another file.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let file = "template";
        let template = Self::read(text, file, None, &ParameterOverrides::default(), &SourceTable::default());
        template.map_err(|error| error.into_template_error(file))
    }

    /// Reads the template from the text of a file; `folder` is the folder of its nested applications.
    fn read(
        text: &str,
        file: &str,
        folder: Option<&Path>,
        choices: &ParameterOverrides,
        source: &SourceTable,
    ) -> Result<Self, PropertyError> {
        let document = document::TemplateDocument::parse(text, file, folder)?;
        resources::read(&document, choices, source)
    }
}

/// A route of the HTTP API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiRoute {
    /// The local name of the function that handles the route.
    pub function: String,
    /// `GET`, …; `ANY` for every method.
    pub method: String,
    /// `/users/{user_id}`, …; `$default` for all requests that match no other route.
    pub path: String,
    /// The authorization type, `AWS_IAM` or `JWT`; an open route is not allowed.
    pub authorization: String,
}

/// A DynamoDB table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableResource {
    /// The logical ID of the resource.
    pub logical_id: String,
    /// The table's name on this machine.
    pub name: String,
    /// The primary key: the partition key, then the sort key if there is one.
    pub keys: Vec<KeyDefinition>,
    /// The types of the attributes in keys and indexes.
    pub attributes: Vec<AttributeType>,
    /// The global secondary indexes.
    pub indexes: Vec<SecondaryIndex>,
    /// The local secondary indexes. The template defines none; a source table may have them.
    pub local_indexes: Vec<SecondaryIndex>,
    /// The TTL attribute.
    pub ttl_attribute: Option<String>,
    /// The stream view type; `None` without a stream.
    pub stream_view: Option<String>,
}

/// One attribute of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDefinition {
    /// The attribute's name.
    pub name: String,
    /// `HASH` or `RANGE`.
    pub role: String,
}

/// The type of an attribute in a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributeType {
    /// The attribute's name.
    pub name: String,
    /// `S`, `N` or `B`.
    pub kind: String,
}

/// A secondary index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecondaryIndex {
    /// The index's name.
    pub name: String,
    /// The key of the index.
    pub keys: Vec<KeyDefinition>,
    /// `ALL`, `KEYS_ONLY` or `INCLUDE`.
    pub projection: String,
    /// The attributes of an `INCLUDE` projection.
    pub non_key_attributes: Vec<String>,
}

/// An S3 bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketResource {
    /// The logical ID of the resource.
    pub logical_id: String,
    /// The bucket's name on this machine.
    pub name: String,
}

/// A Lambda function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionResource {
    /// The logical ID of the resource.
    pub logical_id: String,
    /// The cargo binary of the function.
    pub name: String,
    /// The environment variables, with references resolved to local names.
    pub environment: BTreeMap<String, String>,
    /// The timeout of an invocation in seconds.
    pub timeout_s: u32,
    /// The memory size in MB, which also determines the share of a CPU.
    pub memory_mb: u32,
    /// The event source mappings of the function.
    pub mappings: Vec<MappingResource>,
}

/// An event source mapping: the settings with which Lambda reads a table's stream for a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappingResource {
    /// The event's name in the template.
    pub name: String,
    /// The local name of the table.
    pub table: String,
    /// The maximum number of records per invocation.
    pub batch_size: u32,
    /// The batch window in seconds.
    pub window_s: u32,
    /// The number of batches per shard that may be in flight concurrently.
    pub parallelization_factor: u32,
    /// The number of times that a failed batch is redelivered; -1 for no limit.
    pub maximum_retry_attempts: i64,
    /// The maximum age of a record in seconds, after which it is sent to the on-failure destination; -1 for no limit.
    pub maximum_record_age_s: i64,
    /// Whether a failed batch is split in half.
    pub bisect: bool,
    /// Whether the function's response may report the records that failed.
    pub report_batch_item_failures: bool,
    /// The filter patterns, as JSON; a record that matches any of them is delivered. Without patterns every record is.
    pub filters: Vec<String>,
    /// The local name of the bucket for discarded batches.
    pub on_failure_bucket: Option<String>,
    /// `TRIM_HORIZON` or `LATEST`.
    pub starting_position: String,
}
