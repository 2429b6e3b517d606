//! Reader of an account: [`read`] builds a deployment from recorded responses.
//!
//! The reader also determines the calls to make: it reads the recording, and returns the calls whose responses are
//! missing. The caller makes these calls and reads again, until none is missing. The order of the calls, and everything
//! that depends on their responses, is therefore decided here without I/O, and a test needs only a recording.
//!
//! Each response becomes the resource of `CloudFormation` with the same settings, so the same rules apply to an account
//! and to a template. A setting whose call was refused is unresolved, and the rules that need it are not checked.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::account_call::{
    AccountCall, DESCRIBE_ALARMS, DESCRIBE_BACKUPS, DESCRIBE_KEY, DESCRIBE_TABLE, DESCRIBE_TTL, GET_BUCKET_POLICY,
    GET_CONCURRENCY, GET_ENCRYPTION, GET_FUNCTION, GET_KEY_POLICY, GET_LIFECYCLE, GET_QUEUE, GET_ROUTES, GET_TEMPLATE,
    GET_TOPIC, GET_VERSIONING, LIST_MAPPINGS, LIST_PIPES, LIST_STACK_RESOURCES,
};
use crate::account_observation;
use crate::account_recording::{AccountRecording, AccountTarget, ResponseBook};
use crate::deployment::{DeploymentForm, SourceLocation, StreamMapping, bucket_name};
use crate::deployment_builder::{self, own_purpose};
use crate::iam_policy::RolePermissions;
use crate::replica_address::{region_and_account, replicas_of};
use crate::resource_entry::{PropertyNode as _, ResourceEntry, resolved_json, unresolved};
use crate::setting::SettingValue;
use crate::template_node::TemplateNode;
use crate::template_reader::{DeploymentReading, inline_code_reports, retained};
use crate::template_scope::ResolvedNode;

/// The maximum depth of nested stacks.
const MAX_STACK_DEPTH: usize = 5;

/// A deployment as far as the responses describe it, and the calls whose responses are missing.
#[derive(Debug)]
pub struct AccountReading {
    /// The deployment.
    pub reading: DeploymentReading,
    /// The calls to be made before the next reading; empty if the reading is complete.
    pub missing: Vec<AccountCall>,
}

/// Reads a deployment from the responses of an account.
///
/// # Errors
/// A line about the call that describes the target, if it was refused or found nothing.
pub fn read(recording: &AccountRecording) -> Result<AccountReading, String> {
    let book = ResponseBook::new(recording);
    let mut reader = AccountReader {
        book: &book,
        file: recording.target.to_string(),
        entries: Vec::new(),
        stack: BTreeMap::new(),
        unread: Vec::new(),
        problems: Vec::new(),
        keys: BTreeSet::new(),
    };
    let root = match &recording.target {
        AccountTarget::Stack(name) => reader.add_stack(name, "", 0),
        AccountTarget::Function(target) => {
            let (name, qualifier) = function_name(target);
            let mut parameters = vec![("FunctionName", name)];
            parameters.extend(qualifier.map(|qualifier| ("Qualifier", qualifier)));
            book.response(&GET_FUNCTION, &parameters).map(|_| ())
        }
        AccountTarget::Table(name) => book.response(&DESCRIBE_TABLE, &[("TableName", name)]).map(|_| ()),
    };
    let reading = match root {
        SettingValue::Known(()) => reader.read(),
        SettingValue::Absent => return Err(format!("{} does not exist", recording.target)),
        // Nothing else can be read before the first response.
        SettingValue::Unresolved(reason) => {
            let missing = book.into_missing();
            return if missing.is_empty() {
                Err(format!("{}: {reason}", recording.target))
            } else {
                Ok(AccountReading { reading: DeploymentReading::default(), missing })
            };
        }
    };
    Ok(AccountReading { reading, missing: book.into_missing() })
}

/// A resource of a stack.
struct StackResource {
    /// The logical ID, after those of the nested stacks around it.
    id: String,
    /// The member `millrace` of its metadata.
    metadata: Option<ResolvedNode>,
    /// Whether it stays when the stack no longer contains it.
    retained: SettingValue<bool>,
    /// Whether its code names the response member of failed records, if the template contains the code.
    reports_failures: Option<bool>,
}

struct AccountReader<'b, 'r> {
    book: &'b ResponseBook<'r>,
    file: String,
    entries: Vec<ResourceEntry>,
    /// The resources of the stack by type and physical ID.
    stack: BTreeMap<(String, String), StackResource>,
    unread: Vec<(SourceLocation, String)>,
    problems: Vec<String>,
    /// The keys that are read.
    keys: BTreeSet<String>,
}

