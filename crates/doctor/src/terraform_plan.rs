//! Reader of a Terraform plan (`terraform show -json`): [`read`].
//!
//! Each resource becomes the one of `CloudFormation` with the same settings, so the same rules evaluate both. A plan has
//! no value for what only the deployment assigns; the expression of the configuration then identifies the resource. An
//! attribute without an expression is not set, whatever default the provider computes.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::deployment::{DeploymentForm, SourceLocation};
use crate::deployment_builder;
use crate::resource_entry::{ApiDocument, ResourceEntry, resolved_json, unresolved};
use crate::setting::SettingValue;
use crate::template_node::TemplateNode;
use crate::template_reader::DeploymentReading;
use crate::template_scope::ResolvedNode;

/// The maximum depth of modules.
const MAX_MODULE_DEPTH: usize = 16;
/// The maximum number of resources: those of a module are looked up by each other.
const MAX_RESOURCES: usize = 10_000;
/// An absent value.
static NULL: Value = Value::Null;
/// The Region and account of a deployment.
const HERE: &str = "${AWS.Region}:${AWS.AccountId}";

/// Returns whether a JSON document is a plan.
#[must_use]
pub fn is_plan(document: &Value) -> bool {
    document.get("planned_values").is_some() || document.get("resource_changes").is_some()
}

/// Reads a plan.
#[must_use]
pub fn read(document: &Value, file: &str) -> DeploymentReading {
    let mut plan = TerraformPlan {
        file,
        resources: BTreeMap::new(),
        unknown: BTreeMap::new(),
        expressions: BTreeMap::new(),
        modules: BTreeMap::new(),
        variables: &document["variables"],
    };
    plan.add_resources(&document["planned_values"]["root_module"], 0);
    plan.add_expressions(&document["configuration"]["root_module"], &NULL, "", 0);
    for change in document["resource_changes"].as_array().into_iter().flatten() {
        if let Some(address) = change["address"].as_str() {
            plan.unknown.insert(address, &change["change"]["after_unknown"]);
        }
    }
    let mut problems = Vec::new();
    if plan.resources.len() > MAX_RESOURCES {
        let count = plan.resources.len();
        problems.push(format!("{file}: the plan has {count} resources: at most {MAX_RESOURCES} are read"));
        return DeploymentReading { problems, ..DeploymentReading::default() };
    }
    let entries: Vec<ResourceEntry> = plan.resources.keys().filter_map(|address| plan.entry(address)).collect();
    if plan.resources.is_empty() {
        problems.push(format!("{file}: the plan has no planned_values: create it with terraform show -json PLAN"));
    }
    let mut deployment = deployment_builder::build(&entries, &mut problems);
    deployment.form = DeploymentForm::Terraform;
    DeploymentReading { deployment, problems, unknown_parameters: Vec::new() }
}

struct TerraformPlan<'p> {
    file: &'p str,
    /// The planned resources by address.
    resources: BTreeMap<&'p str, &'p Value>,
    /// The attributes that are known only after the deployment, by address.
    unknown: BTreeMap<&'p str, &'p Value>,
    /// The expressions of the configuration by address, without the keys of instances.
    expressions: BTreeMap<String, &'p Value>,
    /// Each module with its call, by path without the keys of instances.
    modules: BTreeMap<String, (&'p Value, &'p Value)>,
    /// The values of the root module's variables.
    variables: &'p Value,
}

/// Returns the first element of a block, which is a list of objects.
fn first(value: &Value) -> &Value {
    if value.is_array() { &value[0] } else { value }
}

impl<'p> TerraformPlan<'p> {
    fn add_resources(&mut self, module: &'p Value, depth: usize) {
        if depth > MAX_MODULE_DEPTH {
            return;
        }
        for resource in module["resources"].as_array().into_iter().flatten() {
            if let (Some(address), Some("managed")) = (resource["address"].as_str(), resource["mode"].as_str()) {
                self.resources.insert(address, resource);
            }
        }
        for child in module["child_modules"].as_array().into_iter().flatten() {
            self.add_resources(child, depth + 1);
        }
    }

