//! DynamoDB, S3 and Secrets Manager stub that accepts every request immediately and stores nothing, so that only the
//! function's own cost remains.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Method, header};
use axum::response::{IntoResponse, Response};

/// The number of objects that were put, and their total size.
static PUTS: AtomicU64 = AtomicU64::new(0);
static PUT_BYTES: AtomicU64 = AtomicU64::new(0);

/// Returns the number of objects that were put so far, and their total size in bytes.
pub(crate) fn puts() -> (u64, u64) {
    (PUTS.load(Ordering::Relaxed), PUT_BYTES.load(Ordering::Relaxed))
}

/// The item that every read returns.
const ITEM: &str = r#"{"Item":{"user_id":{"S":"ada"},"timestamp":{"N":"1795334400"},"name":{"S":"Ada Lovelace"},"email":{"S":"ada@example.com"},"status":{"S":"active"},"attributes":{"M":{"plan":{"S":"team"},"seats":{"N":"12"}}},"version":{"N":"1795334400000000"},"created_at":{"S":"2026-11-22T08:00:00Z"},"updated_at":{"S":"2026-11-22T08:00:00Z"}},"ConsumedCapacity":{"TableName":"Users","CapacityUnits":0.5}}"#;

const TABLE: &str = r#"{"Table":{"TableName":"UsersReplica","TableStatus":"ACTIVE","TableArn":"arn:aws:dynamodb:eu-west-1:123456789012:table/UsersReplica","KeySchema":[{"AttributeName":"user_id","KeyType":"HASH"},{"AttributeName":"timestamp","KeyType":"RANGE"}],"AttributeDefinitions":[{"AttributeName":"user_id","AttributeType":"S"},{"AttributeName":"timestamp","AttributeType":"N"}]}}"#;

const EMPTY_LISTING: &str =
    "<ListBucketResult><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>";

/// Starts the stub on a free port of the loopback interface; returns its URL.
pub(crate) async fn serve() -> std::io::Result<String> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(accept)).await });
    Ok(url)
}

/// Reads the whole body before the response, as the real services do.
async fn accept(method: Method, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    let json = |body: &'static str| ([(header::CONTENT_TYPE, "application/x-amz-json-1.0")], body).into_response();
    match target.rsplit('.').next().unwrap_or_default() {
        "GetItem" => json(ITEM),
        // Requests that ask for the consumed capacity receive it.
        "PutItem" | "UpdateItem" | "DeleteItem"
            if String::from_utf8_lossy(&body).contains("ReturnConsumedCapacity") =>
        {
            json(r#"{"ConsumedCapacity":{"TableName":"Users","CapacityUnits":1.0}}"#)
        }
        "DescribeTable" => json(TABLE),
        "GetSecretValue" => json(r#"{"Name":"pii","SecretString":"a constant key for the hashes of the bench"}"#),
        "" if method == Method::PUT => {
            PUTS.fetch_add(1, Ordering::Relaxed);
            PUT_BYTES.fetch_add(body.len() as u64, Ordering::Relaxed);
            [(header::ETAG, "\"0\"")].into_response()
        }
        // The replicator lists the recorded rules of its replicas.
        "" if method == Method::GET => ([(header::CONTENT_TYPE, "application/xml")], EMPTY_LISTING).into_response(),
        "" => "".into_response(),
        _ => json("{}"),
    }
}
