//! The reader: parameters, conditions, nested templates, and values that are not resolved.

use std::collections::BTreeMap;

use crate::deployment::StreamMapping;
use crate::diagnosis::diagnose;
use crate::setting::SettingValue;
use crate::template_reader::{DeploymentReading, read};

fn reading(template: &str, parameters: &[(&str, &str)]) -> DeploymentReading {
    let parameters: BTreeMap<String, String> =
        parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    read(template, "t.yaml", None, &parameters).unwrap()
}

/// A template with one mapping, whose properties follow.
fn with_mapping(sections: &str, properties: &str) -> String {
    format!(
        "{sections}\nResources:\n  Users:\n    Type: AWS::DynamoDB::Table\n    Properties: {{TableName: Users}}\n  \
         Changes:\n    Type: AWS::Lambda::EventSourceMapping\n    Properties:\n      EventSourceArn: !GetAtt \
         Users.StreamArn\n      FunctionName: other\n{properties}\n"
    )
}

fn mapping(template: &str, parameters: &[(&str, &str)]) -> StreamMapping {
    let reading = reading(template, parameters);
    assert_eq!(reading.problems, Vec::<String>::new());
    reading.deployment.mappings[0].clone()
}

#[test]
fn a_parameter_has_its_default_or_the_given_value_and_else_none() {
    let template = with_mapping(
        "Parameters:\n  Retries: {Type: Number, Default: 3}\n  Age: {Type: Number}",
        "      MaximumRetryAttempts: !Ref Retries\n      MaximumRecordAgeInSeconds: !Ref Age",
    );
    let read = mapping(&template, &[]);
    assert_eq!(read.max_retries, SettingValue::Known(3));
    let SettingValue::Unresolved(reason) = &read.max_age_s else { panic!("{:?}", read.max_age_s) };
    assert!(reason.contains("set --parameter Age=VALUE"), "{reason}");
    let read = mapping(&template, &[("Retries", "-1"), ("Age", "60")]);
    assert_eq!((read.max_retries, read.max_age_s), (SettingValue::Known(-1), SettingValue::Known(60)));
}

#[test]
fn an_unresolved_setting_is_not_checked_and_is_no_finding() {
    let template = with_mapping(
        "Parameters:\n  Retries: {Type: Number}",
        "      MaximumRetryAttempts: !Ref Retries\n      BisectBatchOnFunctionError: true\n      StartingPosition: \
         !ImportValue Position",
    );
    let diagnosis = diagnose(&reading(&template, &[]).deployment);
    let unchecked: Vec<_> =
        diagnosis.unchecked.iter().filter(|it| it.location.is_some()).map(|it| it.rule.id).collect();
    for rule in ["discarded-without-destination", "starts-at-latest", "age-exceeds-retention"] {
        assert!(unchecked.contains(&rule), "{unchecked:?}");
        assert!(diagnosis.findings.iter().all(|finding| finding.rule.id != rule));
    }
}

#[test]
fn functions_and_conditions_are_resolved() {
    let sections = "Parameters:\n  Stage: {Type: String, Default: prod}\nMappings:\n  Sizes:\n    prod: {Batch: 500}\n\
                    Conditions:\n  IsProd: !Equals [!Ref Stage, prod]\n  Both: !And [!Condition IsProd, !Not \
                    [!Equals [a, b]]]\n  \
                    Either: !Or [!Equals [a, b], {Condition: Both}]\n  Here: !Equals [!Ref AWS::Region, eu-west-1]\n";
    let template = with_mapping(
        sections,
        "      BatchSize: !FindInMap [Sizes, !Ref Stage, Batch]\n      BisectBatchOnFunctionError: !If [Either, true, \
         false]\n      MaximumRetryAttempts: !If [Here, 1, 2]\n      ParallelizationFactor: !Select [1, !Split [\",\", \
         !Join [\",\", [\"3\", \"4\"]]]]\n      StartingPosition: !If [IsProd, !Sub \"${P}_HORIZON\", LATEST]\n      \
         Enabled: !If [Here, !Ref AWS::NoValue, !Ref AWS::NoValue]",
    )
    .replace("${P}", "TRIM");
    let read = mapping(&template, &[]);
    assert_eq!(read.batch_size, SettingValue::Known(500));
    assert_eq!(read.bisect, SettingValue::Known(true));
    assert!(matches!(read.max_retries, SettingValue::Unresolved(_)), "{:?}", read.max_retries);
    assert_eq!(read.parallelization_factor, SettingValue::Known(4));
    assert_eq!(read.starting_position, SettingValue::Known("TRIM_HORIZON".to_owned()));
    assert_eq!(read.enabled, SettingValue::Absent);
    let staging = reading(&template, &[("Stage", "test")]);
    assert!(matches!(staging.deployment.mappings[0].batch_size, SettingValue::Unresolved(_)));
}

