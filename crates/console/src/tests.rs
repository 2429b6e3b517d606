//! The pages of a running stack, asserted by role and text.

use aws_sdk_dynamodb::types::AttributeValue;
use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use millrace_local::stack::StackOptions;
use millrace_shared::cache::{Cache, CacheSettings};
use tower::ServiceExt as _;

use super::*;

mod archive;
mod deployed;
mod doctor;
mod tables;
mod unreadable;

const ADDRESS: &str = "127.0.0.1:8090";
/// A text that a page must never contain as it is.
pub(crate) const SCRIPT: &str = "<script>alert('x')</script>\"'&";

/// A console on a stack of its own.
pub(crate) struct ConsoleScene {
    pub(crate) stack: Arc<LocalStack>,
    pub(crate) token: String,
    router: Router,
    _stop: watch::Sender<bool>,
}

impl ConsoleScene {
    pub(crate) async fn start() -> Self {
        Self::start_with(|context| context).await
    }

    /// Starts a console whose context is changed.
    pub(crate) async fn start_with(change: impl FnOnce(ConsoleContext) -> ConsoleContext) -> Self {
        Self::start_stack(StackOptions { observe: true, ..StackOptions::default() }, change).await
    }

    /// Starts a console on a stack with these options.
    pub(crate) async fn start_stack(
        options: StackOptions,
        change: impl FnOnce(ConsoleContext) -> ConsoleContext,
    ) -> Self {
        let stack = Arc::new(Box::pin(LocalStack::start(options)).await.unwrap());
        let (stop, stopped) = watch::channel(false);
        let context = change(ConsoleContext::new(Arc::clone(&stack), ADDRESS, stopped, Clock::system()));
        let token = context.token().to_owned();
        Self { stack, token, router: router(context), _stop: stop }
    }

    /// Writes a user to the source table, and waits until the change is replicated.
    pub(crate) async fn write(&self, user_id: &str, more: &[(&str, &str)]) {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let mut put = self.stack.dynamodb().put_item().table_name("Users").item("user_id", text(user_id));
        put = put.item("timestamp", AttributeValue::N("1".to_owned()));
        for (name, value) in more {
            put = put.item(*name, text(value));
        }
        put.send().await.unwrap();
        self.stack.wait_until_drained().await;
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> (StatusCode, http::HeaderMap, String) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).header(header::HOST, ADDRESS).body(Body::empty()).unwrap();
        let (status, _, body) = self.send(request).await;
        (status, body)
    }

    /// Sends a form as a page of the console does, with these fields in addition to the token.
    pub(crate) async fn post(&self, path: &str, fields: &str) -> (StatusCode, String) {
        let body = format!("token={}&{fields}", self.token);
        let request = Request::post(path)
            .header(header::HOST, ADDRESS)
            .header("sec-fetch-site", "same-origin")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(body))
            .unwrap();
        let (status, _, body) = self.send(request).await;
        (status, body)
    }
}

