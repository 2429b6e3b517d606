//! The problems that each operation can return.

use std::collections::BTreeMap;

use millrace_http::problem::{JSON, MERGE_PATCH, Problem};
use millrace_shared::http::caller::{AuthMode, Scope, ScopeMapping};
use millrace_shared::http::path::PathError;
use utoipa::Modify;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{Content, OpenApi as Document, Ref, RefOr, ResponseBuilder};

/// Adds the responses of its problems to each operation.
pub(super) struct ProblemResponses;

impl Modify for ProblemResponses {
    fn modify(&self, document: &mut Document) {
        for item in document.paths.paths.values_mut() {
            let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.patch, &mut item.delete];
            operations.into_iter().flatten().for_each(add_responses);
        }
    }
}

fn add_responses(operation: &mut Operation) {
    let mut by_status: BTreeMap<u16, Vec<Problem>> = BTreeMap::new();
    for problem in problems_of(operation.operation_id.as_deref().unwrap_or_default()) {
        by_status.entry(problem.status()).or_default().push(problem);
    }
    for (status, problems) in by_status {
        let types: Vec<_> =
            problems.iter().map(|problem| format!("`{}`: {}", problem.type_uri(), problem.title())).collect();
        let content = Content::new(Some(RefOr::Ref(Ref::from_schema_name("Problem"))));
        let mut response =
            ResponseBuilder::new().description(types.join("; ")).content("application/problem+json", content);
        for name in headers(&problems) {
            let schema = ObjectBuilder::new().schema_type(Type::String).build();
            response = response.header(name, HeaderBuilder::new().schema(Some(schema)).build());
        }
        operation.responses.responses.insert(status.to_string(), RefOr::T(response.build()));
    }
}

/// Returns the headers that these problems add to those of every response.
fn headers(problems: &[Problem]) -> Vec<&'static str> {
    let mut names: Vec<_> = problems
        .iter()
        .filter_map(|problem| match problem {
            Problem::ServiceUnavailable { .. } | Problem::IdempotencyKeyInUse { .. } | Problem::TooManyExpired => {
                Some("retry-after")
            }
            Problem::RateLimited { .. } => Some("retry-after,ratelimit,ratelimit-policy"),
            Problem::Unauthenticated { .. } | Problem::InsufficientScope { .. } => Some("www-authenticate"),
            Problem::UnsupportedMediaType { expected: MERGE_PATCH } => Some("accept-patch"),
            _ => None,
        })
        .flat_map(|names| names.split(','))
        .collect();
    names.dedup();
    names
}

/// The operations of search.
const SEARCH: [&str; 3] = ["searchUsers", "getUserSummary", "getUserStats"];

/// Returns the problems of an operation; an operation without an entry cannot fail.
pub(super) fn problems_of(operation: &str) -> Vec<Problem> {
    let cause = String::new;
    let gated = || {
        vec![
            Problem::Unauthenticated { auth: AuthMode::Jwt },
            Problem::InsufficientScope { scope: Scope::Read, scopes: ScopeMapping::default() },
            Problem::InvalidPath { error: PathError::EmptySegment },
            Problem::Request(Vec::new()),
            Problem::RateLimited { seconds: 1 },
            Problem::ServiceUnavailable { cause: cause() },
            Problem::Internal { cause: cause() },
        ]
    };
    let body = [
        Problem::IncompleteBody,
        Problem::MalformedJson { line: 1, column: 1, reason: String::new() },
        Problem::Body(Vec::new()),
        Problem::BodyTooLarge,
        Problem::UnsupportedContentEncoding,
    ];
    let corrupt = Problem::CorruptRecord { cause: cause() };
    let timeout = Problem::QueryTimeout { seconds: 5, cause: cause() };
    let own = match operation {
        "createUser" => [
            &body[..],
            &[
                Problem::UnsupportedMediaType { expected: JSON },
                Problem::RecordTooLarge { cause: String::new() },
                Problem::UserIdMismatch { pointer: "/user_id" },
                Problem::AlreadyExists,
                Problem::EmailTaken,
                Problem::IdempotencyKeyInUse { seconds: 1 },
                Problem::IdempotencyKeyReused,
            ],
        ]
        .concat(),
        "listUsers" => Vec::new(),
        "searchUsers" | "getUserStats" => vec![timeout],
        "getUserSummary" => vec![Problem::NotFound, corrupt, timeout],
        "batchGetUsers" => [&body[..], &[Problem::UnsupportedMediaType { expected: JSON }]].concat(),
        "listUserHistory" => vec![Problem::NotFound],
        "getUser" => vec![Problem::NotFound, Problem::PreconditionFailed, corrupt],
        "getLatestUser" => {
            vec![Problem::NotFound, Problem::PreconditionFailed, corrupt, Problem::TooManyExpired]
        }
        "replaceUser" => {
            let own = [
                Problem::NotFound,
                Problem::UnsupportedMediaType { expected: JSON },
                Problem::RecordTooLarge { cause: String::new() },
                Problem::EmailTaken,
                Problem::PreconditionFailed,
                Problem::PreconditionRequired,
                corrupt,
            ];
            [&body[..], &own].concat()
        }
        "updateUser" => {
            let own = [
                Problem::NotFound,
                Problem::UnsupportedMediaType { expected: MERGE_PATCH },
                Problem::RecordTooLarge { cause: String::new() },
                Problem::EmailTaken,
                Problem::PreconditionFailed,
                Problem::PreconditionRequired,
                corrupt,
            ];
            [&body[..], &own].concat()
        }
        "deleteUser" => vec![Problem::NotFound, Problem::PreconditionFailed, Problem::PreconditionRequired],
        _ => return Vec::new(),
    };
    let mut all = [gated(), own].concat();
    if SEARCH.contains(&operation) {
        // Only the API has a request quota.
        all.retain(|problem| !matches!(problem, Problem::RateLimited { .. }));
    }
    all
}
