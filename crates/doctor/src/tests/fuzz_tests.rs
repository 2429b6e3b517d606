//! No input makes the reader or a rule panic, or run without end.

use std::collections::BTreeMap;

use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
use proptest::sample::{Index, select};
use serde_json::Value;

use super::VALID;
use super::plan_tests::PLAN;
use crate::deployment::SourceLocation;
use crate::deployment_builder::parse_ignored;
use crate::diagnosis::diagnose;
use crate::filter_pattern::FilterPattern;
use crate::replica_address::replicas_of;
use crate::setting::SettingValue;
use crate::template_node::TemplateNode;
use crate::template_reader::read;
use crate::template_scope::ResolvedNode;
use crate::terraform_plan;

/// Texts that mean something in a template.
const WORDS: [&str; 24] = [
    "!Ref ", "!Sub ", "!GetAtt ", "!If ", "!Join ", "!Select ", "!Split ", "[", "]", "{", "}", ": ", "- ", "\n", "  ",
    "'", "\"", "${", "|", "&a ", "*a", "null", "Fn::If", "Users",
];

/// A template with the forms that [`VALID`] lacks: a loop, an OpenAPI document, conditions, a queue with a policy and a
/// replication document.
const VARIED: &str = r#"
Transform: [AWS::LanguageExtensions, AWS::Serverless-2016-10-31]
Parameters:
  Names: {Type: CommaDelimitedList, Default: "a,b"}
  Stage: {Type: String, Default: prod}
Mappings: {Sizes: {prod: {Batch: 500}}}
Conditions:
  IsProd: !Equals [!Ref Stage, prod]
  Both: !And [!Condition IsProd, !Not [!Equals [a, !Ref AWS::Region]]]
Globals: {Function: {Timeout: 60}, HttpApi: {Auth: {DefaultAuthorizer: AWS_IAM}}}
Resources:
  Fn::ForEach::Tables:
    - Name
    - !Ref Names
    - "${Name}Table": {Type: AWS::DynamoDB::Table, Properties: {TableName: !Sub "t-${Name}"}}
  Users: {Type: AWS::DynamoDB::GlobalTable, Properties: {Replicas: [{Region: eu-west-1}]}}
  Queue: {Type: AWS::SQS::Queue, Properties: {KmsMasterKeyId: alias/own, QueueName: discarded}}
  QueuePolicy:
    Type: AWS::SQS::QueuePolicy
    Properties:
      Queues: [!Ref Queue]
      PolicyDocument:
        Statement:
          - {Effect: Deny, Principal: {AWS: "*"}, Action: sqs:*, Resource: "*", Condition: {Bool: {a: b}}}
  Api:
    Type: AWS::Serverless::HttpApi
    Properties:
      DefinitionBody:
        security: [{jwt: []}]
        paths:
          /a:
            get: {security: []}
            options: {}
            x-amazon-apigateway-any-method: {x-amazon-apigateway-auth: {type: NONE}}
  Pipe: {Type: AWS::Pipes::Pipe, Properties: {Source: !GetAtt Users.StreamArn, DesiredState: STOPPED}}
  Key: {Type: AWS::KMS::Key}
  Alias: {Type: AWS::KMS::Alias, Properties: {AliasName: alias/own, TargetKeyId: !Ref Key}}
  Subnet: {Type: AWS::EC2::Subnet}
  Group:
    Type: AWS::EC2::SecurityGroup
    Properties: {SecurityGroupEgress: [{IpProtocol: tcp, FromPort: 443, ToPort: 443, CidrIp: 10.0.0.0/8}]}
  In:
    Type: AWS::EC2::SecurityGroupIngress
    Properties: {GroupId: !GetAtt Group.GroupId, IpProtocol: "-1", SourceSecurityGroupId: !Ref Group}
  Endpoint:
    Type: AWS::EC2::VPCEndpoint
    Properties: {VpcEndpointType: Interface, ServiceName: a.dynamodb, SecurityGroupIds: [!Ref Group]}
  Copier:
    Type: AWS::Serverless::Function
    Condition: Both
    Metadata: {millrace: {ignore: [{rule: starts-at-latest, reason: x}]}}
    Properties:
      VpcConfig: {SubnetIds: [!Ref Subnet], SecurityGroupIds: [!Ref Group]}
      Environment:
        Variables:
          SOURCE_TABLE_ARN: !GetAtt Users.Arn
          REPLICATION: '{"replicas": [{"sink": "dynamodb", "table": "t-a", "region": "eu-west-1"}]}'
          FAILURE_BUCKET: !If [IsProd, !Join ["-", [a, !Ref Stage]], !Ref AWS::NoValue]
      Policies: [{SQSSendMessagePolicy: {QueueName: !GetAtt Queue.QueueName}}]
      Events:
        Changes:
          Type: DynamoDB
          Properties:
            Stream: !GetAtt Users.StreamArn
            BatchSize: !FindInMap [Sizes, !Ref Stage, Batch]
            ParallelizationFactor: !Select [1, !Split [",", "1,2"]]
            DestinationConfig: {OnFailure: {Type: SQS, Destination: !GetAtt Queue.Arn}}
"#;

