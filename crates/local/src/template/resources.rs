//! Interprets the resources for `millrace`: tables and buckets to create, functions to invoke, streams to read.

use std::collections::BTreeMap;

use crate::lambda::function_arn;

use super::document::{APPLICATION, TemplateDocument};
use super::node::{NodeValue, TemplateNode};
use super::resolve::ResolveScope;
use super::resolved_mapping::ResolvedMapping;
use super::source_table::source_table;
use super::{
    ApiRoute, AttributeType, BucketResource, FunctionResource, KeyDefinition, MappingResource, ParameterOverrides,
    PropertyError, SamTemplate, SecondaryIndex, SourceTable, TableResource,
};

pub(super) fn read(
    document: &TemplateDocument,
    choices: &ParameterOverrides,
    source: &SourceTable,
) -> Result<SamTemplate, PropertyError> {
    let choices = &choices.for_template(document);
    let source = source_table(document, choices, source)?;
    let scope = ResolveScope::new(document, choices, source.as_ref())?;
    let mut template = SamTemplate {
        tables: source.into_iter().collect(),
        buckets: Vec::new(),
        functions: Vec::new(),
        routes: Vec::new(),
    };
    add(&mut template, document, &scope)?;
    check(&template, document)?;
    Ok(template)
}

/// Adds the resources of a template and of its nested applications.
fn add(template: &mut SamTemplate, document: &TemplateDocument, scope: &ResolveScope<'_>) -> Result<(), PropertyError> {
    let own = add_resources(template, document, scope);
    own.map_err(|error| error.in_file(&document.file))
}

fn add_resources(
    template: &mut SamTemplate,
    document: &TemplateDocument,
    scope: &ResolveScope<'_>,
) -> Result<(), PropertyError> {
    let node = &document.node;
    let resources = node.get("Resources").ok_or_else(|| node.fault("no Resources: expected a SAM template"))?;
    let globals = node.get("Globals").and_then(|globals| globals.get("Function"));
    for (id, resource) in resources.entries() {
        let kind = resource.get("Type").and_then(TemplateNode::text);
        let kind = kind.ok_or_else(|| resource.fault(format!("Resources.{id}: expected a Type")))?;
        if !scope.condition_holds(resource)? {
            continue;
        }
        let instead = |known: &str| {
            Err(resource.fault(format!("Resources.{id}: millrace does not run {kind}: write {known} instead")))
        };
        match kind {
            "AWS::DynamoDB::Table" => template.tables.push(table(scope, id, resource)?),
            "AWS::S3::Bucket" => {
                template.buckets.push(BucketResource { logical_id: id.clone(), name: scope.names().bucket(id) });
            }
            "AWS::Serverless::Function" => template.functions.push(function(scope, globals, id, resource)?),
            "AWS::ApiGatewayV2::Route" => template.routes.push(route(scope, resources, id, resource)?),
            APPLICATION => {
                if let (Some(nested), Some(scope)) = (document.applications.get(id), scope.nested(id)) {
                    add(template, nested, scope)?;
                }
            }
            "AWS::DynamoDB::GlobalTable" | "AWS::Serverless::SimpleTable" => return instead("an AWS::DynamoDB::Table"),
            "AWS::Serverless::Api" | "AWS::Serverless::HttpApi" => return instead("an AWS::ApiGatewayV2::Api"),
            "AWS::Lambda::Function" => return instead("an AWS::Serverless::Function"),
            "AWS::Lambda::EventSourceMapping" => return instead("an event of its AWS::Serverless::Function"),
            _ => {}
        }
    }
    Ok(())
}

/// Checks that the table of every mapping exists and has a stream.
fn check(template: &SamTemplate, document: &TemplateDocument) -> Result<(), PropertyError> {
    for function in &template.functions {
        let Some(at) = document.node.get("Resources").and_then(|resources| resources.get(&function.logical_id)) else {
            continue;
        };
        for mapping in &function.mappings {
            let streams = |table: &&TableResource| table.name == mapping.table && table.stream_view.is_some();
            if template.tables.iter().find(streams).is_none() {
                let (id, table) = (&function.logical_id, &mapping.table);
                let problem =
                    format!("Resources.{id}: table {table} has no StreamSpecification, which the mapping requires");
                return Err(at.fault(problem).in_file(&document.file));
            }
        }
    }
    document.applications.values().try_for_each(|nested| check(template, nested))
}

