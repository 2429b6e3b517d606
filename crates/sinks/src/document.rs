//! The replication document: the replicas, with the items and attributes that each stores. [`ReplicationDocument`]
//!
//! The variable `REPLICATION` contains the document as JSON, or the location of its object ([`DocumentLocation`]). It
//! is validated as a whole: every problem is reported, each with the JSON Pointer (RFC 6901) of its value and the fix.
//!
//! ```json
//! {
//!   "version": 1,
//!   "replicas": [
//!     {"name": "staging", "sink": "dynamodb", "table": "arn:aws:dynamodb:eu-west-1:111122223333:table/Orders-staging",
//!      "role_arn": "arn:aws:iam::111122223333:role/replication"},
//!     {"name": "sql", "sink": "postgres", "table": "orders",
//!      "columns": {"city": {"path": "address.city", "type": "text"}}, "otherwise": "null",
//!      "where": [{"status": {"S": ["paid"]}}], "attributes": {"exclude": ["email"]}},
//!     {"name": "archive", "sink": "archive", "records": "expired"}
//!   ],
//!   "columns": {"amount": {"path": "total", "type": "numeric"}}
//! }
//! ```
//!
//! Architecture invariant: parsing has no side effects and never panics, for any text.

mod identifier;
mod json;
mod postgres_table;
mod replicator_location;
mod shared_columns;
mod transform;
mod users;

use std::collections::BTreeMap;
use std::fmt;

use millrace_transform::TransformSettings;
use millrace_transform::columns::{ColumnDefinition, TableColumns};
use serde::Serialize;

use crate::name::SinkName;
use json::{JsonValue, member_pointer};
use postgres_table::{POSTGRES_MEMBERS, view_of};
use users::USERS_REPLICA;

pub use identifier::SqlIdentifier;
pub use millrace_shared::address::{RoleArn, TableAddress, region};
pub use postgres_table::PostgresTable;
pub use replicator_location::ReplicatorLocation;
pub use transform::SecretArn;
pub(crate) use users::{SEARCH_COLUMNS, USERS_TABLE};
pub use users::{USERS_DOCUMENT, users_table};

/// The settings and the parameters of the templates that contain them.
const PARAMETERS: [(&str, &str); 5] = [
    ("REPLICA_TABLE", "ReplicaTableArn"),
    ("REPLICATION", "Replication"),
    ("REPLICA_ROLE_ARN", "ReplicaRoleArn"),
    ("SOURCE_TABLE_ARN", "SourceTableArn"),
    ("RESERVED_PREFIX", "ReservedPrefix"),
];

/// Returns a setting with the parameter of the template that contains it, for errors.
pub(crate) fn with_parameter(setting: &str) -> String {
    let variable = setting.split(' ').next().unwrap_or_default();
    let parameter = PARAMETERS.iter().find(|(name, _)| *name == variable).map(|(_, parameter)| *parameter);
    parameter.map_or_else(|| setting.to_owned(), |parameter| format!("{setting} (parameter {parameter})"))
}

/// The variable that contains the document or its location.
pub const REPLICATION: &str = "REPLICATION";

/// The only version of the document.
const VERSION: i128 = 1;
/// The default of `max_concurrency`. A lower number increases latency, a higher one the memory used.
pub const DEFAULT_CONCURRENCY: usize = 128;
/// The maximum of `max_concurrency`, and of the sum over all replicas. A Lambda environment has 1,024 file descriptors,
/// so a higher number would run out of sockets.
pub const MAX_CONCURRENCY: usize = 900;
/// The maximum number of replicas.
const MAX_REPLICAS: usize = 32;
/// Names that are part of counters, quarantine keys or default configurations with another meaning. One of them is that of
/// the table of the users service.
const RESERVED_NAMES: [&str; 7] = ["read", "source", "redrive", "audit", "contradicting", "postgres", "cache"];
/// The name of the archive: a deployment has one, and failure objects and tasks know it by this name.
const ARCHIVE_NAME: &str = "archive";
/// The similarity above which a name is suggested instead of an unknown one.
const SIMILARITY: f64 = 0.7;

/// The members of the document.
const DOCUMENT_MEMBERS: [&str; 4] = ["version", "replicas", "columns", "hash_keys"];
/// The members of a `DynamoDB` replica.
const DYNAMODB_MEMBERS: [&str; 8] =
    ["name", "sink", "table", "region", "role_arn", "max_concurrency", "where", "attributes"];
