//! The shapes of parameters and answers, as the contract tells them. A record is the API's own `User`.

use utoipa::{IntoParams, ToSchema};

/// Which records. Each condition that is given holds.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Filters {
    /// Those with this status.
    #[param(nullable = false)]
    pub status: Option<String>,
    /// Those whose name begins so, in whatever case and Unicode spelling.
    #[param(nullable = false, min_length = 1, max_length = 256)]
    pub name_prefix: Option<String>,
    /// Those whose name has every word of this one, or one like it: with at most one letter missing, added, replaced or moved
    /// (words of three letters and more; a single letter counts only where there is nothing else).
    #[param(nullable = false, min_length = 1, max_length = 256)]
    pub name_like: Option<String>,
    /// Those with an address at this domain, in whatever case.
    #[param(nullable = false, pattern = "^[A-Za-z0-9.-]{1,253}$")]
    pub email_domain: Option<String>,
    /// The earliest second.
    #[param(nullable = false, minimum = 0, maximum = 253_402_300_799_i64)]
    pub from: Option<i64>,
    /// The latest second.
    #[param(nullable = false, minimum = 0, maximum = 253_402_300_799_i64)]
    pub to: Option<i64>,
    /// Those created at this moment or after it.
    #[param(
        nullable = false,
        pattern = "^(19|20)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,9})?Z$",
        example = "2026-11-22T10:00:00Z"
    )]
    pub created_from: Option<String>,
    /// Those created at this moment or before it.
    #[param(
        nullable = false,
        pattern = "^(19|20)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,9})?Z$",
        example = "2026-11-22T10:00:00Z"
    )]
    pub created_to: Option<String>,
    /// Those last written at this moment or after it.
    #[param(
        nullable = false,
        pattern = "^(19|20)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,9})?Z$",
        example = "2026-11-22T10:00:00Z"
    )]
    pub updated_from: Option<String>,
    /// Those last written at this moment or before it.
    #[param(
        nullable = false,
        pattern = "^(19|20)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,9})?Z$",
        example = "2026-11-22T10:00:00Z"
    )]
    pub updated_to: Option<String>,
    /// Those that expire at this second or after it.
    #[param(nullable = false, minimum = 0, maximum = 253_402_300_799_i64)]
    pub expires_from: Option<i64>,
    /// Those that expire at this second or before it.
    #[param(nullable = false, minimum = 0, maximum = 253_402_300_799_i64)]
    pub expires_to: Option<i64>,
    /// Those with this value in `attributes`, or a list with it: `plan` stands for any path, with dots between its names
    /// (`attributes.address.city`). What reads as a JSON number, true, false, null or quoted text is that, anything else a
    /// text.
    #[param(rename = "attributes.plan", nullable = false)]
    pub attributes: Option<String>,
}

/// In which order.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Sorting {
    /// By which member; by default `updated_at`, with `name_prefix` `name`, and with `name_like` `likeness`.
    #[param(nullable = false, inline)]
    pub sort: Option<Sort>,
    /// Which way; by default names and identifiers from A, all else from the top.
    #[param(nullable = false, inline)]
    pub order: Option<Way>,
}

/// A member that records are sorted by.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum Sort {
    /// When it was last written.
    UpdatedAt,
    /// When it was created.
    CreatedAt,
    /// The record's second.
    Timestamp,
    /// The name without case (`ß` as `ss`), composed (NFC), by code points.
    Name,
    /// Whose record it is.
    UserId,
}

/// Which way.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum Way {
    /// From the bottom.
    Asc,
    /// From the top.
    Desc,
}

/// What of the records, and how many.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Shown {
    /// The members to answer; all by default.
    #[param(style = Form, explode = false, min_items = 1, nullable = false, value_type = Option<Vec<UserField>>)]
    pub fields: Option<Vec<String>>,
    /// Records in a page: 100 by default, 1,000 at most, whatever more is asked for.
    #[param(minimum = 1, nullable = false)]
    pub limit: Option<u64>,
    /// `next_cursor` of the previous page: of the same question, for the same caller, within a day.
    #[param(nullable = false)]
    pub cursor: Option<String>,
}

/// `/users/{user_id}`
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub struct OfUser {
    /// Whose records they are.
    pub user_id: String,
}

/// How much to count.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Counting {
    /// How many days back days are counted, today among them; 30 by default.
    #[param(nullable = false, minimum = 1, maximum = 366)]
    pub days: Option<u32>,
    /// How many domains are told, those with most records; 10 by default.
    #[param(nullable = false, minimum = 1, maximum = 100)]
    pub domains: Option<u32>,
}

/// The API's own; named here, described there.
#[derive(ToSchema)]
pub struct UserField;

/// The API's own.
#[derive(ToSchema)]
pub struct PartialUser;

/// The API's own.
#[derive(ToSchema)]
pub struct User;

/// A page of records that were found.
#[derive(ToSchema)]
pub struct SearchUsersResponse {
    /// At most `limit` records.
    pub users: Vec<PartialUser>,
    /// The cursor of the next page; null after the last one.
    #[schema(required)]
    pub next_cursor: Option<String>,
    /// When the newest change happened that the replica holds; null if it holds none of the stream's.
    #[schema(required)]
    pub as_of: Option<String>,
}

/// A user's newest record, and what all of its records come to.
#[derive(ToSchema)]
pub struct Summary {
    /// The newest record.
    pub user: User,
    /// How many there are.
    #[schema(minimum = 1)]
    pub records: u64,
    /// The second of the oldest.
    pub first_timestamp: i64,
    /// The second of the newest.
    pub last_timestamp: i64,
    /// When the first was created.
    #[schema(required)]
    pub first_created_at: Option<String>,
    /// When one was last written.
    #[schema(required)]
    pub last_updated_at: Option<String>,
    /// When the newest change happened that the replica holds; null if it holds none of the stream's.
    #[schema(required)]
    pub as_of: Option<String>,
}

/// Counts of records.
#[derive(ToSchema)]
pub struct Stats {
    /// How many there are.
    #[schema(minimum = 0)]
    pub records: u64,
    /// By status, the commonest first.
    pub statuses: Vec<StatusCount>,
    /// By day of creation, in UTC; days without records are left out.
    pub days: Vec<DayCount>,
    /// By the address's domain, the commonest first.
    pub domains: Vec<DomainCount>,
    /// When the newest change happened that the replica holds; null if it holds none of the stream's.
    #[schema(required)]
    pub as_of: Option<String>,
}

/// Records with a status.
#[derive(ToSchema)]
pub struct StatusCount {
    /// The status; null for records without one.
    #[schema(required)]
    pub status: Option<String>,
    /// How many.
    #[schema(minimum = 1)]
    pub records: u64,
}

/// Records of a day.
#[derive(ToSchema)]
pub struct DayCount {
    /// The day, as 2026-11-22.
    pub day: String,
    /// How many.
    #[schema(minimum = 1)]
    pub records: u64,
}

/// Records at a domain.
#[derive(ToSchema)]
pub struct DomainCount {
    /// The domain, in small letters.
    pub domain: String,
    /// How many.
    #[schema(minimum = 1)]
    pub records: u64,
}
