//! HTTP/1.1 responses: [`ResponseBuffer`] parses them as they arrive, and [`ReceivedResponse`] is a complete one.
//!
//! The headers of a response stay as they were received: a success needs one or two of them, and only an error is
//! converted for the SDK.

use std::str;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// The initial size of a buffer: that of most responses.
const INITIAL_BYTES: usize = 1_024;
/// The size of a buffer that is kept for the next response.
const KEPT_BYTES: usize = 64 * 1_024;
/// The longest head, and the longest line between chunks.
const MAX_HEAD_BYTES: usize = 64 * 1_024;
/// The largest number of headers.
const MAX_HEADERS: usize = 64;
/// The most frequent body: the operation returns nothing.
const NOTHING: &[u8] = b"{}";

/// A complete response.
#[derive(Debug, Clone)]
pub(crate) struct ReceivedResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: ResponseHeaders,
    pub(crate) body: Bytes,
}

/// The headers of a response.
#[derive(Debug, Clone)]
pub(crate) enum ResponseHeaders {
    /// The head as it was received, which is valid.
    Received(Bytes),
    /// The headers that an HTTP client of the SDK has parsed.
    Parsed(HeaderMap),
}

/// A response that is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ResponseError {
    #[error("the response is not valid HTTP/1.1: {0}")]
    Syntax(httparse::Error),
    #[error("the response has an invalid header {0}")]
    Header(&'static str),
    #[error("the response has an invalid chunk")]
    Chunk,
    #[error("the head of the response has more than {MAX_HEAD_BYTES} bytes")]
    TooLong,
    #[error("the server switched to another protocol")]
    Switched,
    #[error("the server closed the connection before the response was complete")]
    Truncated,
}

impl ResponseHeaders {
    /// Returns the value of the first header of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        match self {
            Self::Received(head) => {
                let mut headers = headers_of(head);
                headers.find(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
            }
            Self::Parsed(headers) => headers.get(name).map(HeaderValue::as_bytes),
        }
    }

    fn into_map(self) -> HeaderMap {
        let head = match self {
            Self::Received(head) => head,
            Self::Parsed(headers) => return headers,
        };
        let parse = |(name, value)| Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?));
        let mut headers = HeaderMap::new();
        for (name, value) in headers_of(&head).filter_map(parse) {
            headers.append(name, value);
        }
        headers
    }
}

/// Returns the names and values in the head of a response.
fn headers_of(head: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    head.split(|byte| *byte == b'\n').skip(1).filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    })
}