#[test]
fn an_arn_that_is_spelled_out_is_the_one_of_the_resource() {
    let template = "Resources:\n  B: {Type: AWS::S3::Bucket}\n  U: {Type: AWS::DynamoDB::Table}\n  M:\n    Type: \
                    AWS::Lambda::EventSourceMapping\n    Properties:\n      FunctionName: f\n      EventSourceArn: \
                    !GetAtt [U, StreamArn]\n      DestinationConfig:\n        OnFailure: {Destination: !Sub \
                    \"arn:${AWS::Partition}:s3:::${B}\"}\n";
    let reading = reading(template, &[]);
    let mapping = &reading.deployment.mappings[0];
    assert!(reading.deployment.bucket(mapping.on_failure.known().unwrap()).is_some());
    assert!(reading.deployment.table_of(mapping).is_ok());
}

#[test]
fn json_as_the_cdk_writes_it_is_read() {
    let template = r#"{"Resources": {
      "Users0A1B": {"Type": "AWS::DynamoDB::Table", "Properties": {"StreamSpecification": {"StreamViewType": "NEW_IMAGE"}}},
      "Fn": {"Type": "AWS::Lambda::Function", "Properties": {"Handler": "a.b", "Timeout": 60, "Role": {"Fn::GetAtt": ["Role", "Arn"]}}},
      "Role": {"Type": "AWS::IAM::Role", "Properties": {}},
      "Policy": {"Type": "AWS::IAM::Policy", "Properties": {"Roles": [{"Ref": "Role"}], "PolicyDocument": {"Statement": [
        {"Action": ["sqs:SendMessage"], "Effect": "Allow", "Resource": {"Fn::GetAtt": ["Queue", "Arn"]}}]}}},
      "Queue": {"Type": "AWS::SQS::Queue"},
      "Mapping": {"Type": "AWS::Lambda::EventSourceMapping", "Properties": {
        "FunctionName": {"Ref": "Fn"}, "EventSourceArn": {"Fn::GetAtt": ["Users0A1B", "StreamArn"]},
        "StartingPosition": "TRIM_HORIZON", "BatchSize": 5, "MaximumRetryAttempts": 10, "BisectBatchOnFunctionError": true,
        "DestinationConfig": {"OnFailure": {"Destination": {"Fn::GetAtt": ["Queue", "Arn"]}}}}}}}"#;
    let diagnosis = diagnose(&reading(template, &[]).deployment);
    let found: Vec<_> = diagnosis.findings.iter().map(|finding| finding.rule.id).collect();
    assert_eq!(found, ["metadata-only-destination", "table-not-protected", "mapping-not-watched"]);
}

#[test]
fn nested_templates_are_read_with_the_values_that_they_are_given() {
    let folder = tempfile::tempdir().unwrap();
    let nested = "Parameters:\n  Stream: {Type: String}\n  Retries: {Type: Number, Default: -1}\nResources:\n  \
    Changes:\n    Type: AWS::Lambda::EventSourceMapping\n    Properties:\n      FunctionName: f\n      \
                  EventSourceArn: !Ref \
                  Stream\n      MaximumRetryAttempts: !Ref Retries\nOutputs:\n  Name: {Value: !Ref Changes}\n";
    std::fs::write(folder.path().join("nested.yaml"), nested).unwrap();
    let template = "Transform: AWS::Serverless-2016-10-31\nResources:\n  Users: {Type: AWS::DynamoDB::Table}\n  \
                    Replication:\n    Type: AWS::Serverless::Application\n    Properties:\n      Location: \
                    nested.yaml\n      Parameters: {Stream: !GetAtt Users.StreamArn, Retries: 7}\n";
    let read = read(template, "t.yaml", Some(folder.path()), &BTreeMap::new()).unwrap();
    assert_eq!(read.problems, Vec::<String>::new());
    let mapping = &read.deployment.mappings[0];
    assert_eq!(mapping.max_retries, SettingValue::Known(7));
    assert_eq!(mapping.location.resource, "Replication.Changes");
    assert_eq!(read.deployment.table_of(mapping).unwrap().location.resource, "Users");
}

