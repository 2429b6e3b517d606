//! `millrace attach` as a process: its report and files for a description in a file, its calls to an account, and to a
//! running stack.
//!
//! The folders `tests/attach/*/` contain the expected report and files. After an intended change, write them with
//! `millrace attach` in `cli/tests/attach`, with the arguments of the test.

#![expect(clippy::unwrap_used, reason = "a call that fails is a failed test, in a helper as well")]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use aws_sdk_dynamodb::types::AttributeValue;
use millrace_local::stack::{LocalStack, StackOptions};
use serde_json::{Value, json};
use tempfile::TempDir;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attach")
}

/// The program in a folder of its own, with no AWS configuration but that of a test.
struct AttachProgram {
    folder: TempDir,
    variables: BTreeMap<&'static str, String>,
}

impl AttachProgram {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let none = folder.path().join("none").display().to_string();
        let variables = [
            ("AWS_CONFIG_FILE", none.clone()),
            ("AWS_SHARED_CREDENTIALS_FILE", none),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ("PATH", folder.path().display().to_string()),
        ];
        Self { folder, variables: variables.into() }
    }

    /// With credentials, and a Region.
    fn with_credentials() -> Self {
        let mut program = Self::new();
        let credentials = [("AWS_ACCESS_KEY_ID", "any"), ("AWS_SECRET_ACCESS_KEY", "any"), ("AWS_REGION", "eu-west-1")];
        program.variables.extend(credentials.map(|(name, value)| (name, value.to_owned())));
        program
    }

    fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        self.run_command("attach", arguments)
    }

    fn run_command(&self, name: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
        command.arg(name).args(arguments).current_dir(self.folder.path());
        let Output { status, stdout, stderr } = command.env_clear().envs(&self.variables).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code(), text(stdout), text(stderr))
    }

    /// Runs the program, which must print one JSON document.
    fn report(&self, arguments: &[&str]) -> (Option<i32>, Value) {
        let (code, stdout, stderr) = self.run(&[arguments, &["--output", "json"]].concat());
        (code, serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}")))
    }
}

fn from(name: &str) -> String {
    fixtures().join(name).display().to_string()
}

#[test]
fn report_and_files_of_a_description_are_the_expected_ones() {
    for (input, table, folder, options) in [
        ("orders.json", "Orders", "orders", &["--ttl-attribute", "ttl"][..]),
        ("events.json", "events.v2_test", "events", &["--stack-account", "999988887777"]),
    ] {
        let program = AttachProgram::new();
        let (code, report, stderr) = program.run(&[&["--from", &from(input)][..], options].concat());
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{report}");
        let expected = |name: &str| std::fs::read_to_string(fixtures().join(folder).join(name)).unwrap();
        assert_eq!(report, expected("report.txt"), "the report of {input}");
        for name in ["samconfig.toml", "replication.json", "policies.json", "README.md"] {
            let written = std::fs::read_to_string(program.folder.path().join("attach").join(table).join(name)).unwrap();
            assert_eq!(written, expected(name), "{name} of {input}");
        }
    }
}

#[test]
fn a_table_that_cannot_be_attached_yet_exits_with_1_and_writes_no_file() {
    let program = AttachProgram::new();
    let mut document: Value = serde_json::from_str(&std::fs::read_to_string(from("orders.json")).unwrap()).unwrap();
    document["Table"]
        .as_object_mut()
        .unwrap()
        .retain(|name, _| !["StreamSpecification", "LatestStreamArn"].contains(&&**name));
    std::fs::write(program.folder.path().join("table.json"), document.to_string()).unwrap();
    let (code, report, stderr) = program.run(&["Orders", "--from", "table.json", "--ttl-attribute", "none"]);
    assert_eq!((code, stderr.as_str()), (Some(1), ""));
    for part in [
        "stream        off",
        "cannot be attached yet",
        "aws dynamodb update-table --region eu-west-1 --table-name Orders --stream-specification \
         StreamEnabled=true,StreamViewType=NEW_AND_OLD_IMAGES",
        "no files were written",
    ] {
        assert!(report.contains(part), "{part}: {report}");
    }
    assert!(!program.folder.path().join("attach").exists());
    let (code, report) = program.report(&["--from", "table.json"]);
    assert_eq!((code, &report["files"], &report["findings"][0]["severity"]), (Some(1), &Value::Null, &json!("blocks")));
}

