//! The relational tier and the cache tier in the templates: disabled by default, in a network without a route out of
//! it, and with encryption and backups for the user data in them. `scripts/resolve_templates.py` checks the resources
//! that each combination deploys.

use std::collections::{BTreeMap, BTreeSet};

use saphyr::{LoadableYamlNode, Yaml};
use serde_json::Value;

use super::state_machine::json_of;
use super::{TEMPLATES, source, template};

const STACKS: [(&str, &str, &str); 4] = [
    ("NetworkStack", "infra/network.yaml", "HasNetwork"),
    ("EndpointsStack", "infra/endpoints.yaml", "HasNetwork"),
    ("RelationalStack", "infra/relational.yaml", "HasRelational"),
    ("CacheStack", "infra/cache.yaml", "HasCache"),
];

pub(super) fn section(path: &str, name: &str) -> BTreeMap<String, Value> {
    let text = source(path);
    let documents = Yaml::load_from_str(&text).unwrap();
    let entries = documents[0][name].as_mapping().unwrap();
    entries.iter().map(|(id, node)| (id.as_str().unwrap().to_owned(), json_of(node))).collect()
}

fn names(path: &str, section: &str) -> BTreeSet<String> {
    let text = source(path);
    let documents = Yaml::load_from_str(&text).unwrap();
    documents[0][section].as_mapping().unwrap().keys().map(|id| id.as_str().unwrap().to_owned()).collect()
}

fn resources_of_type(path: &str, kind: &str) -> BTreeMap<String, Value> {
    section(path, "Resources").into_iter().filter(|(_, resource)| resource["Type"] == kind).collect()
}