#[test]
fn problems_name_the_place_and_the_rest_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let itself = "Resources:\n  Again:\n    Type: AWS::CloudFormation::Stack\n    Properties: {TemplateURL: t.yaml}\n";
    std::fs::write(folder.path().join("t.yaml"), itself).unwrap();
    for (template, problem) in [
        (with_mapping("", "      BatchSize: !If [Missing, 1, 2]"), "condition Missing is not defined"),
        (
            with_mapping(
                "Conditions:\n  A: !Not [!Condition B]\n  B: !Not [!Condition A]",
                "      BatchSize: !If [A, 1, 2]",
            ),
            "depends on itself",
        ),
        (with_mapping("Conditions:\n  A: !Foo", "      BatchSize: 1").replace("!Foo", "!Join [a, [b]]"), ""),
        (with_mapping("Conditions:\n  A: !Join [a, [b]]", "      BatchSize: !If [A, 1, 2]"), "Join is not a condition"),
        (format!("{itself}  Users: {{Type: AWS::DynamoDB::Table}}\n"), "contains itself"),
        (itself.replace("t.yaml", "gone.yaml"), "cannot read the file"),
        (with_mapping("Metadata: {millrace: {ignore: [{rule: starts-at-latest}]}}", ""), "has no reason"),
        (with_mapping("Metadata: {millrace: {ignore: [{rule: other, reason: x}]}}", ""), "unknown rule \"other\""),
    ] {
        let read = read(&template, "t.yaml", Some(folder.path()), &BTreeMap::new()).unwrap();
        let found = read.problems.iter().any(|line| line.contains(problem) && line.contains("t.yaml"));
        assert!(found || problem.is_empty(), "{problem}: {:?}", read.problems);
        assert!(read.problems.iter().all(|line| !line.contains('\n')));
    }
}

#[test]
fn a_parameter_that_the_template_does_not_have_is_reported() {
    let read = reading(&with_mapping("Parameters: {Retries: {Default: 3}}", ""), &[("Retires", "3"), ("Retries", "4")]);
    assert_eq!(read.unknown_parameters, ["Retires"]);
}

#[test]
fn findings_with_a_reason_are_ignored_for_their_resource_only() {
    let template = with_mapping("", "      StartingPosition: LATEST").replace(
        "    Properties:\n      EventSourceArn",
        "    Metadata: {millrace: {ignore: [{rule: starts-at-latest, reason: a cache}, {rule: mapping-disabled, \
         reason: x}]}}\n    Properties:\n      EventSourceArn",
    );
    let diagnosis = diagnose(&reading(&template, &[]).deployment);
    assert!(diagnosis.findings.iter().all(|finding| finding.rule.id != "starts-at-latest"));
    let ignored: Vec<_> =
        diagnosis.ignored.iter().map(|(finding, reason)| (finding.rule.id, reason.as_str())).collect();
    assert_eq!(ignored, [("starts-at-latest", "a cache")]);
    assert_eq!(diagnosis.unused_ignores.iter().map(|it| it.rule.as_str()).collect::<Vec<_>>(), ["mapping-disabled"]);
}

#[test]
fn a_resource_with_an_unresolved_condition_is_evaluated_and_one_that_is_not_created_is_not() {
    let template =
        with_mapping("Parameters: {A: {Type: String}}\nConditions:\n  C: !Equals [!Ref A, x]", "      Enabled: false")
            .replace(
                "Type: AWS::Lambda::EventSourceMapping",
                "Condition: C\n    Type: AWS::Lambda::EventSourceMapping",
            );
    let count = |parameters| reading(&template, parameters).deployment.mappings.len();
    assert_eq!((count(&[]), count(&[("A", "x")]), count(&[("A", "y")])), (1, 1, 0));
    assert!(reading(&template, &[]).deployment.unread[0].1.contains("checked as created"));
}

