//! Requests that are signed and sent without an SDK: [`SignedRequest`], [`RequestSender`].
//!
//! `attach` and `doctor` call services of which no SDK is compiled here: each of them would take longer to compile than
//! this program.

use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings, UriPathNormalizationMode,
    sign,
};
use aws_sigv4::sign::v4;
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::HttpConnector as _;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use millrace_shared::clock::Clock;
use millrace_shared::error_chain::error_chain;

/// The maximum duration of a request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A request before it is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SignedRequest {
    /// The name by which the service signs, such as `kms`.
    pub(crate) service: &'static str,
    /// The Region of the signature.
    pub(crate) region: String,
    pub(crate) method: &'static str,
    /// The URL, with path and query in their encoded form.
    pub(crate) url: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

/// A response.
#[derive(Debug)]
pub(crate) struct RawResponse {
    pub(crate) status: u16,
    /// The header `x-amzn-errortype`, in which some services name their error.
    pub(crate) error_type: Option<String>,
    pub(crate) body: Bytes,
}

/// Sends requests on connections that it keeps.
pub(crate) struct RequestSender {
    connector: Connector,
    credentials: Credentials,
    clock: Clock,
}

impl RequestSender {
    /// Returns a sender that signs with these credentials.
    pub(crate) fn new(credentials: Credentials, clock: Clock) -> Self {
        let connector = Connector::builder().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).build();
        Self { connector, credentials, clock }
    }

    /// Signs and sends a request.
    ///
    /// # Errors
    /// The description, if there is no response within 10 seconds.
    pub(crate) async fn send(&self, request: &SignedRequest) -> Result<RawResponse, String> {
        let signed = signed(request, &self.credentials, &self.clock)?;
        let response = async {
            let response = self.connector.call(signed).await.map_err(|error| error_chain(&error))?;
            let status = response.status().as_u16();
            let error_type = response.headers().get("x-amzn-errortype").map(str::to_owned);
            let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
            Ok(RawResponse { status, error_type, body })
        };
        tokio::time::timeout(TIMEOUT, response).await.map_err(|_| "no response within 10 s".to_owned())?
    }
}

/// Signs a request.
///
/// # Errors
/// The description, if the URL or a header is not usable.
pub(crate) fn signed(request: &SignedRequest, credentials: &Credentials, clock: &Clock) -> Result<HttpRequest, String> {
    fn failed(error: impl std::fmt::Display) -> String {
        error.to_string()
    }
    let mut settings = SigningSettings::default();
    if request.service == "s3" {
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    }
    let identity = credentials.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(&request.region)
        .name(request.service)
        .time(clock.now().into())
        .settings(settings)
        .build()
        .map_err(failed)?;
    let SignedRequest { method, url, headers, body, .. } = request;
    let to_sign = headers.iter().map(|(name, value)| (*name, value.as_str()));
    let signable = SignableRequest::new(method, url.as_str(), to_sign, SignableBody::Bytes(body.as_bytes()));
    let instructions = sign(signable.map_err(failed)?, &params.into()).map_err(failed)?.into_parts().0;
    let mut unsigned = http::Request::builder().method(*method).uri(url);
    for (name, value) in headers {
        unsigned = unsigned.header(*name, value);
    }
    let mut unsigned = unsigned.body(SdkBody::from(body.clone())).map_err(failed)?;
    instructions.apply_to_request_http1x(&mut unsigned);
    unsigned.try_into().map_err(failed)
}
