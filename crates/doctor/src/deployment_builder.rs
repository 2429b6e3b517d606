//! Interprets resources in the form of `CloudFormation`, with those that the SAM transform adds: [`build`].

use std::collections::{BTreeMap, BTreeSet};

use crate::access_policy::AccessPolicy;
use crate::api_document;
use crate::deployment::{
    BucketSettings, FunctionPurpose, FunctionSettings, IgnoredRule, KeySettings, LifecycleRule, MessageDestination,
    ObservedDelivery, RouteSettings, SecurityGroupSettings, SourceLocation, StreamDeployment, StreamMapping,
    StreamPipe, TableSettings, TrafficPeer, TrafficRule, VpcEndpointSettings, WatchedMetric,
};
use crate::iam_policy::RolePermissions;
use crate::replica_address::replicas_of;
use crate::resource_entry::{PropertyNode as _, ResourceEntry};
use crate::setting::SettingValue;
use crate::template_scope::{ResolvedNode, ResolvedValue};

/// Interprets the resources of a deployment. `problems` receives what makes the deployment's own statements unusable.
#[must_use]
pub fn build(entries: &[ResourceEntry], problems: &mut Vec<String>) -> StreamDeployment {
    let mut deployment = StreamDeployment::default();
    let websockets: BTreeSet<&str> = entries
        .iter()
        .filter(|entry| entry.kind == "AWS::ApiGatewayV2::Api")
        .filter(|entry| entry.properties.text_at(&["ProtocolType"]).known().is_some_and(|kind| kind == "WEBSOCKET"))
        .map(|entry| entry.name.as_str())
        .collect();
    let aliases: BTreeMap<&str, SettingValue<String>> = entries
        .iter()
        .filter(|entry| entry.kind == "AWS::Lambda::Alias")
        .map(|entry| (entry.name.as_str(), entry.properties.text_at(&["FunctionName"])))
        .collect();
    let default_authorizers: BTreeMap<&str, SettingValue<String>> = entries
        .iter()
        .filter(|entry| entry.kind == "AWS::Serverless::HttpApi")
        .map(|entry| (entry.name.as_str(), entry.properties.text_at(&["Auth", "DefaultAuthorizer"])))
        .collect();
    for entry in entries {
        if let Some(metadata) = &entry.metadata {
            add_ignored(&mut deployment, entry, metadata, problems);
        }
        let properties = &entry.properties;
        match entry.kind.as_str() {
            "AWS::Lambda::EventSourceMapping" => add_mapping(&mut deployment, entry, &aliases),
            "AWS::Serverless::Function" => {
                deployment.functions.push(function(entry, true));
                add_events(&mut deployment, entry, &default_authorizers);
            }
            "AWS::Lambda::Function" => deployment.functions.push(function(entry, false)),
            "AWS::DynamoDB::Table" | "AWS::DynamoDB::GlobalTable" => deployment.tables.push(table(entry)),
            "AWS::S3::Bucket" => deployment.buckets.push(bucket(entry)),
            "AWS::SQS::Queue" | "AWS::SNS::Topic" => add_message_destination(&mut deployment, entry),
            "AWS::ApiGatewayV2::Api" | "AWS::Serverless::HttpApi" => add_documented_routes(&mut deployment, entry),
            "AWS::IAM::Role" => add_role(&mut deployment, entry),
            "AWS::KMS::Key" => deployment.keys.push(key(entry)),
            "AWS::KMS::Alias" => {
                let key = properties.text_at(&["TargetKeyId"]);
                let names = [SettingValue::Known(entry.name.clone()), properties.text_at(&["AliasName"])];
                let names = names.iter().filter_map(SettingValue::known);
                deployment.key_aliases.extend(names.map(|name| (name.clone(), key.clone())));
            }
            "AWS::CloudWatch::Alarm" => deployment.alarms.extend(watched(properties)),
            "AWS::ApiGatewayV2::Route" => {
                let is_websocket =
                    properties.text_at(&["ApiId"]).known().is_some_and(|api| websockets.contains(api.as_str()));
                if !is_websocket {
                    deployment.routes.push(route(entry));
                }
            }
            "AWS::S3::BucketPolicy" | "AWS::SQS::QueuePolicy" | "AWS::SNS::TopicPolicy" => {
                add_resource_policy(&mut deployment, entry);
            }
            "AWS::Pipes::Pipe" => add_pipe(&mut deployment, entry),
            "AWS::EC2::Subnet" => deployment.network.subnets.push(entry.name.clone()),
            "AWS::EC2::VPCEndpoint" => deployment.network.endpoints.push(vpc_endpoint(properties)),
            "AWS::EC2::SecurityGroup" => {
                deployment.network.groups.insert(entry.name.clone(), security_group(properties));
            }
            "AWS::EC2::NatGateway" | "AWS::EC2::TransitGatewayAttachment" | "AWS::EC2::VPCPeeringConnection" => {
                deployment.network.has_nat = true;
            }
            _ => {}
        }
    }
    attach_policies(&mut deployment, entries);
    attach_traffic(&mut deployment.network.groups, entries);
    deployment
}

