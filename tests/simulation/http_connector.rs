//! The HTTP connector between the official SDK and the services, with the fault injector in between
//! ([`SimHttpConnector`]).
//!
//! Its target is the services in memory, or an engine over the network; with an engine, only the source's stream label
//! is the scenario's own, because the scenario simulates the stream.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use super::cloud::{ARCHIVE, FAILURES, SOURCE, SimCloud, SimRequest, SimResponse, configuration, describe, mappings};
use super::fault_injector::{FaultInjector, FaultPoint, InjectedFault};
use super::table::SimTable;

/// The path of Lambda's event source mappings.
const MAPPINGS: &str = "/2015-03-31/event-source-mappings";
/// The path of Lambda's function configurations.
const FUNCTIONS: &str = "/2015-03-31/functions/";

/// The HTTP client of an engine.
pub(super) type SimWire = Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>;

pub(super) fn wire() -> SimWire {
    let mut connector = hyper_util::client::legacy::connect::HttpConnector::new();
    // Otherwise a request in two packets waits for the acknowledgement of the first (Nagle's algorithm).
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).build(connector)
}

/// The target of the requests.
#[derive(Clone)]
pub(super) enum ConnectorTarget {
    Memory(Arc<Mutex<SimCloud>>),
    Engine {
        client: Box<SimWire>,
        /// The tables of the replicas.
        replicas: [&'static str; 2],
        /// The source table, and the label of its latest stream.
        source: Arc<Mutex<(Arc<SimTable>, String)>>,
    },
}

#[derive(Clone)]
pub(super) struct SimHttpConnector {
    pub(super) injector: FaultInjector,
    pub(super) behind: ConnectorTarget,
    /// Whether the archive is a sink of the deployed replicator.
    pub(super) archive_is_sink: Arc<AtomicBool>,
}

impl fmt::Debug for SimHttpConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Line")
    }
}

impl HttpClient for SimHttpConnector {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for SimHttpConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let line = self.clone();
        HttpConnectorFuture::new(async move {
            let (point, writes, dynamodb) = line.behind.route_request(&request);
            if let Some(what) = worth_seeing(&request) {
                line.injector.see(what);
            }
            let leave_one = line.injector.leaves_one_unread(point);
            let (behind, archive_is_sink) = (line.behind.clone(), line.archive_is_sink.load(Ordering::Relaxed));
            let effect = async move { behind.respond(request, leave_one, archive_is_sink).await };
            match line.injector.pass(point, writes, effect).await {
                Ok(response) => response,
                Err(InjectedFault::Throttled) if dynamodb => {
                    response(SimResponse::error(true, 400, "ProvisionedThroughputExceededException"))
                }
                Err(InjectedFault::Throttled) => response(SimResponse::error(false, 503, "SlowDown")),
                Err(InjectedFault::Refused | InjectedFault::LeftUnread) => response(SimResponse::error(
                    dynamodb,
                    500,
                    if dynamodb { "InternalServerError" } else { "InternalError" },
                )),
                Err(_) => Err(ConnectorError::io(Box::new(io::Error::other("the line is cut")))),
            }
        })
    }
}

