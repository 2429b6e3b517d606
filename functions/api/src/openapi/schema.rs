//! The OpenAPI schemas of bodies and parameters. The handlers do not deserialize into these types: `body` parses raw JSON, so
//! that numbers stay exact and every error is reported. `scripts/story_contract.py` verifies that both agree. The patterns
//! of strings are in `millrace_contract::patterns`.
//!
//! Descriptions contain the rules that JSON Schema cannot express: the digits of a number in `attributes`, the distance of
//! an expiry from the current time, parameters that depend on each other.

use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

/// A user record.
#[derive(ToSchema)]
#[schema(example = json!({"user_id": "ada", "timestamp": 1_795_334_400, "name": "Ada Lovelace", "email": "ada@example.com",
    "attributes": {"plan": "team", "seats": 12}, "version": 1_795_341_600_123_456_u64,
    "created_at": "2026-11-22T10:00:00.123Z", "updated_at": "2026-11-22T10:00:00.123Z"}))]
pub struct User {
    /// The user's identifier.
    #[schema(min_length = 1, max_length = 128)]
    pub user_id: String,
    /// The record's timestamp in epoch seconds.
    #[schema(minimum = 0, maximum = 253_402_300_799_i64)]
    pub timestamp: i64,
    /// The user's name.
    pub name: String,
    /// The user's email.
    #[schema(nullable = false)]
    pub email: Option<String>,
    /// A status that the client defines.
    #[schema(nullable = false)]
    pub status: Option<String>,
    /// Additional data that the client defines. Numbers are exact to 38 digits.
    #[schema(nullable = false, value_type = Option<std::collections::HashMap<String, Value>>)]
    pub attributes: Option<Value>,
    /// The expiry in epoch seconds; from then on the record is absent. A fraction stored by another program is rounded up. A
    /// value that DynamoDB TTL ignores is omitted.
    #[schema(nullable = false)]
    pub expires_at: Option<i64>,
    /// The version, which is also the entity tag. 0 for a record that another program wrote without a version.
    #[schema(minimum = 0)]
    pub version: u64,
    /// The time of creation (RFC 3339).
    #[schema(nullable = false)]
    pub created_at: Option<String>,
    /// The time of the last write (RFC 3339).
    #[schema(nullable = false)]
    pub updated_at: Option<String>,
}

/// A user record with the members that `fields` selects; all members by default.
#[derive(ToSchema)]
pub struct PartialUser {
    /// The user's identifier.
    #[schema(nullable = false)]
    pub user_id: Option<String>,
    /// The record's timestamp in epoch seconds.
    #[schema(nullable = false)]
    pub timestamp: Option<i64>,
    /// The user's name.
    #[schema(nullable = false)]
    pub name: Option<String>,
    /// The user's email.
    #[schema(nullable = false)]
    pub email: Option<String>,
    /// A status that the client defines.
    #[schema(nullable = false)]
    pub status: Option<String>,
    /// Additional data that the client defines.
    #[schema(nullable = false, value_type = Option<std::collections::HashMap<String, Value>>)]
    pub attributes: Option<Value>,
    /// The expiry in epoch seconds; from then on the record is absent.
    #[schema(nullable = false)]
    pub expires_at: Option<i64>,
    /// The version, which is also the entity tag.
    #[schema(nullable = false)]
    pub version: Option<u64>,
    /// The time of creation (RFC 3339).
    #[schema(nullable = false)]
    pub created_at: Option<String>,
    /// The time of the last write (RFC 3339).
    #[schema(nullable = false)]
    pub updated_at: Option<String>,
}

/// A new record.
#[derive(ToSchema)]
#[schema(example = json!({"user_id": "ada", "timestamp": 1_795_334_400,
    "name": "Ada Lovelace", "email": "ada@example.com", "attributes": {"plan": "team", "seats": 12}}))]
pub struct CreateUserRequest {
    /// The user's identifier. Defaults to the token's `sub`, or, without a token, to a new UUID of version 7.
    pub user_id: Option<String>,
    /// The record's timestamp in epoch seconds. Defaults to the current time.
    #[schema(minimum = 0, maximum = 253_402_300_799_i64)]
    pub timestamp: Option<i64>,
    /// The user's name: 1 to 256 characters, not only white space, no control characters.
    pub name: String,
    /// The user's email.
    pub email: Option<String>,
    /// A status that the client defines: 1 to 64 characters, not only white space, no control characters.
    pub status: Option<String>,
    /// Any JSON object of at most 32 levels, with non-empty names. Numbers have at most 38 digits and a magnitude from 1e-130
    /// to 9.9e125. The size is at most 398 KB (407552 bytes) in DynamoDB's item size.
    #[schema(value_type = Option<std::collections::HashMap<String, Value>>)]
    pub attributes: Option<Value>,
    /// The expiry in epoch seconds; from then on the record is absent. At most 4 years ago and 50 years from now.
    #[schema(minimum = 0, maximum = 253_402_300_799_i64)]
    pub expires_at: Option<i64>,
}

