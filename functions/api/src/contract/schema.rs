//! The shapes of bodies and parameters, as the contract tells them. The code does not read through these types: it parses
//! raw JSON, so that numbers stay exact and every mistake is told (`body`); `scripts/story_contract.py` holds the two
//! together. What a text must look like stands once in `contract::patterns`.
//!
//! What JSON Schema cannot say stands in words: how many digits a number of `attributes` has, how far an expiry lies from
//! now, which parameters go together.

use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

/// One record of a user.
#[derive(ToSchema)]
#[schema(example = json!({"user_id": "ada", "timestamp": 1_795_334_400, "name": "Ada Lovelace", "email": "ada@example.com",
    "attributes": {"plan": "team", "seats": 12}, "version": 1_795_341_600_123_456_u64,
    "created_at": "2026-11-22T10:00:00.123Z", "updated_at": "2026-11-22T10:00:00.123Z"}))]
pub struct User {
    /// Whose record it is.
    #[schema(min_length = 1, max_length = 128)]
    pub user_id: String,
    /// The record's second, since 1970.
    #[schema(minimum = 0, maximum = 253_402_300_799_i64)]
    pub timestamp: i64,
    /// The user's name.
    pub name: String,
    /// The user's address.
    #[schema(nullable = false)]
    pub email: Option<String>,
    /// A word of the client's own.
    #[schema(nullable = false)]
    pub status: Option<String>,
    /// Whatever else the client keeps. Numbers are exact to 38 digits.
    #[schema(nullable = false, value_type = Option<std::collections::HashMap<String, Value>>)]
    pub attributes: Option<Value>,
    /// From this second on the record is absent. A fraction that another program stored is rounded up; what DynamoDB's TTL
    /// never acts on is left out.
    #[schema(nullable = false)]
    pub expires_at: Option<i64>,
    /// The entity tag, and 0 for a record that another program wrote without one.
    #[schema(minimum = 0)]
    pub version: u64,
    /// When it was created.
    #[schema(nullable = false)]
    pub created_at: Option<String>,
    /// When it was last written.
    #[schema(nullable = false)]
    pub updated_at: Option<String>,
}

/// Those members of a record that `fields` names, or all of them.
#[derive(ToSchema)]
pub struct PartialUser {
    /// Whose record it is.
    #[schema(nullable = false)]
    pub user_id: Option<String>,
    /// The record's second, since 1970.
    #[schema(nullable = false)]
    pub timestamp: Option<i64>,
    /// The user's name.
    #[schema(nullable = false)]
    pub name: Option<String>,
    /// The user's address.
    #[schema(nullable = false)]
    pub email: Option<String>,
    /// A word of the client's own.
    #[schema(nullable = false)]
    pub status: Option<String>,
    /// Whatever else the client keeps.
    #[schema(nullable = false, value_type = Option<std::collections::HashMap<String, Value>>)]
    pub attributes: Option<Value>,
    /// From this second on the record is absent.
    #[schema(nullable = false)]
    pub expires_at: Option<i64>,
    /// The entity tag.
    #[schema(nullable = false)]
    pub version: Option<u64>,
    /// When it was created.
    #[schema(nullable = false)]
    pub created_at: Option<String>,
    /// When it was last written.
    #[schema(nullable = false)]
    pub updated_at: Option<String>,
}

/// A new record.
#[derive(ToSchema)]
#[schema(example = json!({"user_id": "ada", "timestamp": 1_795_334_400,
    "name": "Ada Lovelace", "email": "ada@example.com", "attributes": {"plan": "team", "seats": 12}}))]
pub struct CreateUserRequest {
    /// Whose record it is. By default the token's sub, and without a token a new UUID of version 7.
    pub user_id: Option<String>,
    /// The record's second, since 1970; by default the present one.
    #[schema(minimum = 0, maximum = 253_402_300_799_i64)]
    pub timestamp: Option<i64>,
    /// 1 to 256 characters, not all blank, none of them a control character.
    pub name: String,
    /// One address.
    pub email: Option<String>,
    /// 1 to 64 characters, not all blank, none of them a control character.
    pub status: Option<String>,
    /// Any JSON object, nested at most 32 levels, whose names are not empty and whose numbers have at most 38 digits and a
    /// magnitude from 1e-130 to 9.9e125. At most 398 KB (407552 bytes) as DynamoDB counts them.
    #[schema(value_type = Option<std::collections::HashMap<String, Value>>)]
    pub attributes: Option<Value>,
    /// From this second on the record is absent: at most 4 years ago and 50 years from now.
    #[schema(minimum = 0, maximum = 253_402_300_799_i64)]
    pub expires_at: Option<i64>,
}

