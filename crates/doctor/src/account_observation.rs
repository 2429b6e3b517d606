//! Adds what only an account knows to a deployment: the state of mappings, metrics, permissions as the account
//! evaluates them, failure objects, shards, a sample of TTL values, and routes of subnets ([`add`]).

use std::collections::BTreeMap;

use millrace_shared::transform_record::{NO_RULES, PREFIX, TransformRecords, TransformState};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::account_call::{
    DESCRIBE_ENDPOINTS, DESCRIBE_GROUPS, DESCRIBE_ROUTES, DESCRIBE_STREAM, GET_FUNCTION, GET_STATISTICS, LIST_OBJECTS,
    SCAN, SIMULATE,
};
use crate::account_reader::{one_or_many, text_of};
use crate::account_recording::ResponseBook;
use crate::deployment::{
    FailureObjects, FunctionPurpose, FunctionSettings, OutdatedReplica, SecurityGroupSettings, StreamDeployment,
    StreamMapping, SubnetRoutes, TtlSample, VpcEndpointSettings, bucket_name,
};
use crate::deployment_builder::security_group;
use crate::iam_policy::{GrantResult, SimulatedGrant};
use crate::replica_address::{region_and_account, replica_names};
use crate::resource_entry::resolved_json;
use crate::rules::destination::{FAILURE_PREFIX, MAX_LISTED, needed_grants};
use crate::rules::encryption::key_uses;
use crate::setting::SettingValue;

/// The least number that is a time in milliseconds: as seconds, it is in the year 5138.
const MIN_MILLISECONDS: f64 = 100_000_000_000.0;
/// The namespace of Lambda's metrics.
const AWS_LAMBDA: &str = "AWS/Lambda";
/// The largest age of a period of a metric that shows the present state.
const LATEST_WITHIN: time::Duration = time::Duration::minutes(15);
/// The members of a function's configuration that a published version has a copy of.
const VERSIONED: [&str; 7] = ["CodeSha256", "Environment", "Handler", "LoggingConfig", "MemorySize", "Role", "Timeout"];

/// Adds the observations of the account to the deployment. `evaluated` are the mappings as the account describes them.
pub(crate) fn add(book: &ResponseBook<'_>, deployment: &mut StreamDeployment, evaluated: &[&Value]) {
    let mut mappings = std::mem::take(&mut deployment.mappings);
    for mapping in &mut mappings {
        if let Some(state) = evaluated.iter().find(|it| it["UUID"] == mapping.id.as_str()) {
            mapping.observed.problem = problem_of(state);
            mapping.observed.modified = modified(state);
        }
        observe(book, deployment, mapping);
    }
    deployment.mappings = mappings;
    simulate(book, deployment);
    count_shards(book, deployment);
    for table in &mut deployment.tables {
        table.ttl_sample = match &table.ttl_attribute {
            SettingValue::Known(attribute) => {
                let parameters = [("TableName", table.name.as_str()), ("Attribute", attribute)];
                book.response(&SCAN, &parameters).map(|response| sample(response, attribute))
            }
            SettingValue::Absent => SettingValue::Absent,
            SettingValue::Unresolved(reason) => SettingValue::Unresolved(reason.clone()),
        };
    }
    route_subnets(book, deployment);
}

/// Returns the problem that the state or the last result of a mapping shows.
fn problem_of(mapping: &Value) -> SettingValue<String> {
    let state = text_of(&mapping["State"]).unwrap_or("unknown");
    let reason = text_of(&mapping["StateTransitionReason"]).unwrap_or("no reason is given");
    match text_of(&mapping["LastProcessingResult"]) {
        _ if matches!(state, "Disabled" | "Disabling" | "Deleting") => {
            SettingValue::Known(format!("the mapping's state is {state} ({reason})"))
        }
        Some(result) if result.starts_with("PROBLEM") => {
            SettingValue::Known(format!("the mapping's last result is {result:?}"))
        }
        _ => SettingValue::Absent,
    }
}

