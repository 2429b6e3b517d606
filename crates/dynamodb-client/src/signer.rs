//! Signature Version 4 for requests that differ only in operation, body and time: [`RequestSigner`].
//!
//! Every request has the same method, path and headers, so the canonical request has a fixed form and the derived key
//! is computed once a day. `aws-sigv4` derives the key, and a test compares the signatures with those of the crate.

use std::fmt;
use std::str;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_lc_rs::digest::{Context, SHA256, digest};
use aws_lc_rs::hmac;
use aws_sigv4::sign::v4::generate_signing_key;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, InvalidHeaderValue, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};
use time::OffsetDateTime;

const CONTENT: &str = "application/x-amz-json-1.0";
/// The header `User-Agent`, which the signature does not cover. The audit log of AWS records it.
const AGENT: &str = concat!("millrace/", env!("CARGO_PKG_VERSION"));
const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
const TARGET: HeaderName = HeaderName::from_static("x-amz-target");

/// The length of a date such as `20261128`.
const DAY: usize = 8;
/// The length of a time such as `20261128T101500Z`.
const TIMESTAMP: usize = 16;

/// The scope of a signature, and the request's part that never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SigningScope {
    pub(crate) region: String,
    pub(crate) service: String,
    /// The header `Host`.
    pub(crate) host: String,
    /// The path, which contains no character that a signature would escape.
    pub(crate) path: String,
}

/// Signs requests with the same credentials. `Debug` does not show them.
pub(crate) struct RequestSigner {
    credentials: Credentials,
    scope: SigningScope,
    host: HeaderValue,
    token: Option<HeaderValue>,
    /// The request line and the headers that never change, as they are sent over HTTP/1.1.
    head: Vec<u8>,
    known: Mutex<Option<SignatureBase>>,
}

/// The parts of the last signature that do not depend on the body.
struct SignatureBase {
    timestamp: [u8; TIMESTAMP],
    target: HeaderValue,
    /// The digest of the canonical request up to the digest of the body. With a session token it is the longest part.
    canonical: Context,
    /// The key of the day.
    key: hmac::Key,
}