fn add_ignored(
    deployment: &mut StreamDeployment,
    entry: &ResourceEntry,
    metadata: &ResolvedNode,
    problems: &mut Vec<String>,
) {
    let Some(ignored) = metadata.get("ignore") else { return };
    let resource = (!entry.location.resource.is_empty()).then(|| entry.location.resource.clone());
    deployment.ignored.extend(parse_ignored(ignored, &entry.location, resource.as_deref(), problems));
}

/// Parses a list of `{rule, reason}`, in which an entry may name its resource.
pub fn parse_ignored(
    list: &ResolvedNode,
    location: &SourceLocation,
    resource: Option<&str>,
    problems: &mut Vec<String>,
) -> Vec<IgnoredRule> {
    let mut ignored = Vec::new();
    for item in list.one_or_many() {
        let member = |name: &str| item.get(name).and_then(ResolvedNode::text).map(str::to_owned);
        let at = format!("{}:{}", location.file, item.line);
        match (member("rule"), member("reason").filter(|reason| !reason.trim().is_empty())) {
            (Some(rule), Some(reason)) => {
                if crate::rule_table::find(&rule).is_some() {
                    let resource = member("resource").or_else(|| resource.map(str::to_owned));
                    ignored.push(IgnoredRule { rule, resource, reason });
                } else {
                    problems.push(format!("{at}: ignore: unknown rule {rule:?}: --list-rules lists them"));
                }
            }
            (Some(rule), None) => problems.push(format!("{at}: ignore: {rule} has no reason: add reason")),
            (None, _) => problems.push(format!("{at}: ignore: expected a list of rule and reason")),
        }
    }
    ignored
}

fn is_dynamodb_stream(stream: &str) -> bool {
    stream.contains(":dynamodb:") || stream.contains(".StreamArn}") || stream.contains(".LatestStreamArn}")
}

fn add_mapping(
    deployment: &mut StreamDeployment,
    entry: &ResourceEntry,
    aliases: &BTreeMap<&str, SettingValue<String>>,
) {
    let properties = &entry.properties;
    let stream = properties.text_at(&["EventSourceArn"]);
    match &stream {
        SettingValue::Known(stream) if is_dynamodb_stream(stream) => {}
        // Streams have a starting position; a queue has none.
        SettingValue::Unresolved(reason) if !properties.text_at(&["StartingPosition"]).is_absent() => {
            deployment.unresolved_mappings.push((entry.location.clone(), reason.clone()));
            return;
        }
        _ => return,
    }
    let function = properties.text_at(&["FunctionName"]).and_then(|name| match aliases.get(name.as_str()) {
        Some(function) => function.clone(),
        None => SettingValue::Known(name),
    });
    let id = entry.location.resource.clone();
    let has_literal_stream = !entry.literal_streams.is_empty();
    deployment.mappings.push(mapping(entry.location.clone(), id, properties, stream, function, has_literal_stream));
}