#[test]
fn resources_of_a_loop_are_evaluated_and_one_over_an_unknown_list_is_reported() {
    let template = |list: &str| {
        format!(
            "Transform: AWS::LanguageExtensions\nParameters: {{Names: {{Type: CommaDelimitedList}}}}\nResources:\n  \
             Users: {{Type: AWS::DynamoDB::Table}}\n  Fn::ForEach::Readers:\n    - Name\n    - {list}\n    - \
             \"${{Name}}Mapping\":\n        Type: AWS::Lambda::EventSourceMapping\n        Properties:\n          \
             EventSourceArn: !GetAtt Users.StreamArn\n          FunctionName: !Sub \"fn-${{Name}}\"\n          \
             StartingPosition: LATEST\n"
        )
    };
    let read = reading(&template("[A, B]"), &[]);
    let functions: Vec<_> = read.deployment.mappings.iter().map(|mapping| mapping.function.clone()).collect();
    assert_eq!(functions, ["fn-A", "fn-B"].map(|name| SettingValue::Known(name.to_owned())));
    assert_eq!(reading(&template("!Ref Names"), &[("Names", "X,Y,Z")]).deployment.mappings.len(), 3);
    let unread = reading(&template("!Ref Names"), &[]).deployment.unread;
    assert_eq!(unread.len(), 1);
    assert!(unread[0].1.contains("its list is not resolved"), "{unread:?}");
}

#[test]
fn the_key_and_the_policy_of_a_queue_or_topic_are_evaluated() {
    let problems = |destination: &str, rest: &str| {
        let template = format!(
            "Resources:\n  Users: {{Type: AWS::DynamoDB::Table}}\n  Key: {{Type: AWS::KMS::Key}}\n  Role:\n    Type: \
             AWS::IAM::Role\n    Properties:\n      Policies:\n        - PolicyDocument:\n            \
             Statement:\n              - {{Effect: Allow, Action: ['sqs:SendMessage', 'sns:Publish'], Resource: \
             '*'}}\n  Fn: {{Type: AWS::Lambda::Function, Properties: {{Role: !GetAtt Role.Arn}}}}\n  Changes:\n    \
             Type: AWS::Lambda::EventSourceMapping\n    Properties:\n      FunctionName: !Ref Fn\n      \
             EventSourceArn: !GetAtt Users.StreamArn\n      DestinationConfig: {{OnFailure: {{Destination: \
             {destination}}}}}\n{rest}"
        );
        let diagnosis = diagnose(&reading(&template, &[]).deployment);
        let findings = diagnosis.findings.into_iter().filter(|it| it.rule.id == "destination-not-granted");
        findings.map(|finding| finding.problem).collect::<Vec<_>>().join("; ")
    };
    let queue = |properties: &str| format!("  Q: {{Type: AWS::SQS::Queue, Properties: {{{properties}}}}}\n");
    let topic = |properties: &str| format!("  T: {{Type: AWS::SNS::Topic, Properties: {{{properties}}}}}\n");
    let key = "KmsMasterKeyId: !GetAtt Key.Arn";
    let denies = "Statement: [{Effect: Deny, Principal: '*', Action: '*', Resource: '*'}]";
    let queue_policy = format!(
        "  P: {{Type: AWS::SQS::QueuePolicy, Properties: {{Queues: [!Ref Q], PolicyDocument: {{{denies}}}}}}}\n"
    );
    let topic_policy = format!(
        "  P: {{Type: AWS::SNS::TopicPolicy, Properties: {{Topics: [!Ref T], PolicyDocument: {{{denies}}}}}}}\n"
    );
    let lacks = "does not allow kms:GenerateDataKey and kms:Decrypt";
    for (destination, rest, expected) in [
        ("!GetAtt Q.Arn", queue("KmsMasterKeyId: alias/aws/sqs"), ""),
        ("!GetAtt Q.Arn", queue(key), lacks),
        ("!GetAtt Q.Arn", queue("") + &queue_policy, "denies sqs:SendMessage"),
        ("!GetAtt Q.Arn", queue("QueueName: discarded") + &queue_policy, "denies sqs:SendMessage"),
        ("!Ref T", topic(""), ""),
        ("!Ref T", topic(key), lacks),
        ("!Ref T", topic("") + &topic_policy, "denies sns:Publish"),
    ] {
        let found = problems(destination, &rest);
        assert!(found.contains(expected) && found.is_empty() == expected.is_empty(), "{rest}: {found:?}");
    }
}

