//! The part of a request's path that precedes the routes: the name of a stage, or the base path of an API mapping.
//!
//! API Gateway leaves both in the path that it passes on. A request that arrives at the API's own host name has the
//! stage's name in its path; a request that arrives at a custom domain has the mapping's base path instead. The routes
//! contain neither. The paths in a response (`Location`, `Link`) start with the prefix that was removed from the
//! request, so that a client can follow them.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::Uri;

use crate::gateway::GatewayContext;
use crate::path::StagePrefix;

/// The stage whose name never occurs in a path.
const DEFAULT_STAGE: &str = "$default";
/// The first segments of the routes of all HTTP functions: a base path that starts with one of them would hide routes.
const ROUTES: [&str; 6] = ["users", "users:batchGet", "search", "stats", "health", "openapi.json"];

/// The base path of an API mapping; empty by default.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct BasePath(Option<Arc<str>>);

impl BasePath {
    /// Parses a base path such as `/v1` or `/people/v1`.
    ///
    /// # Errors
    /// The text does not start with a slash, ends with one, contains characters other than letters, digits, `-`, `_`
    /// and `.`, or starts with the first segment of a route.
    pub fn parse(text: &str) -> Result<Self, String> {
        let segments: Vec<&str> = text.strip_prefix('/').unwrap_or_default().split('/').collect();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_segment = |segment: &&str| !matches!(*segment, "" | "." | "..") && segment.bytes().all(allowed);
        if !segments.iter().all(is_segment) {
            return Err(format!(
                "is {text:?}: set it to a slash and the key of the API mapping, such as /v1, with letters, digits and -_."
            ));
        }
        if ROUTES.contains(&segments[0]) {
            return Err(format!("is {text:?}: choose another base path, routes begin with {}", ROUTES.join(", ")));
        }
        Ok(Self(Some(text.into())))
    }

    /// Removes the stage and the base path from a request's path.
    pub(crate) fn take_off(&self, mut request: Request) -> Request {
        let (stage, is_own) = match request.extensions().get::<GatewayContext>() {
            Some(context) => {
                let is_own = is_own_host(context.domain_name.as_deref(), context.api_id.as_deref());
                (stage(context.stage.as_deref(), is_own), is_own)
            }
            None => (None, None),
        };
        let Some(path) = request.uri().path_and_query() else { return request };
        // A request at the API's own host name does not pass through a mapping, so the base path is not removed: API
        // Gateway has authorized the full path.
        let base = self.0.as_deref().filter(|_| is_own != Some(true));
        let before = before(path.path(), stage, base);
        if before == 0 {
            return request;
        }
        let (before, rest) = path.as_str().split_at(before);
        let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
        let before = StagePrefix(before.to_owned());
        if let Ok(uri) = Uri::try_from(rest) {
            *request.uri_mut() = uri;
            request.extensions_mut().insert(before);
        }
        request
    }
}

/// Returns the length in bytes of the prefix that precedes the routes.
fn before(path: &str, stage: Option<&str>, base: Option<&str>) -> usize {
    let stage = stage.and_then(|stage| {
        let name = path.strip_prefix('/')?;
        whole_segments(name, stage).then_some(stage.len() + 1)
    });
    let stage = stage.unwrap_or(0);
    let base = base.filter(|base| whole_segments(&path[stage..], base));
    stage + base.map_or(0, str::len)
}