fn mapping(
    location: SourceLocation,
    id: String,
    properties: &ResolvedNode,
    stream: SettingValue<String>,
    function: SettingValue<String>,
    has_literal_stream: bool,
) -> StreamMapping {
    let has =
        |path: &[&str], value: &str| properties.texts_at(path).map(|values| values.iter().any(|name| name == value));
    let filters = properties.nodes_at(&["FilterCriteria", "Filters"]).and_then(|filters| {
        let patterns = filters.into_iter().map(|filter| filter.text_at(&["Pattern"]));
        let mut known = Vec::new();
        for pattern in patterns {
            match pattern {
                SettingValue::Known(pattern) => known.push(pattern),
                SettingValue::Absent => {}
                SettingValue::Unresolved(reason) => return SettingValue::Unresolved(reason),
            }
        }
        SettingValue::Known(known)
    });
    StreamMapping {
        location,
        id,
        function,
        stream,
        has_literal_stream,
        enabled: properties.boolean_at(&["Enabled"]),
        batch_size: properties.number_at(&["BatchSize"]),
        parallelization_factor: properties.number_at(&["ParallelizationFactor"]),
        max_retries: properties.number_at(&["MaximumRetryAttempts"]),
        max_age_s: properties.number_at(&["MaximumRecordAgeInSeconds"]),
        bisect: properties.boolean_at(&["BisectBatchOnFunctionError"]),
        partial_response: has(&["FunctionResponseTypes"], "ReportBatchItemFailures"),
        starting_position: properties.text_at(&["StartingPosition"]),
        on_failure: properties.text_at(&["DestinationConfig", "OnFailure", "Destination"]),
        filters,
        event_count: has(&["MetricsConfig", "Metrics"], "EventCount"),
        invokes_published_alias: false,
        observed: ObservedDelivery::default(),
    }
}

fn add_pipe(deployment: &mut StreamDeployment, entry: &ResourceEntry) {
    match entry.properties.text_at(&["Source"]) {
        SettingValue::Known(stream) if is_dynamodb_stream(&stream) => {
            let running = entry.properties.text_at(&["DesiredState"]).map(|state| state != "STOPPED");
            deployment.pipes.push(StreamPipe { stream, running });
        }
        SettingValue::Known(_) | SettingValue::Absent => {}
        SettingValue::Unresolved(reason) => {
            deployment.unread.push((entry.location.clone(), format!("the source of the pipe: {reason}")));
        }
    }
}

/// Adds the routes of an API's OpenAPI document; without one, each route is a resource or an event of its own.
fn add_documented_routes(deployment: &mut StreamDeployment, entry: &ResourceEntry) {
    let properties = &entry.properties;
    let default = match entry.kind.as_str() {
        "AWS::Serverless::HttpApi" => properties.text_at(&["Auth", "DefaultAuthorizer"]),
        _ => SettingValue::Absent,
    };
    match &entry.api_document {
        SettingValue::Known(document) => {
            deployment.routes.extend(api_document::routes_of_document(entry, document, &default));
        }
        SettingValue::Unresolved(reason) => {
            deployment.routes.push(api_document::unread(&entry.location, reason.clone()));
        }
        SettingValue::Absent => {
            for body in ["Body", "DefinitionBody"] {
                deployment.routes.extend(api_document::routes_of(entry, &[body], &default));
            }
        }
    }
    // An API that is created with a target has one route, which has no authorizer.
    if !properties.at(&["Target"]).is_absent() {
        let route = properties.text_at(&["RouteKey"]).known().cloned().unwrap_or_else(|| "$default".to_owned());
        let (location, authorized) = (entry.location.clone(), SettingValue::Known(false));
        deployment.routes.push(RouteSettings { location, route, authorized });
    }
}

fn function(entry: &ResourceEntry, is_sam: bool) -> FunctionSettings {
    let properties = &entry.properties;
    let mut environment = BTreeMap::new();
    let mut unknown_environment = None;
    match properties.at(&["Environment", "Variables"]) {
        SettingValue::Known(variables) => {
            for (name, _) in variables.entries() {
                environment.insert(name.clone(), variables.text_at(&[name]));
            }
        }
        SettingValue::Absent => {}
        SettingValue::Unresolved(reason) => unknown_environment = Some(reason),
    }
    let role = match properties.text_at(&["Role"]) {
        SettingValue::Absent if is_sam => SettingValue::Known(generated_role(&entry.location.resource)),
        role => role,
    };
    let subnets = match properties.texts_at(&["VpcConfig", "SubnetIds"]) {
        SettingValue::Known(subnets) if subnets.is_empty() => SettingValue::Absent,
        subnets => subnets,
    };
    let security_groups = properties.texts_at(&["VpcConfig", "SecurityGroupIds"]);
    let declared = entry.metadata.as_ref().and_then(|metadata| metadata.get("purpose")).and_then(ResolvedNode::text);
    let own = own_purpose(|name| environment.contains_key(name));
    let purpose = match declared {
        Some("replicator") => Some(FunctionPurpose::Replicator),
        Some("archiver") => Some(FunctionPurpose::Archiver),
        _ => own,
    };
    // Millrace's own functions always report the records that failed. Code that was read decides for a function that only
    // has variables of the same names.
    let reports_failures = match &entry.reports_failures {
        SettingValue::Known(reports) => SettingValue::Known(*reports),
        _ if own.is_some() => SettingValue::Known(true),
        unknown => unknown.clone(),
    };
    let replicas = replicas_of(&entry.arn, &environment);
    FunctionSettings {
        location: entry.location.clone(),
        name: entry.name.clone(),
        arn: entry.arn.clone(),
        timeout_s: properties.number_at(&["Timeout"]),
        reserved_concurrency: properties.number_at(&["ReservedConcurrentExecutions"]),
        role,
        environment,
        unknown_environment,
        log_format: properties.text_at(&["LoggingConfig", "LogFormat"]),
        log_level: properties.text_at(&["LoggingConfig", "ApplicationLogLevel"]),
        subnets,
        security_groups,
        reports_failures,
        purpose,
        is_own: own.is_some(),
        replicas,
    }
}

