//! Events and responses of an API Gateway HTTP API, payload version 2.0:
//! <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html>.
//!
//! Only the members that a function reads are parsed. The path of an event is decoded: it becomes the URI of a request
//! through [`crate::uri`], and never by parsing it as a URL, which would end it at a `#`, resolve `..` and decode `%`
//! again.

use std::collections::HashMap;
use std::fmt;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::response::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use millrace_shared::http::path::{PathError, RequestPath};
use serde::de::{MapAccess, Visitor};
use serde::ser::{SerializeMap as _, SerializeStruct as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The headers for which space is reserved: those that API Gateway adds, and some of the client.
const HEADERS: usize = 24;

/// The event of a request.
#[derive(Debug, Deserialize)]
#[serde(try_from = "EventMembers")]
pub struct GatewayEvent {
    uri: Result<Uri, PathError>,
    headers: HeaderMap,
    context: GatewayContext,
    body: Bytes,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EventMembers {
    #[serde(default)]
    raw_path: Option<String>,
    #[serde(default)]
    raw_query_string: Option<String>,
    #[serde(default)]
    headers: EventHeaders,
    request_context: GatewayContext,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    is_base64_encoded: bool,
}

impl TryFrom<EventMembers> for GatewayEvent {
    type Error = String;

    fn try_from(members: EventMembers) -> Result<Self, String> {
        let EventMembers { raw_path, raw_query_string, headers, request_context, body, is_base64_encoded } = members;
        let path = RequestPath::from_decoded(raw_path.as_deref().unwrap_or_default());
        let body = match body {
            Some(text) if is_base64_encoded => {
                let decoded = STANDARD.decode(text);
                decoded.map_err(|error| format!("isBase64Encoded is true, but the body is not base64: {error}"))?.into()
            }
            text => text.unwrap_or_default().into(),
        };
        Ok(Self {
            uri: path.and_then(|path| crate::uri::uri(&path, raw_query_string.as_deref())),
            headers: headers.0,
            context: request_context,
            body,
        })
    }
}

impl GatewayEvent {
    /// Converts the event to a request. If its path is not canonical, the request has the reason, which
    /// `crate::uri::refuse` returns.
    #[must_use]
    pub fn into_request(self) -> Request {
        let mut request = Request::new(Body::from(self.body));
        *request.method_mut() = self.context.http.method.clone();
        *request.headers_mut() = self.headers;
        crate::uri::put(&mut request, self.uri);
        let extensions = request.extensions_mut();
        extensions.insert(CanonicalUri);
        extensions.insert(self.context);
        request
    }
}

/// The context of a request, which API Gateway writes. A client cannot set it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayContext {
    pub(crate) stage: Option<String>,
    pub(crate) api_id: Option<String>,
    pub(crate) domain_name: Option<String>,
    pub(crate) route_key: Option<String>,
    pub(crate) authorizer: Option<GatewayAuthorizer>,
    http: RequestLine,
}

/// The result of a route's authorizer.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct GatewayAuthorizer {
    pub(crate) jwt: Option<TokenAuthorization>,
    pub(crate) iam: Option<SignatureAuthorization>,
}

/// A verified token.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct TokenAuthorization {
    #[serde(default)]
    claims: Option<HashMap<String, String>>,
}

impl TokenAuthorization {
    pub(crate) fn claims(&self) -> Option<&HashMap<String, String>> {
        self.claims.as_ref()
    }
}

/// A verified signature.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SignatureAuthorization {
    pub(crate) caller_id: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct RequestLine {
    #[serde(deserialize_with = "method")]
    method: Method,
}

/// The IDs of the invocation that a request belongs to.
#[derive(Debug, Clone)]
pub(crate) struct InvocationIds {
    /// Lambda's request ID.
    pub(crate) request_id: String,
    /// The value of the trace header.
    pub(crate) trace: Option<String>,
}

/// Marks a request whose URI is canonical already.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CanonicalUri;

/// The headers of an event; `null` means none.
#[derive(Debug, Default)]
struct EventHeaders(HeaderMap);