/// Fails unless every field of a page has a label, and no text of the data became markup.
pub(crate) fn assert_page(page: &str) {
    assert!(!page.contains("<script>") && !page.contains("alert('x')</script>"), "{page}");
    assert_eq!(page.matches("<h1>").count(), 1, "{page}");
    assert!(page.contains("<html lang=\"en\">") && page.contains("<main id=\"main\">"), "{page}");
    assert!(!page.contains("style=\"") && !page.contains(" onclick="), "the policy forbids it: {page}");
    assert!(!page.contains("http://") || page.contains("127.0.0.1"), "nothing of another host: {page}");
    for field in page.split('<').filter(|tag| ["input ", "select ", "textarea "].iter().any(|own| tag.starts_with(own)))
    {
        let attribute = |name: &str| field.split_once(&format!("{name}=\"")).and_then(|(_, rest)| rest.split_once('"'));
        if attribute("type").is_some_and(|(kind, _)| kind == "hidden") {
            continue;
        }
        let (id, _) = attribute("id").unwrap_or_else(|| panic!("a field without an id: <{field}"));
        assert!(page.contains(&format!("<label for=\"{id}\">")), "no label: <{field}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_response_has_the_policy_and_foreign_requests_are_rejected() {
    let scene = ConsoleScene::start().await;
    let get = |host: &str, path: &str| Request::get(path).header(header::HOST, host).body(Body::empty()).unwrap();
    for path in ["/", "/assets/console.js", "/no-such-page", "/lag.json?window=minute"] {
        let (_, headers, _) = scene.send(get(ADDRESS, path)).await;
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'self';") && !policy.contains("unsafe"), "{policy}");
    }
    let (status, headers, body) = scene.send(get("evil.example", "/")).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(body.contains("\"evil.example\"") && body.contains("http://127.0.0.1:8090"), "{body}");
    assert!(headers.contains_key(header::CONTENT_SECURITY_POLICY));
    let (status, page) = scene.get("/no-such-page").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(page.contains("There is no page at this address."));
    assert_page(&page);
}

#[tokio::test(flavor = "multi_thread")]
async fn first_page_is_smaller_than_100_kb_and_says_what_to_do() {
    let scene = ConsoleScene::start().await;
    let (status, page) = scene.get("/").await;
    assert_eq!(status, StatusCode::OK);
    assert_page(&page);
    assert!(page.contains("No change has arrived yet. Write an item to <code>Users</code>"), "{page}");
    let assets: usize = assets::ASSETS.iter().map(|(.., content)| content.len()).sum();
    assert!(page.len() + assets < 100_000, "{} bytes", page.len() + assets);
    for (name, kind, content) in assets::ASSETS {
        assert!(page.contains(&format!("/assets/{name}")), "{name} is not used");
        let request = Request::get(format!("/assets/{name}")).header(header::HOST, ADDRESS).body(Body::empty());
        let (status, headers, body) = scene.send(request.unwrap()).await;
        assert_eq!(
            (status, headers[header::CONTENT_TYPE].to_str().unwrap(), body.as_str()),
            (StatusCode::OK, kind, content)
        );
    }
    assert_eq!(scene.get("/assets/console.rs").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn live_shows_each_change_with_the_verdict_of_each_replica() {
    let scene = ConsoleScene::start().await;
    scene.write("ada", &[("name", "Ada")]).await;
    scene.write("ada", &[("name", "Eve")]).await;
    scene.write("eve", &[("_tombstone_expires_at", "reserved")]).await;
    let (status, page) = scene.get("/").await;
    assert_eq!(status, StatusCode::OK);
    assert_page(&page);
    for text in ["INSERT", "MODIFY", "<td>name</td>", "dynamodb: ", ">applied</span>", ">quarantined</span>"] {
        assert!(page.contains(text), "{text} is missing: {page}");
    }
    let (_, picture) = page.split_once("aria-label=\"The system\"").unwrap();
    let (picture, _) = picture.split_once("<h2>").unwrap();
    for text in
        ["<strong>Users</strong>", "<strong>replicator</strong>", "<strong>dynamodb</strong>", "2 written, lag "]
    {
        assert!(picture.contains(text) && !picture.contains("node bad"), "{text} is missing: {picture}");
    }
    let counters = "id=\"totals\" tabindex=\"0\" role=\"region\" aria-label=\"Counters of the replicas\"><table>";
    assert!(page.contains(counters), "an update of the counters takes no focus: {page}");
    let (_, page) = scene.get("/?verdict=quarantined").await;
    assert!(page.contains("eve") && !page.contains("&quot;ada&quot;"), "{page}");
    let (_, page) = scene.get("/?key=absent").await;
    assert!(page.contains("No retained change matches the filter."), "{page}");
    let (status, page) = scene.get("/?verdict=lost").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(page.contains("unknown verdict &quot;lost&quot;"), "{page}");
    let (_, lag) = scene.get("/lag.json?window=minute").await;
    let lag: serde_json::Value = serde_json::from_str(&lag).unwrap();
    assert_eq!(lag["sinks"][0], "dynamodb");
    assert!(lag["lag_ms"][0][0].is_number(), "{lag}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_comes_from_data_is_escaped() {
    let scene = ConsoleScene::start().await;
    scene.write(SCRIPT, &[("name", SCRIPT), (SCRIPT, "value")]).await;
    for path in ["/".to_owned(), format!("/?key={}", "%3Cscript%3Ealert('x')%3C%2Fscript%3E")] {
        let (status, page) = scene.get(&path).await;
        assert_eq!(status, StatusCode::OK);
        assert_page(&page);
        assert!(page.contains("&lt;script&gt;"), "the key is shown: {page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn key_is_shown_in_every_store_with_the_differences_marked() {
    let scene = ConsoleScene::start().await;
    scene.write("ada", &[("name", SCRIPT), (SCRIPT, "value")]).await;
    let key = r#"{"timestamp":{"N":"1"},"user_id":{"S":"ada"}}"#;
    let (status, page) = scene.get(&key::href(key)).await;
    assert_eq!(status, StatusCode::OK, "{page}");
    assert_page(&page);
    for text in ["Every replica is equal to the source.", "source: Users", "replica: dynamodb", "No row.", "INSERT"] {
        assert!(page.contains(text), "{text} is missing: {page}");
    }
    let attribute = |text: &str| AttributeValue::S(text.to_owned());
    let put = scene.stack.dynamodb().put_item().table_name("UsersReplica").item("user_id", attribute("ada"));
    let put = put.item("timestamp", AttributeValue::N("1".to_owned())).item("name", attribute("Eve"));
    put.send().await.unwrap();
    let (_, page) = scene.get(&key::href(key)).await;
    assert!(page.contains("A replica differs from the source.") && page.contains("<mark>name</mark>"), "{page}");
    for (key, reason) in [
        ("ada", "is not valid"),
        (r#"{"user_id":{"S":"ada"}}"#, "has no attribute &quot;timestamp&quot;"),
        (r#"{"timestamp":{"S":"1"},"user_id":{"S":"ada"}}"#, "another type of &quot;timestamp&quot; than N"),
        (r#"{"<script>":{"N":"1"},"user_id":{"S":"ada"}}"#, "has no attribute"),
    ] {
        let (status, page) = scene.get(&key::href(key)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{key}");
        assert!(page.contains(reason) && page.contains("expected DynamoDB JSON such as"), "{page}");
        assert_page(&page);
    }
    let (_, page) = scene.get("/key").await;
    assert!(page.contains("Enter a key to see it in every store"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cached_record_is_shown_next_to_the_source() {
    let scene = ConsoleScene::start().await;
    scene.write("ada", &[("name", "Ada")]).await;
    let (_, page) = scene.get(&key::href(r#"{"timestamp":{"N":"1"},"user_id":{"S":"ada"}}"#)).await;
    assert!(page.contains("The cache tier is off."), "{page}");
    let server = millrace_local::cache::CacheServer::start().await.unwrap();
    let options = StackOptions {
        observe: true,
        cache: millrace_local::tier::TierServer::At(server.url()),
        ..StackOptions::default()
    };
    let scene = ConsoleScene::start_stack(options, |context| context).await;
    let user = millrace_shared::cache::CacheEntry {
        version: 7,
        expires_at: Some(4_000_000_000),
        json: format!("{{\"name\":\"{SCRIPT}\"}}").into_bytes(),
    };
    let settings = CacheSettings::parse(|name| (name == "CACHE_URL").then(|| scene.stack.cache_url()).flatten());
    let cache = Cache::new(settings.unwrap().unwrap(), None);
    let id = millrace_shared::item::image_key(
        &millrace_shared::change::CanonicalKey::parse(r#"{"timestamp":{"N":"1"},"user_id":{"S":"eve"}}"#).unwrap(),
    );
    let name = millrace_shared::cache::key("Users", &id.unwrap());
    let connection = cache.connection().await.unwrap();
    let address = key::href(r#"{"timestamp":{"N":"1"},"user_id":{"S":"eve"}}"#);
    let (_, page) = scene.get(&address).await;
    assert!(page.contains("No entry: the next read of the API writes one."), "{page}");
    connection.put_negative(&name).await.unwrap();
    let (_, page) = scene.get(&address).await;
    assert!(page.contains("A negative entry"), "{page}");
    assert!(connection.put(&name, &user, Clock::system().now()).await.unwrap());
    let (_, page) = scene.get(&address).await;
    assert_page(&page);
    assert!(page.contains("Version 7, expires at") && page.contains(">other version</span>"), "{page}");
    assert!(page.contains("&lt;script&gt;"), "{page}");
    let put =
        scene.stack.dynamodb().put_item().table_name("Users").item("user_id", AttributeValue::S("eve".to_owned()));
    let put =
        put.item("timestamp", AttributeValue::N("1".to_owned())).item("version", AttributeValue::N("7".to_owned()));
    put.send().await.unwrap();
    scene.stack.wait_until_drained().await;
    let (_, page) = scene.get(&address).await;
    assert!(page.contains(">current</span>") || page.contains("An invalidation marker"), "{page}");
    drop(server);
    let (status, page) = scene.get(&address).await;
    assert_eq!(status, StatusCode::OK, "the other stores are shown: {page}");
    assert!(page.contains("the cache at ") && page.contains("role=\"alert\""), "{page}");
}

/// Waits until the page at `path` contains a text.
async fn wait_for(scene: &ConsoleScene, path: &str, text: &str) -> String {
    for _ in 0..200 {
        let (_, page) = scene.get(path).await;
        if page.contains(text) {
            return page;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{path} never contained {text}: {}", scene.get(path).await.1)
}

#[tokio::test(flavor = "multi_thread")]
async fn old_delivery_changes_nothing_and_the_light_is_green() {
    let scene = ConsoleScene::start().await;
    let (status, page) = scene.get("/break").await;
    assert_eq!(status, StatusCode::OK);
    assert_page(&page);
    for text in
        ["Without JavaScript the light does not update itself", "<option value=\"refuse\">refuses every write</option>"]
    {
        assert!(page.contains(text), "{text} is missing: {page}");
    }
    let (status, page) = scene.post("/break", "action=deliver-again").await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(page.contains("no change has been delivered yet: write an item first"), "{page}");
    assert_eq!(scene.post("/break", "action=write").await.0, StatusCode::SEE_OTHER);
    scene.stack.wait_until_drained().await;
    for action in ["deliver-again", "out-of-order"] {
        let before = scene.stack.observer().unwrap().last_number();
        assert_eq!(scene.post("/break", &format!("action={action}")).await.0, StatusCode::SEE_OTHER, "{action}");
        let (_, page) = scene.get(&format!("/break?done={action}&since={before}")).await;
        assert_page(&page);
        let (_, counters) = page.split_once("Verdicts since your last action.").unwrap();
        assert!(counters.contains("<th scope=\"row\">dynamodb</th><td class=\"number\">0</td>"), "applied: {page}");
        assert!(!counters.contains(">tombstone</th>"), "{page}");
    }
    let (_, live) = scene.get("/").await;
    assert!(live.contains(">duplicate</span>") && live.contains(">stale</span>"), "{live}");
    let (_, page) = scene.get("/break?done=deliver-again").await;
    assert!(page.contains("The last records were delivered again."), "{page}");
    let rows = page.split("aria-label=\"Deliveries\"").nth(1).unwrap().split("</div>").next().unwrap();
    assert!(rows.contains("Verdicts since the start.") && rows.contains(">duplicate</th>"), "{page}");
    assert!(page.contains("Guarantee 2: a stale delivery changes nothing."), "{page}");
    assert!(page.contains("Verify: green. Every replica is equal to the source (10 items)."), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_replica_is_repaired_and_killed_batch_is_delivered_again() {
    let scene = ConsoleScene::start().await;
    assert_eq!(scene.post("/break", "action=sink&sink=dynamodb&fault=refuse").await.0, StatusCode::SEE_OTHER);
    assert_eq!(scene.post("/break", "action=write").await.0, StatusCode::SEE_OTHER);
    let live = wait_for(&scene, "/", ">failed</span>").await;
    assert!(live.contains("<div class=\"node bad\"><strong>dynamodb</strong>"), "the picture shows the fault: {live}");
    assert!(live.contains("<div>refuses every write</div>"), "{live}");
    wait_for(&scene, "/break", "Verify: yellow.").await;
    assert_eq!(scene.post("/break", "action=reset").await.0, StatusCode::SEE_OTHER);
    wait_for(&scene, "/break", "Verify: green.").await;
    scene.stack.wait_until_drained().await;
    assert_eq!(scene.post("/break", "action=kill").await.0, StatusCode::SEE_OTHER);
    wait_for(&scene, "/", "the process was killed in the middle of the batch").await;
    scene.stack.wait_until_drained().await;
    wait_for(&scene, "/break", "Verify: green.").await;
    for (form, reason) in [
        ("action=sink&sink=other&fault=refuse", "unknown replica &quot;other&quot;"),
        ("action=sink&sink=dynamodb&fault=burn", "unknown fault &quot;burn&quot;: expected one of off, refuse"),
        ("action=%3Cscript%3E", "unknown action &quot;&lt;script&gt;&quot;"),
    ] {
        let (status, page) = scene.post("/break", form).await;
        assert_eq!(status, StatusCode::CONFLICT);
        assert!(page.contains(reason), "{page}");
        assert_page(&page);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_replica_is_filled_again_by_a_task() {
    let scene = ConsoleScene::start().await;
    assert_eq!(scene.post("/break", "action=write").await.0, StatusCode::SEE_OTHER);
    scene.stack.wait_until_drained().await;
    assert_eq!(scene.post("/break", "action=drop-replica").await.0, StatusCode::SEE_OTHER);
    let (_, page) = scene.get("/break").await;
    assert!(page.contains("10 differences, which may be changes on their way"), "{page}");
    // The run is in progress for as long as it waits before it reads the differences again.
    assert_eq!(scene.post("/tasks/verify", "recheck-after-seconds=3").await.0, StatusCode::SEE_OTHER);
    let (_, page) = scene.get("/tasks").await;
    let (_, id) = page.split_once("href=\"/tasks/runs/").unwrap();
    let (_, page) = scene.get(&format!("/tasks/runs/{}", id.split('"').next().unwrap())).await;
    assert_page(&page);
    let (_, run) = page.split_once("<div id=\"run\"").unwrap();
    let (updated, rest) = run.split_once("</div>").unwrap();
    assert!(updated.contains(">running</span>"), "{page}");
    assert!(!updated.contains("<button") && rest.contains("Cancel</button>"), "an update takes no focus: {page}");
    let (status, _) = scene.post("/tasks/repair", "recheck-after-seconds=0&apply=true").await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    wait_for(&scene, "/break", "Verify: green.").await;
    let page = wait_for(&scene, "/tasks", ">done</span>").await;
    assert_page(&page);
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_item_is_in_the_archive() {
    let scene = ConsoleScene::start().await;
    assert_eq!(scene.post("/break", "action=expire").await.0, StatusCode::SEE_OTHER);
    scene.stack.wait_until_drained().await;
    let key = key::href(r#"{"timestamp":{"N":"0"},"user_id":{"S":"console-expired"}}"#);
    let page = wait_for(&scene, &key, "Removed at ").await;
    assert!(page.contains("a tombstone of an item that TTL removed"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_record_is_shown_and_redriven_after_a_dry_run() {
    let scene = ConsoleScene::start().await;
    let (_, page) = scene.get("/quarantine").await;
    assert!(page.contains("The failure bucket is empty."), "{page}");
    scene.write(SCRIPT, &[("_tombstone_expires_at", "x")]).await;
    let (status, page) = scene.get("/quarantine").await;
    assert_eq!(status, StatusCode::OK);
    assert_page(&page);
    assert!(page.contains("Reason: <strong>") && page.contains("The source stores an item now"), "{page}");
    let delete = scene.stack.dynamodb().delete_item().table_name("Users");
    let delete = delete.key("user_id", AttributeValue::S(SCRIPT.to_owned()));
    delete.key("timestamp", AttributeValue::N("1".to_owned())).send().await.unwrap();
    scene.stack.wait_until_drained().await;
    for (apply, empty) in [("false", false), ("true", true)] {
        assert_eq!(scene.post("/quarantine", &format!("prefix=&apply={apply}")).await.0, StatusCode::SEE_OTHER);

        for _ in 0..200 {
            if !scene.get("/tasks").await.1.contains(">running</span>") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let (_, page) = scene.get("/quarantine").await;
        assert_eq!(page.contains("The failure bucket is empty."), empty, "{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_that_is_down_is_named_on_the_page() {
    let scene = ConsoleScene::start().await;
    assert_eq!(scene.post("/break", "action=s3-down").await.0, StatusCode::SEE_OTHER);
    let (status, page) = scene.get("/quarantine").await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert!(page.contains("FAILURE_BUCKET"), "{page}");
    assert_page(&page);
    assert_eq!(scene.post("/break", "action=s3-up").await.0, StatusCode::SEE_OTHER);
    assert_eq!(scene.get("/quarantine").await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_have_a_form_each_and_invalid_fields_are_named() {
    let scene = ConsoleScene::start().await;
    let (status, page) = scene.get("/tasks").await;
    assert_eq!(status, StatusCode::OK);
    assert_page(&page);
    for task in millrace_maintenance::task::registry::TASKS.iter().filter(|task| task.has_segments) {
        assert!(page.contains(&format!("action=\"/tasks/{}\"", task.name)), "{}", task.name);
    }
    assert!(page.contains("No task has been started here yet."));
    for (path, fields, reason) in [
        ("/tasks/verify", "recheck-after-seconds=soon", "soon"),
        ("/tasks/verify", "speed=1", "unknown field &quot;speed&quot;"),
        ("/tasks/summary", "", "unknown task &quot;summary&quot;"),
    ] {
        let (status, page) = scene.post(path, fields).await;
        assert!(status.is_client_error() && page.contains(reason), "{page}");
    }
    let (status, page) = scene.get("/tasks/runs/none").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(page.contains("There is no run of this ID"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn change_without_the_token_or_from_another_site_is_rejected() {
    let scene = ConsoleScene::start().await;
    let post = |path: &str, site: &str, body: &'static str| {
        Request::post(path)
            .header(header::HOST, ADDRESS)
            .header("sec-fetch-site", site)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(body))
            .unwrap()
    };
    for path in [
        "/break",
        "/quarantine",
        "/tasks/verify",
        "/tasks/runs/x/cancel",
        "/tasks/runs/x/apply",
        "/archive/query",
        "/tables/item",
        "/tables/item/delete",
        "/tables/import",
    ] {
        let (status, _, body) = scene.send(post(path, "same-origin", "action=s3-down&token=guess")).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}");
        assert!(body.contains("token"), "{body}");
        let (status, _, body) = scene.send(post(path, "cross-site", "action=s3-down")).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}");
        assert!(body.contains("cross-site"), "{body}");
    }
    assert!(!scene.stack.observer().unwrap().switches().is_s3_down());
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_of_events_samples_a_burst_and_says_so() {
    let scene = ConsoleScene::start().await;
    for number in 0..60 {
        scene
            .stack
            .dynamodb()
            .put_item()
            .table_name("Users")
            .item("user_id", AttributeValue::S(format!("u{number}")))
            .item("timestamp", AttributeValue::N("1".to_owned()))
            .send()
            .await
            .unwrap();
    }
    scene.stack.wait_until_drained().await;
    let request = Request::get("/events?since=0").header(header::HOST, ADDRESS).body(Body::empty()).unwrap();
    let response = scene.router.clone().oneshot(request).await.unwrap();
    let mut body = response.into_body();
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    let text = String::from_utf8(frame.to_vec()).unwrap();
    assert!(text.starts_with("event: changes\ndata: {"), "{text}");
    assert!(text.contains("Sampled: 20 of 60 changes in the last 500 ms are shown."), "{text}");
    assert_eq!(text.matches(r#"<tr><td class=\"fixed\">"#).count(), 20, "{text}");
}