const TABLE_READ: [&str; 5] =
    ["AttributeDefinitions", "GlobalSecondaryIndexes", "KeySchema", "StreamSpecification", "TimeToLiveSpecification"];
const TABLE_PASSED: [&str; 10] = [
    "BillingMode",
    "ContributorInsightsSpecification",
    "DeletionProtectionEnabled",
    "OnDemandThroughput",
    "PointInTimeRecoverySpecification",
    "ProvisionedThroughput",
    "ResourcePolicy",
    "SSESpecification",
    "TableName",
    "Tags",
];

fn table(scope: &ResolveScope<'_>, id: &str, resource: &TemplateNode) -> Result<TableResource, PropertyError> {
    let path = format!("Resources.{id}.Properties");
    let properties = resource.get("Properties").ok_or_else(|| resource.fault(format!("{path}: expected a value")))?;
    let resolved = ResolvedMapping::resolve(scope, Some(properties), &path, &TABLE_READ, &TABLE_PASSED)?;
    let attributes = resolved.each("AttributeDefinitions", &["AttributeName", "AttributeType"])?;
    let attributes = attributes.iter().map(|attribute| {
        let kind = attribute.word("AttributeType", &["S", "N", "B"])?;
        Ok(AttributeType { name: attribute.required("AttributeName")?, kind })
    });
    let indexes = resolved.each(
        "GlobalSecondaryIndexes",
        &[
            "ContributorInsightsSpecification",
            "IndexName",
            "KeySchema",
            "OnDemandThroughput",
            "Projection",
            "ProvisionedThroughput",
        ],
    )?;
    let ttl = resolved.within("TimeToLiveSpecification", &["AttributeName", "Enabled"])?;
    let ttl = ttl.map(|ttl| Ok((ttl.flag("Enabled", false)?, ttl.required("AttributeName")?))).transpose()?;
    let stream = resolved.within("StreamSpecification", &["StreamViewType"])?;
    let views = ["KEYS_ONLY", "NEW_AND_OLD_IMAGES", "NEW_IMAGE", "OLD_IMAGE"];
    Ok(TableResource {
        logical_id: id.to_owned(),
        name: scope.names().table(id),
        keys: keys(&resolved)?,
        attributes: attributes.collect::<Result<_, PropertyError>>()?,
        indexes: indexes.iter().map(index).collect::<Result<_, _>>()?,
        local_indexes: Vec::new(),
        ttl_attribute: ttl.and_then(|(enabled, attribute)| enabled.then_some(attribute)),
        stream_view: stream.map(|stream| stream.word("StreamViewType", &views)).transpose()?,
    })
}

fn keys(resolved: &ResolvedMapping) -> Result<Vec<KeyDefinition>, PropertyError> {
    let keys = resolved.each("KeySchema", &["AttributeName", "KeyType"])?;
    if keys.is_empty() {
        return Err(resolved.property_error("KeySchema", "a partition key"));
    }
    let key = |key: &ResolvedMapping| {
        Ok(KeyDefinition { name: key.required("AttributeName")?, role: key.word("KeyType", &["HASH", "RANGE"])? })
    };
    keys.iter().map(key).collect()
}

fn index(index: &ResolvedMapping) -> Result<SecondaryIndex, PropertyError> {
    let projection = index.within("Projection", &["NonKeyAttributes", "ProjectionType"])?;
    let projection = projection.ok_or_else(|| index.property_error("Projection", "a value"))?;
    Ok(SecondaryIndex {
        name: index.required("IndexName")?,
        keys: keys(index)?,
        projection: projection.word("ProjectionType", &["ALL", "INCLUDE", "KEYS_ONLY"])?,
        non_key_attributes: projection.texts("NonKeyAttributes")?,
    })
}

const FUNCTION_READ: [&str; 4] = ["Environment", "MemorySize", "Timeout", "Events"];
const FUNCTION_PASSED: [&str; 14] = [
    "Architectures",
    "CodeUri",
    "Description",
    "EphemeralStorage",
    "FunctionName",
    "Handler",
    "KmsKeyArn",
    "LoggingConfig",
    "ReservedConcurrentExecutions",
    "Role",
    "Runtime",
    "Tags",
    "Tracing",
    "VpcConfig",
];