#[test]
fn rejected_arguments_and_files_exit_with_2_and_one_line() {
    let orders = from("orders.json");
    let arn = "arn:aws:dynamodb:eu-west-1:123456789012:table/Orders";
    let (copy, role) = ("arn:aws:dynamodb:us-east-1:123456789012:table/Copy", "arn:aws:iam::123456789012:role/replica");
    for (arguments, parts) in [
        (&[][..], ["<TABLE>", "--help"]),
        (&["Orders", "--from", "absent.json"], ["absent.json", "--from"]),
        (
            &["Users", "--from", &orders],
            ["describes arn:aws:dynamodb:eu-west-1:123456789012:table/Orders", "not Users"],
        ),
        (&["a b"], ["a b", "3 to 255"]),
        (&["arn:aws:s3:::orders"], ["arn:aws:s3:::orders", "table/NAME"]),
        (&["Orders", "--ttl-attribute", "ttl"], ["--from", "--help"]),
        (&["Orders", "--from", &orders, "--region", "eu-west-1"], ["--region", "--from"]),
        (&["Orders", "--replica-table", "Copy"], ["--replica-table", "table/NAME"]),
        (&["Orders", "--replica-role-arn", role], ["--replica-table", "--help"]),
        (&["Orders", "--replica-region", "us-east-1"], ["--replica-table", "--help"]),
        (&["Orders", "--replica-table", copy, "--replica-role-arn", "replica"], ["--replica-role-arn", "role/NAME"]),
        (
            &["Orders", "--replica-table", copy, "--replica-region", "eu-west-1"],
            ["--replica-region eu-west-1", "omit --replica-region"],
        ),
        (&["Orders", "--reserved-prefix", "my rev"], ["--reserved-prefix", "such as mr_"]),
        (&["Orders", "--archive", "on"], ["--archive", "in-replicator"]),
        (&["Orders", "--stack-name", "a b"], ["--stack-name", "letter"]),
        (&["Orders", "--stack-account", "12"], ["--stack-account", "12 digits"]),
        (&[arn, "--region", "us-east-1"], ["--region us-east-1", "omit --region"]),
        (&["Orders"], ["Region", "AWS_REGION"]),
        (&["Orders", "--region", "eu-west-1"], ["credentials", "aws sso login"]),
        (&[arn, "--profile", "dev"], ["--profile dev: no AWS credentials", "aws sso login --profile dev"]),
        (&["Orders", "--endpoint-url", "foo"], ["'foo' for '--endpoint-url <URL>'", "http://127.0.0.1:8000"]),
        (&["Orders", "--endpoint-url", "localhost:8000"], ["--endpoint-url", "http://HOST:PORT"]),
    ] {
        let (code, stdout, stderr) = AttachProgram::new().run(arguments);
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (Some(2), "", 1), "{arguments:?}: {stderr}");
        assert!(parts.iter().all(|part| stderr.contains(part)), "{arguments:?}: {stderr}");
    }
}

#[test]
fn unknown_profile_is_named_with_the_command_that_lists_the_others() {
    let mut program = AttachProgram::new();
    let path = program.folder.path().join("config");
    std::fs::write(&path, "[profile prod]\nregion = eu-west-1\n").unwrap();
    program.variables.insert("AWS_CONFIG_FILE", path.display().to_string());
    let (code, _, stderr) = program.run(&["Orders", "--region", "eu-west-1", "--profile", "nope"]);
    assert_eq!((code, stderr.lines().count()), (Some(2), 1), "{stderr}");
    let expected = [
        "--profile nope: no AWS credentials, since the AWS configuration files have no such profile",
        "name one that aws configure list-profiles prints",
    ];
    assert!(expected.iter().all(|part| stderr.contains(part)), "{stderr}");
}

