//! The table of the rules: [`RULES`]. `--explain`, the pages in docs/doctor/ and the metadata of SARIF are made from
//! it.

use std::fmt;

use crate::deployment::{KeySettings, RouteSettings, StreamDeployment, StreamMapping, TableSettings};
use crate::rules::{
    RuleOutcome, delivery, destination, encryption, filter, function, network, replica, resource, stream,
};

/// The consequence of a finding, the most severe first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleSeverity {
    /// Records are lost without a trace.
    Loses,
    /// Records are not delivered.
    Blocks,
    /// Copies differ from their source.
    Diverges,
    /// Data can be reached without authorization.
    Exposes,
    /// A loss is not noticed, or cannot be repaired.
    Weakens,
}

impl RuleSeverity {
    /// All severities, the most severe first.
    pub const ALL: [Self; 5] = [Self::Loses, Self::Blocks, Self::Diverges, Self::Exposes, Self::Weakens];

    /// Returns the name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Loses => "loses",
            Self::Blocks => "blocks",
            Self::Diverges => "diverges",
            Self::Exposes => "exposes",
            Self::Weakens => "weakens",
        }
    }

    /// Returns the meaning in one phrase.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Loses => "records are lost without a trace",
            Self::Blocks => "records are not delivered",
            Self::Diverges => "copies differ from their source",
            Self::Exposes => "data can be reached without authorization",
            Self::Weakens => "a loss is not noticed, or cannot be repaired",
        }
    }
}

impl fmt::Display for RuleSeverity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a rule is evaluated, by the kind of resource.
#[derive(Debug, Clone, Copy)]
pub enum RuleCheck {
    /// For each mapping of a DynamoDB stream.
    Mapping(fn(&StreamDeployment, &StreamMapping) -> RuleOutcome),
    /// For each table.
    Table(fn(&StreamDeployment, &TableSettings) -> RuleOutcome),
    /// For each key.
    Key(fn(&KeySettings) -> RuleOutcome),
    /// For each route of an HTTP API.
    Route(fn(&RouteSettings) -> RuleOutcome),
}

/// A rule.
#[derive(Debug)]
pub struct DoctorRule {
    /// The identifier, in words.
    pub id: &'static str,
    /// The consequence of a finding.
    pub severity: RuleSeverity,
    /// The fault, as a phrase.
    pub title: &'static str,
    /// The loss, and how it happens.
    pub loss: &'static str,
    /// The settings that are examined in a template; for a rule that needs the account, why it is not.
    pub offline: &'static str,
    /// The responses that are examined in an account.
    pub live: &'static str,
    /// Whether it can be evaluated only in an account.
    pub needs_account: bool,
    /// The fix in a template.
    pub fix: &'static str,
    /// The fix in Terraform.
    pub fix_hcl: &'static str,
    /// The source.
    pub source: &'static str,
    /// How it is evaluated.
    pub checks: &'static [RuleCheck],
}

const ERRORS: &str = "https://docs.aws.amazon.com/lambda/latest/dg/services-dynamodb-errors.html";
const RESPONSES: &str = "https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-batchfailurereporting.html";
const FILTERING: &str = "https://docs.aws.amazon.com/lambda/latest/dg/with-ddb-filtering.html";
const STREAMS: &str = "https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Streams.html";
const TTL_STREAMS: &str =
    "https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/time-to-live-ttl-streams.html";
const TTL: &str = "https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/howitworks-ttl.html";
const WITH_DDB: &str = "https://docs.aws.amazon.com/lambda/latest/dg/with-ddb.html";
const METRICS: &str = "https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html";