/// A whole record, without its key, which it may repeat.
#[derive(ToSchema)]
#[schema(example = json!({"name": "Ada King", "status": "active"}))]
pub struct Replacement {
    /// 1 to 256 characters, not all blank, none of them a control character.
    pub name: String,
    /// One address.
    pub email: Option<String>,
    /// 1 to 64 characters, not all blank, none of them a control character.
    pub status: Option<String>,
    /// As in a new record.
    #[schema(value_type = Option<std::collections::HashMap<String, Value>>)]
    pub attributes: Option<Value>,
    /// From this second on the record is absent: at most 4 years ago and 50 years from now.
    #[schema(minimum = 0, maximum = 253_402_300_799_i64)]
    pub expires_at: Option<i64>,
}

/// A merge patch (RFC 7396): what it does not name stays, `null` removes, `attributes` are merged member by member.
#[derive(ToSchema)]
#[schema(example = json!({"name": "Ada King", "status": null, "attributes": {"seats": null}}))]
pub struct Patch {
    /// 1 to 256 characters, not all blank, none of them a control character. It cannot be removed.
    #[schema(nullable = false)]
    pub name: Option<String>,
    /// One address.
    pub email: Option<String>,
    /// 1 to 64 characters, not all blank, none of them a control character.
    pub status: Option<String>,
    /// As in a new record.
    #[schema(value_type = Option<std::collections::HashMap<String, Value>>)]
    pub attributes: Option<Value>,
    /// From this second on the record is absent: at most 4 years ago and 50 years from now.
    #[schema(minimum = 0, maximum = 253_402_300_799_i64)]
    pub expires_at: Option<i64>,
}

/// A record that was written.
#[derive(ToSchema)]
pub struct WriteUserResponse {
    /// The record as it is now.
    pub user: User,
}

/// A record that was read.
#[derive(ToSchema)]
pub struct ReadUserResponse {
    /// The record.
    pub user: PartialUser,
    /// Where it was read.
    pub source: ReadSource,
}

/// Where a record was read.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum ReadSource {
    /// The cache, where there is one.
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
    /// The cursor of the next page; null after the last one.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

/// The key of a record.
#[derive(ToSchema)]
pub struct Key {
    /// Whose record it is.
    pub user_id: String,
    /// The record's second, since 1970.
    #[schema(minimum = 0, maximum = 253_402_300_799_i64)]
    pub timestamp: i64,
}

/// The keys of up to 100 records, each once.
#[derive(ToSchema)]
#[schema(example = json!({"keys": [{"user_id": "ada", "timestamp": 1_795_334_400}]}))]
pub struct BatchGetUsersRequest {
    /// The keys.
    #[schema(min_items = 1, max_items = 100)]
    pub keys: Vec<Key>,
}

/// Each key of a batch in its place.
#[derive(ToSchema)]
pub struct BatchGetUsersResponse {
    /// The records that were found, in the order of the keys.
    pub users: Vec<PartialUser>,
    /// Keys without a live record.
    pub missing: Vec<Key>,
    /// Keys whose item is no user.
    pub unreadable: Vec<Key>,
    /// Keys to ask for again: the table was too busy, or the answer too long.
    pub unprocessed: Vec<Key>,
}

/// That the function runs.
#[derive(ToSchema)]
pub struct Health {
    /// `ok`.
    pub status: String,
}

/// What went wrong (RFC 9457).
#[derive(ToSchema)]
#[schema(example = json!({"type": "urn:millrace:problem:not-found", "title": "record not found", "status": 404,
    "detail": "no live record has this key", "instance": "8476a536-e9f4-11e8-9739-2dfe598c3fcd"}))]