fn evaluate(text: &str) {
    if let Ok(reading) = read(text, "t.yaml", None, &BTreeMap::new()) {
        let _ = diagnose(&reading.deployment);
        assert!(reading.problems.iter().all(|problem| !problem.contains('\n')));
    } else if let Err(error) = read(text, "t.yaml", None, &BTreeMap::new()) {
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}

fn replacement() -> impl Strategy<Value = String> {
    prop_oneof![select(&WORDS[..]).prop_map(str::to_owned), ".{0,8}", "[ \\n\\t-]{0,6}"]
}

/// A value of JSON that a service or another program might write.
pub(crate) fn odd_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~]{0,12}".prop_map(Value::from),
        prop_oneof![
            Just("arn:aws:dynamodb:eu-west-1:1:table/Users/stream/"),
            Just("arn:aws:lambda:::function::"),
            Just("arn:aws:s3:::"),
            Just("module.a.module.b[\"c.d\"]."),
            Just("var.stream_arn"),
            Just("each.key"),
            Just("PROBLEM"),
            Just("1e400"),
            Just("{\"Statement\": [{}]}"),
        ]
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map("[A-Za-z]{0,8}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Returns the JSON pointers of a value and of all within it.
pub(crate) fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| pointers(item, &format!("{at}/{index}"), found));
        }
        Value::Object(members) => {
            members.iter().for_each(|(name, item)| pointers(item, &format!("{at}/{name}"), found));
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn a_template_with_changed_parts_is_read_or_rejected(
        template in prop_oneof![Just(VALID), Just(VARIED)],
        changes in prop::collection::vec((any::<Index>(), 0_usize..20, replacement()), 1..6),
    ) {
        let mut text: Vec<char> = template.chars().collect();
        for (at, length, with) in changes {
            let at = at.index(text.len());
            let end = (at + length).min(text.len());
            text.splice(at..end, with.chars());
        }
        evaluate(&text.into_iter().collect::<String>());
    }

    #[test]
    fn any_text_is_read_or_rejected(text in prop::collection::vec(replacement(), 0..40)) {
        evaluate(&text.concat());
    }

    #[test]
    fn a_plan_with_changed_parts_is_read(
        changes in prop::collection::vec((any::<Index>(), odd_value()), 1..6),
    ) {
        let mut plan: Value = serde_json::from_str(PLAN).unwrap();
        for (at, value) in changes {
            let mut found = Vec::new();
            pointers(&plan, "", &mut found);
            let pointer: &String = at.get(&found);
            *plan.pointer_mut(pointer).unwrap() = value;
        }
        let reading = terraform_plan::read(&plan, "plan.json");
        let _ = diagnose(&reading.deployment);
        assert!(reading.problems.iter().all(|problem| !problem.contains('\n')));
    }

    #[test]
    fn any_list_of_ignored_findings_is_read_or_rejected(text in prop::collection::vec(replacement(), 0..30)) {
        let text = format!("- {{rule: starts-at-latest, reason: x}}\n{}", text.concat());
        if let Ok(list) = TemplateNode::parse(&text) {
            let location = SourceLocation { file: "ignore.yaml".to_owned(), line: 1, resource: String::new() };
            let _ = parse_ignored(&ResolvedNode::from_node(&list), &location, None, &mut Vec::new());
        }
    }

    #[test]
    fn any_replication_document_is_read_or_rejected(
        replica in odd_value(),
        table in odd_value(),
        region in odd_value(),
    ) {
        let named = serde_json::json!({"sink": "dynamodb", "table": table, "region": region});
        let document = serde_json::json!({"replicas": [replica, named]}).to_string();
        let variables = BTreeMap::from([("REPLICATION".to_owned(), SettingValue::Known(document))]);
        let _ = replicas_of("arn:aws:lambda:eu-west-1:1:function:f", &variables);
    }

    #[test]
    fn any_pattern_is_analyzed(pattern in prop::collection::vec(replacement(), 0..20)) {
        let _ = FilterPattern::parse(&pattern.concat());
    }
}

#[test]
fn the_varied_template_is_read_without_a_problem() {
    let reading = read(VARIED, "t.yaml", None, &BTreeMap::new()).unwrap();
    assert_eq!((reading.problems, reading.deployment.mappings.len()), (Vec::new(), 1));
    let found: Vec<_> = diagnose(&reading.deployment).findings.into_iter().map(|it| it.problem).collect();
    assert!(found.contains(&"GET /a has no authorizer".to_owned()), "{found:#?}");
}

#[test]
fn names_that_double_from_one_to_the_next_end() {
    use std::fmt::Write as _;
    let mut conditions = String::from("Conditions:\n");
    let mut applications = String::new();
    for index in 0..50 {
        let next = index + 1;
        let _ = writeln!(conditions, "  C{index}: !And [!Condition C{next}, !Condition C{next}]");
        let _ = writeln!(
            applications,
            "  T{index}: {{Type: AWS::DynamoDB::Table, Properties: {{TableName: !Sub '${{T{next}}}${{T{next}}}'}}}}"
        );
    }
    evaluate(&format!(
        "{conditions}  C50: !Equals [a, a]\nResources:\n  A: {{Type: AWS::S3::Bucket, Condition: C0}}\n{applications}"
    ));
}

#[test]
fn a_file_of_five_megabytes_is_rejected_by_its_size() {
    let text = "a: b\n".repeat(1_000_001);
    let error = read(&text, "t.yaml", None, &BTreeMap::new()).unwrap_err();
    assert_eq!(error.to_string(), "t.yaml: the template has 5000005 bytes: at most 4000000 are read");
}