impl fmt::Debug for RequestSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestSigner").field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl RequestSigner {
    /// Creates a signer. Fails if the host or the session token is not a valid header value.
    pub(crate) fn new(credentials: Credentials, scope: SigningScope) -> Result<Self, InvalidHeaderValue> {
        let token = credentials.session_token().map(HeaderValue::from_str).transpose()?.map(|mut token| {
            token.set_sensitive(true);
            token
        });
        let host = HeaderValue::from_str(&scope.host)?;
        let mut head = Vec::with_capacity(256 + token.as_ref().map_or(0, HeaderValue::len));
        for part in [b"POST ".as_slice(), scope.path.as_bytes(), b" HTTP/1.1\r\nhost: ", host.as_bytes()] {
            head.extend_from_slice(part);
        }
        for (name, value) in [("content-type", CONTENT), ("user-agent", AGENT)] {
            head.extend_from_slice(format!("\r\n{name}: {value}").as_bytes());
        }
        if let Some(token) = &token {
            head.extend_from_slice(b"\r\nx-amz-security-token: ");
            head.extend_from_slice(token.as_bytes());
        }
        head.extend_from_slice(b"\r\n");
        Ok(Self { credentials, scope, host, token, head, known: Mutex::new(None) })
    }

    /// Returns whether the signer has these credentials and this scope.
    pub(crate) fn is_of(&self, credentials: &Credentials, scope: &SigningScope) -> bool {
        let same = |credentials: &Credentials| {
            credentials.access_key_id() == self.credentials.access_key_id()
                && credentials.session_token() == self.credentials.session_token()
                && credentials.secret_access_key() == self.credentials.secret_access_key()
        };
        same(credentials) && self.scope == *scope
    }

    /// Returns the headers of the request that calls `target` with `body`, signed at this time.
    pub(crate) fn sign(&self, target: &HeaderValue, body: &[u8], at: SystemTime) -> HeaderMap {
        let (timestamp, authorization) = self.authorize(target, body, at);
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(HOST, self.host.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT));
        headers.insert(TARGET, target.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        if let Ok(value) = HeaderValue::from_bytes(&timestamp) {
            headers.insert(DATE, value);
        }
        if let Some(mut value) = authorization.and_then(|text| HeaderValue::try_from(text).ok()) {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        if let Some(token) = &self.token {
            headers.insert(TOKEN, token.clone());
        }
        headers
    }

    /// Returns the request that calls `target` with `body`, signed at this time, as it is sent over HTTP/1.1.
    pub(crate) fn render(&self, target: &HeaderValue, body: &[u8], at: SystemTime) -> Vec<u8> {
        let (timestamp, authorization) = self.authorize(target, body, at);
        let authorization = authorization.unwrap_or_default();
        let mut request = Vec::with_capacity(self.head.len() + authorization.len() + body.len() + 192);
        for part in [self.head.as_slice(), b"x-amz-target: ", target.as_bytes(), b"\r\nx-amz-date: ", &timestamp] {
            request.extend_from_slice(part);
        }
        if !authorization.is_empty() {
            request.extend_from_slice(b"\r\nauthorization: ");
            request.extend_from_slice(authorization.as_bytes());
        }
        request.extend_from_slice(b"\r\ncontent-length: ");
        request.extend_from_slice(body.len().to_string().as_bytes());
        request.extend_from_slice(b"\r\n\r\n");
        request.extend_from_slice(body);
        request
    }

    /// Returns the headers `x-amz-date` and `authorization`. The latter is left out if the access key or the scope is
    /// not ASCII text, which no valid one is: the service rejects the request.
    fn authorize(&self, target: &HeaderValue, body: &[u8], at: SystemTime) -> ([u8; TIMESTAMP], Option<String>) {
        let timestamp = format_timestamp(at);
        let date = str::from_utf8(&timestamp).unwrap_or_default();
        let day = &date[..DAY];
        let SigningScope { region, service, .. } = &self.scope;
        let access_key = self.credentials.access_key_id();
        let signed_headers = self.signed_headers();

        let mut text = String::with_capacity(320);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match &mut *known {
            Some(known) if known.timestamp == timestamp && known.target == *target => known,
            known => known.insert(self.prepare(known.as_ref(), target, timestamp, at)),
        };
        push_hex(&mut text, digest(&SHA256, body).as_ref());
        let mut canonical = known.canonical.clone();
        canonical.update(text.as_bytes());
        let canonical = canonical.finish();

        text.clear();
        for part in ["AWS4-HMAC-SHA256\n", date, "\n", day, "/", region, "/", service, "/aws4_request\n"] {
            text.push_str(part);
        }
        push_hex(&mut text, canonical.as_ref());
        let signature = hmac::sign(&known.key, text.as_bytes());

        text.clear();
        for part in ["AWS4-HMAC-SHA256 Credential=", access_key, "/", day, "/", region, "/", service, "/aws4_request"] {
            text.push_str(part);
        }
        for part in [", SignedHeaders=", signed_headers, ", Signature="] {
            text.push_str(part);
        }
        push_hex(&mut text, signature.as_ref());
        let is_text = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        (timestamp, is_text.then_some(text))
    }

    /// Computes the parts of a signature that are the same for all requests of one second to `target`.
    fn prepare(
        &self,
        known: Option<&SignatureBase>,
        target: &HeaderValue,
        timestamp: [u8; TIMESTAMP],
        at: SystemTime,
    ) -> SignatureBase {
        let SigningScope { region, service, host, path } = &self.scope;
        let date = str::from_utf8(&timestamp).unwrap_or_default();
        let mut canonical = Context::new(&SHA256);
        let mut push = |parts: &[&str]| parts.iter().for_each(|part| canonical.update(part.as_bytes()));
        push(&["POST\n", path, "\n\ncontent-type:", CONTENT, "\nhost:", host, "\nx-amz-date:", date, "\n"]);
        if let Some(token) = self.credentials.session_token() {
            push(&["x-amz-security-token:", token.trim(), "\n"]);
        }
        push(&["x-amz-target:", target.to_str().unwrap_or_default(), "\n\n", self.signed_headers(), "\n"]);
        let same_day = known.filter(|known| known.timestamp[..DAY] == timestamp[..DAY]);
        let derive = || {
            let key = generate_signing_key(self.credentials.secret_access_key(), at, region, service);
            hmac::Key::new(hmac::HMAC_SHA256, key.as_ref())
        };
        let key = same_day.map_or_else(derive, |known| known.key.clone());
        SignatureBase { timestamp, target: target.clone(), canonical, key }
    }

    fn signed_headers(&self) -> &'static str {
        if self.token.is_some() {
            "content-type;host;x-amz-date;x-amz-security-token;x-amz-target"
        } else {
            "content-type;host;x-amz-date;x-amz-target"
        }
    }
}

