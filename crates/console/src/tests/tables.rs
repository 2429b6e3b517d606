//! The pages of tables and items.

use super::*;

/// Encodes a text for an address or a form.
pub(crate) fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// Returns the address of a link with this text.
pub(crate) fn link(page: &str, text: &str) -> String {
    let (before, _) = page.split_once(&format!(">{text}</a>")).unwrap_or_else(|| panic!("no link {text}: {page}"));
    let (_, address) = before.rsplit_once("<a href=\"").unwrap();
    address.split('"').next().unwrap().replace("&amp;", "&")
}

/// Returns the value of a hidden field.
fn hidden(page: &str, name: &str) -> String {
    let (_, rest) =
        page.split_once(&format!("name=\"{name}\" value=\"")).unwrap_or_else(|| panic!("no {name}: {page}"));
    rest.split('"').next().unwrap().replace("&quot;", "\"").replace("&lt;", "<").replace("&amp;", "&")
}

fn form(fields: &[(&str, &str)]) -> String {
    fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect::<Vec<_>>().join("&")
}

#[tokio::test(flavor = "multi_thread")]
async fn items_are_shown_page_by_page() {
    let scene = ConsoleScene::start().await;
    let (status, page) = scene.get("/tables").await;
    assert_eq!(status, StatusCode::OK, "{page}");
    assert_page(&page);
    assert!(page.contains("The table is empty. Create an item or import an export below"), "{page}");
    assert!(page.contains("<a href=\"/tables?table=Users\" aria-current=\"true\">Users</a>"), "{page}");
    for number in 0..30 {
        scene.write(&format!("u{number}"), &[]).await;
    }
    let (_, page) = scene.get("/tables?table=Users").await;
    assert!(page.contains("25 items; there are more."), "{page}");
    assert!(!page.contains(">First page</a>"), "{page}");
    let (status, page) = scene.get(&link(&page, "Next page")).await;
    assert_eq!(status, StatusCode::OK, "{page}");
    assert_page(&page);
    assert!(
        page.contains("5 items.") && page.contains(">First page</a>") && !page.contains(">Next page</a>"),
        "{page}"
    );
    let (_, page) = scene.get("/tables?table=UsersReplica&view=plain").await;
    assert!(page.contains("&quot;timestamp&quot;: 1"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn items_are_queried_by_key_and_by_index() {
    let scene = ConsoleScene::start().await;
    scene.write("ada", &[("name", "Ada")]).await;
    scene.write("eve", &[("name", "Eve")]).await;
    let (_, page) = scene.get("/tables?table=Users&partition=ada&condition=ge&sort=1").await;
    assert!(page.contains("1 item.") && page.contains(">ada</a>") && !page.contains(">eve</a>"), "{page}");
    let (_, page) = scene.get("/tables?table=Users&partition=ada&condition=gt&sort=1").await;
    assert!(page.contains("No item matches."), "{page}");
    let table = table_items::describe(&scene.stack.dynamodb(), "Users").await.unwrap();
    for index in table_items::indexes(&table) {
        let (status, page) = scene.get(&format!("/tables?table=Users&index={}", index.name)).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        assert!(page.contains(&format!("<option value=\"{}\" selected>", index.name)), "{page}");
    }
    for (query, status, reason) in [
        ("partition=ada&sort=soon", 400, "timestamp: &quot;soon&quot; is not a value of the type N"),
        ("partition=ada&condition=like", 400, "unknown condition &quot;like&quot;"),
        ("index=none", 400, "has no index &quot;none&quot;: choose one of the list"),
        ("after=x", 400, "the position of the page is not valid"),
        ("sort=1", 400, "the partition key user_id has none: enter it, or clear the sort key to scan"),
    ] {
        let (found, page) = scene.get(&format!("/tables?table=Users&{query}")).await;
        assert_eq!(found.as_u16(), status, "{page}");
        assert!(page.contains(reason) && page.contains("role=\"alert\""), "{page}");
        assert_page(&page);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn item_is_created_changed_and_deleted() {
    let scene = ConsoleScene::start().await;
    let (_, page) = scene.get("/tables/item?table=Users").await;
    assert_page(&page);
    assert!(page.contains("New item of Users in DynamoDB JSON"), "{page}");
    let item = r#"{"user_id":"ada","timestamp":1,"score":1.25}"#;
    let create = form(&[("table", "Users"), ("view", "plain"), ("item", item)]);
    assert_eq!(scene.post("/tables/item", &create).await.0, StatusCode::SEE_OTHER);
    let (status, page) = scene.post("/tables/item", &create).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(page.contains("an item with this key exists already"), "{page}");
    scene.stack.wait_until_drained().await;
    let key = r#"{"timestamp":{"N":"1"},"user_id":{"S":"ada"}}"#;
    let address = item_page::href("Users", key, item_text::ItemNotation::DynamoDb);
    let (status, page) = scene.get(&address).await;
    assert_eq!(status, StatusCode::OK, "{page}");
    assert_page(&page);
    assert!(page.contains("&quot;score&quot;: {&quot;N&quot;:&quot;1.25&quot;}"), "{page}");
    let shown = hidden(&page, "shown");
    let changed = |item: &str| form(&[("table", "Users"), ("key", key), ("shown", &shown), ("item", item)]);
    for (item, reason) in [
        ("{\"user_id\":", "not JSON"),
        (r#"{"user_id":{"S":"eve"},"timestamp":{"N":"1"}}"#, "restore the key, or create another item"),
        (r#"{"user_id":{"S":"ada"}}"#, "attribute &quot;timestamp&quot; is missing"),
        (r#"{"user_id":{"S":"ada"},"timestamp":{"N":"1"},"x":1}"#, "attribute &quot;x&quot; is plain JSON"),
    ] {
        let (status, page) = scene.post("/tables/item", &changed(item)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{page}");
        assert!(page.contains(reason) && page.contains("role=\"alert\""), "{page}");
        assert_page(&page);
        // The entered text is not lost.
        assert!(page.contains(&item.replace('"', "&quot;")), "{page}");
    }
    let item = r#"{"user_id":{"S":"ada"},"timestamp":{"N":"1"},"name":{"S":"Ada"}}"#;
    assert_eq!(scene.post("/tables/item", &changed(item)).await.0, StatusCode::SEE_OTHER);
    let (_, page) = scene.post("/tables/item", &changed(item)).await;
    assert!(page.contains("the item was changed after this page was loaded"), "{page}");
    scene.stack.wait_until_drained().await;
    let (_, live) = scene.get("/").await;
    assert!(live.contains("MODIFY"), "a change of the page is a change like any other: {live}");
    let delete = form(&[("table", "Users"), ("key", key)]);
    assert_eq!(scene.post("/tables/item/delete", &delete).await.0, StatusCode::SEE_OTHER);
    let (status, page) = scene.get(&address).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(page.contains("has no item with the key") && page.contains(">Create</button>"), "{page}");
    let (_, page) = scene.get("/tables?table=Users&done=deleted").await;
    assert!(page.contains("The item was deleted.") && page.contains("The table is empty."), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_text_of_an_item_is_escaped() {
    let scene = ConsoleScene::start().await;
    scene.write(SCRIPT, &[("name", SCRIPT), (SCRIPT, SCRIPT)]).await;
    let (_, page) = scene.get("/tables?table=Users").await;
    assert_page(&page);
    assert!(page.contains("&lt;script&gt;"), "{page}");
    let key = serde_json::json!({"timestamp": {"N": "1"}, "user_id": {"S": SCRIPT}}).to_string();
    for notation in item_text::ItemNotation::ALL {
        let (status, page) = scene.get(&item_page::href("Users", &key, notation)).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        assert_page(&page);
        assert!(page.contains("&lt;script&gt;"), "{page}");
    }
    let script = encoded(SCRIPT);
    for path in [
        format!("/tables?table={script}"),
        format!("/tables?table=Users&partition={script}&sort={script}&condition={script}&index={script}"),
        format!("/tables?table=Users&after={script}"),
        format!("/tables/item?table=Users&key={script}"),
        format!("/tables/item?table={script}&key={script}"),
    ] {
        let (status, page) = scene.get(&path).await;
        assert!(status.is_client_error() || status == StatusCode::BAD_GATEWAY, "{status} {path}");
        assert_page(&page);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn table_that_is_gone_is_named() {
    let scene = ConsoleScene::start().await;
    for path in ["/tables?table=Orders", "/tables/item?table=Orders&key=x"] {
        let (status, page) = scene.get(path).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{page}");
        assert!(page.contains("table Orders cannot be described: ResourceNotFoundException"), "{page}");
        assert_page(&page);
    }
    let fields = form(&[("table", "Orders"), ("item", "{}"), ("path", "/tmp")]);
    for path in ["/tables/item", "/tables/import", "/tables/item/delete"] {
        let (status, page) = scene.post(path, &fields).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{page}");
        assert!(page.contains("table Orders cannot be described"), "{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn item_of_400_kb_is_cut_in_the_list_and_complete_on_its_page() {
    let scene = ConsoleScene::start().await;
    let text = "x".repeat(400 * 1024 - 200);
    scene.write("big", &[("name", &text)]).await;
    let (_, page) = scene.get("/tables?table=Users").await;
    assert!(page.len() < 40_000 && page.contains("(600 of "), "{} bytes", page.len());
    let key = r#"{"timestamp":{"N":"1"},"user_id":{"S":"big"}}"#;
    let (_, page) = scene.get(&item_page::href("Users", key, item_text::ItemNotation::DynamoDb)).await;
    assert!(page.contains(&text));
    let (shown, item) = (hidden(&page, "shown"), |text: &str| {
        serde_json::json!({"timestamp": {"N": "1"}, "user_id": {"S": "big"}, "name": {"S": text}}).to_string()
    });
    let saved = |text: &str| form(&[("table", "Users"), ("key", key), ("shown", &shown), ("item", &item(text))]);
    let (status, page) = scene.post("/tables/item", &saved(&"y".repeat(400 * 1024))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(page.contains("bytes, but an item may have 409600: remove or shorten attributes"));
    assert_eq!(scene.post("/tables/item", &saved(&text.replace('x', "y"))).await.0, StatusCode::SEE_OTHER);
    let (status, page) = scene.post("/tables/item", &saved(&"z".repeat(9 * 1024 * 1024))).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(page.contains("the form has more than 8 MB"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn file_is_imported_and_an_invalid_line_is_named() {
    let scene = ConsoleScene::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("items.json");
    let line = |n: usize| format!("{{\"Item\":{{\"user_id\":{{\"S\":\"u{n}\"}},\"timestamp\":{{\"N\":\"1\"}}}}}}\n");
    std::fs::write(&file, (0..40).map(line).collect::<String>()).unwrap();
    let import = |path: &std::path::Path| form(&[("table", "Users"), ("path", path.to_str().unwrap())]);
    assert_eq!(scene.post("/tables/import", &import(&file)).await.0, StatusCode::SEE_OTHER);
    let page = wait_for(&scene, "/tasks", ">done</span>").await;
    assert!(page.contains("40 items written"), "{page}");
    let (_, page) = scene.get(&link(&page, "import")).await;
    assert_page(&page);
    std::fs::write(&file, line(1) + "{\"user_id\":\"<script>\"}\n").unwrap();
    assert_eq!(scene.post("/tables/import", &import(&file)).await.0, StatusCode::SEE_OTHER);
    let page = wait_for(&scene, "/tasks", ">failed</span>").await;
    let (_, page) = scene.get(&link(&page, "import")).await;
    assert!(page.contains("items.json:2: attribute &quot;user_id&quot; is plain JSON"), "{page}");
    assert_page(&page);
    let (status, page) = scene.post("/tables/import", &import(&folder.path().join("none"))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(page.contains("/none") && page.contains("role=\"alert\""), "{page}");
}