/// Returns the purpose of one of Millrace's own functions, which its environment variables show.
pub(crate) fn own_purpose(has: impl Fn(&str) -> bool) -> Option<FunctionPurpose> {
    if has("SOURCE_TABLE_ARN") && (has("REPLICA_TABLE") || has("REPLICATION")) {
        Some(FunctionPurpose::Replicator)
    } else if has("ARCHIVE_BUCKET") && has("FAILURE_BUCKET") && !has("SOURCE_TABLE") {
        Some(FunctionPurpose::Archiver)
    } else {
        None
    }
}

/// Returns the ARN of the role that SAM generates for a function.
fn generated_role(resource: &str) -> String {
    format!("arn:aws:iam::${{AWS.AccountId}}:role/${{{resource}Role}}")
}

/// Adds what the events of a SAM function become: mappings, routes, and the generated role.
fn add_events(
    deployment: &mut StreamDeployment,
    entry: &ResourceEntry,
    default_authorizers: &BTreeMap<&str, SettingValue<String>>,
) {
    let properties = &entry.properties;
    let mut role = RolePermissions {
        name: format!("${{{}Role}}", entry.location.resource),
        arn: generated_role(&entry.location.resource),
        ..RolePermissions::default()
    };
    if let SettingValue::Known(policies) = properties.nodes_at(&["Policies"]) {
        for policy in policies {
            add_sam_policy(&mut role, policy);
        }
    }
    let events = match properties.at(&["Events"]) {
        SettingValue::Known(events) => events.entries(),
        _ => &[],
    };
    for (name, event) in events {
        let location = SourceLocation {
            line: event.line,
            resource: format!("{}.{name}", entry.location.resource),
            file: entry.location.file.clone(),
        };
        let no_properties = ResolvedNode { line: event.line, value: ResolvedValue::Map(Vec::new()) };
        let own = event.get("Properties").unwrap_or(&no_properties);
        match event.get("Type").and_then(ResolvedNode::text) {
            Some("DynamoDB") => {
                let id = format!("{}{name}", entry.location.resource);
                let function = SettingValue::Known(entry.name.clone());
                let is_literal = entry.literal_streams.contains(name);
                let mut mapping = mapping(location, id, own, own.text_at(&["Stream"]), function, is_literal);
                mapping.invokes_published_alias = !properties.at(&["AutoPublishAlias"]).is_absent();
                grant_destination(&mut role, own);
                deployment.mappings.push(mapping);
            }
            Some("HttpApi") => {
                let method = own.text_at(&["Method"]).known().cloned().unwrap_or_else(|| "any".to_owned());
                let path = own.text_at(&["Path"]).known().cloned().unwrap_or_else(|| "$default".to_owned());
                let api = own.text_at(&["ApiId"]).known().cloned();
                let default = match &api {
                    Some(api) => default_authorizers.get(api.as_str()).cloned(),
                    // SAM's implicit API, which only Globals configure.
                    None => Some(entry.properties.text_at(&["ImplicitApiAuthorizer"])),
                };
                let authorized = match own.text_at(&["Auth", "Authorizer"]) {
                    SettingValue::Known(authorizer) => SettingValue::Known(authorizer != "NONE"),
                    SettingValue::Unresolved(reason) => SettingValue::Unresolved(reason),
                    // SAM adds the default authorizer to every method but OPTIONS.
                    SettingValue::Absent if method.eq_ignore_ascii_case("options") => SettingValue::Known(false),
                    SettingValue::Absent => match default {
                        Some(SettingValue::Known(_)) => SettingValue::Known(true),
                        Some(SettingValue::Absent) => SettingValue::Known(false),
                        Some(SettingValue::Unresolved(reason)) => SettingValue::Unresolved(reason),
                        None => SettingValue::Unresolved("the API is not part of this deployment".to_owned()),
                    },
                };
                let route = format!("{} {path}", method.to_ascii_uppercase());
                deployment.routes.push(RouteSettings { location, route, authorized });
            }
            _ => {}
        }
    }
    if properties.at(&["Role"]).is_absent() {
        deployment.roles.push(role);
    }
}

