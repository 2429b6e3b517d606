use std::path::Path;

use millrace_local::table_description::{GlobalReplica, KeyAttribute, KeyType, StreamViewType, TableCapacity};
use millrace_maintenance::replication_loop::FeedingFunction;

use super::findings::{FindingSeverity, TableFinding, key_parameter};
use super::observation::{CheckResult, KeyObservation, ReplicaObservation, SkipReason, SkippedCall, StreamReader};
use super::*;

/// The output of `aws dynamodb describe-table` for a table that can be attached.
const ORDERS: &str = include_str!("../../tests/attach/orders.json");

/// Returns the description of a table that can be attached.
pub(crate) fn orders() -> TableDescription {
    TableDescription::parse(ORDERS).unwrap()
}

/// Returns the observation of a table that was read completely and has no finding.
fn observation() -> TableObservation {
    let mut table = orders();
    table.time_to_live = TimeToLive::Enabled { attribute: "ttl".to_owned() };
    table.deletion_protection = Some(true);
    table.global_indexes.clear();
    TableObservation {
        table,
        skipped_ttl: None,
        recovery: CheckResult::Known(true),
        readers: CheckResult::Known(Vec::new()),
        key: Some(CheckResult::Known(KeyObservation { is_aws_managed: true, state: "Enabled".to_owned() })),
        replica: None,
    }
}

fn choices() -> AttachChoices {
    AttachChoices {
        stack_name: "orders-replication".to_owned(),
        stack_account: None,
        archive: None,
        replica_role: None,
        reserved_prefix: "_".to_owned(),
    }
}

fn plan(change: impl FnOnce(&mut TableObservation)) -> AttachPlan {
    let mut observation = observation();
    change(&mut observation);
    AttachPlan::new(&observation, &choices())
}

fn reader(function: &str, state: &str) -> StreamReader {
    StreamReader { function: function.to_owned(), state: state.to_owned() }
}

fn readers(readers: &[(&str, &str)]) -> CheckResult<Vec<StreamReader>> {
    CheckResult::Known(readers.iter().map(|(function, state)| reader(function, state)).collect())
}

fn view(observation: &mut TableObservation, view: StreamViewType) {
    observation.table.stream.as_mut().unwrap().view = view;
}

fn blocking(plan: &AttachPlan) -> Vec<&TableFinding> {
    plan.findings.iter().filter(|finding| finding.severity == FindingSeverity::Blocks).collect()
}

fn skipped(call: &'static str, action: &'static str) -> SkippedCall {
    SkippedCall { call, action, reason: SkipReason::Denied }
}

#[test]
fn a_table_with_everything_in_order_has_no_findings() {
    let plan = plan(|_| ());
    assert_eq!((plan.findings, plan.archive), (Vec::new(), ArchiveMode::Separate));
    assert_eq!((plan.source_key_arn, plan.replica_key_arn), (None, None));
}

type ObservationChange = fn(&mut TableObservation);

