//! Parts that all pages share: the frame with the navigation, messages, and the rendering of verdicts and times.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Response};
use http::{StatusCode, header};
use maud::{DOCTYPE, Markup, html};
use millrace_local::observer::ChangeVerdict;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use crate::{ConsoleContext, assets};

const TIME: &[BorrowedFormatItem<'_>] = format_description!("[hour]:[minute]:[second].[subsecond digits:3]");

/// The links of the navigation, each with its path and its name.
pub(crate) type PageLinks = &'static [(&'static str, &'static str)];

/// The content of a page. [`add_frame`] renders it with the navigation, which depends on the stack and not on the page.
#[derive(Debug, Clone)]
pub(crate) struct PageContent {
    path: String,
    title: String,
    body: Markup,
}

impl IntoResponse for PageContent {
    fn into_response(self) -> Response {
        let mut response = Html(Body::empty()).into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Returns a page, which gets its frame when it is sent.
pub(crate) fn page(path: &str, title: &str, body: &Markup) -> PageContent {
    PageContent { path: path.to_owned(), title: title.to_owned(), body: body.clone() }
}

/// Renders the pages among the responses in their frame.
pub(crate) async fn add_frame(State(navigation): State<PageLinks>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if let Some(content) = response.extensions_mut().remove::<PageContent>() {
        // The length of the empty body.
        response.headers_mut().remove(header::CONTENT_LENGTH);
        *response.body_mut() = Body::from(framed(&content, navigation));
    }
    response
}

fn framed(PageContent { path, title, body }: &PageContent, navigation: PageLinks) -> String {
    html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    title { (title) " · Millrace" }
                    link rel="icon" href=(assets::href("icon.svg"));
                    link rel="stylesheet" href=(assets::href("console.css"));
                    script src=(assets::href("console.js")) defer {}
                }
                body {
                    a.skip href="#main" { "Skip to the content" }
                    header {
                        strong { "Millrace" }
                        nav aria-label="Pages" {
                            ul {
                                @for (own, name) in navigation {
                                    li { a href=(own) aria-current=[(own == path).then_some("page")] { (name) } }
                                }
                            }
                        }
                    }
                    main #main {
                        h1 { (title) }
                        (body)
                    }
                }
            }
    }
    .into_string()
}

/// Renders the page of a request that failed, with the reason and a way back.
pub(crate) fn failed(status: StatusCode, path: &str, title: &str, reason: &str) -> Response {
    let body = html! {
        (problem(reason))
        p { a href=(path) { "Back" } }
    };
    (status, page(path, title, &body)).into_response()
}

/// Renders a problem; screen readers announce it.
pub(crate) fn problem(reason: &str) -> Markup {
    html! { p.box.bad role="alert" { (reason) @if let Some(advice) = advice(reason) { ". " (advice) } } }
}

/// Returns the fix of an AWS error that an adapter reports with the message of AWS only.
fn advice(reason: &str) -> Option<&'static str> {
    if reason.contains("ExpiredToken") && !reason.contains("log in again") {
        return Some("Log in again, and reload the page after a minute.");
    }
    if reason.contains("ResourceNotFound") {
        return Some("Create the table again, and reload the page. The task backfill fills a replica that is empty.");
    }
    let is_denied = reason.contains("AccessDenied");
    is_denied.then_some("`millrace console --print-policy` prints the permissions that the pages need.")
}

/// Renders the hidden field with the token of a form.
pub(crate) fn token_field(context: &ConsoleContext) -> Markup {
    html! { input type="hidden" name="token" value=(context.token()); }
}

/// Renders a verdict with its meaning as a tooltip.
pub(crate) fn verdict(verdict: ChangeVerdict, reason: Option<&str>) -> Markup {
    let class = match verdict {
        ChangeVerdict::Applied | ChangeVerdict::Tombstone | ChangeVerdict::Confirmed => "verdict good",
        ChangeVerdict::Failed => "verdict warn",
        ChangeVerdict::Quarantined => "verdict bad",
        _ => "verdict",
    };
    html! {
        span class=(class) title=(verdict.meaning()) { (verdict.as_str()) }
        @if let Some(reason) = reason { " " span.note { (reason) } }
    }
}

/// Formats the time of the day, in UTC.
pub(crate) fn clock_time(at: OffsetDateTime) -> String {
    at.format(TIME).unwrap_or_default()
}

/// Formats a time for the attribute `datetime`.
pub(crate) fn machine_time(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_default()
}

/// Formats milliseconds as a person reads them.
pub(crate) fn milliseconds(ms: u64) -> String {
    if ms < 10_000 { format!("{ms} ms") } else { format!("{} s", ms / 1_000) }
}

/// Cuts a text to a number of bytes; a text that was cut says so.
pub(crate) fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(most);
    format!("{}… ({end} of {} bytes)", &text[..end], text.len())
}

/// Formats a number with its noun, such as `1 row` or `2 rows`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Returns a link in the console with these fields.
pub(crate) fn href(path: &str, fields: &[(&str, &str)]) -> String {
    let encoded =
        |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    format!("{path}?{}", fields.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_of_an_account_has_its_fix() {
        for (reason, fix) in [
            ("Users: BatchGetItem: AccessDeniedException: not authorized", "millrace console --print-policy"),
            ("ListObjectsV2: ExpiredToken: The provided token has expired", "Log in again, and reload the page"),
            ("UsersReplica cannot be read: ResourceNotFoundException: not found", "Create the table again"),
        ] {
            assert!(problem(reason).into_string().contains(fix), "{reason}");
        }
        let error_text = "ListStackResources failed: ExpiredToken: expired: log in again, or set --profile";
        assert!(problem(error_text).into_string().ends_with("set --profile</p>"));
    }
}
