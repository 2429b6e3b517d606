//! Decides which requests the console serves: [`RequestGuard`].
//!
//! The console listens on the loopback interface only. That does not keep out the pages of other hosts that a browser on
//! this machine shows: they can send requests to the port (cross-site requests), and give it their own name (DNS
//! rebinding). Therefore the `Host` must be that of the console, and a request that changes something must come from a
//! page of the console and contain the token that only these pages have.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

/// The headers of every response, which is stored only if it says so itself.
const HEADERS: [(HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
];

/// The rules for requests to one console.
#[derive(Debug)]
pub(crate) struct RequestGuard {
    hosts: [String; 2],
    token: String,
}

/// Why a request is rejected, with the fix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RejectedRequestError {
    #[error("the Host is {found:?}: open the console as http://{expected}")]
    Host { found: String, expected: String },
    #[error(
        "the request does not come from a page of the console (Sec-Fetch-Site is {0:?}): open the console, and repeat it there"
    )]
    Site(String),
    #[error(
        "the form's token is not that of this console, which was restarted since: go back, reload the page, and repeat it"
    )]
    Token,
}

impl RequestGuard {
    /// Creates the rules of a console at this address.
    pub(crate) fn new(address: &str, token: String) -> Self {
        let port = address.rsplit_once(':').map_or("", |(_, port)| port);
        Self { hosts: [address.to_owned(), format!("localhost:{port}")], token }
    }

    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Checks the headers of a request. The token of a form is checked by [`RequestGuard::check_token`], after its body
    /// was read.
    pub(crate) fn check(&self, method: &Method, headers: &HeaderMap) -> Result<(), RejectedRequestError> {
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let host = text(header::HOST);
        if !self.hosts.iter().any(|own| own == host) {
            return Err(RejectedRequestError::Host { found: host.to_owned(), expected: self.hosts[0].clone() });
        }
        if matches!(*method, Method::GET | Method::HEAD) {
            return Ok(());
        }
        let site = text(HeaderName::from_static("sec-fetch-site"));
        if site == "same-origin" { Ok(()) } else { Err(RejectedRequestError::Site(site.to_owned())) }
    }

    /// Checks the token of a form.
    pub(crate) fn check_token(&self, token: Option<&str>) -> Result<(), RejectedRequestError> {
        if token == Some(&self.token) { Ok(()) } else { Err(RejectedRequestError::Token) }
    }
}

impl RejectedRequestError {
    /// Returns the response, as plain text: it goes to no page of the console.
    pub(crate) fn into_response(self) -> Response {
        let text = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
        (StatusCode::FORBIDDEN, text, format!("rejected: {self}\n")).into_response()
    }
}

/// Rejects requests that no page of the console has sent, and adds the headers of every response.
pub(crate) async fn guard(State(guard): State<Arc<RequestGuard>>, request: Request, next: Next) -> Response {
    let mut response = match guard.check(request.method(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(rejected) => rejected.into_response(),
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(method: &Method, host: &str, site: Option<&str>) -> Result<(), RejectedRequestError> {
        let guard = RequestGuard::new("127.0.0.1:8090", "secret".to_owned());
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(site) = site {
            headers.insert("sec-fetch-site", site.parse().unwrap());
        }
        guard.check(method, &headers)
    }

    #[test]
    fn host_of_another_name_is_rejected() {
        for host in ["127.0.0.1:8090", "localhost:8090"] {
            assert_eq!(checked(&Method::GET, host, None), Ok(()));
        }
        for host in ["evil.example:8090", "127.0.0.1", "localhost:80", "127.0.0.1:8090.evil.example", ""] {
            assert!(matches!(checked(&Method::GET, host, None), Err(RejectedRequestError::Host { .. })), "{host}");
        }
    }

    #[test]
    fn change_from_another_site_is_rejected() {
        let post = |site| checked(&Method::POST, "localhost:8090", site);
        assert_eq!(post(Some("same-origin")), Ok(()));
        for site in [None, Some("cross-site"), Some("same-site"), Some("none")] {
            assert!(matches!(post(site), Err(RejectedRequestError::Site(_))), "{site:?}");
        }
        for method in [Method::PUT, Method::DELETE, Method::OPTIONS] {
            assert!(checked(&method, "localhost:8090", None).is_err());
        }
    }

    #[test]
    fn only_the_own_token_is_accepted() {
        let guard = RequestGuard::new("127.0.0.1:8090", "secret".to_owned());
        assert_eq!(guard.check_token(Some("secret")), Ok(()));
        for token in [None, Some(""), Some("secret "), Some("Secret")] {
            assert_eq!(guard.check_token(token), Err(RejectedRequestError::Token));
        }
    }
}