fn observe(book: &ResponseBook<'_>, deployment: &StreamDeployment, mapping: &mut StreamMapping) {
    let arn = mapping.function.known().cloned().unwrap_or_default();
    let rest = arn.split_once(":function:").map_or(arn.as_str(), |(_, rest)| rest);
    let (name, qualifier) = rest.split_once(':').map_or((rest, None), |(name, rest)| (name, Some(rest)));
    let dimension = format!("FunctionName={name}");
    let of_function = |metric, statistic| statistics(book, AWS_LAMBDA, &dimension, metric, statistic);
    mapping.observed.oldest_record_s = of_function("IteratorAge", "Maximum").map(|milliseconds| milliseconds / 1_000);
    mapping.observed.lag_s = latest(book, &dimension, "IteratorAge").map(|milliseconds| milliseconds / 1_000);
    mapping.observed.p99_duration_ms = of_function("Duration", "p99");
    if mapping.on_failure.known().is_some() {
        mapping.observed.undelivered = of_function("DestinationDeliveryFailures", "Sum");
    }
    let has_filter = mapping.filters.known().is_some_and(|filters| !filters.is_empty());
    if has_filter && mapping.event_count.known() == Some(&true) {
        let dimension = format!("EventSourceMappingUUID={}", mapping.id);
        let of_mapping = |metric| statistics(book, AWS_LAMBDA, &dimension, metric, "Sum");
        (mapping.observed.polled, mapping.observed.filtered_out) =
            (of_mapping("PolledEventCount"), of_mapping("FilteredOutEventCount"));
    }
    if let Some(qualifier) = qualifier.filter(|qualifier| *qualifier != "$LATEST") {
        let latest = book.response(&GET_FUNCTION, &[("FunctionName", name)]);
        let invoked = book.response(&GET_FUNCTION, &[("FunctionName", name), ("Qualifier", qualifier)]);
        mapping.observed.outdated_version = latest.and_then(|latest| {
            invoked.and_then(|invoked| {
                let differing: Vec<&str> = VERSIONED.into_iter().filter(|it| latest[*it] != invoked[*it]).collect();
                if differing.is_empty() {
                    return SettingValue::Absent;
                }
                let version = text_of(&invoked["Version"]).unwrap_or("an unknown version");
                SettingValue::Known(format!(
                    "the mapping invokes {qualifier}, which is version {version} and differs from the function's \
                     latest configuration in {}",
                    differing.join(", ")
                ))
            })
        });
    }
    let own = deployment.function_of(mapping).ok().and_then(own_function);
    if let Some((function, own)) = own {
        let stack = match function.environment.get("STACK_NAME").map(SettingValue::get) {
            Some(Ok(Some(name))) => Ok(name.as_str()),
            Some(Err(reason)) => Err(reason),
            Some(Ok(None)) | None => Ok("default"),
        };
        mapping.observed.quarantined = match stack {
            Ok(stack) => statistics(book, "Millrace", &format!("function={own},stack={stack}"), "Quarantined", "Sum"),
            Err(reason) => SettingValue::Unresolved(reason),
        };
    }
    mapping.observed.failure_objects = failure_objects(book, mapping, own);
    mapping.observed.outdated_replicas = match own {
        Some((function, "replicator")) => outdated_replicas(book, function),
        _ => SettingValue::Absent,
    };
}

/// Returns the function with the name that it has in metrics and in the quarantine, if it is one of Millrace's own.
fn own_function(function: &FunctionSettings) -> Option<(&FunctionSettings, &'static str)> {
    let name = match function.purpose? {
        FunctionPurpose::Replicator => "replicator",
        FunctionPurpose::Archiver => "archiver",
    };
    function.is_own.then_some((function, name))
}

/// Returns the time of a mapping's last update, which the API states in seconds since 1970.
fn modified(mapping: &Value) -> SettingValue<String> {
    #[expect(clippy::cast_possible_truncation, reason = "a time in seconds; the cast saturates")]
    let time = mapping["LastModified"].as_f64().map(|seconds| seconds as i64);
    let time = time.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    time.and_then(|time| time.format(&Rfc3339).ok()).map_or(SettingValue::Absent, SettingValue::Known)
}

/// Returns the total or the maximum of a metric of the last 14 days.
fn statistics(
    book: &ResponseBook<'_>,
    namespace: &str,
    dimensions: &str,
    metric: &str,
    statistic: &str,
) -> SettingValue<i64> {
    let parameters =
        [("Namespace", namespace), ("MetricName", metric), ("Dimensions", dimensions), ("Statistic", statistic)];
    book.response(&GET_STATISTICS, &parameters).and_then(|response| {
        let points = one_or_many(&response["Datapoints"]);
        let values: Vec<f64> = points.into_iter().filter_map(|point| value_of(point, statistic)).collect();
        if values.is_empty() {
            return SettingValue::Absent;
        }
        let total = if statistic == "Sum" { values.iter().sum() } else { values.iter().copied().fold(0.0, f64::max) };
        SettingValue::Known(rounded(total))
    })
}