impl ReceivedResponse {
    /// Returns a header, if it is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| str::from_utf8(value).ok())
    }

    /// Converts the response for the parsers of the SDK.
    pub(crate) fn into_sdk(self) -> Result<HttpResponse, BoxError> {
        let mut response = http::Response::new(SdkBody::from(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers.into_map();
        HttpResponse::try_from(response).map_err(BoxError::from)
    }
}

/// The bytes of a response that is arriving. It is used for all responses of a connection, one after the other.
pub(crate) struct ResponseBuffer {
    bytes: Vec<u8>,
    /// The number of bytes that have arrived.
    filled: usize,
    /// The head, once it is complete.
    head: Option<ResponseHead>,
    /// The decoded chunks, and the position of the next one.
    chunks: Vec<u8>,
    next_chunk: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ResponseHead {
    length: usize,
    status: StatusCode,
    framing: BodyFraming,
    /// Whether the server keeps the connection open.
    is_persistent: bool,
}

/// The end of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BodyFraming {
    Length(usize),
    Chunked,
    /// The body ends with the connection.
    UntilClosed,
}

impl ResponseBuffer {
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; INITIAL_BYTES], filled: 0, head: None, chunks: Vec::new(), next_chunk: 0 }
    }

    /// Returns the space for the next bytes, which is not empty.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        if self.filled == self.bytes.len() {
            self.bytes.resize(self.filled * 2, 0);
        }
        &mut self.bytes[self.filled..]
    }

    /// Adds the bytes that have arrived in [`Self::space`]. None have arrived if the server has closed the connection.
    /// Returns the response if it is complete, with whether another one can follow on the connection.
    pub(crate) fn receive(&mut self, number: usize) -> Result<Option<(ReceivedResponse, bool)>, ResponseError> {
        self.filled += number;
        let head = loop {
            if let Some(head) = self.head {
                break head;
            }
            let Some(head) = parse_head(&self.bytes[..self.filled])? else {
                return if number == 0 {
                    Err(ResponseError::Truncated)
                } else if self.filled > MAX_HEAD_BYTES {
                    Err(ResponseError::TooLong)
                } else {
                    Ok(None)
                };
            };
            if head.status == StatusCode::SWITCHING_PROTOCOLS {
                return Err(ResponseError::Switched);
            }
            if head.status.is_informational() {
                // The response follows.
                self.bytes.copy_within(head.length..self.filled, 0);
                self.filled -= head.length;
            } else {
                self.next_chunk = head.length;
                self.head = Some(head);
            }
        };
        let end = match head.framing {
            BodyFraming::Length(length) => head.length.checked_add(length).filter(|end| *end <= self.filled),
            BodyFraming::Chunked => self.decode_chunks()?.then_some(self.next_chunk),
            BodyFraming::UntilClosed => (number == 0).then_some(self.filled),
        };
        match end {
            Some(end) => Ok(Some(self.complete(head, end))),
            None if number == 0 => Err(ResponseError::Truncated),
            None => Ok(None),
        }
    }

    /// Decodes the chunks that have arrived. Returns whether the last one has.
    fn decode_chunks(&mut self) -> Result<bool, ResponseError> {
        loop {
            let rest = &self.bytes[self.next_chunk..self.filled];
            // The parser accepts a line without digits as that of the last chunk.
            if rest.first().is_some_and(|byte| !byte.is_ascii_hexdigit()) {
                return Err(ResponseError::Chunk);
            }
            let size = httparse::parse_chunk_size(rest).map_err(|_| ResponseError::Chunk)?;
            let httparse::Status::Complete((line, size)) = size else {
                return if rest.len() > MAX_HEAD_BYTES { Err(ResponseError::TooLong) } else { Ok(false) };
            };
            if size == 0 {
                return self.end_of_trailers(line);
            }
            let size = usize::try_from(size).map_err(|_| ResponseError::Chunk)?;
            let Some((chunk, after)) = rest[line..].split_at_checked(size) else { return Ok(false) };
            match after {
                [b'\r', b'\n', ..] => self.chunks.extend_from_slice(chunk),
                [] | [b'\r'] => return Ok(false),
                _ => return Err(ResponseError::Chunk),
            }
            self.next_chunk += line + size + 2;
        }
    }

    /// Returns whether the trailers after the last chunk, whose line has this length, are complete; they are dropped.
    fn end_of_trailers(&mut self, line: usize) -> Result<bool, ResponseError> {
        // The line end before the trailers is a part of the search: without trailers, an empty line follows.
        let start = self.next_chunk + line - 2;
        let trailers = &self.bytes[start..self.filled];
        match trailers.windows(4).position(|window| window == b"\r\n\r\n") {
            Some(position) => {
                self.next_chunk = start + position + 4;
                Ok(true)
            }
            None if trailers.len() > MAX_HEAD_BYTES => Err(ResponseError::TooLong),
            None => Ok(false),
        }
    }

    /// Returns the response that ends at `end`, and prepares the buffer for the next one.
    fn complete(&mut self, head: ResponseHead, end: usize) -> (ReceivedResponse, bool) {
        let (received, rest) = self.bytes[..end].split_at(head.length);
        let body = match head.framing {
            BodyFraming::Chunked => Bytes::from(std::mem::take(&mut self.chunks)),
            _ if rest == NOTHING => Bytes::from_static(NOTHING),
            _ => Bytes::copy_from_slice(rest),
        };
        let headers = ResponseHeaders::Received(Bytes::copy_from_slice(received));
        // Bytes that no request has asked for make the next response doubtful.
        let is_persistent = head.is_persistent && end == self.filled;
        self.filled = 0;
        self.head = None;
        if self.bytes.len() > KEPT_BYTES {
            self.bytes = vec![0; INITIAL_BYTES];
        }
        (ReceivedResponse { status: head.status, headers, body }, is_persistent)
    }
}