/// Converts a setting to a JSON value, which may be marked as unresolved.
fn value_of(setting: SettingValue<Value>) -> Value {
    match setting {
        SettingValue::Known(value) => value,
        SettingValue::Absent => Value::Null,
        SettingValue::Unresolved(reason) => unresolved(&reason),
    }
}

pub(crate) fn text_of(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.is_empty())
}

/// Returns the items of an array, or the value as the only one: XML has no arrays of one.
pub(crate) fn one_or_many(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Null => Vec::new(),
        Value::String(text) if text.is_empty() => Vec::new(),
        one => vec![one],
    }
}

/// Returns the name of the table of a stream.
fn table_of_stream(stream: &str) -> Option<&str> {
    stream.contains(":dynamodb:").then_some(())?;
    stream.split_once(":table/")?.1.split_once("/stream/").map(|(name, _)| name)
}

/// Splits the ARN of a function into its name and its qualifier.
fn function_name(arn: &str) -> (&str, Option<&str>) {
    let rest = arn.split_once(":function:").map_or(arn, |(_, rest)| rest);
    rest.split_once(':').map_or((rest, None), |(name, qualifier)| (name, Some(qualifier)))
}

impl AccountReader<'_, '_> {
    fn location(&self, resource: impl Into<String>) -> SourceLocation {
        SourceLocation { file: self.file.clone(), line: 0, resource: resource.into() }
    }

    fn entry(&self, resource: &str, kind: &str, properties: &Value) -> ResourceEntry {
        ResourceEntry {
            location: self.location(resource),
            kind: kind.to_owned(),
            name: String::new(),
            arn: String::new(),
            properties: resolved_json(properties),
            metadata: None,
            retained: SettingValue::Absent,
            literal_streams: Vec::new(),
            reports_failures: SettingValue::Unresolved("the code of a function is not read".to_owned()),
            api_document: SettingValue::Absent,
        }
    }

    fn stack_resource(&self, kind: &str, physical: &str) -> Option<&StackResource> {
        self.stack.get(&(kind.to_owned(), physical.to_owned()))
    }

    /// Reads the resources of a stack and of its nested stacks, and the statements of its template.
    fn add_stack(&mut self, name: &str, path: &str, depth: usize) -> SettingValue<()> {
        let resources = match self.book.response(&LIST_STACK_RESOURCES, &[("StackName", name)]) {
            SettingValue::Known(resources) => one_or_many(&resources["StackResourceSummaries"]),
            SettingValue::Absent => return SettingValue::Absent,
            SettingValue::Unresolved(reason) => return SettingValue::Unresolved(reason),
        };
        let template = self.template(name, path);
        let declared = template.as_ref().and_then(|template| template.get("Resources"));
        for resource in resources {
            let [Some(id), Some(kind), Some(physical)] =
                ["LogicalResourceId", "ResourceType", "PhysicalResourceId"].map(|member| text_of(&resource[member]))
            else {
                continue;
            };
            if resource["ResourceStatus"] == "DELETE_COMPLETE" {
                continue;
            }
            if kind == "AWS::CloudFormation::Stack" {
                if depth == MAX_STACK_DEPTH {
                    self.unread.push((self.location(format!("{path}{id}")), "stacks are nested too deeply".to_owned()));
                } else if let SettingValue::Unresolved(reason) =
                    self.add_stack(physical, &format!("{path}{id}."), depth + 1)
                {
                    self.unread.push((self.location(format!("{path}{id}")), reason));
                }
                continue;
            }
            let node = declared.and_then(|declared| declared.get(id));
            let metadata = node.and_then(|node| node.get("Metadata")).and_then(|metadata| metadata.get("millrace"));
            let name = match node {
                Some(_) => id.to_owned(),
                None => declared.and_then(|declared| event_of(declared, id)).unwrap_or_else(|| id.to_owned()),
            };
            let unread = || SettingValue::Unresolved("DeletionPolicy is not read".to_owned());
            let of_stack = StackResource {
                id: format!("{path}{name}"),
                metadata: metadata.map(ResolvedNode::from_node),
                retained: node.map_or_else(unread, retained),
                reports_failures: node.and_then(|node| inline_code_reports(node.get("Properties")?)),
            };
            self.stack.insert((kind.to_owned(), physical.to_owned()), of_stack);
        }
        SettingValue::Known(())
    }

