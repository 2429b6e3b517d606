//! `millrace attach`: whether a table that exists can be replicated, as a report, and the files that deploy it
//! ([`AttachCommand`]).
//!
//! [`account`] reads the table's account, with read-only calls, to an [`observation`]; with `--from` the observation is
//! made from a file. [`findings`] decides from it, without I/O, what prevents a deployment and which settings it has.
//! [`report`] prints that, [`crate::cost`] estimates what replication will cost, and [`files`] and [`policies`] write what is
//! deployed. Nothing is ever written to AWS.

use std::path::PathBuf;
use std::process::ExitCode;

use millrace_local::table_description::{TableArn, TableDescription, TimeToLive, is_table_name};
use millrace_shared::replica_item::ReservedNames;
use millrace_sinks::document::RoleArn;

use crate::options::{http_url, refuse};
use crate::standard_output::write_output;

pub(crate) mod account;
mod credentials;
mod files;
mod findings;
mod key_request;
mod observation;
mod policies;
mod rehearsal;
mod report;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use tests::orders;

use account::ConnectionError;
pub(crate) use account::{AccountConnection, AccountOptions, TableSample};
pub(crate) use rehearsal::deployment_notes;

use files::AttachFiles;
use findings::{ArchiveMode, AttachChoices, AttachPlan};
use observation::TableObservation;

/// The arguments of `millrace attach`.
#[derive(Debug, clap::Args)]
pub(crate) struct AttachCommand {
    /// Name or ARN of the table; may be omitted with --from
    #[arg(value_name = "TABLE", required_unless_present = "from", value_parser = TableReference::parse)]
    table: Option<TableReference>,
    /// Read this output of `aws dynamodb describe-table` instead of the account
    #[arg(long, value_name = "PATH", conflicts_with_all = ["endpoint_url", "profile", "region"])]
    from: Option<PathBuf>,
    /// TTL attribute of the table, which the file of --from does not contain; `none` if TTL is off
    #[arg(long, value_name = "NAME", requires = "from", value_parser = TimeToLive::from_option)]
    ttl_attribute: Option<TimeToLive>,
    /// ARN of an existing table that becomes the replica (default: the stack creates the replica)
    #[arg(long, value_name = "ARN", value_parser = table_arn)]
    replica_table: Option<TableArn>,
    /// ARN of the role that the functions assume for the existing replica, such as a role of the replica's account
    #[arg(long, value_name = "ARN", requires = "replica_table", value_parser = role_arn)]
    replica_role_arn: Option<RoleArn>,
    /// Region of the existing replica, which is that of its ARN
    #[arg(long, value_name = "NAME", requires = "replica_table")]
    replica_region: Option<String>,
    /// Prefix of the attributes that replication adds to the items of the replica (default: _), for a table whose items
    /// have such attributes
    #[arg(long, value_name = "TEXT", default_value = "_", hide_default_value = true, value_parser = reserved_prefix)]
    reserved_prefix: String,
    /// Where items that TTL removes are archived (default: separate if the stream has two free readers, in-replicator
    /// if it has one, off if TTL is off)
    #[arg(long, value_name = "separate|in-replicator|off", hide_possible_values = true)]
    archive: Option<ArchiveMode>,
    /// Name of the stack (default: the table's name with -replication)
    #[arg(long, value_name = "NAME", value_parser = stack_name)]
    stack_name: Option<String>,
    /// Account of the stack, if it is not the table's
    #[arg(long, value_name = "NUMBER", value_parser = account_number)]
    stack_account: Option<String>,
    /// Folder in which the table's folder is written
    #[arg(long, value_name = "DIR", default_value = "attach")]
    out: PathBuf,
    /// Overwrite files that have other contents
    #[arg(long)]
    force: bool,
    /// Send all requests to this URL, such as that of a running `millrace`
    #[arg(long, value_name = "URL", value_parser = http_url)]
    endpoint_url: Option<String>,
    /// Profile of the AWS configuration files (default: as for the AWS CLI)
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Region of the table (default: that of the ARN, or as for the AWS CLI)
    #[arg(long, value_name = "NAME")]
    region: Option<String>,
    /// Output: text, or json for one JSON document on standard output
    #[arg(long, value_name = "text|json", hide_possible_values = true, default_value = "text")]
    output: ReportFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ReportFormat {
    Text,
    Json,
}

/// The table as the command line names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TableReference {
    Name(String),
    Arn(TableArn),
}

impl TableReference {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with("arn:") {
            return table_arn(text).map(Self::Arn);
        }
        if is_table_name(text) {
            Ok(Self::Name(text.to_owned()))
        } else {
            Err("expected the name of a table, 3 to 255 of A-Za-z0-9_.-, or its ARN".to_owned())
        }
    }

    /// Returns the Region in which the table is read: that of its ARN, otherwise that of the option `--region`.
    ///
    /// # Errors
    /// A line about `--region`, if it is another Region than that of the ARN.
    pub(crate) fn region(&self, option: Option<&str>) -> Result<Option<String>, String> {
        match (self, option) {
            (Self::Arn(arn), Some(region)) if arn.region != region => {
                Err(format!("--region {region} is not the Region of {arn}: omit --region"))
            }
            (Self::Arn(arn), _) => Ok(Some(arn.region.clone())),
            (Self::Name(_), region) => Ok(region.map(str::to_owned)),
        }
    }

    fn matches(&self, table: &TableDescription) -> bool {
        match self {
            Self::Name(name) => *name == table.name,
            Self::Arn(arn) => *arn == table.arn,
        }
    }
}

