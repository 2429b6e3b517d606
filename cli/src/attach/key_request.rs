//! One request to KMS, `DescribeKey`: [`describe_key`].
//!
//! The SDK of KMS would take longer to compile than the rest of this program.

use aws_credential_types::Credentials;
use millrace_shared::clock::Clock;
use serde_json::{Value, json};

use super::observation::KeyObservation;
use crate::signed_request::{RequestSender, SignedRequest};

const CONTENT_TYPE: &str = "application/x-amz-json-1.1";
const TARGET: &str = "TrentService.DescribeKey";

/// A request without a result: the code of the service's error, if it has one, and the description.
#[derive(Debug)]
pub(super) struct KeyRequestError {
    pub(super) code: Option<String>,
    pub(super) description: String,
}

fn failed(description: &dyn std::fmt::Display) -> KeyRequestError {
    KeyRequestError { code: None, description: description.to_string() }
}

/// Returns the URL of KMS in the key's Region, by the ARN of the key; `None` for a partition whose URLs are not known.
fn service_url(key_arn: &str) -> Option<(String, &str)> {
    let mut parts = key_arn.split(':').skip(1);
    let (partition, region) = (parts.next()?, parts.nth(1)?);
    let suffix = match partition {
        "aws" | "aws-us-gov" => "amazonaws.com",
        "aws-cn" => "amazonaws.com.cn",
        "aws-eusc" => "amazonaws.eu",
        _ => return None,
    };
    Some((format!("https://kms.{region}.{suffix}/"), region))
}

/// Describes a key.
///
/// # Errors
/// [`KeyRequestError`] if the request is refused, fails or takes longer than 10 seconds.
pub(super) async fn describe_key(
    key_arn: &str,
    endpoint_url: Option<&str>,
    credentials: &Credentials,
    clock: &Clock,
) -> Result<KeyObservation, KeyRequestError> {
    let Some((url, region)) = service_url(key_arn) else {
        return Err(failed(&format!("the endpoint of KMS for {key_arn} is not known")));
    };
    let request = request(key_arn, endpoint_url.unwrap_or(&url), region);
    let sender = RequestSender::new(credentials.clone(), clock.clone());
    let response = sender.send(&request).await.map_err(|error| failed(&error))?;
    key_of(response.status, &response.body)
}

fn request(key_arn: &str, url: &str, region: &str) -> SignedRequest {
    SignedRequest {
        service: "kms",
        region: region.to_owned(),
        method: "POST",
        url: url.to_owned(),
        headers: vec![("content-type", CONTENT_TYPE.to_owned()), ("x-amz-target", TARGET.to_owned())],
        body: json!({"KeyId": key_arn}).to_string(),
    }
}

/// Reads the response of KMS.
fn key_of(status: u16, body: &[u8]) -> Result<KeyObservation, KeyRequestError> {
    let document: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let metadata = &document["KeyMetadata"];
    if let (200, Some(manager), Some(state)) = (status, text(&metadata["KeyManager"]), text(&metadata["KeyState"])) {
        return Ok(KeyObservation { is_aws_managed: manager == "AWS", state });
    }
    let code = text(&document["__type"]).map(|kind| kind.rsplit('#').next().unwrap_or_default().to_owned());
    let message = text(&document["message"]).or_else(|| text(&document["Message"]));
    let description = message.or_else(|| code.clone()).unwrap_or_else(|| format!("status {status}"));
    Err(KeyRequestError { code, description })
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::signed_request::signed;

    const KEY: &str = "arn:aws:kms:eu-west-1:123456789012:key/0a1b2c3d-4e5f-6789-abcd-ef0123456789";

    #[test]
    fn the_url_is_that_of_the_key_s_partition_and_region() {
        assert_eq!(service_url(KEY), Some(("https://kms.eu-west-1.amazonaws.com/".to_owned(), "eu-west-1")));
        let china = service_url("arn:aws-cn:kms:cn-north-1:123456789012:key/1").unwrap();
        assert_eq!(china.0, "https://kms.cn-north-1.amazonaws.com.cn/");
        assert_eq!(service_url("arn:aws-iso:kms:us-iso-east-1:123456789012:key/1"), None);
        assert_eq!(service_url("key"), None);
    }

    /// The same request signed by botocore 1.43 with these credentials at this time.
    #[test]
    fn a_request_is_signed_as_aws_s_own_sdks_sign_it() {
        let credentials = Credentials::new("AKIDEXAMPLE", "secret", None, None, "test");
        let clock = Clock::fixed(datetime!(2026-11-27 08:00 UTC));
        let url = "https://kms.eu-west-1.amazonaws.com/";
        let request = signed(&request(KEY, url, "eu-west-1"), &credentials, &clock).unwrap();
        let header = |name| request.headers().get(name).unwrap_or_default();
        assert_eq!((request.method(), request.uri(), header("x-amz-target")), ("POST", url, TARGET));
        assert_eq!(header("x-amz-date"), "20261127T080000Z");
        let authorization = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261127/eu-west-1/kms/aws4_request, \
                             SignedHeaders=content-type;host;x-amz-date;x-amz-target, \
                             Signature=9b16ef6144808ac7d43e6ecf36124588f9b7068abb20db5d816bf38e40a40e8e";
        assert_eq!(header("authorization"), authorization);
    }

    #[test]
    fn a_response_is_a_key_or_the_service_s_error() {
        let body = json!({"KeyMetadata": {"KeyManager": "CUSTOMER", "KeyState": "Disabled", "KeyId": "1"}});
        let key = key_of(200, body.to_string().as_bytes()).unwrap();
        assert_eq!(key, KeyObservation { is_aws_managed: false, state: "Disabled".to_owned() });
        let body = json!({"__type": "com.amazonaws.kms#AccessDeniedException", "Message": "not authorized"});
        let error = key_of(400, body.to_string().as_bytes()).unwrap_err();
        assert_eq!((error.code.as_deref(), &*error.description), (Some("AccessDeniedException"), "not authorized"));
        assert_eq!(key_of(502, b"<html>").unwrap_err().description, "status 502");
    }
}