/// Returns the smaller maximum of a metric of Lambda in its latest two periods of the last hour; absent if the function was
/// not invoked in two periods, or not in the last 15 minutes. One period with a high age is no proof of a lag: all that is
/// old may have been delivered in it.
fn latest(book: &ResponseBook<'_>, dimensions: &str, metric: &str) -> SettingValue<i64> {
    let parameters = [
        ("Namespace", AWS_LAMBDA),
        ("MetricName", metric),
        ("Dimensions", dimensions),
        ("Statistic", "Maximum"),
        ("Hours", "1"),
    ];
    book.response(&GET_STATISTICS, &parameters).and_then(|response| {
        let mut points = one_or_many(&response["Datapoints"]);
        // Times in UTC and in one form are ordered as text.
        points.sort_by_key(|point| point["Timestamp"].as_str().unwrap_or_default());
        let [.., former, last] = points.as_slice() else { return SettingValue::Absent };
        let at = text_of(&last["Timestamp"]).and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
        if at.is_none_or(|at| book.recording.read_at - at > LATEST_WITHIN) {
            return SettingValue::Absent;
        }
        let both = value_of(former, "Maximum").zip(value_of(last, "Maximum"));
        both.map(|(earlier, later)| earlier.min(later))
            .map_or(SettingValue::Absent, |value| SettingValue::Known(rounded(value)))
    })
}

/// Returns a statistic of a data point; a percentile is an entry of a map.
fn value_of(point: &Value, statistic: &str) -> Option<f64> {
    let percentiles = &point["ExtendedStatistics"];
    let entries = one_or_many(&percentiles["entry"]);
    let of_entry = entries.into_iter().find(|entry| entry["key"] == statistic).map(|entry| &entry["value"]);
    let value = of_entry.or_else(|| percentiles.get(statistic)).unwrap_or(&point[statistic]);
    let value = match value {
        Value::String(text) => text.parse::<f64>().ok(),
        number => number.as_f64(),
    };
    value.filter(|value| value.is_finite())
}

#[expect(clippy::cast_possible_truncation, reason = "a number of records or milliseconds; the cast saturates")]
fn rounded(value: f64) -> i64 {
    value.round() as i64
}

/// Counts the failure objects of a mapping, and of the records that a function of Millrace quarantines.
fn failure_objects(
    book: &ResponseBook<'_>,
    mapping: &StreamMapping,
    own: Option<(&FunctionSettings, &str)>,
) -> SettingValue<FailureObjects> {
    let bucket = match mapping.on_failure.get() {
        Ok(arn) => arn.and_then(|arn| bucket_name(arn)).map(str::to_owned),
        Err(reason) => return SettingValue::Unresolved(reason),
    };
    let mut prefixes: Vec<(String, String, bool)> = Vec::new();
    prefixes.extend(bucket.map(|bucket| (bucket, format!("{FAILURE_PREFIX}{}/", mapping.id), false)));
    let quarantine = own.and_then(|(function, name)| {
        Some((function.environment.get("FAILURE_BUCKET")?.known()?.clone(), format!("quarantine/{name}/"), true))
    });
    prefixes.extend(quarantine);
    let now = book.recording.read_at;
    let mut found: Option<FailureObjects> = None;
    for (bucket, prefix, is_quarantine) in &prefixes {
        let response = match book.response(&LIST_OBJECTS, &[("Bucket", bucket), ("Prefix", prefix)]) {
            SettingValue::Known(response) => response,
            SettingValue::Absent => continue,
            SettingValue::Unresolved(reason) => return SettingValue::Unresolved(reason),
        };
        for object in one_or_many(&response["Contents"]) {
            let age = written_at(object).map_or(0, |written| (now - written).whole_hours());
            let before = found.unwrap_or(FailureObjects { count: 0, quarantined: 0, oldest_h: 0 });
            found = Some(FailureObjects {
                count: before.count + 1,
                quarantined: before.quarantined + usize::from(*is_quarantine),
                oldest_h: before.oldest_h.max(age),
            });
        }
    }
    found.map_or(SettingValue::Absent, SettingValue::Known)
}

