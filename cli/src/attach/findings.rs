//! Plan of a deployment, derived from an observation by pure functions: [`AttachPlan`].
//!
//! A finding that blocks prevents the deployment, so no files are written; a warning names something that will be lost
//! or slow; a note is for information. Each has a fix, as commands where there are any.

use millrace_local::table_description::{
    KeyAttribute, StreamViewType, TableArn, TableCapacity, TableDescription, TimeToLive,
};

use millrace_maintenance::replication_loop::{FeedingFunction, delete_mapping_command};
use millrace_shared::replica_item::ReservedNames;
use millrace_shared::table_reader::create_table_command;
use millrace_sinks::document::RoleArn;

use super::observation::{CheckResult, SkipReason, StreamReader, TableObservation};

/// The parts of names that CloudFormation gives to the functions of a Millrace stack.
const REPLICATOR: &str = "-ReplicatorFunction-";
const ARCHIVER: &str = "-ArchiverFunction-";
/// The number of readers that a shard serves without throttling.
const SHARD_READERS: usize = 2;

/// The choices of the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AttachChoices {
    /// The name of the stack.
    pub(super) stack_name: String,
    /// The account of the stack, if it is not the table's.
    pub(super) stack_account: Option<String>,
    /// Where items that TTL removes are archived; `None` to decide by the stream's readers.
    pub(super) archive: Option<ArchiveMode>,
    /// The role that the functions assume for the existing replica.
    pub(super) replica_role: Option<RoleArn>,
    /// The prefix of the attributes that replication adds, which [`ReservedNames::parse`] accepts.
    pub(super) reserved_prefix: String,
}

impl AttachChoices {
    /// Returns the names of the attributes that replication adds.
    pub(super) fn reserved_names(&self) -> ReservedNames {
        ReservedNames::parse(&self.reserved_prefix).unwrap_or_default()
    }

    /// Returns the account of the stack.
    pub(super) fn account_of_stack<'c>(&'c self, table: &'c TableDescription) -> &'c str {
        self.stack_account.as_deref().unwrap_or(&table.arn.account)
    }

    /// Returns whether the stack is known to be in another account than the table.
    pub(super) fn is_cross_account(&self, table: &TableDescription) -> bool {
        self.stack_account.as_ref().is_some_and(|account| *account != table.arn.account)
    }
}

/// The parameter `Archive` of the template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ArchiveMode {
    /// By a function with an event source mapping of its own.
    Separate,
    /// By the replicator.
    InReplicator,
    /// Nowhere.
    Off,
}

impl ArchiveMode {
    /// Returns the value of the parameter.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Separate => "separate",
            Self::InReplicator => "in-replicator",
            Self::Off => "off",
        }
    }

    /// Returns the number of mappings that read the stream.
    fn readers(self) -> usize {
        match self {
            Self::Separate => 2,
            Self::InReplicator | Self::Off => 1,
        }
    }
}

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FindingSeverity {
    /// Prevents the deployment.
    Blocks,
    /// Something will be lost, slow or expensive.
    Warns,
    /// For information.
    Notes,
}

impl FindingSeverity {
    /// Returns the severity as a verb.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Blocks => "blocks",
            Self::Warns => "warns",
            Self::Notes => "notes",
        }
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableFinding {
    /// The severity.
    pub(super) severity: FindingSeverity,
    /// The part of the table, such as `stream`.
    pub(super) subject: &'static str,
    /// The observed state and its effect.
    pub(super) text: String,
    /// The action to take.
    pub(super) fix: String,
    /// The commands that do it.
    pub(super) commands: Vec<String>,
}

/// The deployment for a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AttachPlan {
    /// The findings, those that block first.
    pub(super) findings: Vec<TableFinding>,
    /// Where items that TTL removes are archived.
    pub(super) archive: ArchiveMode,
    /// The customer's key that the roles of the stack must be allowed to use.
    pub(super) source_key_arn: Option<String>,
    /// The customer's key of the existing replica.
    pub(super) replica_key_arn: Option<String>,
}

