//! The search function's part of the OpenAPI document: its operations, and the schemas of their parameters and
//! responses. The crate `millrace-contract` merges it into the complete document. The schema of a record is the API's `User`.

use utoipa::{IntoParams, OpenApi, ToSchema};

use crate::users;

/// The operations of search.
#[derive(OpenApi)]
#[openapi(paths(users::find, users::summary, users::stats))]
pub struct SearchContract;

/// The filters. A record must satisfy all of them.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct FilterParams {
    /// Return only records with this status.
    #[param(nullable = false)]
    pub status: Option<String>,
    /// Return only records with a name that starts with this prefix, ignoring case and Unicode normalization.
    #[param(nullable = false, min_length = 1, max_length = 256)]
    pub name_prefix: Option<String>,
    /// Return only records with a name that contains every word of this name or a similar word. A similar word differs by at
    /// most one missing, added, replaced or moved letter and has three letters or more. Single letters are ignored unless the
    /// name consists of single letters only.
    #[param(nullable = false, min_length = 1, max_length = 256)]
    pub name_like: Option<String>,
    /// Return only records with an email at this domain, ignoring case.
    #[param(nullable = false, pattern = "^[A-Za-z0-9.-]{1,253}$")]
    pub email_domain: Option<String>,
    /// The lowest timestamp in epoch seconds, inclusive.
    #[param(nullable = false, minimum = 0, maximum = 253_402_300_799_i64)]
    pub from: Option<i64>,
    /// The highest timestamp in epoch seconds, inclusive.
    #[param(nullable = false, minimum = 0, maximum = 253_402_300_799_i64)]
    pub to: Option<i64>,
    /// The earliest time of creation (RFC 3339), inclusive.
    #[param(
        nullable = false,
        pattern = "^(19|20)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,9})?Z$",
        example = "2026-11-22T10:00:00Z"
    )]
    pub created_from: Option<String>,
    /// The latest time of creation (RFC 3339), inclusive.
    #[param(
        nullable = false,
        pattern = "^(19|20)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,9})?Z$",
        example = "2026-11-22T10:00:00Z"
    )]
    pub created_to: Option<String>,
    /// The earliest time of the last write (RFC 3339), inclusive.
    #[param(
        nullable = false,
        pattern = "^(19|20)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,9})?Z$",
        example = "2026-11-22T10:00:00Z"
    )]
    pub updated_from: Option<String>,
    /// The latest time of the last write (RFC 3339), inclusive.
    #[param(
        nullable = false,
        pattern = "^(19|20)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,9})?Z$",
        example = "2026-11-22T10:00:00Z"
    )]
    pub updated_to: Option<String>,
    /// The lowest expiry in epoch seconds, inclusive.
    #[param(nullable = false, minimum = 0, maximum = 253_402_300_799_i64)]
    pub expires_from: Option<i64>,
    /// The highest expiry in epoch seconds, inclusive.
    #[param(nullable = false, minimum = 0, maximum = 253_402_300_799_i64)]
    pub expires_to: Option<i64>,
    /// Return only records with this value at this path of `attributes`, or with a list that contains it. `plan` is an
    /// example: any path is allowed, with dots between its names (`attributes.address.city`). A JSON number, true, false,
    /// null or quoted string is parsed as JSON; any other value is a string.
    #[param(rename = "attributes.plan", nullable = false)]
    pub attributes: Option<String>,
}

/// The sort order.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SortParams {
    /// The member to sort by. Defaults to `similarity` with `name_like`, to `name` with `name_prefix`, and otherwise to
    /// `updated_at`. `similarity` requires `name_like`.
    #[param(nullable = false, inline)]
    pub sort: Option<SortFieldParam>,
    /// The sort direction. Defaults to `asc` for `name` and `user_id`, and otherwise to `desc`.
    #[param(nullable = false, inline)]
    pub order: Option<SortOrderParam>,
}

/// A sortable member.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum SortFieldParam {
    /// The time of the last write.
    UpdatedAt,
    /// The time of creation.
    CreatedAt,
    /// The record's timestamp.
    Timestamp,
    /// The case-folded name (`ß` as `ss`) in NFC, by code point.
    Name,
    /// The user's identifier.
    UserId,
}

