//! Tests with small templates, and with the real one.

use super::*;
use crate::table_description::TimeToLive;
use crate::tier::TierUrls;

const TABLE: &str = "
  UsersTable:
    Type: AWS::DynamoDB::Table
    Properties:
      AttributeDefinitions: [{AttributeName: id, AttributeType: S}]
      KeySchema: [{AttributeName: id, KeyType: HASH}]
      StreamSpecification: {StreamViewType: KEYS_ONLY}
";

/// Returns a template of the table above and a function with these properties.
fn with_function(properties: &str, rest: &str) -> String {
    let indented = properties.replace('\n', "\n      ");
    format!(
        "Resources:{TABLE}
  FailureBucket: {{Type: AWS::S3::Bucket}}
  Fn:
    Type: AWS::Serverless::Function
    Metadata: {{BuildMethod: rust-cargolambda, BuildProperties: {{Binary: replicator}}}}
    Properties:
      Handler: bootstrap{indented}
{rest}"
    )
}

fn environment(variable: &str, rest: &str) -> Result<BTreeMap<String, String>, String> {
    let properties = format!("\nEnvironment: {{Variables: {{V: {variable}}}}}");
    let template = SamTemplate::parse(&with_function(&properties, rest)).map_err(|error| error.to_string())?;
    Ok(template.functions[0].environment.clone())
}

fn resolved(variable: &str, rest: &str) -> String {
    environment(variable, rest).unwrap().remove("V").unwrap_or_else(|| "none".to_owned())
}

fn refused(text: &str) -> String {
    let message = SamTemplate::parse(text).unwrap_err().to_string();
    assert!(message.starts_with("template:") && !message.contains('\n'), "{message}");
    message
}

#[test]
fn functions_resolve_to_what_is_on_this_machine() {
    let parameters = "
Parameters:
  Stage: {Type: String, Default: test}
  Days: {Type: Number, Default: 8}
Conditions:
  IsTest: !Equals [!Ref Stage, test]
  IsLive: !Not [!Condition IsTest]
  Both: {Fn::And: [{Condition: IsTest}, !Equals [a, a]]}
  Either: !Or [!Condition IsLive, !Equals [a, b]]
";
    for (variable, value) in [
        ("plain", "plain"),
        ("30", "30"),
        ("true", "true"),
        ("!Ref Stage", "test"),
        ("{Ref: Days}", "8"),
        ("!Ref UsersTable", "Users"),
        ("!Ref FailureBucket", "users-failures"),
        ("!Ref Fn", "replicator"),
        ("!GetAtt Fn.Arn", "arn:aws:lambda:us-east-1:000000000000:function:replicator"),
        ("!Ref AWS::Region", "us-east-1"),
        ("!GetAtt UsersTable.Arn", "arn:aws:dynamodb:dynoxide:000000000000:table/Users"),
        ("{Fn::GetAtt: [FailureBucket, Arn]}", "arn:aws:s3:::users-failures"),
        (
            "!Sub '${UsersTable}-${Stage}-${!Stage}-${FailureBucket.Arn}'",
            "Users-test-${Stage}-arn:aws:s3:::users-failures",
        ),
        ("!Sub ['${A}/${Stage}', {A: !Ref Days}]", "8/test"),
        ("!Join [',', [a, !Ref Stage, !Ref AWS::NoValue]]", "a,test"),
        ("!Join ['_', !Split ['/', !GetAtt UsersTable.Arn]]", "arn:aws:dynamodb:dynoxide:000000000000:table_Users"),
        ("!If [IsTest, yes, no]", "yes"),
        ("!If [IsLive, yes, !Ref Stage]", "test"),
        ("!If [Both, both, no]", "both"),
        ("!If [Either, either, !Ref AWS::NoValue]", "none"),
        ("!Select [1, !Split ['/', !GetAtt UsersTable.Arn]]", "Users"),
        ("!Select [0, [!Ref Stage, b]]", "test"),
    ] {
        assert_eq!(resolved(variable, parameters), value, "{variable}");
    }
}

