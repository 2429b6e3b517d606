//! Client of the account that `doctor` checks and the console shows: [`read_account`], [`AccountClient`].
//!
//! The crate `millrace-doctor` decides which calls are made; this module makes them, one after the other. A call is a
//! signed request to the service, and its response is JSON or is converted to JSON.

use std::fmt::Write as _;
use std::time::Duration;

use millrace_doctor::account_call::{AccountCall, AccountService, CallRefusal, CallResponse};
use millrace_doctor::account_recording::AccountTarget;
use millrace_doctor::account_turns::read_in_turns;
use millrace_doctor::template_reader::DeploymentReading;
use millrace_shared::clock::Clock;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::xml_document;
use crate::attach::account::AccountConnection;
use crate::signed_request::{RawResponse, RequestSender, SignedRequest};

/// The maximum number of pages of a list.
const MAX_PAGES: usize = 200;
/// The number of attempts of a call that is throttled.
const ATTEMPTS: u32 = 4;
/// Characters that are not encoded in a path or a query.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// The time of the metrics that are read, and the period of each value.
const DAYS_OF_METRICS: i64 = 14;
const SECONDS_OF_DAY: &str = "86400";
/// The period of the values of the last hours, in seconds.
const SHORT_PERIOD: &str = "300";

/// Reads a deployment from an account.
///
/// # Errors
/// A line that names the call and its error, if the target cannot be read.
pub(super) async fn read_account(
    connection: &AccountConnection,
    target: AccountTarget,
) -> Result<DeploymentReading, String> {
    AccountClient::new(connection)?.read(target).await
}

/// Makes the calls, as signed requests.
pub(crate) struct AccountClient {
    sender: RequestSender,
    location: ServiceLocation,
}

impl AccountClient {
    /// Returns a client of the account.
    ///
    /// # Errors
    /// The Region, if it is none.
    pub(crate) fn new(connection: &AccountConnection) -> Result<Self, String> {
        let AccountConnection { region, credentials, endpoint_url, .. } = connection;
        let is_region = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
        if region.is_empty() || !region.chars().all(is_region) {
            return Err(format!("{region:?} is not a Region: set --region to a name such as eu-west-1"));
        }
        let clock = Clock::system();
        let location =
            ServiceLocation { region: region.clone(), endpoint_url: endpoint_url.clone(), read_at: clock.now() };
        Ok(Self { sender: RequestSender::new(credentials.clone(), clock), location })
    }

    /// Makes calls until no response is missing.
    async fn read(&self, target: AccountTarget) -> Result<DeploymentReading, String> {
        read_in_turns(target, self.location.read_at, |call| async move { self.call(&call).await }).await
    }

    /// Makes a call, with all pages of its list.
    pub(crate) async fn call(&self, call: &AccountCall) -> CallResponse {
        let mut marker: Option<String> = None;
        let mut whole: Option<Value> = None;
        for _ in 0..MAX_PAGES {
            let page = match self.attempt(call, marker.as_deref()).await {
                Ok(page) => page,
                Err(refusal) => return CallResponse::Refused(refusal),
            };
            let Some(pages) = call.operation.pages else { return CallResponse::Response(page) };
            marker = page.pointer(pages.next).and_then(Value::as_str).filter(|it| !it.is_empty()).map(str::to_owned);
            match &mut whole {
                None => whole = Some(page),
                Some(whole) => {
                    let more = page.pointer(pages.list).and_then(Value::as_array).cloned().unwrap_or_default();
                    match whole.pointer_mut(pages.list) {
                        Some(Value::Array(list)) => list.extend(more),
                        Some(empty) => *empty = more.into(),
                        None => {}
                    }
                }
            }
            if marker.is_none() {
                return CallResponse::Response(whole.unwrap_or_default());
            }
        }
        let description = format!("it has more than {MAX_PAGES} pages");
        CallResponse::Refused(CallRefusal { code: None, description })
    }