/// Formats a time as `20261128T101500Z`.
fn format_timestamp(at: SystemTime) -> [u8; TIMESTAMP] {
    let at = OffsetDateTime::from(at);
    let mut text = *b"00000000T000000Z";
    let mut put = |start: usize, digits: usize, mut number: u32| {
        for index in (start..start + digits).rev() {
            text[index] = b'0' + u8::try_from(number % 10).unwrap_or_default();
            number /= 10;
        }
    };
    put(0, 4, at.year().unsigned_abs());
    put(4, 2, u8::from(at.month()).into());
    put(6, 2, at.day().into());
    put(9, 2, at.hour().into());
    put(11, 2, at.minute().into());
    put(13, 2, at.second().into());
    text
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_sdk_dynamodb::config::Credentials;
    use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
    use aws_sigv4::sign::v4;
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    /// Returns the header `authorization` that `aws-sigv4` computes for the request.
    fn expected(credentials: Credentials, scope: &SigningScope, target: &str, body: &[u8], at: SystemTime) -> String {
        let identity = credentials.into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&scope.region)
            .name(&scope.service)
            .time(at)
            .settings(SigningSettings::default())
            .build()
            .unwrap();
        let headers = [("content-type", CONTENT), ("x-amz-target", target), ("host", scope.host.as_str())];
        let url = format!("https://{}{}", scope.host, scope.path);
        let request = SignableRequest::new("POST", url, headers.into_iter(), SignableBody::Bytes(body)).unwrap();
        let (instructions, _) = sign(request, &params.into()).unwrap().into_parts();
        let mut headers = instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned()));
        headers.find(|(name, _)| name == "authorization").unwrap().1
    }

    /// Checks that the request, as it is sent, has these headers and this body.
    fn is_same_request(request: &[u8], scope: &SigningScope, headers: &HeaderMap, body: &str) {
        let text = str::from_utf8(request).unwrap();
        let (head, sent) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(sent, body);
        let mut lines = head.split("\r\n");
        assert_eq!(lines.next(), Some(format!("POST {} HTTP/1.1", scope.path).as_str()));
        let mut sent = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            assert!(sent.insert(name, HeaderValue::from_str(value).unwrap()).is_none(), "{line}");
        }
        assert_eq!(sent.remove("content-length").unwrap(), body.len().to_string());
        assert_eq!(&sent, headers);
    }

    #[test]
    fn signature_is_that_of_aws_sigv4() {
        let day = 86_400;
        for token in [None, Some("AQoDYXdzEPT//////////wEXAMPLE=")] {
            for (host, path) in
                [("dynamodb.eu-west-1.amazonaws.com", "/"), ("127.0.0.1:8000", "/"), ("proxy", "/a-b/c")]
            {
                let credentials =
                    Credentials::new("AKIDEXAMPLE", "secret/+key", token.map(str::to_owned), None, "test");
                let scope = SigningScope {
                    region: "eu-west-1".to_owned(),
                    service: "dynamodb".to_owned(),
                    host: host.to_owned(),
                    path: path.to_owned(),
                };
                let signer = RequestSigner::new(credentials.clone(), scope.clone()).unwrap();
                // The same signer signs on several days, also in their order reversed.
                for at in [1_795_334_400, 1_795_334_400 + day, 1_795_334_399, 951_782_399, 951_782_400] {
                    for body in ["", r#"{"TableName":"Users","Item":{"k":{"S":"é"}}}"#] {
                        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(at);
                        let target = "DynamoDB_20120810.PutItem";
                        let headers = signer.sign(&HeaderValue::from_static(target), body.as_bytes(), at);
                        let expected = expected(credentials.clone(), &scope, target, body.as_bytes(), at);
                        assert_eq!(headers[AUTHORIZATION].to_str().unwrap(), expected);
                        assert_eq!(headers.contains_key(TOKEN), token.is_some());
                        assert_eq!(headers[HOST], host);
                        let request = signer.render(&HeaderValue::from_static(target), body.as_bytes(), at);
                        is_same_request(&request, &scope, &headers, body);
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn signatures_of_any_requests_in_any_order_are_those_of_aws_sigv4(
            (key, secret, token) in ("[A-Z0-9]{1,20}", "[!-~]{1,40}", option::of("[!-~]{1,60}")),
            (region, host) in ("[a-z]{2}-[a-z]{4,9}-[1-9]", "[a-z0-9.]{1,30}[a-z]"),
            requests in vec((0..4_000_000_000_u64, "[A-Za-z]{1,12}", ".{0,80}"), 1..6),
        ) {
            let credentials = Credentials::new(key, secret, token, None, "test");
            let scope = SigningScope { region, service: "dynamodb".to_owned(), host, path: "/".to_owned() };
            let signer = RequestSigner::new(credentials.clone(), scope.clone()).unwrap();
            // Each request is repeated in the same second, as well as in the second and on the day after it.
            let times = requests.iter().flat_map(|(at, target, body)| {
                [0, 0, 1, 86_400, 1].map(|later| (at + later, target.as_str(), body.as_str()))
            });
            for (at, target, body) in times {
                let at = SystemTime::UNIX_EPOCH + Duration::from_secs(at);
                let headers = signer.sign(&HeaderValue::from_str(target).unwrap(), body.as_bytes(), at);
                let expected = expected(credentials.clone(), &scope, target, body.as_bytes(), at);
                prop_assert_eq!(headers[AUTHORIZATION].to_str().unwrap(), expected);
                let request = signer.render(&HeaderValue::from_str(target).unwrap(), body.as_bytes(), at);
                is_same_request(&request, &scope, &headers, body);
            }
        }
    }

    #[test]
    fn scope_that_is_not_text_adds_no_line_to_the_request() {
        let credentials = Credentials::new("AKID\r\nx-injected: 1", "secret", None, None, "test");
        let scope = SigningScope {
            region: "eu-west-1".to_owned(),
            service: "dynamodb".to_owned(),
            host: "h".to_owned(),
            path: "/".to_owned(),
        };
        let signer = RequestSigner::new(credentials, scope.clone()).unwrap();
        let (target, at) = (HeaderValue::from_static("t"), SystemTime::UNIX_EPOCH);
        let headers = signer.sign(&target, b"{}", at);
        assert!(!headers.contains_key(AUTHORIZATION));
        is_same_request(&signer.render(&target, b"{}", at), &scope, &headers, "{}");
        let hosts = ["h\r\nx: y", "h\n"].map(|host| SigningScope { host: host.to_owned(), ..scope.clone() });
        for scope in hosts {
            assert!(RequestSigner::new(Credentials::new("A", "s", None, None, "test"), scope).is_err());
        }
    }

    #[test]
    fn other_credentials_need_another_signer_and_none_are_shown() {
        let of = |key: &str, token: &str| Credentials::new("AKIDEXAMPLE", key, Some(token.to_owned()), None, "test");
        let scope = SigningScope {
            region: "eu-west-1".to_owned(),
            service: "dynamodb".to_owned(),
            host: "h".to_owned(),
            path: "/".to_owned(),
        };
        let signer = RequestSigner::new(of("s3cret", "t0ken"), scope.clone()).unwrap();
        assert!(signer.is_of(&of("s3cret", "t0ken"), &scope));
        assert!(!signer.is_of(&of("s3cret", "other"), &scope) && !signer.is_of(&of("other", "t0ken"), &scope));
        assert!(!signer.is_of(&of("s3cret", "t0ken"), &SigningScope { host: "other".to_owned(), ..scope }));
        let headers = signer.sign(&HeaderValue::from_static("t"), b"", SystemTime::UNIX_EPOCH);
        let shown = format!("{signer:?} {headers:?}");
        assert!(!shown.contains("s3cret") && !shown.contains("t0ken") && !shown.contains("Signature"), "{shown}");
    }
}
