//! The fields of each task as the options of a command line: [`TaskOptions`]. With the feature `cli` only.

use clap::{Arg, ArgAction, ArgMatches, Args as _, Command, FromArgMatches as _};
use serde_json::Value;
use serde_json::value::RawValue;

use super::registry::MaintenanceTask;
use super::request::field_names;

/// The JSON object of a request.
pub type RequestObject = serde_json::Map<String, Value>;

/// The field that is the option `--apply` on a command line.
const DRY_RUN: &str = "dry_run";
const APPLY: &str = "apply";

/// Parses a JSON text, which is passed on as it is.
pub(super) fn json_text(text: &str) -> Result<Box<RawValue>, serde_json::Error> {
    serde_json::from_str(text)
}

/// The command-line options of a task. An option has the name of its field, with `-` for `_`.
pub struct TaskOptions {
    /// The name of the task.
    pub name: &'static str,
    augment: fn(Command) -> Command,
    request: fn(&ArgMatches) -> Result<RequestObject, clap::Error>,
}

impl TaskOptions {
    pub(super) const fn for_task<T: MaintenanceTask>() -> Self {
        Self {
            name: T::NAME,
            augment: |command| {
                let command = T::Request::augment_args(command);
                if !field_names::<T::Request>().contains(&DRY_RUN) {
                    return command;
                }
                command.arg(
                    Arg::new(APPLY)
                        .long(APPLY)
                        .action(ArgAction::SetTrue)
                        .help("Make the changes (default: a dry run, which reports them without writing)"),
                )
            },
            request: |matches| {
                let request = T::Request::from_arg_matches(matches)?;
                // A request contains only texts, numbers, lists and JSON, so it can always be serialized.
                let value = serde_json::to_value(&request).unwrap_or_default();
                let Value::Object(fields) = value else { return Ok(RequestObject::new()) };
                let mut fields: RequestObject = fields.into_iter().filter(|(_, value)| !value.is_null()).collect();
                if field_names::<T::Request>().contains(&DRY_RUN) {
                    fields.insert(DRY_RUN.to_owned(), (!matches.get_flag(APPLY)).into());
                }
                Ok(fields)
            },
        }
    }

    /// Adds the options of the task to its command.
    #[must_use]
    pub fn augment(&self, command: Command) -> Command {
        (self.augment)(command)
    }

    /// Returns the fields that the options set, as the JSON object of a request without the fields of every task.
    ///
    /// # Errors
    /// [`clap::Error`] if an option has no valid value.
    pub fn request(&self, matches: &ArgMatches) -> Result<RequestObject, clap::Error> {
        (self.request)(matches)
    }
}