/// The members of an archive.
const ARCHIVE_MEMBERS: [&str; 3] = ["name", "sink", "records"];
/// The members of any replica, for one whose kind is not known.
const REPLICA_MEMBERS: [&str; 11] = [
    "name",
    "sink",
    "table",
    "region",
    "role_arn",
    "max_concurrency",
    "columns",
    "otherwise",
    "records",
    "where",
    "attributes",
];
/// The kinds of sinks.
const SINKS: [&str; 3] = ["dynamodb", "postgres", "archive"];

/// A valid replication document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplicationDocument {
    version: u8,
    replicas: Vec<ReplicaEntry>,
    #[serde(skip_serializing_if = "shared_columns::is_empty", serialize_with = "shared_columns::serialize")]
    columns: TableColumns,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    hash_keys: BTreeMap<String, SecretArn>,
}

/// A replica of the document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplicaEntry {
    /// The name, which no other replica has.
    pub name: SinkName,
    /// The kind of the sink, and its settings.
    #[serde(flatten)]
    pub sink: SinkSettings,
    /// What the replica stores of an item.
    #[serde(flatten)]
    pub transform: TransformSettings,
}

impl ReplicaEntry {
    /// Returns the name of the table of a `DynamoDB` replica.
    #[must_use]
    pub fn dynamodb_table(&self) -> Option<&str> {
        match &self.sink {
            SinkSettings::DynamoDb(settings) => Some(settings.table.name()),
            _ => None,
        }
    }

    /// Returns the table of a PostgreSQL replica.
    #[must_use]
    pub fn postgres_table(&self) -> Option<&PostgresTable> {
        match &self.sink {
            SinkSettings::Postgres(table) => Some(table),
            _ => None,
        }
    }
}

/// The settings of a replica's sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "sink", rename_all = "lowercase")]
pub enum SinkSettings {
    /// A `DynamoDB` table.
    DynamoDb(TableSettings),
    /// A table of the PostgreSQL database.
    Postgres(PostgresTable),
    /// The archive of removed items in S3.
    Archive {
        /// The records that are archived.
        records: ArchivedRecords,
    },
}

/// The settings of a `DynamoDB` replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableSettings {
    /// The table.
    pub table: TableAddress,
    /// The table's Region: that of the ARN, or the member `region`; `None` for the function's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The role to assume for the table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role_arn: Option<RoleArn>,
    /// The maximum number of concurrent writes.
    pub max_concurrency: usize,
}

/// The records that an archive stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ArchivedRecords {
    /// The items that TTL removed.
    Expired,
}

/// A problem of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentProblem {
    /// The JSON Pointer of the value; empty for the whole document.
    pub pointer: String,
    /// The problem and the fix.
    pub reason: String,
}

impl fmt::Display for DocumentProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let space = if self.pointer.is_empty() { "" } else { " " };
        write!(f, "{REPLICATION}{space}{} {}", self.pointer, self.reason)
    }
}

/// The problems of a document, at least one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct DocumentSyntaxError(Vec<DocumentProblem>);

impl DocumentSyntaxError {
    /// Returns the problems, in the order of the document.
    #[must_use]
    pub fn problems(&self) -> &[DocumentProblem] {
        &self.0
    }
}

impl fmt::Display for DocumentSyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if index == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl ReplicationDocument {
    /// Parses and validates a document.
    ///
    /// # Errors
    /// [`DocumentSyntaxError`], which has every problem of the document.
    pub fn parse(text: &str) -> Result<Self, DocumentSyntaxError> {
        let value: JsonValue = serde_json::from_str(text).map_err(|error| {
            let reason = format!(
                "is not valid JSON ({error}): set it to a document such as {{\"version\":1,\"replicas\":[…]}}, or to \
                 s3://<bucket>/<key>"
            );
            DocumentSyntaxError(vec![DocumentProblem { pointer: String::new(), reason }])
        })?;
        let mut reader = DocumentReader::default();
        let document = reader.document(&value);
        match document {
            Some(document) if reader.problems.is_empty() => Ok(document),
            _ => Err(DocumentSyntaxError(reader.problems)),
        }
    }

    /// Returns the replicas.
    #[must_use]
    pub fn replicas(&self) -> &[ReplicaEntry] {
        &self.replicas
    }

    /// Returns whether a `DynamoDB` table is named by its ARN.
    #[must_use]
    pub fn has_table_arns(&self) -> bool {
        let is_arn = |entry: &ReplicaEntry| matches!(&entry.sink, SinkSettings::DynamoDb(settings) if settings.table.region().is_some());
        self.replicas.iter().any(is_arn)
    }