    /// Returns the template of a stack, if it is readable, and reads the findings that it declares as intended.
    fn template(&mut self, stack: &str, path: &str) -> Option<TemplateNode> {
        let parameters = [("StackName", stack), ("TemplateStage", "Original")];
        let body = match self.book.response(&GET_TEMPLATE, &parameters) {
            SettingValue::Known(response) => match &response["TemplateBody"] {
                Value::String(body) => TemplateNode::parse(body).map_err(|error| error.to_string()),
                body => Ok(TemplateNode::from_json(body)),
            },
            SettingValue::Absent => Err("the stack has no template".to_owned()),
            SettingValue::Unresolved(reason) => Err(reason),
        };
        match body {
            Ok(template) => {
                let metadata = template.get("Metadata").and_then(|metadata| metadata.get("millrace"));
                if let Some(metadata) = metadata {
                    let mut entry = self.entry(path.trim_end_matches('.'), "Metadata", &Value::Null);
                    entry.metadata = Some(ResolvedNode::from_node(metadata));
                    self.entries.push(entry);
                }
                Some(template)
            }
            Err(reason) => {
                let reason = format!("the template of the stack, in which findings are declared as intended: {reason}");
                self.unread.push((self.location(path.trim_end_matches('.')), reason));
                None
            }
        }
    }

    /// Reads everything, starting with the mappings.
    fn read(mut self) -> DeploymentReading {
        let listed = match self.book.response(&LIST_MAPPINGS, &[]) {
            SettingValue::Known(response) => one_or_many(&response["EventSourceMappings"]),
            SettingValue::Absent => Vec::new(),
            SettingValue::Unresolved(reason) => {
                self.problems.push(format!("{}: no mapping is checked: {reason}", self.file));
                Vec::new()
            }
        };
        let of_stream = |mapping: &&Value| text_of(&mapping["EventSourceArn"]).and_then(table_of_stream).is_some();
        let listed: Vec<&Value> = listed.into_iter().filter(of_stream).collect();
        let (evaluated, others): (Vec<&Value>, Vec<&Value>) = listed.into_iter().partition(|it| self.is_evaluated(it));
        let mut tables: BTreeMap<String, String> = BTreeMap::new();
        let mut add_table = |reference: &str| {
            let name = reference.rsplit_once(":table/").map_or(reference, |(_, name)| name);
            tables.entry(name.to_owned()).or_insert_with(|| reference.to_owned());
        };
        for mapping in &evaluated {
            let function = text_of(&mapping["FunctionArn"]).unwrap_or_default();
            for replica in self.add_function(function) {
                add_table(&replica);
            }
            if let Some(stream) = text_of(&mapping["EventSourceArn"]) {
                // The ARN is needed only for a table of another account.
                let is_own = region_and_account(stream) == region_and_account(function);
                let table = table_of_stream(stream).unwrap_or_default();
                add_table(if is_own { table } else { stream.split_once("/stream/").map_or(stream, |(arn, _)| arn) });
            }
        }
        match &self.book.recording.target {
            AccountTarget::Table(name) => add_table(name),
            AccountTarget::Stack(_) => self
                .stack
                .keys()
                .filter(|(kind, _)| kind.starts_with("AWS::DynamoDB::"))
                .for_each(|(_, name)| add_table(name)),
            AccountTarget::Function(_) => {}
        }
        for reference in tables.values() {
            self.add_table(reference);
        }
        let others: Vec<&Value> = others
            .into_iter()
            .filter(|mapping| {
                let stream = text_of(&mapping["EventSourceArn"]).unwrap_or_default();
                table_of_stream(stream).is_some_and(|table| tables.contains_key(table))
            })
            .collect();
        let mut uuids: BTreeMap<String, &str> = BTreeMap::new();
        for mapping in evaluated.iter().chain(&others) {
            let entry = self.mapping(mapping);
            uuids.insert(entry.location.resource.clone(), mapping["UUID"].as_str().unwrap_or_default());
            self.entries.push(entry);
        }
        for mapping in &others {
            // A function that reads a replica may write to its source.
            let function = text_of(&mapping["FunctionArn"]).unwrap_or_default();
            self.add_function(function);
        }
        self.add_stores(&evaluated);
        let streams: BTreeSet<&str> = evaluated.iter().filter_map(|it| text_of(&it["EventSourceArn"])).collect();
        let unknown_pipes = streams.into_iter().filter_map(|stream| self.add_pipes(stream)).last();
        self.add_routes();
        let unknown_alarms = self.add_alarms();
        let mut problems = std::mem::take(&mut self.problems);
        let mut deployment = deployment_builder::build(&self.entries, &mut problems);
        deployment.form = DeploymentForm::Account;
        deployment.unknown_alarms = unknown_alarms;
        deployment.unknown_pipes = unknown_pipes;
        deployment.unread.append(&mut self.unread);
        // Alarms, metrics and failure objects name a mapping by its UUID.
        for mapping in &mut deployment.mappings {
            mapping.id = (*uuids.get(&mapping.location.resource).unwrap_or(&"")).to_owned();
        }
        let is_evaluated = |mapping: &StreamMapping| evaluated.iter().any(|it| it["UUID"] == mapping.id.as_str());
        (deployment.mappings, deployment.other_mappings) =
            std::mem::take(&mut deployment.mappings).into_iter().partition(is_evaluated);
        for function in &deployment.functions {
            if let Some(arn) = function.role.known()
                && !deployment.roles.iter().any(|role| role.arn == *arn)
            {
                let unknown = Some("its policies are not read".to_owned());
                let name = arn.rsplit('/').next().unwrap_or_default().to_owned();
                deployment.roles.push(RolePermissions {
                    name,
                    arn: arn.clone(),
                    unknown,
                    ..RolePermissions::default()
                });
            }
        }
        account_observation::add(self.book, &mut deployment, &evaluated);
        DeploymentReading { deployment, problems, unknown_parameters: Vec::new() }
    }