pub struct Problem {
    /// Which problem; docs/problems.md explains each.
    #[schema(pattern = "^urn:millrace:problem:[a-z-]+$")]
    pub r#type: String,
    /// The problem in a few words.
    pub title: String,
    /// The status.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What to do.
    pub detail: String,
    /// The request's id.
    pub instance: String,
    /// The line of malformed JSON.
    #[schema(nullable = false)]
    pub line: Option<u64>,
    /// The column of malformed JSON.
    #[schema(nullable = false)]
    pub column: Option<u64>,
    /// What is wrong, and where.
    #[schema(nullable = false)]
    pub errors: Option<Vec<FieldError>>,
}

/// One thing that is wrong with a request; one of `pointer`, `parameter` and `header` says where.
#[derive(ToSchema)]
pub struct FieldError {
    /// A JSON pointer into the body.
    #[schema(nullable = false)]
    pub pointer: Option<String>,
    /// The name of a parameter of the path or the query.
    #[schema(nullable = false)]
    pub parameter: Option<String>,
    /// The name of a header.
    #[schema(nullable = false)]
    pub header: Option<String>,
    /// What is wrong, and the fix.
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

/// By the records' seconds.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum Order {
    /// Newest first.
    Desc,
    /// Oldest first.
    Asc,
}

/// `/users/{user_id}`
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub struct OfUser {
    /// Whose records they are.
    pub user_id: String,
}

/// `/users/{user_id}/{timestamp}`
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub struct OfRecord {
    /// Whose record it is.
    pub user_id: String,
    /// The record's second, since 1970.
    #[param(minimum = 0, maximum = 253_402_300_799_i64)]
    pub timestamp: i64,
}

/// What any read may ask for.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Projection {
    /// The members to answer; all by default.
    #[param(style = Form, explode = false, min_items = 1, nullable = false)]
    pub fields: Option<Vec<UserField>>,
}

/// What any list may ask for.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// Records in a page: 100 by default, 1,000 at most, whatever more is asked for.
    #[param(minimum = 1, nullable = false)]
    pub limit: Option<u64>,
    /// `next_cursor` of the previous page: of the same list, for the same caller, within a day.
    #[param(nullable = false)]
    pub cursor: Option<String>,
}

/// Which of all records.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct OfAll {
    /// Those with this email. A plus sign is written `%2B`: in a query a `+` is a space.
    #[param(nullable = false, example = "ada@example.com")]
    pub email: Option<String>,
    /// Their order; with `email` alone, `desc` by default.
    #[param(nullable = false, inline)]
    pub order: Option<Order>,
    /// One of `segments` parts, from 0; without `email` alone.
    #[param(nullable = false, minimum = 0, maximum = 999)]
    pub segment: Option<u16>,
    /// How many parts there are.
    #[param(nullable = false, minimum = 1, maximum = 1000)]
    pub segments: Option<u16>,
}

/// Which of a user's records.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Range {
    /// The earliest second.
    #[param(nullable = false, minimum = 0, maximum = 253_402_300_799_i64)]
    pub from: Option<i64>,
    /// The latest second.
    #[param(nullable = false, minimum = 0, maximum = 253_402_300_799_i64)]
    pub to: Option<i64>,
    /// Their order, `desc` by default.
    #[param(nullable = false, inline)]
    pub order: Option<Order>,
}

/// Conditional requests (RFC 9110, section 13).
#[derive(IntoParams)]
#[into_params(parameter_in = Header, rename_all = "kebab-case")]
pub struct Conditions {
    /// `*` or entity tags: the record must be one of these.
    #[param(nullable = false, example = "\"1795341600123456\"")]
    pub if_match: Option<String>,
    /// `*` or entity tags: the record must be none of these.
    #[param(nullable = false, example = "\"1795341600123456\"")]
    pub if_none_match: Option<String>,
}

/// At most one effect, however often a request is sent.
#[derive(IntoParams)]
#[into_params(parameter_in = Header, rename_all = "kebab-case")]
pub struct Once {
    /// The request's own key, a UUID for example, quoted or not. Kept for 24 hours.
    #[param(nullable = false, example = "8e03978e-40d5-43e8-bc93-6894a57f9324")]
    pub idempotency_key: Option<String>,
}
