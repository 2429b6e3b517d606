//! The door: who calls, and whether what is asked for is theirs to ask. What a route needs is a function's own table
//! ([`AuthLayer::need`]); the key of a record is only had through [`crate::path`], which asks who owns it.
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
use shared::http::caller::{AuthMode, Caller, Scope, ScopeMapping};
use shared::user::id::UserId;

use crate::problem::Problem;

/// The scope that a request for a route, by its template, needs; none if it shows nothing of anybody.
pub type RequiredScope = fn(&str, &Method) -> Option<Scope>;

/// What the door knows.
#[derive(Clone, Debug)]
pub struct AuthLayer {
    /// Who lets requests in.
    pub auth: AuthMode,
    /// How tokens spell scopes.
    pub scopes: ScopeMapping,
    /// The time, by which tokens expire.
    pub clock: Clock,
    /// What each route needs.
    pub required_scope: RequiredScope,
}

/// Lets a request in, with its [`Caller`], or answers why not.
///
/// # Errors
/// Nobody is known to call, or the caller's token lacks the scope.
pub async fn authorize(State(door): State<AuthLayer>, mut request: Request, next: Next) -> Result<Response, Problem> {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let Some(scope) = route.as_ref().and_then(|route| (door.required_scope)(route.as_str(), request.method())) else {
        return Ok(next.run(request).await);
    };
    let caller = door.caller(&request).ok_or(Problem::Unauthenticated { auth: door.auth })?;
    if !caller.has_scope(scope) {
        return Err(Problem::InsufficientScope { scope, scopes: door.scopes });
    }
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

impl AuthLayer {
    fn caller(&self, request: &Request) -> Option<Caller> {
        if self.auth == AuthMode::None {
            return Some(Caller::unrestricted("anybody".to_owned()));
        }
        let Some(RequestContext::ApiGatewayV2(context)) = request.request_context_ref() else {
            return None;
        };
        let authorizer = context.authorizer.as_ref()?;
        match self.auth {
            AuthMode::Jwt => Caller::from_claims(&authorizer.jwt.as_ref()?.claims, &self.scopes, self.clock.now()),
            AuthMode::Iam => {
                let id = authorizer.iam.as_ref()?.caller_id.as_deref()?;
                // A role's sessions have names of their own after the colon, and are one caller.
                let id = id.split(':').next().filter(|id| !id.is_empty())?;
                Some(Caller::unrestricted(format!("iam {id}")))
            }
            AuthMode::None => None,
        }
    }
}

/// Whom the door let in.
#[derive(Clone, Debug)]
pub struct AuthenticatedCaller(pub Caller);

impl<S: Send + Sync> FromRequestParts<S> for AuthenticatedCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        caller(parts).cloned().map(Self)
    }
}

/// Refuses what another user owns as if it were not there: the table is not asked.
///
/// # Errors
/// [`Problem::NotFound`] for a foreign user.
pub fn require_owner(parts: &Parts, id: &UserId) -> Result<(), Problem> {
    if caller(parts)?.owns(id) { Ok(()) } else { Err(Problem::NotFound) }
}

fn caller(parts: &Parts) -> Result<&Caller, Problem> {
    let missing = || Problem::Internal { cause: "a request came past the door".into() };
    parts.extensions.get::<Caller>().ok_or_else(missing)
}