    /// Returns the document with the names of the `DynamoDB` tables instead of their ARNs, for an engine that has all of
    /// these tables.
    #[must_use]
    pub fn with_table_names(mut self) -> Self {
        for entry in &mut self.replicas {
            if let SinkSettings::DynamoDb(settings) = &mut entry.sink {
                settings.table = settings.table.to_name();
            }
        }
        self
    }

    /// Returns the document as JSON text, with every default value.
    #[must_use]
    pub fn to_json(&self) -> String {
        // The document contains only texts, numbers and lists, so it can always be serialized.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The members of an object that are of interest, by name.
type Members<'v> = BTreeMap<&'static str, &'v JsonValue>;

/// The members of the document that concern several replicas.
struct SharedMembers<'v> {
    columns: &'v [ColumnDefinition],
    hash_keys: Option<&'v JsonValue>,
}

/// A member whose problem is recorded.
struct InvalidMember;

/// The parts of a replica that could be read. The others have problems.
#[derive(Default)]
struct ReplicaParts {
    name: Option<SinkName>,
    table: Option<TableIdentity>,
    max_concurrency: Option<usize>,
    sink: Option<SinkSettings>,
    transform: TransformSettings,
}

impl ReplicaParts {
    /// Returns the replica, if every part could be read.
    fn into_entry(self) -> Option<ReplicaEntry> {
        Some(ReplicaEntry { name: self.name?, sink: self.sink?, transform: self.transform })
    }
}

/// The table of a replica.
enum TableIdentity {
    /// A `DynamoDB` table. The account is that of the ARN or of the role.
    DynamoDb { table: TableAddress, region: Option<String>, account: Option<String> },
    /// A table of the PostgreSQL database.
    Postgres(SqlIdentifier),
}

/// Reads a document, and collects the problems.
#[derive(Default)]
struct DocumentReader {
    problems: Vec<DocumentProblem>,
}

impl DocumentReader {
    fn add(&mut self, pointer: impl Into<String>, reason: impl Into<String>) {
        self.problems.push(DocumentProblem { pointer: pointer.into(), reason: reason.into() });
    }

    fn document(&mut self, value: &JsonValue) -> Option<ReplicationDocument> {
        let members = self.members("", value, &DOCUMENT_MEMBERS, "a replication document")?;
        match members.get("version") {
            Some(JsonValue::Integer(VERSION)) => {}
            Some(other) => self.add("/version", format!("is {}: set it to {VERSION}", other.quoted())),
            None => self.add("/version", format!("is missing: set it to {VERSION}")),
        }
        let listed = match members.get("replicas") {
            Some(JsonValue::List(listed)) => listed,
            Some(other) => {
                self.add("/replicas", format!("is {}: set it to a list of replicas", other.quoted()));
                return None;
            }
            None => {
                self.add("/replicas", "is missing: set it to a list of replicas");
                return None;
            }
        };
        if listed.is_empty() {
            self.add("/replicas", "is empty: add a replica, such as {\"name\":\"staging\",\"sink\":\"dynamodb\",…}");
        }
        if listed.len() > MAX_REPLICAS {
            let count = listed.len();
            self.add("/replicas", format!("has {count} entries: at most {MAX_REPLICAS} are allowed"));
        }
        let columns = self.shared_columns(members.get("columns").copied());
        let shared = SharedMembers {
            columns: columns.as_deref().unwrap_or_default(),
            hash_keys: members.get("hash_keys").copied(),
        };
        let replicas: Vec<ReplicaParts> = listed
            .iter()
            .enumerate()
            .map(|(index, value)| self.replica(&format!("/replicas/{index}"), value, &shared))
            .collect();
        self.check_together(&replicas);
        let hash_keys = self.hash_keys(members.get("hash_keys").copied());
        let replicas = replicas.into_iter().map(ReplicaParts::into_entry).collect::<Option<Vec<_>>>()?;
        Some(ReplicationDocument {
            version: 1,
            replicas,
            columns: shared_columns::table_columns(columns.unwrap_or_default()),
            hash_keys,
        })
    }