#[test]
fn files_with_other_contents_are_kept_unless_forced() {
    let program = AttachProgram::new();
    let orders = from("orders.json");
    let first = program.run(&["--from", &orders, "--ttl-attribute", "ttl"]);
    assert_eq!(first.0, Some(0));
    let (code, report, stderr) = program.run(&["--from", &orders, "--archive", "off"]);
    assert_eq!((code, stderr.lines().count()), (Some(2), 1), "{stderr}");
    assert!(stderr.contains("attach/Orders/samconfig.toml exists") && stderr.contains("--force"), "{stderr}");
    assert!(report.contains("no files were written"), "{report}");
    assert_eq!(program.run(&["--from", &orders, "--archive", "off", "--force"]).0, Some(0));
    let config = std::fs::read_to_string(program.folder.path().join("attach/Orders/samconfig.toml")).unwrap();
    assert!(config.contains("\"Archive=off\""), "{config}");
    assert_eq!(program.run(&["--from", &orders, "--out", "elsewhere"]).0, Some(0));
    assert!(program.folder.path().join("elsewhere/Orders/README.md").exists());
}

#[cfg(unix)]
#[test]
fn file_is_replaced_through_a_link_and_other_than_a_file_is_refused() {
    let program = AttachProgram::new();
    let folder = program.folder.path().join("attach/Orders");
    std::fs::create_dir_all(&folder).unwrap();
    let (link, target) = (folder.join("samconfig.toml"), program.folder.path().join("target.toml"));
    std::fs::write(&target, "former").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let arguments = ["--from", &from("orders.json"), "--force"];
    assert_eq!(program.run(&arguments).0, Some(0));
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(std::fs::read_to_string(&target).unwrap().contains("[default.deploy.parameters]"));
    let policies = folder.join("policies.json");
    for part in ["is a device", "is a folder"] {
        std::fs::remove_file(&policies).unwrap();
        if part == "is a device" {
            std::os::unix::fs::symlink("/dev/null", &policies).unwrap();
        } else {
            std::fs::create_dir(&policies).unwrap();
        }
        std::fs::write(&target, "former").unwrap();
        let (code, _, stderr) = program.run(&arguments);
        assert_eq!(code, Some(2), "{stderr}");
        assert!(
            stderr.contains(&format!("attach/Orders/policies.json: {part}")) && stderr.contains("--out"),
            "{stderr}"
        );
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "former", "no file is written");
    }
}

type FakeResponses = Arc<dyn Fn(&str, &str) -> (u16, Value) + Send + Sync>;

/// A server that responds to the calls of an account by name; it records them.
struct FakeAccount {
    url: String,
    calls: Arc<Mutex<Vec<String>>>,
}

impl FakeAccount {
    /// The function receives the name of the call and the body, and returns the status and the body of the response.
    fn start(respond: FakeResponses) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let calls = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&calls);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (respond, seen) = (Arc::clone(&respond), Arc::clone(&seen));
                std::thread::spawn(move || serve(stream.unwrap(), &respond, &seen));
            }
        });
        Self { url, calls }
    }

    fn calls(&self) -> Vec<String> {
        let mut calls = self.calls.lock().unwrap().clone();
        calls.sort();
        calls
    }
}

/// Serves one request, and closes the connection.
fn serve(mut stream: TcpStream, respond: &FakeResponses, seen: &Mutex<Vec<String>>) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    let (head, length) = loop {
        let read = stream.read(&mut buffer).unwrap_or(0);
        if read == 0 {
            return;
        }
        bytes.extend_from_slice(&buffer[..read]);
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(bytes.drain(..end + 4).collect()).unwrap();
            let length = header(&head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            break (head, length);
        }
    };
    while bytes.len() < length {
        let read = stream.read(&mut buffer).unwrap();
        bytes.extend_from_slice(&buffer[..read]);
    }
    assert!(header(&head, "authorization").is_some_and(|value| value.starts_with("AWS4-HMAC-SHA256 ")), "{head}");
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let target = header(&head, "x-amz-target").map(|target| target.rsplit('.').next().unwrap().to_owned());
    let call = target.unwrap_or_else(|| {
        let calls =
            [("/functions/", "GetFunctionConfiguration"), ("/event-source-mappings", "ListEventSourceMappings")];
        let call = calls.into_iter().find(|(part, _)| path.contains(part));
        call.map_or("GetObject", |(_, call)| call).to_owned()
    });
    seen.lock().unwrap().push(call.clone());
    let body = if bytes.is_empty() { path } else { String::from_utf8(bytes).unwrap() };
    let (status, response) = respond(&call, &body);
    let kind = response["__type"].as_str().unwrap_or_default().to_owned();
    let response = response.to_string();
    let text = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nx-amzn-errortype: {kind}\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{response}",
        response.len()
    );
    stream.write_all(text.as_bytes()).unwrap();
}