/// A complete record. The key is optional and must equal the key in the path.
#[derive(ToSchema)]
#[schema(example = json!({"name": "Ada King", "status": "active"}))]
pub struct Replacement {
    /// The user's name: 1 to 256 characters, not only white space, no control characters.
    pub name: String,
    /// The user's email.
    pub email: Option<String>,
    /// A status that the client defines: 1 to 64 characters, not only white space, no control characters.
    pub status: Option<String>,
    /// The same rules as in `CreateUserRequest`.
    #[schema(value_type = Option<std::collections::HashMap<String, Value>>)]
    pub attributes: Option<Value>,
    /// The expiry in epoch seconds; from then on the record is absent. At most 4 years ago and 50 years from now.
    #[schema(minimum = 0, maximum = 253_402_300_799_i64)]
    pub expires_at: Option<i64>,
}

/// A JSON merge patch (RFC 7396): omitted members do not change, `null` removes a member, `attributes` is merged recursively.
#[derive(ToSchema)]
#[schema(example = json!({"name": "Ada King", "status": null, "attributes": {"seats": null}}))]
pub struct Patch {
    /// The user's name: 1 to 256 characters, not only white space, no control characters. Cannot be removed.
    #[schema(nullable = false)]
    pub name: Option<String>,
    /// The user's email.
    pub email: Option<String>,
    /// A status that the client defines: 1 to 64 characters, not only white space, no control characters.
    pub status: Option<String>,
    /// The same rules as in `CreateUserRequest`.
    #[schema(value_type = Option<std::collections::HashMap<String, Value>>)]
    pub attributes: Option<Value>,
    /// The expiry in epoch seconds; from then on the record is absent. At most 4 years ago and 50 years from now.
    #[schema(minimum = 0, maximum = 253_402_300_799_i64)]
    pub expires_at: Option<i64>,
}

/// The response to a write.
#[derive(ToSchema)]
pub struct WriteUserResponse {
    /// The record after the write.
    pub user: User,
}

/// The response to a read of one record.
#[derive(ToSchema)]
pub struct ReadUserResponse {
    /// The record.
    pub user: PartialUser,
    /// The source of the record.
    pub source: ReadSource,
}

/// The source of a record.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum ReadSource {
    /// The cache, if the deployment has one.
    Cache,
    /// The table.
    Database,
}

/// A page of records.
#[derive(ToSchema)]
#[schema(example = json!({"users": [{"user_id": "ada", "timestamp": 1_795_334_400, "name": "Ada"}], "next_cursor": null}))]
pub struct ListUsersResponse {
    /// At most `limit` records.
    pub users: Vec<PartialUser>,
    /// The cursor of the next page; null on the last page.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

/// The key of a record.
#[derive(ToSchema)]
pub struct Key {
    /// The user's identifier.
    pub user_id: String,
    /// The record's timestamp in epoch seconds.
    #[schema(minimum = 0, maximum = 253_402_300_799_i64)]
    pub timestamp: i64,
}

/// The keys of up to 100 records, without duplicates.
#[derive(ToSchema)]
#[schema(example = json!({"keys": [{"user_id": "ada", "timestamp": 1_795_334_400}]}))]
pub struct BatchGetUsersRequest {
    /// The keys.
    #[schema(min_items = 1, max_items = 100)]
    pub keys: Vec<Key>,
}

/// The records of a batch. Each requested key is in exactly one of the lists.
#[derive(ToSchema)]
pub struct BatchGetUsersResponse {
    /// The records found, in the order of the keys.
    pub users: Vec<PartialUser>,
    /// The keys without a live record.
    pub missing: Vec<Key>,
    /// The keys of stored items that are not valid user records.
    pub corrupt: Vec<Key>,
    /// The keys to request again: the table throttled the read, or the response was full.
    pub unprocessed: Vec<Key>,
}

/// The health of the function.
#[derive(ToSchema)]
pub struct Health {
    /// Always `ok`.
    pub status: String,
}

/// Problem details of an error (RFC 9457).
#[derive(ToSchema)]
#[schema(example = json!({"type": "urn:millrace:problem:not-found", "title": "record not found", "status": 404,
    "detail": "no live record has this key", "instance": "8476a536-e9f4-11e8-9739-2dfe598c3fcd"}))]
pub struct Problem {
    /// The problem type; docs/problems.md describes each.
    #[schema(pattern = "^urn:millrace:problem:[a-z-]+$")]
    pub r#type: String,
    /// The title of the problem type.
    pub title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// The cause and what to do.
    pub detail: String,
    /// The request id.
    pub instance: String,
    /// The line of the first error in malformed JSON.
    #[schema(nullable = false)]
    pub line: Option<u64>,
    /// The column of the first error in malformed JSON.
    #[schema(nullable = false)]
    pub column: Option<u64>,
    /// The invalid parts of the request.
    #[schema(nullable = false)]
    pub errors: Option<Vec<FieldError>>,
}