/// Returns whether a path starts with these segments: `/v10` does not start with `/v1`.
fn whole_segments(path: &str, start: &str) -> bool {
    path.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Returns whether the request arrived at the API's own host name, or `None` if that is unknown.
fn is_own_host(domain: Option<&str>, api: Option<&str>) -> Option<bool> {
    let (domain, api) = domain.zip(api)?;
    Some(domain.strip_prefix(api).is_some_and(|rest| rest.starts_with(".execute-api.")))
}

/// Returns the stage whose name is in the path: `None` for a custom domain, whose mapping has already selected the
/// stage.
fn stage(stage: Option<&str>, is_own: Option<bool>) -> Option<&str> {
    stage.filter(|stage| !stage.is_empty() && *stage != DEFAULT_STAGE && is_own != Some(false))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use serde_json::json;

    use super::*;

    const OWN: &str = "abc.execute-api.eu-west-1.amazonaws.com";

    /// Returns the prefix that is removed from a request, and the URI that the routes receive.
    fn taken(base: &str, stage: &str, domain: &str, path: &str) -> (String, String) {
        let context: GatewayContext = serde_json::from_value(json!({
            "stage": stage, "apiId": "abc", "domainName": domain, "requestId": "r", "timeEpoch": 0,
            "http": {"method": "GET", "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "t"},
        }))
        .unwrap();
        let base = if base.is_empty() { BasePath::default() } else { BasePath::parse(base).unwrap() };
        let request = Request::builder().uri(path).extension(context).body(Body::empty()).unwrap();
        let request = base.take_off(request);
        let before = request.extensions().get::<StagePrefix>().cloned().unwrap_or_default();
        (before.0, request.uri().to_string())
    }

    #[test]
    fn base_path_is_taken_off_as_whole_segments() {
        for (base, path, before, rest) in [
            ("/v1", "/v1/users/ada?limit=1", "/v1", "/users/ada?limit=1"),
            ("/v1", "/v1", "/v1", "/"),
            ("/v1", "/v1?a=b", "/v1", "/?a=b"),
            ("/v1", "/v1/", "/v1", "/"),
            ("/people/v1", "/people/v1/health", "/people/v1", "/health"),
            ("/v1", "/v10/users", "", "/v10/users"),
            ("/v1", "/users/v1", "", "/users/v1"),
            ("/v1", "/V1/users", "", "/V1/users"),
            ("/people/v1", "/people/users", "", "/people/users"),
            ("", "/v1/users", "", "/v1/users"),
        ] {
            let expected = (before.to_owned(), rest.to_owned());
            assert_eq!(taken(base, "$default", "api.example.com", path), expected, "{base} {path}");
        }
    }

    #[test]
    fn stage_is_taken_off_paths_of_the_own_domain_alone() {
        for (stage, domain, path, before, rest) in [
            ("prod", OWN, "/prod/users", "/prod", "/users"),
            ("prod", OWN, "/prod", "/prod", "/"),
            ("prod", OWN, "/productions", "", "/productions"),
            ("users", OWN, "/users/users", "/users", "/users"),
            // On a custom domain the mapping has selected the stage, so the path does not contain its name.
            ("users", "api.example.com", "/users/ada", "", "/users/ada"),
            ("v1", "api.example.com", "/v1/users", "/v1", "/users"),
            ("prod", "api.example.com", "/prod/users", "", "/prod/users"),
            ("$default", OWN, "/$default/users", "", "/$default/users"),
            // A request at the API's own host name does not pass through a mapping: the base path is part of the path
            // that API Gateway has authorized.
            ("$default", OWN, "/v1/users/bob/1", "", "/v1/users/bob/1"),
            ("prod", OWN, "/prod/v1/users", "/prod", "/v1/users"),
            ("prod", "abcd.execute-api.eu-west-1.amazonaws.com", "/prod/users", "", "/prod/users"),
        ] {
            let expected = (before.to_owned(), rest.to_owned());
            assert_eq!(taken("/v1", stage, domain, path), expected, "{stage} {domain} {path}");
        }
    }

    #[test]
    fn base_path_that_no_mapping_has_is_refused() {
        for text in ["v1", "/", "//", "/v1/", "/v1//a", "/a b", "/a%20b", "/..", "/v1/.", "/é", "/a?b", "/$v"] {
            assert!(BasePath::parse(text).unwrap_err().contains("such as /v1"), "{text}");
        }
        for text in ["/users", "/users/v1", "/health", "/search"] {
            assert!(BasePath::parse(text).unwrap_err().contains("choose another"), "{text}");
        }
        assert!(BasePath::parse("/users-v1").is_ok());
    }
}
