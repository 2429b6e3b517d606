//! The pages while stores cannot be read: expired credentials, tables that are gone, engines that are down, and days of
//! the archive with any number of objects.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::{Query, Request as AnyRequest};
use axum::response::{IntoResponse as _, Response};
use millrace_archive::store::ArchiveStore;
use millrace_archive::{ArchiveHour, ArchiveKey, ArchiveRow, Compression, EncodedObject, write};
use millrace_local::clients;
use millrace_maintenance::MaintenanceHandler;
use millrace_maintenance::failure_bucket::FailureBucket;
use millrace_shared::change::CanonicalKey;
use millrace_shared::revision::Revision;
use millrace_shared::table_reader::TableReader;
use serde::Deserialize;
use time::OffsetDateTime;

use super::*;
use crate::stack_stores::{LocalOrigin, StackOrigin};

const KEY: &str = r#"{"timestamp":{"N":"1"},"user_id":{"S":"ada"}}"#;

/// Starts a server with these routes, and returns its URL.
async fn serve(routes: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    url
}

/// Starts AWS as it responds to credentials that have expired.
async fn expired_account() -> String {
    let refuse = |request: AnyRequest| async move {
        if request.headers().contains_key("x-amz-target") {
            let text = "The security token included in the request is expired";
            let body = serde_json::json!({"__type": "com.amazon.coral.service#ExpiredTokenException", "message": text});
            return (StatusCode::BAD_REQUEST, body.to_string()).into_response();
        }
        let body = "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>";
        (StatusCode::BAD_REQUEST, body).into_response()
    };
    serve(Router::new().fallback(refuse)).await
}

/// Returns an address without a server.
async fn closed_port() -> String {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    format!("http://{free}")
}

impl ConsoleScene {
    /// Starts a console whose stores are changed.
    async fn start_stores(change: impl FnOnce(&mut MaintenanceHandler)) -> Self {
        Self::start_with(|context| {
            let StackOrigin::Local(LocalOrigin { stack, stores }) = context.origin.clone() else {
                panic!("the stack runs on this machine")
            };
            let (mut maintenance, mut stores) = (stack.maintenance().unwrap(), stores.unwrap());
            change(&mut maintenance);
            stores.maintenance = Arc::new(maintenance);
            ConsoleContext { origin: StackOrigin::Local(LocalOrigin { stack, stores: Some(stores) }), ..context }
        })
        .await
    }