/// A sort direction.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum SortOrderParam {
    /// Ascending.
    Asc,
    /// Descending.
    Desc,
}

/// The projection and the paging parameters.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SearchPagingParams {
    /// The members to return. Defaults to all.
    #[param(style = Form, explode = false, min_items = 1, nullable = false, value_type = Option<Vec<UserField>>)]
    pub fields: Option<Vec<String>>,
    /// The maximum number of records in a page. Defaults to 100; values above 1,000 count as 1,000.
    #[param(minimum = 1, nullable = false)]
    pub limit: Option<u64>,
    /// The `next_cursor` of the previous page. Valid for the same query, the same caller and one day.
    #[param(nullable = false)]
    pub cursor: Option<String>,
}

/// `/users/{user_id}`
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub struct SearchUserIdParams {
    /// The user's identifier.
    pub user_id: String,
}

/// The limits of the statistics.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct StatsParams {
    /// The number of days to count, including today. Defaults to 30.
    #[param(nullable = false, minimum = 1, maximum = 366)]
    pub days: Option<u32>,
    /// The number of domains to return, most frequent first. Defaults to 10.
    #[param(nullable = false, minimum = 1, maximum = 100)]
    pub domains: Option<u32>,
}

/// The API's schema; a placeholder for references.
#[derive(ToSchema)]
pub struct UserField;

/// The API's schema; a placeholder for references.
#[derive(ToSchema)]
pub struct PartialUser;

/// The API's schema; a placeholder for references.
#[derive(ToSchema)]
pub struct User;

/// A page of search results.
#[derive(ToSchema)]
pub struct SearchUsersResponse {
    /// At most `limit` records.
    pub users: Vec<PartialUser>,
    /// The cursor of the next page; null on the last page.
    #[schema(required)]
    pub next_cursor: Option<String>,
    /// The time of the latest change in the replica (RFC 3339); null if the replica has no change from the stream.
    #[schema(required)]
    pub as_of: Option<String>,
}

/// A user's latest record and aggregates over all of the user's records.
#[derive(ToSchema)]
pub struct Summary {
    /// The latest record.
    pub user: User,
    /// The number of records.
    #[schema(minimum = 1)]
    pub records: u64,
    /// The timestamp of the oldest record in epoch seconds.
    pub first_timestamp: i64,
    /// The timestamp of the latest record in epoch seconds.
    pub last_timestamp: i64,
    /// The earliest time of creation (RFC 3339).
    #[schema(required)]
    pub first_created_at: Option<String>,
    /// The latest time of a write (RFC 3339).
    #[schema(required)]
    pub last_updated_at: Option<String>,
    /// The time of the latest change in the replica (RFC 3339); null if the replica has no change from the stream.
    #[schema(required)]
    pub as_of: Option<String>,
}

/// Statistics over all records.
#[derive(ToSchema)]
pub struct Stats {
    /// The number of records.
    #[schema(minimum = 0)]
    pub records: u64,
    /// The number of records by status, most frequent first.
    pub statuses: Vec<StatusCount>,
    /// The number of records by day of creation in UTC. Days without records are omitted.
    pub days: Vec<DayCount>,
    /// The number of records by email domain, most frequent first.
    pub domains: Vec<DomainCount>,
    /// The time of the latest change in the replica (RFC 3339); null if the replica has no change from the stream.
    #[schema(required)]
    pub as_of: Option<String>,
}

/// The number of records with a status.
#[derive(ToSchema)]
pub struct StatusCount {
    /// The status; null for records without a status.
    #[schema(required)]
    pub status: Option<String>,
    /// The number of records.
    #[schema(minimum = 1)]
    pub records: u64,
}

/// The number of records created on a day.
#[derive(ToSchema)]
pub struct DayCount {
    /// The day, such as `2026-11-22`.
    pub day: String,
    /// The number of records.
    #[schema(minimum = 1)]
    pub records: u64,
}

/// The number of records with an email at a domain.
#[derive(ToSchema)]
pub struct DomainCount {
    /// The domain in lower case.
    pub domain: String,
    /// The number of records.
    #[schema(minimum = 1)]
    pub records: u64,
}