/// Adds the permissions that SAM generates for a destination, which it does only if the destination has a type.
fn grant_destination(role: &mut RolePermissions, event: &ResolvedNode) {
    let path = ["DestinationConfig", "OnFailure"];
    let SettingValue::Known(destination) = event.at(&path) else { return };
    let arn = destination.text_at(&["Destination"]);
    match destination.text_at(&["Type"]).known().map(String::as_str) {
        Some("SQS") => role.allow("sqs:SendMessage", arn),
        Some("SNS") => role.allow("sns:Publish", arn),
        Some("S3") => {
            role.allow("s3:PutObject", arn.clone().map(|arn| format!("{arn}/*")));
            role.allow("s3:ListBucket", arn);
        }
        _ => {}
    }
}

fn add_sam_policy(role: &mut RolePermissions, policy: &ResolvedNode) {
    match &policy.value {
        ResolvedValue::Text(_) | ResolvedValue::Unresolved(_) => role.add_managed(policy),
        ResolvedValue::Map(_) if policy.get("Statement").is_some() => role.add_document(policy),
        ResolvedValue::Map(entries) => {
            for (name, parameters) in entries {
                role.add_sam_template(name, parameters);
            }
        }
        _ => {}
    }
}

fn add_role(deployment: &mut StreamDeployment, entry: &ResourceEntry) {
    let mut role = RolePermissions { name: entry.name.clone(), arn: entry.arn.clone(), ..RolePermissions::default() };
    let properties = &entry.properties;
    match properties.nodes_at(&["Policies"]) {
        SettingValue::Known(policies) => {
            for policy in policies {
                match policy.at(&["PolicyDocument"]) {
                    SettingValue::Known(document) => role.add_document(document),
                    SettingValue::Absent => {}
                    SettingValue::Unresolved(reason) => role.unknown = Some(reason),
                }
            }
        }
        SettingValue::Absent => {}
        SettingValue::Unresolved(reason) => role.unknown = Some(reason),
    }
    match properties.nodes_at(&["ManagedPolicyArns"]) {
        SettingValue::Known(policies) => policies.into_iter().for_each(|policy| role.add_managed(policy)),
        SettingValue::Absent => {}
        SettingValue::Unresolved(reason) => role.unknown = Some(reason),
    }
    deployment.roles.push(role);
}

/// Adds the policies that are resources of their own to the roles that they name.
fn attach_policies(deployment: &mut StreamDeployment, entries: &[ResourceEntry]) {
    for entry in entries {
        if !matches!(entry.kind.as_str(), "AWS::IAM::Policy" | "AWS::IAM::ManagedPolicy" | "AWS::IAM::RolePolicy") {
            continue;
        }
        let mut roles = match entry.properties.texts_at(&["Roles"]) {
            SettingValue::Known(roles) => roles,
            _ => Vec::new(),
        };
        roles.extend(entry.properties.text_at(&["RoleName"]).known().cloned());
        for role in &mut deployment.roles {
            let names_role = roles.iter().any(|name| *name == role.name || *name == role.arn);
            // A managed policy of the deployment that the role lists is read here.
            let unread = role.unread_policies.len();
            role.unread_policies.retain(|policy| *policy != entry.name);
            let lists_policy = role.unread_policies.len() < unread;
            if names_role || lists_policy {
                match entry.properties.at(&["PolicyDocument"]) {
                    SettingValue::Known(document) => role.add_document(document),
                    SettingValue::Absent => {}
                    SettingValue::Unresolved(reason) => role.unknown = Some(reason),
                }
            }
        }
    }
}

