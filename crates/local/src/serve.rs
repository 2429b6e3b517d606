//! HTTP server loop of the embedded engines: serves one service on a listener until it is stopped.

use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

type ServeError = Box<dyn std::error::Error + Send + Sync>;

/// Serves every connection until the stop, and returns when the connections that were open at the stop have finished.
/// `name` is used in the log.
pub(crate) async fn serve<S, B>(
    name: &'static str,
    listener: TcpListener,
    service: S,
    mut stopped: oneshot::Receiver<()>,
) where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<ServeError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<ServeError>,
{
    let graceful = GracefulShutdown::new();
    loop {
        tokio::select! {
            // A dropped sender stops the engine as well.
            _ = &mut stopped => break,
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => serve_connection(name, socket, service.clone(), &graceful),
                // Out of file descriptors: accepting again immediately would be a busy loop.
                Err(error) => {
                    tracing::warn!(error = %error, "{name} connection not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    graceful.shutdown().await;
}

fn serve_connection<S, B>(name: &'static str, socket: TcpStream, service: S, graceful: &GracefulShutdown)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<ServeError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<ServeError>,
{
    // Head and body of a response are two small writes: with Nagle's algorithm the second is delayed by 40 ms.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(error = %error, "{name} responses may be delayed");
    }
    let server = auto::Builder::new(TokioExecutor::new());
    let connection = graceful.watch(server.serve_connection(TokioIo::new(socket), service).into_owned());
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = %error, "{name} connection ended");
        }
    });
}
