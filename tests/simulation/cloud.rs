//! The AWS services in memory: the source table and the two buckets, which respond to the official SDK over HTTP
//! ([`SimCloud`]).
//!
//! Only the operations that the functions use are implemented. Any other request returns an error, so that a new kind
//! of request is noticed at once.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

use millrace_shared::change::CanonicalKey;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::table::SimTable;

/// The name of the source table.
pub(super) const SOURCE: &str = "Users";
/// The failure bucket: quarantined records and the batches that Lambda discards.
pub(super) const FAILURES: &str = "failures";
/// The archive bucket.
pub(super) const ARCHIVE: &str = "archive";
/// The ARN of the source table.
pub(super) const SOURCE_ARN: &str = "arn:aws:dynamodb:eu-west-1:123456789012:table/Users";
/// Items on a page of a scan: few, so that a scan takes several pages.
const PAGE: usize = 2;

/// An object of a bucket.
#[derive(Debug, Clone, Default)]
pub(super) struct SimObject {
    pub(super) bytes: Vec<u8>,
    pub(super) metadata: HashMap<String, String>,
}

/// The objects of a bucket by key.
pub(super) type SimBucket = BTreeMap<String, SimObject>;

#[derive(Debug)]
pub(super) struct SimCloud {
    pub(super) table: Arc<SimTable>,
    /// The items of the source as DynamoDB JSON.
    pub(super) items: BTreeMap<CanonicalKey, String>,
    /// The label of the source's latest stream.
    pub(super) label: String,
    pub(super) failures: SimBucket,
    pub(super) archive: SimBucket,
}

/// A parsed request.
pub(super) struct SimRequest<'r> {
    pub(super) method: &'r str,
    pub(super) path: &'r str,
    pub(super) query: &'r str,
    /// The DynamoDB operation, such as `PutItem`; `None` for S3.
    pub(super) operation: Option<&'r str>,
    pub(super) headers: HashMap<&'r str, &'r str>,
    pub(super) body: &'r [u8],
}

/// A response.
#[derive(Debug, Default)]
pub(super) struct SimResponse {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl SimResponse {
    pub(super) fn error(asked_dynamodb: bool, status: u16, code: &str) -> Self {
        let body = if asked_dynamodb {
            format!(r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{code}","message":"as planned"}}"#)
        } else {
            format!("<Error><Code>{code}</Code><Message>as planned</Message></Error>")
        };
        Self { status, headers: Vec::new(), body: body.into_bytes() }
    }

    fn json(body: &Value) -> Self {
        Self { status: 200, headers: Vec::new(), body: body.to_string().into_bytes() }
    }
}

impl SimCloud {
    pub(super) fn new(table: Arc<SimTable>) -> Self {
        let (items, label) = (BTreeMap::new(), String::new());
        Self { table, items, label, failures: SimBucket::new(), archive: SimBucket::new() }
    }

    /// Returns the response. With `leave_one`, a read of several keys returns one of them in `UnprocessedKeys`.
    pub(super) fn respond(&mut self, asked: &SimRequest<'_>, leave_one: bool) -> SimResponse {
        match asked.operation {
            Some("DescribeTable") => SimResponse::json(&describe(&self.table, &self.label)),
            Some("BatchGetItem") => SimResponse::json(&self.read(asked.body, leave_one)),
            Some("Scan") => SimResponse::json(&self.scan(asked.body)),
            Some(_) => SimResponse::error(true, 400, "UnknownOperationException"),
            None => self.respond_as_s3(asked),
        }
    }

    fn read(&self, body: &[u8], leave_one: bool) -> Value {
        let mut asked: Value = serde_json::from_slice(body).unwrap();
        let mut keys: Vec<Value> = serde_json::from_value(asked["RequestItems"][SOURCE]["Keys"].take()).unwrap();
        let left = if leave_one { keys.pop() } else { None };
        let item = |key: &Value| {
            let item = self.items.get(&CanonicalKey::parse(&key.to_string()).unwrap())?;
            Some(serde_json::from_str::<Value>(item).unwrap())
        };
        let items: Vec<Value> = keys.iter().filter_map(item).collect();
        let left = left.map_or(json!({}), |key| json!({SOURCE: {"Keys": [key], "ConsistentRead": true}}));
        json!({"Responses": {SOURCE: items}, "UnprocessedKeys": left})
    }

    fn scan(&self, body: &[u8]) -> Value {
        let asked: Value = serde_json::from_slice(body).unwrap();
        let after = asked.get("ExclusiveStartKey").map(|key| CanonicalKey::parse(&key.to_string()).unwrap());
        let rest = self.items.iter().filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after));
        let page: Vec<_> = rest.take(PAGE + 1).collect();
        let items: Vec<Value> = page.iter().take(PAGE).map(|(_, item)| serde_json::from_str(item).unwrap()).collect();
        let mut response = json!({"Count": items.len(), "Items": items});
        if page.len() > PAGE {
            response["LastEvaluatedKey"] = serde_json::from_str(page[PAGE - 1].0.as_str()).unwrap();
        }
        response
    }