#[test]
fn a_vpc_needs_an_endpoint_for_each_service_that_the_function_calls() {
    let problem = |endpoints: &str| {
        let template = with_mapping("", "").replace("FunctionName: other", "FunctionName: !Ref Fn")
            + &format!(
                "\n  Copy: {{Type: AWS::DynamoDB::Table}}\n  Subnet: {{Type: AWS::EC2::Subnet}}\n  Group: {{Type: \
                 AWS::EC2::SecurityGroup}}\n  Fn:\n    Type: \
                 AWS::Lambda::Function\n    Properties:\n      VpcConfig: {{SubnetIds: [!Ref Subnet], \
                 SecurityGroupIds: [!Ref Group]}}\n      Environment: {{Variables: {{SOURCE_TABLE_ARN: a, \
                 REPLICA_TABLE: !Ref Copy, FAILURE_BUCKET: b}}}}\n{endpoints}"
            );
        let diagnosis = diagnose(&reading(&template, &[]).deployment);
        let finding = diagnosis.findings.into_iter().find(|it| it.rule.id == "network-without-route");
        let unchecked = diagnosis.unchecked.into_iter().find(|it| it.rule.id == "network-without-route");
        finding.map(|it| it.problem).or_else(|| unchecked.map(|it| format!("not checked: {}", it.reason)))
    };
    let endpoint = |id: &str, service: &str| {
        format!("  {id}: {{Type: AWS::EC2::VPCEndpoint, Properties: {{ServiceName: {service}}}}}\n")
    };
    let of = |service: &str| endpoint(service, &format!("!Sub 'com.amazonaws.${{AWS::Region}}.{service}'"));
    assert_eq!(problem(&(of("dynamodb") + &of("s3"))), None);
    assert_eq!(problem("  Nat: {Type: AWS::EC2::NatGateway}\n"), None);
    assert_eq!(problem(&of("dynamodb")).unwrap(), "the function's VPC has no endpoint for s3");
    assert_eq!(problem(&of("kms")).unwrap(), "the function's VPC has no endpoint for dynamodb and s3");
    assert!(problem("").unwrap().contains("neither a VPC endpoint nor a NAT gateway"));
    assert!(problem(&(of("s3") + &endpoint("Other", "!ImportValue service"))).unwrap().starts_with("not checked"));
}

#[test]
fn functions_of_millrace_report_failures_whatever_their_code_is_in() {
    let variables = "Environment: {Variables: {SOURCE_TABLE_ARN: a, REPLICA_TABLE: Copy}}";
    let template = |properties: &str| {
        with_mapping("", "      BisectBatchOnFunctionError: true")
            .replace("FunctionName: other", "FunctionName: !Ref Fn")
            + &format!("\n  Fn: {{Type: AWS::Lambda::Function, Properties: {{{properties}}}}}\n")
    };
    let has_finding = |properties: &str| {
        let diagnosis = diagnose(&reading(&template(properties), &[]).deployment);
        diagnosis.findings.iter().any(|finding| finding.rule.id == "response-ignored")
    };
    assert!(has_finding(variables) && !has_finding("Timeout: 60"));
}

#[test]
fn a_policy_template_of_sam_grants_a_queue_or_topic_by_its_name() {
    for (resource, policy) in [
        ("Type: AWS::SQS::Queue", "SQSSendMessagePolicy: {QueueName: !GetAtt D.QueueName}"),
        ("Type: AWS::SQS::Queue, Properties: {QueueName: d}", "SQSSendMessagePolicy: {QueueName: !GetAtt D.QueueName}"),
        ("Type: AWS::SNS::Topic", "SNSPublishMessagePolicy: {TopicName: !GetAtt D.TopicName}"),
        (
            "Type: AWS::SNS::Topic, Properties: {TopicName: d}",
            "SNSPublishMessagePolicy: {TopicName: !GetAtt D.TopicName}",
        ),
    ] {
        let arn = if resource.contains("SQS") { "!GetAtt D.Arn" } else { "!Ref D" };
        let template = format!(
            "Transform: AWS::Serverless-2016-10-31\nResources:\n  Users: {{Type: AWS::DynamoDB::Table}}\n  D: \
             {{{resource}}}\n  Fn:\n    Type: AWS::Serverless::Function\n    Properties:\n      Policies:\n        - \
             {policy}\n      Events:\n        Changes:\n          Type: DynamoDB\n          Properties:\n            \
             Stream: !GetAtt Users.StreamArn\n            DestinationConfig: {{OnFailure: {{Destination: {arn}}}}}\n"
        );
        let diagnosis = diagnose(&reading(&template, &[]).deployment);
        let found = diagnosis.findings.iter().find(|finding| finding.rule.id == "destination-not-granted");
        assert!(found.is_none(), "{resource}: {found:?}");
        assert!(diagnosis.unchecked.iter().all(|it| it.rule.id != "destination-not-granted"), "{resource}");
    }
}
