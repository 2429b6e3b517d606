//! Authentication and authorization: identifies the caller and checks whether it may make the request. Each function
//! has its own table of required scopes ([`AuthLayer::required_scope`]). A handler gets the key of a record only
//! through [`crate::path`], which checks that the caller owns it.
//!
//! API Gateway has verified the token or the signature before it invokes the function. Its result is in the request
//! context only; no header is trusted.

use axum::extract::{FromRequestParts, MatchedPath, Request};
use axum::http::Method;
use axum::http::request::Parts;
use millrace_shared::clock::Clock;
use millrace_shared::http::caller::{AuthMode, Caller, Scope, ScopeMapping};
use millrace_shared::user::id::UserId;

use crate::gateway::GatewayContext;
use crate::problem::Problem;

/// A function that returns the scope that a request for a route template requires, or `None` if the response contains
/// no user data.
pub type RequiredScope = fn(&str, &Method) -> Option<Scope>;

/// The configuration of authentication and authorization.
#[derive(Clone, Debug)]
pub struct AuthLayer {
    /// The authentication mode.
    pub auth: AuthMode,
    /// The names of the scopes in tokens.
    pub scopes: ScopeMapping,
    /// The clock for the expiry of tokens.
    pub clock: Clock,
    /// The scope that each route requires.
    pub required_scope: RequiredScope,
}

impl AuthLayer {
    /// Authorizes a request and attaches its [`Caller`], or rejects it.
    ///
    /// # Errors
    /// The request has no valid credentials, or the caller's token lacks the scope.
    pub(crate) fn authorize(&self, request: &mut Request) -> Result<(), Problem> {
        let route = request.extensions().get::<MatchedPath>();
        let Some(scope) = route.and_then(|route| (self.required_scope)(route.as_str(), request.method())) else {
            return Ok(());
        };
        let caller = self.caller(request).ok_or(Problem::Unauthenticated { auth: self.auth })?;
        if !caller.has_scope(scope) {
            return Err(Problem::InsufficientScope { scope, scopes: self.scopes.clone() });
        }
        request.extensions_mut().insert(caller);
        Ok(())
    }

    fn caller(&self, request: &Request) -> Option<Caller> {
        if self.auth == AuthMode::None {
            return Some(Caller::unrestricted("anybody".to_owned()));
        }
        let authorizer = request.extensions().get::<GatewayContext>()?.authorizer.as_ref()?;
        match self.auth {
            AuthMode::Jwt => Caller::from_claims(authorizer.jwt.as_ref()?.claims()?, &self.scopes, self.clock.now()),
            AuthMode::Iam => {
                let id = authorizer.iam.as_ref()?.caller_id.as_deref()?;
                // The part after the colon is the name of a role's session. All sessions of a role are one caller.
                let id = id.split(':').next().filter(|id| !id.is_empty())?;
                Some(Caller::unrestricted(format!("iam {id}")))
            }
            AuthMode::None => None,
        }
    }
}

/// Extractor of the authorized caller.
#[derive(Clone, Debug)]
pub struct AuthenticatedCaller(pub Caller);

impl<S: Send + Sync> FromRequestParts<S> for AuthenticatedCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        caller(parts).cloned().map(Self)
    }
}

/// Rejects a record of another user as if it did not exist, without a table read.
///
/// # Errors
/// [`Problem::NotFound`] for another user.
pub fn require_owner(parts: &Parts, id: &UserId) -> Result<(), Problem> {
    if caller(parts)?.owns(id) { Ok(()) } else { Err(Problem::NotFound) }
}

fn caller(parts: &Parts) -> Result<&Caller, Problem> {
    let missing = || Problem::Internal { cause: "the request has no authenticated caller".into() };
    parts.extensions.get::<Caller>().ok_or_else(missing)
}