/// Parses the head of a response. Returns `None` if it is not complete.
fn parse_head(bytes: &[u8]) -> Result<Option<ResponseHead>, ResponseError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes).map_err(ResponseError::Syntax)? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return Ok(None),
    };
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(ResponseError::Syntax(httparse::Error::Status))?;
    let mut is_persistent = response.version == Some(1);
    let (mut content_length, mut is_chunked) = (None, false);
    for httparse::Header { name, value } in &*response.headers {
        if name.eq_ignore_ascii_case("content-length") {
            let length = parse_length(value).ok_or(ResponseError::Header("content-length"))?;
            if content_length.is_some_and(|known| known != length) {
                return Err(ResponseError::Header("content-length"));
            }
            content_length = Some(length);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            if is_chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(ResponseError::Header("transfer-encoding"));
            }
            is_chunked = true;
        } else if name.eq_ignore_ascii_case("connection") {
            let mut options = value.split(|byte| *byte == b',');
            is_persistent &= !options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"));
        }
    }
    let framing = match content_length {
        _ if status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED => BodyFraming::Length(0),
        // A response with both may be an attempt to hide a second one.
        Some(_) if is_chunked => return Err(ResponseError::Header("content-length")),
        Some(length) => BodyFraming::Length(length),
        None if is_chunked => BodyFraming::Chunked,
        None => BodyFraming::UntilClosed,
    };
    is_persistent &= framing != BodyFraming::UntilClosed;
    Ok(Some(ResponseHead { length, status, framing, is_persistent }))
}