    /// Fails unless the page has this status and announces a text; returns the page.
    async fn announces(&self, path: &str, status: StatusCode, text: &str) -> String {
        let (found, page) = self.get(path).await;
        assert_eq!(found, status, "{path}: {page}");
        assert_page(&page);
        assert!(page.contains("role=\"alert\"") && page.contains(text), "{path}: {text} is missing: {page}");
        page
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn first_page_waits_for_no_store_and_its_assets_are_stored_by_the_browser() {
    use futures::FutureExt as _;
    use tower::ServiceExt as _;
    let scene = ConsoleScene::start().await;
    let get = |path: &str| Request::get(path).header(header::HOST, ADDRESS).body(Body::empty()).unwrap();
    // A page that calls a store, a file or a task is not complete when it is first polled.
    let response = scene.router.clone().oneshot(get("/")).now_or_never().expect("the page Live waits").unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    let waits = scene.router.clone().oneshot(get("/tables")).now_or_never().is_none();
    assert!(waits, "a page that reads a table is recognized");
    let (_, page) = scene.get("/").await;
    let addresses: Vec<&str> = page.split('"').filter(|text| text.starts_with("/assets/")).collect();
    assert_eq!(addresses.len(), assets::ASSETS.len(), "{page}");
    let before_it_is_shown = page.matches("rel=\"stylesheet\"").count() + page.matches("<script ").count();
    assert_eq!(before_it_is_shown, 2, "one stylesheet and one script: {page}");
    for address in addresses {
        let (_, headers, _) = scene.send(get(address)).await;
        let stored = headers[header::CACHE_CONTROL].to_str().unwrap();
        assert!(address.contains('?') && stored.contains("immutable"), "{address}: {stored}");
    }
    let (_, page) = scene.get("/key").await;
    assert!(!page.contains("uplot.js"), "only the page with plots loads them: {page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_credential_is_named_next_to_the_stores_that_can_be_read() {
    let account = expired_account().await;
    let scene = ConsoleScene::start_stores(|maintenance| {
        let s3 = clients::s3(&account);
        maintenance.archive = Some(ArchiveStore::new(s3.clone(), "users-archive".to_owned()));
        maintenance.failures = FailureBucket::new(s3, "users-failures".to_owned());
    })
    .await;
    scene.write("ada", &[("name", "Ada")]).await;
    let page = scene.announces(&key::href(KEY), StatusCode::OK, "ExpiredToken").await;
    assert!(page.contains("Every replica is equal to the source.") && page.contains("&quot;Ada&quot;"), "{page}");
    assert_eq!(page.matches("Log in again, and reload the page").count(), 2, "the archive and the bucket: {page}");
    for path in ["/archive", "/archive/day?day=2026-11-22", "/quarantine"] {
        let page = scene.announces(path, StatusCode::BAD_GATEWAY, "ExpiredToken").await;
        assert!(page.contains("Log in again, and reload the page"), "{path}: {page}");
    }
    let scene = ConsoleScene::start_stores(|maintenance| {
        maintenance.source = TableReader::new(clients::dynamodb(&account), "Users");
    })
    .await;
    for path in [key::href(KEY), "/key".to_owned(), "/archive".to_owned()] {
        let page = scene.announces(&path, StatusCode::BAD_GATEWAY, "table Users").await;
        assert!(page.contains("ExpiredToken") && page.contains("Log in again, and reload the page"), "{page}");
    }
    let (_, page) = scene.get("/break").await;
    assert!(page.contains("Verify: unknown.") && page.contains("ExpiredToken"), "{page}");
    assert_eq!(scene.get("/").await.0, StatusCode::OK, "what needs no credential is shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn engine_that_is_down_is_named_on_every_page_that_reads_it() {
    let closed = closed_port().await;
    let scene = ConsoleScene::start_stores(|maintenance| {
        maintenance.source = TableReader::new(clients::dynamodb(&closed), "Users");
    })
    .await;
    for path in [key::href(KEY), "/archive".to_owned()] {
        scene.announces(&path, StatusCode::BAD_GATEWAY, "table Users").await;
    }
    let (_, page) = scene.get("/break").await;
    assert!(page.contains("Verify: unknown. table Users"), "{page}");
    for path in ["/", "/quarantine", "/tasks", "/doctor"] {
        assert_eq!(scene.get(path).await.0, StatusCode::OK, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn table_that_is_gone_is_named_with_the_fix_and_the_other_stores_are_shown() {
    let scene = ConsoleScene::start().await;
    scene.write("ada", &[("name", "Ada")]).await;
    scene.stack.dynamodb().delete_table().table_name("UsersReplica").send().await.unwrap();
    let page = scene.announces(&key::href(KEY), StatusCode::OK, "UsersReplica cannot be read").await;
    for text in ["Not every store could be read.", ">not read</span>", "Create the table again", "&quot;Ada&quot;"] {
        assert!(page.contains(text), "{text} is missing: {page}");
    }
    let (_, page) = scene.get("/break").await;
    assert!(page.contains("Verify: unknown.") && page.contains("UsersReplica"), "{page}");
    scene.stack.dynamodb().delete_table().table_name("Users").send().await.unwrap();
    for path in [key::href(KEY), "/archive".to_owned(), "/tables?table=Users".to_owned()] {
        let (status, page) = scene.get(&path).await;
        assert!(status.is_server_error() || status == StatusCode::NOT_FOUND, "{path}: {status}");
        assert!(page.contains("Users") && page.contains("Create the table again"), "{path}: {page}");
        assert_page(&page);
    }
    for path in ["/", "/tables", "/quarantine", "/tasks", "/doctor", "/api"] {
        assert_eq!(scene.get(path).await.0, StatusCode::OK, "{path}");
    }
}

/// The parameters of a listing.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Listing {
    prefix: Option<String>,
    start_after: Option<String>,
    max_keys: Option<usize>,
}

/// The names of the first objects of every hour, sorted, each with the user of its row. A name is the digest of the row's
/// key and revision.
type ObjectNames = Vec<(String, String)>;

/// Returns the object of an hour with one row.
fn object(user: &str, removed_at: OffsetDateTime) -> EncodedObject {
    let key = serde_json::json!({"timestamp": {"N": "1"}, "user_id": {"S": user}});
    let key = CanonicalKey::parse(&key.to_string()).unwrap();
    let row = ArchiveRow {
        key: &key,
        revision: Revision::parse("2026-02-27T00:48:05.899#100000000000000000001").unwrap(),
        removed_at,
        event_id: None,
        item: key.as_str(),
    };
    write("Users", ArchiveHour::from_datetime(removed_at), vec![row], Compression::Zstd).unwrap()
}

fn object_names() -> ObjectNames {
    let names = (0..120).map(|number| {
        let user = format!("eve{number}");
        let key = object(&user, OffsetDateTime::UNIX_EPOCH).key.to_string();
        (key.rsplit('/').next().unwrap().to_owned(), user)
    });
    let mut names: ObjectNames = names.collect();
    names.sort();
    names
}

/// Returns the response to the GET of the object at this path.
fn object_at(names: &[(String, String)], path: &str) -> Response {
    let path = percent_encoding::percent_decode_str(path).decode_utf8().unwrap();
    let (_, key) = path.split_once("/archive/").unwrap();
    let day = ArchiveKey::parse(&format!("archive/{key}")).unwrap().day();
    let (_, hour) = key.split_once("/hr=").unwrap();
    let removed_at = day.start() + time::Duration::hours(hour[..2].parse().unwrap());
    let (_, user) = names.iter().find(|(name, _)| key.ends_with(name.as_str())).unwrap();
    let object = object(user, removed_at);
    let mut response = object.bytes.into_response();
    for (name, value) in object.description.encode().unwrap() {
        let name = http::HeaderName::try_from(format!("x-amz-meta-{name}")).unwrap();
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

/// Starts a bucket in which every hour has so many objects that no listing ends, and returns its URL and the number of
/// its requests.
async fn endless_bucket(names: ObjectNames) -> (String, Arc<AtomicUsize>) {
    let (requests, names) = (Arc::new(AtomicUsize::new(0)), Arc::new(names));
    let made = Arc::clone(&requests);
    let bucket = move |address: http::Uri, Query(listing): Query<Listing>| {
        made.fetch_add(1, Ordering::Relaxed);
        let names = Arc::clone(&names);
        async move {
            let Some(prefix) = listing.prefix else { return object_at(&names, address.path()) };
            let folder = if prefix.contains("/hr=") { prefix } else { format!("{prefix}hr=00/") };
            let more = (0..).map(|number| format!("ffffffff{number:024}.ndjson.zst"));
            let keys = names.iter().map(|(name, _)| name.clone()).chain(more).map(|name| format!("{folder}{name}"));
            let after = listing.start_after.unwrap_or_default();
            let most = listing.max_keys.unwrap_or(1_000);
            let objects = keys.skip_while(|key| *key <= after).take(most).map(|key| {
                format!(
                    "<Contents><Key>{key}</Key><Size>100</Size><LastModified>2026-11-22T10:00:00.000Z</LastModified></Contents>"
                )
            });
            let body = format!(
                "<ListBucketResult><IsTruncated>true</IsTruncated><KeyCount>{most}</KeyCount>\
                 <NextContinuationToken>next</NextContinuationToken>{}</ListBucketResult>",
                objects.collect::<String>()
            );
            ([(header::CONTENT_TYPE, "application/xml")], body).into_response()
        }
    };
    (serve(Router::new().fallback(bucket)).await, requests)
}

#[tokio::test(flavor = "multi_thread")]
async fn day_of_the_archive_with_any_number_of_objects_is_shown_in_a_bounded_number_of_calls() {
    let names = object_names();
    let (bucket, requests) = endless_bucket(names.clone()).await;
    let scene = ConsoleScene::start_stores(|maintenance| {
        maintenance.archive = Some(ArchiveStore::new(clients::s3(&bucket), "users-archive".to_owned()));
    })
    .await;
    scene.write("ada", &[("name", "Ada")]).await;
    let (status, page) = scene.get("/archive/day?day=2026-11-22").await;
    assert_eq!(status, StatusCode::OK, "{page}");
    assert_page(&page);
    assert!(page.contains("50 objects; there are more. 50 are shown at a time."), "{page}");
    assert!(page.len() < 60_000, "{} bytes", page.len());
    let of_day = requests.swap(0, Ordering::Relaxed);
    assert!(of_day <= 52, "a listing, and the metadata of each object that is shown: {of_day} requests");
    let (status, next) = scene.get(&super::tables::link(&page, "Next page")).await;
    assert_eq!(status, StatusCode::OK, "{next}");
    assert!(next.contains(&names[50].0), "{next}");
    requests.store(0, Ordering::Relaxed);
    let (status, page) = scene.get(&key::href(KEY)).await;
    assert_eq!(status, StatusCode::OK, "{page}");
    assert_page(&page);
    assert!(page.contains("Only 50 objects of the latest hours were searched"), "{page}");
    let of_key = requests.load(Ordering::Relaxed);
    assert!(of_key <= 60, "two listings for each day, and the objects that are searched: {of_key} requests");
}

#[tokio::test(flavor = "multi_thread")]
async fn huge_item_is_shown_in_every_store_in_boxes_of_limited_height() {
    let scene = ConsoleScene::start().await;
    scene.write("ada", &[("name", &"x".repeat(390_000))]).await;
    let (status, page) = scene.get(&key::href(KEY)).await;
    assert_eq!(status, StatusCode::OK);
    assert_page(&page);
    assert!(page.contains("Every replica is equal to the source.") && page.len() < 100_000, "{} bytes", page.len());
    for store in ["source", "dynamodb"] {
        let region = format!("class=\"long\" tabindex=\"0\" role=\"region\" aria-label=\"{store}: name\"");
        assert!(page.contains(&region), "{store} is missing");
    }
    assert_eq!(page.matches("… (32768 of 390").count(), 2, "the cut is named");
}