impl AttachPlan {
    /// Decides how the table is attached.
    pub(super) fn new(observation: &TableObservation, choices: &AttachChoices) -> Self {
        let mut review = TableReview { observation, choices, findings: Vec::new() };
        review.account();
        review.status();
        review.stream();
        review.keys();
        let archive = review.archive();
        review.readers(archive);
        review.time_to_live(archive);
        let source_key_arn = review.encryption();
        let replica_key_arn = review.replica();
        review.safety();
        let mut findings = review.findings;
        findings.sort_by_key(|finding| finding.severity as u8);
        Self { findings, archive, source_key_arn, replica_key_arn }
    }

    /// Returns whether a finding prevents the deployment.
    pub(super) fn is_blocked(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == FindingSeverity::Blocks)
    }
}

/// Returns the value of the parameter for a key attribute, as SAM CLI reads it from samconfig.toml: in quotes if it
/// contains more than the characters that need none.
///
/// # Errors
/// The reason why the template or SAM CLI does not accept the name.
pub(super) fn key_parameter(key: &KeyAttribute) -> Result<String, &'static str> {
    if key.name.contains(char::is_control) {
        return Err("contains a control character, which SAM CLI does not pass on");
    }
    // SAM CLI replaces `\"` by `"`, and leaves any other backslash as it is.
    if key.name.contains("\\\"") {
        return Err("contains a backslash before a quotation mark, which SAM CLI does not pass on");
    }
    let value = key.to_parameter();
    let is_plain = |letter: char| letter.is_alphanumeric() || "_.:%-".contains(letter);
    Ok(if value.chars().all(is_plain) { value } else { format!("\"{}\"", value.replace('"', "\\\"")) })
}

/// The functions of a stack on one machine, which have the names of their binaries.
const LOCAL_FUNCTIONS: [&str; 2] = ["replicator", "archiver"];

/// Returns whether the function is one of this stack, by the name that CloudFormation gave it.
fn is_of_stack(function: &str, stack_name: &str) -> bool {
    [REPLICATOR, ARCHIVER].iter().any(|part| {
        // CloudFormation shortens the stack's name in that of a function, which has at most 64 characters.
        function
            .split_once(part)
            .is_some_and(|(prefix, _)| prefix == stack_name || (prefix.len() >= 20 && stack_name.starts_with(prefix)))
    })
}

/// Collects the findings of an observation.
struct TableReview<'o> {
    observation: &'o TableObservation,
    choices: &'o AttachChoices,
    findings: Vec<TableFinding>,
}

