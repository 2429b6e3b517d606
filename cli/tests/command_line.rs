//! The program as a process: its exit codes, and which of its outputs goes where.

use std::process::{Command, Output};

/// Runs `millrace` to completion.
fn millrace(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_millrace")).args(arguments).output().expect("the program starts")
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("the program prints UTF-8")
}

#[test]
fn help_lists_commands_on_standard_output() {
    for argument in ["--help", "-h"] {
        let Output { status, stdout, stderr } = millrace(&[argument]);
        assert_eq!((status.code(), text(stderr)), (Some(0), String::new()));
        let help = text(stdout);
        assert!(["demo", "task", "--postgres"].iter().all(|word| help.contains(word)), "{help}");
    }
}

#[test]
fn rejected_arguments_exit_with_2_and_one_line_on_standard_error() {
    for (arguments, name) in [
        (&["--prot", "1"][..], "--prot"),
        (&["tour"], "tour"),
        (&["demo", "--duckdbs", "off"], "--duckdbs"),
        (&["console"], "--stack"),
        (&["--auth", "jwt", "--lambda-endpoint", "http://127.0.0.1:9000"], "--lambda-endpoint"),
        // Port 1 is privileged and unassigned: no server listens on it.
        (&["task", "verify", "--port", "1"], "nothing listens on port 1"),
        (&["task", "--request", r#"{"task":"verify"}"#, "--port", "1"], "nothing listens on port 1"),
        (&["task", r#"{"task":"verify"}"#], "--request"),
        (&["task", "verify", "--request", "{}"], "--request and the task verify cannot be used together"),
        (&["task", "verif"], "did you mean \"verify\"?"),
        (&["task", "--request", r#"{"task":"verify","segmnts":2}"#], "did you mean \"segments\"?"),
        (
            &["task", "restore", "--user-id", "ada"],
            "--expires-in-seconds, after which the items expire again, or --never-expires",
        ),
    ] {
        let Output { status, stdout, stderr } = millrace(arguments);
        assert_eq!((status.code(), text(stdout)), (Some(2), String::new()), "{arguments:?}");
        let error = text(stderr);
        assert!(error.starts_with("error: ") && error.contains(name) && error.lines().count() == 1, "{error}");
    }
}

#[test]
fn description_and_items_that_cannot_be_used_are_named_before_anything_starts() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("a file");
        path.display().to_string()
    };
    let orders = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/orders-table.json");
    let users = concat!(env!("CARGO_MANIFEST_DIR"), "/../template.yaml");
    let no_table = file("no-table.json", "{}");
    let no_stream = file("no-name.json", r#"{"Table": {"TableName": "a"}}"#);
    let copy = r#"{"name": "copy", "sink": "dynamodb", "table": "Copy"}"#;
    let next = file("next.json", &format!("{{\n  \"version\": 2,\r\n  \"replicas\": [{copy}]\n}}\n"));
    let open = file("open.json", "{\n  \"version\": 1,\n");
    let plain = file("plain.ndjson", r#"{"pk":"a","sk":1}"#);
    let other = file("other.ndjson", r#"{"Item":{"pk":{"S":"a"},"sk":{"S":"1"}}}"#);
    for (arguments, parts) in [
        (
            &["up", "--table", "/nowhere.json"][..],
            ["--table: cannot read /nowhere.json", "aws dynamodb describe-table"],
        ),
        (&["up", "--table", &no_table], ["--table: ", "aws dynamodb describe-table"]),
        (&["--table", &no_stream], ["no-name.json: /Table", "TableArn"]),
        (
            &["--table", orders, "--parameter", "PartitionKey=a:S"],
            ["Parameters.PartitionKey", "omit --parameter PartitionKey"],
        ),
        (&["--table", orders, "--template", users], ["--table: ", "choose infra/replication.yaml with --template"]),
        (&["--template", users, "--ttl-attribute", "ttl"], ["--ttl-attribute: ", "with --template"]),
        (&["--table", orders, "--import", "/nowhere.ndjson"], ["--import: cannot read /nowhere.ndjson", "pass a file"]),
        (
            &["--table", orders, "--import", &plain],
            ["plain.ndjson:1: attribute \"pk\" is plain JSON", "no item was written"],
        ),
        (
            &["--table", orders, "--import", &other],
            ["other.ndjson:1: attribute \"sk\" has the type S", "no item was written"],
        ),
        (
            &["--table", orders, "--document", "/nowhere.json"],
            ["--document: /nowhere.json cannot be read: ", "pass a file with a replication document"],
        ),
        (
            &["--table", orders, "--document", &no_table, "--parameter", "Replication={}"],
            ["--document and --parameter Replication", "omit one of them"],
        ),
        (&["--table", orders, "--document", &next], ["REPLICATION /version is 2", "set it to 1"]),
        (&["--table", orders, "--document", &open], ["open.json is not JSON (EOF", "at line 3 column 0"]),
        (
            &["--table", orders, "--postgres", "postgres://a@127.0.0.1:1/b"],
            ["--postgres: a replication document declares the tables", "--document FILE, such as {\"replicas\":[{"],
        ),
        (&["task", "verify", "--template", users], ["--template is for --data", "omit --template"]),
        (&["--table", orders, "--auth", "jwt"], ["--auth jwt: ", "has no API to authenticate callers of: omit --auth"]),
        (
            &["--table", orders, "--cache", "redis://127.0.0.1:1"],
            ["--cache: the template has no CacheStack", "omit --cache"],
        ),
        (
            &["--table", orders, "--ttl-attribute", "_tombstone_expires_at"],
            ["TTL attribute \"_tombstone_expires_at\" of table Orders", "--parameter ReservedPrefix=mr_"],
        ),
        (
            &["--table", orders, "--parameter", "ReplicaTableArn=arn:aws:dynamodb:eu-west-1:123456789012:table/Copy"],
            [
                "ReplicaTableArn is arn:aws:dynamodb:eu-west-1:123456789012:table/Copy",
                "omit --parameter ReplicaTableArn",
            ],
        ),
        (&["--lambda-endpoint", "foo"], ["'foo' for '--lambda-endpoint <URL>'", "such as http://127.0.0.1:8000"]),
    ] {
        let free = ["--port", "0", "--dynamodb-port", "0", "--s3-port", "0", "--console-port", "0"];
        let ports = if arguments[0] == "task" { &[][..] } else { &free };
        let Output { status, stdout, stderr } = millrace(&[arguments, ports].concat());
        assert_eq!((status.code(), text(stdout)), (Some(2), String::new()), "{arguments:?}");
        let error = text(stderr);
        assert!(error.starts_with("error: ") && parts.iter().all(|part| error.contains(part)), "{error}");
        // A problem of the environment has a line of its own.
        let lines = 1 + usize::from(error.contains("the environment has 1 problem:"));
        assert_eq!(error.lines().count(), lines, "{error}");
    }
}

#[test]
fn each_of_several_problems_of_a_document_has_a_line_of_its_own() {
    let orders = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/orders-table.json");
    let start = |document: &str| {
        let document = format!("Replication={document}");
        let ports = ["--port", "0", "--dynamodb-port", "0", "--s3-port", "0", "--console-port", "0"];
        let role = "ReplicaRoleArns=arn:aws:iam::123456789012:role/replica";
        let arguments = ["--table", orders, "--parameter", role, "--parameter", &document];
        let Output { status, stdout, stderr } = millrace(&[&arguments[..], &ports].concat());
        assert_eq!((status.code(), text(stdout)), (Some(2), String::new()));
        text(stderr)
    };
    let error = start(r#"{"version":1,"replicas":[{"name":"A","sink":"dynamo","table":"x"}]}"#);
    let lines: Vec<&str> = error.lines().collect();
    let [first, sink, name, table] = lines[..] else { panic!("{error}") };
    assert_eq!(first, "error: function replicator: the environment has 3 problems:");
    for (line, part) in [(sink, "/sink is \"dynamo\""), (name, "/name is \"A\""), (table, "/table is \"x\"")] {
        assert!(line.starts_with("  REPLICATION /replicas/0") && line.contains(part), "{line}");
    }
    let error = start(r#"{"version":2,"replicas":[{"name":"a","sink":"dynamodb","table":"Copy"}]}"#);
    assert_eq!((error.lines().count(), error.contains("has 1 problem:\n  REPLICATION /version")), (2, true), "{error}");
}

#[test]
fn data_folder_with_another_ttl_attribute_names_the_option_to_repeat() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().display().to_string();
    let orders = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/orders-table.json");
    let ports = ["--port", "0", "--dynamodb-port", "0", "--s3-port", "0", "--console-port", "0"];
    let start = |ttl: &str, more: &[&str]| {
        let arguments = ["--table", orders, "--ttl-attribute", ttl, "--data", &data];
        let output = millrace(&[&arguments[..], &ports, more].concat());
        (output.status.code(), text(output.stderr))
    };
    // The first start creates the tables, and ends at an import that cannot be read.
    let items = folder.path().join("items.ndjson");
    std::fs::write(&items, "{\"pk\":\"plain\"}").expect("a file");
    let (code, error) = start("ttl", &["--import", &items.display().to_string()]);
    assert!(code == Some(2) && error.contains("items.ndjson:1"), "{error}");
    let (code, error) = start("other", &[]);
    let expected =
        "table Orders in the data folder has ttl attribute ttl, this start has other: repeat --ttl-attribute 'ttl'";
    assert!(code == Some(2) && error.contains(expected) && error.contains("--data"), "{error}");
}

#[test]
fn plan_names_the_option_of_a_value_that_it_rejects() {
    let valid = ["plan", "--items", "1e6", "--item-bytes", "500", "--writes-per-second", "10"];
    for (option, value, part) in [
        ("--items", "many", "expected a number from 0 to 1e12, such as 2000000 or 2e6"),
        ("--items", "2e12", "expected a number from 0 to 1e12"),
        ("--items", "1.5", "expected a whole number"),
        ("--items", "NaN", "expected a number"),
        ("--item-bytes", "0", "1..=409600"),
        ("--item-bytes", "409601", "1..=409600"),
        ("--writes-per-second", "1e7", "expected a number from 0 to 1e6, such as 0.5, 1000 or 1e3"),
        ("--writes-per-second", "-1", "expected a number from 0 to 1e6, such as 0.5, 1000 or 1e3"),
        ("--expired-per-day", "-1", "expected"),
        ("--replicas", "21", "1..=20"),
        ("--output", "xml", "text, json"),
    ] {
        let mut arguments = valid.to_vec();
        match arguments.iter().position(|argument| *argument == option) {
            Some(index) => arguments[index + 1] = value,
            None => arguments.extend([option, value]),
        }
        let Output { status, stdout, stderr } = millrace(&arguments);
        let error = text(stderr);
        assert_eq!((status.code(), text(stdout)), (Some(2), String::new()), "{arguments:?}");
        assert!(error.contains(option) || value.starts_with('-'), "{error}");
        assert!(error.contains(part) && error.lines().count() == 1, "{error}");
    }
    let Output { status, stderr, .. } = millrace(&[&valid[..], &["--expired-per-day", "1e9"]].concat());
    let error = text(stderr);
    assert_eq!(status.code(), Some(2));
    assert!(error.contains("--expired-per-day 1000000000 is more than") && error.contains("raise --items"), "{error}");
}

#[test]
fn plan_exits_with_1_if_a_limit_is_exceeded() {
    let plan = |writes: &str| {
        millrace(&["plan", "--items", "1e6", "--item-bytes", "500", "--writes-per-second", writes, "--output", "json"])
    };
    for (writes, code) in [("10", 0), ("1e6", 1)] {
        let Output { status, stdout, stderr } = plan(writes);
        assert_eq!((status.code(), text(stderr)), (Some(code), String::new()));
        let document: serde_json::Value = serde_json::from_str(&text(stdout)).expect("one JSON document");
        assert_eq!(document["is_within_limits"], code == 0, "{document}");
        assert!(document["plan"]["dollars_per_month"].as_f64().is_some_and(|dollars| dollars > 0.0), "{document}");
    }
}

#[test]
fn completion_script_is_all_of_the_output() {
    for shell in ["bash", "zsh", "fish"] {
        let Output { status, stdout, stderr } = millrace(&["completions", shell]);
        assert_eq!((status.code(), text(stderr)), (Some(0), String::new()));
        let script = text(stdout);
        assert!(["export-import-table", "recheck-after-seconds"].iter().all(|word| script.contains(word)), "{shell}");
    }
}

#[test]
fn reader_that_ends_early_is_no_error() {
    let plan = ["plan", "--items", "1000", "--item-bytes", "100", "--writes-per-second", "1"];
    for arguments in [&["completions", "bash"][..], &["--help"], &["doctor", "--list-rules"], &plan] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        // Without a reader, every write fails.
        drop(reader);
        let output = Command::new(env!("CARGO_BIN_EXE_millrace")).args(arguments).stdout(writer).output();
        let Output { status, stderr, .. } = output.expect("the program starts");
        assert_eq!((status.code(), text(stderr)), (Some(0), String::new()), "{arguments:?}");
    }
}

/// Runs `millrace doctor` with credentials that nothing accepts.
fn doctor(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_millrace"))
        .arg("doctor")
        .args(arguments)
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env_remove("AWS_REGION")
        .env_remove("AWS_DEFAULT_REGION")
        .env("AWS_CONFIG_FILE", "/nowhere")
        .output()
        .expect("the program starts")
}

#[test]
fn doctor_exits_with_2_and_one_line_if_the_target_cannot_be_read() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let refusing = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut reader = std::io::BufReader::new(&mut stream);
            let mut head = String::new();
            while std::io::BufRead::read_line(&mut reader, &mut head).expect("a line") > 2 {}
            // A connection that is closed before the body is read would be reset.
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or("0", str::trim);
            let mut rest = vec![0; length.parse().expect("a length")];
            std::io::Read::read_exact(&mut reader, &mut rest).expect("a body");
            let body = r#"{"__type":"AccessDeniedException","message":"no"}"#;
            let head = format!("HTTP/1.1 403 x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
            let _ = std::io::Write::write_all(&mut stream, head.as_bytes());
        }
    });
    let folder = tempfile::tempdir().expect("a folder");
    let binary = folder.path().join("binary.yaml");
    std::fs::write(&binary, [0xff, 0xfe, 0x00]).expect("a file");
    let here = ["--region", "eu-west-1", "--endpoint-url"];
    let closed = "http://127.0.0.1:1";
    for (arguments, name) in [
        (
            [&["--table", "Users"][..], &here, &[&refusing]].concat(),
            "table/Users: DescribeTable was denied: allow dynamodb:",
        ),
        (
            [&["--function", "f"][..], &here, &[&refusing]].concat(),
            "GetFunctionConfiguration was denied: allow lambda:",
        ),
        ([&["--stack", "s"][..], &here, &[&refusing]].concat(), "ListStackResources was denied: allow cloudformation:"),
        ([&["--stack", "s"][..], &here, &[closed]].concat(), "127.0.0.1:1 is not reached"),
        (
            vec!["--table", "Users", "--region", "Europe (Ireland)"],
            "\"Europe (Ireland)\" is not a Region: set --region",
        ),
        (vec!["--table", "Users"], "no Region is configured: set --region"),
        (vec![binary.to_str().expect("a path")], "binary.yaml: cannot read the file"),
        (vec![folder.path().to_str().expect("a path")], "cannot read the file"),
        (vec!["/nowhere.yaml"], "/nowhere.yaml: cannot read the file"),
    ] {
        let Output { status, stdout, stderr } = doctor(&arguments);
        let error = text(stderr);
        assert_eq!((status.code(), text(stdout)), (Some(2), String::new()), "{arguments:?}: {error}");
        assert!(error.starts_with("error: ") && error.contains(name) && error.lines().count() == 1, "{error}");
    }
}
