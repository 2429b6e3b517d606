//! Signature Version 4 for requests that differ only in operation, body and time: [`RequestSigner`].
//!
//! Every request has the same method, path and headers, so the canonical request has a fixed form and the derived key
//! is computed once a day. `aws-sigv4` derives the key, and a test compares the signatures with those of the crate.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_lc_rs::digest::{SHA256, digest};
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
    /// The key of the last signature's day.
    key: Mutex<Option<([u8; DAY], hmac::Key)>>,
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
        Ok(Self { credentials, scope, host, token, key: Mutex::new(None) })
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
        let timestamp = format_timestamp(at);
        let timestamp = std::str::from_utf8(&timestamp).unwrap_or_default();
        let day = &timestamp[..DAY];
        let signed_headers = if self.token.is_some() {
            "content-type;host;x-amz-date;x-amz-security-token;x-amz-target"
        } else {
            "content-type;host;x-amz-date;x-amz-target"
        };
        let SigningScope { region, service, host, path } = &self.scope;

        let mut text = String::with_capacity(512 + self.token.as_ref().map_or(0, HeaderValue::len));
        for part in ["POST\n", path, "\n\ncontent-type:", CONTENT, "\nhost:", host, "\nx-amz-date:", timestamp, "\n"] {
            text.push_str(part);
        }
        if let Some(token) = self.credentials.session_token() {
            for part in ["x-amz-security-token:", token.trim(), "\n"] {
                text.push_str(part);
            }
        }
        for part in ["x-amz-target:", target.to_str().unwrap_or_default(), "\n\n", signed_headers, "\n"] {
            text.push_str(part);
        }
        push_hex(&mut text, digest(&SHA256, body).as_ref());
        let canonical = digest(&SHA256, text.as_bytes());

        text.clear();
        for part in ["AWS4-HMAC-SHA256\n", timestamp, "\n", day, "/", region, "/", service, "/aws4_request\n"] {
            text.push_str(part);
        }
        push_hex(&mut text, canonical.as_ref());
        let signature = self.with_key(day, at, |key| hmac::sign(key, text.as_bytes()));

        text.clear();
        let access_key = self.credentials.access_key_id();
        for part in ["AWS4-HMAC-SHA256 Credential=", access_key, "/", day, "/", region, "/", service, "/aws4_request"] {
            text.push_str(part);
        }
        for part in [", SignedHeaders=", signed_headers, ", Signature="] {
            text.push_str(part);
        }
        push_hex(&mut text, signature.as_ref());

        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(HOST, self.host.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT));
        headers.insert(TARGET, target.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        // Both consist of visible ASCII characters, unless the access key does not: the service rejects it then.
        if let Ok(value) = HeaderValue::from_str(timestamp) {
            headers.insert(DATE, value);
        }
        if let Ok(mut value) = HeaderValue::try_from(text) {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        if let Some(token) = &self.token {
            headers.insert(TOKEN, token.clone());
        }
        headers
    }

    fn with_key<T>(&self, day: &str, at: SystemTime, sign: impl FnOnce(&hmac::Key) -> T) -> T {
        let mut known = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        let key = match known.take() {
            Some((of, key)) if of == day.as_bytes() => key,
            _ => {
                let SigningScope { region, service, .. } = &self.scope;
                let key = generate_signing_key(self.credentials.secret_access_key(), at, region, service);
                hmac::Key::new(hmac::HMAC_SHA256, key.as_ref())
            }
        };
        let signature = sign(&key);
        *known = day.as_bytes().try_into().ok().map(|day| (day, key));
        signature
    }
}

/// Formats a time as `20261128T101500Z`.
fn format_timestamp(at: SystemTime) -> [u8; 16] {
    let at = OffsetDateTime::from(at);
    let mut text = *b"00000000T000000Z";
    let mut put = |place: usize, digits: usize, mut number: u32| {
        for index in (place..place + digits).rev() {
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
                    }
                }
            }
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
