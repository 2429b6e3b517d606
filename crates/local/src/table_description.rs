//! Description of a DynamoDB table, as DynamoDB reports it: [`TableDescription`].
//!
//! It is parsed from the JSON that `aws dynamodb describe-table` prints ([`TableDescription::parse`]), or from the
//! SDK's response to the same call ([`TableDescription::from_sdk`]). Both have one reader (`member`), so both report the
//! same errors: the member as a JSON pointer, its value, and what was expected.
//!
//! The text may come from another person, and its members are written to commands and files. Therefore names and ARNs
//! are accepted only in their documented format. Only the names of attributes may be any text.
//!
//! Only members that replication depends on are read. A member that is absent because DynamoDB omits it for such a
//! table has its documented meaning; a member that another tool may have dropped is `None`, which is not the same as
//! *off*.

use std::fmt;

use millrace_shared::address::{self, TableAddress};
use millrace_shared::change::{StreamSource, latest_stream_command};
use millrace_shared::revision::StreamLabel;
use serde_json::Value;

use crate::template::{AttributeType, KeyDefinition, SecondaryIndex};

mod member;
mod sdk;
#[cfg(test)]
mod tests;

use member::JsonMember;

/// An invalid table description, with the member at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}", pointer.as_ref().map_or_else(String::new, |pointer| format!("{pointer}: ")))]
pub struct TableDescriptionError {
    /// The JSON pointer of the member; `None` if the whole text is at fault.
    pub pointer: Option<String>,
    /// The value and what was expected.
    pub problem: String,
}

/// An ARN that is not that of a DynamoDB table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the ARN of a DynamoDB table: expected arn:PARTITION:dynamodb:REGION:ACCOUNT:table/NAME")]
pub struct TableArnError(pub String);

/// The ARN of a table, in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableArn {
    /// The partition, such as `aws` or `aws-cn`.
    pub partition: String,
    /// The Region.
    pub region: String,
    /// The account's number.
    pub account: String,
    /// The table's name.
    pub table: String,
}

impl TableArn {
    /// Parses the ARN of a table.
    ///
    /// # Errors
    /// [`TableArnError`] if it is not one, such as the ARN of a stream or an index.
    pub fn parse(text: &str) -> Result<Self, TableArnError> {
        let address = TableAddress::parse_arn(text).ok();
        let parts = address.as_ref().and_then(|address| {
            let table = address.name().to_owned();
            Some((address.partition()?.to_owned(), address.region()?.to_owned(), address.account()?.to_owned(), table))
        });
        let (partition, region, account, table) = parts.ok_or_else(|| TableArnError(text.to_owned()))?;
        Ok(Self { partition, region, account, table })
    }
}

impl TableArn {
    /// Returns whether the table is one of an emulator, such as that of a running `millrace`, and not of an account.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.account == LOCAL_ACCOUNT
    }
}

impl fmt::Display for TableArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, region, account, table } = self;
        write!(f, "arn:{partition}:dynamodb:{region}:{account}:table/{table}")
    }
}

/// The rule for names of tables, for errors.
pub(crate) const TABLE_NAME_RULE: &str =
    "a table name: expected 3 to 255 letters, digits, _, . or -, without spaces, as aws dynamodb list-tables prints it";

/// The account in the ARNs of an emulator.
const LOCAL_ACCOUNT: &str = "000000000000";
/// The Region in the ARNs of the engine on this machine.
const ENGINE_REGION: &str = "dynoxide";

/// Returns whether a text is a valid name of a table: 3 to 255 of `A-Za-z0-9_.-`.
#[must_use]
pub fn is_table_name(text: &str) -> bool {
    let is_allowed = |letter: char| letter.is_ascii_alphanumeric() || "_.-".contains(letter);
    (3..=255).contains(&text.len()) && text.chars().all(is_allowed)
}

/// The type of a key attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    /// A string, `S`.
    String,
    /// A number, `N`.
    Number,
    /// Binary, `B`.
    Binary,
}

impl KeyType {
    /// Parses the type as DynamoDB writes it; `None` if it is another text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::String, Self::Number, Self::Binary].into_iter().find(|kind| kind.as_str() == text)
    }

    /// Returns the type as DynamoDB writes it: `S`, `N` or `B`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::String => "S",
            Self::Number => "N",
            Self::Binary => "B",
        }
    }
}