/// Returns the replicas of a replicator's document for which no repair over all segments has passed with the rules in
/// use, which the failure bucket records. A replica without a document has no rules, and no records.
fn outdated_replicas(book: &ResponseBook<'_>, function: &FunctionSettings) -> SettingValue<Vec<OutdatedReplica>> {
    let bucket = match function.environment.get("FAILURE_BUCKET").map(SettingValue::get) {
        Some(Ok(Some(bucket))) => bucket,
        Some(Ok(None)) | None => return SettingValue::Absent,
        Some(Err(reason)) => return SettingValue::Unresolved(reason),
    };
    let names = match replica_names(&function.environment) {
        Ok(names) => names,
        Err(reason) => return SettingValue::Unresolved(reason),
    };
    let (mut outdated, mut unread) = (Vec::new(), None);
    for name in names {
        let prefix = format!("{PREFIX}{name}/");
        let response = match book.response(&LIST_OBJECTS, &[("Bucket", bucket), ("Prefix", &prefix)]) {
            SettingValue::Known(response) => response,
            SettingValue::Absent => continue,
            SettingValue::Unresolved(reason) => {
                unread = Some(reason);
                continue;
            }
        };
        let objects = one_or_many(&response["Contents"]);
        if objects.len() >= MAX_LISTED {
            unread = Some(format!("{bucket} has {MAX_LISTED} or more objects below {prefix}, and no more are listed"));
            continue;
        }
        let objects = objects.into_iter().filter_map(|object| Some((text_of(&object["Key"])?, written_at(object))));
        let records = TransformRecords::new(&name, objects);
        let repair_from = match records.state(records.rules_in_use().unwrap_or(NO_RULES)) {
            TransformState::Confirmed => continue,
            TransformState::Unrepaired { repair_from } => repair_from.format(&Rfc3339).ok(),
            TransformState::Unused => None,
        };
        outdated.push(OutdatedReplica { name, repair_from });
    }
    match (outdated.is_empty(), unread) {
        (false, _) => SettingValue::Known(outdated),
        (true, Some(reason)) => SettingValue::Unresolved(reason),
        (true, None) => SettingValue::Absent,
    }
}

fn written_at(object: &Value) -> Option<OffsetDateTime> {
    text_of(&object["LastModified"]).and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok())
}

/// A permission that a rule asks for.
struct WantedGrant {
    action: &'static str,
    resource: String,
    /// The service that uses a key for the role.
    service: Option<String>,
}

/// Evaluates the permissions that the rules require.
fn simulate(book: &ResponseBook<'_>, deployment: &mut StreamDeployment) {
    let mut wanted: BTreeMap<String, Vec<WantedGrant>> = BTreeMap::new();
    for mapping in &deployment.mappings {
        let Ok(function) = deployment.function_of(mapping) else { continue };
        let Some(role) = function.role.known() else { continue };
        let of_role = wanted.entry(role.clone()).or_default();
        if let Some(arn) = mapping.on_failure.known() {
            let service = arn.split(':').nth(2).map(str::to_owned);
            of_role.extend(needed_grants(deployment, arn).into_iter().map(|(action, resource)| {
                let service = service.clone().filter(|_| action.starts_with("kms:"));
                WantedGrant { action, resource, service }
            }));
        }
        let keys = key_uses(deployment, mapping).into_iter().flatten();
        of_role.extend(keys.map(|used| {
            let service = Some(used.service.to_owned());
            WantedGrant { action: used.action, resource: used.key, service }
        }));
    }
    for role in &mut deployment.roles {
        for WantedGrant { action, resource, service } in wanted.get(&role.arn).into_iter().flatten() {
            let mut parameters = vec![
                ("PolicySourceArn", role.arn.as_str()),
                ("ActionNames.member.1", action),
                ("ResourceArns.member.1", resource),
            ];
            // A statement may allow a key only through the service.
            let region = region_and_account(resource).map_or("", |(region, _)| region);
            let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
            let via = service.as_ref().map(|service| format!("{service}.{region}.{suffix}"));
            if let Some(via) = &via {
                parameters.extend([
                    ("ContextEntries.member.1.ContextKeyName", "kms:ViaService"),
                    ("ContextEntries.member.1.ContextKeyType", "string"),
                    ("ContextEntries.member.1.ContextKeyValues.member.1", via),
                ]);
            }
            let result = match book.response(&SIMULATE, &parameters) {
                SettingValue::Known(response) => evaluation(response),
                SettingValue::Absent => GrantResult::Unknown("the role does not exist".to_owned()),
                SettingValue::Unresolved(reason) => GrantResult::Unknown(reason),
            };
            let (action, resource, service) = ((*action).to_owned(), resource.clone(), service.clone());
            role.simulated.push(SimulatedGrant { action, resource, service, result });
        }
    }
}