#[test]
fn unresolvable_value_is_rejected_with_its_line_and_path() {
    let parameters = "
Parameters:
  Asked: {Type: String}
Conditions:
  Loop: !Not [!Condition Loop]
  Never: !Equals [a, b]
";
    let with_role = format!(
        "  Role: {{Type: AWS::IAM::Role}}\n  GoneTable: {{Type: AWS::DynamoDB::Table, Condition: Never}}\n{parameters}"
    );
    for (variable, says) in [
        ("!Ref Nothing", "Nothing is not a parameter or resource"),
        ("!Ref Asked", "parameter Asked has no default"),
        ("!Ref Role", "millrace has no AWS::IAM::Role"),
        ("!Ref GoneTable", "GoneTable is not created"),
        ("!GetAtt FailureBucket.DomainName", "unsupported attribute DomainName of FailureBucket"),
        ("!GetAtt UsersTable.StreamArn", "known only when the engine runs"),
        ("!ImportValue x", "millrace does not resolve ImportValue"),
        ("{Fn::FindInMap: [a, b, c]}", "millrace does not resolve FindInMap"),
        ("!Sub '${Unclosed'", "unclosed ${"),
        ("!If [Loop, a, b]", "depends on itself"),
        ("!If [Unknown, a, b]", "Unknown is not a condition"),
        ("!Join [a]", "Join expects"),
        ("!Select [2, !Split ['/', a/b]]", "Select expects"),
        ("!Select [one, [a, b]]", "Select expects"),
        ("!Select [0, !Split ['', a]]", "Split expects"),
        ("[a, list]", "expected a string"),
    ] {
        let message = environment(variable, &with_role).unwrap_err();
        assert!(message.contains(says), "{variable}: {message}");
    }
    let message = environment("!Ref Nothing", "").unwrap_err();
    assert!(message.starts_with("template:15: Resources.Fn.Properties.Environment.Variables.V: "), "{message}");
}

#[test]
fn globals_are_under_the_functions_own() {
    let globals = "
Globals:
  Function:
    Timeout: 7
    MemorySize: 256
    Tracing: Active
    Environment: {Variables: {COMMON: a, BOTH: a}}
";
    let own = "\nTimeout: 9\nEnvironment: {Variables: {OWN: b, BOTH: b}}";
    let template = SamTemplate::parse(&with_function(own, globals)).unwrap();
    let function = &template.functions[0];
    assert_eq!((function.timeout_s, function.memory_mb), (9, 256));
    let environment: Vec<(&str, &str)> = function.environment.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(environment, [("BOTH", "b"), ("COMMON", "a"), ("OWN", "b")]);
}

const MAPPING: &str = "
Events:
  Changes:
    Type: DynamoDB
    Properties:
      Stream: !GetAtt UsersTable.StreamArn
      StartingPosition: TRIM_HORIZON";

#[test]
fn a_mapping_has_lambdas_defaults() {
    let template = SamTemplate::parse(&with_function(MAPPING, "")).unwrap();
    let expected = MappingResource {
        name: "Changes".to_owned(),
        table: "Users".to_owned(),
        batch_size: 100,
        window_s: 0,
        parallelization_factor: 1,
        maximum_retry_attempts: -1,
        maximum_record_age_s: -1,
        bisect: false,
        report_batch_item_failures: false,
        filters: Vec::new(),
        on_failure_bucket: None,
        starting_position: "TRIM_HORIZON".to_owned(),
    };
    assert_eq!(template.functions[0].mappings, [expected]);
    let off = format!("{MAPPING}\n      Enabled: false");
    assert_eq!(SamTemplate::parse(&with_function(&off, "")).unwrap().functions[0].mappings, []);
}

#[test]
fn a_mapping_that_local_cannot_honour_is_refused() {
    for (more, says) in [
        ("TumblingWindowInSeconds: 30", "TumblingWindowInSeconds: not supported by millrace"),
        ("BatchSize: 10001", "BatchSize: expected a number from 1 to 10000"),
        ("BatchSize: many", "BatchSize: expected a number"),
        ("BisectBatchOnFunctionError: maybe", "expected true or false"),
        ("FunctionResponseTypes: [Other]", "expected ReportBatchItemFailures, found Other"),
        ("DestinationConfig: {OnFailure: {Destination: 'arn:aws:sqs:r:1:q'}}", "expected GetAtt Arn of a bucket"),
        ("FilterCriteria: {Filters: [{Patern: '{}'}]}", "Patern: expected one of Pattern"),
    ] {
        let message = refused(&with_function(&format!("{MAPPING}\n      {more}"), ""));
        assert!(message.contains(says), "{more}: {message}");
    }
    let elsewhere = MAPPING.replace("!GetAtt UsersTable.StreamArn", "arn:aws:dynamodb:r:1:table/T/stream/x");
    assert!(refused(&with_function(&elsewhere, "")).contains("Stream: expected GetAtt StreamArn"));
    let silent = with_function(MAPPING, "").replace("      StreamSpecification: {StreamViewType: KEYS_ONLY}\n", "");
    assert!(refused(&silent).contains("table Users has no StreamSpecification"));
}

