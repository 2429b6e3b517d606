//! Removes the signature of a request, so that any credentials are accepted.
//!
//! s3s either knows the caller's secret or rejects every signed request. There is nothing to protect here and the
//! caller's credentials are unknown, so the store receives every request unsigned. The signature's framing that AWS's
//! SDKs add is removed as well: the chunks of a body in `aws-chunked` encoding are joined, and the checksum in its
//! trailer becomes a header, which the store verifies. The body's digest that a signature contains is also passed to
//! the store.

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{HeaderMap, Request, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use s3s::{Body, HttpRequest, S3Error, S3ErrorCode, S3Result, s3_error};

/// Header that passes the signature's digest of the body to the store.
pub(super) const CONTENT_SHA256: &str = "x-millrace-content-sha256";

/// Query parameters of a presigned URL that belong to the signature.
const SIGNATURE_PARAMETERS: [&str; 8] = [
    "x-amz-algorithm",
    "x-amz-content-sha256",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-expires",
    "x-amz-security-token",
    "x-amz-signature",
    "x-amz-signedheaders",
];

/// The same for version 2 of the signature, which boto3 uses for a presigned URL by default.
const OLD_SIGNATURE_PARAMETERS: [&str; 4] = ["awsaccesskeyid", "signature", "expires", "x-amz-security-token"];

/// Returns the request without its signature and credentials.
pub(super) async fn strip_signature(request: Request<Incoming>) -> S3Result<HttpRequest> {
    let (mut parts, body) = request.into_parts();
    parts.headers.remove(AUTHORIZATION);
    parts.headers.remove("x-amz-security-token");
    if let Some(uri) = without_signature(&parts.uri) {
        parts.uri = uri;
    }
    parts.headers.remove(CONTENT_SHA256);
    let content = parts.headers.remove("x-amz-content-sha256");
    if !content.as_ref().is_some_and(|content| content.as_bytes().starts_with(b"STREAMING-")) {
        let digest = content.filter(|digest| digest.len() == 64 && digest.as_bytes().iter().all(u8::is_ascii_hexdigit));
        parts.headers.extend(digest.map(|digest| (HeaderName::from_static(CONTENT_SHA256), digest)));
        return Ok(Request::from_parts(parts, Body::from(body)));
    }
    let framed = body.collect().await.map_err(|error| incomplete(error.into()))?.to_bytes();
    let joined = join(&framed, &mut parts.headers).map_err(|reason| incomplete(reason.into()))?;
    if let Some(length) = parts.headers.remove("x-amz-decoded-content-length")
        && length.to_str().ok().and_then(|length| length.parse().ok()) != Some(joined.len())
    {
        let own = joined.len();
        return Err(s3_error!(IncompleteBody, "the body has {own} bytes, x-amz-decoded-content-length is {length:?}"));
    }
    if let Some(trailer) = parts.headers.remove("x-amz-trailer")
        && !trailer.to_str().is_ok_and(|name| parts.headers.contains_key(name.trim()))
    {
        return Err(s3_error!(InvalidRequest, "x-amz-trailer announces {trailer:?}, but the body lacks this trailer"));
    }
    parts.headers.remove(TRANSFER_ENCODING);
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(joined.len()));
    strip_chunked(&mut parts.headers);
    Ok(Request::from_parts(parts, Body::from(joined)))
}

/// Returns the URI of a presigned request without the signature; `None` if the request is not presigned.
fn without_signature(uri: &Uri) -> Option<Uri> {
    let query = uri.query()?;
    let name = |parameter: &str| parameter.split('=').next().unwrap_or_default().to_ascii_lowercase();
    let is_old = query.split('&').any(|parameter| name(parameter) == OLD_SIGNATURE_PARAMETERS[0]);
    let own = if is_old { &OLD_SIGNATURE_PARAMETERS[..] } else { &SIGNATURE_PARAMETERS };
    let is_signature = |parameter: &&str| own.contains(&name(parameter).as_str());
    let (signature, rest): (Vec<&str>, Vec<&str>) = query.split('&').partition(is_signature);
    if signature.is_empty() {
        return None;
    }
    let path_and_query =
        if rest.is_empty() { uri.path().to_owned() } else { format!("{}?{}", uri.path(), rest.join("&")) };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path_and_query.parse().ok()?);
    Uri::from_parts(parts).ok()
}

fn incomplete(source: s3s::StdError) -> S3Error {
    S3Error::with_source(S3ErrorCode::IncompleteBody, source)
}

