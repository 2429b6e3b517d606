//! The pages Doctor and API.

use millrace_local::token::LocalAuth;

use super::tables::link;
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn findings_of_the_running_template_are_shown_with_explanations() {
    let scene = ConsoleScene::start().await;
    let (status, page) = scene.get("/doctor").await;
    assert_eq!(status, StatusCode::OK, "{page}");
    assert_page(&page);
    assert!(page.contains("No finding in ") && page.contains("template.yaml"), "{page}");
    for rule in millrace_doctor::rule_table::RULES {
        let (status, page) = scene.get(&format!("/doctor/{}", rule.id)).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        assert_page(&page);
        assert!(page.contains("Fix in a template:") && page.contains("Source"), "{page}");
    }
    let (_, page) = scene.get(&link(&page, "StartingPosition is LATEST: records around the creation are missed")).await;
    assert!(page.contains("Replayed in the simulator"), "{page}");
    let (status, page) = scene.get("/doctor/%3Cscript%3E").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(page.contains("unknown rule &quot;&lt;script&gt;&quot;"), "{page}");
    assert_page(&page);
}

#[tokio::test(flavor = "multi_thread")]
async fn api_is_shown_with_tokens_if_they_are_required() {
    let scene = ConsoleScene::start().await;
    let (status, page) = scene.get("/api").await;
    assert_eq!(status, StatusCode::OK, "{page}");
    assert_page(&page);
    assert!(page.contains("No token is needed") && page.contains(&format!("{}/docs", scene.stack.api_url())), "{page}");
    assert!(page.contains("/users/{user_id}/{timestamp}") && !page.contains("/search/users"), "{page}");
    let options = StackOptions { auth: LocalAuth::Jwt(None), observe: true, ..StackOptions::default() };
    let scene = ConsoleScene::start_stack(options, |context| context).await;
    let (_, page) = scene.get("/api").await;
    assert_page(&page);
    assert!(page.contains("<h3>operator</h3>") && page.contains("data-copy=\"ada\">eyJ"), "{page}");
    assert!(page.contains("Bearer $OPERATOR"), "{page}");
}