/// The characters of a name that a template's parameter contains escaped, in the order of decoding.
const PARAMETER_ESCAPES: [(&str, &str); 2] = [("%3A", ":"), ("%25", "%")];

/// An attribute of the primary key. Displays as `name:S`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyAttribute {
    /// The attribute's name.
    pub name: String,
    /// The attribute's type.
    pub kind: KeyType,
}

impl KeyAttribute {
    /// Parses the value of the template's parameter `PartitionKey` or `SortKey`: `name:S`, in whose name `%3A` is a
    /// colon and `%25` a percent sign. `None` if the text is not such a value.
    #[must_use]
    pub fn from_parameter(text: &str) -> Option<Self> {
        let (name, kind) = text.split_once(':').filter(|(name, _)| !name.is_empty())?;
        let decoded = |name: String, (escape, text): (&str, &str)| name.replace(escape, text);
        let name = PARAMETER_ESCAPES.into_iter().fold(name.to_owned(), decoded);
        Some(Self { name, kind: KeyType::parse(kind)? })
    }

    /// Returns the value of the template's parameter. A percent sign is escaped only if the name would read as an
    /// escape otherwise.
    #[must_use]
    pub fn to_parameter(&self) -> String {
        let is_ambiguous = PARAMETER_ESCAPES.into_iter().any(|(escape, _)| self.name.contains(escape));
        let name = if is_ambiguous { self.name.replace('%', "%25") } else { self.name.clone() };
        format!("{}:{}", name.replace(':', "%3A"), self.kind.as_str())
    }
}

impl fmt::Display for KeyAttribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.kind.as_str())
    }
}

/// The images that a stream record contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamViewType {
    /// The item before and after the change.
    NewAndOldImages,
    /// The item after the change.
    NewImage,
    /// The item before the change.
    OldImage,
    /// Only the key.
    KeysOnly,
}

impl StreamViewType {
    /// Returns the view type as DynamoDB writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NewAndOldImages => "NEW_AND_OLD_IMAGES",
            Self::NewImage => "NEW_IMAGE",
            Self::OldImage => "OLD_IMAGE",
            Self::KeysOnly => "KEYS_ONLY",
        }
    }

    /// Returns whether records contain the item after the change.
    #[must_use]
    pub fn has_new_image(self) -> bool {
        matches!(self, Self::NewAndOldImages | Self::NewImage)
    }

    /// Returns whether records contain the item before the change.
    #[must_use]
    pub fn has_old_image(self) -> bool {
        matches!(self, Self::NewAndOldImages | Self::OldImage)
    }
}

/// The enabled stream of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableStream {
    /// The ARN of the stream.
    pub arn: String,
    /// The label of the stream: its creation time.
    pub label: String,
    /// The images in its records.
    pub view: StreamViewType,
}

/// Encryption with a KMS key in the account: one of the customer, or the one that AWS manages for DynamoDB. A table
/// without it is encrypted with a key that AWS owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableEncryption {
    /// The status, such as `ENABLED`.
    pub status: String,
    /// The type: `KMS`, or `AES256` in old tables.
    pub kind: String,
    /// The ARN of the key.
    pub key_arn: Option<String>,
}

/// A replica of a global table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobalReplica {
    /// The Region.
    pub region: String,
    /// The status, such as `ACTIVE`.
    pub status: Option<String>,
}

/// The capacity mode of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableCapacity {
    /// Each request is billed.
    OnDemand,
    /// Capacity is provisioned.
    Provisioned {
        /// Read capacity units.
        read_units: u64,
        /// Write capacity units.
        write_units: u64,
    },
}

/// The removal of expired items. It is not part of `DescribeTable`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimeToLive {
    /// The description does not say.
    Unknown,
    /// TTL is off, or is being turned off.
    Disabled,
    /// TTL is on, or is being turned on.
    Enabled {
        /// The name of the attribute with the time of expiry.
        attribute: String,
    },
}

/// The text that means that TTL is off, where an option names its attribute.
const NO_TTL: &str = "none";

impl TimeToLive {
    /// Parses the value of an option `--ttl-attribute`: the name of the attribute, or `none` if TTL is off.
    ///
    /// # Errors
    /// The allowed values if the text is empty or longer than a name.
    pub fn from_option(text: &str) -> Result<Self, String> {
        match text {
            NO_TTL => Ok(Self::Disabled),
            _ if (1..=255).contains(&text.len()) => Ok(Self::Enabled { attribute: text.to_owned() }),
            _ => Err("expected the name of an attribute, 1 to 255 bytes, or none if TTL is off".to_owned()),
        }
    }
}

