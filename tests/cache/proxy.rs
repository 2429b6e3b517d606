//! A proxy in front of a cache server that injects faults.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The fault that is injected into a call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum CacheFault {
    /// The server responds.
    None,
    /// The call does not reach the server, and the connection is closed.
    CutBefore,
    /// The server executes the call, and the connection is closed before the response is sent.
    ResponseLost,
    /// The call does not reach the server, and the client gets no response.
    Silence,
}

type CacheFaultPlan = dyn Fn(&str) -> CacheFault + Send + Sync;

/// Serves the cache on `port` with the faults of `plan`, which receives the text of each call; returns the port of the
/// proxy. The commands that set up a connection pass unchanged.
pub(crate) async fn before(port: u16, plan: impl Fn(&str) -> CacheFault + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let own = listener.local_addr().unwrap().port();
    let plan: Arc<CacheFaultPlan> = Arc::new(plan);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            if let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await {
                tokio::spawn(serve(client, server, Arc::clone(&plan)));
            }
        }
    });
    own
}

async fn serve(mut client: TcpStream, mut server: TcpStream, plan: Arc<CacheFaultPlan>) {
    let (mut request_bytes, mut response_bytes) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut silent = false;
    loop {
        tokio::select! {
            read = client.read(&mut request_bytes) => {
                let Ok(count @ 1..) = read else { return };
                let text = String::from_utf8_lossy(&request_bytes[..count]);
                let opening = text.contains("SELECT") || text.contains("CLIENT");
                match if opening { CacheFault::None } else { plan(&text) } {
                    CacheFault::None => {}
                    CacheFault::CutBefore => return,
                    CacheFault::Silence => {
                        silent = true;
                        continue;
                    }
                    CacheFault::ResponseLost => {
                        let _ = server.write_all(&request_bytes[..count]).await;
                        // The response shows that the call has been executed.
                        let _ = server.read(&mut response_bytes).await;
                        return;
                    }
                }
                if server.write_all(&request_bytes[..count]).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut response_bytes) => {
                let Ok(count @ 1..) = read else { return };
                if !silent && client.write_all(&response_bytes[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}
