use super::service::{ApiHandle, UsersService, n, s};

/// All pages of a list, fetched by cursor.
async fn pages(api: &ApiHandle, path: &str) -> Vec<Vec<u64>> {
    let mut pages = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = api.get(&format!("{path}{cursor}")).await;
        assert_eq!(page.status, 200, "{}", page.text);
        pages.push(page.seconds());
        match page.json["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return pages,
        }
    }
}

#[tokio::test]
async fn a_user_s_records_come_newest_first_within_a_range_page_by_page() {
    let service = UsersService::start().await;
    let api = service.api();
    for second in [1, 2, 3, 10, 20] {
        api.created("ada", second).await;
    }
    api.created("eve", 15).await;
    assert_eq!(api.get("/users/ada").await.seconds(), [20, 10, 3, 2, 1]);
    assert_eq!(api.get("/users/ada?from=2&to=10").await.seconds(), [10, 3, 2]);
    assert_eq!(api.get("/users/ada?from=11").await.seconds(), [20]);
    assert_eq!(api.get("/users/ada?to=1").await.seconds(), [1]);
    assert_eq!(api.get("/users/nobody").await.text, r#"{"users":[],"next_cursor":null}"#);
    assert_eq!(pages(&api, "/users/ada?limit=2").await, [vec![20, 10], vec![3, 2], vec![1]]);
    assert_eq!(pages(&api, "/users/ada?limit=3&from=2").await, [vec![20, 10, 3], vec![2]]);
    assert_eq!(pages(&api, "/users/ada?limit=5").await, [vec![20, 10, 3, 2, 1]], "a last page knows that it is last");
}

#[tokio::test]
async fn records_are_found_by_email_newest_first() {
    let service = UsersService::start().await;
    let api = service.api();
    for (id, second) in [("ada", 1), ("ada", 3), ("eve", 2), ("eve", 3)] {
        let body = format!(r#"{{"user_id":"{id}","timestamp":{second},"name":"A","email":"ours+news@example.com"}}"#);
        assert_eq!(api.post(&body).await.status, 201);
    }
    api.created("nobody", 4).await;
    for query in ["email=ours%2Bnews@example.com", "email=ours%2Bnews%40example.com"] {
        assert_eq!(api.get(&format!("/users?{query}")).await.seconds(), [3, 3, 2, 1], "{query}");
    }
    let plus = api.get("/users?email=ours+news@example.com").await;
    assert!(plus.status == 400 && plus.text.contains("%2B"), "a + is a space: {}", plus.text);
    let by_one = pages(&api, "/users?email=ours%2Bnews@example.com&limit=1").await;
    assert_eq!(by_one, [vec![3], vec![3], vec![2], vec![1]], "two records of one second are two pages");
    assert_eq!(api.get("/users?email=other@example.com").await.seconds(), [0; 0]);
}

#[tokio::test]
async fn a_scan_gives_every_record_once() {
    let service = UsersService::start().await;
    let api = service.api();
    for user in 0..5 {
        for second in [1, 2, 3] {
            api.created(&format!("user-{user}"), user * 10 + second).await;
        }
    }
    let pages = pages(&api, "/users?limit=4").await;
    assert!(pages.iter().all(|page| page.len() <= 4));
    let mut seconds = pages.concat();
    seconds.sort_unstable();
    let expected: Vec<u64> = (0..5).flat_map(|user| [1, 2, 3].map(|second| user * 10 + second)).collect();
    assert_eq!(seconds, expected);
}

#[tokio::test]
async fn a_cursor_serves_its_own_list_alone() {
    let service = UsersService::start().await;
    let api = service.api();
    for second in 1..4 {
        api.created("ada", second).await;
        api.created("eve", second).await;
    }
    let next = api.get("/users/ada?limit=1").await.json["next_cursor"].as_str().unwrap().to_owned();
    assert_eq!(api.get(&format!("/users/ada?limit=2&cursor={next}")).await.seconds(), [2, 1], "the limit may change");
    for path in [
        format!("/users/eve?cursor={next}"),
        format!("/users/ada?from=1&cursor={next}"),
        format!("/users?cursor={next}"),
        format!("/users/ada?cursor={next}x"),
        format!("/users/ada?cursor={}", &next[1..]),
        "/users/ada?cursor=".to_owned(),
        format!("/users/ada?order=asc&cursor={next}"),
    ] {
        let refused = api.get(&path).await;
        assert_eq!((refused.status, refused.problem()), (400, "invalid-request"), "{path}");
        assert_eq!(refused.json["errors"][0]["parameter"], "cursor");
    }
}

#[tokio::test]
async fn an_item_that_is_no_user_hides_no_other() {
    let service = UsersService::start().await;
    let api = service.api();
    for second in [1, 3] {
        api.created("ada", second).await;
    }
    service.put(&[("user_id", s("ada")), ("timestamp", n(2)), ("name", n(7))]).await;
    assert_eq!(api.get("/users/ada").await.seconds(), [3, 1]);
    assert_eq!(pages(&api, "/users/ada?limit=1").await.concat(), [3, 1]);
    let read = api.get("/users/ada/2").await;
    assert_eq!((read.status, read.problem()), (500, "corrupt-record"));
    service.put(&[("user_id", s("ada")), ("timestamp", n(9)), ("name", n(7))]).await;
    assert_eq!(api.get("/users/ada/latest").await.status, 500, "an older record is not the latest");
}

#[tokio::test]
async fn a_list_that_would_be_too_long_to_answer_is_cut_and_goes_on() {
    let service = UsersService::start().await;
    let api = service.api();
    let long = "x".repeat(380_000);
    for second in 1..13 {
        let body = format!(r#"{{"user_id":"ada","timestamp":{second},"name":"A","attributes":{{"long":"{long}"}}}}"#);
        assert_eq!(api.post(&body).await.status, 201);
    }
    let first = api.get("/users/ada?limit=12").await;
    assert!(first.text.len() < 4 * 1024 * 1024, "{}", first.text.len());
    let all = pages(&api, "/users/ada?limit=12").await.concat();
    assert_eq!(all, (1..13).rev().collect::<Vec<_>>());
}

#[tokio::test]
async fn a_list_of_quotes_is_cut_by_what_quoting_them_again_costs() {
    let service = UsersService::start().await;
    let api = service.api();
    let quotes = "\\\"".repeat(380_000);
    for second in 1..7 {
        let body =
            format!(r#"{{"user_id":"ada","timestamp":{second},"name":"A","attributes":{{"quotes":"{quotes}"}}}}"#);
        assert_eq!(api.post(&body).await.status, 201);
    }
    let first = api.get("/users/ada?limit=6").await;
    let response = serde_json::to_string(&first.text).unwrap();
    assert!(response.len() < 6 * 1024 * 1024, "a Lambda function's response has at most 6 MB: {}", response.len());
    assert_eq!(pages(&api, "/users/ada?limit=6").await.concat(), [6, 5, 4, 3, 2, 1]);
}

#[tokio::test]
async fn a_list_goes_in_either_order() {
    let service = UsersService::start().await;
    let api = service.api();
    for second in [1, 2, 3, 4] {
        let body = format!(r#"{{"user_id":"ada","timestamp":{second},"name":"A","email":"ada@example.com"}}"#);
        assert_eq!(api.post(&body).await.status, 201);
    }
    assert_eq!(pages(&api, "/users/ada?order=asc&limit=3").await, [vec![1, 2, 3], vec![4]]);
    assert_eq!(pages(&api, "/users/ada?order=asc&limit=2&from=2").await, [vec![2, 3], vec![4]]);
    assert_eq!(pages(&api, "/users/ada?order=desc&limit=3").await, [vec![4, 3, 2], vec![1]]);
    assert_eq!(pages(&api, "/users?email=ada@example.com&order=asc&limit=3").await, [vec![1, 2, 3], vec![4]]);
}

#[tokio::test]
async fn the_segments_of_a_scan_are_the_whole_and_share_nothing() {
    let service = UsersService::start().await;
    let api = service.api();
    for user in 1..30 {
        api.created(&format!("user-{user}"), user).await;
    }
    let mut seconds = Vec::new();
    for segment in 0..4 {
        seconds.extend(pages(&api, &format!("/users?segment={segment}&segments=4&limit=3")).await.concat());
    }
    seconds.sort_unstable();
    assert_eq!(seconds, (1..30).collect::<Vec<_>>());
}

#[tokio::test]
async fn only_requested_fields_are_returned() {
    let service = UsersService::start().await;
    let api = service.api();
    api.created("ada", 7).await;
    let list = api.get("/users/ada?fields=timestamp,name,email").await;
    assert_eq!(list.text, r#"{"users":[{"timestamp":7,"name":"Ada"}],"next_cursor":null}"#);
    let record = api.get("/users/ada/7?fields=name").await;
    assert_eq!(record.text, r#"{"user":{"name":"Ada"},"source":"database"}"#);
    assert!(!record.header("etag").is_empty(), "the tag is the record's");
    assert_eq!(api.get("/users/ada/latest?fields=user_id").await.json["user"], serde_json::json!({"user_id": "ada"}));
}

#[tokio::test]
async fn the_link_to_the_next_page_is_the_next_page() {
    let service = UsersService::start().await;
    let api = service.api();
    for second in [1, 2, 3] {
        let body = format!(r#"{{"user_id":"ada","timestamp":{second},"name":"A","email":"a+b@example.com"}}"#);
        assert_eq!(api.post(&body).await.status, 201);
    }
    for path in ["/users/ada?limit=2", "/users?email=a%2Bb@example.com&limit=1&fields=timestamp", "/users?limit=1"] {
        let (mut seconds, mut path) = (Vec::new(), path.to_owned());
        loop {
            let page = api.get(&path).await;
            assert_eq!(page.status, 200, "{path}: {}", page.text);
            seconds.extend(page.seconds());
            let link = page.header("link");
            let Some(next) = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\"")) else {
                assert_eq!((link, page.json["next_cursor"].is_null()), ("", true), "{path}");
                break;
            };
            assert!(next.contains(page.json["next_cursor"].as_str().unwrap()));
            path = next.to_owned();
        }
        seconds.sort_unstable();
        assert_eq!(seconds, [1, 2, 3], "{path}");
    }
}

#[tokio::test]
async fn a_cursor_is_the_caller_s_own_and_ends_after_a_day() {
    let service = UsersService::start().await;
    let api = service.api();
    for second in [1, 2] {
        api.created("ada", second).await;
    }
    let next = api.get("/users/ada?limit=1").await.json["next_cursor"].as_str().unwrap().to_owned();
    let path = format!("/users/ada?cursor={next}");
    let day = time::Duration::DAY;
    for (later, status) in [(time::Duration::ZERO, 200), (day - time::Duration::SECOND, 200), (day, 400)] {
        assert_eq!(service.api_at(super::service::NOW + later).get(&path).await.status, status, "{later}");
    }
    let other = service.api_with(&[("CURSOR_KEYS", "other:YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXphYmNkZWY=")]);
    assert_eq!(other.get(&path).await.status, 400, "sealed by a key that is not known any more");
}

#[tokio::test]
async fn every_list_of_large_records_is_bounded_in_bytes_and_complete_over_its_pages() {
    let service = UsersService::start().await;
    let api = service.api();
    let long = "x".repeat(390_000);
    for second in 1..19 {
        let body = format!(
            r#"{{"user_id":"ada","timestamp":{second},"name":"A","email":"ada@example.com","attributes":{{"long":"{long}"}}}}"#
        );
        assert_eq!(api.post(&body).await.status, 201);
    }
    for path in ["/users/ada?limit=1000", "/users?email=ada@example.com&limit=1000", "/users?limit=1000"] {
        let first = api.get(path).await;
        let quoted = serde_json::to_string(&first.text).unwrap().len();
        assert!(quoted < 6 * 1024 * 1024, "{path}: {quoted}");
        let mut all = pages(&api, path).await.concat();
        all.sort_unstable();
        assert_eq!(all, (1..19).collect::<Vec<_>>(), "{path}");
    }
}