#[test]
fn a_table_that_cannot_be_attached_is_refused_with_the_fix() {
    let cases: [(ObservationChange, &str, &[&str]); 12] = [
        (|o| o.table.status = "UPDATING".to_owned(), "status", &["UPDATING", "aws dynamodb wait table-exists"]),
        (|o| o.table.status = "ARCHIVED".to_owned(), "status", &["ARCHIVED, not ACTIVE"]),
        (
            |o| o.table.stream = None,
            "stream",
            &[
                "no stream",
                "aws dynamodb update-table --region eu-west-1 --table-name Orders \
                 --stream-specification StreamEnabled=true,StreamViewType=NEW_AND_OLD_IMAGES",
            ],
        ),
        (
            |o| {
                o.table.former_stream_arn = o.table.stream.take().map(|stream| stream.arn);
            },
            "stream",
            &["table/Orders/stream/2026-11-27T08:00:00.000, can be read for 24 hours"],
        ),
        (
            |o| view(o, StreamViewType::KeysOnly),
            "stream",
            &["KEYS_ONLY", "lack the new item", "a new stream", "24 hours", "StreamEnabled=false"],
        ),
        (|o| view(o, StreamViewType::OldImage), "stream", &["OLD_IMAGE", "lack the new item", "StreamEnabled=false"]),
        (
            |o| view(o, StreamViewType::NewImage),
            "stream",
            &["NEW_IMAGE", "lacks the item to archive", "StreamEnabled=false", "--archive off"],
        ),
        (|o| o.table.partition_key.name = "_rev".to_owned(), "keys", &["_rev", "reserve"]),
        (|o| o.table.partition_key.name = "a\nb".to_owned(), "keys", &["\"a\\nb\"", "control character"]),
        (
            |o| o.readers = readers(&[("indexer", "Enabled"), ("audit", "Creating")]),
            "readers",
            &[
                "two readers",
                "indexer, audit",
                "aws lambda list-event-source-mappings --region eu-west-1 --event-source-arn arn:aws:dynamodb:",
                "aws lambda delete-event-source-mapping --region eu-west-1 --uuid UUID",
            ],
        ),
        (
            |o| {
                let key = KeyObservation { is_aws_managed: false, state: "PendingDeletion".to_owned() };
                o.key = Some(CheckResult::Known(key));
            },
            "encryption",
            &["PendingDeletion", "enable the key"],
        ),
        (
            |o| {
                o.table.time_to_live = TimeToLive::Enabled { attribute: "_tombstone_expires_at".to_owned() };
            },
            "TTL",
            &["_tombstone_expires_at", "a replica of Millrace"],
        ),
    ];
    for (change, subject, parts) in cases {
        let plan = plan(change);
        let [finding] = &blocking(&plan)[..] else { panic!("{subject}: {:?}", plan.findings) };
        let text = format!("{} {} {}", finding.text, finding.fix, finding.commands.join("\n"));
        assert_eq!(finding.subject, subject, "{text}");
        assert!(parts.iter().all(|part| text.contains(part)) && !finding.fix.is_empty(), "{parts:?}: {text}");
    }
}

#[test]
fn the_archive_is_written_as_the_free_readers_of_the_stream_allow() {
    let taken = |o: &mut TableObservation| o.readers = readers(&[("indexer", "Enabled"), ("old", "Disabled")]);
    let one = plan(taken);
    assert_eq!((one.archive, one.is_blocked()), (ArchiveMode::InReplicator, false));
    let texts = one.findings.iter().map(|finding| finding.text.as_str()).collect::<Vec<_>>().join("\n");
    assert!(texts.contains("indexer is one") && texts.contains("mapping of old is disabled"), "{texts}");
    let global = |o: &mut TableObservation| {
        o.table.replicas = vec![GlobalReplica { region: "us-east-1".to_owned(), status: None }];
    };
    let of_global = plan(global);
    assert_eq!((of_global.archive, of_global.is_blocked()), (ArchiveMode::InReplicator, false));
    assert!(of_global.findings.iter().any(|finding| finding.text.contains("TTL removed in another Region")));
    let of_both = plan(|o| {
        taken(o);
        global(o);
    });
    assert!(blocking(&of_both)[0].text.contains("one reader besides"), "{of_both:?}");
    let without_ttl = plan(|o| o.table.time_to_live = TimeToLive::Disabled);
    assert_eq!((without_ttl.archive, without_ttl.findings[0].subject), (ArchiveMode::Off, "TTL"));
    let new_image = plan(|o| {
        o.table.time_to_live = TimeToLive::Disabled;
        view(o, StreamViewType::NewImage);
    });
    assert_eq!((new_image.archive, new_image.is_blocked()), (ArchiveMode::Off, false));
    let unknown = plan(|o| {
        o.readers = CheckResult::NotChecked(skipped("ListEventSourceMappings", "lambda:ListEventSourceMappings"));
        o.table.time_to_live = TimeToLive::Unknown;
    });
    let [finding] = &unknown.findings[..] else { panic!("{:?}", unknown.findings) };
    assert_eq!((unknown.archive, finding.severity), (ArchiveMode::Separate, FindingSeverity::Warns));
    assert!(finding.text.contains("are not known, and Archive=separate adds 2 readers"), "{}", finding.text);
    assert!(finding.commands[0].contains("--event-source-arn arn:aws:dynamodb:"), "{:?}", finding.commands);
}

