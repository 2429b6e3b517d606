//! Counts the S3 requests of a task by price class: [`RequestCounter`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;

/// Counters of every attempt of a client. DELETE is free.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestCounter(Arc<RequestCounts>);

#[derive(Debug, Default)]
struct RequestCounts {
    /// PUT, COPY and LIST, which have the same price.
    writes: AtomicU64,
    /// GET and HEAD, whose price is a twelfth of that.
    reads: AtomicU64,
}

impl RequestCounter {
    /// Returns a client with the same configuration that counts its requests.
    pub(crate) fn counted(&self, client: &aws_sdk_s3::Client) -> aws_sdk_s3::Client {
        aws_sdk_s3::Client::from_conf(client.config().to_builder().interceptor(self.clone()).build())
    }
}

impl fmt::Display for RequestCounter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        write!(f, "{} PUT, COPY and LIST, {} GET and HEAD", count(&self.0.writes), count(&self.0.reads))
    }
}

impl Intercept for RequestCounter {
    fn name(&self) -> &'static str {
        "Requests"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request();
        let count = match request.method() {
            "PUT" | "POST" => &self.0.writes,
            "GET" if request.uri().contains("list-type=2") => &self.0.writes,
            "DELETE" => return Ok(()),
            _ => &self.0.reads,
        };
        count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