    /// Returns the known members of an object. A member that is unknown or occurs twice is a problem.
    fn members<'v>(
        &mut self,
        pointer: &str,
        value: &'v JsonValue,
        known: &'static [&'static str],
        kind: &str,
    ) -> Option<Members<'v>> {
        let JsonValue::Object(listed) = value else {
            self.add(pointer, format!("is {}: set it to {kind}, which is an object", value.quoted()));
            return None;
        };
        let mut members = Members::new();
        for (name, value) in listed {
            let location = member_pointer(pointer, name);
            match known.iter().find(|known| **known == name) {
                Some(known) if members.contains_key(known) => self.add(location, "occurs twice: remove one of them"),
                Some(known) => drop(members.insert(known, value)),
                None => {
                    let hint = nearest(name, known).map(|name| format!("; did you mean {name:?}?"));
                    let hint = hint.unwrap_or_default();
                    self.add(location, format!("is not a member of {kind}: use {}{hint}", known.join(", ")));
                }
            }
        }
        Some(members)
    }

    fn replica(&mut self, pointer: &str, value: &JsonValue, shared: &SharedMembers<'_>) -> ReplicaParts {
        let JsonValue::Object(listed) = value else {
            self.add(pointer, format!("is {}: set it to a replica, which is an object", value.quoted()));
            return ReplicaParts::default();
        };
        let sink = listed.iter().find(|(name, _)| name == "sink").map(|(_, value)| value);
        let kind = match sink {
            Some(JsonValue::Text(kind)) if SINKS.contains(&kind.as_str()) => kind.as_str(),
            other => {
                let meant = self.unknown_sink(pointer, other);
                // The other members are read as those of the kind that is probably meant, so that their problems are
                // reported, too.
                let parts = self.replica_of(meant.unwrap_or_default(), pointer, value, shared);
                return ReplicaParts { sink: None, ..parts.unwrap_or_default() };
            }
        };
        self.replica_of(kind, pointer, value, shared).unwrap_or_default()
    }

    /// Reports a sink that is missing or unknown; returns the kind that is probably meant.
    fn unknown_sink(&mut self, pointer: &str, sink: Option<&JsonValue>) -> Option<&'static str> {
        let location = member_pointer(pointer, "sink");
        let expected = SINKS.map(|sink| format!("{sink:?}")).join(" or ");
        let Some(sink) = sink else {
            self.add(location, format!("is missing: set it to {expected}"));
            return None;
        };
        let text = if let JsonValue::Text(text) = sink { text.as_str() } else { "" };
        let meant = nearest(text, &SINKS);
        let hint = meant.map(|name| format!("; did you mean {name:?}?")).unwrap_or_default();
        self.add(location, format!("is {}: set it to {expected}{hint}", sink.quoted()));
        meant
    }

    /// Reads a replica of a kind of sink. Of another kind, only the members that all replicas have are read. Returns
    /// `None` if the value is not an object.
    fn replica_of(
        &mut self,
        kind: &str,
        pointer: &str,
        value: &JsonValue,
        shared: &SharedMembers<'_>,
    ) -> Option<ReplicaParts> {
        match kind {
            "dynamodb" => {
                let members = self.members(pointer, value, &DYNAMODB_MEMBERS, "a dynamodb replica")?;
                let name = self.name(pointer, &members, None);
                let parts = self.table(pointer, &members);
                let transform = self.transform(pointer, &members, shared.hash_keys);
                Some(ReplicaParts { name, transform, ..parts })
            }
            "archive" => {
                let members = self.members(pointer, value, &ARCHIVE_MEMBERS, "an archive")?;
                let name = self.name(pointer, &members, Some(ARCHIVE_NAME));
                let sink = self.records(pointer, &members).map(|records| SinkSettings::Archive { records });
                // The archive stays in the source's account, and stores items as they were.
                Some(ReplicaParts { name, sink, ..ReplicaParts::default() })
            }
            "postgres" => {
                let members = self.members(pointer, value, &POSTGRES_MEMBERS, "a postgres replica")?;
                let is_users = matches!(members.get("table"), Some(JsonValue::Text(table)) if table == USERS_TABLE);
                let name = self.name(pointer, &members, is_users.then_some(USERS_REPLICA));
                let parts = self.postgres_table(pointer, &members, shared.columns);
                let transform = self.transform(pointer, &members, shared.hash_keys);
                self.reject_renamed_columns(pointer, &parts, &transform.attributes);
                Some(ReplicaParts { name, transform, ..parts })
            }
            _ => {
                let members = self.members(pointer, value, &REPLICA_MEMBERS, "a replica")?;
                let is_archive = matches!(members.get("name"), Some(JsonValue::Text(name)) if name == ARCHIVE_NAME);
                let name = self.name(pointer, &members, is_archive.then_some(ARCHIVE_NAME));
                self.transform(pointer, &members, shared.hash_keys);
                Some(ReplicaParts { name, ..ReplicaParts::default() })
            }
        }
    }

    /// Reads the name of a replica; `own` is the reserved name that it may have.
    fn name(&mut self, pointer: &str, members: &Members<'_>, own: Option<&str>) -> Option<SinkName> {
        let location = member_pointer(pointer, "name");
        let text = self.text(&location, members.get("name").copied(), "a name such as \"staging\"")?;
        let name = SinkName::parse(text);
        match name {
            Ok(name) if own == Some(name.as_str()) => Some(name),
            Ok(name) if RESERVED_NAMES.contains(&name.as_str()) || name.as_str() == ARCHIVE_NAME => {
                self.add(location, format!("is {text:?}, which is reserved: choose another name"));
                None
            }
            Ok(_) if own == Some(ARCHIVE_NAME) => {
                self.add(location, format!("is {text:?}: set it to {ARCHIVE_NAME:?}, the name of every archive"));
                None
            }
            Ok(name) => Some(name),
            Err(_) => {
                let format = "a lowercase letter, then up to 31 lowercase letters, digits or hyphens";
                self.add(location, format!("is {text:?}: set it to {format}, such as \"staging\""));
                None
            }
        }
    }

    /// Returns a text that must be present.
    fn text<'v>(&mut self, location: &str, value: Option<&'v JsonValue>, expected: &str) -> Option<&'v str> {
        match value {
            Some(JsonValue::Text(text)) => Some(text),
            Some(other) => {
                self.add(location, format!("is {}: set it to {expected}", other.quoted()));
                None
            }
            None => {
                self.add(location, format!("is missing: set it to {expected}"));
                None
            }
        }
    }

    /// Returns a member that may be absent; the error is recorded as a problem.
    fn optional<T>(
        &mut self,
        location: &str,
        value: Option<&JsonValue>,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, InvalidMember> {
        let Some(value) = value else { return Ok(None) };
        let text = self.text(location, Some(value), expected).ok_or(InvalidMember)?;
        self.parsed(location, parse(text)).map(Some).ok_or(InvalidMember)
    }

    fn parsed<T>(&mut self, location: &str, parsed: Result<T, String>) -> Option<T> {
        parsed.map_err(|reason| self.add(location, reason)).ok()
    }

    fn table(&mut self, pointer: &str, members: &Members<'_>) -> ReplicaParts {
        let location = |name: &str| member_pointer(pointer, name);
        let given = |name: &str| members.get(name).copied();
        let table = self.text(&location("table"), given("table"), "a table name or ARN");
        let table = table.and_then(|text| self.parsed(&location("table"), TableAddress::parse(text)));
        let own = self.optional(&location("region"), given("region"), "a Region such as eu-west-1", region);
        let role = self.optional(&location("role_arn"), given("role_arn"), "the ARN of a role", RoleArn::parse);
        let limit = match given("max_concurrency") {
            None => Some(DEFAULT_CONCURRENCY),
            Some(JsonValue::Integer(number)) if (1..=MAX_CONCURRENCY as i128).contains(number) => {
                usize::try_from(*number).ok()
            }
            Some(other) => {
                let reason = format!("is {}: set it to a number from 1 to {MAX_CONCURRENCY}", other.quoted());
                self.add(location("max_concurrency"), reason);
                None
            }
        };
        if let (Some(table), Ok(Some(own))) = (&table, &own)
            && let Some(its) = table.region().filter(|its| its != own)
        {
            let reason =
                format!("is {own:?}, but the table's ARN is in {its}: remove the member, or correct one of them");
            self.add(location("region"), reason);
        }
        if let (Some(table), Ok(Some(role))) = (&table, &role)
            && let Some(its) = table.partition().filter(|its| *its != role.partition())
        {
            let reason = format!(
                "is in the partition {}, but the table's ARN is in {its}, and a role cannot be used in another \
                 partition: name a role in {its}, or correct the table",
                role.partition()
            );
            self.add(location("role_arn"), reason);
        }
        let mut parts = ReplicaParts { max_concurrency: limit, ..ReplicaParts::default() };
        if let (Some(table), Ok(own), Ok(role_arn)) = (table, own, role) {
            let region = table.region().map(str::to_owned).or(own);
            let account = table.account().or(role_arn.as_ref().map(RoleArn::account)).map(str::to_owned);
            parts.table = Some(TableIdentity::DynamoDb { table: table.clone(), region: region.clone(), account });
            parts.sink = limit.map(|max_concurrency| {
                SinkSettings::DynamoDb(TableSettings { table, region, role_arn, max_concurrency })
            });
        }
        parts
    }

    fn records(&mut self, pointer: &str, members: &Members<'_>) -> Option<ArchivedRecords> {
        let location = member_pointer(pointer, "records");
        match self.text(&location, members.get("records").copied(), "\"expired\"")? {
            "expired" => Some(ArchivedRecords::Expired),
            other => {
                self.add(location, format!("is {other:?}: set it to \"expired\" (the items that TTL removes)"));
                None
            }
        }
    }

    /// Checks the members that concern several replicas, as far as they could be read.
    fn check_together(&mut self, replicas: &[ReplicaParts]) {
        for (index, replica) in replicas.iter().enumerate() {
            let earlier = || replicas[..index].iter().enumerate();
            if let Some(name) = &replica.name
                && let Some((at, _)) = earlier().find(|(_, other)| other.name.as_ref() == Some(name))
            {
                let reason =
                    format!("is {:?}, which is the name of /replicas/{at}: choose another name", name.as_str());
                self.add(format!("/replicas/{index}/name"), reason);
            }
            // Two archives have the same name.
            let Some(table) = &replica.table else { continue };
            if let Some((at, _)) = earlier().find(|(_, other)| other.table.as_ref().is_some_and(|it| it.is_same(table)))
            {
                let reason = format!(
                    "is {:?}, the table or view of /replicas/{at}: remove one of the two replicas",
                    table.as_str()
                );
                self.add(format!("/replicas/{index}/table"), reason);
            }
        }
        let sum: usize = replicas.iter().filter_map(|replica| replica.max_concurrency).sum();
        if sum > MAX_CONCURRENCY {
            let reason = format!(
                "have a max_concurrency of {sum} in total: set lower values, at most {MAX_CONCURRENCY} in total (the \
                 default is {DEFAULT_CONCURRENCY} each)"
            );
            self.add("/replicas", reason);
        }
    }
}