/// An invalid part of a request, located by one of `pointer`, `parameter` and `header`.
#[derive(ToSchema)]
pub struct FieldError {
    /// The JSON pointer to a member of the body.
    #[schema(nullable = false)]
    pub pointer: Option<String>,
    /// The name of a path or query parameter.
    #[schema(nullable = false)]
    pub parameter: Option<String>,
    /// The name of a header.
    #[schema(nullable = false)]
    pub header: Option<String>,
    /// The violated rule and the correction.
    pub detail: String,
}

/// A member of a record.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum UserField {
    /// `user_id`
    UserId,
    /// `timestamp`
    Timestamp,
    /// `name`
    Name,
    /// `email`
    Email,
    /// `status`
    Status,
    /// `attributes`
    Attributes,
    /// `expires_at`
    ExpiresAt,
    /// `version`
    Version,
    /// `created_at`
    CreatedAt,
    /// `updated_at`
    UpdatedAt,
}

/// The sort order by timestamp.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum ListOrderParam {
    /// Newest first.
    Desc,
    /// Oldest first.
    Asc,
}

/// `/users/{user_id}`
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub struct UserIdParams {
    /// The user's identifier.
    pub user_id: String,
}

/// `/users/{user_id}/{timestamp}`
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub struct UserKeyParams {
    /// The user's identifier.
    pub user_id: String,
    /// The record's timestamp in epoch seconds.
    #[param(minimum = 0, maximum = 253_402_300_799_i64)]
    pub timestamp: i64,
}

/// The projection of a read.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ProjectionParams {
    /// The members to return. Defaults to all.
    #[param(style = Form, explode = false, min_items = 1, nullable = false)]
    pub fields: Option<Vec<UserField>>,
}

/// The paging parameters of a list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PagingParams {
    /// The maximum number of records in a page. Defaults to 100; values above 1,000 count as 1,000.
    #[param(minimum = 1, nullable = false)]
    pub limit: Option<u64>,
    /// The `next_cursor` of the previous page. Valid for the same list, the same caller and one day.
    #[param(nullable = false)]
    pub cursor: Option<String>,
}

/// The filters of the list of all records.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListUsersParams {
    /// Return only records with this email. Encode a plus sign as `%2B`; a `+` in a query is a space.
    #[param(nullable = false, example = "ada@example.com")]
    pub email: Option<String>,
    /// The sort order by timestamp. Allowed only with `email`. Defaults to `desc`.
    #[param(nullable = false, inline)]
    pub order: Option<ListOrderParam>,
    /// The segment of a parallel scan to read, from 0. Requires `segments`. Not allowed with `email`.
    #[param(nullable = false, minimum = 0, maximum = 999)]
    pub segment: Option<u16>,
    /// The number of segments of a parallel scan. Requires `segment`.
    #[param(nullable = false, minimum = 1, maximum = 1000)]
    pub segments: Option<u16>,
}

/// The filters of a user's records.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct HistoryRangeParams {
    /// The lowest timestamp in epoch seconds, inclusive.
    #[param(nullable = false, minimum = 0, maximum = 253_402_300_799_i64)]
    pub from: Option<i64>,
    /// The highest timestamp in epoch seconds, inclusive.
    #[param(nullable = false, minimum = 0, maximum = 253_402_300_799_i64)]
    pub to: Option<i64>,
    /// The sort order by timestamp. Defaults to `desc`.
    #[param(nullable = false, inline)]
    pub order: Option<ListOrderParam>,
}

/// Conditional requests (RFC 9110, section 13).
#[derive(IntoParams)]
#[into_params(parameter_in = Header, rename_all = "kebab-case")]
pub struct ConditionalParams {
    /// `*` or a list of entity tags. The request succeeds only if the record's entity tag matches.
    #[param(nullable = false, example = "\"1795341600123456\"")]
    pub if_match: Option<String>,
    /// `*` or a list of entity tags. The request succeeds only if the record's entity tag does not match.
    #[param(nullable = false, example = "\"1795341600123456\"")]
    pub if_none_match: Option<String>,
}

/// Idempotent creation.
#[derive(IntoParams)]
#[into_params(parameter_in = Header, rename_all = "kebab-case")]
pub struct IdempotencyParams {
    /// A unique key of the request, such as a UUID, with or without quotes. Stored for 24 hours.
    #[param(nullable = false, example = "8e03978e-40d5-43e8-bc93-6894a57f9324")]
    pub idempotency_key: Option<String>,
}