/// Description of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableDescription {
    /// The table's name.
    pub name: String,
    /// The table's ARN.
    pub arn: TableArn,
    /// The status, such as `ACTIVE`.
    pub status: String,
    /// The partition key.
    pub partition_key: KeyAttribute,
    /// The sort key, if the table has one.
    pub sort_key: Option<KeyAttribute>,
    /// The types of all attributes in the keys of the table and of its indexes.
    pub attributes: Vec<AttributeType>,
    /// The global secondary indexes.
    pub global_indexes: Vec<SecondaryIndex>,
    /// The local secondary indexes.
    pub local_indexes: Vec<SecondaryIndex>,
    /// The number of items. DynamoDB updates it about every six hours.
    pub item_count: Option<u64>,
    /// The size of all items in bytes. DynamoDB updates it about every six hours.
    pub size_bytes: Option<u64>,
    /// The stream, if it is enabled.
    pub stream: Option<TableStream>,
    /// The ARN of the latest stream of a table whose stream is disabled: its records can be read for 24 hours.
    pub former_stream_arn: Option<String>,
    /// The encryption, if it is not with a key that AWS owns.
    pub encryption: Option<TableEncryption>,
    /// The replicas, if the table is a global table.
    pub replicas: Vec<GlobalReplica>,
    /// The version of global tables, such as `2019.11.21`, if the table is one.
    pub global_table_version: Option<String>,
    /// The capacity mode.
    pub capacity: TableCapacity,
    /// Whether the table is protected against deletion.
    pub deletion_protection: Option<bool>,
    /// The table class, such as `STANDARD`.
    pub table_class: String,
    /// The removal of expired items.
    pub time_to_live: TimeToLive,
}

impl TableDescription {
    /// Parses the output of `aws dynamodb describe-table`: `{"Table": {…}}`, or the object in it.
    ///
    /// A member `TimeToLiveDescription` next to `Table` is the output of `aws dynamodb describe-time-to-live`.
    ///
    /// # Errors
    /// [`TableDescriptionError`], which names the member.
    pub fn parse(text: &str) -> Result<Self, TableDescriptionError> {
        let document = parse_json(text, "aws dynamodb describe-table --table-name NAME --output json")?;
        Self::from_document(&document)
    }

    /// Converts the SDK's response to `DescribeTable`.
    ///
    /// # Errors
    /// [`TableDescriptionError`], which names the member as `aws dynamodb describe-table` would print it.
    pub fn from_sdk(table: &aws_sdk_dynamodb::types::TableDescription) -> Result<Self, TableDescriptionError> {
        Self::from_document(&sdk::document(table))
    }

    /// Adds the output of `aws dynamodb describe-time-to-live`: `{"TimeToLiveDescription": {…}}`.
    ///
    /// # Errors
    /// [`TableDescriptionError`], which names the member.
    pub fn with_time_to_live(mut self, text: &str) -> Result<Self, TableDescriptionError> {
        let document = parse_json(text, "aws dynamodb describe-time-to-live --table-name NAME --output json")?;
        self.time_to_live = time_to_live(JsonMember::root(&document).required("TimeToLiveDescription")?)?;
        Ok(self)
    }

    /// Returns the description with another Region in its ARNs, if they have that of the engine on this machine, which
    /// is not one of AWS.
    #[must_use]
    pub fn in_region(mut self, region: &str) -> Self {
        if self.arn.region != ENGINE_REGION {
            return self;
        }
        region.clone_into(&mut self.arn.region);
        let (from, to) = (format!(":{ENGINE_REGION}:"), format!(":{region}:"));
        let arns = [self.stream.as_mut().map(|stream| &mut stream.arn), self.former_stream_arn.as_mut()];
        for arn in arns.into_iter().flatten() {
            *arn = arn.replacen(&from, &to, 1);
        }
        self
    }

    /// Returns whether the table is part of a global table.
    #[must_use]
    pub fn is_global(&self) -> bool {
        self.global_table_version.is_some() || !self.replicas.is_empty()
    }

    /// Returns the attributes of the primary key: the partition key, then the sort key if there is one.
    pub fn key_attributes(&self) -> impl Iterator<Item = &KeyAttribute> {
        [Some(&self.partition_key), self.sort_key.as_ref()].into_iter().flatten()
    }