    fn add_expressions(&mut self, module: &'p Value, call: &'p Value, path: &str, depth: usize) {
        if depth > MAX_MODULE_DEPTH {
            return;
        }
        self.modules.insert(path.to_owned(), (module, call));
        for resource in module["resources"].as_array().into_iter().flatten() {
            if let Some(address) = resource["address"].as_str() {
                self.expressions.insert(format!("{path}{address}"), &resource["expressions"]);
            }
        }
        for (name, call) in module["module_calls"].as_object().into_iter().flatten() {
            self.add_expressions(&call["module"], call, &format!("{path}module.{name}."), depth + 1);
        }
    }

    /// Returns the attribute at a path; blocks are lists of objects, of which the first is meant.
    fn attribute(&self, address: &str, path: &[&str]) -> Option<Value> {
        let mut value = &self.resources.get(address)?["values"];
        let mut expression = self.expressions.get(&without_keys(address)).copied().unwrap_or(&NULL);
        let mut unknown = self.unknown.get(address).copied();
        for name in path {
            value = &first(value)[*name];
            expression = &first(expression)[*name];
            // All parts of an unknown value are unknown.
            unknown = unknown.map(|unknown| if *unknown == true { unknown } else { &first(unknown)[*name] });
        }
        if !value.is_null() {
            return Some(value.clone());
        }
        // A variable without a value is an attribute that is not set.
        if unknown.is_some_and(|unknown| *unknown != true) {
            return None;
        }
        let wanted = match path.last() {
            Some(&("event_source_arn" | "source")) => "stream_arn",
            Some(name) if name.ends_with("_arn") || matches!(*name, "function_name" | "role") => "arn",
            _ => "id",
        };
        self.expression(address, expression, wanted, 0)
    }

    /// Returns the value of an expression in the module of an address; `None` if there is no expression.
    fn expression(&self, from: &str, expression: &Value, wanted: &str, depth: usize) -> Option<Value> {
        if !expression["constant_value"].is_null() {
            return Some(expression["constant_value"].clone());
        }
        let references: Vec<&str> = expression["references"].as_array()?.iter().filter_map(Value::as_str).collect();
        Some(match references.first() {
            _ if depth > MAX_MODULE_DEPTH => unresolved("a value depends on itself"),
            Some(reference) => self.reference(from, reference, &references, wanted, depth),
            None => unresolved("known after the deployment"),
        })
    }

    /// Returns the value of a reference such as `aws_dynamodb_table.users.stream_arn`, `var.stream_arn` or
    /// `module.table.stream_arn` in the module of an address.
    fn reference(&self, from: &str, reference: &str, all: &[&str], wanted: &str, depth: usize) -> Value {
        let unknown = || unresolved(&format!("{reference} is not resolved"));
        let module = module_of(from);
        let parts = split_address(reference);
        match parts[..] {
            ["var", name, ..] if module.is_empty() => {
                let value = &self.variables[name]["value"];
                if value.is_null() || parts.len() > 2 { unknown() } else { value.clone() }
            }
            ["var", name, ..] => {
                let Some((_, call)) = self.modules.get(&without_keys(module)) else { return unknown() };
                // The call is in the module around it.
                let outer = module_of(module.trim_end_matches('.'));
                let outer = format!("{outer}{CALLER}");
                let value = self.expression(&outer, &call["expressions"][name], wanted, depth + 1);
                value.unwrap_or_else(unknown)
            }
            ["module", name, output, ..] => {
                let inner = format!("{module}module.{name}.");
                let Some((definition, _)) = self.modules.get(&without_keys(&inner)) else { return unknown() };
                let expression = &definition["outputs"][output]["expression"];
                self.expression(&format!("{inner}{CALLER}"), expression, wanted, depth + 1).unwrap_or_else(unknown)
            }
            [kind, name, ..] => {
                let attribute = parts.get(2).copied().unwrap_or(wanted);
                match self.instance(from, &format!("{module}{kind}.{name}"), all) {
                    Some(address) => self.identity(address, kind, attribute).into(),
                    None => unknown(),
                }
            }
            _ => unknown(),
        }
    }