impl ConnectorTarget {
    pub(super) fn engine(replicas: [&'static str; 2], source: Arc<Mutex<(Arc<SimTable>, String)>>) -> Self {
        Self::Engine { client: Box::new(wire()), replicas, source }
    }

    /// Returns the store that a request is for, whether the request writes, and whether it uses the DynamoDB protocol.
    fn route_request(&self, request: &HttpRequest) -> (FaultPoint, bool, bool) {
        let Some(operation) = operation(request) else {
            let (path, _) = path_and_query(request);
            let point = if path.starts_with(MAPPINGS) || path.starts_with(FUNCTIONS) {
                FaultPoint::Source
            } else if path.starts_with(&format!("/{ARCHIVE}")) {
                FaultPoint::Archive
            } else if path.starts_with(&format!("/{FAILURES}/reports/")) {
                FaultPoint::Reports
            } else {
                FaultPoint::Failures
            };
            return (point, request.method() != "GET", false);
        };
        let point = match self {
            Self::Memory(_) => FaultPoint::Source,
            Self::Engine { replicas, .. } => {
                let body = String::from_utf8_lossy(request.body().bytes().unwrap_or_default());
                let named = |table: &&str| body.contains(&format!("\"{table}\""));
                replicas.iter().position(named).map_or(FaultPoint::Source, FaultPoint::Sink)
            }
        };
        (point, operation == "PutItem", true)
    }

    async fn respond(
        self,
        request: HttpRequest,
        leave_one: bool,
        archive_is_sink: bool,
    ) -> Result<HttpResponse, ConnectorError> {
        let path = path_and_query(&request).0;
        if path.starts_with(MAPPINGS) || path.starts_with(FUNCTIONS) {
            let body = if path.starts_with(MAPPINGS) { mappings() } else { configuration(archive_is_sink) };
            return response(SimResponse { status: 200, headers: Vec::new(), body: body.to_string().into_bytes() });
        }
        match self {
            Self::Memory(cloud) => {
                let (path, query) = path_and_query(&request);
                let asked = SimRequest {
                    method: request.method(),
                    path,
                    query,
                    operation: operation(&request),
                    headers: request.headers().iter().collect::<HashMap<_, _>>(),
                    body: request.body().bytes().unwrap_or_default(),
                };
                response(cloud.lock().unwrap().respond(&asked, leave_one))
            }
            Self::Engine { client, source, .. } => {
                let body = request.body().bytes().unwrap_or_default();
                let of_the_source = String::from_utf8_lossy(body).contains(&format!("\"{SOURCE}\""));
                if operation(&request) == Some("DescribeTable") && of_the_source {
                    let (table, label) = source.lock().unwrap().clone();
                    let body = describe(&table, &label).to_string().into_bytes();
                    return response(SimResponse { status: 200, headers: Vec::new(), body });
                }
                forward(&client, request).await
            }
        }
    }
}

pub(super) async fn forward(client: &SimWire, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
    let request = request.try_into_http1x().unwrap();
    let request = request.map(|body| Full::new(Bytes::copy_from_slice(body.bytes().unwrap())));
    let broken = |error: Box<dyn std::error::Error + Send + Sync>| ConnectorError::io(error);
    let (parts, body) = client.request(request).await.map_err(|error| broken(error.into()))?.into_parts();
    let body = body.collect().await.map_err(|error| broken(error.into()))?.to_bytes();
    let response = http::Response::from_parts(parts, SdkBody::from(body));
    HttpResponse::try_from(response).map_err(|error| broken(error.into()))
}

fn worth_seeing(request: &HttpRequest) -> Option<&'static str> {
    if operation(request) == Some("Scan") {
        let body = request.body().bytes().unwrap_or_default();
        let is_next = String::from_utf8_lossy(body).contains("ExclusiveStartKey");
        return is_next.then_some("source: a page after another");
    }
    let path = path_and_query(request).0;
    let put = request.method() == "PUT";
    let seen = [
        ("/failures/quarantine/", "quarantine: put"),
        ("/failures/redriven/", "redrive: moved a failure below redriven"),
        ("/archive/archive/", "archive: put"),
    ];
    seen.into_iter().find(|(below, _)| put && path.starts_with(below)).map(|(_, what)| what)
}

fn operation(request: &HttpRequest) -> Option<&str> {
    request.headers().get("x-amz-target").and_then(|target| target.rsplit('.').next())
}

fn path_and_query(request: &HttpRequest) -> (&str, &str) {
    let uri = request.uri();
    let after_scheme = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let path = after_scheme.find('/').map_or("/", |at| &after_scheme[at..]);
    path.split_once('?').unwrap_or((path, ""))
}

fn response(sim: SimResponse) -> Result<HttpResponse, ConnectorError> {
    let mut response = http::Response::builder().status(sim.status);
    for (name, value) in sim.headers {
        response = response.header(name, value);
    }
    let response = response.body(SdkBody::from(sim.body)).unwrap();
    HttpResponse::try_from(response).map_err(|error| ConnectorError::io(Box::new(error)))
}