impl std::fmt::Display for TableReference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Arn(arn) => arn.fmt(f),
        }
    }
}

fn table_arn(text: &str) -> Result<TableArn, String> {
    TableArn::parse(text).map_err(|_| "expected arn:PARTITION:dynamodb:REGION:ACCOUNT:table/NAME".to_owned())
}

fn role_arn(text: &str) -> Result<RoleArn, String> {
    RoleArn::parse(text).map_err(|_| "expected arn:PARTITION:iam::ACCOUNT:role/NAME".to_owned())
}

fn reserved_prefix(text: &str) -> Result<String, String> {
    ReservedNames::parse(text)
        .map(|_| text.to_owned())
        .map_err(|_| "expected 1 to 32 letters, digits, _ or -, such as mr_".to_owned())
}

pub(crate) fn stack_name(text: &str) -> Result<String, String> {
    let is_name = text.len() <= 128
        && text.starts_with(|letter: char| letter.is_ascii_alphabetic())
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-');
    if is_name { Ok(text.to_owned()) } else { Err("expected a letter, then up to 127 of A-Za-z0-9-".to_owned()) }
}

fn account_number(text: &str) -> Result<String, String> {
    let is_number = text.len() == 12 && text.bytes().all(|digit| digit.is_ascii_digit());
    if is_number { Ok(text.to_owned()) } else { Err("expected the 12 digits of an account".to_owned()) }
}

/// Returns the name of the stack for a table: a table's name may contain characters that a stack's name may not.
fn default_stack_name(table: &str) -> String {
    let name: String = table.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect();
    let name: String = name.trim_matches('-').chars().take(100).collect();
    let prefix = if name.starts_with(|letter: char| letter.is_ascii_alphabetic()) { "" } else { "table-" };
    format!("{prefix}{name}-replication").to_lowercase()
}

impl AttachCommand {
    /// Reads the table, prints the report and writes the files. The exit code is 0 if the table can be attached, 1 if
    /// something prevents it, and 2 if the table cannot be read or a file cannot be written.
    pub(crate) async fn run(self) -> ExitCode {
        match self.attach().await {
            Ok(code) => code,
            Err(refusal) => refuse(&refusal),
        }
    }

    async fn attach(&self) -> Result<ExitCode, String> {
        if let (Some(replica), Some(region)) = (&self.replica_table, &self.replica_region)
            && replica.region != *region
        {
            return Err(format!("--replica-region {region} is not the Region of {replica}: omit --replica-region"));
        }
        let observation = match &self.from {
            Some(path) => self.read_file(path)?,
            None => self.read_account().await?,
        };
        let table = &observation.table;
        let choices = AttachChoices {
            stack_name: self.stack_name.clone().unwrap_or_else(|| default_stack_name(&table.name)),
            stack_account: self.stack_account.clone(),
            archive: self.archive,
            replica_role: self.replica_role_arn.clone(),
            reserved_prefix: self.reserved_prefix.clone(),
        };
        let plan = AttachPlan::new(&observation, &choices);
        let files = (!plan.is_blocked()).then(|| AttachFiles::new(&self.out, &observation, &plan, &choices));
        let written = files.as_ref().map_or(Ok(()), |files| files.write(self.force));
        // The report is of use without the files, too.
        let reported = files.as_ref().filter(|_| written.is_ok());
        let text = match self.output {
            ReportFormat::Text => format!("{}\n", report::text(&observation, &plan, reported)),
            ReportFormat::Json => format!("{}\n", report::json(&observation, &plan, reported)),
        };
        write_output(text)?;
        written.map_err(|error| error.to_string())?;
        Ok(if plan.is_blocked() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn read_file(&self, path: &std::path::Path) -> Result<TableObservation, String> {
        let file = path.display();
        let text = std::fs::read_to_string(path).map_err(|error| {
            format!("{file}: {error}: set --from to the output of aws dynamodb describe-table --output json")
        })?;
        let mut table = TableDescription::parse(&text).map_err(|error| format!("{file}: {error}"))?;
        if let Some(named) = self.table.as_ref().filter(|named| !named.matches(&table)) {
            return Err(format!("{file} describes {}, not {named}: omit TABLE or change --from", table.arn));
        }
        if let Some(time_to_live) = &self.ttl_attribute {
            table.time_to_live = time_to_live.clone();
        }
        Ok(TableObservation::offline(table, self.replica_table.clone()))
    }

    async fn read_account(&self) -> Result<TableObservation, String> {
        let Some(table) = &self.table else { return Err("TABLE is missing: name the table".to_owned()) };
        let region = table.region(self.region.as_deref())?;
        let options = AccountOptions { region, profile: self.profile.clone(), endpoint_url: self.endpoint_url.clone() };
        let connection = AccountConnection::open(options).await.map_err(|error| match error {
            ConnectionError::Region => format!("{error}, or name the table by its ARN"),
            ConnectionError::Credentials(_) => {
                format!("{error}, or use --from with the output of aws dynamodb describe-table")
            }
        })?;
        connection.observe(&table.to_string(), self.replica_table.as_ref()).await
    }
}