    /// Returns the planned resource of an address, which may lack the key of its instance, or of its module's: the only
    /// instance, or the one with the key of the resource that refers to it.
    fn instance(&self, from: &str, address: &str, all: &[&str]) -> Option<&'p str> {
        if let Some((address, _)) = self.resources.get_key_value(address) {
            return Some(*address);
        }
        let plain = without_keys(address);
        let mut instances = self.resources.keys().filter(|other| without_keys(other) == plain);
        let one = instances.next()?;
        if instances.next().is_none() {
            return Some(*one);
        }
        let has_own_key = all.iter().any(|reference| matches!(*reference, "each.key" | "count.index"));
        let key = from.strip_suffix(']').and_then(|_| from.rfind('[')).map(|at| &from[at..])?;
        let own = format!("{address}{key}");
        self.resources.get_key_value(own.as_str()).map(|(address, _)| *address).filter(|_| has_own_key)
    }

    /// Returns an attribute of a resource that identifies it.
    fn identity(&self, address: &str, kind: &str, attribute: &str) -> String {
        let values = self.resources.get(address).map_or(&NULL, |resource| &resource["values"]);
        let name_member = match kind {
            "aws_s3_bucket" => "bucket",
            "aws_lambda_function" => "function_name",
            _ => "name",
        };
        let name = values[name_member].as_str().map_or_else(|| format!("${{{address}}}"), str::to_owned);
        match (kind, attribute) {
            ("aws_dynamodb_table", "stream_arn") => {
                format!("arn:aws:dynamodb:{HERE}:table/{name}/stream/${{{address}.StreamLabel}}")
            }
            ("aws_dynamodb_table", "arn") => format!("arn:aws:dynamodb:{HERE}:table/{name}"),
            ("aws_s3_bucket", "arn") => format!("arn:aws:s3:::{name}"),
            ("aws_sqs_queue", "arn" | "id" | "url") => format!("arn:aws:sqs:{HERE}:{name}"),
            ("aws_sns_topic", "arn" | "id") => format!("arn:aws:sns:{HERE}:{name}"),
            ("aws_kms_key", "arn") => format!("arn:aws:kms:{HERE}:key/${{{address}}}"),
            ("aws_iam_role", "arn") => format!("arn:aws:iam::${{AWS.AccountId}}:role/{name}"),
            ("aws_lambda_function", "arn" | "invoke_arn" | "qualified_arn") => {
                format!("arn:aws:lambda:{HERE}:function:{name}")
            }
            ("aws_lambda_event_source_mapping", "id" | "uuid") | ("aws_kms_key", "id" | "key_id") => {
                format!("${{{address}}}")
            }
            ("aws_dynamodb_table" | "aws_iam_role" | "aws_s3_bucket" | "aws_kms_alias", _)
            | (_, "name" | "function_name") => name,
            _ => format!("${{{address}.{attribute}}}"),
        }
    }

    fn entry(&self, address: &str) -> Option<ResourceEntry> {
        let resource = self.resources.get(address)?;
        let kind = resource["type"].as_str()?;
        let get = |path: &[&str]| self.attribute(address, path).unwrap_or(Value::Null);
        let (converted, properties) = match kind {
            "aws_lambda_event_source_mapping" => ("AWS::Lambda::EventSourceMapping", mapping(&get)),
            "aws_lambda_function" => (
                "AWS::Lambda::Function",
                json!({
                    "Timeout": get(&["timeout"]),
                    "ReservedConcurrentExecutions": reserved(get(&["reserved_concurrent_executions"])),
                    "Role": get(&["role"]),
                    "Environment": {"Variables": get(&["environment", "variables"])},
                    "LoggingConfig": {
                        "LogFormat": get(&["logging_config", "log_format"]),
                        "ApplicationLogLevel": get(&["logging_config", "application_log_level"]),
                    },
                    "VpcConfig": {"SubnetIds": get(&["vpc_config", "subnet_ids"])},
                }),
            ),
            "aws_dynamodb_table" => ("AWS::DynamoDB::Table", table(&get)),
            "aws_s3_bucket" => ("AWS::S3::Bucket", self.bucket(address)),
            "aws_iam_role" => ("AWS::IAM::Role", json!({"ManagedPolicyArns": get(&["managed_policy_arns"])})),
            "aws_iam_role_policy" => (
                "AWS::IAM::RolePolicy",
                json!({"RoleName": get(&["role"]), "PolicyDocument": document(&get(&["policy"]))}),
            ),
            // The statements of an attached policy are not followed.
            "aws_iam_role_policy_attachment" => (
                "AWS::IAM::RolePolicy",
                json!({"RoleName": get(&["role"]), "PolicyDocument": attached(&get(&["policy_arn"]))}),
            ),
            "aws_kms_key" => {
                let policy = match get(&["policy"]) {
                    Value::Null => Value::Null,
                    policy => document(&policy),
                };
                ("AWS::KMS::Key", json!({"Enabled": get(&["is_enabled"]), "KeyPolicy": policy}))
            }
            "aws_kms_alias" => {
                ("AWS::KMS::Alias", json!({"AliasName": get(&["name"]), "TargetKeyId": get(&["target_key_id"])}))
            }
            "aws_s3_bucket_policy" => (
                "AWS::S3::BucketPolicy",
                json!({"Bucket": get(&["bucket"]), "PolicyDocument": document(&get(&["policy"]))}),
            ),
            "aws_sqs_queue" | "aws_sns_topic" => {
                let policy = match get(&["policy"]) {
                    Value::Null => Value::Null,
                    policy => document(&policy),
                };
                let converted = if kind == "aws_sqs_queue" { "AWS::SQS::Queue" } else { "AWS::SNS::Topic" };
                (converted, json!({"KmsMasterKeyId": non_empty(get(&["kms_master_key_id"])), "Policy": policy}))
            }
            "aws_sqs_queue_policy" => {
                // A URL ends with the name.
                let queue = get(&["queue_url"]);
                let name =
                    queue.as_str().and_then(|url| url.rsplit('/').next()).map(Value::from).unwrap_or(queue.clone());
                let policy = document(&get(&["policy"]));
                ("AWS::SQS::QueuePolicy", json!({"Queues": [name], "PolicyDocument": policy}))
            }
            "aws_sns_topic_policy" => (
                "AWS::SNS::TopicPolicy",
                json!({"Topics": [get(&["arn"])], "PolicyDocument": document(&get(&["policy"]))}),
            ),
            "aws_pipes_pipe" => {
                ("AWS::Pipes::Pipe", json!({"Source": get(&["source"]), "DesiredState": get(&["desired_state"])}))
            }
            "aws_cloudwatch_metric_alarm" => ("AWS::CloudWatch::Alarm", alarm(&get)),
            "aws_apigatewayv2_route" => ("AWS::ApiGatewayV2::Route", api_route(&get)),
            "aws_apigatewayv2_api" => ("AWS::ApiGatewayV2::Api", api(&get)),
            _ => return None,
        };
        let properties = resolved_json(&properties);
        Some(ResourceEntry {
            location: SourceLocation { file: self.file.to_owned(), line: 0, resource: address.to_owned() },
            kind: converted.to_owned(),
            name: match kind {
                "aws_lambda_event_source_mapping" | "aws_apigatewayv2_api" => self.identity(address, kind, "id"),
                _ => self.identity(address, kind, "name"),
            },
            arn: self.identity(address, kind, "arn"),
            properties,
            metadata: None,
            // Terraform deletes what is no longer configured, unless the configuration prevents it.
            // A table with deletion protection cannot be deleted at all.
            retained: if get(&["deletion_protection_enabled"]) == true {
                SettingValue::Known(true)
            } else {
                SettingValue::Unresolved("prevent_destroy is not part of a plan".to_owned())
            },
            literal_streams: Vec::new(),
            reports_failures: SettingValue::Unresolved("the function's code is not in the plan".to_owned()),
            api_document: if kind == "aws_apigatewayv2_api" { body_of(&get(&["body"])) } else { SettingValue::Absent },
        })
    }

    /// Returns a bucket with the settings that are resources of their own.
    fn bucket(&self, address: &str) -> Value {
        let own = self.identity(address, "aws_s3_bucket", "id");
        let of_bucket = |kind: &str| {
            self.resources.iter().find_map(|(other, resource)| {
                let is_own = resource["type"] == kind
                    && self.attribute(other, &["bucket"]).is_some_and(|name| name == own.as_str());
                is_own.then_some(*other)
            })
        };
        let versioning = of_bucket("aws_s3_bucket_versioning")
            .and_then(|other| self.attribute(other, &["versioning_configuration", "status"]));
        let lifecycle =
            of_bucket("aws_s3_bucket_lifecycle_configuration").and_then(|other| self.attribute(other, &["rule"]));
        let rules = lifecycle.as_ref().and_then(Value::as_array).map(|rules| {
            let rule = |rule: &Value| {
                let filter = &rule["filter"][0];
                let prefix = [&rule["prefix"], &filter["prefix"], &filter["and"][0]["prefix"]]
                    .into_iter()
                    .find(|prefix| prefix.as_str().is_some_and(|prefix| !prefix.is_empty()));
                let tags = [&filter["tag"][0], &filter["and"][0]["tags"]].into_iter().find(|tags| !tags.is_null());
                json!({
                    "Status": rule["status"],
                    "Prefix": prefix,
                    "TagFilters": tags,
                    "ExpirationInDays": rule["expiration"][0]["days"].as_i64().filter(|days| *days > 0),
                    "ExpirationDate": rule["expiration"][0]["date"].as_str(),
                })
            };
            rules.iter().map(rule).collect::<Vec<_>>()
        });
        let key = of_bucket("aws_s3_bucket_server_side_encryption_configuration").and_then(|other| {
            self.attribute(other, &["rule", "apply_server_side_encryption_by_default", "kms_master_key_id"])
        });
        let encryption = json!({"ServerSideEncryptionByDefault": {"KMSMasterKeyID": key.map(non_empty)}});
        json!({
            "VersioningConfiguration": {"Status": versioning},
            "LifecycleConfiguration": {"Rules": rules},
            "BucketEncryption": {"ServerSideEncryptionConfiguration": [encryption]},
        })
    }
}