/// Adds a queue or a topic, with the policy that an account or Terraform has as one of its attributes.
fn add_message_destination(deployment: &mut StreamDeployment, entry: &ResourceEntry) {
    let properties = &entry.properties;
    let policy = match properties.at(&["Policy"]) {
        SettingValue::Known(document) => Some(AccessPolicy::parse(document)),
        SettingValue::Absent => None,
        SettingValue::Unresolved(reason) => Some(AccessPolicy::unknown(reason)),
    };
    let destination_policy = policy.map(|policy| (SettingValue::Known(entry.arn.clone()), policy));
    deployment.resource_policies.extend(destination_policy);
    let key = properties.text_at(&["KmsMasterKeyId"]);
    deployment.message_destinations.push(MessageDestination { arn: entry.arn.clone(), key });
}

fn add_resource_policy(deployment: &mut StreamDeployment, entry: &ResourceEntry) {
    let policy = match entry.properties.at(&["PolicyDocument"]) {
        SettingValue::Known(document) => AccessPolicy::parse(document),
        SettingValue::Absent => return,
        SettingValue::Unresolved(reason) => AccessPolicy::unknown(reason),
    };
    for property in ["Bucket", "Queues", "Topics"] {
        match entry.properties.texts_at(&[property]) {
            SettingValue::Known(names) => {
                let names = names.into_iter().map(SettingValue::Known);
                deployment.resource_policies.extend(names.map(|name| (name, policy.clone())));
            }
            SettingValue::Absent => {}
            SettingValue::Unresolved(reason) => {
                deployment.resource_policies.push((SettingValue::Unresolved(reason), policy.clone()));
            }
        }
    }
}

fn table(entry: &ResourceEntry) -> TableSettings {
    let properties = &entry.properties;
    let is_global = entry.kind == "AWS::DynamoDB::GlobalTable";
    // A global table sets these for each replica; the first is the stack's own or one with equal settings.
    let replica = match properties.nodes_at(&["Replicas"]) {
        SettingValue::Known(replicas) if is_global => replicas.first().copied(),
        _ => None,
    };
    let own = replica.unwrap_or(properties);
    let types: BTreeMap<String, SettingValue<String>> = match properties.nodes_at(&["AttributeDefinitions"]) {
        SettingValue::Known(attributes) => attributes
            .into_iter()
            .filter_map(|attribute| {
                let name = attribute.text_at(&["AttributeName"]).known()?.clone();
                Some((name, attribute.text_at(&["AttributeType"])))
            })
            .collect(),
        _ => BTreeMap::new(),
    };
    let key_schema = properties.nodes_at(&["KeySchema"]).and_then(|keys| {
        let mut parts = Vec::new();
        for key in keys {
            let name = match key.text_at(&["AttributeName"]) {
                SettingValue::Known(name) => name,
                SettingValue::Absent => return SettingValue::Absent,
                SettingValue::Unresolved(reason) => return SettingValue::Unresolved(reason),
            };
            match types.get(&name) {
                Some(SettingValue::Known(kind)) => parts.push(format!("{name}:{kind}")),
                Some(SettingValue::Unresolved(reason)) => return SettingValue::Unresolved(reason.clone()),
                _ => return SettingValue::Unresolved(format!("the type of {name} is not defined")),
            }
        }
        SettingValue::Known(parts.join(","))
    });
    let stream_view = match properties.text_at(&["StreamSpecification", "StreamViewType"]) {
        // A global table has a stream with this view in any case.
        SettingValue::Absent if is_global => SettingValue::Known("NEW_AND_OLD_IMAGES".to_owned()),
        view => view,
    };
    let ttl_attribute = match properties.boolean_at(&["TimeToLiveSpecification", "Enabled"]) {
        SettingValue::Known(true) => properties.text_at(&["TimeToLiveSpecification", "AttributeName"]),
        SettingValue::Known(false) | SettingValue::Absent => SettingValue::Absent,
        SettingValue::Unresolved(reason) => SettingValue::Unresolved(reason),
    };
    TableSettings {
        location: entry.location.clone(),
        name: entry.name.clone(),
        key_schema,
        stream_view,
        ttl_attribute,
        recovery: own.boolean_at(&["PointInTimeRecoverySpecification", "PointInTimeRecoveryEnabled"]),
        deletion_protection: own.boolean_at(&["DeletionProtectionEnabled"]),
        retained: entry.retained.clone(),
        key: own.text_at(&["SSESpecification", "KMSMasterKeyId"]),
        is_global,
        latest_stream: properties.text_at(&["LatestStreamArn"]),
        open_shards: properties.number_at(&["OpenShards"]),
        ttl_sample: SettingValue::Absent,
    }
}