impl<'o> TableReview<'o> {
    fn table(&self) -> &'o TableDescription {
        &self.observation.table
    }

    fn add(
        &mut self,
        severity: FindingSeverity,
        subject: &'static str,
        text: impl Into<String>,
        fix: impl Into<String>,
        commands: Vec<String>,
    ) {
        self.findings.push(TableFinding { severity, subject, text: text.into(), fix: fix.into(), commands });
    }

    fn blocks(&mut self, subject: &'static str, text: impl Into<String>, fix: impl Into<String>) {
        self.add(FindingSeverity::Blocks, subject, text, fix, Vec::new());
    }

    fn warns(&mut self, subject: &'static str, text: impl Into<String>, fix: impl Into<String>) {
        self.add(FindingSeverity::Warns, subject, text, fix, Vec::new());
    }

    /// Returns a command of the AWS CLI for DynamoDB and this table.
    fn command(&self, operation: &str, arguments: &str) -> String {
        let table = self.table();
        let arguments = if arguments.is_empty() { String::new() } else { format!(" {arguments}") };
        format!("aws dynamodb {operation} --region {} --table-name {}{arguments}", table.arn.region, table.name)
    }

    fn account(&mut self) {
        let arn = &self.table().arn;
        if arn.is_local() {
            let text = format!(
                "the table is one of a program on this machine: the files have its account {}, and the Region {}",
                arn.account, arn.region
            );
            let fix = "for a deployment, run millrace attach without --endpoint-url for the table of your account";
            self.warns("account", text, fix);
        }
    }

    fn status(&mut self) {
        let table = self.table();
        if table.status == "ACTIVE" {
            return;
        }
        let text = format!("the table is {}, not ACTIVE", table.status);
        let commands = match &*table.status {
            "CREATING" | "UPDATING" => vec![self.command("wait table-exists", "")],
            _ => Vec::new(),
        };
        self.add(FindingSeverity::Blocks, "status", text, "attach the table when it is ACTIVE", commands);
    }

    fn stream(&mut self) {
        let table = self.table();
        let enable = "--stream-specification StreamEnabled=true,StreamViewType=NEW_AND_OLD_IMAGES";
        let enable = self.command("update-table", enable);
        let again = "then run millrace attach again";
        let Some(stream) = &table.stream else {
            let former = match &table.former_stream_arn {
                Some(arn) => format!("; the records of the former one, {arn}, can be read for 24 hours after it ended"),
                None => String::new(),
            };
            let text = format!("the table has no stream, so its changes cannot be read{former}");
            self.add(FindingSeverity::Blocks, "stream", text, format!("turn it on, {again}"), vec![enable]);
            return;
        };
        let view = stream.view;
        // Nothing but the archive needs the item before a change.
        let needs_old = self
            .choices
            .archive
            .map_or(table.time_to_live != TimeToLive::Disabled, |archive| archive != ArchiveMode::Off);
        let problem = match view {
            StreamViewType::NewAndOldImages => return,
            StreamViewType::KeysOnly | StreamViewType::OldImage => {
                format!("the stream's view type is {}: its records lack the new item", view.as_str())
            }
            StreamViewType::NewImage if needs_old => {
                "the stream's view type is NEW_IMAGE: the removal of an expired item lacks the item to archive"
                    .to_owned()
            }
            StreamViewType::NewImage => {
                let text = "the stream's view type is NEW_IMAGE, so expired items cannot be archived later";
                self.warns("stream", text, "change it to NEW_AND_OLD_IMAGES before TTL is turned on");
                return;
            }
        };
        let text = format!(
            "{problem}. A changed view type is a new stream with a new ARN: functions that read {} need a new event \
             source mapping, and its records can be read for 24 hours after it ends",
            stream.arn
        );
        let mut fix = format!("turn the stream off and on with the other view type, {again}");
        if view == StreamViewType::NewImage {
            fix.push_str("; or use --archive off");
        }
        let disable = self.command("update-table", "--stream-specification StreamEnabled=false");
        let wait = self.command("wait table-exists", "");
        self.add(FindingSeverity::Blocks, "stream", text, fix, vec![disable, wait, enable]);
    }

    fn keys(&mut self) {
        for key in self.table().key_attributes() {
            if let Err(reason) = key_parameter(key) {
                let text = format!("the name of the key attribute {:?} {reason}", key.name);
                self.blocks("keys", text, "infra/replication.yaml cannot describe this table's key");
            }
            if self.choices.reserved_names().all().contains(&key.name.as_str()) {
                let text = format!("the key attribute {} has a name that replicas reserve", key.name);
                self.blocks("keys", text, "set --reserved-prefix to another prefix, such as mr_");
            }
        }
    }

    /// Returns the mappings of the stream that belong to others.
    fn foreign_readers(&self) -> Vec<&'o StreamReader> {
        let readers = self.observation.readers.known().map_or(&[][..], Vec::as_slice);
        let is_local = self.table().arn.is_local();
        let is_foreign = |reader: &&StreamReader| {
            let is_own = is_local && LOCAL_FUNCTIONS.contains(&&*reader.function);
            !is_own && !is_of_stack(&reader.function, &self.choices.stack_name)
        };
        readers.iter().filter(is_foreign).collect()
    }

    /// Returns the number of readers that a shard can serve in addition to the present ones.
    fn free_readers(&self) -> usize {
        let limit = if self.table().is_global() { 1 } else { SHARD_READERS };
        limit.saturating_sub(self.foreign_readers().iter().filter(|reader| reader.is_active()).count())
    }

    fn archive(&self) -> ArchiveMode {
        if let Some(chosen) = self.choices.archive {
            return chosen;
        }
        let has_old_images = self.table().stream.as_ref().is_none_or(|stream| stream.view.has_old_image());
        if self.table().time_to_live == TimeToLive::Disabled || !has_old_images {
            ArchiveMode::Off
        } else if self.free_readers() < ArchiveMode::Separate.readers() {
            ArchiveMode::InReplicator
        } else {
            ArchiveMode::Separate
        }
    }

    fn readers(&mut self, archive: ArchiveMode) {
        if self.table().stream.is_none() {
            return;
        }
        if self.observation.readers.known().is_none() {
            let needed = archive.readers();
            let text = format!(
                "the functions that read the stream are not known, and Archive={} adds {needed} {}",
                archive.as_str(),
                if needed == 1 { "reader" } else { "readers" }
            );
            let fix = "list them; a shard serves two readers, and the stream of a global table one";
            let stream_arn = self.table().stream.as_ref().map_or("", |stream| stream.arn.as_str());
            let command = format!(
                "aws lambda list-event-source-mappings --region {} --event-source-arn {stream_arn}",
                self.table().arn.region
            );
            self.add(FindingSeverity::Warns, "readers", text, fix, vec![command]);
        }
        let foreign = self.foreign_readers();
        let names = |is_active| {
            let readers = foreign.iter().filter(|reader| reader.is_active() == is_active);
            readers.map(|reader| reader.function.as_str()).collect::<Vec<_>>().join(", ")
        };
        let (active, disabled) = (names(true), names(false));
        let other = foreign.iter().find(|reader| reader.function.contains(REPLICATOR));
        if let Some(other) = other {
            let text = format!("{} reads the stream: another Millrace stack replicates this table", other.function);
            self.warns("readers", text, "set --stack-name to the name of that stack, to update it");
        }
        if !disabled.is_empty() {
            let text = format!("the mapping of {disabled} is disabled: enabled, it is another reader of the stream");
            self.warns("readers", text, "delete the mapping if it is not needed");
        }
        let (free, needed) = (self.free_readers(), archive.readers());
        let limit = if self.table().is_global() {
            "the stream of a global table serves one reader besides the replication of the table"
        } else {
            "a shard serves two readers"
        };
        if free == 0 {
            let text = format!("{limit}, and {active} reads the stream");
            let fix = "delete the mapping of a reader, by the UUID that the first command prints: more readers are \
                       throttled, and fall behind";
            let stream_arn = self.table().stream.as_ref().map_or("", |stream| stream.arn.as_str());
            let region = &self.table().arn.region;
            let list = format!(
                "aws lambda list-event-source-mappings --region {region} --event-source-arn {stream_arn} \
                 --query 'EventSourceMappings[].[UUID,FunctionArn,State]' --output text"
            );
            let delete = format!("aws lambda delete-event-source-mapping --region {region} --uuid UUID");
            self.add(FindingSeverity::Blocks, "readers", text, fix, vec![list, delete]);
        } else if free < needed {
            let text = format!("{limit}, and Archive={} needs {needed}", archive.as_str());
            self.blocks("readers", text, "use --archive in-replicator, which needs one");
        } else if archive == ArchiveMode::InReplicator && self.choices.archive.is_none() {
            let others = if active.is_empty() { String::new() } else { format!(" ({active} is one)") };
            let text = format!("{limit}{others}, so the replicator writes the archive, too: Archive=in-replicator");
            self.add(FindingSeverity::Notes, "readers", text, "", Vec::new());
        }
    }

    fn time_to_live(&mut self, archive: ArchiveMode) {
        let names = self.choices.reserved_names();
        match &self.table().time_to_live {
            TimeToLive::Enabled { attribute } if *attribute == names.tombstone_expires_at => {
                let text = format!(
                    "TTL reads {attribute}: the table is a replica of Millrace, whose items carry {}",
                    names.revision
                );
                let fix = "attach the source of that replica, or set --reserved-prefix to another prefix, such as mr_";
                self.blocks("TTL", text, fix);
            }
            TimeToLive::Enabled { attribute } if archive == ArchiveMode::Off => {
                let text = format!("TTL removes items by {attribute}, and Archive=off: they are not archived");
                self.warns("TTL", text, "use --archive separate or in-replicator");
            }
            TimeToLive::Disabled if self.choices.archive.is_none() => {
                let text = "TTL is off, so there is nothing to archive: Archive=off";
                let fix =
                    "run millrace attach again before TTL is turned on: without an archive, expired items are lost";
                self.add(FindingSeverity::Notes, "TTL", text, fix, Vec::new());
            }
            TimeToLive::Unknown
                if self.observation.skipped_ttl.as_ref().is_some_and(|call| call.reason == SkipReason::Offline) =>
            {
                let text = "the file does not contain the TTL attribute";
                let fix = "add it with --ttl-attribute NAME, or --ttl-attribute none if TTL is off";
                self.add(FindingSeverity::Notes, "TTL", text, fix, Vec::new());
            }
            _ => {}
        }
        let has_archive = archive != ArchiveMode::Off && self.table().time_to_live != TimeToLive::Disabled;
        if self.table().is_global() && has_archive {
            let text = "only the Region in which TTL removed an item marks the removal, so the archive lacks items \
                        that TTL removed in another Region of the global table";
            self.warns("TTL", text, "deploy a stack with an archive in each Region");
        }
    }

    /// Returns the key that the stack's roles must be allowed to use.
    fn encryption(&mut self) -> Option<String> {
        let encryption = self.table().encryption.as_ref()?;
        let key_arn = encryption.key_arn.clone()?;
        let known = self.observation.key.as_ref().and_then(CheckResult::known);
        let is_cross_account = self.choices.is_cross_account(self.table());
        if known.is_some_and(|key| key.is_aws_managed) {
            if is_cross_account {
                let text = format!("the key {key_arn} is managed by AWS, and allows no other account");
                self.blocks("encryption", text, "encrypt the table with a customer managed key");
            }
            // Its policy allows every principal of the account that may use DynamoDB.
            return None;
        }
        if let Some(key) = known.filter(|key| key.state != "Enabled") {
            let text = format!("the key {key_arn} is {}: the table cannot be read", key.state);
            self.blocks("encryption", text, "enable the key");
        }
        let text = format!("the roles of the stack read the table with the key {key_arn}");
        let fix = if is_cross_account {
            "the owner of the key adds `key.statement` of policies.json to its policy; a key that AWS manages \
             allows no other account"
        } else {
            "add `key.statement` of policies.json to the key's policy, unless it lets IAM policies of its account \
             decide (the default)"
        };
        self.add(FindingSeverity::Notes, "encryption", text, fix, Vec::new());
        Some(key_arn)
    }

    /// Returns the key of the existing replica.
    fn replica(&mut self) -> Option<String> {
        let replica = self.observation.replica.as_ref()?;
        let (source, arn) = (self.table(), &replica.arn);
        if *arn == source.arn {
            let command = format!("millrace attach {} --replica-table ARN", source.arn);
            let text = format!("--replica-table {arn} is the table itself");
            let fix = "name another table, or omit --replica-table: the stack then creates the replica";
            self.add(FindingSeverity::Blocks, "replica", text, fix, vec![command]);
            return None;
        }
        if arn.partition != source.arn.partition {
            let text = format!("--replica-table {arn} is in another partition than the table");
            let fix = format!("name a table in the partition {}, that of the source table", source.arn.partition);
            let command = format!("millrace attach {} --replica-table ARN", source.arn);
            self.add(FindingSeverity::Blocks, "replica", text, fix, vec![command]);
        }
        self.replica_access(arn);
        for function in replica.feeding_functions.known().into_iter().flatten() {
            let FeedingFunction { name, mapping_uuid } = function;
            let text = format!("{name} replicates {arn} to this table: changes would be replicated in a loop");
            let fix = "name a table that does not feed this one, or delete the event source mapping of that function";
            let command = delete_mapping_command(&arn.to_string(), mapping_uuid);
            self.add(FindingSeverity::Blocks, "replica", text, fix, vec![command]);
        }
        let key: Vec<(String, String)> =
            source.key_attributes().map(|key| (key.name.clone(), key.kind.as_str().to_owned())).collect();
        let Some(table) = replica.table.known()? else {
            let text = format!("--replica-table {arn} does not exist");
            let fix =
                "create it with the key of the table, or omit --replica-table: the stack then creates the replica";
            let command = create_table_command(Some(&arn.region), &arn.table, &key);
            self.add(FindingSeverity::Blocks, "replica", text, fix, vec![command]);
            return None;
        };
        let keys = |table: &TableDescription| {
            table.key_attributes().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
        };
        if keys(table) != keys(source) {
            let text = format!("the key of --replica-table is {}, that of the table is {}", keys(table), keys(source));
            let command = create_table_command(Some(&arn.region), "NAME", &key);
            self.add(FindingSeverity::Blocks, "replica", text, "name a table with the same key", vec![command]);
        }
        if table.status != "ACTIVE" {
            let text = format!("--replica-table is {}, not ACTIVE", table.status);
            self.blocks("replica", text, "attach the table when both are ACTIVE");
        }
        let fix = "run this, otherwise tombstones of deleted items stay in the replica";
        let attribute = self.choices.reserved_names().tombstone_expires_at;
        let command = format!(
            "aws dynamodb update-time-to-live --region {} --table-name {} \
             --time-to-live-specification Enabled=true,AttributeName={attribute}",
            arn.region, arn.table
        );
        let text = format!("the replica needs TTL by {attribute}");
        self.add(FindingSeverity::Notes, "replica", text, fix, vec![command]);
        // The role has the permissions for the key.
        let encryption = table.encryption.as_ref().filter(|_| self.choices.replica_role.is_none());
        encryption.and_then(|encryption| encryption.key_arn.clone())
    }

    /// Reviews by whose permissions the functions write to the existing replica.
    fn replica_access(&mut self, arn: &TableArn) {
        let stack_account = self.choices.account_of_stack(self.table()).to_owned();
        let Some(role) = self.choices.replica_role.clone() else {
            if arn.account != stack_account {
                let text = format!(
                    "--replica-table is in account {}, the stack in {stack_account}, and no role is named",
                    arn.account
                );
                let fix = "name a role of that account with --replica-role-arn, or the owner of the replica adds \
                           `replica.policy` of policies.json to it";
                self.warns("replica", text, fix);
            }
            return;
        };
        if role.partition() != arn.partition {
            let text = format!("--replica-role-arn {} is in another partition than {arn}", role.as_str());
            self.blocks("replica", text, "name a role in the same partition");
        } else if role.account() != arn.account {
            let text = format!(
                "--replica-role-arn is in account {}, --replica-table in {}: the role has no access to the table unless \
                 a resource policy of the table allows it",
                role.account(),
                arn.account
            );
            self.warns("replica", text, format!("name a role of account {}", arn.account));
        }
        let text = format!("the functions write to the replica as {}", role.as_str());
        let fix =
            "the owner of the role adds `replica_role.trust_policy` and `replica_role.policy` of policies.json to it";
        self.add(FindingSeverity::Notes, "replica", text, fix, Vec::new());
    }

    fn safety(&mut self) {
        let table = self.table();
        if self.observation.recovery.known() == Some(&false) {
            let text = "point-in-time recovery is off: a replica follows every deletion, and is not a backup";
            let command = self.command(
                "update-continuous-backups",
                "--point-in-time-recovery-specification PointInTimeRecoveryEnabled=true",
            );
            self.add(FindingSeverity::Notes, "backups", text, "turn it on", vec![command]);
        }
        if table.deletion_protection == Some(false) {
            let text = "deletion protection is off";
            let command = self.command("update-table", "--deletion-protection-enabled");
            self.add(FindingSeverity::Notes, "backups", text, "turn it on", vec![command]);
        }
        if let TableCapacity::Provisioned { read_units, .. } = table.capacity {
            let limit = backfill_read_units(read_units);
            let text = format!(
                "{read_units} read capacity units are provisioned: a backfill takes up to {limit} of them per second"
            );
            self.add(
                FindingSeverity::Notes,
                "capacity",
                text,
                "change max_read_capacity_units in README.md",
                Vec::new(),
            );
        }
        let indexes = table.global_indexes.len() + table.local_indexes.len();
        if indexes > 0 && self.observation.replica.is_none() {
            let what = if indexes == 1 { "index".to_owned() } else { format!("{indexes} indexes") };
            let text = format!("the replica that the stack creates does not have the table's {what}");
            self.add(
                FindingSeverity::Notes,
                "indexes",
                text,
                "add an index to the replica if it is queried",
                Vec::new(),
            );
        }
    }
}

/// Returns the read capacity units per second that a backfill takes of a table with this provisioned capacity: half.
pub(super) fn backfill_read_units(provisioned: u64) -> u64 {
    (provisioned / 2).max(1)
}
