//! API Gateway's payloads, as the functions receive them.

use std::convert::Infallible;
use std::path::Path;

use axum::body::{Body, to_bytes};
use axum::response::Response;
use lambda_http::request::LambdaRequest;
use lambda_http::{Adapter, Context, LambdaEvent, Service as _, service_fn};
use millrace_http::gateway::GatewayResponse;
use tower::ServiceExt;

use super::service::{ApiHandle, FIRST, ServiceResponse, UsersService};

fn payload(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../events").join(format!("api-{name}.json"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) async fn deliver_batch(api: &ApiHandle, payload: &str) -> ServiceResponse {
    let request = millrace_http::lambda::request(serde_json::from_str(payload).unwrap());
    ServiceResponse::from_response(api.0.clone().oneshot(request).await.unwrap().map(Body::new)).await
}

#[tokio::test]
async fn every_sample_call_is_answered() {
    let service = UsersService::start().await;
    let api = service.api();
    assert_eq!(deliver_batch(&api, &payload("health")).await.status, 200);
    let created = deliver_batch(&api, &payload("create-user")).await;
    assert_eq!((created.status, created.version()), (201, FIRST), "{}", created.text);
    assert_eq!(created.header("location"), "/users/ada/1795334400");
    assert!(created.text.contains("0.12345678901234567890123456789012345678"), "{}", created.text);
    for read in ["get-user", "get-latest-user"] {
        let read = deliver_batch(&api, &payload(read)).await;
        assert_eq!((read.status, &read.json["user"]), (200, &created.json["user"]));
    }
    for list in ["list-user-history", "list-users", "list-by-email"] {
        assert_eq!(deliver_batch(&api, &payload(list)).await.seconds(), [1_795_334_400], "{list}");
    }
    let batch = deliver_batch(&api, &payload("batch-get-users")).await;
    assert_eq!((batch.seconds(), batch.json["missing"][0]["user_id"].as_str()), (vec![1_795_334_400], Some("eve")));
    let patched = deliver_batch(&api, &payload("update-user")).await;
    assert_eq!((patched.status, patched.version()), (200, FIRST + 1), "{}", patched.text);
    assert_eq!(patched.json["user"]["attributes"]["title"], "Countess");
    assert!(patched.json["user"].get("status").is_none());
    let replaced = deliver_batch(&api, &payload("replace-user")).await;
    assert_eq!((replaced.status, replaced.json["user"]["name"].as_str()), (200, Some("Ada King")));
    assert_eq!(deliver_batch(&api, &payload("delete-user")).await.status, 204);
    assert_eq!(deliver_batch(&api, &payload("get-user")).await.status, 404);
}

/// The events of API Gateway, read by the functions' own parser and by AWS's crate.
#[tokio::test]
async fn requests_are_those_of_lambda_http() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../events");
    let mut events = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let Ok(theirs) = lambda_http::request::from_str(&text) else { continue };
        events += 1;
        let (ours, body) = millrace_http::lambda::request(serde_json::from_str(&text).unwrap()).into_parts();
        assert_eq!((&ours.method, &ours.headers), (theirs.method(), theirs.headers()), "{path:?}");
        assert_eq!((ours.uri.path(), ours.uri.query()), (theirs.uri().path(), theirs.uri().query()), "{path:?}");
        assert_eq!(to_bytes(body, usize::MAX).await.unwrap(), theirs.body().as_ref(), "{path:?}");
    }
    assert!(events >= 12, "{events}");
}

#[tokio::test]
async fn responses_are_those_of_lambda_http() {
    for (status, kind, body) in [
        (200, Some("application/json"), "{\"name\":\"\u{e9} \\\"quoted\\\" \u{1f600}\"}"),
        (404, Some("application/problem+json"), "{\"title\":\"a\\nb\"}"),
        (204, None, ""),
    ] {
        let response = || {
            let response = Response::builder().status(status).header("etag", "\"7\"");
            let response = kind.into_iter().fold(response, |response, kind| response.header("content-type", kind));
            response.body(Body::from(body)).unwrap()
        };
        let mut adapter = Adapter::from(service_fn(|_| async { Ok::<_, Infallible>(response()) }));
        let event: LambdaRequest = serde_json::from_str(&payload("health")).unwrap();
        let answered = adapter.call(LambdaEvent { payload: event, context: Context::default() }).await.unwrap();
        let theirs = serde_json::to_value(answered).unwrap();
        let (parts, body) = response().into_parts();
        let ours = GatewayResponse::new(parts, to_bytes(body, usize::MAX).await.unwrap());
        let ours = serde_json::to_value(ours).unwrap();
        for (name, value) in ours.as_object().unwrap() {
            assert_eq!(value, &theirs[name], "{status} {name}");
        }
        assert_eq!(ours.as_object().unwrap().len(), theirs.as_object().unwrap().len(), "{ours}");
    }
}