fn evaluation(response: &Value) -> GrantResult {
    let Some(result) = one_or_many(&response["EvaluationResults"]).first().copied() else {
        return GrantResult::Unknown("SimulatePrincipalPolicy returned no result".to_owned());
    };
    let missing: Vec<&str> = one_or_many(&result["MissingContextValues"]).into_iter().filter_map(text_of).collect();
    match result["EvalDecision"].as_str() {
        Some("allowed") => GrantResult::Granted,
        Some("explicitDeny") => GrantResult::Denied,
        // Without the value of a condition, IAM takes the condition as not met.
        Some(_) if !missing.is_empty() => {
            GrantResult::Unknown(format!("the role's policies have conditions on {}", missing.join(", ")))
        }
        Some(_) => GrantResult::Missing,
        None => GrantResult::Unknown("SimulatePrincipalPolicy returned no decision".to_owned()),
    }
}

/// Counts the shards of the streams whose functions have reserved concurrency: only those can be too few.
fn count_shards(book: &ResponseBook<'_>, deployment: &mut StreamDeployment) {
    let mut shards: BTreeMap<String, SettingValue<i64>> = BTreeMap::new();
    for mapping in &deployment.mappings {
        let is_reserved = deployment.function_of(mapping).is_ok_and(|it| it.reserved_concurrency.known().is_some());
        let (true, Some(stream), Ok(table)) = (is_reserved, mapping.stream.known(), deployment.table_of(mapping))
        else {
            continue;
        };
        let count = book.response(&DESCRIBE_STREAM, &[("StreamArn", stream)]).map(|response| {
            let is_open = |shard: &&Value| shard["SequenceNumberRange"]["EndingSequenceNumber"].is_null();
            let open = one_or_many(&response["StreamDescription"]["Shards"]).into_iter().filter(is_open).count();
            i64::try_from(open).unwrap_or(i64::MAX)
        });
        shards.insert(table.name.clone(), count);
    }
    for table in &mut deployment.tables {
        if let Some(count) = shards.remove(&table.name) {
            table.open_shards = count;
        }
    }
}

fn sample(response: &Value, attribute: &str) -> TtlSample {
    let mut sample = TtlSample::default();
    for value in one_or_many(&response["Items"]).into_iter().map(|item| &item[attribute]).filter(|it| it.is_object()) {
        sample.values += 1;
        match value["N"].as_str().map(str::parse::<f64>) {
            Some(Ok(number)) if number >= MIN_MILLISECONDS => sample.milliseconds += 1,
            Some(Ok(_)) => {}
            _ => sample.not_numbers += 1,
        }
    }
    sample
}

/// Finds out which subnets of functions have a route to AWS's services.
fn route_subnets(book: &ResponseBook<'_>, deployment: &mut StreamDeployment) {
    let network = &mut deployment.network;
    for function in &deployment.functions {
        let Some(subnets) = function.subnets.known() else { continue };
        let name = function.name.split(':').next().unwrap_or_default();
        // The VPC is that of the function as it is now.
        let vpc = match book.response(&GET_FUNCTION, &[("FunctionName", name)]) {
            SettingValue::Known(configuration) => text_of(&configuration["VpcConfig"]["VpcId"]),
            _ => None,
        };
        let routes = match vpc {
            Some(vpc) => {
                match book.response(&DESCRIBE_GROUPS, &[("VpcId", vpc)]) {
                    SettingValue::Known(response) => network.groups.extend(groups_of(response)),
                    SettingValue::Absent => {}
                    SettingValue::Unresolved(reason) => network.unknown_groups = Some(reason),
                }
                let endpoints = book.response(&DESCRIBE_ENDPOINTS, &[("VpcId", vpc)]);
                let tables = book.response(&DESCRIBE_ROUTES, &[("VpcId", vpc)]);
                endpoints.and_then(|endpoints| tables.map(|tables| (endpoints, tables)))
            }
            None => SettingValue::Unresolved("the VPC of the function is not known".to_owned()),
        };
        for subnet in subnets {
            let routes = match &routes {
                SettingValue::Known((endpoints, tables)) => SettingValue::Known(routes_of(subnet, endpoints, tables)),
                SettingValue::Absent => SettingValue::Absent,
                SettingValue::Unresolved(reason) => SettingValue::Unresolved(reason.clone()),
            };
            network.routed_subnets.insert(subnet.clone(), routes);
        }
    }
}