    fn is_evaluated(&self, mapping: &Value) -> bool {
        let [function, stream, uuid] =
            ["FunctionArn", "EventSourceArn", "UUID"].map(|member| mapping[member].as_str().unwrap_or_default());
        let (name, _) = function_name(function);
        match &self.book.recording.target {
            AccountTarget::Stack(_) => {
                self.stack_resource("AWS::Lambda::EventSourceMapping", uuid).is_some()
                    || self.stack_resource("AWS::Lambda::Function", name).is_some()
            }
            AccountTarget::Function(target) => name == function_name(target).0,
            AccountTarget::Table(target) => {
                let target = target.rsplit_once(":table/").map_or(target.as_str(), |(_, name)| name);
                table_of_stream(stream) == Some(target)
            }
        }
    }

    /// Returns a mapping in the form of a template.
    fn mapping(&self, mapping: &Value) -> ResourceEntry {
        let uuid = mapping["UUID"].as_str().unwrap_or_default();
        let function = mapping["FunctionArn"].as_str().unwrap_or_default();
        let state = mapping["State"].as_str().unwrap_or_default();
        let properties = json!({
            "EventSourceArn": mapping["EventSourceArn"],
            "FunctionName": function,
            "Enabled": !matches!(state, "Disabled" | "Disabling" | "Deleting"),
            "BatchSize": mapping["BatchSize"],
            "ParallelizationFactor": mapping["ParallelizationFactor"],
            "MaximumRetryAttempts": mapping["MaximumRetryAttempts"],
            "MaximumRecordAgeInSeconds": mapping["MaximumRecordAgeInSeconds"],
            "BisectBatchOnFunctionError": mapping["BisectBatchOnFunctionError"],
            "FunctionResponseTypes": mapping["FunctionResponseTypes"],
            "StartingPosition": mapping["StartingPosition"],
            "DestinationConfig": mapping["DestinationConfig"],
            "FilterCriteria": mapping["FilterCriteria"],
            "MetricsConfig": mapping["MetricsConfig"],
        });
        let of_stack = self.stack_resource("AWS::Lambda::EventSourceMapping", uuid);
        let resource =
            of_stack.map_or_else(|| format!("{}.{uuid}", function_name(function).0), |of_stack| of_stack.id.clone());
        let mut entry = self.entry(&resource, "AWS::Lambda::EventSourceMapping", &properties);
        entry.metadata = of_stack.and_then(|of_stack| of_stack.metadata.clone());
        entry
    }

