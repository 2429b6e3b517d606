//! What `template.yaml` says, in our words: the tables, buckets, functions and mappings that `local` runs.
//!
//! What runs here is what deploys: nothing of this is written down a second time. Only what `local` acts on is read
//! (`node` is the file as a tree, `resolve` its intrinsic functions, `resources` what the resources mean), and there
//! nothing is passed over: a function, an event or a property that `local` does not know is an error that names its
//! line, for to ignore it would be to run something else than what deploys.
//!
//! Names on this machine come from logical ids: see [`names`].

use std::collections::BTreeMap;
use std::path::Path;

pub mod names;
mod node;
mod resolve;
mod resolved_mapping;
mod resources;
#[cfg(test)]
mod tests;

/// Why a template cannot be run here; one line that names the place.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}: {problem}")]
pub struct TemplateError {
    file: String,
    line: usize,
    problem: String,
}

/// What a part of the template is refused for, before the file's name is known.
#[derive(Debug, PartialEq, Eq)]
struct PropertyError {
    line: usize,
    problem: String,
}

/// What this machine decides in place of who deploys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParameterOverrides {
    /// Parameters with other values than their defaults.
    pub parameters: BTreeMap<String, String>,
    /// Outputs of nested stacks, which are not made here, as `Stack.Outputs.Name`.
    pub outputs: BTreeMap<String, String>,
}

/// What `local` runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SamTemplate {
    /// The tables.
    pub tables: Vec<TableResource>,
    /// The buckets.
    pub buckets: Vec<BucketResource>,
    /// The functions.
    pub functions: Vec<FunctionResource>,
    /// The HTTP API's routes.
    pub routes: Vec<ApiRoute>,
}

impl SamTemplate {
    /// Reads the template of a file.
    ///
    /// # Errors
    ///
    /// A [`TemplateError`] if the file cannot be read, is not YAML, or says something that `local` cannot run.
    pub fn load(path: &Path) -> Result<Self, TemplateError> {
        Self::load_with(path, &ParameterOverrides::default())
    }

    /// Reads the template of a file as this machine chooses.
    ///
    /// # Errors
    ///
    /// As [`SamTemplate::load`]; and if a choice is none that the template offers.
    pub fn load_with(path: &Path, choices: &ParameterOverrides) -> Result<Self, TemplateError> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::read(&text, choices).map_err(|PropertyError { line, problem }| TemplateError {
                file,
                line,
                problem,
            }),
            Err(error) => {
                let problem = format!("{error}: name the SAM template with --template");
                Err(TemplateError { file, line: 0, problem })
            }
        }
    }

    /// Reads the template of a text.
    ///
    /// # Errors
    ///
    /// As [`SamTemplate::load`].
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let file = "template".to_owned();
        Self::read(text, &ParameterOverrides::default()).map_err(|PropertyError { line, problem }| TemplateError {
            file,
            line,
            problem,
        })
    }

    fn read(text: &str, choices: &ParameterOverrides) -> Result<Self, PropertyError> {
        let document = node::document(text)?;
        resources::read(&document, choices)
    }
}

/// A route of the HTTP API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiRoute {
    /// The local name of the function that answers.
    pub function: String,
    /// `GET`, …; `ANY` for every method.
    pub method: String,
    /// `/users/{user_id}`, …; `$default` for what no other route takes.
    pub path: String,
    /// Who lets requests in: `AWS_IAM` or `JWT`, and never nobody.
    pub authorization: String,
}

/// A DynamoDB table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableResource {
    /// The resource's name in the template.
    pub logical_id: String,
    /// The table's name on this machine.
    pub name: String,
    /// The primary key: the partition key, then the sort key if there is one.
    pub keys: Vec<KeyDefinition>,
    /// The types of the attributes that keys and indexes name.
    pub attributes: Vec<AttributeType>,
    /// The global secondary indexes.
    pub indexes: Vec<SecondaryIndex>,
    /// The attribute that says when an item expires.
    pub ttl_attribute: Option<String>,
    /// What a stream record carries; none without a stream.
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

/// The type of an attribute of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributeType {
    /// The attribute's name.
    pub name: String,
    /// `S`, `N` or `B`.
    pub kind: String,
}

/// A global secondary index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecondaryIndex {
    /// The index's name.
    pub name: String,
    /// Its key.
    pub keys: Vec<KeyDefinition>,
    /// `ALL`, `KEYS_ONLY` or `INCLUDE`.
    pub projection: String,
    /// The attributes of an `INCLUDE` projection.
    pub non_key_attributes: Vec<String>,
}

/// An S3 bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketResource {
    /// The resource's name in the template.
    pub logical_id: String,
    /// The bucket's name on this machine.
    pub name: String,
}

/// A Lambda function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionResource {
    /// The resource's name in the template.
    pub logical_id: String,
    /// The cargo binary that it is built from.
    pub name: String,
    /// Its environment variables, resolved to local names.
    pub environment: BTreeMap<String, String>,
    /// How long an invocation may take.
    pub timeout_s: u32,
    /// Its memory, and by it its share of a CPU.
    pub memory_mb: u32,
    /// The streams that invoke it.
    pub mappings: Vec<MappingResource>,
}

/// An event source mapping: how Lambda reads a table's stream for a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappingResource {
    /// The event's name in the template.
    pub name: String,
    /// The local name of the table.
    pub table: String,
    /// The most records of an invocation.
    pub batch_size: u32,
    /// How long a batch may wait to be filled.
    pub window_s: u32,
    /// How many batches of a shard may be under way at a time.
    pub parallelization_factor: u32,
    /// How often a failed batch is sent again; -1 without end.
    pub maximum_retry_attempts: i64,
    /// How old a record may grow before it goes to the failure destination; -1 without end.
    pub maximum_record_age_s: i64,
    /// Whether a failed batch is halved.
    pub bisect: bool,
    /// Whether the function's answer may name the first record that failed.
    pub report_batch_item_failures: bool,
    /// The filter patterns, as JSON; a record that matches any is delivered. None: every record is.
    pub filters: Vec<String>,
    /// The local name of the bucket to which given up batches go.
    pub on_failure_bucket: Option<String>,
    /// `TRIM_HORIZON` or `LATEST`.
    pub starting_position: String,
}