/// Joins a body of `<hex length>[;chunk-signature=…]\r\n<bytes>\r\n` chunks; its trailing checksum headers are added to
/// `headers`.
fn join(framed: &[u8], headers: &mut HeaderMap) -> Result<Bytes, String> {
    let mut joined = BytesMut::with_capacity(framed.len());
    let mut rest = framed;
    loop {
        let (line, after) = split_line(rest).ok_or("aws-chunked body ends within a chunk's head")?;
        let length = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let length = std::str::from_utf8(length).ok().and_then(|text| usize::from_str_radix(text.trim(), 16).ok());
        let length = length.ok_or("aws-chunked body has a chunk whose length is not hexadecimal")?;
        if length == 0 {
            trailers(after, headers);
            return Ok(joined.freeze());
        }
        let chunk = after.get(..length).ok_or("aws-chunked body ends within a chunk")?;
        joined.extend_from_slice(chunk);
        rest = after[length..].strip_prefix(b"\r\n").ok_or("aws-chunked body has a chunk longer than its length")?;
    }
}

fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&bytes[..end], &bytes[end + 2..]))
}

fn trailers(mut bytes: &[u8], headers: &mut HeaderMap) {
    while let Some((line, after)) = split_line(bytes) {
        bytes = after;
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let name = HeaderName::from_bytes(line[..colon].trim_ascii());
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value)
            && name.as_str().starts_with("x-amz-checksum-")
        {
            headers.insert(name, value);
        }
    }
}

/// `aws-chunked` is the encoding of the transfer: any other encodings are the object's own and remain.
fn strip_chunked(headers: &mut HeaderMap) {
    let Some(encoding) = headers.remove(CONTENT_ENCODING) else {
        return;
    };
    let Ok(text) = encoding.to_str() else { return };
    let own: Vec<&str> = text.split(',').map(str::trim).filter(|coding| *coding != "aws-chunked").collect();
    if let Ok(own) = HeaderValue::from_str(&own.join(", "))
        && !own.is_empty()
    {
        headers.insert(CONTENT_ENCODING, own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signed_chunked_body_is_joined_and_its_checksum_becomes_a_header() {
        let framed = b"5;chunk-signature=ab\r\nhello\r\n6;chunk-signature=cd\r\n world\r\n0;chunk-signature=ef\r\n\
            x-amz-checksum-crc32:DUoRhQ==\r\nx-amz-trailer-signature:00\r\n\r\n";
        let mut headers = HeaderMap::new();
        assert_eq!(join(framed, &mut headers).unwrap(), "hello world");
        assert_eq!(headers.len(), 1, "{headers:?}");
        assert_eq!(headers["x-amz-checksum-crc32"], "DUoRhQ==");
    }

    #[test]
    fn a_truncated_chunked_body_is_refused_and_not_stored_short() {
        for framed in [&b"5\r\nhel"[..], b"5\r\nhello\r\n", b"5\r\nhello world\r\n0\r\n\r\n", b"five\r\nhello\r\n", b""]
        {
            assert!(join(framed, &mut HeaderMap::new()).is_err(), "{}", String::from_utf8_lossy(framed));
        }
    }

    #[test]
    fn a_presigned_url_loses_its_signature_and_keeps_its_operation() {
        let presigned = "/b/k?x-id=GetObject&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=00&versionId=7";
        let uri = without_signature(&presigned.parse().unwrap()).unwrap();
        assert_eq!(uri, "/b/k?x-id=GetObject&versionId=7");
        assert_eq!(without_signature(&"/b/k?X-Amz-Signature=00".parse().unwrap()).unwrap(), "/b/k");
        assert_eq!(without_signature(&"/b?list-type=2&expires=1".parse().unwrap()), None);
        let old = "/b/k?AWSAccessKeyId=any&Signature=a%2Bb%3D&Expires=1&response-expires=2";
        assert_eq!(without_signature(&old.parse().unwrap()).unwrap(), "/b/k?response-expires=2");
    }

    #[test]
    fn the_objects_own_encoding_survives_the_transfers() {
        for (sent, kept) in [("aws-chunked", None), ("aws-chunked,gzip", Some("gzip")), ("zstd", Some("zstd"))] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(sent));
            strip_chunked(&mut headers);
            assert_eq!(headers.get(CONTENT_ENCODING).map(|value| value.to_str().unwrap()), kept);
        }
    }
}