    /// Makes a call of one page, again if it is throttled.
    async fn attempt(&self, call: &AccountCall, marker: Option<&str>) -> Result<Value, CallRefusal> {
        let request = self.location.request(call, marker);
        let mut attempt = 0;
        loop {
            attempt += 1;
            let response =
                self.sender.send(&request).await.map_err(|error| self.location.not_reached(&request, &error))?;
            let is_throttled = response.status == 429 || response.status >= 500;
            let result = response_of(call, &response);
            let is_throttled = is_throttled
                || result.as_ref().is_err_and(|refusal| {
                    refusal
                        .code
                        .as_deref()
                        .is_some_and(|code| code.contains("Throttl") || code.contains("LimitExceeded"))
                });
            if !is_throttled || attempt == ATTEMPTS {
                return result;
            }
            tokio::time::sleep(Duration::from_millis(200) * 2_u32.pow(attempt)).await;
        }
    }
}

/// Where and when the services are called.
struct ServiceLocation {
    region: String,
    endpoint_url: Option<String>,
    read_at: OffsetDateTime,
}

impl ServiceLocation {
    fn not_reached(&self, request: &SignedRequest, error: &str) -> CallRefusal {
        let host = request.url.split('/').nth(2).unwrap_or(&request.url);
        let fix = match &self.endpoint_url {
            Some(url) => format!("set --endpoint-url, now {url}"),
            None => format!("is {} a Region? Set --region", self.region),
        };
        CallRefusal { code: None, description: format!("{host} is not reached ({error}): {fix}") }
    }

    /// Returns the Region in which a service signs, and its URL without a path.
    fn endpoint(&self, service: AccountService) -> (String, String) {
        let suffix = match self.region.split('-').next() {
            Some("cn") => "amazonaws.com.cn",
            Some("eusc") => "amazonaws.eu",
            _ => "amazonaws.com",
        };
        let region = &self.region;
        let host = |name: &str| format!("https://{name}.{region}.{suffix}");
        let (signed_in, url) = match service {
            // One endpoint for each partition.
            AccountService::Iam => match region.split('-').collect::<Vec<_>>()[..] {
                ["cn", ..] => ("cn-north-1", "https://iam.cn-north-1.amazonaws.com.cn".to_owned()),
                ["us", "gov", ..] => ("us-gov-west-1", "https://iam.us-gov.amazonaws.com".to_owned()),
                ["eusc", ..] => ("eusc-de-east-1", "https://iam.eusc-de-east-1.amazonaws.eu".to_owned()),
                _ => ("us-east-1", "https://iam.amazonaws.com".to_owned()),
            },
            AccountService::ApiGateway => (region.as_str(), host("apigateway")),
            AccountService::CloudFormation => (region.as_str(), host("cloudformation")),
            AccountService::CloudWatch => (region.as_str(), host("monitoring")),
            AccountService::DynamoDb => (region.as_str(), host("dynamodb")),
            AccountService::DynamoDbStreams => (region.as_str(), host("streams.dynamodb")),
            AccountService::Ec2 => (region.as_str(), host("ec2")),
            AccountService::Kms => (region.as_str(), host("kms")),
            AccountService::Lambda => (region.as_str(), host("lambda")),
            AccountService::Pipes => (region.as_str(), host("pipes")),
            AccountService::S3 => (region.as_str(), host("s3")),
            AccountService::Sns => (region.as_str(), host("sns")),
            AccountService::Sqs => (region.as_str(), host("sqs")),
            AccountService::StepFunctions => (region.as_str(), host("states")),
        };
        let url = self.endpoint_url.as_ref().map_or(url, |given| given.trim_end_matches('/').to_owned());
        (signed_in.to_owned(), url)
    }

