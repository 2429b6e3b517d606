//! An HTTP server on loopback that behaves as each test requires: [`FaultyServer`].

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

/// The service's response to a successful `PutItem`.
pub(crate) const SUCCESS: &str = "{}";

/// A request that has arrived.
#[derive(Debug, Clone)]
pub(crate) struct ArrivedRequest {
    /// The request line and the headers.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl ArrivedRequest {
    /// Returns the value of a header, whose name is in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().filter_map(|line| line.split_once(':'));
        headers.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// Returns the access key of the signature.
    pub(crate) fn access_key(&self) -> Option<&str> {
        self.header("authorization")?.split_once("Credential=")?.1.split('/').next()
    }
}

/// The reaction to a request.
#[derive(Debug, Clone)]
pub(crate) enum PlannedReaction {
    /// A response with this status, these further headers and this body.
    Response(u16, Vec<(&'static str, String)>, String),
    /// As [`Self::Response`] with status 200, after a pause.
    Late(Duration),
    /// A response, after which the server closes the connection without notice.
    Last,
    /// As [`Self::Late`], and after another pause of this length the server closes the connection without notice.
    LateAndLast(Duration),
    /// The connection is closed without a response.
    Closed,
    /// The connection is closed in the middle of the response.
    Truncated,
    /// No response.
    Silence,
}

impl PlannedReaction {
    pub(crate) fn success() -> Self {
        Self::Response(200, Vec::new(), SUCCESS.to_owned())
    }

    /// The error of this code.
    pub(crate) fn error(status: u16, code: &str) -> Self {
        Self::error_with(status, code, Vec::new())
    }

    /// The error of this code, with further headers.
    pub(crate) fn error_with(status: u16, code: &str, headers: Vec<(&'static str, String)>) -> Self {
        let body = format!(r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{code}","message":"as planned"}}"#);
        Self::Response(status, headers, body)
    }
}

type Plan = dyn Fn(usize, &ArrivedRequest) -> PlannedReaction + Send + Sync;

/// A server that reacts to each request as its plan says.
#[derive(Clone)]
pub(crate) struct FaultyServer {
    pub(crate) url: String,
    connections: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<ArrivedRequest>>>,
    plan: Arc<Plan>,
}

impl FaultyServer {
    /// Starts a server. The plan receives the number of the request, from 0, and the request.
    pub(crate) async fn start(
        plan: impl Fn(usize, &ArrivedRequest) -> PlannedReaction + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let faulty = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            connections: Arc::default(),
            open: Arc::default(),
            requests: Arc::default(),
            plan: Arc::new(plan),
        };
        let server = faulty.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                server.connections.fetch_add(1, Ordering::Relaxed);
                server.open.fetch_add(1, Ordering::Relaxed);
                let server = server.clone();
                tokio::spawn(async move {
                    // A client that closes its connection ends the loop.
                    let _ = server.serve(stream).await;
                    server.open.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        faulty
    }

    /// Returns the number of connections that were accepted.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Returns the number of connections that are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Returns the requests that have arrived.
    pub(crate) fn requests(&self) -> Vec<ArrivedRequest> {
        self.requests.lock().unwrap().clone()
    }

    async fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut buffer = Vec::new();
        loop {
            let Some(request) = receive(&mut stream, &mut buffer).await? else { return Ok(()) };
            let number = {
                let mut requests = self.requests.lock().unwrap();
                requests.push(request.clone());
                requests.len() - 1
            };
            let success = PlannedReaction::success();
            match (self.plan)(number, &request) {
                PlannedReaction::Response(status, headers, body) => {
                    respond(&mut stream, status, &headers, &body).await?;
                }
                PlannedReaction::Late(pause) => {
                    sleep(pause).await;
                    respond(&mut stream, 200, &[], SUCCESS).await?;
                }
                PlannedReaction::Last => {
                    let PlannedReaction::Response(status, headers, body) = success else { unreachable!() };
                    respond(&mut stream, status, &headers, &body).await?;
                    return Ok(());
                }
                PlannedReaction::LateAndLast(pause) => {
                    sleep(pause).await;
                    respond(&mut stream, 200, &[], SUCCESS).await?;
                    sleep(pause).await;
                    return Ok(());
                }
                PlannedReaction::Closed => return Ok(()),
                PlannedReaction::Truncated => {
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"Attrib").await?;
                    return Ok(());
                }
                PlannedReaction::Silence => std::future::pending().await,
            }
        }
    }
}

async fn receive(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<ArrivedRequest>> {
    loop {
        let end = buffer.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let mut request = ArrivedRequest { head, body: String::new() };
            let length: usize = request.header("content-length").unwrap_or("0").parse().unwrap();
            if buffer.len() >= end + 4 + length {
                let rest = buffer.split_off(end + 4 + length);
                request.body = String::from_utf8(std::mem::replace(buffer, rest).split_off(end + 4)).unwrap();
                return Ok(Some(request));
            }
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

async fn respond(stream: &mut TcpStream, status: u16, headers: &[(&str, String)], body: &str) -> io::Result<()> {
    let mut text = format!("HTTP/1.1 {status} Planned\r\ncontent-type: application/x-amz-json-1.0\r\n");
    for (name, value) in headers {
        for part in [name, ": ", value, "\r\n"] {
            text.push_str(part);
        }
    }
    let length = format!("content-length: {}\r\n\r\n", body.len());
    stream.write_all([text, length, body.to_owned()].concat().as_bytes()).await
}