#[test]
fn a_chosen_archive_is_kept_or_refused() {
    let chosen = |archive, change: ObservationChange| {
        let mut observation = observation();
        change(&mut observation);
        AttachPlan::new(&observation, &AttachChoices { archive: Some(archive), ..choices() })
    };
    let one: ObservationChange = |o| o.readers = readers(&[("indexer", "Enabled")]);
    let refused = chosen(ArchiveMode::Separate, one);
    assert!(blocking(&refused)[0].fix.contains("--archive in-replicator"), "{refused:?}");
    assert!(!chosen(ArchiveMode::InReplicator, one).is_blocked());
    let off = chosen(ArchiveMode::Off, |o| view(o, StreamViewType::NewImage));
    assert!(!off.is_blocked() && off.findings.iter().any(|finding| finding.text.contains("not archived")), "{off:?}");
    let without_ttl: ObservationChange = |o| o.table.time_to_live = TimeToLive::Disabled;
    assert_eq!(chosen(ArchiveMode::Separate, without_ttl).archive, ArchiveMode::Separate);
}

#[test]
fn functions_of_a_stack_on_one_machine_are_its_own_readers() {
    let own = [("replicator", "Enabled"), ("archiver", "Enabled")];
    let local = plan(|o| {
        o.table.arn.account = "000000000000".to_owned();
        o.readers = readers(&own);
    });
    let [finding] = &local.findings[..] else { panic!("{:?}", local.findings) };
    assert_eq!((finding.severity, finding.subject), (FindingSeverity::Warns, "account"));
    assert_eq!(local.archive, ArchiveMode::Separate);
    assert_eq!(blocking(&plan(|o| o.readers = readers(&own)))[0].subject, "readers", "of an account, they are others");
}

#[test]
fn readers_of_the_same_stack_are_not_counted() {
    let own = plan(|o| {
        o.readers = readers(&[
            ("orders-replication-ReplicatorFunction-1A2B3C", "Enabled"),
            ("orders-replication-ArchiverFunction-4D5E6F", "Enabled"),
        ]);
    });
    assert_eq!((own.findings, own.archive), (Vec::new(), ArchiveMode::Separate));
    let other = plan(|o| o.readers = readers(&[("shop-ReplicatorFunction-1A2B3C", "Enabled")]));
    let text = &other.findings[0].text;
    assert!(text.contains("another Millrace stack") && other.archive == ArchiveMode::InReplicator, "{text}");
    // CloudFormation shortens a long name.
    let mut long = choices();
    long.stack_name = format!("{}-replication", "a".repeat(60));
    let mut observation = observation();
    observation.readers = readers(&[(&format!("{}-ReplicatorFunction-1A2B3C", "a".repeat(24)), "Enabled")]);
    assert_eq!(AttachPlan::new(&observation, &long).findings, Vec::new());
}

#[test]
fn a_customer_s_key_is_passed_to_the_stack_and_one_that_aws_manages_is_not() {
    let customer = plan(|o| {
        o.key = Some(CheckResult::Known(KeyObservation { is_aws_managed: false, state: "Enabled".to_owned() }));
    });
    assert!(customer.source_key_arn.unwrap().starts_with("arn:aws:kms:") && !customer.findings.is_empty());
    let unknown = plan(|o| o.key = Some(CheckResult::NotChecked(skipped("DescribeKey", "kms:DescribeKey"))));
    assert!(unknown.source_key_arn.is_some(), "a permission too many, not one too few");
    let elsewhere = AttachChoices { stack_account: Some("999988887777".to_owned()), ..choices() };
    let managed = AttachPlan::new(&observation(), &elsewhere);
    assert!(blocking(&managed)[0].text.contains("allows no other account"), "{managed:?}");
    let none = plan(|o| (o.table.encryption, o.key) = (None, None));
    assert_eq!((none.source_key_arn, none.findings), (None, Vec::new()));
}