    /// Reads a function as the mapping invokes it, and returns the replicas that it names.
    fn add_function(&mut self, arn: &str) -> Vec<String> {
        if self.entries.iter().any(|entry| entry.kind == "AWS::Lambda::Function" && entry.arn == arn) {
            return Vec::new();
        }
        let (name, qualifier) = function_name(arn);
        let mut parameters = vec![("FunctionName", name)];
        parameters.extend(qualifier.map(|qualifier| ("Qualifier", qualifier)));
        let mut replicas = Vec::new();
        let properties = match self.book.response(&GET_FUNCTION, &parameters) {
            SettingValue::Known(configuration) => {
                let concurrency = self.book.response(&GET_CONCURRENCY, &[("FunctionName", name)]);
                let variables = &configuration["Environment"]["Variables"];
                replicas = readable_replicas(arn, variables);
                json!({
                    "Timeout": configuration["Timeout"],
                    "ReservedConcurrentExecutions":
                        value_of(concurrency.map(|it| it["ReservedConcurrentExecutions"].clone())),
                    "Role": configuration["Role"],
                    "Environment": {"Variables": variables},
                    "LoggingConfig": configuration["LoggingConfig"],
                    "VpcConfig": {
                        "SubnetIds": configuration["VpcConfig"]["SubnetIds"],
                        "SecurityGroupIds": configuration["VpcConfig"]["SecurityGroupIds"],
                    },
                })
            }
            SettingValue::Absent => unresolved("the function does not exist"),
            SettingValue::Unresolved(reason) => unresolved(&reason),
        };
        let of_stack = self.stack_resource("AWS::Lambda::Function", name);
        let resource = of_stack.map_or(name, |of_stack| &of_stack.id).to_owned();
        let metadata = of_stack.and_then(|of_stack| of_stack.metadata.clone());
        let reports_failures = of_stack.and_then(|of_stack| of_stack.reports_failures);
        let mut entry = self.entry(&resource, "AWS::Lambda::Function", &properties);
        entry.metadata = metadata;
        if let Some(reports) = reports_failures {
            entry.reports_failures = SettingValue::Known(reports);
        }
        name.clone_into(&mut entry.name);
        arn.clone_into(&mut entry.arn);
        // A qualified name is looked up before the function's own.
        let at = if qualifier.is_some() { 0 } else { self.entries.len() };
        self.entries.insert(at, entry);
        replicas
    }

    /// Reads a table by its name or ARN.
    fn add_table(&mut self, reference: &str) {
        let name = reference.rsplit_once(":table/").map_or(reference, |(_, name)| name);
        let parameters = [("TableName", reference)];
        let mut kind = "AWS::DynamoDB::Table";
        let mut is_protected = false;
        let properties = match self.book.response(&DESCRIBE_TABLE, &parameters) {
            SettingValue::Known(response) => {
                let table = &response["Table"];
                if table["Replicas"].as_array().is_some_and(|replicas| !replicas.is_empty()) {
                    kind = "AWS::DynamoDB::GlobalTable";
                }
                is_protected = table["DeletionProtectionEnabled"] == true;
                let has_stream = table["StreamSpecification"]["StreamEnabled"] == true;
                let ttl = self.book.response(&DESCRIBE_TTL, &parameters).map(|response| {
                    let ttl = &response["TimeToLiveDescription"];
                    let is_on = matches!(ttl["TimeToLiveStatus"].as_str(), Some("ENABLED" | "ENABLING"));
                    json!({"Enabled": is_on, "AttributeName": ttl["AttributeName"]})
                });
                let recovery = self.book.response(&DESCRIBE_BACKUPS, &parameters).map(|response| {
                    let recovery = &response["ContinuousBackupsDescription"]["PointInTimeRecoveryDescription"];
                    json!({"PointInTimeRecoveryEnabled": recovery["PointInTimeRecoveryStatus"] == "ENABLED"})
                });
                let key = text_of(&table["SSEDescription"]["KMSMasterKeyArn"]).map(|key| self.customer_key(key));
                json!({
                    "KeySchema": table["KeySchema"],
                    "AttributeDefinitions": table["AttributeDefinitions"],
                    "StreamSpecification": if has_stream { table["StreamSpecification"].clone() } else { Value::Null },
                    "LatestStreamArn": table["LatestStreamArn"],
                    "TimeToLiveSpecification": value_of(ttl),
                    "PointInTimeRecoverySpecification": value_of(recovery),
                    "DeletionProtectionEnabled": is_protected,
                    "SSESpecification": {"KMSMasterKeyId": key},
                })
            }
            SettingValue::Absent => return,
            SettingValue::Unresolved(reason) => unresolved(&reason),
        };
        let of_stack = self
            .stack_resource("AWS::DynamoDB::Table", name)
            .or_else(|| self.stack_resource("AWS::DynamoDB::GlobalTable", name));
        let resource = of_stack.map_or(name, |of_stack| &of_stack.id).to_owned();
        let metadata = of_stack.and_then(|of_stack| of_stack.metadata.clone());
        let retained = match of_stack {
            Some(of_stack) => of_stack.retained.clone(),
            // No deployment can delete it, whichever it belongs to.
            None if is_protected => SettingValue::Known(true),
            None => SettingValue::Unresolved("the stack of the table is not read: use --stack".to_owned()),
        };
        let mut entry = self.entry(&resource, kind, &properties);
        entry.metadata = metadata;
        entry.retained = retained;
        name.clone_into(&mut entry.name);
        self.entries.push(entry);
    }