fn function(
    scope: &ResolveScope<'_>,
    globals: Option<&TemplateNode>,
    id: &str,
    resource: &TemplateNode,
) -> Result<FunctionResource, PropertyError> {
    let path = format!("Resources.{id}.Properties");
    // Events are resolved one by one below, each with its own set of keys.
    let (read, passed) = (&FUNCTION_READ[..3], [&FUNCTION_PASSED[..], &["Events"]].concat());
    let properties = resource.get("Properties");
    let own = ResolvedMapping::resolve(scope, properties, &path, read, &passed)?;
    let common = ResolvedMapping::resolve(scope, globals, "Globals.Function", read, &FUNCTION_PASSED)?;
    let name = binary(id, resource)?;
    let mut environment = variables(&common)?;
    environment.extend(variables(&own)?);
    let timeout_s = own.number("Timeout", 1..=900, common.number("Timeout", 1..=900, 3)?)?;
    let memory_mb = own.number("MemorySize", 128..=10_240, common.number("MemorySize", 128..=10_240, 128)?)?;
    let mut mappings = Vec::new();
    let events = properties.and_then(|properties| properties.get("Events")).map_or(&[][..], TemplateNode::entries);
    for (event_name, event) in events {
        let path = format!("{path}.Events.{event_name}");
        let properties = event.get("Properties");
        match event.get("Type").and_then(TemplateNode::text) {
            Some("DynamoDB") => mappings.extend(mapping(scope, event_name, properties, &path)?),
            Some("HttpApi") => {
                let problem = "millrace runs DynamoDB events: write an AWS::ApiGatewayV2::Route instead of HttpApi";
                return Err(event.fault(format!("{path}.Type: {problem}")));
            }
            other => {
                let other = other.unwrap_or("nothing");
                return Err(event.fault(format!("{path}.Type: millrace runs DynamoDB events, not {other}")));
            }
        }
    }
    Ok(FunctionResource { logical_id: id.to_owned(), name, environment, timeout_s, memory_mb, mappings })
}

fn binary(id: &str, resource: &TemplateNode) -> Result<String, PropertyError> {
    let binary = resource.get("Metadata").and_then(|metadata| metadata.get("BuildProperties"));
    let binary = binary.and_then(|properties| properties.get("Binary")).and_then(TemplateNode::text);
    let path = format!("Resources.{id}.Metadata.BuildProperties.Binary");
    binary.map(str::to_owned).ok_or_else(|| resource.fault(format!("{path}: expected the name of the cargo binary")))
}

fn variables(resolved: &ResolvedMapping) -> Result<BTreeMap<String, String>, PropertyError> {
    let Some(environment) = resolved.within("Environment", &["Variables"])? else { return Ok(BTreeMap::new()) };
    let Some(variables) = environment.get("Variables") else { return Ok(BTreeMap::new()) };
    let text = |(name, node): &(String, TemplateNode)| match &node.value {
        NodeValue::Text(text) => Ok((name.clone(), text.clone())),
        NodeValue::Stream(_) => Err(node.fault(format!("{name}: a stream's arn is known only when the engine runs"))),
        _ => Err(node.fault(format!("{name}: expected a string"))),
    };
    variables.entries().iter().map(text).collect()
}

const MAPPING_READ: [&str; 12] = [
    "BatchSize",
    "BisectBatchOnFunctionError",
    "DestinationConfig",
    "Enabled",
    "FilterCriteria",
    "FunctionResponseTypes",
    "MaximumBatchingWindowInSeconds",
    "MaximumRecordAgeInSeconds",
    "MaximumRetryAttempts",
    "ParallelizationFactor",
    "StartingPosition",
    "Stream",
];