impl TableIdentity {
    /// Returns the table as the document names it.
    fn as_str(&self) -> &str {
        match self {
            Self::DynamoDb { table, .. } => table.as_str(),
            Self::Postgres(table) => table.as_str(),
        }
    }

    /// Returns whether both are certainly the same table, or one is the view of the other.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::DynamoDb { table, region, account },
                Self::DynamoDb { table: other, region: other_region, account: other_account },
            ) => table.name() == other.name() && region == other_region && account == other_account,
            (Self::Postgres(one), Self::Postgres(other)) => {
                one == other || view_of(one) == *other || view_of(other) == *one
            }
            _ => false,
        }
    }
}

/// Returns the candidate that is most similar to an unknown name, if one is similar enough.
fn nearest<'n>(name: &str, candidates: &[&'n str]) -> Option<&'n str> {
    let similar = candidates.iter().map(|candidate| (strsim::jaro(name, candidate), *candidate));
    let nearest = similar.max_by(|(one, _), (other, _)| one.total_cmp(other));
    nearest.filter(|(similarity, _)| *similarity > SIMILARITY).map(|(_, candidate)| candidate)
}

/// The object that contains a document: `s3://<bucket>/<key>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentLocation {
    /// The bucket.
    pub bucket: String,
    /// The object's key.
    pub key: String,
}

impl DocumentLocation {
    /// Parses the value of `REPLICATION` as a location; returns `None` if it is not an S3 URL, and therefore the
    /// document itself.
    ///
    /// # Errors
    /// [`DocumentProblem`] if the URL has no valid bucket or no key.
    pub fn parse(text: &str) -> Result<Option<Self>, DocumentProblem> {
        let Some(rest) = text.trim().strip_prefix("s3://") else { return Ok(None) };
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        let is_bucket = |bucket: &str| {
            (3..=63).contains(&bucket.len())
                && bucket
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte))
        };
        if is_bucket(bucket) && !key.is_empty() {
            return Ok(Some(Self { bucket: bucket.to_owned(), key: key.to_owned() }));
        }
        let reason = format!("is {text:?}: set it to s3://<bucket>/<key>");
        Err(DocumentProblem { pointer: String::new(), reason })
    }
}

impl fmt::Display for DocumentLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

#[cfg(test)]
mod tests;