#[test]
fn unsupported_resource_or_property_is_rejected() {
    let stray = |property: &str| format!("Resources:{TABLE}      {property}\n");
    for (text, says) in [
        (stray("LocalSecondaryIndexes: []"), "LocalSecondaryIndexes: not supported by millrace"),
        (stray("TimeToLiveSpecification: {Enabled: true}"), "AttributeName: expected a value"),
        ("Resources:\n  T: {Type: AWS::DynamoDB::GlobalTable}".to_owned(), "write an AWS::DynamoDB::Table instead"),
        ("Resources:\n  T: {Type: AWS::DynamoDB::Table}".to_owned(), "Resources.T.Properties: expected a value"),
        ("Resources:\n  F: {Type: AWS::Serverless::Function}".to_owned(), "Binary: expected the name"),
        (with_function("\nEvents: {S: {Type: Schedule}}", ""), "millrace runs DynamoDB events, not Schedule"),
        (with_function("\nEvents: {S: {Type: HttpApi}}", ""), "write an AWS::ApiGatewayV2::Route instead of HttpApi"),
        ("Resources:\n  A: {Type: AWS::Serverless::HttpApi}".to_owned(), "write an AWS::ApiGatewayV2::Api instead"),
        (with_function("\nImageUri: x", ""), "ImageUri: not supported by millrace"),
        ("Parameters: {}".to_owned(), "no Resources"),
    ] {
        let message = refused(&text);
        assert!(message.contains(says), "{message}");
    }
}

const API: &str = "  Tokens: {Type: AWS::ApiGatewayV2::Authorizer}
  Integration:
    Type: AWS::ApiGatewayV2::Integration
    Properties: {ApiId: x, IntegrationType: AWS_PROXY, IntegrationUri: !GetAtt Fn.Arn, PayloadFormatVersion: '2.0'}
  Route:
    Type: AWS::ApiGatewayV2::Route
    Properties:
      ApiId: x
      RouteKey: GET /users/{user_id}
      Target: !Sub integrations/${Integration}
      AuthorizationType: AWS_IAM
";

#[test]
fn a_route_leads_to_the_function_of_its_integration() {
    let routes = |api: &str| SamTemplate::parse(&with_function("", api)).unwrap().routes;
    let expected = ApiRoute {
        function: "replicator".to_owned(),
        method: "GET".to_owned(),
        path: "/users/{user_id}".to_owned(),
        authorization: "AWS_IAM".to_owned(),
    };
    assert_eq!(routes(API), std::slice::from_ref(&expected));
    let any = ApiRoute { method: "ANY".to_owned(), path: "$default".to_owned(), ..expected.clone() };
    assert_eq!(routes(&API.replace("GET /users/{user_id}", "$default")), [any]);
    let tokens = API.replace("AWS_IAM", "JWT\n      AuthorizerId: !Ref Tokens");
    assert_eq!(routes(&tokens), [ApiRoute { authorization: "JWT".to_owned(), ..expected }]);
}

#[test]
fn a_route_that_is_open_or_leads_elsewhere_is_refused() {
    for (part, other, says) in [
        ("      AuthorizationType: AWS_IAM\n", "", "AuthorizationType: expected a value"),
        ("AWS_IAM", "NONE", "AuthorizationType: expected one of AWS_IAM, JWT"),
        ("AWS_IAM", "JWT", "AuthorizerId: expected a value"),
        ("GET /users/{user_id}", "GET", "RouteKey: expected a method and a path, or $default"),
        ("integrations/${Integration}", "${Integration}", "Target: expected integrations/"),
        ("integrations/${Integration}", "integrations/Elsewhere", "Target: expected integrations/"),
        ("AWS_PROXY", "HTTP_PROXY", "IntegrationType: expected one of AWS_PROXY"),
        ("'2.0'", "'1.0'", "PayloadFormatVersion: expected one of 2.0"),
        ("!GetAtt Fn.Arn", "https://example.com", "IntegrationUri: expected GetAtt Arn of a function"),
        ("ApiId: x\n", "ApiId: x\n      AuthorizationScopes: [a]\n", "AuthorizationScopes: not supported by millrace"),
    ] {
        assert!(API.contains(part), "{part}");
        let message = refused(&with_function("", &API.replace(part, other)));
        assert!(message.contains(says), "{part}: {message}");
    }
}

#[test]
fn a_resource_whose_condition_does_not_hold_is_absent() {
    let text = format!("Conditions: {{Never: !Equals [a, b]}}\nResources:{TABLE}    Condition: Never\n");
    assert_eq!(SamTemplate::parse(&text).unwrap().tables, []);
}