#[tokio::test]
async fn stage_name_is_removed_from_requests_and_prefixes_response_paths() {
    let service = UsersService::start().await;
    let api = service.api();
    let staged = |name: &str, stage: &str| {
        payload(name)
            .replace(r#""stage": "$default""#, &format!(r#""stage": "{stage}""#))
            .replace(r#""rawPath": ""#, &format!(r#""rawPath": "/{stage}"#))
    };
    let created = deliver_batch(&api, &staged("create-user", "prod")).await;
    assert_eq!((created.status, created.header("location")), (201, "/prod/users/ada/1795334400"), "{}", created.text);
    let latest = deliver_batch(&api, &staged("get-latest-user", "prod")).await;
    assert_eq!((latest.status, latest.header("content-location")), (200, "/prod/users/ada/1795334400"));
    assert_eq!(deliver_batch(&api, &staged("list-by-email", "users")).await.seconds(), [1_795_334_400]);
    assert_eq!(deliver_batch(&api, &staged("health", "prod")).await.status, 200);
}

/// An event as the API mapping `key` of a custom domain passes it on.
fn mapped(name: &str, key: &str) -> String {
    payload(name)
        .replace(
            r#""domainName": "abcdefghij.execute-api.eu-west-1.amazonaws.com""#,
            r#""domainName": "api.example.com""#,
        )
        .replace(r#""domainPrefix": "abcdefghij""#, r#""domainPrefix": "api""#)
        .replace(r#""rawPath": ""#, &format!(r#""rawPath": "/{key}"#))
}

#[tokio::test]
async fn base_path_is_removed_from_requests_and_prefixes_response_paths() {
    let service = UsersService::start().await;
    assert_eq!(deliver_batch(&service.api(), &mapped("health", "v1")).await.status, 404, "no base path is configured");
    let api = service.api_with(&[("API_BASE_PATH", "/v1")]);
    assert_eq!(deliver_batch(&api, &mapped("health", "v1")).await.status, 200);
    assert_eq!(deliver_batch(&api, &mapped("health", "v10")).await.status, 404, "a part of a segment is no base path");
    let created = deliver_batch(&api, &mapped("create-user", "v1")).await;
    assert_eq!((created.status, created.header("location")), (201, "/v1/users/ada/1795334400"), "{}", created.text);
    let latest = deliver_batch(&api, &mapped("get-latest-user", "v1")).await;
    assert_eq!((latest.status, latest.header("content-location")), (200, "/v1/users/ada/1795334400"));
    service.api().created("ada", 7).await;
    let listed = mapped("list-user-history", "v1");
    let query = "from=1795334400&to=1795334499&limit=10";
    assert!(listed.contains(query), "{listed}");
    let page = deliver_batch(&api, &listed.replace(query, "limit=1")).await;
    assert!(page.header("link").starts_with("</v1/users/ada?limit=1&cursor="), "{}", page.header("link"));
    let contract = mapped("health", "v1").replace("/health", "/openapi.json");
    let contract = deliver_batch(&api, &contract).await;
    assert_eq!(contract.json["servers"][0]["url"], "/v1");

    // The API's own host name has no base path, and neither do the paths in the response.
    assert_eq!(deliver_batch(&api, &payload("get-user")).await.status, 200);
    assert_eq!(
        deliver_batch(&api, &payload("get-latest-user")).await.header("content-location"),
        "/users/ada/1795334400"
    );
    // A mapping to a named stage: the path does not contain the stage name.
    let staged = mapped("health", "v1").replace(r#""stage": "$default""#, r#""stage": "v1""#);
    assert_eq!(deliver_batch(&api, &staged).await.status, 200);
}

#[tokio::test]
async fn a_body_that_api_gateway_encoded_is_decoded() {
    use base64::Engine as _;
    let service = UsersService::start().await;
    let mut event: serde_json::Value = serde_json::from_str(&payload("create-user")).unwrap();
    let body = event["body"].as_str().unwrap();
    event["body"] = base64::engine::general_purpose::STANDARD.encode(body).into();
    event["isBase64Encoded"] = true.into();
    assert_eq!(deliver_batch(&service.api(), &event.to_string()).await.status, 201);
}

#[tokio::test]
async fn scopes_are_read_in_the_spelling_of_the_token_s_issuer() {
    let service = UsersService::start().await;
    service.api().created("ada", 1_795_334_400).await;
    let own = payload("get-own-user");
    let scope = r#""scope": "openid users:read""#;
    let cognito = own.replace(scope, r#""scope": "millrace/users:read""#);
    let auth0 = own.replace(scope, r#""scope": "openid", "permissions": "[users:read users:write]""#);
    let entra = own.replace(scope, r#""roles": "[users:read]""#);
    assert!([&cognito, &auth0, &entra].iter().all(|event| **event != own));
    let (prefix, permissions, roles) =
        (("SCOPE_PREFIX", "millrace/"), ("SCOPE_CLAIM", "permissions"), ("SCOPE_CLAIM", "scp,roles"));
    for (settings, event, status) in [
        (&[][..], &own, 200),
        (&[], &cognito, 403),
        (&[prefix], &cognito, 200),
        (&[prefix], &own, 403),
        (&[permissions], &auth0, 200),
        (&[permissions], &own, 403),
        (&[roles], &entra, 200),
        (&[], &entra, 403),
    ] {
        let api = service.api_with(&[&[("AUTH", "jwt")], settings].concat());
        let response = deliver_batch(&api, event).await;
        assert_eq!(response.status, status, "{settings:?}: {}", response.text);
    }
    let refused = deliver_batch(&service.api_with(&[("AUTH", "jwt"), prefix]), &own).await;
    let challenge = r#"Bearer error="insufficient_scope", scope="millrace/users:read""#;
    assert_eq!(refused.header("www-authenticate"), challenge);
    assert!(refused.json["detail"].as_str().unwrap().contains("millrace/users:admin"), "{}", refused.text);
}

#[tokio::test]
async fn search_paths_return_404_with_the_setting_while_the_tier_is_off() {
    let service = UsersService::start().await;
    let paths = ["/search/users?status=active", "/users/ada/summary", "/stats/users"];
    for settings in [&[][..], &[("RELATIONAL_TIER", "none")], &[("RELATIONAL_TIER", "none"), ("AUTH", "jwt")]] {
        let api = service.api_with(settings);
        for (path, method) in paths.into_iter().flat_map(|path| [(path, "GET"), (path, "POST"), (path, "PUT")]) {
            let response = api.send(method, path, &[], "").await;
            assert_eq!((response.status, response.problem()), (404, "relational-tier-off"), "{method} {path}");
            let detail = response.json["detail"].as_str().unwrap();
            assert!(detail.contains("RelationalTier") && detail.contains("--postgres"), "{detail}");
        }
        let contract = api.get("/openapi.json").await.json;
        assert!(paths.iter().all(|path| contract["paths"].get(path.split('?').next().unwrap()).is_none()));
    }
    // With the tier enabled, the API receives the methods that search does not handle.
    let api = service.api_with(&[("RELATIONAL_TIER", "rds-postgres")]);
    for path in paths {
        let response = api.send("PUT", path, &[], "").await;
        assert_eq!((response.status, response.header("allow")), (405, "GET, HEAD, OPTIONS"), "{path}");
    }
    assert!(api.get("/openapi.json").await.json["paths"].get("/search/users").is_some());
}

#[tokio::test]
async fn a_token_s_claims_are_read_from_where_api_gateway_puts_them() {
    let service = UsersService::start().await;
    service.api().created("ada", 1_795_334_400).await;
    let api = service.api_with(&[("AUTH", "jwt")]);
    let own = payload("get-own-user");
    assert_eq!(deliver_batch(&api, &own).await.status, 200);
    for (part, other, status) in [
        (r#""sub": "ada""#, r#""sub": "eve""#, 404),
        ("users:read", "users:other", 403),
        ("1795345200", "1795341600", 401),
        (r#""claims""#, r#""claimed""#, 401),
    ] {
        assert!(own.contains(part));
        assert_eq!(deliver_batch(&api, &own.replace(part, other)).await.status, status, "{other}");
    }
    assert_eq!(deliver_batch(&api, &payload("get-user")).await.status, 401, "a signature is no token");
    let signed = service.api_with(&[("AUTH", "iam")]);
    assert_eq!(deliver_batch(&signed, &payload("get-user")).await.status, 200);
    assert_eq!(deliver_batch(&signed, &own).await.status, 401, "a token is no signature");
}

/// Paths of a client, and the paths that API Gateway passes on: decoded once.
const DECODED: [(&str, &str); 12] = [
    ("/users/r1/1%230", "/users/r1/1#0"),
    ("/users/r1/1%3Flimit=1", "/users/r1/1?limit=1"),
    ("/users/r1%5C1", "/users/r1\\1"),
    ("/users/r%091/1", "/users/r\t1/1"),
    ("/users/r1/1%0A", "/users/r1/1\n"),
    ("/users/r1/../r1/1", "/users/r1/../r1/1"),
    ("/users/alice/%2e%2E/r1/1", "/users/alice/../r1/1"),
    ("/users/./r1/1", "/users/./r1/1"),
    ("/users/r1/%2531", "/users/r1/%31"),
    ("/users/r1/1%00", "/users/r1/1\0"),
    ("/users/r%C3%A9/1", "/users/r\u{e9}/1"),
    ("/users//r1/1", "/users//r1/1"),
];

#[tokio::test]
async fn a_path_that_is_not_canonical_is_400_on_lambda_and_behind_a_socket_and_changes_nothing() {
    let service = UsersService::start().await;
    let api = service.api();
    api.created("r1", 1).await;
    for (encoded, decoded) in DECODED {
        let mut event: serde_json::Value = serde_json::from_str(&payload("delete-user")).unwrap();
        event["rawPath"] = decoded.into();
        event["requestContext"]["http"]["path"] = decoded.into();
        for (host, query) in [(true, ""), (false, ""), (true, "fields=name&x=%23+#")] {
            if !host {
                event["headers"].as_object_mut().unwrap().remove("host");
            }
            event["rawQueryString"] = query.into();
            let refused = deliver_batch(&api, &event.to_string()).await;
            assert_eq!((refused.status, refused.problem()), (400, "invalid-path"), "{decoded:?}: {}", refused.text);
        }
        let refused = api.delete(encoded).await;
        assert_eq!((refused.status, refused.problem()), (400, "invalid-path"), "{encoded}: {}", refused.text);
    }
    assert!(service.item("r1", 1).await.is_some(), "the record stays");
}

#[tokio::test]
async fn a_path_that_is_authorized_as_another_route_is_refused() {
    let service = UsersService::start().await;
    let api = service.api();
    api.created("r1", 1).await;
    // `DELETE /users/r1%2F1`: one segment for a gateway that matches the encoded path.
    let mut event: serde_json::Value = serde_json::from_str(&payload("delete-user")).unwrap();
    event["rawPath"] = "/users/r1/1".into();
    event["requestContext"]["routeKey"] = "DELETE /users/{user_id}".into();
    let refused = deliver_batch(&api, &event.to_string()).await;
    assert_eq!((refused.status, refused.problem()), (400, "invalid-path"), "{}", refused.text);
    let refused = api.delete("/users/r1%2F1").await;
    assert_eq!((refused.status, refused.problem()), (400, "invalid-path"), "{}", refused.text);
    assert!(service.item("r1", 1).await.is_some());
    event["requestContext"]["routeKey"] = "$default".into();
    assert_eq!(deliver_batch(&api, &event.to_string()).await.status, 204, "a gateway without routes");
}

#[tokio::test]
async fn a_route_of_the_gateway_whose_parameters_fit_is_the_router_s() {
    let service = UsersService::start().await;
    let api = service.api();
    for (name, path, status, problem) in [
        ("get-user", "/users/ada/summary", 404, "relational-tier-off"),
        ("replace-user", "/users/ada/latest", 405, "method-not-allowed"),
        ("delete-user", "/users/ada/latest", 405, "method-not-allowed"),
    ] {
        let mut event: serde_json::Value = serde_json::from_str(&payload(name)).unwrap();
        assert!(event["requestContext"]["routeKey"].as_str().unwrap().ends_with("/users/{user_id}/{timestamp}"));
        event["rawPath"] = path.into();
        let refused = deliver_batch(&api, &event.to_string()).await;
        assert_eq!((refused.status, refused.problem()), (status, problem), "{path}: {}", refused.text);
    }
}

#[tokio::test]
async fn an_identifier_s_every_character_comes_through_and_so_does_the_query() {
    let service = UsersService::start().await;
    let api = service.api();
    let id = "auth0|a+b@c.d~e_f-g:h";
    api.created(id, 7).await;
    let mut event: serde_json::Value = serde_json::from_str(&payload("get-user")).unwrap();
    event["rawPath"] = format!("/users/{id}/7").into();
    event["rawQueryString"] = "fields=user%5Fid".into();
    let read = deliver_batch(&api, &event.to_string()).await;
    assert_eq!((read.status, read.json["user"]["user_id"].as_str()), (200, Some(id)), "{}", read.text);
    assert_eq!(read.json["user"].as_object().unwrap().len(), 1, "the query is there");
    for path in ["/users/auth0%7Ca+b@c.d~e_f-g:h/7", "/%75sers/auth0|a%2bb%40c.d~e_f-g:h/%37"] {
        assert_eq!(api.get(path).await.json["user"], api.get("/users/auth0|a+b@c.d~e_f-g:h/7").await.json["user"]);
    }
}