    /// Returns the names of the attributes of the primary key.
    #[must_use]
    pub fn key_names(&self) -> Vec<&str> {
        self.key_attributes().map(|key| key.name.as_str()).collect()
    }

    /// Returns the primary key as a definition of a table lists it.
    #[must_use]
    pub fn key_definitions(&self) -> Vec<KeyDefinition> {
        let role = |(key, role): (&KeyAttribute, &str)| KeyDefinition { name: key.name.clone(), role: role.to_owned() };
        self.key_attributes().zip(["HASH", "RANGE"]).map(role).collect()
    }

    /// Returns the TTL attribute, if TTL is known to be enabled.
    #[must_use]
    pub fn ttl_attribute(&self) -> Option<&str> {
        match &self.time_to_live {
            TimeToLive::Enabled { attribute } => Some(attribute),
            TimeToLive::Unknown | TimeToLive::Disabled => None,
        }
    }

    fn from_document(document: &Value) -> Result<Self, TableDescriptionError> {
        let root = JsonMember::root(document);
        root.object()?;
        let table = root.optional("Table")?;
        let ttl = root.optional("TimeToLiveDescription")?;
        // The inner object has the table's name as a member.
        let table = match table {
            Some(table) => table,
            None if root.optional("TableName")?.is_some() => root,
            None => return Err(root.error(r#"expected {"Table": {…}}, the output of aws dynamodb describe-table"#)),
        };
        let arn = table.required("TableArn")?;
        let name = table.required("TableName")?;
        if !is_table_name(name.text()?) {
            return Err(name.error(&format!("{:?} is not {TABLE_NAME_RULE}", name.text()?)));
        }
        let (arn_member, arn) = (&arn, TableArn::parse(arn.text()?).map_err(|error| arn.error(&error.to_string()))?);
        if name.text()? != arn.table {
            let problem = format!("{:?} is not the table of {}", arn.table, name.text()?);
            return Err(arn_member.error(&problem));
        }
        let attributes = attributes(&table.required("AttributeDefinitions")?)?;
        let (partition_key, sort_key) = primary_key(&table.required("KeySchema")?, &attributes)?;
        let (stream, former_stream_arn) = stream(&table, &arn)?;
        Ok(Self {
            name: arn.table.clone(),
            arn,
            status: table.required("TableStatus")?.word()?,
            partition_key,
            sort_key,
            global_indexes: indexes(&table, "GlobalSecondaryIndexes")?,
            local_indexes: indexes(&table, "LocalSecondaryIndexes")?,
            attributes,
            item_count: table.optional("ItemCount")?.map(|count| count.number()).transpose()?,
            size_bytes: table.optional("TableSizeBytes")?.map(|size| size.number()).transpose()?,
            stream,
            former_stream_arn,
            encryption: table.optional("SSEDescription")?.map(|member| encryption(&member)).transpose()?.flatten(),
            replicas: replicas(&table)?,
            global_table_version: table.optional_word("GlobalTableVersion")?,
            capacity: capacity(&table)?,
            deletion_protection: table
                .optional("DeletionProtectionEnabled")?
                .map(|protection| protection.boolean())
                .transpose()?,
            table_class: match table.optional("TableClassSummary")? {
                Some(summary) => summary.optional_word("TableClass")?,
                None => None,
            }
            .unwrap_or_else(|| "STANDARD".to_owned()),
            time_to_live: ttl.map_or(Ok(TimeToLive::Unknown), time_to_live)?,
        })
    }
}

fn parse_json(text: &str, command: &str) -> Result<Value, TableDescriptionError> {
    serde_json::from_str(text).map_err(|error| {
        let problem = format!("not JSON ({error}): expected the output of {command}");
        TableDescriptionError { pointer: None, problem }
    })
}

fn attributes(member: &JsonMember) -> Result<Vec<AttributeType>, TableDescriptionError> {
    let one = |attribute: JsonMember| {
        let kind = attribute.required("AttributeType")?;
        Ok(AttributeType {
            name: attribute.required("AttributeName")?.text()?.to_owned(),
            kind: kind.one_of(&[("S", "S"), ("N", "N"), ("B", "B")])?.to_owned(),
        })
    };
    member.elements()?.into_iter().map(one).collect()
}

fn key_schema(member: &JsonMember) -> Result<Vec<KeyDefinition>, TableDescriptionError> {
    let one = |key: JsonMember| {
        Ok(KeyDefinition {
            name: key.required("AttributeName")?.text()?.to_owned(),
            role: key.required("KeyType")?.one_of(&[("HASH", "HASH"), ("RANGE", "RANGE")])?.to_owned(),
        })
    };
    member.elements()?.into_iter().map(one).collect()
}

fn primary_key(
    member: &JsonMember,
    attributes: &[AttributeType],
) -> Result<(KeyAttribute, Option<KeyAttribute>), TableDescriptionError> {
    let mut keys = Vec::new();
    for key in key_schema(member)? {
        let kind = attributes.iter().find(|attribute| attribute.name == key.name).map(|attribute| &*attribute.kind);
        let kind = match kind {
            Some("S") => KeyType::String,
            Some("N") => KeyType::Number,
            Some(_) => KeyType::Binary,
            None => {
                let problem = format!("{:?} has no type: expected it in AttributeDefinitions", key.name);
                return Err(member.error(&problem));
            }
        };
        keys.push((KeyAttribute { name: key.name, kind }, key.role));
    }
    if let [(partition, _), (sort, _), ..] = &keys[..]
        && partition.name == sort.name
    {
        let problem = format!("{:?} is both the partition key and the sort key: expected two attributes", sort.name);
        return Err(member.error(&problem));
    }
    let mut keys = keys.into_iter();
    match (keys.next(), keys.next(), keys.next()) {
        (Some((partition, hash)), None, None) if hash == "HASH" => Ok((partition, None)),
        (Some((partition, hash)), Some((sort, range)), None) if (&*hash, &*range) == ("HASH", "RANGE") => {
            Ok((partition, Some(sort)))
        }
        _ => Err(member.error("expected one HASH element, then at most one RANGE element")),
    }
}

/// Returns the name of an index, which has the format of a table's name.
fn index_name(member: &JsonMember) -> Result<String, TableDescriptionError> {
    let name = member.text()?;
    if is_table_name(name) {
        return Ok(name.to_owned());
    }
    Err(member.error(&format!("{name:?} is not the name of an index: expected 3 to 255 letters, digits, _, . or -")))
}

fn indexes(table: &JsonMember, name: &str) -> Result<Vec<SecondaryIndex>, TableDescriptionError> {
    let one = |index: JsonMember| {
        let projection = index.required("Projection")?;
        let non_key = projection.optional("NonKeyAttributes")?;
        let non_key = non_key.map(|names| names.elements()).transpose()?.unwrap_or_default();
        Ok(SecondaryIndex {
            name: index_name(&index.required("IndexName")?)?,
            keys: key_schema(&index.required("KeySchema")?)?,
            projection: projection
                .required("ProjectionType")?
                .one_of(&[("ALL", "ALL"), ("KEYS_ONLY", "KEYS_ONLY"), ("INCLUDE", "INCLUDE")])?
                .to_owned(),
            non_key_attributes: non_key
                .iter()
                .map(|name| Ok(name.text()?.to_owned()))
                .collect::<Result<_, TableDescriptionError>>()?,
        })
    };
    let Some(indexes) = table.optional(name)? else { return Ok(Vec::new()) };
    indexes.elements()?.into_iter().map(one).collect()
}

/// Returns the enabled stream, or the ARN of the former one.
fn stream(
    table: &JsonMember,
    table_arn: &TableArn,
) -> Result<(Option<TableStream>, Option<String>), TableDescriptionError> {
    let specification = table.optional("StreamSpecification")?;
    let enabled = match &specification {
        Some(specification) => specification.required("StreamEnabled")?.boolean()?,
        None => false,
    };
    let Some(specification) = specification.filter(|_| enabled) else {
        let former = table.optional("LatestStreamArn")?.map(|arn| stream_label(&arn, table_arn).map(|_| arn));
        let former = former.transpose()?.map(|arn| arn.text().map(str::to_owned)).transpose()?;
        return Ok((None, former));
    };
    let view = specification.required("StreamViewType")?.one_of(&[
        ("NEW_AND_OLD_IMAGES", StreamViewType::NewAndOldImages),
        ("NEW_IMAGE", StreamViewType::NewImage),
        ("OLD_IMAGE", StreamViewType::OldImage),
        ("KEYS_ONLY", StreamViewType::KeysOnly),
    ])?;
    let arn = table.required("LatestStreamArn")?;
    let from_arn = stream_label(&arn, table_arn)?;
    let label = match table.optional("LatestStreamLabel")? {
        Some(label) if StreamLabel::parse(label.text()?).is_err() => {
            let problem =
                format!("{:?}: expected the label of a stream, such as 2026-11-27T08:00:00.000", label.text()?);
            return Err(label.error(&problem));
        }
        Some(label) => label.text()?.to_owned(),
        None => from_arn,
    };
    Ok((Some(TableStream { arn: arn.text()?.to_owned(), label, view }), None))
}

/// Returns the label in the ARN of a stream of this table.
fn stream_label(arn: &JsonMember, table_arn: &TableArn) -> Result<String, TableDescriptionError> {
    let text = arn.text()?;
    let Some((of_table, label)) = text.split_once("/stream/") else {
        return Err(arn.error(&format!("{text:?}: expected the ARN of a stream, …:table/NAME/stream/LABEL")));
    };
    // A stream of another table, or of the table of the same name in another Region, account or partition.
    if of_table != table_arn.to_string() {
        return Err(arn.error(&format!(
            "{text:?} is not a stream of {table_arn}: set it to the ARN that this command prints: {}",
            latest_stream_command(&table_arn.to_string())
        )));
    }
    StreamSource::parse(text.into()).map_err(|_| {
        arn.error(&format!("{text:?}: expected a label such as 2026-11-27T08:00:00.000 after {table_arn}/stream/"))
    })?;
    Ok(label.to_owned())
}

fn encryption(member: &JsonMember) -> Result<Option<TableEncryption>, TableDescriptionError> {
    let status = member.required("Status")?.word()?;
    // DynamoDB describes a table whose key AWS owns without the member, or as disabled.
    if status == "DISABLED" {
        return Ok(None);
    }
    let kind = member.optional_word("SSEType")?.unwrap_or_else(|| "KMS".to_owned());
    let key_arn = |key: JsonMember| {
        let text = key.text()?;
        address::key_arn(text).map_err(|_| {
            key.error(&format!("{text:?}: expected the ARN of a KMS key, arn:PARTITION:kms:REGION:ACCOUNT:key/ID"))
        })
    };
    let key_arn = member.optional("KMSMasterKeyArn")?.map(key_arn).transpose()?;
    Ok(Some(TableEncryption { status, kind, key_arn }))
}

fn replicas(table: &JsonMember) -> Result<Vec<GlobalReplica>, TableDescriptionError> {
    let one = |replica: JsonMember| {
        let member = replica.required("RegionName")?;
        let text = member.text()?;
        let region = address::region(text)
            .map_err(|_| member.error(&format!("{text:?}: expected the name of a Region, such as eu-west-1")))?;
        Ok(GlobalReplica { region, status: replica.optional_word("ReplicaStatus")? })
    };
    let Some(replicas) = table.optional("Replicas")? else { return Ok(Vec::new()) };
    replicas.elements()?.into_iter().map(one).collect()
}

fn capacity(table: &JsonMember) -> Result<TableCapacity, TableDescriptionError> {
    let mode = match table.optional("BillingModeSummary")? {
        Some(summary) => summary.optional("BillingMode")?,
        None => None,
    };
    // A table that was never on demand has no summary.
    let on_demand = match mode {
        Some(mode) => mode.one_of(&[("PAY_PER_REQUEST", true), ("PROVISIONED", false)])?,
        None => false,
    };
    let units = |name| match table.optional("ProvisionedThroughput")? {
        Some(throughput) => throughput.required(name)?.number(),
        None => Ok(0),
    };
    let (read_units, write_units) = (units("ReadCapacityUnits")?, units("WriteCapacityUnits")?);
    // Provisioned capacity is at least one unit.
    let on_demand = on_demand || (read_units, write_units) == (0, 0);
    Ok(if on_demand { TableCapacity::OnDemand } else { TableCapacity::Provisioned { read_units, write_units } })
}

#[expect(clippy::needless_pass_by_value, reason = "a member is a reference with its path")]
fn time_to_live(member: JsonMember) -> Result<TimeToLive, TableDescriptionError> {
    let status = member.required("TimeToLiveStatus")?;
    let is_on = status.one_of(&[("ENABLED", true), ("ENABLING", true), ("DISABLED", false), ("DISABLING", false)])?;
    if !is_on {
        return Ok(TimeToLive::Disabled);
    }
    Ok(TimeToLive::Enabled { attribute: member.required("AttributeName")?.text()?.to_owned() })
}