/// Returns the gateway endpoints of a subnet, the interface endpoints of its VPC, and whether it has a route out of it
/// that is not an internet gateway, which functions cannot use.
fn routes_of(subnet: &str, endpoints: &Value, tables: &Value) -> SubnetRoutes {
    let tables = one_or_many(&tables["routeTableSet"]);
    let has = |table: &Value, member: &str, value: &str| {
        one_or_many(&table["associationSet"]).into_iter().any(|association| association[member] == value)
    };
    let table = tables
        .iter()
        .find(|table| has(table, "subnetId", subnet))
        .or_else(|| tables.iter().find(|table| has(table, "main", "true")));
    let available = one_or_many(&endpoints["vpcEndpointSet"])
        .into_iter()
        .filter(|endpoint| endpoint["state"].as_str().is_none_or(|state| state.eq_ignore_ascii_case("available")));
    let id = table.and_then(|table| text_of(&table["routeTableId"]));
    let serves = |endpoint: &&Value| {
        let of_gateway = one_or_many(&endpoint["routeTableIdSet"]);
        endpoint["vpcEndpointType"] == "Interface" || of_gateway.into_iter().any(|it| it.as_str() == id && id.is_some())
    };
    let endpoints = available.filter(serves).map(endpoint_of).collect();
    let leaves = |route: &&Value| {
        let is_default = route["destinationCidrBlock"] == "0.0.0.0/0" || route["destinationIpv6CidrBlock"] == "::/0";
        let is_internet = text_of(&route["gatewayId"]).is_some_and(|gateway| gateway.starts_with("igw-"));
        is_default && !is_internet && route["state"] != "blackhole"
    };
    SubnetRoutes { is_open: table.is_some_and(|table| one_or_many(&table["routeSet"]).iter().any(leaves)), endpoints }
}

fn endpoint_of(endpoint: &Value) -> VpcEndpointSettings {
    let name = text_of(&endpoint["serviceName"]).unwrap_or("an unknown service").to_owned();
    let groups = one_or_many(&endpoint["groupSet"]).into_iter().filter_map(|group| text_of(&group["groupId"]));
    let groups = SettingValue::Known(groups.map(str::to_owned).collect());
    let is_interface = endpoint["vpcEndpointType"] == "Interface";
    VpcEndpointSettings { service: SettingValue::Known(name), groups: is_interface.then_some(groups) }
}

/// Returns the security groups of a VPC, with a rule for each of the other ends that a rule of the account has.
fn groups_of(response: &Value) -> BTreeMap<String, SecurityGroupSettings> {
    const PEERS: [(&str, &str, &str); 4] = [
        ("ipRanges", "cidrIp", "CidrIp"),
        ("ipv6Ranges", "cidrIpv6", "CidrIpv6"),
        ("prefixListIds", "prefixListId", "SourcePrefixListId"),
        ("groups", "groupId", "SourceSecurityGroupId"),
    ];
    let rules = |permissions: &Value| {
        let mut rules = Vec::new();
        for permission in one_or_many(permissions) {
            for (list, member, property) in PEERS {
                for peer in one_or_many(&permission[list]) {
                    let mut rule = json!({
                        "IpProtocol": permission["ipProtocol"],
                        "FromPort": permission["fromPort"],
                        "ToPort": permission["toPort"],
                    });
                    rule[property] = peer[member].clone();
                    rules.push(rule);
                }
            }
        }
        rules
    };
    let group = |group: &Value| {
        let properties = json!({
            "EgressIsComplete": true,
            "SecurityGroupEgress": rules(&group["ipPermissionsEgress"]),
            "SecurityGroupIngress": rules(&group["ipPermissions"]),
        });
        Some((text_of(&group["groupId"])?.to_owned(), security_group(&resolved_json(&properties))))
    };
    one_or_many(&response["securityGroupInfo"]).into_iter().filter_map(group).collect()
}