#[test]
fn local_stack_sets_tier_parameters_and_nested_stack_outputs() {
    let tier = "
Parameters:
  RelationalTier: {Type: String, Default: none}
Conditions:
  HasRelational: !Not [!Equals [!Ref RelationalTier, none]]
";
    let stack = "  RelationalStack: {Type: AWS::CloudFormation::Stack, Condition: HasRelational}\n";
    let variable = "\nEnvironment: {Variables: {V: !If [HasRelational, !GetAtt RelationalStack.Outputs.WriterUrl, !Ref AWS::NoValue]}}";
    let text = with_function(variable, &format!("{stack}{tier}"));
    let read = |text: &str, urls: &TierUrls| {
        SamTemplate::read(text, "template", None, &urls.choices(), &SourceTable::default())
    };
    let of = |urls: &TierUrls| read(&text, urls).unwrap().functions[0].environment.get("V").cloned();
    assert_eq!(of(&TierUrls::default()), None);
    let on = TierUrls { postgres: Some("postgres://here".to_owned()), ..TierUrls::default() };
    assert_eq!(of(&on).as_deref(), Some("postgres://here"));
    let other = text.replace("WriterUrl", "Endpoint");
    assert!(read(&other, &on).unwrap_err().problem.contains("does not provide RelationalStack.Outputs.Endpoint"));
    let message = read(&with_function("\nTimeout: 3", ""), &on).unwrap_err().problem;
    assert!(message.contains("Parameters.RelationalTier"), "{message}");
}

const NESTED: &str = "
Parameters:
  StreamArn: {Type: String}
  KeyArn: {Type: String, Default: none}
  Policy: {Type: String, Default: none}
  Key: {Type: String, Default: 'pk:S'}
  SortKey: {Type: String, Default: none}
Conditions:
  HasSortKey: !Not [!Equals [!Ref SortKey, none]]
  HasKey: !Not [!Equals [!Ref KeyArn, none]]
Resources:
  ReplicaTable:
    Type: AWS::DynamoDB::Table
    Condition: HasKey
    Properties:
      AttributeDefinitions:
        - {AttributeName: !Select [0, !Split [':', !Ref Key]], AttributeType: !Select [1, !Split [':', !Ref Key]]}
        - !If
          - HasSortKey
          - AttributeName: !Select [0, !Split [':', !Ref SortKey]]
            AttributeType: !Select [1, !Split [':', !Ref SortKey]]
          - !Ref AWS::NoValue
      KeySchema: [{AttributeName: !Select [0, !Split [':', !Ref Key]], KeyType: HASH}]
  Replicator:
    Type: AWS::Serverless::Function
    Metadata: {BuildProperties: {Binary: replicator}}
    Properties:
      Environment: {Variables: {REPLICA: !Ref ReplicaTable}}
      Events:
        Changes: {Type: DynamoDB, Properties: {Stream: !Ref StreamArn, StartingPosition: LATEST}}
Outputs:
  ReplicaName: {Value: !Ref ReplicaTable}
";

/// Writes a template and the application that it contains to a folder, and reads it.
fn load_with_nested(parameters: &str, variable: &str, nested: &str) -> Result<SamTemplate, String> {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "Resources:{TABLE}
  Key: {{Type: AWS::KMS::Key}}
  Role: {{Type: AWS::IAM::Role}}
  Replication:
    Type: AWS::Serverless::Application
    Properties:
      Location: nested/replication.yaml
      Parameters: {{{parameters}}}
  Api:
    Type: AWS::Serverless::Function
    Metadata: {{BuildProperties: {{Binary: api}}}}
    Properties: {{Environment: {{Variables: {{V: {variable}}}}}}}
"
    );
    let path = folder.path().join("template.yaml");
    std::fs::create_dir(folder.path().join("nested")).unwrap();
    std::fs::write(&path, text).unwrap();
    std::fs::write(folder.path().join("nested/replication.yaml"), nested).unwrap();
    SamTemplate::load(&path).map_err(|error| error.to_string())
}

const GIVEN: &str = "StreamArn: !GetAtt UsersTable.StreamArn, KeyArn: !GetAtt Key.Arn";

