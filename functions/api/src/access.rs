//! The door: who calls, and whether what is asked for is theirs to ask. Default deny: what has no line in [`need`] needs
//! the widest scope, and the key of a record is only had through [`crate::path`], which asks who owns it.
//!
//! API Gateway has verified the token or the signature before it invokes the function; what it found is in the request's
//! context and nowhere else. No header is believed.

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::Method;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use lambda_http::RequestExt;
use lambda_http::request::RequestContext;
use shared::clock::Clock;
use shared::http::caller::{Auth, Caller, Scope};
use shared::user::id::UserId;

use crate::problem::Problem;

/// What the door knows.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(crate) auth: Auth,
    pub(crate) clock: Clock,
}

/// Lets a request in, with its [`Caller`], or answers why not.
pub(crate) async fn admit(State(door): State<Door>, mut request: Request, next: Next) -> Result<Response, Problem> {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let Some(scope) = route.as_ref().and_then(|route| need(route.as_str(), request.method())) else {
        return Ok(next.run(request).await);
    };
    let caller = door.caller(&request).ok_or(Problem::Unauthenticated { auth: door.auth })?;
    if !caller.may(scope) {
        return Err(Problem::InsufficientScope { scope });
    }
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

/// The scope that a request needs; none if it shows nothing of anybody.
fn need(route: &str, method: &Method) -> Option<Scope> {
    let reads = method == Method::GET || method == Method::HEAD;
    match route {
        _ if method == Method::OPTIONS => None,
        "/health" | "/openapi.json" => None,
        "/users" if method == Method::POST => Some(Scope::Write),
        // Of the keys in its body, the handler asks for the caller's own.
        "/users:batchGet" if method == Method::POST => Some(Scope::Read),
        "/users/{user_id}" | "/users/{user_id}/latest" | "/users/{user_id}/{timestamp}" if reads => Some(Scope::Read),
        "/users/{user_id}/{timestamp}" if [Method::PUT, Method::PATCH, Method::DELETE].contains(method) => {
            Some(Scope::Write)
        }
        // Lists over all users, and whatever is new here.
        _ => Some(Scope::Admin),
    }
}

impl Door {
    fn caller(&self, request: &Request) -> Option<Caller> {
        if self.auth == Auth::None {
            return Some(Caller::trusted("anybody".to_owned()));
        }
        let Some(RequestContext::ApiGatewayV2(context)) = request.request_context_ref() else {
            return None;
        };
        let authorizer = context.authorizer.as_ref()?;
        match self.auth {
            Auth::Jwt => Caller::of_claims(&authorizer.jwt.as_ref()?.claims, self.clock.now()),
            Auth::Iam => {
                let id = authorizer.iam.as_ref()?.caller_id.as_deref()?;
                // A role's sessions have names of their own after the colon, and are one caller.
                let id = id.split(':').next().filter(|id| !id.is_empty())?;
                Some(Caller::trusted(format!("iam {id}")))
            }
            Auth::None => None,
        }
    }
}

/// Whom the door let in.
pub(crate) struct By(pub(crate) Caller);

impl<S: Send + Sync> FromRequestParts<S> for By {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        caller(parts).cloned().map(Self)
    }
}

/// Refuses what another user owns as if it were not there: the table is not asked.
pub(crate) fn owned(parts: &Parts, id: &UserId) -> Result<(), Problem> {
    if caller(parts)?.owns(id) { Ok(()) } else { Err(Problem::NotFound) }
}

fn caller(parts: &Parts) -> Result<&Caller, Problem> {
    let missing = || Problem::Internal { cause: "a request came past the door".into() };
    parts.extensions.get::<Caller>().ok_or_else(missing)
}

#[cfg(test)]
mod tests;