#[test]
fn a_replica_that_cannot_be_one_is_refused() {
    let arn = |text: &str| TableArn::parse(text).unwrap();
    let with = |arn: TableArn, change: &dyn Fn(&mut ReplicaObservation)| {
        let mut table = orders();
        (table.name, table.arn) = (arn.table.clone(), arn.clone());
        let feeding_functions = CheckResult::Known(Vec::new());
        let mut replica = ReplicaObservation { arn, table: CheckResult::Known(Some(table)), feeding_functions };
        change(&mut replica);
        plan(|o| o.replica = Some(replica))
    };
    let copy = "arn:aws:dynamodb:us-east-1:123456789012:table/Copy";
    let good = with(arn(copy), &|_| ());
    assert!(!good.is_blocked() && good.replica_key_arn.is_some(), "{good:?}");
    let commands = good.findings.iter().flat_map(|finding| &finding.commands).cloned().collect::<Vec<_>>().join("\n");
    assert!(commands.contains("update-time-to-live --region us-east-1 --table-name Copy"), "{commands}");
    let table = |replica: &mut ReplicaObservation| match &mut replica.table {
        CheckResult::Known(Some(table)) => {
            table.sort_key = Some(KeyAttribute { name: "sk".into(), kind: KeyType::String });
        }
        _ => unreachable!(),
    };
    for (plan, part) in [
        (with(arn("arn:aws:dynamodb:eu-west-1:123456789012:table/Orders"), &|_| ()), "is the table itself"),
        (with(arn("arn:aws-cn:dynamodb:cn-north-1:123456789012:table/Copy"), &|_| ()), "another partition"),
        (with(arn(copy), &table), "is pk:S and sk:S, that of the table is pk:S and sk:N"),
        (
            with(arn(copy), &|replica| {
                let (name, mapping_uuid) = ("back-ReplicatorFunction-1".to_owned(), "u-1".to_owned());
                replica.feeding_functions = CheckResult::Known(vec![FeedingFunction { name, mapping_uuid }]);
            }),
            "back-ReplicatorFunction-1 replicates arn:aws:dynamodb:us-east-1:123456789012:table/Copy to this table",
        ),
    ] {
        assert!(blocking(&plan)[0].text.contains(part), "{part}: {plan:?}");
    }
}

#[test]
fn replica_of_another_account_needs_a_role_or_a_policy() {
    let arn = TableArn::parse("arn:aws:dynamodb:us-east-1:999988887777:table/Copy").unwrap();
    let mut table = orders();
    (table.name, table.arn) = (arn.table.clone(), arn.clone());
    let feeding_functions = CheckResult::Known(Vec::new());
    let mut observation = observation();
    observation.replica = Some(ReplicaObservation { arn, table: CheckResult::Known(Some(table)), feeding_functions });
    let with = |role: Option<&str>, stack_account: Option<&str>| {
        let choices = AttachChoices {
            replica_role: role.map(|role| RoleArn::parse(role).unwrap()),
            stack_account: stack_account.map(str::to_owned),
            ..choices()
        };
        let plan = AttachPlan::new(&observation, &choices);
        let texts: Vec<String> =
            plan.findings.iter().map(|finding| format!("{} {}", finding.text, finding.fix)).collect();
        (policies::policies(&observation, &plan, &choices), texts.join("\n"), plan, choices)
    };
    let (document, texts, plan, _) = with(None, None);
    assert!(texts.contains("in account 999988887777, the stack in 123456789012, and no role is named"), "{texts}");
    assert!(texts.contains("--replica-role-arn") && !plan.is_blocked() && plan.replica_key_arn.is_some(), "{texts}");
    let statement = &document["replica"]["policy"]["Statement"][0];
    assert_eq!(statement["Principal"]["AWS"], "arn:aws:iam::123456789012:root");
    assert_eq!(statement["Resource"], "arn:aws:dynamodb:us-east-1:999988887777:table/Copy");

    let role = "arn:aws:iam::999988887777:role/replica";
    let (document, texts, plan, choices) = with(Some(role), Some("111122223333"));
    assert!(!texts.contains("no role is named") && plan.replica_key_arn.is_none(), "{texts}");
    assert_eq!((document.get("replica"), &document["replica_role"]["role_arn"]), (None, &role.into()));
    let trust = &document["replica_role"]["trust_policy"]["Statement"][0];
    assert_eq!((&trust["Action"], trust.get("Resource")), (&serde_json::json!(["sts:AssumeRole"]), None));
    assert_eq!(trust["Principal"]["AWS"], "arn:aws:iam::111122223333:root", "the stack's account");
    let files = AttachFiles::new(Path::new("attach"), &observation, &plan, &choices);
    let parameter = |name| files.parameters().iter().find(|(own, _)| *own == name).unwrap().1.clone();
    assert_eq!((parameter("ReplicaRoleArn"), parameter("ReplicaRegion")), (role.to_owned(), "us-east-1".to_owned()));

    assert!(with(None, Some("999988887777")).0.get("replica").is_none(), "the replica is in the stack's account");
    let (_, texts, plan, _) = with(Some("arn:aws:iam::111122223333:role/replica"), None);
    assert!(texts.contains("is in account 111122223333, --replica-table in 999988887777"), "{texts}");
    assert!(!plan.is_blocked(), "a resource policy may allow it");
    let (_, texts, plan, _) = with(Some("arn:aws-cn:iam::999988887777:role/replica"), None);
    assert!(plan.is_blocked() && texts.contains("in another partition than"), "{texts}");
}

