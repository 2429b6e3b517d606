use super::service::{ApiHandle, FIRST, JSON, MERGE, ServiceResponse, UsersService};

/// `(method, content type, body)` of each request.
const REQUESTS: [(&str, (&str, &str), &str); 4] = [
    ("GET", JSON, ""),
    ("PUT", JSON, r#"{"name":"New"}"#),
    ("PATCH", MERGE, r#"{"name":"New"}"#),
    ("DELETE", JSON, ""),
];

async fn send(api: &ApiHandle, request: (&str, (&str, &str), &str), conditions: &[(&str, &str)]) -> ServiceResponse {
    let headers: Vec<_> = conditions.iter().copied().chain([request.1]).collect();
    api.send(request.0, "/users/ada/7", &headers, request.2).await
}

#[tokio::test]
async fn the_table_of_conditions_holds_over_a_record_and_over_none() {
    let current = format!("\"{FIRST}\"");
    let both = format!("\"1\", \"{FIRST}\"");
    let weak = format!("W/\"{FIRST}\"");
    // With a record: the status of GET, PUT, PATCH, DELETE. Without one: the status of PUT; the others return 404
    // whatever the condition.
    for (header, tags, present, absent) in [
        ("if-match", "*", [200, 200, 200, 204], 412),
        ("if-match", &current, [200, 200, 200, 204], 412),
        ("if-match", &both, [200, 200, 200, 204], 412),
        ("if-match", "\"1\"", [412, 412, 412, 412], 412),
        ("if-match", "\"not-ours\"", [412, 412, 412, 412], 412),
        ("if-match", &weak, [412, 412, 412, 412], 412),
        ("if-none-match", "*", [304, 412, 412, 412], 201),
        ("if-none-match", &current, [304, 412, 412, 412], 201),
        ("if-none-match", &weak, [304, 412, 412, 412], 201),
        ("if-none-match", "\"1\", \"2\"", [200, 200, 200, 204], 201),
        ("if-none-match", "\"not-ours\"", [200, 200, 200, 204], 201),
    ] {
        for (request, expected) in REQUESTS.into_iter().zip(present) {
            let service = UsersService::start().await;
            let api = service.api();
            let over_none = send(&api, request, &[(header, tags)]).await.status;
            assert_eq!(over_none, if request.0 == "PUT" { absent } else { 404 }, "{} {header}: {tags}", request.0);
            if over_none != 201 {
                api.created("ada", 7).await;
            }
            let over_record = send(&api, request, &[(header, tags)]).await;
            assert_eq!(over_record.status, expected, "{} {header}: {tags}: {}", request.0, over_record.text);
            if expected == 412 {
                assert_eq!(over_record.problem(), "precondition-failed");
                assert_eq!(api.get("/users/ada/7").await.version(), FIRST, "nothing was written");
            }
        }
    }
}

#[tokio::test]
async fn a_tag_that_a_proxy_weakened_is_refused_by_if_match_with_the_cure_and_known_to_if_none_match() {
    let service = UsersService::start().await;
    let api = service.api();
    api.created("ada", 7).await;
    let strong = api.get("/users/ada/7").await.header("etag").to_owned();
    assert!(!strong.starts_with("W/"), "the API's own tags are strong");
    let weakened = format!("W/{strong}");
    for request in REQUESTS {
        let refused = send(&api, request, &[("if-match", &weakened)]).await;
        assert_eq!((refused.status, refused.problem()), (412, "precondition-failed"), "{}", request.0);
        assert!(refused.json["detail"].as_str().unwrap().contains("send it without W/"), "{}", refused.text);
    }
    assert_eq!(send(&api, REQUESTS[0], &[("if-none-match", &weakened)]).await.status, 304);
    assert_eq!(send(&api, REQUESTS[1], &[("if-match", &strong)]).await.status, 200, "the cure");
}

#[tokio::test]
async fn if_match_is_evaluated_before_if_none_match() {
    let service = UsersService::start().await;
    let api = service.api();
    api.created("ada", 7).await;
    let current = format!("\"{FIRST}\"");
    for (conditions, expected) in [
        ([("if-match", "\"1\""), ("if-none-match", current.as_str())], 412),
        ([("if-match", current.as_str()), ("if-none-match", current.as_str())], 304),
        ([("if-match", current.as_str()), ("if-none-match", "\"1\"")], 200),
    ] {
        assert_eq!(send(&api, REQUESTS[0], &conditions).await.status, expected, "{conditions:?}");
    }
    let contradiction = [("if-match", "*"), ("if-none-match", "*")];
    assert_eq!(send(&api, REQUESTS[1], &contradiction).await.status, 412);
}

#[tokio::test]
async fn an_unmodified_read_has_its_tag_and_no_body() {
    let service = UsersService::start().await;
    let api = service.api();
    api.created("ada", 7).await;
    let current = format!("\"{FIRST}\"");
    for method in ["GET", "HEAD"] {
        let response = api.send(method, "/users/ada/7", &[("if-none-match", &current)], "").await;
        assert_eq!((response.status, response.text.as_str(), response.header("etag")), (304, "", current.as_str()));
        assert_eq!(response.header("cache-control"), "private, no-cache");
        // RFC 9110, section 8.6: the length of the body that a 200 would have had, or none.
        assert!(response.is_as_long_as(&api.get("/users/ada/7").await), "{method}");
    }
}

#[tokio::test]
async fn a_lost_update_is_refused() {
    let service = UsersService::start().await;
    let api = service.api();
    api.created("ada", 7).await;
    let tag = format!("\"{FIRST}\"");
    let one = send(&api, ("PUT", JSON, r#"{"name":"One"}"#), &[("if-match", &tag)]).await;
    let two = send(&api, ("PATCH", MERGE, r#"{"attributes":{"a":1}}"#), &[("if-match", &tag)]).await;
    assert_eq!((one.status, two.status), (200, 412));
    let again = send(&api, ("PATCH", MERGE, r#"{"attributes":{"a":1}}"#), &[("if-match", one.header("etag"))]).await;
    assert_eq!((again.status, again.version()), (200, FIRST + 2));
}

#[tokio::test]
async fn of_many_writers_with_one_tag_one_wins() {
    let service = UsersService::start().await;
    let api = service.api();
    api.created("ada", 7).await;
    let tag = format!("\"{FIRST}\"");
    let writes = (0..12).map(|writer| {
        let (api, tag) = (api.clone(), tag.clone());
        async move {
            let body = format!(r#"{{"name":"Writer {writer}"}}"#);
            let request = if writer % 2 == 0 { ("PUT", JSON) } else { ("PATCH", MERGE) };
            api.send(request.0, "/users/ada/7", &[request.1, ("if-match", &tag)], &body).await.status
        }
    });
    let mut statuses = futures::future::join_all(writes).await;
    statuses.sort_unstable();
    assert_eq!(statuses[0], 200);
    assert!(statuses[1..].iter().all(|status| *status == 412), "{statuses:?}");
}

#[tokio::test]
async fn of_many_creators_one_wins() {
    let service = UsersService::start().await;
    let api = service.api();
    let creates = (0..8).map(|_| {
        let api = api.clone();
        async move { api.post(r#"{"user_id":"ada","timestamp":7,"name":"Ada"}"#).await.status }
    });
    let mut statuses = futures::future::join_all(creates).await;
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409, 409, 409, 409, 409]);
}

#[tokio::test]
async fn of_many_who_count_in_one_record_none_loses_a_count() {
    const WRITERS: usize = 6;
    const COUNTS: u64 = 5;
    let service = UsersService::start().await;
    let api = service.api();
    assert_eq!(api.put("/users/ada/7", r#"{"name":"Ada","attributes":{"count":0}}"#).await.status, 201);
    let refused = std::sync::atomic::AtomicUsize::new(0);
    // Each writer reads, increments the count, and writes it on the condition that the record has not changed
    // meanwhile.
    let count = async |writer: usize| {
        let mut counted = 0;
        while counted < COUNTS {
            let read = api.get("/users/ada/7").await;
            let next = read.json["user"]["attributes"]["count"].as_u64().unwrap() + 1;
            let attributes = format!(r#""attributes":{{"count":{next}}}"#);
            let (request, body) = if writer.is_multiple_of(2) {
                (("PUT", JSON), format!(r#"{{"name":"Ada",{attributes}}}"#))
            } else {
                (("PATCH", MERGE), format!("{{{attributes}}}"))
            };
            let headers = [request.1, ("if-match", read.header("etag"))];
            match api.send(request.0, "/users/ada/7", &headers, &body).await.status {
                200 => counted += 1,
                412 => drop(refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed)),
                other => panic!("{other}"),
            }
        }
    };
    futures::future::join_all((0..WRITERS).map(count)).await;
    let total = COUNTS * u64::try_from(WRITERS).unwrap();
    let user = &api.get("/users/ada/7").await.json["user"];
    assert_eq!((user["attributes"]["count"].as_u64(), user["version"].as_u64()), (Some(total), Some(FIRST + total)));
    assert!(refused.into_inner() > 0, "they did race");
}

#[tokio::test]
async fn where_preconditions_are_required_no_write_goes_without() {
    let service = UsersService::start().await;
    let api = service.api_with(&[("REQUIRE_PRECONDITIONS", "true")]);
    assert_eq!(
        api.post(r#"{"user_id":"ada","timestamp":7,"name":"Ada"}"#).await.status,
        201,
        "a create is over nothing"
    );
    for request in &REQUESTS[1..] {
        let refused = send(&api, *request, &[]).await;
        assert_eq!((refused.status, refused.problem()), (428, "precondition-required"), "{}", request.0);
    }
    assert_eq!(api.get("/users/ada/7").await.version(), FIRST, "nothing was written");
    for (number, request) in (0..).zip(&REQUESTS[1..]) {
        let tag = format!("\"{}\"", FIRST + number);
        assert!(send(&api, *request, &[("if-match", &tag)]).await.status < 300, "{}", request.0);
    }
    assert_eq!(send(&api, REQUESTS[1], &[("if-none-match", "*")]).await.status, 201);
}