    /// Returns the ARN of a customer managed key, which is read, too; null for a key that AWS manages.
    fn customer_key(&mut self, key: &str) -> Value {
        let response = match self.book.response(&DESCRIBE_KEY, &[("KeyId", key)]) {
            SettingValue::Known(response) => &response["KeyMetadata"],
            SettingValue::Absent => return Value::Null,
            SettingValue::Unresolved(reason) => return unresolved(&reason),
        };
        if response["KeyManager"] != "CUSTOMER" {
            return Value::Null;
        }
        let arn = response["Arn"].as_str().unwrap_or(key).to_owned();
        if self.keys.insert(arn.clone()) {
            let policy = self.book.response(&GET_KEY_POLICY, &[("KeyId", &arn), ("PolicyName", "default")]);
            let policy = policy.map(|response| document(&response["Policy"]));
            let state = response["KeyState"].as_str().unwrap_or("in an unknown state");
            let properties = json!({"Enabled": state == "Enabled", "KeyState": state, "KeyPolicy": value_of(policy)});
            let id = arn.rsplit('/').next().unwrap_or_default();
            let of_stack = self.stack_resource("AWS::KMS::Key", id);
            let resource = of_stack.map_or(id, |of_stack| &of_stack.id).to_owned();
            let metadata = of_stack.and_then(|of_stack| of_stack.metadata.clone());
            let mut entry = self.entry(&resource, "AWS::KMS::Key", &properties);
            entry.metadata = metadata;
            entry.arn.clone_from(&arn);
            self.entries.push(entry);
        }
        arn.into()
    }

    fn add_bucket(&mut self, bucket: &str) {
        if self.entries.iter().any(|entry| entry.kind == "AWS::S3::Bucket" && entry.name == bucket) {
            return;
        }
        let parameters = [("Bucket", bucket)];
        let versioning = self.book.response(&GET_VERSIONING, &parameters).map(|it| json!({"Status": it["Status"]}));
        let lifecycle = self.book.response(&GET_LIFECYCLE, &parameters).map(|response| {
            let rules: Vec<Value> = one_or_many(&response["Rule"]).into_iter().map(lifecycle_rule).collect();
            json!({"Rules": rules})
        });
        let properties = json!({
            "VersioningConfiguration": value_of(versioning),
            "LifecycleConfiguration": value_of(lifecycle),
            "BucketEncryption": self.bucket_encryption(bucket),
        });
        let resource = self.add_bucket_entry(bucket, &properties);
        match self.book.response(&GET_BUCKET_POLICY, &parameters) {
            SettingValue::Known(policy) => {
                let properties = json!({"Bucket": bucket, "PolicyDocument": document(policy)});
                let entry = self.entry(&resource, "AWS::S3::BucketPolicy", &properties);
                self.entries.push(entry);
            }
            SettingValue::Absent => {}
            SettingValue::Unresolved(reason) => {
                let properties = json!({"Bucket": bucket, "PolicyDocument": unresolved(&reason)});
                let entry = self.entry(&resource, "AWS::S3::BucketPolicy", &properties);
                self.entries.push(entry);
            }
        }
    }

    /// Reads the destinations of mappings, and the keys of the buckets of Millrace's own functions.
    fn add_stores(&mut self, evaluated: &[&Value]) {
        for mapping in evaluated {
            let function = text_of(&mapping["FunctionArn"]).unwrap_or_default();
            let Some(arn) = text_of(&mapping["DestinationConfig"]["OnFailure"]["Destination"]) else { continue };
            match (bucket_name(arn), arn.split(':').nth(2)) {
                (Some(bucket), _) => self.add_bucket(bucket),
                (None, Some("sqs" | "sns")) => self.add_message_destination(arn, function),
                (None, _) => {}
            }
        }
        for mapping in evaluated {
            for bucket in self.own_buckets(text_of(&mapping["FunctionArn"]).unwrap_or_default()) {
                self.add_bucket_key(&bucket);
            }
        }
    }

    /// Reads the key of a bucket that is not a destination, and nothing else of it.
    fn add_bucket_key(&mut self, bucket: &str) {
        if self.entries.iter().any(|entry| entry.kind == "AWS::S3::Bucket" && entry.name == bucket) {
            return;
        }
        let properties = json!({"BucketEncryption": self.bucket_encryption(bucket)});
        self.add_bucket_entry(bucket, &properties);
    }