#[test]
fn another_prefix_reserves_other_names() {
    let chosen = |change: ObservationChange| {
        let mut observation = observation();
        change(&mut observation);
        AttachPlan::new(&observation, &AttachChoices { reserved_prefix: "mr_".to_owned(), ..choices() })
    };
    assert!(!chosen(|o| o.table.partition_key.name = "_rev".to_owned()).is_blocked());
    assert!(
        blocking(&chosen(|o| o.table.partition_key.name = "mr_rev".to_owned()))[0].fix.contains("--reserved-prefix")
    );
    let of_replica = |o: &mut TableObservation| {
        o.table.time_to_live = TimeToLive::Enabled { attribute: "_tombstone_expires_at".to_owned() };
    };
    assert!(!chosen(of_replica).is_blocked(), "a chain has a prefix for each link");
}

#[test]
fn unchecked_setting_is_reported_as_not_checked() {
    let mut observation = observation();
    observation.recovery = CheckResult::NotChecked(skipped("DescribeContinuousBackups", "dynamodb:DescribeBackups"));
    let plan = AttachPlan::new(&observation, &choices());
    let text = report::text(&observation, &plan, None);
    assert!(text.contains("point-in-time recovery not checked"), "{text}");
    assert!(text.contains("\nnot checked\n  DescribeContinuousBackups: allow dynamodb:DescribeBackups"), "{text}");
    let document = report::json(&observation, &plan, None);
    assert_eq!(document["not_checked"][0]["reason"], "denied");
    assert_eq!(document["table"]["point_in_time_recovery"], serde_json::Value::Null);
}

#[test]
fn a_key_is_a_parameter_as_sam_cli_reads_it() {
    let parameter = |name: &str| key_parameter(&KeyAttribute { name: name.to_owned(), kind: KeyType::Number });
    for (name, expected) in [
        ("sk", "sk:N"),
        ("_a.b-c", "_a.b-c:N"),
        ("größe", "größe:N"),
        ("a:b", "a%3Ab:N"),
        ("100%", "100%:N"),
        ("a: %3A", "\"a%3A %253A:N\""),
        ("order id", "\"order id:N\""),
        ("a\"b", "\"a\\\"b:N\""),
        ("a\\b", "\"a\\b:N\""),
        ("a=b,c", "\"a=b,c:N\""),
    ] {
        assert_eq!(parameter(name), Ok(expected.to_owned()));
    }
    for name in ["a\tb", "a\\\"b"] {
        assert!(parameter(name).is_err(), "{name}");
    }
}

#[test]
fn a_backfill_of_a_provisioned_table_leaves_half_of_the_capacity() {
    let mut observation = observation();
    observation.table.capacity = TableCapacity::Provisioned { read_units: 101, write_units: 5 };
    let plan = AttachPlan::new(&observation, &choices());
    let files = AttachFiles::new(Path::new("attach"), &observation, &plan, &choices());
    assert!(files.commands().all()[2].contains(r#""max_read_capacity_units":50"#), "{:?}", files.commands());
}

#[test]
fn a_stack_is_named_by_its_table() {
    for (table, expected) in [
        ("Orders", "orders-replication"),
        ("my_app.prod", "my-app-prod-replication"),
        ("2024-events", "table-2024-events-replication"),
        ("___", "table--replication"),
    ] {
        let name = default_stack_name(table);
        assert_eq!((name.as_str(), stack_name(&name).is_ok()), (expected, true));
    }
    assert!(stack_name(&default_stack_name(&"a".repeat(255))).is_ok());
    assert!(stack_name("orders replication").is_err() && stack_name("1").is_err());
}

/// The parameters of infra/replication.yaml, by the names at the first level of indentation.
fn template_parameters() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/replication.yaml");
    let template = std::fs::read_to_string(path).unwrap();
    let (_, rest) = template.split_once("\nParameters:\n").unwrap();
    rest.lines().take_while(|line| line.is_empty() || line.starts_with(' ')).collect::<Vec<_>>().join("\n")
}

#[test]
fn each_parameter_is_one_of_the_template_and_each_required_one_is_set() {
    let observation = observation();
    let plan = AttachPlan::new(&observation, &choices());
    let files = AttachFiles::new(Path::new("attach"), &observation, &plan, &choices());
    let set: Vec<&str> = files.parameters().iter().map(|(name, _)| *name).collect();
    let template = format!("\n{}", template_parameters());
    for name in &set {
        assert!(template.contains(&format!("\n  {name}:\n")), "{name}");
    }
    let declarations =
        template.split("\n  ").filter(|text| text.starts_with(|letter: char| letter.is_ascii_uppercase()));
    for declaration in declarations {
        let (name, _) = declaration.split_once(':').unwrap();
        let after = template.split_once(&format!("\n  {name}:\n")).unwrap().1;
        let body: Vec<&str> = after.lines().take_while(|line| line.starts_with("    ")).collect();
        let is_required = !body.iter().any(|line| line.starts_with("    Default:"));
        assert!(!is_required || set.contains(&name), "{name} is required");
    }
}

#[test]
fn the_policies_contain_what_the_roles_of_the_template_do_with_the_source() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/replication.yaml");
    let template = std::fs::read_to_string(path).unwrap();
    let actions = policies::STREAM_ACTIONS.iter().chain(&policies::TABLE_ACTIONS).chain(&policies::KEY_ACTIONS);
    for action in actions.chain(&policies::REPLICA_ACTIONS) {
        assert!(template.contains(action), "{action}");
    }
}