fn mapping(get: &dyn Fn(&[&str]) -> Value) -> Value {
    let filters = match get(&["filter_criteria", "filter"]) {
        Value::Array(filters) => filters.iter().map(|filter| json!({"Pattern": filter["pattern"]})).collect(),
        other if other.is_null() => Vec::new(),
        other => vec![json!({"Pattern": other})],
    };
    json!({
        "EventSourceArn": get(&["event_source_arn"]),
        "FunctionName": get(&["function_name"]),
        "Enabled": get(&["enabled"]),
        "BatchSize": get(&["batch_size"]),
        "ParallelizationFactor": get(&["parallelization_factor"]),
        "MaximumRetryAttempts": get(&["maximum_retry_attempts"]),
        "MaximumRecordAgeInSeconds": get(&["maximum_record_age_in_seconds"]),
        "BisectBatchOnFunctionError": get(&["bisect_batch_on_function_error"]),
        "FunctionResponseTypes": get(&["function_response_types"]),
        "StartingPosition": get(&["starting_position"]),
        "DestinationConfig": {"OnFailure": {"Destination": get(&["destination_config", "on_failure", "destination_arn"])}},
        "FilterCriteria": {"Filters": filters},
        "MetricsConfig": {"Metrics": get(&["metrics_config", "metrics"])},
    })
}