    /// Adds a bucket and returns the name of its resource.
    fn add_bucket_entry(&mut self, bucket: &str, properties: &Value) -> String {
        let of_stack = self.stack_resource("AWS::S3::Bucket", bucket);
        let resource = of_stack.map_or(bucket, |of_stack| &of_stack.id).to_owned();
        let metadata = of_stack.and_then(|of_stack| of_stack.metadata.clone());
        let mut entry = self.entry(&resource, "AWS::S3::Bucket", properties);
        entry.metadata = metadata;
        bucket.clone_into(&mut entry.name);
        self.entries.push(entry);
        resource
    }

    /// Returns the default encryption of a bucket, whose key is read, too.
    fn bucket_encryption(&mut self, bucket: &str) -> Value {
        let default = self.book.response(&GET_ENCRYPTION, &[("Bucket", bucket)]).map(|response| {
            let rule = one_or_many(&response["Rule"]).first().copied().cloned().unwrap_or_default();
            rule["ApplyServerSideEncryptionByDefault"].clone()
        });
        let key = match default {
            SettingValue::Known(default) => text_of(&default["KMSMasterKeyID"]).map(|key| self.customer_key(key)),
            SettingValue::Absent => None,
            SettingValue::Unresolved(reason) => Some(unresolved(&reason)),
        };
        json!({"ServerSideEncryptionConfiguration": [{"ServerSideEncryptionByDefault": {"KMSMasterKeyID": key}}]})
    }

    /// Returns the buckets of the archive and of the quarantine, if a function is one of Millrace's own.
    fn own_buckets(&self, function: &str) -> Vec<String> {
        let is_function = |entry: &&ResourceEntry| entry.kind == "AWS::Lambda::Function" && entry.arn == function;
        let variables = match self.entries.iter().find(is_function) {
            Some(entry) => entry.properties.at(&["Environment", "Variables"]).known().copied(),
            None => None,
        };
        let variable = |name: &str| variables?.get(name)?.text().filter(|text| !text.is_empty());
        if own_purpose(|name| variable(name).is_some()).is_none() {
            return Vec::new();
        }
        ["ARCHIVE_BUCKET", "FAILURE_BUCKET"].into_iter().filter_map(variable).map(str::to_owned).collect()
    }

    /// Reads the policy and the key of a queue or a topic.
    fn add_message_destination(&mut self, arn: &str, function: &str) {
        if self.entries.iter().any(|entry| entry.arn == arn) {
            return;
        }
        let is_queue = arn.split(':').nth(2) == Some("sqs");
        let response = if region_and_account(arn).map(|(region, _)| region)
            != region_and_account(function).map(|(region, _)| region)
        {
            SettingValue::Unresolved(format!("{arn} is in another Region, which is not read"))
        } else if is_queue {
            self.book.response(&GET_QUEUE, &[("QueueArn", arn)])
        } else {
            self.book.response(&GET_TOPIC, &[("TopicArn", arn)])
        };
        let properties = match response {
            SettingValue::Known(response) => {
                let policy = attribute(&response["Attributes"], "Policy");
                let key = attribute(&response["Attributes"], "KmsMasterKeyId").map(|key| self.customer_key(key));
                json!({"Policy": policy.map(|policy| document(&policy.into())), "KmsMasterKeyId": key})
            }
            SettingValue::Absent => Value::Null,
            SettingValue::Unresolved(reason) => {
                json!({"Policy": unresolved(&reason), "KmsMasterKeyId": unresolved(&reason)})
            }
        };
        let name = arn.rsplit(':').next().unwrap_or_default();
        let kind = if is_queue { "AWS::SQS::Queue" } else { "AWS::SNS::Topic" };
        let mut entry = self.entry(name, kind, &properties);
        arn.clone_into(&mut entry.arn);
        self.entries.push(entry);
    }

