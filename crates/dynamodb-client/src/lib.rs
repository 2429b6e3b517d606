//! A client for the most frequent requests to DynamoDB, with a fraction of the SDK's CPU time per request.
//!
//! [`TableClient`] takes its configuration from a client of the AWS SDK: credentials, Region, endpoint, retries and
//! timeouts, as that client resolves them. It signs the request body of the caller with Signature Version 4, and sends
//! it over its own HTTP/1.1 connections. The JSON of a response is parsed as a type of the caller. Errors are parsed by
//! the SDK and have its types, so a caller handles them as errors of the SDK.
//! docs/adr/0016-client-for-the-hot-calls.md contains the reasons and the differences from the SDK.
//!
//! | module | contents |
//! | --- | --- |
//! | [`TableClient`] | attempts, retries, credentials |
//! | `sdk_components` | the configuration of the SDK client |
//! | `signer` | signatures |
//! | `retry`, `clock_skew` | decisions after a failure |
//! | `transport` | the choice between own connections and the SDK's HTTP client; checksums |
//! | `pool`, `connection`, `response`, `tls` | connections |
//!
//! # Example
//!
//! ```no_run
//! # async fn put(client: aws_sdk_dynamodb::Client) -> Result<(), Box<dyn std::error::Error>> {
//! use millrace_dynamodb_client::TableClient;
//!
//! let table = TableClient::new(client, "Orders", 16);
//! table.put_item(r#"{"TableName":"Orders","Item":{"order_id":{"S":"42"}}}"#.into()).await?;
//! # Ok(())
//! # }
//! ```

mod clock_skew;
mod connection;
mod pool;
mod response;
mod retry;
mod sdk_components;
mod signer;
mod table_client;
#[cfg(test)]
mod tests;
mod tls;
mod transport;

pub use table_client::TableClient;