fn bucket(entry: &ResourceEntry) -> BucketSettings {
    let properties = &entry.properties;
    let lifecycle = properties.nodes_at(&["LifecycleConfiguration", "Rules"]).map(|rules| {
        rules
            .into_iter()
            .filter(|rule| rule.text_at(&["Status"]).known().is_none_or(|status| status == "Enabled"))
            .map(lifecycle_rule)
            .collect()
    });
    let encryption = properties.nodes_at(&["BucketEncryption", "ServerSideEncryptionConfiguration"]);
    let key = encryption.and_then(|rules| match rules.first() {
        Some(rule) => rule.text_at(&["ServerSideEncryptionByDefault", "KMSMasterKeyID"]),
        None => SettingValue::Absent,
    });
    BucketSettings {
        location: entry.location.clone(),
        name: entry.name.clone(),
        versioned: properties.text_at(&["VersioningConfiguration", "Status"]).map(|status| status == "Enabled"),
        lifecycle,
        key,
    }
}

fn lifecycle_rule(rule: &ResolvedNode) -> LifecycleRule {
    let prefix = match rule.text_at(&["Prefix"]) {
        SettingValue::Absent => rule.text_at(&["Filter", "Prefix"]),
        prefix => prefix,
    };
    let prefix = if prefix.is_absent() { SettingValue::Known(String::new()) } else { prefix };
    let is_narrowed =
        ["TagFilters", "ObjectSizeGreaterThan", "ObjectSizeLessThan"].iter().any(|name| rule.get(name).is_some());
    let expiry = [rule.at(&["ExpirationInDays"]), rule.at(&["ExpirationDate"])];
    // Objects expire even if the number of days is not known.
    let expires_objects = SettingValue::Known(expiry.iter().any(|expiry| !expiry.is_absent()));
    LifecycleRule { prefix, is_narrowed, expires_objects }
}

fn key(entry: &ResourceEntry) -> KeySettings {
    let properties = &entry.properties;
    let enabled = match properties.boolean_at(&["Enabled"]) {
        SettingValue::Absent => SettingValue::Known(true),
        enabled => enabled,
    };
    let policy = match properties.at(&["KeyPolicy"]) {
        SettingValue::Known(document) => AccessPolicy::parse(document),
        // Without a policy, KMS lets the account decide.
        SettingValue::Absent => AccessPolicy::account_default(),
        SettingValue::Unresolved(reason) => AccessPolicy::unknown(reason),
    };
    KeySettings {
        location: entry.location.clone(),
        arn: entry.arn.clone(),
        enabled,
        state: properties.text_at(&["KeyState"]),
        policy,
    }
}

fn vpc_endpoint(properties: &ResolvedNode) -> VpcEndpointSettings {
    let groups = match properties.text_at(&["VpcEndpointType"]) {
        SettingValue::Known(kind) if kind.eq_ignore_ascii_case("Interface") => {
            Some(properties.texts_at(&["SecurityGroupIds"]))
        }
        SettingValue::Known(_) | SettingValue::Absent => None,
        SettingValue::Unresolved(reason) => Some(SettingValue::Unresolved(reason)),
    };
    VpcEndpointSettings { service: properties.text_at(&["ServiceName"]), groups }
}

/// Returns the rules of a security group in the form of a template. Without `EgressIsComplete`, a group without a rule
/// for outbound traffic has the one that allows all.
pub(crate) fn security_group(properties: &ResolvedNode) -> SecurityGroupSettings {
    let mut group = SecurityGroupSettings::default();
    let mut rules = |property: &str| match properties.nodes_at(&[property]) {
        SettingValue::Known(nodes) => {
            let mut rules = Vec::new();
            for rule in nodes.into_iter().map(traffic) {
                match rule {
                    Ok(rule) => rules.push(rule),
                    Err(reason) => group.unknown = Some(reason),
                }
            }
            rules
        }
        SettingValue::Absent => Vec::new(),
        SettingValue::Unresolved(reason) => {
            group.unknown = Some(reason);
            Vec::new()
        }
    };
    let (egress, ingress) = (rules("SecurityGroupEgress"), rules("SecurityGroupIngress"));
    let is_complete = properties.boolean_at(&["EgressIsComplete"]).known() == Some(&true);
    group.egress = (is_complete || !egress.is_empty() || group.unknown.is_some()).then_some(egress);
    group.ingress = ingress;
    group
}

