//! The pages of the archive.

use millrace_archive::{ArchiveHour, ArchiveRow, Compression, write};
use millrace_shared::change::CanonicalKey;
use millrace_shared::revision::Revision;
use time::OffsetDateTime;
use time::macros::datetime;

use super::tables::{encoded, link};
use super::*;
use crate::duckdb::DuckDbProgram;

const REMOVED_AT: OffsetDateTime = datetime!(2026-03-01 10:00 UTC);

/// Writes an object with these users to the archive of one day, and returns its key.
async fn archive(scene: &ConsoleScene, users: &[String]) -> String {
    let keys: Vec<CanonicalKey> = users
        .iter()
        .map(|user| {
            let key = serde_json::json!({"timestamp": {"N": "1"}, "user_id": {"S": user}});
            CanonicalKey::parse(&key.to_string()).unwrap()
        })
        .collect();
    let items: Vec<String> = users
        .iter()
        .map(|user| {
            serde_json::json!({"timestamp": {"N": "1"}, "user_id": {"S": user}, SCRIPT: {"S": SCRIPT}}).to_string()
        })
        .collect();
    let rows = keys.iter().zip(&items).map(|(key, item)| ArchiveRow {
        key,
        revision: Revision::parse("2026-02-27T00:48:05.899#100000000000000000001").unwrap(),
        removed_at: REMOVED_AT,
        event_id: None,
        item,
    });
    let object = write("Users", ArchiveHour::from_datetime(REMOVED_AT), rows.collect(), Compression::Zstd).unwrap();
    let metadata = object.description.encode().unwrap();
    let store = scene.stack.maintenance().unwrap().archive.unwrap();
    let key = object.key.to_string();
    store.put(&key, object.bytes, object.description.sha256, metadata).await.unwrap();
    key
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_archive_says_what_to_do() {
    let scene = ConsoleScene::start().await;
    let (status, page) = scene.get("/archive").await;
    assert_eq!(status, StatusCode::OK, "{page}");
    assert_page(&page);
    assert!(page.contains("The archive is empty.") && page.contains("Expire an item now"), "{page}");
    for text in
        ["s3://", "/archive/Users/**/*.ndjson.*", "ENDPOINT '127.0.0.1:", "FROM expired_items_raw", "WHERE dt = '"]
    {
        assert!(page.contains(&text.replace('\'', "&#39;")) || page.contains(text), "{text} is missing: {page}");
    }
    let (_, page) = scene.get("/archive/day?day=2026-03-01").await;
    assert!(page.contains("The archive has no object of this day."), "{page}");
    assert_page(&page);
}

#[tokio::test(flavor = "multi_thread")]
async fn huge_day_is_shown_page_by_page_and_every_text_is_escaped() {
    let scene = ConsoleScene::start().await;
    for number in 0..53 {
        archive(&scene, &[format!("u{number}")]).await;
    }
    let rows: Vec<String> = (0..30).map(|number| format!("{SCRIPT}{number}")).collect();
    let object = archive(&scene, &rows).await;
    let (_, page) = scene.get("/archive").await;
    assert_page(&page);
    let (status, page) = scene.get(&link(&page, "2026-03-01")).await;
    assert_eq!(status, StatusCode::OK, "{page}");
    assert_page(&page);
    assert!(page.contains("50 objects; there are more.") && page.contains("<td class=\"number\">1</td>"), "{page}");
    let (_, page) = scene.get(&link(&page, "Next page")).await;
    assert!(page.contains("4 objects.") && page.contains(">First page</a>"), "{page}");
    assert!(page.contains(">Restore this day</a>"), "{page}");
    let (_, restore) = scene.get(link(&page, "Restore this day").split('#').next().unwrap()).await;
    assert!(restore.contains("name=\"from\" value=\"2026-03-01T00:00:00Z\""), "{restore}");
    assert!(restore.contains("name=\"to\" value=\"2026-03-02T00:00:00Z\""), "{restore}");
    let address = frame::href("/archive/object", &[("object", &object)]);
    let (status, page) = scene.get(&address).await;
    assert_eq!(status, StatusCode::OK, "{page}");
    assert_page(&page);
    assert!(page.contains("Rows 1 to 25; there are more.") && page.contains("&lt;script&gt;"), "{page}");
    let (_, page) = scene.get(&link(&page, "Next page")).await;
    assert!(page.contains("Rows 26 to 30."), "{page}");
    assert_page(&page);
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_part_of_the_archive_is_named() {
    let scene = ConsoleScene::start().await;
    for (path, reason) in [
        ("/archive?skip=x", "skip: &quot;x&quot; is not a number"),
        ("/archive/day?day=today", "day: &quot;today&quot; is not a date: expected one such as 2026-11-22"),
        ("/archive/object?object=<script>", "is not the key of an archive object of table Users"),
        (
            "/archive/object?object=archive/Other/dt=2026-03-01/hr=10/0123456789abcdef0123456789abcdef.ndjson.zst",
            "is not the key of an archive object of table Users",
        ),
        (
            "/archive/object?from=999999&object=archive/Users/dt=2026-03-01/hr=10/0123456789abcdef0123456789abcdef.ndjson.zst",
            "only the first 100000 rows of an object are shown",
        ),
    ] {
        let (status, page) = scene.get(&path.replace('<', "%3C").replace('>', "%3E")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{page}");
        assert!(page.contains(reason), "{page}");
        assert_page(&page);
    }
    let gone = "/archive/object?object=archive/Users/dt=2026-03-01/hr=10/0123456789abcdef0123456789abcdef.ndjson.zst";
    let (status, page) = scene.get(gone).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert!(page.contains("was deleted while it was being read"), "{page}");
    assert_eq!(scene.post("/break", "action=s3-down").await.0, StatusCode::SEE_OTHER);
    for path in ["/archive", "/archive/day?day=2026-03-01", gone] {
        let (status, page) = scene.get(path).await;
        assert_eq!(status, StatusCode::BAD_GATEWAY, "{path}");
        assert!(page.contains("archive bucket") && page.contains("role=\"alert\""), "{page}");
        assert_page(&page);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn item_is_restored_after_a_dry_run() {
    let scene = ConsoleScene::start().await;
    assert_eq!(scene.post("/break", "action=expire").await.0, StatusCode::SEE_OTHER);
    scene.stack.wait_until_drained().await;
    let (_, page) = scene.get("/archive").await;
    let day = millrace_archive::ArchiveDay::from_datetime(Clock::system().now()).to_string();
    let (_, page) = scene.get(&link(&page, &day)).await;
    let object = page.split("href=\"/archive/object?object=").nth(1).unwrap().split('"').next().unwrap();
    let (_, page) = scene.get(&format!("/archive/object?object={object}")).await;
    let (_, before) = page.split_once("aria-label=\"Restore {").unwrap();
    assert!(before.contains("console-expired"), "{page}");
    let key = r#"{"timestamp":{"N":"0"},"user_id":{"S":"console-expired"}}"#;
    let (_, page) = scene.get(&frame::href("/archive", &[("key", key)])).await;
    assert!(page.contains("name=\"key\" value=\"{&quot;timestamp&quot;"), "{page}");
    let (status, page) = scene.post("/tasks/restore", &format!("key={}", encoded(key))).await;
    assert_eq!(status, StatusCode::SEE_OTHER, "{page}");
    let page = wait_for(&scene, "/tasks", ">failed</span>").await;
    let (_, page) = scene.get(&link(&page, "restore")).await;
    assert!(page.contains("never_expires") && !page.contains("for real"), "{page}");
    let form = format!("key={}&never-expires=true", encoded(key));
    assert_eq!(scene.post("/tasks/restore", &form).await.0, StatusCode::SEE_OTHER);
    let page = wait_for(&scene, "/tasks", ">done</span>").await;
    let run = link(&page, "restore");
    let (_, page) = scene.get(&run).await;
    assert!(page.contains("This was a dry run: nothing was written."), "{page}");
    assert!(page.contains(">Run restore for real</button>"), "{page}");
    assert_page(&page);
    let item = item_page::href("Users", key, item_text::ItemNotation::DynamoDb);
    assert_eq!(scene.get(&item).await.0, StatusCode::NOT_FOUND, "nothing is written yet");
    assert_eq!(scene.post(&format!("{run}/apply"), "").await.0, StatusCode::SEE_OTHER);
    let mut status = StatusCode::NOT_FOUND;
    for _ in 0..200 {
        status = scene.get(&item).await.0;
        if status == StatusCode::OK {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(status, StatusCode::OK, "the item is restored");
    let page = wait_for(&scene, "/tasks", ">done</span>").await;
    // The run for real cannot be repeated by the same button.
    let real = link(&page, "restore");
    assert_ne!(real, run);
    let (_, page) = scene.get(&real).await;
    assert!(!page.contains("for real"), "{page}");
    assert_eq!(scene.post(&format!("{real}/apply"), "").await.0, StatusCode::CONFLICT);
    assert_eq!(scene.post("/tasks/runs/none/apply", "").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn day_is_queried_with_an_installed_duckdb() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("duckdb");
    let script = "#!/bin/sh\necho '[{\"<script>\":\"<script>\",\"removed\":1}]'\n";
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let scene = ConsoleScene::start_with(|context| context.with_duckdb(Some(DuckDbProgram::at(program)))).await;
    archive(&scene, &["ada".to_owned()]).await;
    let (_, page) = scene.get("/archive").await;
    assert_page(&page);
    assert!(page.contains("name=\"day\" value=\"2026-03-01\"") && page.contains(">Run the query</button>"), "{page}");
    let sql = encoded("SELECT 1 AS \"<script>\"");
    let (status, page) = scene.post("/archive/query", &format!("day=2026-03-01&sql={sql}")).await;
    assert_eq!(status, StatusCode::OK, "{page}");
    assert_page(&page);
    assert!(page.contains("<th scope=\"col\">removed</th>") && page.contains("1 row."), "{page}");
    for (form, reason) in [
        (format!("day=2026-03-02&sql={sql}"), "the archive has no object of 2026-03-02"),
        ("day=2026-03-01&sql=+".to_owned(), "the query is empty"),
        ("day=x&sql=1".to_owned(), "day: &quot;x&quot; is not a date"),
    ] {
        let (status, page) = scene.post("/archive/query", &form).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(page.contains(reason) && page.contains("role=\"alert\""), "{page}");
        assert_page(&page);
    }
    let scene = ConsoleScene::start_with(|context| context.with_duckdb(None)).await;
    let (_, page) = scene.get("/archive").await;
    assert!(page.contains("DuckDB is not installed here.") && !page.contains(">Run the query<"), "{page}");
    let (status, page) = scene.post("/archive/query", "day=2026-03-01&sql=1").await;
    assert_eq!(status, StatusCode::CONFLICT, "{page}");
}
