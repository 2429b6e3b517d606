//! The pages of a deployed stack: its calls are recorded in `stack.json`, and its stores are those of a stack of this
//! machine.

use std::sync::Mutex;

use millrace_doctor::account_call::{AccountCall, CallRefusal, CallResponse};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use super::tables::link;
use super::*;
use crate::deployed_stack::{AccountOpener, StackAccount};
use crate::frame;

const KEY: &str = r#"{"timestamp":{"N":"1"},"user_id":{"S":"ada"}}"#;

/// A console of a deployed stack.
struct DeployedScene {
    scene: ConsoleScene,
    calls: Arc<Mutex<Vec<AccountCall>>>,
}

/// The failures of the account of a scene.
#[derive(Clone, Default)]
struct Refusals {
    /// The name of an operation, and the refusal of its calls.
    call: Option<(&'static str, CallRefusal)>,
    /// Why there are no credentials.
    credentials: Option<&'static str>,
    /// Why there are no stores.
    stores: Option<&'static str>,
}

/// Returns the refusal of a caller without the permission.
fn denied() -> CallRefusal {
    CallRefusal { code: Some("AccessDenied".to_owned()), description: "AccessDenied: no".to_owned() }
}

/// Returns a lag of 1.5 s in the first period, and a sum of 3 of each counter.
fn metric_data(call: &AccountCall) -> Value {
    let queries: Value = serde_json::from_str(call.parameter("MetricDataQueries")).unwrap();
    let start = call.parameter("StartTime");
    time::OffsetDateTime::parse(start, &Rfc3339).unwrap();
    let result = |query: &Value| {
        let is_lag = query["MetricStat"]["Metric"]["MetricName"] == "ReplicationLag";
        let is_cache = query.to_string().contains(r#""Value":"cache""#);
        let values = if is_cache { json!("") } else { json!([if is_lag { "1500.0" } else { "3.0" }]) };
        json!({"Id": query["Id"], "Timestamps": [start], "Values": values})
    };
    json!({"MetricDataResults": queries.as_array().unwrap().iter().map(result).collect::<Vec<_>>()})
}

fn response(call: &AccountCall, refusals: &Refusals) -> CallResponse {
    let recorded: Value = serde_json::from_str(include_str!("stack.json")).unwrap();
    let refused = refusals.call.as_ref().filter(|(name, _)| *name == call.operation.name);
    if let Some((_, refusal)) = refused {
        return CallResponse::Refused(refusal.clone());
    }
    if call.operation.name == "GetMetricData" {
        return CallResponse::Response(metric_data(call));
    }
    let known = [call.to_string(), call.operation.name.to_owned()].into_iter().find_map(|name| recorded.get(name));
    let refused = || match call.operation.name {
        "DescribeExecution" => CallRefusal { code: Some("ExecutionDoesNotExist".to_owned()), ..CallRefusal::default() },
        "ListStackResources" => CallRefusal {
            code: Some("ValidationError".to_owned()),
            description: "ValidationError: Stack with id gone does not exist".to_owned(),
        },
        _ => denied(),
    };
    known.cloned().map_or_else(|| CallResponse::Refused(refused()), CallResponse::Response)
}

impl DeployedScene {
    async fn start(allow_tasks: bool) -> Self {
        Self::start_refusing("users", allow_tasks, Refusals::default()).await
    }

    async fn start_refusing(name: &str, allow_tasks: bool, refusals: Refusals) -> Self {
        let options = StackOptions { observe: true, ..StackOptions::default() };
        let stack = Arc::new(Box::pin(LocalStack::start(options)).await.unwrap());
        let calls = Arc::new(Mutex::new(Vec::new()));
        let (own, made) = (Arc::clone(&stack), Arc::clone(&calls));
        let open: AccountOpener = Box::new(move || {
            let (own, made, refusals) = (Arc::clone(&own), Arc::clone(&made), refusals.clone());
            Box::pin(async move {
                if let Some(reason) = refusals.credentials {
                    return Err(reason.to_owned());
                }
                let stores = refusals.stores;
                Ok(StackAccount {
                    region: "eu-west-1".to_owned(),
                    caller: Box::new(move |call| {
                        made.lock().unwrap().push(call.clone());
                        let response = response(&call, &refusals);
                        Box::pin(async move { response })
                    }),
                    connector: Box::new(move |environment| {
                        assert_eq!(environment.get("SOURCE_TABLE"), Some("Users"));
                        let connected = match stores {
                            Some(reason) => Err(reason.to_owned()),
                            None => Ok(own.maintenance().unwrap()),
                        };
                        Box::pin(async move { connected })
                    }),
                })
            })
        });
        let (stop, stopped) = watch::channel(false);
        let deployed = Arc::new(DeployedStack::new(name.to_owned(), allow_tasks, open));
        let context = ConsoleContext::deployed(deployed, ADDRESS, stopped, Clock::system());
        let token = context.token().to_owned();
        Self { scene: ConsoleScene { stack, token, router: router(context), _stop: stop }, calls }
    }

    /// Returns a page that is shown without an error.
    async fn page(&self, path: &str) -> String {
        let (status, page) = self.scene.get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {page}");
        assert_page(&page);
        page
    }

    /// Returns the inputs of the executions that were started.
    fn started(&self) -> Vec<Value> {
        let calls = self.calls.lock().unwrap();
        let started = calls.iter().filter(|call| call.operation.name == "StartExecution");
        started.map(|call| serde_json::from_str(call.parameter("input")).unwrap()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deployed_stack_has_its_pages_and_names_the_reason_for_the_others() {
    let deployed = DeployedScene::start(false).await;
    for path in ["/", "/key", "/archive", "/quarantine", "/tasks", "/doctor"] {
        let page = deployed.page(path).await;
        let (_, navigation) = page.split_once("<nav aria-label=\"Pages\">").unwrap();
        let (navigation, _) = navigation.split_once("</nav>").unwrap();
        let names: Vec<_> = navigation.split("</a>").filter_map(|link| link.rsplit('>').next()).collect();
        assert_eq!(names[..6], ["Metrics", "Key", "Archive", "Quarantine", "Tasks", "Doctor"], "{navigation}");
        assert!(navigation.contains("aria-current=\"page\""), "{navigation}");
        assert!(!page.contains("href=\"/break\"") && !page.contains(">Live<"), "{page}");
    }
    for (path, reason) in [
        ("/break", "nothing of a deployed stack is broken on purpose"),
        ("/light", "nothing of a deployed stack is broken on purpose"),
        ("/tables", "the console only reads a deployed stack"),
        ("/tables/item", "the console only reads a deployed stack"),
        ("/events", "The timeline needs a local stack"),
        ("/lag.json", "The timeline needs a local stack"),
        ("/api", "The page API needs a local stack"),
        ("/no-such-page", "There is no page at this address."),
    ] {
        let (status, page) = deployed.scene.get(path).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert!(page.contains(reason), "{path}: {page}");
        assert_page(&page);
    }
    for path in ["/tables/item", "/tables/item/delete", "/tables/import", "/break"] {
        assert_eq!(deployed.scene.post(path, "table=Users").await.0, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_shown_for_each_replica_and_function() {
    let deployed = DeployedScene::start(false).await;
    let page = deployed.page("/").await;
    for text in [
        "of the stack <code>users</code> in eu-west-1",
        "<th scope=\"row\">dynamodb</th><td class=\"number\">1500 ms</td>",
        "Lag of dynamodb in the last 3 hours: at most 1500 ms",
        "<th scope=\"row\">replicator</th><td class=\"number\">3</td>",
        "<th scope=\"row\">api</th>",
        "3 rows archived",
        "3 differences found: see the reports",
    ] {
        assert!(page.contains(text), "{text} is missing: {page}");
    }
    assert!(!page.contains("<th scope=\"row\">search</th>"), "the stack has no such function");
    assert!(!page.contains("<th scope=\"row\">cache</th>"), "nothing was recorded of it");
    let dimensions = json!([{"Name": "function", "Value": "replicator"}, {"Name": "stack", "Value": "users"},
        {"Name": "sink", "Value": "dynamodb"}]);
    let call = deployed.calls.lock().unwrap().iter().find(|call| call.operation.name == "GetMetricData").cloned();
    let queries: Value = serde_json::from_str(call.unwrap().parameter("MetricDataQueries")).unwrap();
    assert_eq!(queries[0]["MetricStat"]["Metric"]["Dimensions"], dimensions);
    assert!(deployed.page("/?hours=24").await.contains("in steps of 30 min"));
    let (status, page) = deployed.scene.get("/?hours=%3Cscript%3E").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(page.contains("expected 1, 3 or 24"), "{page}");
    assert_page(&page);
}

#[tokio::test(flavor = "multi_thread")]
async fn key_quarantine_and_archive_are_read_from_the_stores() {
    let deployed = DeployedScene::start(false).await;
    let scene = &deployed.scene;
    assert!(deployed.page("/quarantine").await.contains("The failure bucket is empty."));
    scene.write("ada", &[("name", SCRIPT)]).await;
    scene.write(SCRIPT, &[("_tombstone_expires_at", "x")]).await;
    let page = deployed.page(&key::href(KEY)).await;
    for text in ["Every replica is equal to the source.", "source: Users", "can be reached only from its network"] {
        assert!(page.contains(text), "{text} is missing: {page}");
    }
    assert!(!page.contains("History"), "changes are not observed: {page}");
    let page = deployed.page("/quarantine").await;
    assert!(page.contains("Reason: <strong>") && page.contains("The source stores an item now"), "{page}");
    assert!(!page.contains("<form"), "{page}");
    assert!(page.contains("aws stepfunctions start-execution --state-machine-arn arn:aws:states:"), "{page}");
    let page = deployed.page("/archive").await;
    for text in ["The archive is empty.", "credential_chain", "&quot;task&quot;:&quot;restore&quot;"] {
        assert!(page.contains(text), "{text} is missing: {page}");
    }
    assert!(!page.contains("action=\"/tasks/restore\""), "{page}");
    for text in [" --region ", "&quot;never_expires&quot;:true", "&quot;from&quot;:&quot;2026-11-22T00:00:00Z&quot;"] {
        assert!(page.contains(text), "{text} is missing: {page}");
    }
    let chosen = [("key", KEY), ("since", "2026-11-20T00:00:00Z")];
    let page = deployed.page(&frame::href("/archive", &chosen)).await;
    assert!(page.contains("&quot;from&quot;:&quot;2026-11-20T00:00:00Z&quot;"), "{page}");
    assert!(page.contains("&quot;key&quot;:{&quot;") && !page.contains("2026-11-22T00:00:00Z"), "{page}");
    let failures = scene.stack.maintenance().unwrap().failures;
    failures.put("quarantine/unreadable.json", "application/json", b"{".to_vec()).await.unwrap();
    let page = deployed.page(&key::href(KEY)).await;
    assert!(page.contains("not every object could be read: "), "{page}");
    for (path, fields) in [("/quarantine", "prefix=&apply=true"), ("/tasks/verify", ""), ("/tasks/runs/dry/apply", "")]
    {
        let (status, page) = scene.post(path, fields).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}");
        assert!(page.contains("start it again with --allow-tasks"), "{page}");
    }
    assert_eq!(deployed.started(), Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn past_runs_are_shown_with_their_reports() {
    let deployed = DeployedScene::start(false).await;
    let page = deployed.page("/tasks").await;
    for text in [">running</span>", ">failed</span>", ">2 problems</span>", "equal 7, would_repair 2", "2026-11-22 "] {
        assert!(page.contains(text), "{text} is missing: {page}");
    }
    assert!(!page.contains("<form"), "{page}");
    let failures = deployed.scene.stack.maintenance().unwrap().failures;
    let entry = format!("{{\"key\":\"{SCRIPT}\"}}\n").into_bytes();
    failures.put("reports/dry/repair-0-of-1-00000.jsonl", "application/jsonl", entry).await.unwrap();
    let page = deployed.page("/tasks/runs/dry").await;
    assert!(page.contains("# reports/dry/repair-0-of-1-00000.jsonl") && page.contains("&lt;script&gt;"), "{page}");
    assert!(page.contains("<li>would_repair 2</li>") && !page.contains("for real"), "{page}");
    let page = deployed.page("/tasks/runs/differs").await;
    assert!(page.contains("DifferencesFound: &lt;script&gt;"), "{page}");
    assert!(page.contains("known after it has succeeded") && !page.contains("0 differences"), "{page}");
    let page = deployed.page("/tasks/runs/running").await;
    assert!(page.contains("stop the execution <code>running</code>") && !page.contains("Cancel"), "{page}");
    assert!(page.contains("known after it has succeeded") && !page.contains("0 differences"), "{page}");
    for path in ["/tasks/runs/none", "/tasks/runs/%3Cscript%3E", "/tasks/runs/a:b"] {
        let (status, page) = deployed.scene.get(path).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert!(page.contains("no execution of this name"), "{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn task_is_started_in_the_state_machine_if_it_is_allowed() {
    let deployed = DeployedScene::start(true).await;
    let page = deployed.page("/tasks").await;
    assert!(page.contains("action=\"/tasks/verify\"") && page.contains("id=\"verify-segments\""), "{page}");
    let scene = &deployed.scene;
    assert_eq!(scene.post("/tasks/verify", "segments=4&recheck-after-seconds=0").await.0, StatusCode::SEE_OTHER);
    assert_eq!(scene.post("/quarantine", "prefix=quarantine%2F&apply=false").await.0, StatusCode::SEE_OTHER);
    assert!(deployed.page("/tasks/runs/dry").await.contains("Run repair for real"));
    assert_eq!(scene.post("/tasks/runs/dry/apply", "").await.0, StatusCode::SEE_OTHER);
    let expected = [
        json!({"task": "verify", "segments": 4, "recheck_after_seconds": 0}),
        json!({"task": "redrive", "dry_run": true, "prefix": "quarantine/"}),
        json!({"task": "repair", "dry_run": false, "recheck_after_seconds": 0}),
    ];
    assert_eq!(deployed.started(), expected);
    for (path, fields, reason) in [
        ("/tasks/verify", "segments=0", "is not a number from 1 to 1000"),
        ("/tasks/verify", "speed=1", "unknown field"),
        ("/tasks/runs/running/apply", "", "is not a dry run"),
        ("/tasks/runs/running/cancel", "", "does not stop executions"),
    ] {
        let (status, page) = scene.post(path, fields).await;
        assert!(status.is_client_error() && page.contains(reason), "{path}: {page}");
    }
    assert_eq!(deployed.started().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn findings_of_the_account_are_read_in_the_background() {
    let deployed = DeployedScene::start(false).await;
    let page = wait_for(&deployed.scene, "/doctor", "data-running=\"false\"").await;
    assert_page(&page);
    assert!(page.contains("millrace doctor --stack users") && page.contains("Not possible: "), "{page}");
    assert!(page.contains("ListEventSourceMappings was denied: allow lambda:ListEventSourceMappings"), "{page}");
    assert!(page.contains("but not everything could be checked.") && !page.contains("box good"), "{page}");
    let count = || {
        deployed.calls.lock().unwrap().iter().filter(|call| call.operation.name == "ListEventSourceMappings").count()
    };
    assert_eq!(count(), 1);
    deployed.page("/doctor").await;
    assert_eq!(count(), 1, "the account is not read by each page");
    assert_eq!(deployed.scene.post("/doctor", "").await.0, StatusCode::SEE_OTHER);
    wait_for(&deployed.scene, "/doctor", "data-running=\"false\"").await;
    assert_eq!(count(), 2);
    let rule = link(&page, "StartingPosition is LATEST: records around the creation are missed");
    assert!(deployed.page(&rule).await.contains("Replayed in the simulator"));
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_call_is_shown_with_its_fix() {
    let call = |name, refusal| Refusals { call: Some((name, refusal)), ..Refusals::default() };
    let expired = CallRefusal {
        code: Some("ExpiredTokenException".to_owned()),
        description: "ExpiredTokenException: expired: log in again, or set --profile".to_owned(),
    };
    for (name, refusals, path, reason) in [
        ("gone", Refusals::default(), "/key", "does not exist in eu-west-1: set --stack, --profile or --region"),
        ("other", Refusals::default(), "/key", "has no resource MaintenanceFunction"),
        (
            "users",
            Refusals { credentials: Some("no AWS credentials: log in"), ..Refusals::default() },
            "/",
            "no AWS credentials: log in",
        ),
        ("users", call("ListStackResources", expired.clone()), "/quarantine", "log in again, or set --profile"),
        ("users", call("GetFunctionConfiguration", expired.clone()), "/key", "log in again, or set --profile"),
        ("users", call("GetMetricData", expired.clone()), "/", "log in again, or set --profile"),
        ("users", call("ListExecutions", expired), "/tasks", "log in again, or set --profile"),
        ("users", call("GetMetricData", denied()), "/", "GetMetricData was denied: allow cloudwatch:GetMetricData"),
        ("users", call("ListExecutions", denied()), "/tasks", "ListExecutions was denied: allow states:ListExecutions"),
        ("users", call("DescribeExecution", denied()), "/tasks/runs/dry", "allow states:DescribeExecution"),
        (
            "users",
            call("GetFunctionConfiguration", denied()),
            "/archive",
            "GetFunctionConfiguration was denied: allow lambda:GetFunctionConfiguration",
        ),
        (
            "users",
            Refusals { stores: Some("REPLICATION cannot be read <script>"), ..Refusals::default() },
            "/key",
            "REPLICATION cannot be read &lt;script&gt;",
        ),
    ] {
        let deployed = DeployedScene::start_refusing(name, false, refusals).await;
        let (status, page) = deployed.scene.get(path).await;
        assert_eq!(status, StatusCode::BAD_GATEWAY, "{path}: {page}");
        assert!(page.contains(reason), "{reason} is missing: {page}");
        assert!(page.contains("aria-current=\"page\""), "the page is named as the current one: {page}");
        assert_page(&page);
    }
    let stores = Refusals { stores: Some("the document is gone"), ..Refusals::default() };
    let deployed = DeployedScene::start_refusing("users", false, stores).await;
    assert!(deployed.page("/").await.contains("the document is gone"), "the metrics are shown nevertheless");
    let doctor = DeployedScene::start_refusing("gone", false, Refusals::default()).await;
    let page = wait_for(&doctor.scene, "/doctor", "data-running=\"false\"").await;
    assert!(page.contains("stack/gone: ListStackResources failed"), "{page}");
}
