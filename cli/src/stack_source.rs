//! Options that select what a stack replicates: the template, its parameters and the source table ([`StackSource`]).
//!
//! A data folder remembers them, so that a task on it, and the next start, need not repeat them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use millrace_local::stack::StackOptions;
use millrace_local::table_description::{TableDescription, TimeToLive};
use millrace_local::template::SourceTable;
use millrace_shared::file::replace_file;
use serde::{Deserialize, Serialize};

use crate::attach::deployment_notes;

/// The file of a data folder that contains the options of its last start.
const FILE: &str = "options.json";
/// The template of the users service, in the root of the workspace.
const TEMPLATE: &str = "template.yaml";
/// The template of `--table`.
const REPLICATION_TEMPLATE: &str = "infra/replication.yaml";

/// The options as they are given; the defaults select the users service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StackSource {
    pub(crate) template: Option<PathBuf>,
    pub(crate) parameters: BTreeMap<String, String>,
    pub(crate) table: Option<PathBuf>,
    pub(crate) ttl_attribute: Option<String>,
}

impl StackSource {
    /// Returns these options, or those that the data folder remembers if none is given.
    ///
    /// # Errors
    /// Fails if the file in the data folder cannot be read.
    pub(crate) fn or_remembered(self, data: Option<&Path>) -> Result<Self, String> {
        let Some(path) = data.map(|data| data.join(FILE)).filter(|path| self == Self::default() && path.exists())
        else {
            return Ok(self);
        };
        let problem = |reason: String| {
            format!("{}: {reason}: remove the file, and repeat the options of the first start", path.display())
        };
        let text = std::fs::read_to_string(&path).map_err(|error| problem(error.to_string()))?;
        serde_json::from_str(&text).map_err(|error| problem(error.to_string()))
    }

    /// Writes the options to the data folder, unless they are the defaults.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub(crate) fn remember(&self, data: Option<&Path>) -> Result<(), String> {
        let Some(path) = data.map(|data| data.join(FILE)).filter(|_| *self != Self::default()) else {
            return Ok(());
        };
        // The next start may have another working directory.
        let absolute = |path: &Option<PathBuf>| path.as_ref().map(std::path::absolute).transpose();
        let text = || {
            let (template, table) = (absolute(&self.template)?, absolute(&self.table)?);
            serde_json::to_string_pretty(&Self { template, table, ..self.clone() }).map_err(std::io::Error::from)
        };
        let written = text().and_then(|text| replace_file(&path, text.as_bytes()));
        written.map_err(|error| format!("cannot write {}: {error}: choose another with --data", path.display()))
    }

    /// Returns the options of a stack: with a table, the default of the template is the nearest `infra/replication.yaml`,
    /// otherwise the nearest `template.yaml`, else those of the workspace.
    ///
    /// # Errors
    /// Fails if the description of the table cannot be read.
    pub(crate) fn options(&self) -> Result<StackOptions, String> {
        let name = if self.table.is_some() { REPLICATION_TEMPLATE } else { TEMPLATE };
        let template = self.template.clone().or_else(|| nearest(name));
        let description = self.table.as_deref().map(described_table).transpose()?;
        let defaults = StackOptions::default();
        Ok(StackOptions {
            template: template.unwrap_or_else(|| defaults.template.with_file_name(name)),
            parameters: self.parameters.clone(),
            source: SourceTable { description, ttl_attribute: self.ttl_attribute.clone() },
            ..defaults
        })
    }
}

impl StackSource {
    /// Returns what prevents the deployment for the table of the description; nothing without a description.
    pub(crate) fn deployment_notes(&self) -> Vec<String> {
        // The description was readable at the start.
        let Some(mut table) = self.table.as_deref().and_then(|path| described_table(path).ok()) else {
            return Vec::new();
        };
        if let Some(Ok(time_to_live)) = self.ttl_attribute.as_deref().map(TimeToLive::from_option) {
            table.time_to_live = time_to_live;
        }
        let reserved_prefix = self.parameters.get("ReservedPrefix").map_or("_", String::as_str);
        deployment_notes(&table, reserved_prefix)
    }
}

/// Reads the description of a source table.
fn described_table(path: &Path) -> Result<TableDescription, String> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let command = "aws dynamodb describe-table --table-name NAME --output json";
        format!("--table: cannot read {}: {error}: pass a file with the output of {command}", path.display())
    })?;
    TableDescription::parse(&text).map_err(|error| format!("--table: {}: {error}", path.display()))
}

/// Returns the file of this name in the current folder or the nearest one above it.
fn nearest(name: &str) -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    here.ancestors().map(|folder| folder.join(name)).find(|path| Path::is_file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_folder_remembers_the_options_until_others_are_given() {
        let folder = tempfile::tempdir().unwrap();
        let data = Some(folder.path());
        let none = StackSource::default();
        none.remember(data).unwrap();
        assert_eq!(none.clone().or_remembered(data).unwrap(), none, "the defaults are not written");
        let table = StackSource {
            table: Some("orders.json".into()),
            ttl_attribute: Some("ttl".to_owned()),
            parameters: [("LogLevel".to_owned(), "debug".to_owned())].into(),
            ..StackSource::default()
        };
        table.remember(data).unwrap();
        let remembered = none.clone().or_remembered(data).unwrap();
        assert!(remembered.table.as_ref().unwrap().is_absolute());
        assert_eq!((&remembered.parameters, &remembered.ttl_attribute), (&table.parameters, &table.ttl_attribute));
        assert_eq!(none.clone().or_remembered(None).unwrap(), none);
        let other = StackSource { template: Some("other.yaml".into()), ..StackSource::default() };
        assert_eq!(other.clone().or_remembered(data).unwrap(), other);
        let file = folder.path().join(FILE);
        std::fs::write(&file, "{").unwrap();
        let message = none.or_remembered(data).unwrap_err();
        assert!(message.contains(FILE) && message.contains("remove the file"), "{message}");
        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("/dev/null", &file).unwrap();
        let message = table.remember(data).unwrap_err();
        assert!(message.contains(&format!("cannot write {}: is a device", file.display())), "{message}");
    }

    #[test]
    fn template_of_a_table_is_that_of_replication() {
        let orders = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/orders-table.json");
        let source = StackSource { table: Some(orders.into()), ..StackSource::default() };
        let options = source.options().unwrap();
        assert!(options.template.ends_with(REPLICATION_TEMPLATE), "{}", options.template.display());
        assert_eq!(options.source.description.unwrap().name, "Orders");
        assert!(StackSource::default().options().unwrap().template.ends_with(TEMPLATE));
        let named = StackSource { template: Some("a.yaml".into()), ..source };
        assert_eq!(named.options().unwrap().template, PathBuf::from("a.yaml"));
    }
}