#[test]
fn nested_application_is_read_with_its_parameters_and_returns_its_outputs() {
    let parameters = format!("{GIVEN}, Key: 'a.b:N', SortKey: 'sk:B', Policy: !Ref Role");
    let template = load_with_nested(&parameters, "!GetAtt Replication.Outputs.ReplicaName", NESTED).unwrap();
    let tables: Vec<&str> = template.tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(tables, ["Users", "UsersReplica"]);
    let attribute = |name: &str, kind: &str| AttributeType { name: name.to_owned(), kind: kind.to_owned() };
    assert_eq!(template.tables[1].attributes, [attribute("a.b", "N"), attribute("sk", "B")]);
    assert_eq!(template.tables[1].keys, [KeyDefinition { name: "a.b".to_owned(), role: "HASH".to_owned() }]);
    let [replicator, api] = template.functions.as_slice() else { panic!("{:?}", template.functions) };
    assert_eq!(
        (replicator.mappings[0].table.as_str(), replicator.environment["REPLICA"].as_str()),
        ("Users", "UsersReplica")
    );
    assert_eq!(api.environment["V"], "UsersReplica");
    let with_defaults = load_with_nested(&format!("{GIVEN}, SortKey: !Ref AWS::NoValue"), "x", NESTED).unwrap();
    assert_eq!(with_defaults.tables[1].attributes, [attribute("pk", "S")]);
}

#[test]
fn error_of_a_nested_application_names_the_file_in_which_it_is() {
    let stream = "StreamArn: !GetAtt UsersTable.StreamArn";
    for (parameters, variable, nested, file, says) in [
        (stream, "x", NESTED, "replication.yaml:28", "ReplicaTable is not created"),
        ("KeyArn: !GetAtt Key.Arn", "x", NESTED, "replication.yaml:30", "parameter StreamArn has no default"),
        ("KeyArn: !Ref Role", "x", NESTED, "template.yaml:15", "millrace has no AWS::IAM::Role"),
        ("Other: a", "x", NESTED, "template.yaml:15", "replication.yaml has no parameter Other"),
        (GIVEN, "!GetAtt Replication.Outputs.Other", NESTED, "template.yaml:19", "has no output"),
        (GIVEN, "x", "a: ]", "replication.yaml:1", "invalid YAML"),
        ("", "x", "a: b", "replication.yaml:1", "no Resources"),
    ] {
        let message = load_with_nested(parameters, variable, nested).unwrap_err();
        assert!(message.contains(&format!("{file}: ")) && message.contains(says), "{parameters} {variable}: {message}");
    }
}