/// The rules, the most severe first.
pub const RULES: &[DoctorRule] = &[
    DoctorRule {
        id: "discarded-without-destination",
        severity: RuleSeverity::Loses,
        title: "Bounded retries or age without an on-failure destination",
        loss: "After the last retry, or when a record is too old, Lambda discards the batch and continues. Without a \
               destination nothing is left of its records.",
        offline: "MaximumRetryAttempts, MaximumRecordAgeInSeconds and DestinationConfig of the mapping.",
        live: "The same members of the mapping.",
        needs_account: false,
        fix: "DestinationConfig:\n  OnFailure:\n    Type: S3\n    Destination: !GetAtt FailureBucket.Arn",
        fix_hcl: "destination_config {\n  on_failure {\n    destination_arn = aws_s3_bucket.failures.arn\n  }\n}",
        source: ERRORS,
        checks: &[RuleCheck::Mapping(delivery::discards_without_destination)],
    },
    DoctorRule {
        id: "poison-record-blocks-shard",
        severity: RuleSeverity::Loses,
        title: "Default retries: one record blocks its shard until the stream trims it",
        loss: "With Lambda's defaults a batch is retried until it succeeds. One record that never succeeds blocks its \
               shard for up to one day; then the stream trims it and, one by one, the records behind it.",
        offline: "MaximumRetryAttempts, MaximumRecordAgeInSeconds, BisectBatchOnFunctionError and \
                  FunctionResponseTypes of the mapping.",
        live: "The same members of the mapping.",
        needs_account: false,
        fix: "MaximumRecordAgeInSeconds: 21600\nBisectBatchOnFunctionError: true\nFunctionResponseTypes: \
              [ReportBatchItemFailures]\nDestinationConfig:\n  OnFailure:\n    Type: S3\n    Destination: !GetAtt \
              FailureBucket.Arn",
        fix_hcl: "maximum_record_age_in_seconds  = 21600\nbisect_batch_on_function_error = true\n\
                  function_response_types        = [\"ReportBatchItemFailures\"]\ndestination_config {\n  on_failure \
                  {\n    destination_arn = aws_s3_bucket.failures.arn\n  }\n}",
        source: ERRORS,
        checks: &[RuleCheck::Mapping(delivery::poison_record_blocks_shard)],
    },
    DoctorRule {
        id: "response-ignored",
        severity: RuleSeverity::Loses,
        title: "The function returns batchItemFailures, and the mapping ignores it",
        loss: "Without ReportBatchItemFailures, Lambda ignores the content of the response. The function reports the \
               failed records and returns normally, so the whole batch counts as processed.",
        offline: "The response member in the function's code (inline, or in the file of its handler), and \
                  FunctionResponseTypes of the mapping. Millrace's own functions always report.",
        live: "FunctionResponseTypes of the mapping; Millrace's own functions and inline code in the template of a \
               stack. The code of another function is not downloaded: not checked, if the mapping ignores responses.",
        needs_account: false,
        fix: "FunctionResponseTypes: [ReportBatchItemFailures]",
        fix_hcl: "function_response_types = [\"ReportBatchItemFailures\"]",
        source: RESPONSES,
        checks: &[RuleCheck::Mapping(delivery::response_is_ignored)],
    },
    DoctorRule {
        id: "batch-discarded-whole",
        severity: RuleSeverity::Loses,
        title: "Bounded retries without bisection: good records are discarded with a bad one",
        loss: "When the retries are used up, Lambda discards the whole batch: one record that never succeeds takes up \
               to BatchSize records with it that would have.",
        offline: "MaximumRetryAttempts, BisectBatchOnFunctionError and BatchSize of the mapping.",
        live: "The same members of the mapping.",
        needs_account: false,
        fix: "BisectBatchOnFunctionError: true\nDestinationConfig:\n  OnFailure:\n    Type: S3\n    Destination: \
              !GetAtt FailureBucket.Arn",
        fix_hcl: "bisect_batch_on_function_error = true\ndestination_config {\n  on_failure {\n    destination_arn = \
                  aws_s3_bucket.failures.arn\n  }\n}",
        source: ERRORS,
        checks: &[RuleCheck::Mapping(delivery::batch_is_discarded_whole)],
    },
    DoctorRule {
        id: "metadata-only-destination",
        severity: RuleSeverity::Loses,
        title: "The on-failure destination is SQS or SNS: it receives no records",
        loss: "A queue or topic receives the shard and the sequence numbers of the batch. The records must be read \
               from the stream within 24 hours of their write; after that they are gone.",
        offline: "The service of DestinationConfig.OnFailure.",
        live: "The same members of the mapping.",
        needs_account: false,
        fix: "DestinationConfig:\n  OnFailure:\n    Type: S3\n    Destination: !GetAtt FailureBucket.Arn",
        fix_hcl: "destination_config {\n  on_failure {\n    destination_arn = aws_s3_bucket.failures.arn\n  }\n}",
        source: ERRORS,
        checks: &[RuleCheck::Mapping(destination::receives_metadata_only)],
    },
    DoctorRule {
        id: "destination-not-granted",
        severity: RuleSeverity::Loses,
        title: "The function's role may not write to the on-failure destination",
        loss: "Lambda writes to the destination with the function's role. A denied write is only counted \
               (DestinationDeliveryFailures), and the batch is discarded. SAM generates the permission only if the \
               destination has a Type and the function no Role of its own.",
        offline: "The statements of the function's role for the destination and for its KMS key, and the policies of \
                  both.",
        live: "SimulatePrincipalPolicy with the function's role, the policies of the destination (GetBucketPolicy, \
               GetQueueAttributes, GetTopicAttributes) and of its key (GetKeyPolicy), and the metric \
               DestinationDeliveryFailures of the last 14 days.",
        needs_account: false,
        fix: "Policies:\n  - Statement:\n      - Effect: Allow\n        Action: s3:PutObject\n        Resource: !Sub \
              ${FailureBucket.Arn}/*\n      - Effect: Allow\n        Action: s3:ListBucket\n        Resource: !GetAtt \
              FailureBucket.Arn",
        fix_hcl: "statement {\n  actions   = [\"s3:PutObject\", \"s3:ListBucket\"]\n  resources = \
                  [aws_s3_bucket.failures.arn, \"${aws_s3_bucket.failures.arn}/*\"]\n}",
        source: ERRORS,
        checks: &[RuleCheck::Mapping(destination::is_not_granted), RuleCheck::Mapping(destination::was_not_delivered)],
    },
    DoctorRule {
        id: "failure-objects-expire",
        severity: RuleSeverity::Loses,
        title: "Failure objects expire, or their bucket is not versioned",
        loss: "A failure object is the only copy of its records. A lifecycle rule removes it whether or not it was \
               redriven, and without versions a deletion or an overwrite by mistake is final.",
        offline: "LifecycleConfiguration and VersioningConfiguration of the destination bucket; Lambda's objects have \
                  the prefix aws/lambda/.",
        live: "GetBucketLifecycleConfiguration and GetBucketVersioning.",
        needs_account: false,
        fix: "VersioningConfiguration:\n  Status: Enabled\nLifecycleConfiguration:\n  Rules:\n    - Status: \
              Enabled\n      Prefix: redriven/\n      ExpirationInDays: 30",
        fix_hcl: "rule {\n  status = \"Enabled\"\n  filter { prefix = \"redriven/\" }\n  expiration { days = 30 }\n}",
        source: "https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lifecycle-mgmt.html",
        checks: &[RuleCheck::Mapping(destination::objects_expire)],
    },
    DoctorRule {
        id: "starts-at-latest",
        severity: RuleSeverity::Loses,
        title: "StartingPosition is LATEST: records around the creation are missed",
        loss: "A new mapping polls the stream only after minutes. With LATEST, the records that were written until \
               then are skipped; the same can happen after an update of the mapping.",
        offline: "StartingPosition of the mapping.",
        live: "StartingPosition and LastModified of the mapping.",
        needs_account: false,
        fix: "StartingPosition: TRIM_HORIZON",
        fix_hcl: "starting_position = \"TRIM_HORIZON\"",
        source: WITH_DDB,
        checks: &[RuleCheck::Mapping(delivery::starts_at_latest)],
    },
    DoctorRule {
        id: "mapping-disabled",
        severity: RuleSeverity::Loses,
        title: "The mapping is disabled, or does not work",
        loss: "Nothing is delivered, and the stream trims each record 24 hours after its write.",
        offline: "Enabled of the mapping.",
        live: "State, StateTransitionReason and LastProcessingResult of the mapping.",
        needs_account: false,
        fix: "Enabled: true",
        fix_hcl: "enabled = true",
        source: "https://docs.aws.amazon.com/lambda/latest/api/API_CreateEventSourceMapping.html",
        checks: &[RuleCheck::Mapping(delivery::is_disabled)],
    },
    DoctorRule {
        id: "literal-stream-arn",
        severity: RuleSeverity::Loses,
        title: "The mapping names a stream, which need not be the table's latest",
        loss: "A stream has a new ARN when it is switched off and on, when its view changes, and when the table is \
               created again. A mapping with the former ARN still exists and delivers nothing from the new stream.",
        offline: "An ARN with a stream label as the literal value of EventSourceArn or Stream.",
        live: "LatestStreamArn of the table, compared with EventSourceArn of the mapping.",
        needs_account: false,
        fix: "Stream: !GetAtt UsersTable.StreamArn",
        fix_hcl: "event_source_arn = aws_dynamodb_table.users.stream_arn",
        source: "https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-properties-dynamodb-table-streamspecification.html",
        checks: &[RuleCheck::Mapping(stream::arn_is_literal), RuleCheck::Mapping(stream::is_not_latest)],
    },
    DoctorRule {
        id: "image-missing",
        severity: RuleSeverity::Loses,
        title: "The stream's view lacks the image that the function needs",
        loss: "A replicator cannot apply a change without the new image, and the item that TTL removed is only in the \
               old image. An image that the view does not contain is not stored anywhere.",
        offline: "StreamViewType of the table, for functions that are known or declared to replicate or archive, and \
                  for filters on removals by TTL.",
        live: "DescribeTable.",
        needs_account: false,
        fix: "StreamSpecification:\n  StreamViewType: NEW_AND_OLD_IMAGES",
        fix_hcl: "stream_enabled   = true\nstream_view_type = \"NEW_AND_OLD_IMAGES\"",
        source: STREAMS,
        checks: &[RuleCheck::Mapping(filter::image_is_missing)],
    },
    DoctorRule {
        id: "age-exceeds-retention",
        severity: RuleSeverity::Loses,
        title: "The maximum record age is not below the stream's retention",
        loss: "DynamoDB trims a record after 24 hours. A maximum age of a day or more, or none, never takes effect: \
               during an outage the stream trims the records before Lambda sends them to the destination.",
        offline: "MaximumRecordAgeInSeconds of a mapping without a limit of retries.",
        live: "The metric IteratorAge of the last 14 days: a record of 23 hours or more.",
        needs_account: false,
        fix: "MaximumRecordAgeInSeconds: 21600",
        fix_hcl: "maximum_record_age_in_seconds = 21600",
        source: STREAMS,
        checks: &[
            RuleCheck::Mapping(delivery::age_exceeds_retention),
            RuleCheck::Mapping(delivery::records_were_trimmed),
        ],
    },
    DoctorRule {
        id: "filter-never-matches",
        severity: RuleSeverity::Loses,
        title: "A filter pattern matches no record",
        loss: "Lambda discards a record that no pattern matches. A number in a record is a string ({\"N\": \"5\"}), \
               which numeric comparisons never match; so does a member that a record does not have.",
        offline: "Each pattern of FilterCriteria against the form of a stream record, and against the stream's view.",
        live: "The metrics PolledEventCount and FilteredOutEventCount of the last 14 days, if EventCount is on.",
        needs_account: false,
        fix: "FilterCriteria:\n  Filters:\n    - Pattern: '{\"dynamodb\":{\"Keys\":{\"kind\":{\"S\":[\"order\"]}}}}'",
        fix_hcl: "filter_criteria {\n  filter {\n    pattern = jsonencode({ dynamodb = { Keys = { kind = { S = \
                  [\"order\"] } } } })\n  }\n}",
        source: FILTERING,
        checks: &[RuleCheck::Mapping(filter::never_matches), RuleCheck::Mapping(filter::has_matched_nothing)],
    },
    DoctorRule {
        id: "replica-does-not-fit",
        severity: RuleSeverity::Loses,
        title: "The replica has another key, is the source, or feeds the source",
        loss: "With another key, items overwrite each other in the replica or are rejected. A replica that is the \
               source, or whose changes are replicated back, overwrites newer items with older ones, without end.",
        offline: "KeySchema of the source and of each replica (REPLICATION or REPLICA_TABLE of a replicator), and the \
                  mappings of both. A replica in another Region or account is not checked.",
        live: "DescribeTable of the tables, and their mappings. A replica in another Region or account is not checked.",
        needs_account: false,
        fix: "KeySchema:\n  - {AttributeName: user_id, KeyType: HASH}\n  - {AttributeName: timestamp, KeyType: RANGE}",
        fix_hcl: "hash_key  = \"user_id\"\nrange_key = \"timestamp\"",
        source: "https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.CoreComponents.html",
        checks: &[RuleCheck::Mapping(replica::replica_does_not_fit)],
    },
    DoctorRule {
        id: "alias-misses-parameters",
        severity: RuleSeverity::Loses,
        title: "The mapping invokes an alias that may be outdated",
        loss: "SAM derives the version of AutoPublishAlias from the template's text before parameters are resolved. An \
               update of parameters alone publishes no version: the mapping continues with the former configuration, \
               such as the table that it wrote to before.",
        offline: "AutoPublishAlias of a function with a stream.",
        live: "The configuration of the version that the mapping invokes, compared with the function's latest.",
        needs_account: false,
        fix: "# Remove AutoPublishAlias: the mapping then invokes the function itself.",
        fix_hcl: "function_name = aws_lambda_function.replicator.arn",
        source: "https://github.com/aws/serverless-application-model/issues/3820",
        checks: &[RuleCheck::Mapping(function::alias_misses_parameters)],
    },
    DoctorRule {
        id: "too-many-readers",
        severity: RuleSeverity::Blocks,
        title: "More readers than a shard serves",
        loss: "A shard serves two readers. Of a global table it serves one, because the service itself is the other. \
               With more readers, all are throttled and fall behind; records are trimmed after 24 hours.",
        offline: "The mappings and the pipes of EventBridge of each stream. Other readers are not part of a template: \
                  applications with the Kinesis Client Library or DescribeStream, and pipelines of OpenSearch \
                  Ingestion.",
        live: "All mappings and pipes of the stream (ListPipes), and Replicas of the table. The service has no list of \
               other readers, so applications with the Kinesis Client Library and pipelines of OpenSearch Ingestion \
               are not counted.",
        needs_account: false,
        fix: "# One function or pipe reads the stream and passes the records on to the others.",
        fix_hcl: "# One function or pipe reads the stream and passes the records on to the others.",
        source: STREAMS,
        checks: &[RuleCheck::Mapping(stream::has_too_many_readers)],
    },
    DoctorRule {
        id: "concurrency-too-low",
        severity: RuleSeverity::Blocks,
        title: "Reserved concurrency does not suffice for the shards",
        loss: "Invocations above the reserved concurrency are throttled and retried until the records expire. With 0, \
               nothing is ever delivered.",
        offline: "ReservedConcurrentExecutions and ParallelizationFactor; the number of shards is known only live.",
        live: "GetFunctionConcurrency, and the open shards of DescribeStream.",
        needs_account: false,
        fix: "ReservedConcurrentExecutions: 100",
        fix_hcl: "reserved_concurrent_executions = 100",
        source: "https://docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html",
        checks: &[RuleCheck::Mapping(function::concurrency_is_too_low)],
    },
    DoctorRule {
        id: "key-not-usable",
        severity: RuleSeverity::Blocks,
        title: "A KMS key is disabled, or the role may not use it",
        loss: "Reading the stream of a table that a customer managed key encrypts, and writing to such a replica, \
               requires kms:Decrypt of the function's role; writing to such a bucket requires kms:GenerateDataKey. \
               Without the permission, or with a key that is disabled or waits for its deletion, nothing is delivered.",
        offline: "Enabled of each key, and the statements of the role and of the key's policy, for the keys of the \
                  source table, of its replicas and, for functions of Millrace, of the buckets of the archive and the \
                  quarantine. The key of an on-failure destination is checked by destination-not-granted.",
        live: "KeyState of DescribeKey, GetKeyPolicy, and SimulatePrincipalPolicy, for the same keys (DescribeTable \
               and GetBucketEncryption) and that of the on-failure destination. A replica in another Region or \
               account is not checked.",
        needs_account: false,
        fix: "- Effect: Allow\n  Action: kms:Decrypt\n  Resource: !GetAtt DataKey.Arn",
        fix_hcl: "statement {\n  actions   = [\"kms:Decrypt\"]\n  resources = [aws_kms_key.data.arn]\n}",
        source: "https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/encryption.usagenotes.html",
        checks: &[RuleCheck::Key(encryption::key_is_disabled), RuleCheck::Mapping(encryption::key_is_not_granted)],
    },
    DoctorRule {
        id: "network-without-route",
        severity: RuleSeverity::Blocks,
        title: "The function is in a VPC without a route to what it calls",
        loss: "A function in a VPC reaches DynamoDB and S3 only through a VPC endpoint or a NAT gateway, and only if \
               the security groups at both ends allow port 443. Otherwise every invocation times out, and the records \
               are retried until they expire.",
        offline: "VpcConfig of the function, if its subnets and security groups are part of the template, with the \
                  template's endpoints and gateways. A function with a replica needs DynamoDB, and those of Millrace \
                  S3. A group without a rule for outbound traffic allows all of it. In a plan the rule is not checked.",
        live: "DescribeVpcEndpoints and DescribeRouteTables, for each subnet of the function, and \
               DescribeSecurityGroups for the groups of the function and of interface endpoints.",
        needs_account: false,
        fix: "DynamoDbEndpoint:\n  Type: AWS::EC2::VPCEndpoint\n  Properties:\n    VpcId: !Ref Vpc\n    \
              VpcEndpointType: Gateway\n    ServiceName: !Sub com.amazonaws.${AWS::Region}.dynamodb\n    \
              RouteTableIds: [!Ref Routes]",
        fix_hcl: "resource \"aws_vpc_endpoint\" \"dynamodb\" {\n  vpc_id          = aws_vpc.main.id\n  \
                  service_name    = \
                  \"com.amazonaws.${var.region}.dynamodb\"\n  route_table_ids = [aws_route_table.main.id]\n}",
        source: "https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc-internet.html",
        checks: &[RuleCheck::Mapping(network::network_has_no_route)],
    },
    DoctorRule {
        id: "replicator-filters-images",
        severity: RuleSeverity::Diverges,
        title: "A filter over images in front of a replicator",
        loss: "An item that changes so that the pattern no longer matches leaves no record behind: the replica keeps \
               its former version indefinitely.",
        offline: "FilterCriteria of a function that is known or declared as a replicator.",
        live: "The same members of the mapping.",
        needs_account: false,
        fix: "# Filter by key only, and let the replicator decide about images.\nFilterCriteria:\n  Filters:\n    - \
              Pattern: '{\"dynamodb\":{\"Keys\":{\"kind\":{\"S\":[\"order\"]}}}}'",
        fix_hcl: "# Filter by key only, and let the replicator decide about images.",
        source: FILTERING,
        checks: &[RuleCheck::Mapping(filter::replicator_filters_images)],
    },
    DoctorRule {
        id: "ttl-filter-incomplete",
        severity: RuleSeverity::Diverges,
        title: "A filter on removals by TTL also selects others",
        loss: "Only type and principalId together identify TTL. With one of them, or with REMOVE alone, items that a \
               user deleted are treated as expired and archived.",
        offline: "eventName and userIdentity of each pattern; REMOVE alone only for an archiver.",
        live: "The same members of the mapping.",
        needs_account: false,
        fix: "FilterCriteria:\n  Filters:\n    - Pattern: >-\n        \
              {\"eventName\":[\"REMOVE\"],\"userIdentity\":{\"type\":[\"Service\"],\"principalId\":[\"dynamodb.amazonaws.com\"]}}",
        fix_hcl: "pattern = jsonencode({\n  eventName    = [\"REMOVE\"]\n  userIdentity = { type = [\"Service\"], \
                  principalId = [\"dynamodb.amazonaws.com\"] }\n})",
        source: TTL_STREAMS,
        checks: &[RuleCheck::Mapping(filter::selects_user_deletes)],
    },
    DoctorRule {
        id: "replica-expires-items",
        severity: RuleSeverity::Diverges,
        title: "TTL of the replica uses the source's attribute",
        loss: "The replica removes items on its own schedule: some before the source, and some whose expiry was \
               extended in the source meanwhile.",
        offline: "TimeToLiveSpecification of the source and of the replica.",
        live: "DescribeTimeToLive of the tables. A replica in another Region or account is not checked.",
        needs_account: false,
        fix: "TimeToLiveSpecification:\n  Enabled: true\n  AttributeName: _tombstone_expires_at",
        fix_hcl: "ttl {\n  enabled        = true\n  attribute_name = \"_tombstone_expires_at\"\n}",
        source: TTL,
        checks: &[RuleCheck::Mapping(replica::replica_expires_items)],
    },
    DoctorRule {
        id: "mapping-behind",
        severity: RuleSeverity::Diverges,
        title: "The mapping is behind its stream",
        loss: "The copy lacks the changes that are not delivered yet. A mapping that falls behind by 24 hours loses \
               records.",
        offline: "The age of the records that are delivered: not part of a template.",
        live: "The metric IteratorAge in its latest two periods of 5 minutes, of the last hour: an hour or more in both.",
        needs_account: true,
        fix: "ParallelizationFactor: 10",
        fix_hcl: "parallelization_factor = 10",
        source: METRICS,
        checks: &[RuleCheck::Mapping(delivery::is_behind)],
    },
    DoctorRule {
        id: "failures-not-redriven",
        severity: RuleSeverity::Diverges,
        title: "Failure objects that were never redriven",
        loss: "The records of a failure object are missing in the copy until they are redriven.",
        offline: "The objects in the bucket: not part of a template.",
        live: "ListObjectsV2 below the prefix of the mapping and of the quarantine: an object of 24 hours or more, or \
               of any age if the metric Quarantined of the last 14 days is above 0.",
        needs_account: true,
        fix: "# the task of the maintenance function:\n# {\"task\":\"redrive\",\"dry_run\":false}",
        fix_hcl: "# the task of the maintenance function:\n# {\"task\":\"redrive\",\"dry_run\":false}",
        source: ERRORS,
        checks: &[
            RuleCheck::Mapping(destination::failures_are_old),
            RuleCheck::Mapping(destination::records_are_quarantined),
        ],
    },
    DoctorRule {
        id: "replica-outdated",
        severity: RuleSeverity::Diverges,
        title: "A replica with items of other rules",
        loss: "After a change of the rules of a replica, of the key of a hash or of its table, the items that were \
               written before keep the attributes and values of the former rules, until a repair over all segments \
               has rewritten them. A new replica with rules requires the repair, too. New rules show only after the \
               replicator has started with them.",
        offline: "The records of the rules in the failure bucket: not part of a template.",
        live: "ListObjectsV2 below transforms/<replica>/ in the FAILURE_BUCKET of a replicator of Millrace, for each \
               replica of its replication document.",
        needs_account: true,
        fix: "# the task of the maintenance function, at the time that the finding names or later:\n# {\"task\":\"repair\",\"segments\":8,\"dry_run\":false}",
        fix_hcl: "# the task of the maintenance function, at the time that the finding names or later:\n# {\"task\":\"repair\",\"segments\":8,\"dry_run\":false}",
        source: "https://github.com/millrace/millrace/blob/main/docs/configuration.md#changed-rules",
        checks: &[RuleCheck::Mapping(replica::replica_is_outdated)],
    },
    DoctorRule {
        id: "open-route",
        severity: RuleSeverity::Exposes,
        title: "A route of an HTTP API without an authorizer",
        loss: "Any client can call the route. SAM does not apply DefaultAuthorizer to OPTIONS.",
        offline: "AuthorizationType of each route, Auth of SAM's events and APIs, and each operation of an OpenAPI \
                  document in the template, in a local file (DefinitionUri, AWS::Include) or in the body of a plan. A \
                  document in a bucket is not checked. An API with a Target has one route without an authorizer.",
        live: "GetRoutes of the HTTP APIs of a stack.",
        needs_account: false,
        fix: "Auth:\n  Authorizer: AWS_IAM",
        fix_hcl: "authorization_type = \"AWS_IAM\"",
        source: "https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-access-control.html",
        checks: &[RuleCheck::Route(resource::route_is_open)],
    },
    DoctorRule {
        id: "ttl-value-invalid",
        severity: RuleSeverity::Weakens,
        title: "TTL values in milliseconds or text: items never expire",
        loss: "TTL ignores a value that is not a number, and treats milliseconds as a time thousands of years ahead.",
        offline: "The items of the table: not part of a template.",
        live: "Scan of 100 items, of which only the TTL attribute is read.",
        needs_account: true,
        fix: "# Store the time as a number of seconds since 1970.",
        fix_hcl: "# Store the time as a number of seconds since 1970.",
        source: TTL,
        checks: &[RuleCheck::Table(replica::ttl_values_are_invalid)],
    },
    DoctorRule {
        id: "timeout-too-short",
        severity: RuleSeverity::Weakens,
        title: "The function's timeout is too short for a full batch",
        loss: "An invocation that times out fails the whole batch, however much of it was applied. After an outage, \
               when batches are full, none succeeds.",
        offline: "Timeout and BatchSize: less than 5 ms for each record.",
        live: "GetFunctionConfiguration, and the metric Duration of the last 14 days: a daily p99 of 80 % of the timeout \
               or more.",
        needs_account: false,
        fix: "Timeout: 60",
        fix_hcl: "timeout = 60",
        source: WITH_DDB,
        checks: &[
            RuleCheck::Mapping(function::timeout_is_too_short),
            RuleCheck::Mapping(function::invocations_are_slow),
        ],
    },
    DoctorRule {
        id: "log-filter-drops-metrics",
        severity: RuleSeverity::Weakens,
        title: "Lambda's log filter drops metrics",
        loss: "A metric in embedded metric format is a log line without a level, which Lambda treats as INFO. At \
               WARN and above it is dropped, and the alarms on it have no data.",
        offline: "LogFormat and ApplicationLogLevel of the function.",
        live: "GetFunctionConfiguration.",
        needs_account: false,
        fix: "LoggingConfig:\n  LogFormat: JSON\n  ApplicationLogLevel: INFO",
        fix_hcl: "logging_config {\n  log_format            = \"JSON\"\n  application_log_level = \"INFO\"\n}",
        source: "https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html",
        checks: &[RuleCheck::Mapping(function::log_filter_drops_metrics)],
    },
    DoctorRule {
        id: "mapping-not-watched",
        severity: RuleSeverity::Weakens,
        title: "No alarm on lag, dropped records or the destination",
        loss: "A loss is noticed only when the records are missed, mostly after the stream has trimmed them.",
        offline: "Alarms on IteratorAge, DroppedEventCount and, with a destination, \
                  OnFailureDestinationDeliveredEventCount and DestinationDeliveryFailures; MetricsConfig of the \
                  mapping.",
        live: "DescribeAlarms.",
        needs_account: false,
        fix: "MetricsConfig:\n  Metrics: [EventCount]",
        fix_hcl: "metrics_config {\n  metrics = [\"EventCount\"]\n}",
        source: METRICS,
        checks: &[RuleCheck::Mapping(delivery::is_not_watched)],
    },
    DoctorRule {
        id: "table-not-protected",
        severity: RuleSeverity::Weakens,
        title: "A table without recovery or protection against deletion",
        loss: "A mistake in the source is replicated. Without point-in-time recovery, and with a table that a \
               deployment may delete, there is no way back.",
        offline: "PointInTimeRecoverySpecification, DeletionProtectionEnabled and DeletionPolicy of tables whose \
                  stream is read, and of replicas.",
        live: "DescribeContinuousBackups and DescribeTable; DeletionPolicy is that of the template of a stack.",
        needs_account: false,
        fix: "DeletionPolicy: RetainExceptOnCreate\nProperties:\n  DeletionProtectionEnabled: true\n  \
              PointInTimeRecoverySpecification:\n    PointInTimeRecoveryEnabled: true",
        fix_hcl: "deletion_protection_enabled = true\npoint_in_time_recovery {\n  enabled = true\n}",
        source: "https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Point-in-time-recovery.html",
        checks: &[RuleCheck::Table(replica::table_is_unprotected), RuleCheck::Mapping(replica::replica_is_unread)],
    },
];

/// Returns the rule with this identifier.
#[must_use]
pub fn find(id: &str) -> Option<&'static DoctorRule> {
    RULES.iter().find(|rule| rule.id == id)
}