    /// Returns the request of a call.
    fn request(&self, call: &AccountCall, marker: Option<&str>) -> SignedRequest {
        let (region, url) = self.endpoint(call.operation.service);
        let post = |service, kind: &str, body: String| SignedRequest {
            service,
            region: region.clone(),
            method: "POST",
            url: format!("{url}/"),
            headers: vec![("content-type", kind.to_owned())],
            body,
        };
        let target = |service, kind: &str, target: &str| {
            let mut request = post(service, kind, json_body(call, marker));
            request.headers.push(("x-amz-target", format!("{target}.{}", call.operation.name)));
            request
        };
        let get = |service, path: String| SignedRequest {
            service,
            region: region.clone(),
            method: "GET",
            url: format!("{url}{path}"),
            headers: Vec::new(),
            body: String::new(),
        };
        let form = |service, version| {
            post(service, "application/x-www-form-urlencoded; charset=utf-8", self.form_body(call, version, marker))
        };
        match call.operation.service {
            AccountService::DynamoDb => target("dynamodb", "application/x-amz-json-1.0", "DynamoDB_20120810"),
            AccountService::DynamoDbStreams => {
                target("dynamodb", "application/x-amz-json-1.0", "DynamoDBStreams_20120810")
            }
            AccountService::StepFunctions => target("states", "application/x-amz-json-1.0", "AWSStepFunctions"),
            AccountService::Kms => target("kms", "application/x-amz-json-1.1", "TrentService"),
            AccountService::CloudFormation => form("cloudformation", "2010-05-15"),
            AccountService::CloudWatch => form("monitoring", "2010-08-01"),
            AccountService::Ec2 => form("ec2", "2016-11-15"),
            AccountService::Iam => form("iam", "2010-05-08"),
            AccountService::Sns => form("sns", "2010-03-31"),
            AccountService::Sqs => {
                let mut queue = call.clone();
                let arn = queue.parameters.remove("QueueArn").unwrap_or_default();
                let path = arn.splitn(5, ':').last().unwrap_or_default().replace(':', "/");
                queue.parameters.insert("QueueUrl", format!("{url}/{path}"));
                let mut request = post("sqs", "application/x-amz-json-1.0", json_body(&queue, marker));
                request.headers.push(("x-amz-target", format!("AmazonSQS.{}", call.operation.name)));
                request
            }
            AccountService::Lambda => get("lambda", lambda_path(call, marker)),
            AccountService::ApiGateway => get(
                "apigateway",
                format!("/v2/apis/{}/routes{}", encoded(call.parameter("ApiId")), query("nextToken", marker)),
            ),
            AccountService::Pipes => {
                let next = marker.map_or_else(String::new, |marker| format!("&NextToken={}", encoded(marker)));
                get("pipes", format!("/v1/pipes?SourcePrefix={}{next}", encoded(call.parameter("SourcePrefix"))))
            }
            AccountService::S3 => get("s3", bucket_path(call)),
        }
    }

    /// Returns the parameters of a service with the query protocol.
    fn form_body(&self, call: &AccountCall, version: &str, marker: Option<&str>) -> String {
        let mut body = format!("Action={}&Version={version}", call.operation.name);
        let mut add = |name: &str, value: &str| {
            let _ = write!(body, "&{name}={}", encoded(value));
        };
        match call.operation.name {
            "DescribeVpcEndpoints" | "DescribeRouteTables" | "DescribeSecurityGroups" => {
                add("Filter.1.Name", "vpc-id");
                add("Filter.1.Value.1", call.parameter("VpcId"));
            }
            "GetMetricStatistics" => {
                let time =
                    |at: OffsetDateTime| at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default();
                for name in ["Namespace", "MetricName"] {
                    add(name, call.parameter(name));
                }
                for (index, dimension) in call.parameter("Dimensions").split(',').enumerate() {
                    let (name, value) = dimension.split_once('=').unwrap_or((dimension, ""));
                    add(&format!("Dimensions.member.{}.Name", index + 1), name);
                    add(&format!("Dimensions.member.{}.Value", index + 1), value);
                }
                let statistic = call.parameter("Statistic");
                let list = if statistic.starts_with('p') { "ExtendedStatistics" } else { "Statistics" };
                add(&format!("{list}.member.1"), statistic);
                let hours = call.parameter("Hours").parse::<i64>().ok();
                add("Period", if hours.is_some() { SHORT_PERIOD } else { SECONDS_OF_DAY });
                let window = hours.map_or(time::Duration::days(DAYS_OF_METRICS), time::Duration::hours);
                add("StartTime", &time(self.read_at - window));
                add("EndTime", &time(self.read_at));
            }
            "GetMetricData" => {
                for (name, value) in &call.parameters {
                    match serde_json::from_str(value) {
                        Ok(list @ Value::Array(_)) => add_nested(&mut add, name, &list),
                        _ => add(name, value),
                    }
                }
            }
            _ => call.parameters.iter().for_each(|(name, value)| add(name, value)),
        }
        if let (Some(pages), Some(marker)) = (call.operation.pages, marker) {
            add(pages.parameter, marker);
        }
        body
    }
}