#[test]
fn files_with_other_contents_are_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let observation = observation();
    let plan = AttachPlan::new(&observation, &choices());
    let files = AttachFiles::new(folder.path(), &observation, &plan, &choices());
    files.write(false).unwrap();
    files.write(false).unwrap();
    let [config, policies] = ["samconfig.toml", "policies.json"].map(|name| folder.path().join("Orders").join(name));
    std::fs::write(&config, "mine").unwrap();
    std::fs::remove_file(&policies).unwrap();
    let error = files.write(false).unwrap_err().to_string();
    assert!(error.contains("samconfig.toml exists") && error.contains("--force"), "{error}");
    assert!(!policies.exists(), "nothing was written");
    files.write(true).unwrap();
    assert!(std::fs::read_to_string(&config).unwrap().contains("SourceTableName=Orders") && policies.exists());
    assert_eq!(std::fs::read_dir(folder.path().join("Orders")).unwrap().count(), 4, "no temporary file is left");
}

/// Splits a command into words as a POSIX shell does, with a NUL before each character that the shell would execute.
fn shell_words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut letters = command.chars();
    while let Some(letter) = letters.next() {
        let is_blank = quote.is_none() && " \t\n".contains(letter);
        if is_blank {
            words.extend(word.take());
            continue;
        }
        if letter == '\\' && quote != Some('\'') {
            match letters.next() {
                Some('\n') | None => {}
                Some(next) => word.get_or_insert_default().push(next),
            }
            continue;
        }
        let word = word.get_or_insert_default();
        if quote == Some(letter) {
            quote = None;
        } else if quote.is_none() && "'\"".contains(letter) {
            quote = Some(letter);
        } else {
            let is_active = match quote {
                None => "$`;&|<>(){}*?[]~#!".contains(letter),
                Some('"') => "$`".contains(letter),
                Some(_) => false,
            };
            word.extend(is_active.then_some('\0'));
            word.push(letter);
        }
    }
    assert_eq!(quote, None, "an open quotation: {command}");
    words.extend(word);
    words
}

/// The words of each command, and the parameters as SAM CLI receives them.
type WrittenTexts = (Vec<Vec<String>>, Vec<(String, String)>);