#[test]
fn nested_application_that_cannot_be_read_is_an_error() {
    let application =
        |location: &str| format!("Resources:\n  A: {{Type: AWS::Serverless::Application, Properties: {{{location}}}}}");
    assert!(refused(&application("Location: a.yaml")).contains("Location: a.yaml is another file"));
    assert!(refused(&application("")).contains("Location: expected the path of a template"));
    assert!(refused(&application("Location: {ApplicationId: a}")).contains("Location: expected the path"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.yaml");
    std::fs::write(&path, application("Location: a.yaml")).unwrap();
    assert!(SamTemplate::load(&path).unwrap_err().to_string().contains("a.yaml contains itself"));
    std::fs::write(&path, application("Location: b.yaml")).unwrap();
    let message = SamTemplate::load(&path).unwrap_err().to_string();
    assert!(
        message.contains("a.yaml:2: ") && message.contains("cannot read ") && message.contains("b.yaml"),
        "{message}"
    );
}

/// Reads `infra/replication.yaml` by itself, with these parameters.
fn load_replication(parameters: &[(&str, &str)]) -> Result<SamTemplate, String> {
    load_for(&SourceTable::default(), parameters)
}

fn load_for(source: &SourceTable, parameters: &[(&str, &str)]) -> Result<SamTemplate, String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../infra/replication.yaml");
    let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let choices = ParameterOverrides { parameters, ..ParameterOverrides::default() };
    SamTemplate::load_for(Path::new(path), &choices, source).map_err(|error| error.to_string())
}

#[test]
fn source_table_outside_of_the_template_has_the_key_of_the_parameters() {
    let key = |table: &TableResource| -> Vec<(String, String)> {
        let keys = table.keys.iter().zip(&table.attributes);
        keys.map(|(key, attribute)| (format!("{} {}", key.role, key.name), attribute.kind.clone())).collect()
    };
    let template = load_replication(&[("PartitionKey", "pk:S"), ("SortKey", "größe (cm):N")]).unwrap();
    let [source, replica] = template.tables.as_slice() else { panic!("{:?}", template.tables) };
    assert_eq!((source.name.as_str(), replica.name.as_str()), ("Source", "SourceReplica"));
    let expected = [("HASH pk", "S"), ("RANGE größe (cm)", "N")];
    assert_eq!(key(source), expected.map(|(name, kind)| (name.to_owned(), kind.to_owned())));
    assert_eq!((key(source), source.stream_view.as_deref()), (key(replica), Some("NEW_AND_OLD_IMAGES")));
    assert!(template.functions.iter().flat_map(|function| &function.mappings).all(|mapping| mapping.table == "Source"));
    let template = load_replication(&[("SourceTableName", "Orders"), ("PartitionKey", "_id:B")]).unwrap();
    assert_eq!((template.tables[0].name.as_str(), key(&template.tables[0]).len()), ("Orders", 1));
}

#[test]
fn values_that_a_deployment_rejects_are_named_with_those_it_accepts() {
    for (name, value, expected) in [
        ("Archive", "s3", r#"Parameters.Archive: "s3": expected separate, in-replicator, off"#),
        ("LogRetentionDays", "2", r#"Parameters.LogRetentionDays: "2": expected 1, 3, 5"#),
        ("TombstoneRetentionDays", "1", r#"Parameters.TombstoneRetentionDays: "1": expected a number from 2"#),
        ("TombstoneRetentionDays", "soon", "expected a number from 2"),
        ("TombstoneRetentionDays", "NaN", "expected a number from 2"),
        ("ReplicaRegion", "Ireland", r#"Parameters.ReplicaRegion: "Ireland": expected a value that matches ^(none|"#),
        ("ReservedPrefix", "my rev", r#"Parameters.ReservedPrefix: "my rev": must be 1 to 32 letters, digits"#),
        (
            "ReplicaRegion",
            "us-east-1",
            "Rules.AnotherReplicaExists: ReplicaRegion, ReplicaRoleArn and ReplicaKeyArn require",
        ),
        ("ReplicaTableArn", "arn:aws:dynamodb:dynoxide:000000000000:table/Source", "Rules.ReplicaIsAnotherTable: "),
    ] {
        let refused = load_replication(&[("PartitionKey", "pk:S"), (name, value)]).unwrap_err();
        assert!(refused.contains(expected), "{refused}");
    }
    for (name, value) in [
        ("Archive", "off"),
        ("LogRetentionDays", "3"),
        ("TombstoneRetentionDays", "2"),
        ("ReservedPrefix", "mr_"),
        ("ReplicaTableArn", "arn:aws:dynamodb:dynoxide:000000000000:table/Other"),
    ] {
        load_replication(&[("PartitionKey", "pk:S"), (name, value)]).unwrap();
    }
    // A pattern with look-ahead, as Java has it.
    let base_path = |value: &str| {
        let parameters = [("ApiBasePath".to_owned(), value.to_owned())].into();
        let choices = ParameterOverrides { parameters, ..ParameterOverrides::default() };
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../template.yaml");
        SamTemplate::load_with(Path::new(path), &choices).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(base_path("v1"), Ok(()));
    assert!(
        base_path("users/v1").unwrap_err().contains(r#"Parameters.ApiBasePath: "users/v1": expected a value that"#)
    );
}

#[test]
fn length_of_a_parameter_is_checked_and_rules_of_a_tier_are_not() {
    let template = |value: &str, rules: &str| {
        let text = format!(
            "Parameters:\n  Name: {{Type: String, Default: abc, MinLength: 2, MaxLength: 4}}\n  \
             RelationalTier: {{Type: String, Default: none}}\n{rules}\nResources: {{}}\n"
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("template.yaml");
        std::fs::write(&path, text).unwrap();
        let parameters = [("Name".to_owned(), value.to_owned())].into();
        let choices = ParameterOverrides { parameters, ..ParameterOverrides::default() };
        SamTemplate::load_with(&path, &choices).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(template("ab", ""), Ok(()));
    for value in ["a", "abcde"] {
        let message = template(value, "").unwrap_err();
        assert!(message.contains(&format!("Parameters.Name: {value:?}: expected 2 to 4 characters")), "{message}");
    }
    let rule = |condition: &str| {
        format!(
            "Rules:\n  IsAbc:\n{condition}    Assertions:\n      - Assert: !Equals [!Ref Name, abc]\n        \
             AssertDescription: Name is not abc, set it"
        )
    };
    assert_eq!(template("abc", &rule("")), Ok(()));
    assert!(template("ab", &rule("")).unwrap_err().ends_with("Rules.IsAbc: Name is not abc, set it"));
    assert_eq!(template("ab", &rule("    RuleCondition: !Equals [!Ref Name, abcd]\n")), Ok(()));
    assert_eq!(template("ab", &rule("    RuleCondition: !Equals [!Ref RelationalTier, none]\n")), Ok(()));
}

/// A table whose key names no parameter can have, with an index of each kind.
fn described() -> TableDescription {
    let description = r#"{"Table": {
        "TableName": "Orders", "TableStatus": "ACTIVE",
        "TableArn": "arn:aws:dynamodb:eu-west-1:123456789012:table/Orders",
        "KeySchema": [
            {"AttributeName": "urn:order", "KeyType": "HASH"}, {"AttributeName": ":", "KeyType": "RANGE"}
        ],
        "AttributeDefinitions": [
            {"AttributeName": "urn:order", "AttributeType": "S"}, {"AttributeName": ":", "AttributeType": "N"},
            {"AttributeName": "status", "AttributeType": "S"}
        ],
        "GlobalSecondaryIndexes": [{
            "IndexName": "by-status", "KeySchema": [{"AttributeName": "status", "KeyType": "HASH"}],
            "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["total"]}
        }],
        "LocalSecondaryIndexes": [{
            "IndexName": "own-status",
            "KeySchema": [
                {"AttributeName": "urn:order", "KeyType": "HASH"}, {"AttributeName": "status", "KeyType": "RANGE"}
            ],
            "Projection": {"ProjectionType": "ALL"}
        }]
    }}"#;
    TableDescription::parse(description).unwrap()
}

#[test]
fn described_source_table_has_its_keys_indexes_and_ttl_attribute() {
    let described = SourceTable { description: Some(described()), ttl_attribute: Some("ttl".to_owned()) };
    let template = load_for(&described, &[]).unwrap();
    let [source, replica] = template.tables.as_slice() else { panic!("{:?}", template.tables) };
    assert_eq!((source.name.as_str(), replica.name.as_str()), ("Orders", "OrdersReplica"));
    let names = |table: &TableResource| table.keys.iter().map(|key| key.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(source), ["urn:order", ":"], "a colon is part of a name");
    assert_eq!(source.keys, replica.keys);
    assert_eq!(replica.attributes.iter().map(|one| one.kind.as_str()).collect::<Vec<_>>(), ["S", "N"]);
    assert_eq!((source.indexes[0].name.as_str(), source.local_indexes[0].name.as_str()), ("by-status", "own-status"));
    assert!(replica.indexes.is_empty() && replica.local_indexes.is_empty());
    assert_eq!(
        (source.ttl_attribute.as_deref(), source.stream_view.as_deref()),
        (Some("ttl"), Some("NEW_AND_OLD_IMAGES"))
    );
    let buckets: Vec<&str> = template.buckets.iter().map(|bucket| bucket.name.as_str()).collect();
    assert_eq!(buckets, ["orders-archive", "orders-failures"]);
    let described = SourceTable { ttl_attribute: None, ..described };
    assert_eq!(load_for(&described, &[]).unwrap().tables[0].ttl_attribute, None);
    let mut described = described;
    described.description.as_mut().unwrap().time_to_live = TimeToLive::Enabled { attribute: "ends".to_owned() };
    for (chosen, expected) in [(None, Some("ends")), (Some("ttl"), Some("ttl")), (Some("none"), None)] {
        described.ttl_attribute = chosen.map(str::to_owned);
        let template = load_for(&described, &[]).unwrap();
        assert_eq!(template.tables[0].ttl_attribute.as_deref(), expected, "--ttl-attribute {chosen:?}");
    }
    described.ttl_attribute = Some(String::new());
    let refused = load_for(&described, &[]).unwrap_err();
    assert!(refused.contains("--ttl-attribute: expected the name") && refused.contains("none if TTL"), "{refused}");
    for (attribute, expected) in [(":", Ok(())), ("urn:order", Err("\"urn:order\" is of type S"))] {
        described.ttl_attribute = Some(attribute.to_owned());
        match (load_for(&described, &[]), expected) {
            (Ok(template), Ok(())) => assert_eq!(template.tables[0].ttl_attribute.as_deref(), Some(attribute)),
            (Err(refused), Err(part)) => {
                assert!(refused.contains(part) && refused.contains("none if TTL"), "{refused}");
            }
            (loaded, _) => panic!("{attribute}: {:?}", loaded.map(drop)),
        }
    }
}

#[test]
fn description_that_contradicts_a_parameter_or_the_template_is_refused() {
    let described = SourceTable { description: Some(described()), ttl_attribute: None };
    for name in source_table::DESCRIBING_PARAMETERS {
        let message = load_for(&described, &[(name, "pk:S")]).unwrap_err();
        assert!(message.contains(&format!("Parameters.{name}: --table describes the source table: omit")), "{message}");
    }
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../template.yaml"));
    for (source, option) in [
        (described, "--table: "),
        (SourceTable { description: None, ttl_attribute: Some("ttl".to_owned()) }, "--ttl-attribute: "),
    ] {
        let message = SamTemplate::load_for(path, &ParameterOverrides::default(), &source).unwrap_err().to_string();
        assert!(message.contains(option) && message.contains("infra/replication.yaml with --template"), "{message}");
    }
    let ttl = SourceTable { description: None, ttl_attribute: Some("ttl".to_owned()) };
    let template = load_for(&ttl, &[("PartitionKey", "pk:S")]).unwrap();
    assert_eq!(template.tables[0].ttl_attribute.as_deref(), Some("ttl"), "with parameters, too");
}

#[test]
fn parameters_that_do_not_describe_a_source_table_are_refused() {
    let keys = [("PartitionKey", "pk:S")];
    for (parameters, says) in [
        (&[][..], "Parameters.PartitionKey: no value: set it with --parameter PartitionKey=NAME:TYPE"),
        (&[("PartitionKey", "pk")], r#"PartitionKey: "pk" is not a name and a type"#),
        (&[("PartitionKey", ":S")], r#"PartitionKey: ":S" is not a name and a type"#),
        (&[keys[0], ("SortKey", "sk:X")], r#"SortKey: "sk:X" is not a name and a type"#),
        (&[keys[0], ("SortKey", "pk:N")], r#"SortKey: "pk:N" names the attribute of PartitionKey: set it to another"#),
        (&[keys[0], ("SourceTableName", "a table")], r#"SourceTableName: "a table" is not a table name"#),
        (&[keys[0], ("SourceTableName", "ab")], "expected 3 to 255 letters, digits, _, . or -, without spaces"),
        (&[keys[0], ("SourceStreamArn", "arn:…")], "SourceStreamArn: cannot be set"),
        (&[keys[0], ("UsersTable", "Users")], "Parameters.UsersTable: the template has no such parameter"),
    ] {
        let message = load_replication(parameters).unwrap_err();
        assert!(message.contains("infra/replication.yaml:") && message.contains(says), "{message}");
    }
}

#[test]
fn url_of_the_database_is_a_parameter_of_a_template_without_its_stack() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../infra/replication.yaml");
    let url = "postgres://millrace@127.0.0.1:5432/millrace";
    let mut choices = TierUrls { postgres: Some(url.to_owned()), cache: None }.choices();
    choices.parameters.insert("PartitionKey".to_owned(), "pk:S".to_owned());
    let template = SamTemplate::load_with(Path::new(path), &choices).unwrap();
    for name in ["replicator", "maintenance"] {
        let function = template.functions.iter().find(|function| function.name == name).unwrap();
        assert_eq!(function.environment["POSTGRES_URL"], url, "{name}");
        // An empty variable is unset: this machine has no secret store.
        assert_eq!(function.environment.get("POSTGRES_SECRET").map_or("", String::as_str), "", "{name}");
    }
    // A value of the user is not replaced.
    let other = "postgres://other@127.0.0.1:5432/other".to_owned();
    choices.parameters.insert("DatabaseUrl".to_owned(), other.clone());
    let template = SamTemplate::load_with(Path::new(path), &choices).unwrap();
    assert!(template.functions.iter().any(|function| function.environment.get("POSTGRES_URL") == Some(&other)));
}

#[test]
fn tier_that_the_template_does_not_have_is_refused() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../infra/replication.yaml");
    let mut choices = TierUrls { postgres: None, cache: Some("redis://here".to_owned()) }.choices();
    choices.parameters.insert("PartitionKey".to_owned(), "pk:S".to_owned());
    let message = SamTemplate::load_with(Path::new(path), &choices).unwrap_err().to_string();
    assert!(
        message.contains("--cache: the template has no CacheStack") && message.contains("omit --cache"),
        "{message}"
    );
    choices.outputs.clear();
    choices.parameters.insert("NoSuch".to_owned(), "1".to_owned());
    let message = SamTemplate::load_with(Path::new(path), &choices).unwrap_err().to_string();
    assert!(message.contains("Parameters.NoSuch: the template has no such parameter: omit the option"), "{message}");
}

#[test]
fn a_file_that_is_not_there_is_named_with_the_option() {
    let message = SamTemplate::load(Path::new("/nowhere/template.yaml")).unwrap_err().to_string();
    assert!(message.starts_with("/nowhere/template.yaml:0: ") && message.ends_with("--template"), "{message}");
}

#[test]
fn the_projects_template_is_understood() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../template.yaml");
    let template = SamTemplate::load(Path::new(path)).unwrap();
    let tables: Vec<&str> = template.tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(tables, ["Users", "Idempotency", "Emails", "UsersReplica"]);
    let buckets: Vec<&str> = template.buckets.iter().map(|bucket| bucket.name.as_str()).collect();
    assert_eq!(buckets, ["users-archive", "users-failures"]);
    let functions: Vec<&str> = template.functions.iter().map(|function| function.name.as_str()).collect();
    assert_eq!(functions, ["api", "replicator", "archiver", "maintenance"]);
    assert_eq!(template.tables[0].indexes[0].name, "EmailIndex");
}