    fn respond_as_s3(&mut self, asked: &SimRequest<'_>) -> SimResponse {
        let mut parts = asked.path.trim_start_matches('/').splitn(2, '/');
        let bucket = match parts.next() {
            Some(FAILURES) => &mut self.failures,
            Some(ARCHIVE) => &mut self.archive,
            _ => return SimResponse::error(false, 404, "NoSuchBucket"),
        };
        let key = percent_decode_str(parts.next().unwrap_or_default()).decode_utf8().unwrap().into_owned();
        match asked.method {
            "PUT" => {
                let entry = |(name, value): (&&str, &&str)| {
                    Some((name.strip_prefix("x-amz-meta-")?.to_owned(), (*value).to_owned()))
                };
                let metadata = asked.headers.iter().filter_map(entry).collect();
                bucket.insert(key, SimObject { bytes: asked.body.to_vec(), metadata });
                let checksum = asked.headers.get("x-amz-checksum-sha256");
                let headers = checksum.map(|sha256| ("x-amz-checksum-sha256".to_owned(), (*sha256).to_owned()));
                SimResponse { status: 200, headers: headers.into_iter().collect(), body: Vec::new() }
            }
            "DELETE" => {
                bucket.remove(&key);
                SimResponse { status: 204, ..SimResponse::default() }
            }
            "GET" if key.is_empty() => list(bucket, asked.query),
            "GET" => bucket.get(&key).map_or_else(
                || SimResponse::error(false, 404, "NoSuchKey"),
                |object| SimResponse { status: 200, headers: Vec::new(), body: object.bytes.clone() },
            ),
            _ => SimResponse::error(false, 405, "MethodNotAllowed"),
        }
    }
}

/// The description of the source table, whose latest stream has this label.
pub(super) fn describe(table: &SimTable, label: &str) -> Value {
    let (mut schema, mut definitions) = (Vec::new(), Vec::new());
    for (name, kind, role) in table.key_schema() {
        schema.push(json!({"AttributeName": name, "KeyType": role.as_str()}));
        definitions.push(json!({"AttributeName": name, "AttributeType": kind.as_str()}));
    }
    json!({"Table": {
        "TableName": SOURCE, "TableArn": SOURCE_ARN, "TableStatus": "ACTIVE", "ItemCount": 0,
        "KeySchema": schema, "AttributeDefinitions": definitions,
        "StreamSpecification": {"StreamEnabled": true, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        "LatestStreamLabel": label, "LatestStreamArn": format!("{SOURCE_ARN}/stream/{label}"),
    }})
}

/// The replicator's event source mapping: it is enabled, and started at the oldest record.
pub(super) fn mappings() -> Value {
    json!({"EventSourceMappings": [{
        "UUID": "1", "State": "Enabled", "StartingPosition": "TRIM_HORIZON",
        "FunctionArn": "arn:aws:lambda:eu-west-1:123456789012:function:replicator:live",
    }]})
}

/// The replicator's configuration, which turns both replicas on, and the archive if it is a sink.
pub(super) fn configuration(archive_is_sink: bool) -> Value {
    let archive = if archive_is_sink { ARCHIVE } else { "" };
    let variables = json!({"WIDE": "on", "SMALL": "on", "ARCHIVE_BUCKET": archive});
    json!({"FunctionName": "replicator", "Environment": {"Variables": variables}})
}

fn list(bucket: &SimBucket, query: &str) -> SimResponse {
    let parameter = |wanted: &str| {
        let pair = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == wanted)?;
        Some(percent_decode_str(pair.1).decode_utf8().unwrap().into_owned())
    };
    let (prefix, after) = (parameter("prefix").unwrap_or_default(), parameter("start-after").unwrap_or_default());
    let most = parameter("max-keys").map_or(1_000, |most| most.parse().unwrap());
    let found: Vec<_> = bucket.keys().filter(|key| key.starts_with(&prefix) && **key > after).take(most + 1).collect();
    let mut body = format!(
        "<ListBucketResult><IsTruncated>{}</IsTruncated><KeyCount>{}</KeyCount>",
        found.len() > most,
        found.len().min(most)
    );
    for key in found.into_iter().take(most) {
        write!(
            body,
            "<Contents><Key>{key}</Key><LastModified>2026-11-24T08:00:00.000Z</LastModified><Size>1</Size></Contents>"
        )
        .unwrap();
    }
    body.push_str("</ListBucketResult>");
    SimResponse { status: 200, headers: Vec::new(), body: body.into_bytes() }
}
