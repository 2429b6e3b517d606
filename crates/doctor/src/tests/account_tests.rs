//! The rules in an account: the valid one has no finding, and each fault has exactly its own.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::account_faults::{ONE, OTHER, STARTED, faults, with_rules};
use super::account_fixture::{
    FUNCTION, KEY, MAPPING, QUEUE, TOPIC, changed, diagnosis_of, interface_endpoint, rules_of, simulation, stack,
    to_message_destination, valid,
};
use crate::account_recording::AccountTarget;
use crate::rule_table::RULES;

#[test]
fn the_valid_account_has_no_finding_and_every_rule_is_evaluated() {
    let (diagnosis, problems) = diagnosis_of(stack(), &valid());
    assert_eq!(rules_of(&diagnosis), Vec::<&str>::new(), "{:#?}", diagnosis.findings);
    assert_eq!((problems, diagnosis.mappings), (Vec::<String>::new(), 1));
    let unchecked: Vec<_> = diagnosis.unchecked.iter().map(|it| (it.rule.id, &it.reason)).collect();
    assert!(unchecked.is_empty() && diagnosis.unread.is_empty(), "{unchecked:?} {:?}", diagnosis.unread);
}

#[test]
fn every_rule_finds_its_fault_in_an_account_and_nothing_else() {
    let mut tested = BTreeSet::new();
    for (rule, changes) in faults() {
        let (diagnosis, _) = diagnosis_of(stack(), &changed(&changes));
        assert_eq!(rules_of(&diagnosis), [rule], "{changes:#?}: {:#?}", diagnosis.findings);
        tested.insert(rule);
    }
    let expected: BTreeSet<_> = RULES.iter().map(|rule| rule.id).collect();
    assert_eq!(tested, expected);
}

#[test]
fn replica_whose_rules_are_confirmed_or_not_known_has_no_finding() {
    let repaired = with_rules(&[STARTED, ONE, OTHER, ("repaired/a1/2-1-1795168801", OTHER.1)]);
    assert_eq!(rules_of(&diagnosis_of(stack(), &changed(&repaired)).0), Vec::<&str>::new());
    let reason_of = |changes: &[(String, Value)]| {
        let (diagnosis, _) = diagnosis_of(stack(), &changed(changes));
        assert_eq!(rules_of(&diagnosis), Vec::<&str>::new());
        let unchecked = diagnosis.unchecked.into_iter().find(|it| it.rule.id == "replica-outdated");
        unchecked.map(|it| it.reason).unwrap_or_default()
    };
    let denied = with_rules(&[]).swap_remove(0);
    let listing = "/ListObjectsV2 Bucket=failures Prefix=transforms/masked/".to_owned();
    let denied = reason_of(&[denied, (listing, json!({"refused": "AccessDenied"}))]);
    assert_eq!(denied, "ListObjectsV2 was denied: allow s3:ListBucket");
    let elsewhere = (format!("{FUNCTION}/Environment/Variables/REPLICATION"), json!("s3://config/document.json"));
    assert_eq!(reason_of(&[elsewhere]), "the replication document is not part of the configuration");
    let many: Vec<String> = (0..1_000).map(|number| format!("repaired/a0/1000-{number}-1795165201")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), ONE.1)).collect();
    assert!(reason_of(&with_rules(&many)).contains("1000 or more objects below transforms/masked/"));
}

#[test]
fn the_code_of_a_function_that_is_not_ours_is_known_only_from_the_template_of_a_stack() {
    let path = "GetTemplate StackName=users TemplateStage=Original";
    let template = valid()[path]["TemplateBody"].as_str().unwrap().to_owned();
    let found = |code: &str, target| {
        let template = template.replace("      Events:", &format!("      InlineCode: {code}\n      Events:"));
        let (diagnosis, _) = diagnosis_of(
            target,
            &changed(&[
                (format!("{MAPPING}/FunctionResponseTypes"), json!([])),
                (format!("{FUNCTION}/Environment/Variables"), json!({"REPLICA_TABLE": "Copy"})),
                (format!("/{path}/TemplateBody"), template.into()),
            ]),
        );
        let unchecked: Vec<_> = diagnosis.unchecked.iter().map(|it| (it.rule.id, it.reason.clone())).collect();
        (rules_of(&diagnosis), unchecked)
    };
    assert_eq!(found("'return {\"batchItemFailures\": failed}'", stack()).0, ["response-ignored"]);
    assert_eq!(found("return None", stack()), (Vec::new(), Vec::new()));
    let not_checked = ("response-ignored", "the code of a function is not read".to_owned());
    let (rules, unchecked) = found("return None", AccountTarget::Function("copier".to_owned()));
    assert!(rules.is_empty() && unchecked.contains(&not_checked), "{rules:?} {unchecked:?}");
}