    fn add_routes(&mut self) {
        let apis: Vec<String> = self
            .stack
            .keys()
            .filter(|(kind, _)| kind == "AWS::ApiGatewayV2::Api")
            .map(|(_, physical)| physical.clone())
            .collect();
        for api in apis {
            let of_stack = self.stack_resource("AWS::ApiGatewayV2::Api", &api);
            let id = of_stack.map_or(&api, |of_stack| &of_stack.id).clone();
            match self.book.response(&GET_ROUTES, &[("ApiId", &api)]) {
                SettingValue::Known(response) => {
                    let routes = one_or_many(&response["items"]);
                    // The routes of a WebSocket API share the authorizer of $connect.
                    if routes.iter().any(|route| route["routeKey"] == "$connect") {
                        continue;
                    }
                    for route in routes {
                        let properties = json!({
                            "RouteKey": route["routeKey"],
                            "AuthorizationType": route["authorizationType"],
                        });
                        let entry = self.entry(&id, "AWS::ApiGatewayV2::Route", &properties);
                        self.entries.push(entry);
                    }
                }
                SettingValue::Absent => {}
                SettingValue::Unresolved(reason) => {
                    self.unread.push((self.location(id), format!("the routes of the API: {reason}")));
                }
            }
        }
    }

    /// Reads the pipes of a stream, or returns the reason why they are not known.
    fn add_pipes(&mut self, stream: &str) -> Option<String> {
        match self.book.response(&LIST_PIPES, &[("SourcePrefix", stream)]) {
            SettingValue::Known(response) => {
                for pipe in one_or_many(&response["Pipes"]).into_iter().filter(|pipe| pipe["Source"] == stream) {
                    let properties = json!({"Source": stream, "DesiredState": pipe["DesiredState"]});
                    let entry = self.entry(text_of(&pipe["Name"]).unwrap_or_default(), "AWS::Pipes::Pipe", &properties);
                    self.entries.push(entry);
                }
                None
            }
            SettingValue::Absent => None,
            SettingValue::Unresolved(reason) => Some(reason),
        }
    }

    /// Reads the alarms, or returns the reason why they are not known.
    fn add_alarms(&mut self) -> Option<String> {
        match self.book.response(&DESCRIBE_ALARMS, &[("AlarmTypes.member.1", "MetricAlarm")]) {
            SettingValue::Known(response) => {
                for alarm in one_or_many(&response["MetricAlarms"]) {
                    let entry = self.entry("", "AWS::CloudWatch::Alarm", alarm);
                    self.entries.push(entry);
                }
                None
            }
            SettingValue::Absent => None,
            SettingValue::Unresolved(reason) => Some(reason),
        }
    }
}

/// Returns the name of the SAM event whose mapping has this logical ID.
fn event_of(declared: &TemplateNode, id: &str) -> Option<String> {
    declared.entries().iter().find_map(|(function, node)| {
        let event = id.strip_prefix(function.as_str())?;
        node.get("Properties")?.get("Events")?.get(event).map(|_| format!("{function}.{event}"))
    })
}

/// Parses a policy, which some services return as text.
fn document(policy: &Value) -> Value {
    match policy {
        Value::String(text) => {
            serde_json::from_str(text).unwrap_or_else(|_| unresolved("the policy is not a JSON document"))
        }
        policy => policy.clone(),
    }
}

/// Returns a lifecycle rule of S3 in the form of a template.
fn lifecycle_rule(rule: &Value) -> Value {
    let filter = &rule["Filter"];
    let prefix = [&rule["Prefix"], &filter["Prefix"], &filter["And"]["Prefix"]].into_iter().find_map(text_of);
    let narrowing = ["Tag", "ObjectSizeGreaterThan", "ObjectSizeLessThan"];
    let is_narrowed = narrowing.iter().any(|name| !filter[*name].is_null() || !filter["And"][*name].is_null());
    json!({
        "Status": rule["Status"],
        "Prefix": prefix,
        "TagFilters": is_narrowed.then_some("some"),
        "ExpirationInDays": rule["Expiration"]["Days"],
        "ExpirationDate": rule["Expiration"]["Date"],
    })
}

/// Returns an attribute of a queue or a topic: a member of an object, or an entry of a map in XML.
fn attribute<'v>(attributes: &'v Value, name: &str) -> Option<&'v str> {
    let entries = one_or_many(&attributes["entry"]);
    let of_entry = entries.into_iter().find(|entry| entry["key"] == name).map(|entry| &entry["value"]);
    of_entry.or_else(|| attributes.get(name)).and_then(text_of)
}

/// Returns the replicas of a function in its own Region and account.
fn readable_replicas(function: &str, variables: &Value) -> Vec<String> {
    let variable =
        |(name, value): (&String, &Value)| Some((name.clone(), SettingValue::Known(text_of(value)?.to_owned())));
    let variables: BTreeMap<String, SettingValue<String>> =
        variables.as_object().into_iter().flatten().filter_map(variable).collect();
    replicas_of(function, &variables).into_iter().filter_map(|replica| replica.known().cloned()).collect()
}