impl<'de> Deserialize<'de> for EventHeaders {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EventHeadersVisitor)
    }
}

struct EventHeadersVisitor;

impl<'de> Visitor<'de> for EventHeadersVisitor {
    type Value = EventHeaders;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of headers")
    }

    fn visit_unit<E>(self) -> Result<EventHeaders, E> {
        Ok(EventHeaders::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<EventHeaders, A::Error> {
        let mut headers = HeaderMap::with_capacity(HEADERS);
        while let Some((Parsed(name), Parsed(value))) =
            access.next_entry::<Parsed<HeaderName>, Parsed<HeaderValue>>()?
        {
            headers.insert(name, value);
        }
        Ok(EventHeaders(headers))
    }
}

/// A value that is parsed from a text, without a copy of the text.
struct Parsed<T>(T);

/// A type that is parsed from a text of an event.
trait EventText: Sized {
    /// The name of the type, for an error.
    const EXPECTED: &'static str;

    fn parse(text: &str) -> Option<Self>;
}

impl EventText for HeaderName {
    const EXPECTED: &'static str = "the name of a header";

    fn parse(text: &str) -> Option<Self> {
        Self::from_bytes(text.as_bytes()).ok()
    }
}

impl EventText for HeaderValue {
    const EXPECTED: &'static str = "the value of a header";

    fn parse(text: &str) -> Option<Self> {
        Self::from_str(text).ok()
    }
}

impl EventText for Method {
    const EXPECTED: &'static str = "a method";

    fn parse(text: &str) -> Option<Self> {
        Self::from_bytes(text.as_bytes()).ok()
    }
}

struct EventTextVisitor<T>(std::marker::PhantomData<T>);

impl<T: EventText> Visitor<'_> for EventTextVisitor<T> {
    type Value = Parsed<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Parsed<T>, E> {
        // The text is not part of the error, because the value of a header may be a credential.
        T::parse(text).map(Parsed).ok_or_else(|| E::custom(format_args!("not {}", T::EXPECTED)))
    }
}

impl<'de, T: EventText> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(EventTextVisitor(std::marker::PhantomData))
    }
}

fn method<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Method, D::Error> {
    Parsed::deserialize(deserializer).map(|Parsed(method)| method)
}

/// A response in the form that API Gateway expects of a function.
#[derive(Debug)]
pub struct GatewayResponse {
    parts: Parts,
    body: Bytes,
}

impl GatewayResponse {
    /// Creates the response of these parts and this body.
    #[must_use]
    pub fn new(parts: Parts, body: Bytes) -> Self {
        Self { parts, body }
    }
}

impl Serialize for GatewayResponse {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut response = serializer.serialize_struct("GatewayResponse", 6)?;
        response.serialize_field("statusCode", &self.parts.status.as_u16())?;
        response.serialize_field("headers", &ResponseHeaders(&self.parts.headers))?;
        // `cargo lambda watch` rejects a response without these two.
        response.serialize_field("multiValueHeaders", &NoHeaders {})?;
        response.serialize_field("cookies", &[(); 0])?;
        if let Ok(text) = std::str::from_utf8(&self.body) {
            response.serialize_field("body", text)?;
            response.serialize_field("isBase64Encoded", &false)?;
        } else {
            response.serialize_field("body", &STANDARD.encode(&self.body))?;
            response.serialize_field("isBase64Encoded", &true)?;
        }
        response.end()
    }
}

/// An object without members.
#[derive(Serialize)]
struct NoHeaders {}

struct ResponseHeaders<'a>(&'a HeaderMap);

impl Serialize for ResponseHeaders<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut headers = serializer.serialize_map(Some(self.0.keys_len()))?;
        let mut previous = None;
        for (name, value) in self.0 {
            // The values of one header follow each other; no response has several.
            if previous != Some(name) {
                // The headers of this crate are ASCII.
                headers.serialize_entry(name.as_str(), &String::from_utf8_lossy(value.as_bytes()))?;
            }
            previous = Some(name);
        }
        headers.end()
    }
}