/// Adds a nested parameter, as the query protocol flattens it.
fn add_nested(add: &mut impl FnMut(&str, &str), name: &str, value: &Value) {
    match value {
        Value::Array(list) => {
            for (number, own) in list.iter().enumerate() {
                add_nested(add, &format!("{name}.member.{}", number + 1), own);
            }
        }
        Value::Object(members) => {
            for (member, own) in members {
                add_nested(add, &format!("{name}.{member}"), own);
            }
        }
        Value::String(text) => add(name, text),
        other => add(name, &other.to_string()),
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

fn query(name: &str, value: Option<&str>) -> String {
    value.map_or_else(String::new, |value| format!("?{name}={}", encoded(value)))
}

/// Returns the parameters of a service with a JSON protocol.
fn json_body(call: &AccountCall, marker: Option<&str>) -> String {
    let mut body: Map<String, Value> =
        call.parameters.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into())).collect();
    if let Some(attribute) = body.remove("Attribute") {
        // Nothing else of the items is read.
        body.insert("ProjectionExpression".to_owned(), "#ttl".into());
        body.insert("ExpressionAttributeNames".to_owned(), json!({"#ttl": attribute}));
        body.insert("Limit".to_owned(), 100.into());
    }
    if call.operation.name == "GetQueueAttributes" {
        body.insert("AttributeNames".to_owned(), json!(["Policy", "KmsMasterKeyId"]));
    }
    if let (Some(pages), Some(marker)) = (call.operation.pages, marker) {
        body.insert(pages.parameter.to_owned(), marker.into());
    }
    Value::Object(body).to_string()
}

fn lambda_path(call: &AccountCall, marker: Option<&str>) -> String {
    let name = encoded(call.parameter("FunctionName"));
    let qualifier = call.parameters.get("Qualifier").map(String::as_str);
    match call.operation.name {
        "GetFunctionConfiguration" => {
            format!("/2015-03-31/functions/{name}/configuration{}", query("Qualifier", qualifier))
        }
        "GetFunctionConcurrency" => format!("/2019-09-30/functions/{name}/concurrency"),
        _ => format!("/2015-03-31/event-source-mappings/{}", query("Marker", marker)),
    }
}

fn bucket_path(call: &AccountCall) -> String {
    let query = match call.operation.name {
        "GetBucketVersioning" => "versioning".to_owned(),
        "GetBucketLifecycleConfiguration" => "lifecycle".to_owned(),
        "GetBucketEncryption" => "encryption".to_owned(),
        "GetBucketPolicy" => "policy".to_owned(),
        _ => format!("list-type=2&prefix={}", encoded(call.parameter("Prefix"))),
    };
    format!("/{}?{query}", encoded(call.parameter("Bucket")))
}