fn table(get: &dyn Fn(&[&str]) -> Value) -> Value {
    let key = |name: Value, kind: &str| (!name.is_null()).then(|| json!({"AttributeName": name, "KeyType": kind}));
    let keys: Vec<Value> =
        [key(get(&["hash_key"]), "HASH"), key(get(&["range_key"]), "RANGE")].into_iter().flatten().collect();
    let attributes: Vec<Value> = get(&["attribute"])
        .as_array()
        .into_iter()
        .flatten()
        .map(|attribute| json!({"AttributeName": attribute["name"], "AttributeType": attribute["type"]}))
        .collect();
    json!({
        "KeySchema": keys,
        "AttributeDefinitions": attributes,
        "StreamSpecification": {"StreamViewType": non_empty(get(&["stream_view_type"]))},
        "TimeToLiveSpecification": {
            "Enabled": get(&["ttl", "enabled"]),
            "AttributeName": non_empty(get(&["ttl", "attribute_name"])),
        },
        "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": get(&["point_in_time_recovery", "enabled"])},
        "DeletionProtectionEnabled": get(&["deletion_protection_enabled"]),
        "SSESpecification": {"KMSMasterKeyId": non_empty(get(&["server_side_encryption", "kms_key_arn"]))},
    })
}

fn alarm(get: &dyn Fn(&[&str]) -> Value) -> Value {
    let dimensions = match get(&["dimensions"]) {
        Value::Object(dimensions) => {
            Value::Array(dimensions.into_iter().map(|(name, value)| json!({"Name": name, "Value": value})).collect())
        }
        Value::Null => Value::Null,
        // Which resource is meant is not known.
        other => json!([{"Name": "unknown", "Value": other}]),
    };
    json!({"MetricName": get(&["metric_name"]), "Dimensions": dimensions})
}