fn mapping(
    scope: &ResolveScope<'_>,
    name: &str,
    properties: Option<&TemplateNode>,
    path: &str,
) -> Result<Option<MappingResource>, PropertyError> {
    let path = format!("{path}.Properties");
    let resolved = ResolvedMapping::resolve(scope, properties, &path, &MAPPING_READ, &["MetricsConfig"])?;
    if !resolved.flag("Enabled", true)? {
        return Ok(None);
    }
    let Some(NodeValue::Stream(table)) = resolved.get("Stream").map(|stream| &stream.value) else {
        return Err(resolved.property_error("Stream", "GetAtt StreamArn of a table of this template"));
    };
    let filters = resolved.within("FilterCriteria", &["Filters"])?;
    let filters = filters.map(|criteria| criteria.each("Filters", &["Pattern"])).transpose()?.unwrap_or_default();
    let responses = resolved.texts("FunctionResponseTypes")?;
    if let Some(other) = responses.iter().find(|response| *response != "ReportBatchItemFailures") {
        return Err(
            resolved.property_error("FunctionResponseTypes", &format!("ReportBatchItemFailures, found {other}"))
        );
    }
    Ok(Some(MappingResource {
        name: name.to_owned(),
        table: table.clone(),
        batch_size: resolved.number("BatchSize", 1..=10_000, 100)?,
        window_s: resolved.number("MaximumBatchingWindowInSeconds", 0..=300, 0)?,
        parallelization_factor: resolved.number("ParallelizationFactor", 1..=10, 1)?,
        maximum_retry_attempts: resolved.number("MaximumRetryAttempts", -1..=10_000, -1)?,
        maximum_record_age_s: resolved.number("MaximumRecordAgeInSeconds", -1..=604_800, -1)?,
        bisect: resolved.flag("BisectBatchOnFunctionError", false)?,
        report_batch_item_failures: !responses.is_empty(),
        filters: filters.iter().map(|filter| filter.required("Pattern")).collect::<Result<_, _>>()?,
        on_failure_bucket: destination(&resolved)?,
        starting_position: resolved.word("StartingPosition", &["TRIM_HORIZON", "LATEST"])?,
    }))
}

/// Lambda writes complete records only to S3, so no other destination is supported here.
fn destination(resolved: &ResolvedMapping) -> Result<Option<String>, PropertyError> {
    let config = resolved.within("DestinationConfig", &["OnFailure"])?;
    let Some(failure) =
        config.map(|config| config.within("OnFailure", &["Destination", "Type"])).transpose()?.flatten()
    else {
        return Ok(None);
    };
    let destination = failure.required("Destination")?;
    let bucket = destination.strip_prefix("arn:aws:s3:::");
    bucket
        .map(|bucket| Some(bucket.to_owned()))
        .ok_or_else(|| failure.property_error("Destination", "GetAtt Arn of a bucket"))
}

/// Returns a route with the function that its integration invokes.
fn route(
    scope: &ResolveScope<'_>,
    resources: &TemplateNode,
    id: &str,
    resource: &TemplateNode,
) -> Result<ApiRoute, PropertyError> {
    let path = format!("Resources.{id}.Properties");
    let read = ["AuthorizationType", "AuthorizerId", "RouteKey", "Target"];
    let resolved =
        ResolvedMapping::resolve(scope, resource.get("Properties"), &path, &read, &["ApiId", "OperationName"])?;
    let key = resolved.required("RouteKey")?;
    let (method, path) = match key.split_once(' ') {
        Some((method, path)) if path.starts_with('/') => (method, path),
        None if key == "$default" => ("ANY", key.as_str()),
        _ => return Err(resolved.property_error("RouteKey", "a method and a path, or $default")),
    };
    // The type is required: a route without it would be open to everyone.
    let authorization = resolved.word("AuthorizationType", &["AWS_IAM", "JWT"])?;
    if authorization == "JWT" {
        resolved.required("AuthorizerId")?;
    }
    let target = resolved.required("Target")?;
    let integration = target.strip_prefix("integrations/").and_then(|id| Some((id, resources.get(id)?)));
    let (target, integration) = integration
        .ok_or_else(|| resolved.property_error("Target", "integrations/ and an AWS::ApiGatewayV2::Integration"))?;
    Ok(ApiRoute {
        function: integrated(scope, target, integration)?,
        method: method.to_owned(),
        path: path.to_owned(),
        authorization,
    })
}

/// Returns the local name of the function that an integration invokes.
fn integrated(scope: &ResolveScope<'_>, id: &str, resource: &TemplateNode) -> Result<String, PropertyError> {
    let path = format!("Resources.{id}.Properties");
    let read = ["IntegrationType", "IntegrationUri", "PayloadFormatVersion"];
    let passed = ["ApiId", "Description", "TimeoutInMillis"];
    let resolved = ResolvedMapping::resolve(scope, resource.get("Properties"), &path, &read, &passed)?;
    resolved.word("IntegrationType", &["AWS_PROXY"])?;
    resolved.word("PayloadFormatVersion", &["2.0"])?;
    let invoked = resolved.required("IntegrationUri")?;
    let function = invoked.strip_prefix(&function_arn(""));
    function.map(str::to_owned).ok_or_else(|| resolved.property_error("IntegrationUri", "GetAtt Arn of a function"))
}