/// Returns a rule of a security group, or the reason why it is not known.
fn traffic(rule: &ResolvedNode) -> Result<TrafficRule, String> {
    let port = |name: &str| rule.number_at(&[name]).get().map(Option::<&i64>::copied);
    let protocol = rule.text_at(&["IpProtocol"]);
    let allows_https = match protocol.get()?.map(String::as_str) {
        Some("-1" | "all") => true,
        // A rule without ports is for all of them.
        Some("tcp" | "6") => (port("FromPort")?.unwrap_or(0)..=port("ToPort")?.unwrap_or(65_535)).contains(&443),
        _ => false,
    };
    let no_host = ["255.255.255.255/32", "127.0.0.1/32", "::1/128"];
    for name in ["CidrIp", "CidrIpv6", "DestinationPrefixListId", "SourcePrefixListId"] {
        match rule.text_at(&[name]) {
            SettingValue::Known(block) if no_host.contains(&block.as_str()) => {
                return Ok(TrafficRule { allows_https, peer: TrafficPeer::NoHost });
            }
            SettingValue::Absent => {}
            // Some addresses, whichever they are.
            _ => return Ok(TrafficRule { allows_https, peer: TrafficPeer::Addresses }),
        }
    }
    for name in ["DestinationSecurityGroupId", "SourceSecurityGroupId"] {
        if let Some(group) = rule.text_at(&[name]).get()? {
            return Ok(TrafficRule { allows_https, peer: TrafficPeer::Group(group.clone()) });
        }
    }
    Err(format!("line {}: the other end of the rule is not known", rule.line))
}

/// Adds the rules that are resources of their own to their security groups.
fn attach_traffic(groups: &mut BTreeMap<String, SecurityGroupSettings>, entries: &[ResourceEntry]) {
    for entry in entries {
        let is_egress = match entry.kind.as_str() {
            "AWS::EC2::SecurityGroupEgress" => true,
            "AWS::EC2::SecurityGroupIngress" => false,
            _ => continue,
        };
        let of_group = entry.properties.text_at(&["GroupId"]);
        let of_group = of_group.get().map(|name| name.map(String::as_str).unwrap_or_default());
        for (name, group) in groups.iter_mut() {
            match of_group.clone().and_then(|of_group| Ok((of_group == name).then_some(traffic(&entry.properties)?))) {
                Ok(Some(rule)) if is_egress => {
                    if let Some(egress) = &mut group.egress {
                        egress.push(rule);
                    }
                }
                Ok(Some(rule)) => group.ingress.push(rule),
                Ok(None) => {}
                Err(reason) => group.unknown = Some(reason),
            }
        }
    }
}

fn watched(properties: &ResolvedNode) -> Vec<WatchedMetric> {
    let mut metrics = Vec::new();
    let mut add = |metric: &ResolvedNode| {
        let Some(name) = metric.text_at(&["MetricName"]).known().cloned() else { return };
        let dimensions = match metric.nodes_at(&["Dimensions"]) {
            SettingValue::Known(dimensions) => {
                dimensions.into_iter().map(|dimension| dimension.text_at(&["Value"])).collect()
            }
            _ => Vec::new(),
        };
        metrics.push(WatchedMetric { name, dimensions });
    };
    add(properties);
    if let SettingValue::Known(queries) = properties.nodes_at(&["Metrics"]) {
        for query in queries {
            if let SettingValue::Known(metric) = query.at(&["MetricStat", "Metric"]) {
                add(metric);
            }
        }
    }
    metrics
}

fn route(entry: &ResourceEntry) -> RouteSettings {
    let authorization = entry.properties.text_at(&["AuthorizationType"]);
    let authorized = match authorization {
        SettingValue::Absent => SettingValue::Known(false),
        authorization => authorization.map(|kind| kind != "NONE"),
    };
    let route = entry.properties.text_at(&["RouteKey"]).known().cloned().unwrap_or_else(|| "a route".to_owned());
    RouteSettings { location: entry.location.clone(), route, authorized }
}