/// The provider's value for a function without reserved concurrency is -1.
fn reserved(value: Value) -> Value {
    if value == -1 { Value::Null } else { value }
}

fn api_route(get: &dyn Fn(&[&str]) -> Value) -> Value {
    json!({
        "ApiId": get(&["api_id"]),
        "AuthorizationType": get(&["authorization_type"]),
        "RouteKey": get(&["route_key"]),
    })
}

fn api(get: &dyn Fn(&[&str]) -> Value) -> Value {
    json!({
        "ProtocolType": get(&["protocol_type"]),
        "Target": non_empty(get(&["target"])),
        "RouteKey": non_empty(get(&["route_key"])),
    })
}

/// Returns the `OpenAPI` document of an API, which is JSON or YAML in a string.
fn body_of(body: &Value) -> SettingValue<ApiDocument> {
    match body {
        Value::Null => SettingValue::Absent,
        Value::String(text) if text.is_empty() => SettingValue::Absent,
        Value::String(text) => match TemplateNode::parse(text) {
            Ok(node) => SettingValue::Known(ApiDocument { file: None, node: ResolvedNode::from_node(&node) }),
            Err(error) => SettingValue::Unresolved(format!("its OpenAPI document cannot be read: {error}")),
        },
        _ => SettingValue::Unresolved("its OpenAPI document is known after the deployment".to_owned()),
    }
}

fn non_empty(value: Value) -> Value {
    if value == "" { Value::Null } else { value }
}

fn document(policy: &Value) -> Value {
    match policy.as_str().map(serde_json::from_str::<Value>) {
        Some(Ok(document)) => document,
        _ => unresolved("the policy is known after the deployment"),
    }
}

/// Returns an unresolved document for a policy that may grant more than the basic permissions of a function.
fn attached(arn: &Value) -> Value {
    match arn.as_str() {
        Some(arn) if arn.contains(":policy/service-role/AWSLambda") => json!({"Statement": []}),
        _ => unresolved("an attached policy is not read"),
    }
}

/// The name of a resource that represents the location of a module's call or output.
const CALLER: &str = "caller";

/// Returns an address without the keys of `count` and `for_each`.
fn without_keys(address: &str) -> String {
    split_address(address).iter().map(|part| part.split('[').next().unwrap_or_default()).collect::<Vec<_>>().join(".")
        + if address.ends_with('.') { "." } else { "" }
}

/// Splits an address at its dots; a key in brackets may contain dots and brackets in quotes.
fn split_address(address: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut is_key, mut is_quoted, mut is_escaped) = (0, false, false, false);
    for (at, letter) in address.char_indices() {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' if is_key => is_quoted = !is_quoted,
            '[' if !is_quoted => is_key = true,
            ']' if !is_quoted => is_key = false,
            '.' if !is_key => {
                parts.push(&address[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if start < address.len() {
        parts.push(&address[start..]);
    }
    parts
}

/// Returns the module of an address, with a dot behind it: `module.orders["a.b"].module.table.`.
fn module_of(address: &str) -> &str {
    let parts = split_address(address);
    let mut length = 0;
    let mut rest = parts.as_slice();
    while let ["module", name, more @ ..] = rest {
        // A name follows the path of the module.
        if more.is_empty() {
            break;
        }
        length += "module.".len() + name.len() + 1;
        rest = more;
    }
    &address[..length]
}