#[test]
fn nested_stack_gets_its_parameters_and_has_the_referenced_outputs() {
    let (resources, root) = (section("template.yaml", "Resources"), source("template.yaml"));
    for (id, path, condition) in STACKS {
        let stack = &resources[id];
        assert_eq!((&stack["Condition"], &stack["Properties"]["TemplateURL"]), (&condition.into(), &path.into()));
        let passed: BTreeSet<String> = stack["Properties"]["Parameters"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(passed, names(path, "Parameters"), "{id}");
        outputs_exist(&root, id, path);
    }
    // Everything that has no default, and more.
    let replication = &resources["Replication"]["Properties"];
    assert_eq!(replication["Location"], "infra/replication.yaml");
    let passed: BTreeSet<String> = replication["Parameters"].as_object().unwrap().keys().cloned().collect();
    let parameters = section("infra/replication.yaml", "Parameters");
    assert_eq!(passed.iter().find(|name| !parameters.contains_key(*name)), None);
    let missing = parameters.iter().find(|(name, of)| of["Default"].is_null() && !passed.contains(*name));
    assert_eq!(missing, None, "has no default");
    outputs_exist(&root, "Replication", "infra/replication.yaml");
}

fn outputs_exist(root: &str, id: &str, path: &str) {
    let outputs = names(path, "Outputs");
    let read: BTreeSet<&str> = root.split(&format!("{id}.Outputs.")).skip(1).map(word).collect();
    assert!(!read.is_empty() && read.iter().all(|name| outputs.contains(*name)), "{id}: {outputs:?}, {read:?} is read");
}

/// A parameter of both templates, if both are deployed, has one meaning.
#[test]
fn a_parameter_of_the_users_service_reaches_replication_under_its_name() {
    let given = &section("template.yaml", "Resources")["Replication"]["Properties"]["Parameters"];
    let (root, nested) = (section("template.yaml", "Parameters"), section("infra/replication.yaml", "Parameters"));
    let mut shared = 0;
    for (name, parameter) in root.iter().filter(|(name, _)| nested.contains_key(*name) && *name != "DatabaseUrl") {
        let same = |of: &Value| {
            ["Type", "Default", "AllowedValues", "AllowedPattern", "MinValue", "MaxValue"].map(|key| of[key].clone())
        };
        assert_eq!(same(parameter), same(&nested[name]), "{name}");
        assert_eq!(given[name], format!("!Ref {name}"), "{name}");
        shared += 1;
    }
    assert_eq!(shared, 16, "a new one needs its line in template.yaml");
}

fn word(text: &str) -> &str {
    text.split(|letter: char| !letter.is_ascii_alphanumeric()).next().unwrap()
}

#[test]
fn no_tier_is_on_unless_wanted_and_then_no_function_is_in_a_network() {
    for function in template().functions {
        let of_a_tier =
            |name: &&String| name.starts_with("POSTGRES") || name.starts_with("CACHE") || *name == "RATE_LIMIT";
        assert_eq!(function.environment.keys().find(of_a_tier), None, "{}", function.name);
    }
    let functions: BTreeMap<String, Value> =
        TEMPLATES.into_iter().flat_map(|path| resources_of_type(path, "AWS::Serverless::Function")).collect();
    let condition = |function: &str| functions[function]["Properties"]["VpcConfig"][0].as_str();
    assert_eq!(condition("ApiFunction"), Some("HasCache"));
    assert_eq!(condition("ReplicatorFunction"), Some("HasNetwork"));
    assert_eq!(condition("MaintenanceFunction"), Some("HasRelational"));
    assert!(functions["ArchiverFunction"]["Properties"]["VpcConfig"].is_null(), "it calls nothing in a network");
    let search = &functions["SearchFunction"];
    assert!(search["Condition"] == "HasRelational" && search["Properties"]["VpcConfig"].is_object());
}

#[test]
fn nothing_leads_out_of_the_network() {
    let kinds: BTreeSet<String> = section("infra/network.yaml", "Resources")
        .into_values()
        .chain(section("infra/endpoints.yaml", "Resources").into_values())
        .map(|resource| resource["Type"].as_str().unwrap().to_owned())
        .collect();
    for way in ["InternetGateway", "NatGateway", "Route", "EIP", "VPCPeeringConnection", "VPCGatewayAttachment"] {
        assert!(!kinds.contains(&format!("AWS::EC2::{way}")), "{way}");
    }
    let endpoints = |path| resources_of_type(path, "AWS::EC2::VPCEndpoint");
    for (id, endpoint) in endpoints("infra/network.yaml").into_iter().chain(endpoints("infra/endpoints.yaml")) {
        let statements = endpoint["Properties"]["PolicyDocument"]["Statement"].as_array().unwrap();
        let own = |statement: &Value| !statement["Condition"]["StringEquals"]["aws:PrincipalAccount"].is_null();
        assert!(statements.iter().all(own), "{id} serves other accounts");
        let gateway = ["DynamoDbEndpoint", "S3Endpoint"].contains(&id.as_str());
        assert_eq!(endpoint["Properties"]["VpcEndpointType"], if gateway { "Gateway" } else { "Interface" });
        let expected = match id.as_str() {
            "SecretsEndpoint" => "NeedsSecrets".into(),
            _ if gateway => Value::Null,
            _ => "HasDatabase".into(),
        };
        assert_eq!(endpoint["Condition"], expected, "{id} costs by the hour");
    }
}

#[test]
fn replicator_reaches_secrets_manager_if_a_document_has_hash_keys() {
    let conditions = section("infra/network.yaml", "Conditions");
    assert_eq!(conditions["NeedsSecrets"], serde_json::json!(["!Condition HasDatabase", "!Condition HasHashKeys"]));
    let resources = section("infra/network.yaml", "Resources");
    for (id, condition) in [
        ("SecretsEndpoint", "NeedsSecrets"),
        ("EndpointsGroup", "NeedsSecrets"),
        ("EndpointsFromReplicator", "HasHashKeys"),
        ("EndpointsFromMaintenance", "HasDatabase"),
    ] {
        assert_eq!(resources[id]["Condition"], condition, "{id}");
    }
    let name = "HashKeySecretArns";
    let parameter = |path| section(path, "Parameters")[name].clone();
    let (network, replication) = (parameter("infra/network.yaml"), parameter("infra/replication.yaml"));
    for member in ["Type", "Default", "AllowedPattern"] {
        assert_eq!(network[member], replication[member], "{member}");
    }
}

#[test]
fn security_group_ingress_allows_only_security_groups() {
    for (id, group) in resources_of_type("infra/network.yaml", "AWS::EC2::SecurityGroup") {
        let properties = &group["Properties"];
        assert!(
            properties["SecurityGroupIngress"].is_null(),
            "{id}: a rule of its own cannot name a group that names it"
        );
        let out = properties["SecurityGroupEgress"].as_array();
        let out = out.unwrap_or_else(|| panic!("{id}: no rule at all lets everything out"));
        for rule in out.iter().filter(|rule| rule["CidrIp"] == "0.0.0.0/0") {
            assert_eq!((&rule["FromPort"], &rule["ToPort"]), (&443.into(), &443.into()), "{id}");
        }
    }
    let mut doors = BTreeSet::new();
    for (id, rule) in resources_of_type("infra/network.yaml", "AWS::EC2::SecurityGroupIngress") {
        let rule = &rule["Properties"];
        assert!(rule["CidrIp"].is_null() && rule["CidrIpv6"].is_null(), "{id} lets in addresses");
        let name = |key: &str| rule[key].as_str().unwrap().trim_start_matches("!Ref ").to_owned();
        doors.insert((name("GroupId"), name("SourceSecurityGroupId")));
    }
    let expected = [
        ("CacheGroup", "ApiGroup"),
        ("CacheGroup", "ReplicatorGroup"),
        ("DatabaseGroup", "MaintenanceGroup"),
        ("DatabaseGroup", "ReplicatorGroup"),
        ("DatabaseGroup", "RotationGroup"),
        ("DatabaseGroup", "SearchGroup"),
        ("EndpointsGroup", "MaintenanceGroup"),
        ("EndpointsGroup", "ReplicatorGroup"),
        ("EndpointsGroup", "RotationGroup"),
    ];
    assert_eq!(doors, expected.map(|(door, who)| (door.to_owned(), who.to_owned())).into());
}

#[test]
fn either_database_is_encrypted_entered_by_tokens_over_tls_and_kept() {
    let resources = section("infra/relational.yaml", "Resources");
    for id in ["Cluster", "Instance"] {
        let (database, properties) = (&resources[id], &resources[id]["Properties"]);
        for flag in ["StorageEncrypted", "EnableIAMDatabaseAuthentication", "CopyTagsToSnapshot"] {
            assert_eq!(properties[flag], true, "{id} {flag}");
        }
        assert_eq!(properties["KmsKeyId"], "!GetAtt Key.Arn", "{id}");
        for set in [
            "BackupRetentionPeriod",
            "PreferredBackupWindow",
            "PreferredMaintenanceWindow",
            "EnableCloudwatchLogsExports",
        ] {
            assert!(!properties[set].is_null(), "{id} {set}");
        }
        assert_eq!(properties["DeletionProtection"][0], "IsProtected", "{id}");
        assert_eq!(
            (&database["DeletionPolicy"], &database["UpdateReplacePolicy"]),
            (&"Snapshot".into(), &"Snapshot".into())
        );
    }
    for id in ["Writer", "Reader", "Instance", "ReadReplica"] {
        let properties = &resources[id]["Properties"];
        assert_eq!(properties["PubliclyAccessible"], false, "{id}");
        assert_eq!(properties["EnablePerformanceInsights"], true, "{id}");
    }
    assert_eq!(resources["Instance"]["Properties"]["MultiAZ"], true);
    assert!(!resources["Instance"]["Properties"]["MaxAllocatedStorage"].is_null(), "its storage grows");
    assert_eq!(resources["Cluster"]["Properties"]["ManageMasterUserPassword"], true);
    assert_eq!(resources["RotationStack"]["Properties"]["TemplateURL"], "rotation.yaml");
    for id in ["ClusterParameters", "InstanceParameters"] {
        let parameters = &resources[id]["Properties"]["Parameters"];
        assert_eq!(parameters["rds.force_ssl"], "1", "{id}");
        for values in ["log_parameter_max_length", "log_parameter_max_length_on_error"] {
            assert_eq!(parameters[values], "0", "{id}: what a statement is given holds names and addresses");
        }
        assert_eq!(parameters["log_error_verbosity"], "terse", "{id}: a failing row is logged");
    }
}

#[test]
fn either_cache_is_encrypted_and_entered_by_tokens_alone() {
    let resources = section("infra/cache.yaml", "Resources");
    let (user, group) = (&resources["FunctionsUser"]["Properties"], &resources["ReplicationGroup"]["Properties"]);
    assert_eq!(user["AuthenticationMode"]["Type"], "iam");
    assert_eq!(user["UserId"], user["UserName"], "a login by IAM wants both alike");
    assert_eq!(resources["Users"]["Properties"]["UserIds"], serde_json::json!(["!Ref FunctionsUser"]));
    for flag in ["TransitEncryptionEnabled", "AtRestEncryptionEnabled", "MultiAZEnabled", "AutomaticFailoverEnabled"] {
        assert_eq!(group[flag], true, "{flag}");
    }
    assert_eq!((&group["TransitEncryptionMode"], &group["KmsKeyId"]), (&"required".into(), &"!GetAtt Key.Arn".into()));
    assert!(!group["SnapshotRetentionLimit"].is_null());
    let logs: Vec<&Value> =
        group["LogDeliveryConfigurations"].as_array().unwrap().iter().map(|log| &log["LogType"]).collect();
    assert_eq!(logs, ["engine-log"], "a slow log holds the arguments of commands");
    let serverless = &resources["ServerlessCache"]["Properties"];
    assert_eq!(serverless["UserGroupId"], "!Ref Users");
    assert_eq!(serverless["KmsKeyId"], "!GetAtt Key.Arn");
}

#[test]
fn the_manual_names_what_there_is_and_nothing_else() {
    let manual = source("docs/operations.md");
    let outputs = names("template.yaml", "Outputs");
    for read in manual.split("$(output ").skip(1).map(word) {
        assert!(outputs.contains(read), "{read} is no output");
    }
    // documents::documented_template_parameters_and_defaults_are_those_of_the_template compares the parameters.
    for section in ["relational-tier", "cache-tier", "network"] {
        assert!(manual.contains(&format!("configuration.md#{section}")), "no link to {section}");
    }
    let alarms = |path: &str| {
        let composite = resources_of_type(path, "AWS::CloudWatch::CompositeAlarm");
        resources_of_type(path, "AWS::CloudWatch::Alarm").into_keys().chain(composite.into_keys())
    };
    let of_the_tiers: BTreeSet<String> = alarms("infra/relational.yaml").chain(alarms("infra/cache.yaml")).collect();
    let all: BTreeSet<String> = of_the_tiers.iter().cloned().chain(TEMPLATES.into_iter().flat_map(alarms)).collect();
    let named: BTreeSet<String> = manual.split('`').filter(|word| word.ends_with("Alarm")).map(str::to_owned).collect();
    assert_eq!(of_the_tiers.difference(&named).next(), None, "is not explained");
    assert_eq!(named.difference(&all).next(), None, "is no alarm");
}