/// The commands and parameters for a description; `None` if the description is refused.
fn written(description: &str) -> Option<WrittenTexts> {
    let table = TableDescription::parse(description).ok()?;
    let (mut commands, mut parameters) = (Vec::new(), Vec::new());
    let copy = TableArn::parse("arn:aws:dynamodb:us-east-1:999988887777:table/Copy").unwrap();
    let choices = AttachChoices { stack_account: Some("999988887777".to_owned()), ..choices() };
    let mut offline = TableObservation::offline(table, Some(copy));
    for is_absent in [false, true] {
        if is_absent {
            offline.replica.as_mut().unwrap().table = CheckResult::Known(None);
        }
        for has_stream in [true, false] {
            let mut observation = offline.clone();
            observation.table.stream = observation.table.stream.filter(|_| has_stream);
            let plan = AttachPlan::new(&observation, &choices);
            commands.extend(plan.findings.iter().flat_map(|finding| &finding.commands).map(|text| shell_words(text)));
            if plan.is_blocked() {
                continue;
            }
            let folder = tempfile::tempdir().unwrap();
            let files = AttachFiles::new(folder.path(), &observation, &plan, &choices);
            files.write(false).unwrap();
            let read = |name: &str| {
                let path = folder.path().join(&observation.table.name).join(name);
                std::fs::read_to_string(path).unwrap().replace(folder.path().to_str().unwrap(), "/attach")
            };
            let readme = read("README.md");
            commands.extend(readme.split("```sh\n").skip(1).map(|part| shell_words(part.split("```").next().unwrap())));
            for line in read("samconfig.toml").lines().filter(|line| line.starts_with("    \"")) {
                let pair: String = serde_json::from_str(line.trim().trim_end_matches(',')).unwrap();
                let (name, value) = pair.split_once('=').unwrap();
                let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
                // SAM CLI ends a value without quotation marks at a space, and reads another parameter after it.
                let rest = quoted.map_or_else(|| value.to_owned(), |value| value.replace("\\\"", ""));
                let is_whole = !rest.contains('"') && (quoted.is_some() || !rest.contains(char::is_whitespace));
                assert!(is_whole && !rest.contains(char::is_control), "{pair:?}");
                parameters.push((name.to_owned(), value.to_owned()));
            }
            for name in ["policies.json", "replication.json"] {
                serde_json::from_str::<serde_json::Value>(&read(name)).unwrap();
            }
        }
    }
    Some((commands, parameters))
}

/// The members of a description, each with a text that is found in no other place.
const MEMBERS: [(&str, &str); 9] = [
    ("eu-west-1", "xx-token-7"),
    ("arn:aws:", "arn:aws-token:"),
    ("123456789012", "314159265358"),
    ("Orders", "TokenTable"),
    ("2026-11-27T08:00:00.000", "2031-01-02T03:04:05.678"),
    ("\"pk\"", "\"tokenpartition\""),
    ("\"sk\"", "\"tokensort\""),
    ("by-status", "tokenindex"),
    ("\"ACTIVE\"", "\"TOKEN\""),
];

fn hostile_text() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;
    let payload = prop::sample::select(vec![
        "$(touch /tmp/x)",
        "`id`",
        "'",
        "\"",
        "\\",
        "\n",
        " CodeBucket=evil",
        ";id",
        "|id",
        "&",
        "\u{1b}[2J",
        "\\\"",
        "$PWD",
    ]);
    prop_oneof![
        "[a-z0-9-]{3,12}",
        "\\PC{1,12}",
        ("[a-z0-9-]{0,6}", payload, "[a-z0-9-]{0,6}").prop_map(|(before, payload, after)| before + payload + &after),
    ]
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]

    #[test]
    fn any_member_is_refused_or_remains_in_its_word(member in 0..MEMBERS.len(), text in hostile_text()) {
        let (needle, token) = MEMBERS[member];
        let encoded = serde_json::Value::from(text.as_str()).to_string();
        let encoded = encoded.trim_start_matches('"').strip_suffix('"').unwrap_or_default();
        // The part of the token that the text replaces.
        let bare = token.trim_matches('"').trim_start_matches("arn:").trim_end_matches(':');
        let hostile = written(&ORDERS.replace(needle, &token.replace(bare, encoded)));
        let Some((commands, parameters)) = hostile else { return Ok(()) };
        let (expected, expected_parameters) = written(&ORDERS.replace(needle, token)).unwrap();
        // Names of attributes are words of JSON in a command.
        let in_word = |word: &String| word.replace(bare, if word.starts_with('[') { encoded } else { &text });
        let expected: Vec<Vec<String>> = expected.iter().map(|words| words.iter().map(in_word).collect()).collect();
        if !parameters.is_empty() {
            proptest::prop_assert_eq!(&commands, &expected);
            let names = |pairs: &[(String, String)]| pairs.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
            proptest::prop_assert_eq!(names(&parameters), names(&expected_parameters));
        }
        // A description that blocks has fewer commands, and none with other words than these.
        let is_active = |words: &Vec<String>| words.iter().any(|word| word.contains('\0'));
        let active = commands.iter().filter(|words| is_active(words)).count();
        proptest::prop_assert!(active <= expected.iter().filter(|words| is_active(words)).count());
    }
}