#[test]
fn the_policy_and_the_key_of_a_queue_or_a_topic_are_evaluated() {
    let denied = json!(r#"{"Statement": [{"Effect": "Deny", "Principal": "*", "Action": "*", "Resource": "*"}]}"#);
    let open = json!(r#"{"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"}]}"#);
    let no_key = json!(r#"{"Statement": []}"#);
    for (arn, action) in [(QUEUE, "sqs:SendMessage"), (TOPIC, "sns:Publish")] {
        let with_key = to_message_destination(arn, &Value::Null, &json!(KEY));
        assert_eq!(rules_of(&diagnosis_of(stack(), &changed(&with_key)).0), ["metadata-only-destination"]);
        let problem_of = |changes: &[(String, Value)]| {
            let (diagnosis, _) = diagnosis_of(stack(), &changed(changes));
            let mut findings = diagnosis.findings.into_iter().filter(|it| it.rule.id == "destination-not-granted");
            findings.next().map(|finding| finding.problem).unwrap_or_default()
        };
        let found = problem_of(&to_message_destination(arn, &denied, &Value::Null));
        assert_eq!(found, format!("a statement denies {action} on {arn} to the function's role"));
        let not_of_role = (simulation(action, arn), json!({"EvaluationResults": [{"EvalDecision": "implicitDeny"}]}));
        let by_policy = [to_message_destination(arn, &open, &Value::Null), vec![not_of_role.clone()]].concat();
        assert_eq!(problem_of(&by_policy), "", "the policy of the destination itself allows the role");
        let by_none = [to_message_destination(arn, &Value::Null, &Value::Null), vec![not_of_role]].concat();
        assert_eq!(problem_of(&by_none), format!("the function's role does not allow {action} on {arn}"));
        let policy = (format!("/GetKeyPolicy KeyId={KEY} PolicyName=default"), json!({"Policy": no_key}));
        let found = problem_of(&[with_key, vec![policy]].concat());
        assert!(found.starts_with("the function's role does not allow kms:GenerateDataKey and kms:Decrypt"), "{found}");
    }
    // A queue of another Region is not read.
    let elsewhere = QUEUE.replace("eu-west-1", "us-east-1");
    let responses = changed(&[
        (format!("{MAPPING}/DestinationConfig"), json!({"OnFailure": {"Destination": elsewhere}})),
        (simulation("sqs:SendMessage", &elsewhere), json!({"EvaluationResults": [{"EvalDecision": "allowed"}]})),
    ]);
    let (diagnosis, _) = diagnosis_of(stack(), &responses);
    let unchecked: Vec<_> = diagnosis.unchecked.iter().map(|it| (it.rule.id, it.reason.as_str())).collect();
    let reason = format!("{elsewhere} is in another Region, which is not read");
    assert_eq!(unchecked, [("destination-not-granted", reason.as_str())]);
}

#[test]
fn each_replica_is_evaluated_and_one_of_another_region_or_account_is_not_checked() {
    let of = |document: Value| {
        let variables = json!({
            "SOURCE_TABLE_ARN": "arn:aws:dynamodb:eu-west-1:123456789012:table/Users",
            "FAILURE_BUCKET": "failures", "STACK_NAME": "users", "REPLICATION": document.to_string(),
        });
        let mut other = valid()["DescribeTable TableName=Copy"].clone();
        other["Table"]["AttributeDefinitions"][0]["AttributeType"] = "N".into();
        let mut changes = vec![
            (format!("{FUNCTION}/Environment/Variables"), variables),
            ("/DescribeTable TableName=Other".to_owned(), other),
            ("/Scan Attribute=_tombstone_expires_at TableName=Other".to_owned(), json!({"Items": []})),
        ];
        for call in ["DescribeTimeToLive", "DescribeContinuousBackups"] {
            changes.push((format!("/{call} TableName=Other"), valid()[&format!("{call} TableName=Copy")].clone()));
        }
        let (diagnosis, _) = diagnosis_of(stack(), &changed(&changes));
        let unchecked: Vec<&str> = diagnosis.unchecked.iter().map(|it| it.rule.id).collect();
        (rules_of(&diagnosis), unchecked.join(" "))
    };
    let replica = |table: &str, region: Option<&str>| json!({"sink": "dynamodb", "table": table, "region": region});
    let document = |replicas: &[Value]| json!({"replicas": replicas});
    let (here, other) = (replica("Copy", Some("eu-west-1")), replica("Other", None));
    assert_eq!(of(document(std::slice::from_ref(&here))), (Vec::new(), String::new()));
    assert_eq!(of(document(&[here.clone(), other.clone()])), (vec!["replica-does-not-fit"], String::new()));
    let not_checked = "replica-does-not-fit key-not-usable replica-expires-items table-not-protected";
    let elsewhere = replica("Copy", Some("us-east-1"));
    assert_eq!(of(document(std::slice::from_ref(&elsewhere))), (Vec::new(), not_checked.to_owned()));
    assert_eq!(of(document(&[elsewhere, here])), (Vec::new(), not_checked.to_owned()));
}

#[test]
fn a_bucket_in_another_partition_is_evaluated() {
    let elsewhere = "arn:aws-us-gov:s3:::failures";
    let allowed = json!({"EvaluationResults": [{"EvalDecision": "allowed"}]});
    let mut changes = vec![
        (format!("{MAPPING}/DestinationConfig"), json!({"OnFailure": {"Destination": elsewhere}})),
        (simulation("s3:PutObject", &format!("{elsewhere}/aws/lambda/mapping/shard/date")), allowed.clone()),
        (simulation("s3:ListBucket", elsewhere), allowed),
    ];
    let (diagnosis, _) = diagnosis_of(stack(), &changed(&changes));
    assert_eq!(rules_of(&diagnosis), Vec::<&str>::new(), "{:#?}", diagnosis.findings);
    assert!(diagnosis.unchecked.is_empty(), "{:?}", diagnosis.unchecked);
    changes.push(("/GetBucketVersioning Bucket=failures".to_owned(), json!("")));
    let denied = json!({"EvaluationResults": [{"EvalDecision": "implicitDeny"}]});
    changes.push((simulation("s3:ListBucket", elsewhere), denied));
    let (diagnosis, _) = diagnosis_of(stack(), &changed(&changes));
    assert_eq!(rules_of(&diagnosis), ["destination-not-granted", "failure-objects-expire"]);
}

#[test]
fn an_interface_endpoint_is_reached_if_its_security_group_lets_the_function_in() {
    for from in [
        json!({"groups": {"groupId": "sg-1"}}),
        json!({"ipRanges": [{"cidrIp": "10.0.0.0/16"}]}),
        json!({"prefixListIds": {"prefixListId": "pl-1"}}),
    ] {
        let (diagnosis, _) = diagnosis_of(stack(), &changed(&interface_endpoint(&from, "443")));
        assert_eq!(rules_of(&diagnosis), Vec::<&str>::new(), "{from}: {:#?}", diagnosis.findings);
        assert!(diagnosis.unchecked.is_empty(), "{from}: {:?}", diagnosis.unchecked);
    }
    // A group of another VPC is not read.
    let mut elsewhere = interface_endpoint(&json!({"groups": {"groupId": "sg-1"}}), "443");
    elsewhere[0].1["groupSet"]["groupId"] = "sg-9".into();
    let (diagnosis, _) = diagnosis_of(stack(), &changed(&elsewhere));
    let unchecked: Vec<_> = diagnosis.unchecked.iter().map(|it| (it.rule.id, it.reason.as_str())).collect();
    assert_eq!(unchecked, [("network-without-route", "the security group sg-9 is not part of this deployment")]);
}