/// Reads a response, which is JSON or XML.
fn response_of(call: &AccountCall, response: &RawResponse) -> Result<Value, CallRefusal> {
    let text = String::from_utf8_lossy(&response.body);
    let document = match text.trim_start().chars().next() {
        Some('{') => serde_json::from_str::<Value>(&text).map_err(|error| format!("its response is not JSON: {error}")),
        Some('<') => xml_document::json_of(&text).map_err(|problem| format!("its response is {problem}")),
        Some(_) => Err("its response is neither JSON nor XML".to_owned()),
        None => Ok(Value::Null),
    };
    if response.status == 200 {
        let mut document = document.map_err(|description| CallRefusal { code: None, description })?;
        let result = document.get_mut(format!("{}Result", call.operation.name)).map(Value::take);
        return Ok(result.unwrap_or(document));
    }
    let document = document.unwrap_or_default();
    let error =
        ["/Error", "/Errors/Error", ""].iter().find_map(|path| document.pointer(path).filter(|it| it.is_object()));
    let member = |names: [&str; 3]| names.iter().find_map(|name| error?.get(*name)?.as_str()).map(str::to_owned);
    let code = member(["Code", "__type", "code"]).or_else(|| response.error_type.clone());
    // A type may have a namespace before it, and a link behind it.
    let code = code.map(|code| {
        let name = code.rsplit('#').next().unwrap_or(&code);
        name.split(':').next().unwrap_or(name).to_owned()
    });
    let message = member(["Message", "message", "errorMessage"]);
    let mut description = match (&code, message) {
        (Some(code), Some(message)) => format!("{code}: {}", message.split_whitespace().collect::<Vec<_>>().join(" ")),
        (Some(code), None) => code.clone(),
        (None, message) => message.unwrap_or_else(|| format!("status {}", response.status)),
    };
    let is_login = |code: &str| {
        code.starts_with("ExpiredToken")
            || matches!(
                code,
                "InvalidClientTokenId" | "UnrecognizedClientException" | "InvalidAccessKeyId" | "AuthFailure"
            )
    };
    if code.as_deref().is_some_and(is_login) {
        description.push_str(": log in again, or set --profile");
    }
    Err(CallRefusal { code, description })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use millrace_doctor::account_call::{
        AccountOperation, DESCRIBE_ENDPOINTS, DESCRIBE_TABLE, GET_CONCURRENCY, GET_FUNCTION, GET_LIFECYCLE, GET_QUEUE,
        GET_ROUTES, GET_STATISTICS, GET_TOPIC, LIST_MAPPINGS, LIST_OBJECTS, LIST_PIPES, LIST_STACK_RESOURCES, SCAN,
        SIMULATE,
    };
    use time::macros::datetime;

    use super::*;

    fn location(region: &str) -> ServiceLocation {
        ServiceLocation { region: region.to_owned(), endpoint_url: None, read_at: datetime!(2026-11-28 10:00:00.5 UTC) }
    }

    fn request(operation: &'static AccountOperation, parameters: &[(&'static str, &str)]) -> SignedRequest {
        location("eu-west-1").request(&AccountCall::new(operation, parameters), None)
    }

    #[test]
    fn a_request_has_the_form_of_its_service() {
        let table = request(&DESCRIBE_TABLE, &[("TableName", "Users")]);
        assert_eq!(table.url, "https://dynamodb.eu-west-1.amazonaws.com/");
        assert_eq!(table.headers[1], ("x-amz-target", "DynamoDB_20120810.DescribeTable".to_owned()));
        assert_eq!(table.body, r#"{"TableName":"Users"}"#);
        let scan: Value =
            serde_json::from_str(&request(&SCAN, &[("TableName", "T"), ("Attribute", "ttl")]).body).unwrap();
        let names = json!({"#ttl": "ttl"});
        let expected =
            json!({"TableName": "T", "Limit": 100, "ProjectionExpression": "#ttl", "ExpressionAttributeNames": names});
        assert_eq!(scan, expected);
        for (operation, parameters, url) in [
            (&LIST_MAPPINGS, &[][..], "https://lambda.eu-west-1.amazonaws.com/2015-03-31/event-source-mappings/"),
            (
                &GET_FUNCTION,
                &[("FunctionName", "f"), ("Qualifier", "$LATEST")],
                "https://lambda.eu-west-1.amazonaws.com/2015-03-31/functions/f/configuration?Qualifier=%24LATEST",
            ),
            (
                &GET_CONCURRENCY,
                &[("FunctionName", "f")],
                "https://lambda.eu-west-1.amazonaws.com/2019-09-30/functions/f/concurrency",
            ),
            (&GET_ROUTES, &[("ApiId", "a")], "https://apigateway.eu-west-1.amazonaws.com/v2/apis/a/routes"),
            (
                &LIST_PIPES,
                &[("SourcePrefix", "arn:aws:dynamodb:::table/T/stream/1")],
                "https://pipes.eu-west-1.amazonaws.com/v1/pipes?SourcePrefix=arn%3Aaws%3Adynamodb%3A%3A%3Atable%2FT%2F\
                 stream%2F1",
            ),
            (&GET_LIFECYCLE, &[("Bucket", "b.c")], "https://s3.eu-west-1.amazonaws.com/b.c?lifecycle"),
            (
                &LIST_OBJECTS,
                &[("Bucket", "b"), ("Prefix", "aws/lambda/")],
                "https://s3.eu-west-1.amazonaws.com/b?list-type=2&prefix=aws%2Flambda%2F",
            ),
        ] {
            let request = request(operation, parameters);
            assert_eq!((request.method, request.url.as_str()), ("GET", url));
        }
        let role =
            request(&SIMULATE, &[("PolicySourceArn", "arn:aws:iam::1:role/r"), ("ActionNames.member.1", "s3:Get*")]);
        assert_eq!((role.url.as_str(), role.region.as_str()), ("https://iam.amazonaws.com/", "us-east-1"));
        assert_eq!(
            role.body,
            "Action=SimulatePrincipalPolicy&Version=2010-05-08&ActionNames.member.1=s3%3AGet%2A&\
             PolicySourceArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fr"
        );
        let endpoints = request(&DESCRIBE_ENDPOINTS, &[("VpcId", "vpc-1")]);
        assert!(endpoints.body.ends_with("&Filter.1.Name=vpc-id&Filter.1.Value.1=vpc-1"), "{}", endpoints.body);
        let parameters =
            [("MetricName", "IteratorAge"), ("Dimensions", "function=f,stack=s"), ("Statistic", "Maximum")];
        let metric = request(&GET_STATISTICS, &parameters).body;
        assert!(metric.contains("&StartTime=2026-11-14T10%3A00%3A00Z&EndTime=2026-11-28T10%3A00%3A00Z"), "{metric}");
        for part in ["&Dimensions.member.2.Name=stack&Dimensions.member.2.Value=s", "&Statistics.member.1=Maximum"] {
            assert!(metric.contains(part), "{part}: {metric}");
        }
        let now = request(&GET_STATISTICS, &[("Statistic", "p99"), ("Hours", "1")]).body;
        assert!(now.contains("&ExtendedStatistics.member.1=p99&Period=300&StartTime=2026-11-28T09%3A00"), "{now}");
    }

    #[test]
    fn a_destination_is_asked_for_its_policy_and_key() {
        let queue = request(&GET_QUEUE, &[("QueueArn", "arn:aws:sqs:eu-west-1:123456789012:discarded.fifo")]);
        assert_eq!(queue.url, "https://sqs.eu-west-1.amazonaws.com/");
        assert_eq!(queue.headers[1], ("x-amz-target", "AmazonSQS.GetQueueAttributes".to_owned()));
        let expected = json!({
            "QueueUrl": "https://sqs.eu-west-1.amazonaws.com/123456789012/discarded.fifo",
            "AttributeNames": ["Policy", "KmsMasterKeyId"],
        });
        assert_eq!(serde_json::from_str::<Value>(&queue.body).unwrap(), expected);
        let topic = request(&GET_TOPIC, &[("TopicArn", "arn:aws:sns:eu-west-1:1:t")]);
        assert_eq!(topic.url, "https://sns.eu-west-1.amazonaws.com/");
        assert_eq!(
            topic.body,
            "Action=GetTopicAttributes&Version=2010-03-31&TopicArn=arn%3Aaws%3Asns%3Aeu-west-1%3A1%3At"
        );
        let body = "<GetTopicAttributesResponse><GetTopicAttributesResult><Attributes><entry><key>Policy</key>\
                    <value>{}</value></entry></Attributes></GetTopicAttributesResult></GetTopicAttributesResponse>";
        let read = response_of(&AccountCall::new(&GET_TOPIC, &[]), &response(200, None, body)).unwrap();
        assert_eq!(read, json!({"Attributes": {"entry": {"key": "Policy", "value": "{}"}}}));
    }

    #[test]
    fn lists_of_metrics_are_flattened_and_executions_are_json() {
        const fn operation(service: AccountService, name: &'static str) -> AccountOperation {
            AccountOperation { service, name, action: "", resource: "", pages: None, absent: &[] }
        }
        static METRICS: AccountOperation = operation(AccountService::CloudWatch, "GetMetricData");
        static START: AccountOperation = operation(AccountService::StepFunctions, "StartExecution");
        let queries = r#"[{"Id":"m0","MetricStat":{"Metric":{"Dimensions":[{"Name":"stack"}]},"Period":"300"}}]"#;
        let metrics = request(&METRICS, &[("MetricDataQueries", queries), ("StartTime", "2026-11-28T10:00:00Z")]);
        assert_eq!(
            metrics.body,
            "Action=GetMetricData&Version=2010-08-01&MetricDataQueries.member.1.Id=m0&\
             MetricDataQueries.member.1.MetricStat.Metric.Dimensions.member.1.Name=stack&\
             MetricDataQueries.member.1.MetricStat.Period=300&StartTime=2026-11-28T10%3A00%3A00Z"
        );
        let start = request(&START, &[("input", "{\"task\":\"verify\"}")]);
        assert_eq!((start.service, start.url.as_str()), ("states", "https://states.eu-west-1.amazonaws.com/"));
        assert_eq!(start.headers[1], ("x-amz-target", "AWSStepFunctions.StartExecution".to_owned()));
        assert_eq!(start.body, r#"{"input":"{\"task\":\"verify\"}"}"#);
    }

    #[test]
    fn the_endpoint_is_that_of_the_partition_or_the_given_one() {
        let url = |region: &str, service| location(region).endpoint(service);
        assert_eq!(url("cn-north-1", AccountService::Kms).1, "https://kms.cn-north-1.amazonaws.com.cn");
        assert_eq!(url("us-gov-east-1", AccountService::Iam).0, "us-gov-west-1");
        let given = ServiceLocation { endpoint_url: Some("http://127.0.0.1:1/".to_owned()), ..location("eu-west-1") };
        assert_eq!(given.endpoint(AccountService::S3).1, "http://127.0.0.1:1");
    }

    #[test]
    fn a_marker_continues_a_list() {
        let next = |operation, name: &'static str| {
            location("eu-west-1").request(&AccountCall::new(operation, &[(name, "x")]), Some("a/b"))
        };
        assert!(next(&LIST_MAPPINGS, "X").url.ends_with("?Marker=a%2Fb"));
        assert!(next(&LIST_STACK_RESOURCES, "StackName").body.ends_with("&StackName=x&NextToken=a%2Fb"));
        assert!(next(&LIST_PIPES, "SourcePrefix").url.ends_with("/v1/pipes?SourcePrefix=x&NextToken=a%2Fb"));
        assert!(next(&GET_ROUTES, "ApiId").url.ends_with("/v2/apis/x/routes?nextToken=a%2Fb"));
    }

    fn response(status: u16, error_type: Option<&str>, body: &'static str) -> RawResponse {
        RawResponse { status, error_type: error_type.map(str::to_owned), body: Bytes::from_static(body.as_bytes()) }
    }

    #[test]
    fn a_response_is_read_as_json_or_xml() {
        let of = |operation, body| response_of(&AccountCall::new(operation, &[]), &response(200, None, body)).unwrap();
        assert_eq!(of(&DESCRIBE_TABLE, r#"{"Table":{}}"#), json!({"Table": {}}));
        let listed = "<ListStackResourcesResponse><ListStackResourcesResult><StackResourceSummaries><member>\
                      <ResourceType>A</ResourceType></member></StackResourceSummaries></ListStackResourcesResult>\
                      <ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></ListStackResourcesResponse>";
        assert_eq!(of(&LIST_STACK_RESOURCES, listed), json!({"StackResourceSummaries": [{"ResourceType": "A"}]}));
        let rules = "<LifecycleConfiguration><Rule><Status>Enabled</Status></Rule></LifecycleConfiguration>";
        assert_eq!(of(&GET_LIFECYCLE, rules), json!({"Rule": {"Status": "Enabled"}}));
    }

    #[test]
    fn an_error_has_the_code_of_its_service() {
        for (error_type, body, code, description) in [
            (
                None,
                r#"{"__type":"com.amazonaws.dynamodb.v20120810#AccessDeniedException","Message":"not authorized"}"#,
                "AccessDeniedException",
                "AccessDeniedException: not authorized",
            ),
            (
                Some("ResourceNotFoundException:http://x/"),
                r#"{"Type":"User","Message":"Function not found"}"#,
                "ResourceNotFoundException",
                "ResourceNotFoundException: Function not found",
            ),
            (
                None,
                "<ErrorResponse><Error><Type>Sender</Type><Code>ExpiredToken</Code><Message>expired\n</Message></Error>\
                 </ErrorResponse>",
                "ExpiredToken",
                "ExpiredToken: expired: log in again, or set --profile",
            ),
            (
                None,
                "<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>no</Message></Error></Errors>\
                 </Response>",
                "UnauthorizedOperation",
                "UnauthorizedOperation: no",
            ),
            (None, "<Error><Code>NoSuchBucketPolicy</Code></Error>", "NoSuchBucketPolicy", "NoSuchBucketPolicy"),
        ] {
            let refusal =
                response_of(&AccountCall::new(&DESCRIBE_TABLE, &[]), &response(400, error_type, body)).unwrap_err();
            assert_eq!((refusal.code.as_deref(), refusal.description.as_str()), (Some(code), description));
        }
        let refusal =
            response_of(&AccountCall::new(&DESCRIBE_TABLE, &[]), &response(502, None, "bad gateway")).unwrap_err();
        assert_eq!(refusal, CallRefusal { code: None, description: "status 502".to_owned() });
        let body = "<html>";
        assert!(response_of(&AccountCall::new(&DESCRIBE_TABLE, &[]), &response(200, None, body)).is_err());
    }
    /// Returns a client whose requests are answered by a function of the head of the request and its number.
    fn client_of(respond: impl Fn(&str, usize) -> (u16, String) + Send + 'static) -> AccountClient {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                let mut head = String::new();
                let mut reader = std::io::BufReader::new(&mut stream);
                while std::io::BufRead::read_line(&mut reader, &mut head).unwrap() > 2 {}
                // A connection that is closed before the body is read would be reset.
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or("0", str::trim);
                let mut body = vec![0; length.parse().unwrap()];
                std::io::Read::read_exact(&mut reader, &mut body).unwrap();
                let (status, body) = respond(&head, number);
                let length = body.len();
                let head =
                    format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
                std::io::Write::write_all(&mut stream, head.as_bytes()).unwrap();
            }
        });
        let credentials = aws_credential_types::Credentials::new("a", "b", None, None, "test");
        let location = ServiceLocation { endpoint_url: Some(url), ..location("eu-west-1") };
        AccountClient { sender: RequestSender::new(credentials, Clock::system()), location }
    }

    #[tokio::test]
    async fn an_account_that_refuses_is_an_error_of_one_line() {
        let client = client_of(|_, _| (400, r#"{"__type":"AccessDeniedException","message":"no"}"#.to_owned()));
        let refused = |target| client.read(target);
        let table = refused(AccountTarget::Table("Users".to_owned())).await.unwrap_err();
        assert_eq!(table, "table/Users: DescribeTable was denied: allow dynamodb:DescribeTable");
        let stack = refused(AccountTarget::Stack("users".to_owned())).await.unwrap_err();
        assert_eq!(stack, "stack/users: ListStackResources was denied: allow cloudformation:ListStackResources");
    }

    #[tokio::test]
    async fn a_region_that_does_not_exist_is_named() {
        let credentials = aws_credential_types::Credentials::new("a", "b", None, None, "test");
        // A closed port fails as a host that does not exist.
        let location = ServiceLocation { endpoint_url: Some("http://127.0.0.1:1".to_owned()), ..location("eu-west-9") };
        let mut client = AccountClient { sender: RequestSender::new(credentials, Clock::system()), location };
        let problem = client.read(AccountTarget::Function("f".to_owned())).await.unwrap_err();
        assert!(
            problem.starts_with("function/f: GetFunctionConfiguration failed: 127.0.0.1:1 is not reached"),
            "{problem}"
        );
        client.location.endpoint_url = None;
        let request = client.location.request(&AccountCall::new(&LIST_STACK_RESOURCES, &[]), None);
        let refusal = client.location.not_reached(&request, "dns error");
        assert_eq!(
            refusal.description,
            "cloudformation.eu-west-9.amazonaws.com is not reached (dns error): is eu-west-9 a Region? Set --region"
        );
    }

    #[tokio::test]
    async fn the_pages_of_a_list_are_one_answer_and_a_throttled_call_is_made_again() {
        let client = client_of(|head, number| match (head.contains("Marker=2"), number) {
            (_, 0) => (429, r#"{"message":"slow down"}"#.to_owned()),
            (false, _) => (200, r#"{"EventSourceMappings":[1],"NextMarker":"2"}"#.to_owned()),
            (true, _) => (200, r#"{"EventSourceMappings":[2,3],"NextMarker":null}"#.to_owned()),
        });
        let CallResponse::Response(list) = client.call(&AccountCall::new(&LIST_MAPPINGS, &[])).await else {
            panic!("refused")
        };
        assert_eq!(list["EventSourceMappings"], json!([1, 2, 3]));
    }
}