fn header(head: &str, name: &str) -> Option<String> {
    let line = head.lines().find(|line| line.to_lowercase().starts_with(&format!("{name}:")))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn denied() -> (u16, Value) {
    (400, json!({"__type": "AccessDeniedException", "message": "not authorized"}))
}

fn table_document() -> Value {
    let mut document: Value = serde_json::from_str(&std::fs::read_to_string(from("orders.json")).unwrap()).unwrap();
    // The SDK reads a timestamp as a number.
    document["Table"]["CreationDateTime"] = json!(1_709_802_093.427);
    let of_billing = &mut document["Table"]["BillingModeSummary"];
    of_billing["LastUpdateToPayPerRequestDateTime"] = json!(1_709_802_093.427);
    document
}

fn mapping(function: &str, state: &str) -> Value {
    json!({
        "UUID": "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0",
        "FunctionArn": format!("arn:aws:lambda:eu-west-1:123456789012:function:{function}"),
        "State": state,
    })
}

/// The responses of an account to all calls about the table Orders.
fn full_account(call: &str, _: &str) -> (u16, Value) {
    let body = match call {
        "DescribeTable" => table_document(),
        "DescribeTimeToLive" => {
            json!({"TimeToLiveDescription": {"TimeToLiveStatus": "ENABLED", "AttributeName": "ttl"}})
        }
        "DescribeContinuousBackups" => json!({"ContinuousBackupsDescription": {
            "ContinuousBackupsStatus": "ENABLED",
            "PointInTimeRecoveryDescription": {"PointInTimeRecoveryStatus": "ENABLED"},
        }}),
        "ListEventSourceMappings" => json!({"EventSourceMappings": [mapping("indexer:live", "Enabled")]}),
        "DescribeKey" => json!({"KeyMetadata": {"KeyId": "1", "KeyManager": "CUSTOMER", "KeyState": "Enabled"}}),
        other => panic!("{other} is not a call of attach"),
    };
    (200, body)
}

#[test]
fn an_account_is_read_with_five_calls_and_written_with_none() {
    let account = FakeAccount::start(Arc::new(full_account));
    let (code, report) = AttachProgram::with_credentials().report(&["Orders", "--endpoint-url", &account.url]);
    assert_eq!(code, Some(0), "{report}");
    let expected =
        ["DescribeContinuousBackups", "DescribeKey", "DescribeTable", "DescribeTimeToLive", "ListEventSourceMappings"];
    assert_eq!(account.calls(), expected);
    let table = &report["table"];
    assert_eq!((&table["ttl_attribute"], &table["point_in_time_recovery"]), (&json!("ttl"), &json!(true)));
    assert_eq!(table["readers"], json!([{"function": "indexer:live", "state": "Enabled"}]));
    assert_eq!((&report["archive"], &report["not_checked"]), (&json!("in-replicator"), &json!([])));
    assert_eq!(report["parameters"]["Archive"], "in-replicator");
    assert!(report["parameters"]["SourceKeyArn"].as_str().unwrap().starts_with("arn:aws:kms:"));
}

#[test]
fn a_refused_call_is_reported_with_the_action_to_allow() {
    let account =
        FakeAccount::start(Arc::new(
            |call, body| {
                if call == "DescribeTable" { full_account(call, body) } else { denied() }
            },
        ));
    let arn = "arn:aws:dynamodb:eu-west-1:123456789012:table/Orders";
    let (code, report, stderr) = AttachProgram::with_credentials().run(&[arn, "--endpoint-url", &account.url]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{report}");
    for line in [
        "  readers       not checked",
        "  TTL           not checked",
        "  DescribeTimeToLive: allow dynamodb:DescribeTimeToLive",
        "  DescribeContinuousBackups: allow dynamodb:DescribeContinuousBackups",
        "  ListEventSourceMappings: allow lambda:ListEventSourceMappings",
        "  DescribeKey: allow kms:DescribeKey",
    ] {
        assert!(report.lines().any(|found| found == line), "{line:?}: {report}");
    }
    let refused = FakeAccount::start(Arc::new(|_, _| denied()));
    let (code, stdout, stderr) = AttachProgram::with_credentials().run(&[arn, "--endpoint-url", &refused.url]);
    assert_eq!((code, stdout.as_str(), stderr.lines().count()), (Some(2), "", 1), "{stderr}");
    assert!(stderr.contains("allow dynamodb:DescribeTable"), "{stderr}");
    assert!(
        stderr.contains("AccessDeniedException: not authorized: ") && !stderr.contains("service error"),
        "{stderr}"
    );
    let absent = FakeAccount::start(Arc::new(|_, _| {
        (400, json!({"__type": "ResourceNotFoundException", "message": "Table: Orders not found"}))
    }));
    let (code, _, stderr) = AttachProgram::with_credentials().run(&["Orders", "--endpoint-url", &absent.url]);
    assert_eq!((code, stderr.lines().count()), (Some(2), 1), "{stderr}");
    assert!(stderr.contains("Orders in eu-west-1") && stderr.contains("--region or --profile"), "{stderr}");
    let other = FakeAccount::start(Arc::new(|_, _| (404, json!("<html>"))));
    let (code, _, stderr) = AttachProgram::with_credentials().run(&["Orders", "--endpoint-url", &other.url]);
    assert_eq!((code, stderr.lines().count()), (Some(2), 1), "{stderr}");
    let expected =
        [&format!("HTTP 404 without an error code of AWS: {}", other.url), "set --endpoint-url to one, such as"];
    assert!(expected.iter().all(|part| stderr.contains(*part)), "{stderr}");
    let closed = ["Orders", "--endpoint-url", "http://127.0.0.1:1"];
    let (code, _, stderr) = AttachProgram::with_credentials().run(&closed);
    assert_eq!((code, stderr.lines().count()), (Some(2), 1), "{stderr}");
    assert!(stderr.contains("cannot connect (Connection refused") && stderr.contains("--endpoint-url"), "{stderr}");
}

/// The responses of an account in which a function with these variables reads the stream of the table Copy; S3 returns
/// the document, or denies the request.
fn account_with_reader(variables: Value, document: Option<Value>) -> FakeAccount {
    let respond = move |call: &str, body: &str| match call {
        "DescribeTable" if body.contains("table/Copy") => {
            let text = table_document().to_string().replace("table/Orders", "table/Copy");
            let mut document: Value = serde_json::from_str(&text).unwrap();
            document["Table"]["TableName"] = json!("Copy");
            (200, document)
        }
        "ListEventSourceMappings" if body.contains("Copy") => {
            (200, json!({"EventSourceMappings": [mapping("back-ReplicatorFunction-1", "Enabled")]}))
        }
        "GetFunctionConfiguration" => {
            assert!(body.contains("back-ReplicatorFunction-1"), "{body}");
            (200, json!({"FunctionName": "back", "Environment": {"Variables": variables}}))
        }
        "GetObject" => {
            assert!(body.starts_with("/config/back.json"), "{body}");
            document.clone().map_or_else(denied, |document| (200, document))
        }
        _ => full_account(call, body),
    };
    FakeAccount::start(Arc::new(respond))
}

const COPY: &str = "arn:aws:dynamodb:eu-west-1:123456789012:table/Copy";

#[test]
fn a_replica_that_feeds_the_table_is_refused() {
    let orders = "arn:aws:dynamodb:eu-west-1:123456789012:table/Orders";
    let document = |table: &str| json!({"version": 1, "replicas": [{"name": "a", "sink": "dynamodb", "table": table}]});
    let object = json!({"REPLICATION": "s3://config/back.json"});
    for (variables, stored) in [
        (json!({"REPLICA_TABLE": "Orders"}), None),
        (json!({"REPLICA_TABLE": orders}), None),
        (json!({"REPLICATION": document(orders).to_string()}), None),
        (object.clone(), Some(document("Orders"))),
        (object.clone(), Some(document(orders))),
    ] {
        let account = account_with_reader(variables.clone(), stored);
        let arguments = ["Orders", "--replica-table", COPY, "--endpoint-url", &account.url];
        let (code, report) = AttachProgram::with_credentials().report(&arguments);
        assert_eq!((code, &report["findings"][0]["subject"]), (Some(1), &json!("replica")), "{variables}: {report}");
        assert!(report["findings"][0]["text"].as_str().unwrap().contains("replicated in a loop"), "{report}");
        let delete =
            "aws lambda delete-event-source-mapping --region eu-west-1 --uuid 0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";
        assert_eq!(report["findings"][0]["commands"], json!([delete]), "{report}");
    }
    let account = account_with_reader(object, Some(document("Elsewhere")));
    let arguments = ["Orders", "--replica-table", COPY, "--endpoint-url", &account.url];
    let (code, report) = AttachProgram::with_credentials().report(&arguments);
    assert_eq!((code, &report["not_checked"]), (Some(0), &json!([])), "{report}");
}

#[test]
fn an_absent_replica_is_refused_and_one_that_may_not_be_described_is_not_checked() {
    let account = |code: &'static str| {
        FakeAccount::start(Arc::new(move |call, body| match call {
            "DescribeTable" if body.contains("table/Copy") => (400, json!({"__type": code, "message": "no"})),
            _ => full_account(call, body),
        }))
    };
    let report = |code| {
        let account = account(code);
        let arguments = ["Orders", "--replica-table", COPY, "--endpoint-url", &account.url];
        AttachProgram::with_credentials().report(&arguments)
    };
    let (code, absent) = report("ResourceNotFoundException");
    let finding = &absent["findings"][0];
    assert_eq!((code, &finding["severity"], &finding["subject"]), (Some(1), &json!("blocks"), &json!("replica")));
    assert_eq!(finding["text"], format!("--replica-table {COPY} does not exist"));
    assert!(finding["fix"].as_str().unwrap().contains("omit --replica-table"), "{finding}");
    let command = finding["commands"][0].as_str().unwrap();
    assert!(command.starts_with("aws dynamodb create-table --region eu-west-1 --table-name Copy"), "{command}");
    assert!(
        command.contains(r#"'[{"AttributeName":"pk","KeyType":"HASH"},{"AttributeName":"sk","KeyType":"RANGE"}]'"#)
    );
    let (code, denied) = report("AccessDeniedException");
    assert_eq!((code, &denied["not_checked"][0]["action"]), (Some(0), &json!("dynamodb:DescribeTable")), "{denied}");
}

#[test]
fn a_document_that_cannot_be_read_is_not_checked() {
    let object = json!({"REPLICATION": "s3://config/back.json"});
    let invalid = json!({"version": 1, "replicas": [{"name": "a", "sink": "kafka"}]});
    for (stored, part) in [(None, "allow s3:GetObject"), (Some(invalid), "kafka")] {
        let account = account_with_reader(object.clone(), stored);
        let arguments = ["Orders", "--replica-table", COPY, "--endpoint-url", &account.url];
        let (code, report) = AttachProgram::with_credentials().report(&arguments);
        assert_eq!(code, Some(0), "{report}");
        let call = &report["not_checked"][0];
        assert_eq!(call["action"], "s3:GetObject", "{report}");
        assert!(call["call"].as_str().unwrap().starts_with("GetObject of the replication document"), "{call}");
        assert!(call["reason"].as_str().unwrap().contains(part), "{call}");
    }
}

#[cfg(unix)]
#[test]
fn credentials_of_the_aws_cli_are_used_if_the_sdk_finds_none() {
    use std::os::unix::fs::PermissionsExt as _;
    let account = FakeAccount::start(Arc::new(full_account));
    let program = AttachProgram::new();
    let script = "#!/bin/sh\n[ \"$*\" = 'configure export-credentials --format process --profile dev' ] || exit 1\n\
                  echo '{\"Version\":1,\"AccessKeyId\":\"any\",\"SecretAccessKey\":\"any\",\"SessionToken\":\"t\"}'\n";
    let path = program.folder.path().join("aws");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let arguments = ["Orders", "--region", "eu-west-1", "--endpoint-url", &account.url];
    let (code, _, stderr) = program.run(&[&arguments[..], &["--profile", "dev"]].concat());
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    for (script, part) in [
        (script, "failed (exit status: 1); it printed no error: log in with aws sso login --profile prod"),
        (
            "#!/bin/sh\necho 'Error when retrieving token from sso: Token has expired' >&2; exit 255\n",
            "failed (exit status: 255); it printed: Error when retrieving token from sso: Token has expired: log in",
        ),
    ] {
        std::fs::write(&path, script).unwrap();
        let (code, _, stderr) = program.run(&[&arguments[..], &["--profile", "prod"]].concat());
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains("--profile prod: no AWS credentials"), "{stderr}");
        assert!(stderr.contains(&format!("; aws configure export-credentials {part}")), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

/// The table of the running stack has a key, a stream and TTL as on AWS, and its functions are those of the stack.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_stack_is_read_as_an_account() {
    let options = StackOptions { port: 0, dynamodb_port: 0, s3_port: 0, ..StackOptions::default() };
    let stack = LocalStack::start(options).await.unwrap();
    let url = stack.dynamodb_url().to_owned();
    let program = AttachProgram::with_credentials();
    let (code, report) =
        tokio::task::spawn_blocking(move || program.report(&["Users", "--endpoint-url", &url])).await.unwrap();
    assert_eq!(code, Some(0), "{report}");
    let table = &report["table"];
    assert_eq!((&table["partition_key"], &table["sort_key"]), (&json!("user_id:S"), &json!("timestamp:N")));
    assert_eq!(
        (&table["stream_view_type"], &table["ttl_attribute"]),
        (&json!("NEW_AND_OLD_IMAGES"), &json!("expires_at"))
    );
    let readers = json!([
        {"function": "replicator", "state": "Enabled"}, {"function": "archiver", "state": "Enabled"},
    ]);
    assert_eq!((&table["point_in_time_recovery"], &table["readers"]), (&json!(false), &readers));
    assert_eq!((&report["archive"], &report["not_checked"]), (&json!("separate"), &json!([])), "{report}");
    // The engine's Region is not one of AWS.
    assert_eq!(table["arn"], "arn:aws:dynamodb:eu-west-1:000000000000:table/Users");
    assert!(!report.to_string().contains("dynoxide"), "{report}");
    let finding = &report["findings"][0];
    assert_eq!((&finding["severity"], &finding["subject"]), (&json!("warns"), &json!("account")), "{report}");
    assert!(finding["fix"].as_str().unwrap().contains("without --endpoint-url"), "{finding}");
    stack.stop().await;
}

/// `millrace transform` reads the table of the running stack, and names a table that does not exist.
#[tokio::test(flavor = "multi_thread")]
async fn sample_of_a_table_is_transformed() {
    let options = StackOptions { port: 0, dynamodb_port: 0, s3_port: 0, ..StackOptions::default() };
    let stack = LocalStack::start(options).await.unwrap();
    for user_id in ["ada", "bob", "cleo"] {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let put = stack.dynamodb().put_item().table_name("Users").item("user_id", text(user_id));
        let put = put.item("timestamp", AttributeValue::N("1".to_owned())).item("email", text("ada@example.com"));
        put.send().await.unwrap();
    }
    let program = AttachProgram::with_credentials();
    let document = json!({
        "version": 1,
        "replicas": [
            {"name": "staging", "sink": "dynamodb", "table": "Staging", "attributes": {"exclude": ["email"]}}
        ],
    });
    std::fs::write(program.folder.path().join("replication.json"), document.to_string()).unwrap();
    let url = stack.dynamodb_url().to_owned();
    let of_table = move |table: &'static str, sample: &'static str| {
        let arguments =
            ["--document", "replication.json", "--table", table, "--sample", sample, "--endpoint-url", &url];
        program.run_command("transform", &arguments)
    };
    let runs = move || [of_table("Users", "100"), of_table("Users", "2"), of_table("Absent", "100")];
    let [all, two, absent] = tokio::task::spawn_blocking(runs).await.unwrap();
    assert_eq!((all.0, all.2.as_str()), (Some(0), ""));
    assert!(
        all.1.starts_with("staging: 3 of 3 items are replicated\n  stored attributes: timestamp, user_id\n"),
        "{all:?}"
    );
    assert!(all.1.contains("removed or renamed attributes: email") && !all.1.contains("ada@"), "{all:?}");
    assert!(two.1.starts_with("staging: 2 of 2 items are replicated\n"), "{two:?}");
    assert_eq!(absent.0, Some(2));
    assert!(absent.2.contains("DescribeTable of Absent in eu-west-1") && absent.2.contains("--region"), "{absent:?}");
    stack.stop().await;
}
