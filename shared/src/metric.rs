//! The names of what Millrace counts. On Lambda they become CloudWatch metrics (namespace `Millrace`) through the
//! embedded metric format, on one machine the lines of `GET /metrics`.
//!
//! Dimensions are low in cardinality: the function and the stack, which every metric has
//! ([`DIMENSIONS`](crate::telemetry::DIMENSIONS)), a sink's name, a route's template, a status class. No key, no user, no
//! request id. Recorded once a batch or a request, never once a record.

use metrics::{Unit, describe_counter, describe_histogram};

/// Milliseconds between the oldest change of a batch and its being applied; one value a batch.
pub const REPLICATION_LAG: &str = "ReplicationLag";
/// Changes written to a replica (dimension `sink`).
pub const APPLIED: &str = "Applied";
/// Changes that a replica already held at the same revision (dimension `sink`).
pub const DUPLICATE: &str = "Duplicate";
/// Changes refused because a replica held a later one (dimension `sink`).
pub const STALE: &str = "Stale";
/// Changes of a batch that came again, which a replica was spared because it had confirmed them (dimension `sink`).
pub const CONFIRMED_BEFORE: &str = "PreviouslyConfirmedChanges";
/// Deletes written as tombstones, part of [`APPLIED`] (dimension `sink`).
pub const TOMBSTONES: &str = "Tombstones";
/// Records put aside with their reason in the failure bucket.
pub const QUARANTINED: &str = "Quarantined";
/// Batches answered with a position to resend from.
pub const RESENT: &str = "Resent";
/// Rows written to the archive.
pub const ARCHIVED_ROWS: &str = "ArchivedRows";
/// Bytes of archive objects, compressed.
pub const ARCHIVED_BYTES: &str = "ArchivedBytes";
/// Differences that a `verify` found, or rows that an `audit` missed; one value for each segment that is done.
pub const DIFFERENCES: &str = "Differences";
/// Requests answered (dimensions `route`, `class`).
pub const REQUESTS: &str = "Requests";
/// Milliseconds from a request's arrival to its answer (dimension `route`).
pub const REQUEST_DURATION: &str = "RequestDuration";

/// Records found in the cache.
pub const CACHE_HITS: &str = "CacheHits";
/// Records that the table was asked for, though there is a cache.
pub const CACHE_MISSES: &str = "CacheMisses";
/// Calls to the cache that failed or took too long.
pub const CACHE_FAILURES: &str = "CacheFailures";
/// Requests refused because their caller's quota was spent.
pub const RATE_LIMITED: &str = "RateLimited";

/// Tells the recorder in use the units; call once, after it is installed.
pub fn describe() {
    describe_histogram!(REPLICATION_LAG, Unit::Milliseconds, "age of a batch's oldest change when it was applied");
    describe_counter!(APPLIED, Unit::Count, "changes written to a replica");
    describe_counter!(DUPLICATE, Unit::Count, "changes a replica already held");
    describe_counter!(STALE, Unit::Count, "changes refused because a replica held a later one");
    describe_counter!(CONFIRMED_BEFORE, Unit::Count, "changes a replica was spared because it had confirmed them");
    describe_counter!(TOMBSTONES, Unit::Count, "deletes written as tombstones");
    describe_counter!(QUARANTINED, Unit::Count, "records put aside in the failure bucket");
    describe_counter!(RESENT, Unit::Count, "batches answered with a position to resend from");
    describe_counter!(ARCHIVED_ROWS, Unit::Count, "rows written to the archive");
    describe_counter!(ARCHIVED_BYTES, Unit::Bytes, "bytes of archive objects");
    describe_counter!(DIFFERENCES, Unit::Count, "differences that a verify found, or rows that an audit missed");
    describe_counter!(REQUESTS, Unit::Count, "requests answered");
    describe_counter!(CACHE_HITS, Unit::Count, "records found in the cache");
    describe_counter!(CACHE_MISSES, Unit::Count, "records that the table was asked for");
    describe_counter!(CACHE_FAILURES, Unit::Count, "calls to the cache that failed or took too long");
    describe_counter!(RATE_LIMITED, Unit::Count, "requests over their caller's quota");
    describe_histogram!(REQUEST_DURATION, Unit::Milliseconds, "time from a request's arrival to its answer");
}