/// Parses a length, which consists of digits only.
fn parse_length(value: &[u8]) -> Option<usize> {
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    str::from_utf8(value).ok().filter(|_| is_number)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    type ParsedResponse = (u16, String, bool);

    /// Parses the text as it arrives in parts of this length; `is_closed` says whether the server then closes the
    /// connection.
    fn receive(
        buffer: &mut ResponseBuffer,
        text: &str,
        part: usize,
        is_closed: bool,
    ) -> Result<Option<ParsedResponse>, ResponseError> {
        let parts = text.as_bytes().chunks(part.max(1));
        for part in parts.chain(is_closed.then_some(&b""[..])) {
            let mut rest = part;
            loop {
                let space = buffer.space();
                let number = rest.len().min(space.len());
                space[..number].copy_from_slice(&rest[..number]);
                rest = &rest[number..];
                if let Some((response, is_persistent)) = buffer.receive(number)? {
                    let body = String::from_utf8(response.body.to_vec()).unwrap();
                    return Ok(Some((response.status.as_u16(), body, is_persistent && rest.is_empty())));
                }
                if rest.is_empty() {
                    break;
                }
            }
        }
        Ok(None)
    }

    const PARTS: [usize; 4] = [1, 7, 100, usize::MAX];

    fn is_received(text: &str, is_closed: bool, status: u16, body: &str, is_persistent: bool) {
        for part in PARTS {
            let received = receive(&mut ResponseBuffer::new(), text, part, is_closed);
            assert_eq!(received, Ok(Some((status, body.to_owned(), is_persistent))), "{part} {text}");
        }
    }

    #[test]
    fn response_is_complete_in_parts_of_any_size() {
        let long = "x".repeat(100_000);
        for body in ["", "{}", r#"{"Item":{"n":{"S":"é"}}}"#, long.as_str()] {
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\nServer: Server\r\nContent-Length: {length}\r\nx-amz-crc32: 7");
            for (more, is_persistent) in
                [("", true), ("\r\nConnection: keep-alive", true), ("\r\nCONNECTION: Close", false)]
            {
                is_received(&format!("{head}{more}\r\n\r\n{body}"), false, 200, body, is_persistent);
            }
            is_received(&format!("HTTP/1.0 503\r\ncontent-length: {length}\r\n\r\n{body}"), false, 503, body, false);
            is_received(&format!("HTTP/1.1 500 No\r\n\r\n{body}"), true, 500, body, false);
            let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n";
            is_received(&format!("{interim}{head}\r\n\r\n{body}"), false, 200, body, true);
        }
        is_received("HTTP/1.1 204 No Content\r\n\r\n", false, 204, "", true);
    }

    #[test]
    fn chunks_are_decoded() {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n";
        let long = "y".repeat(0xA000);
        for (chunks, body) in [
            ("0\r\n\r\n", ""),
            ("2\r\n{}\r\n0\r\n\r\n", "{}"),
            ("1;name=value\r\n{\r\n1\r\n}\r\n0\r\n\r\n", "{}"),
            ("2\r\n\r\n\r\n0\r\nx-trailer: 1\r\nother: 2\r\n\r\n", "\r\n"),
            (&format!("a000\r\n{long}\r\n0\r\n\r\n"), long.as_str()),
        ] {
            is_received(&format!("{head}{chunks}"), false, 200, body, true);
        }
        for wrong in [
            "x\r\n",
            "1\r\n{}\r\n0\r\n\r\n",
            "ffffffffffffffffff\r\n",
            "-1\r\n",
            "\r\n\r\n",
            ";x\r\n\r\n",
            " 0\r\n\r\n",
            "2\r\n{}\r\n\r\n\r\n",
        ] {
            for part in PARTS {
                let received = receive(&mut ResponseBuffer::new(), &format!("{head}{wrong}"), part, false);
                assert_eq!(received, Err(ResponseError::Chunk), "{wrong}");
            }
        }
    }

    #[test]
    fn responses_follow_each_other_and_surplus_bytes_end_the_connection() {
        let (mut buffer, text) = (ResponseBuffer::new(), "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
        for part in PARTS {
            assert_eq!(receive(&mut buffer, text, part, false), Ok(Some((200, "{}".to_owned(), true))));
        }
        let surplus = receive(&mut buffer, &format!("{text}HTTP/1.1"), usize::MAX, false);
        assert_eq!(surplus, Ok(Some((200, "{}".to_owned(), false))));
        let large = format!("HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n{}", "x".repeat(200_000));
        assert!(receive(&mut buffer, &large, 4_096, false).unwrap().is_some());
        assert_eq!(buffer.bytes.len(), INITIAL_BYTES);
    }

    #[test]
    fn response_that_is_cut_off_is_an_error() {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n";
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{}";
        for text in ["", "HTTP/1.1 200", head, &format!("{head}{{\"Attrib"), chunked] {
            let received = receive(&mut ResponseBuffer::new(), text, usize::MAX, true);
            assert_eq!(received, Err(ResponseError::Truncated), "{text}");
        }
    }

    #[test]
    fn invalid_response_is_an_error() {
        let with = |headers: &str| format!("HTTP/1.1 200 OK\r\n{headers}\r\n\r\n{{}}");
        let error = |text: &str| receive(&mut ResponseBuffer::new(), text, usize::MAX, false).unwrap_err();
        for length in ["-2", "+2", "2, 2", "0x2", "", "99999999999999999999"] {
            let text = with(&format!("content-length: {length}"));
            assert_eq!(error(&text), ResponseError::Header("content-length"), "{length}");
        }
        assert_eq!(error(&with("content-length: 2\r\nContent-Length: 3")), ResponseError::Header("content-length"));
        let both = with("content-length: 2\r\ntransfer-encoding: chunked");
        assert_eq!(error(&both), ResponseError::Header("content-length"));
        assert_eq!(error(&with("transfer-encoding: gzip")), ResponseError::Header("transfer-encoding"));
        assert_eq!(error("HTTP/1.1 101 Switching Protocols\r\n\r\n"), ResponseError::Switched);
        for text in ["SSH-2.0-OpenSSH_9.6\r\n", "HTTP/2 200\r\n\r\n", &with("na me: x"), &with("a: b\r\n c")] {
            assert!(matches!(error(text), ResponseError::Syntax(_)), "{text}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(2 * MAX_HEAD_BYTES));
        assert_eq!(error(&endless), ResponseError::TooLong);
    }

    #[test]
    fn headers_are_found_by_their_name_and_converted() {
        let head = "HTTP/1.1 400 Bad: Request\r\nX-Amz-Crc32:  7 \r\nSet: a\r\nset: b:c\r\n\r\n";
        let headers = ResponseHeaders::Received(Bytes::from_static(head.as_bytes()));
        assert_eq!(headers.get("x-amz-crc32"), Some(&b"7"[..]));
        assert_eq!((headers.get("set"), headers.get("x-amz")), (Some(&b"a"[..]), None));
        let parsed = headers.into_map();
        assert_eq!(parsed.len(), 3);
        assert_eq!(parsed.get_all("set").iter().collect::<Vec<_>>(), ["a", "b:c"]);
        assert_eq!(ResponseHeaders::Parsed(parsed).get("X-AMZ-CRC32"), Some(&b"7"[..]));
    }
}
