//! The authenticated caller of a request and its permissions.
//!
//! A component in front of the API authenticates the request ([`AuthMode`]). Its result is parsed here once per
//! request. The partition key is the authorization boundary: a caller owns the records whose `user_id` is the `sub` of
//! its token.

use std::collections::HashMap;
use std::sync::Arc;

use time::OffsetDateTime;

use crate::user::id::UserId;

/// The authentication mode. It is required and has no default, so that an API is open to everyone only if that is
/// configured explicitly.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AuthMode {
    /// API Gateway's JWT authorizer: each caller has access to its own records, within the scopes of its token.
    Jwt,
    /// API Gateway verifies the IAM signature of the caller, and every authenticated caller has full access.
    Iam,
    /// No authentication: for a single machine, or behind another component that authorizes requests.
    None,
}

impl AuthMode {
    /// Parses a mode.
    ///
    /// # Errors
    /// The text is not a mode.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "jwt" => Ok(Self::Jwt),
            "iam" => Ok(Self::Iam),
            "none" => Ok(Self::None),
            _ => Err(format!("is {text:?}: set it to jwt, iam or none")),
        }
    }
}

/// A permission that a token grants.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    /// `users:read`: read the caller's own records.
    Read,
    /// `users:write`: write the caller's own records.
    Write,
    /// `users:admin`: full access to the records of all users.
    Admin,
}

impl Scope {
    /// Returns the name of the scope in a token, without a prefix.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "users:read",
            Self::Write => "users:write",
            Self::Admin => "users:admin",
        }
    }
}

/// The format in which a token's issuer lists scopes: the claims that contain them, and the prefix of each scope.
///
/// RFC 8693 defines space-separated words in `scope`. Amazon Cognito prefixes each with the identifier of the resource
/// server, Auth0 lists permissions in `permissions`, and Microsoft Entra ID uses `scp` for users and `roles` for
/// programs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ScopeMapping {
    claims: Arc<[String]>,
    prefix: Arc<str>,
}

impl Default for ScopeMapping {
    /// Returns the mapping of the words in `scope` and `scp`, without a prefix.
    fn default() -> Self {
        Self { claims: ["scope", "scp"].map(str::to_owned).into(), prefix: "".into() }
    }
}

impl ScopeMapping {
    /// Creates the mapping of these claims and this prefix. The default is used for each of the two that is `None`.
    #[must_use]
    pub fn new(claims: Option<Vec<String>>, prefix: Option<String>) -> Self {
        let usual = Self::default();
        Self { claims: claims.map_or(usual.claims, Into::into), prefix: prefix.map_or(usual.prefix, Into::into) }
    }

    /// Parses comma-separated claim names.
    ///
    /// # Errors
    /// A name is empty or contains white space.
    pub fn parse_claims(text: &str) -> Result<Vec<String>, String> {
        let names: Vec<String> = text.split(',').map(str::to_owned).collect();
        let is_name = |name: &String| !name.is_empty() && !name.contains(|letter: char| letter.is_whitespace());
        if names.iter().all(is_name) {
            Ok(names)
        } else {
            Err(format!("is {text:?}: set it to names of claims, separated by commas, such as scope or scp,roles"))
        }
    }

    /// Parses a prefix, which consists of the characters that a scope may contain (RFC 6749, section 3.3).
    ///
    /// # Errors
    /// The text contains another character.
    pub fn parse_prefix(text: &str) -> Result<String, String> {
        if text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\') {
            Ok(text.to_owned())
        } else {
            Err(format!(
                "is {text:?}: set it to the prefix of each scope, such as millrace/, without spaces and quotes"
            ))
        }
    }

    /// Returns the scope as a token of this issuer contains it.
    #[must_use]
    pub fn scope_name(&self, scope: Scope) -> String {
        self.prefixed(scope.as_str())
    }

    /// Returns the word with the issuer's prefix.
    #[must_use]
    pub fn prefixed(&self, word: &str) -> String {
        format!("{}{word}", self.prefix)
    }

    /// Returns the first of the claims that list the scopes.
    #[must_use]
    pub fn first_claim(&self) -> &str {
        self.claims.first().map_or("scope", String::as_str)
    }

    /// Returns whether these claims contain this scope. API Gateway passes a list as `[a b]`. A scope without the
    /// prefix belongs to another service.
    fn has(&self, claims: &HashMap<String, String>, scope: Scope) -> bool {
        self.claims
            .iter()
            .filter_map(|name| claims.get(name))
            .flat_map(|text| words(text))
            .any(|word| word.strip_prefix(&*self.prefix).is_some_and(|word| word == scope.as_str()))
    }
}

/// Returns the scopes in a claim: the words of a text, or the items of a list.
fn words(claim: &str) -> impl Iterator<Item = &str> {
    let list = claim.strip_prefix('[').and_then(|list| list.strip_suffix(']'));
    let separators: &[char] = if list.is_some() { &[' ', ','] } else { &[' '] };
    list.unwrap_or(claim).split(separators).filter(|word| !word.is_empty())
}

/// The authenticated caller of a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Caller {
    name: String,
    rights: CallerPermissions,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum CallerPermissions {
    Everything,
    Scoped { subject: String, read: bool, write: bool },
}

impl Caller {
    /// Creates a caller with full access, which another component has authorized.
    #[must_use]
    pub fn unrestricted(name: String) -> Self {
        Self { name, rights: CallerPermissions::Everything }
    }

    /// Creates the caller from the claims of a verified token. Returns `None` if the token has no `sub` or its `exp` is
    /// past.
    ///
    /// API Gateway passes every claim as text, and sometimes a time with an exponent.
    #[must_use]
    pub fn from_claims(claims: &HashMap<String, String>, scopes: &ScopeMapping, now: OffsetDateTime) -> Option<Self> {
        let subject = claims.get("sub").filter(|subject| !subject.is_empty())?.clone();
        let expired = claims.get("exp").and_then(|exp| exp.parse::<f64>().ok());
        #[expect(clippy::cast_precision_loss, reason = "epoch seconds are exact in f64 for millions of years")]
        if expired.is_some_and(|exp| exp <= now.unix_timestamp() as f64) {
            return None;
        }
        let has = |scope: Scope| scopes.has(claims, scope);
        // The issuer is part of the name, because two issuers may use the same subject.
        let name = format!("jwt {} {subject}", claims.get("iss").map_or("", String::as_str));
        let rights = if has(Scope::Admin) {
            CallerPermissions::Everything
        } else {
            CallerPermissions::Scoped { subject, read: has(Scope::Read), write: has(Scope::Write) }
        };
        Some(Self { name, rights })
    }

    /// Returns the name that identifies the caller where data belongs to one caller only. It is never logged.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether the caller's token grants this scope.
    #[must_use]
    pub fn has_scope(&self, scope: Scope) -> bool {
        match (&self.rights, scope) {
            (CallerPermissions::Everything, _) => true,
            (CallerPermissions::Scoped { read, .. }, Scope::Read) => *read,
            (CallerPermissions::Scoped { write, .. }, Scope::Write) => *write,
            (CallerPermissions::Scoped { .. }, Scope::Admin) => false,
        }
    }

    /// Returns whether the records of this user are the caller's own. For a caller with full access, those of every
    /// user are.
    #[must_use]
    pub fn owns(&self, id: &UserId) -> bool {
        self.restricted_to().is_none_or(|subject| subject == id.as_str())
    }

    /// Returns the only user whose records the caller may access, or `None` if it may access all.
    #[must_use]
    pub fn restricted_to(&self) -> Option<&str> {
        match &self.rights {
            CallerPermissions::Everything => None,
            CallerPermissions::Scoped { subject, .. } => Some(subject),
        }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-22 10:00 UTC);

    fn caller(claims: &[(&str, &str)]) -> Option<Caller> {
        caller_by(&ScopeMapping::default(), claims)
    }

    fn caller_by(scopes: &ScopeMapping, claims: &[(&str, &str)]) -> Option<Caller> {
        let claims = claims.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Caller::from_claims(&claims, scopes, NOW)
    }

    fn id(text: &str) -> UserId {
        UserId::parse(text).unwrap()
    }

    #[test]
    fn a_mode_that_is_not_known_is_refused_and_never_taken_for_another() {
        let modes = ["jwt", "iam", "none"].map(AuthMode::parse);
        assert_eq!(modes, [Ok(AuthMode::Jwt), Ok(AuthMode::Iam), Ok(AuthMode::None)]);
        for text in ["", "IAM", "off", "None"] {
            assert!(AuthMode::parse(text).unwrap_err().contains("set it to jwt, iam or none"), "{text}");
        }
    }

    #[test]
    fn token_that_is_expired_or_without_a_subject_has_no_caller() {
        let past = NOW.unix_timestamp().to_string();
        for claims in [vec![], vec![("sub", "")], vec![("scope", "users:admin")], vec![("sub", "ada"), ("exp", &past)]]
        {
            assert_eq!(caller(&claims), None, "{claims:?}");
        }
        for exp in ["1795341601", "1.795341601E9", "sometime"] {
            assert!(caller(&[("sub", "ada"), ("exp", exp)]).is_some(), "{exp}");
        }
    }

    #[test]
    fn scopes_are_read_from_every_spelling_and_no_scope_is_a_part_of_another() {
        for (claim, text, read, write, admin) in [
            ("scope", "openid users:read", true, false, false),
            ("scope", "users:read users:write", true, true, false),
            ("scp", "[users:write users:read]", true, true, false),
            ("scp", "[users:admin]", true, true, true),
            ("scope", "users:administrator xusers:read users:readx USERS:WRITE", false, false, false),
            ("scopes", "users:admin", false, false, false),
            ("scope", "", false, false, false),
        ] {
            let caller = caller(&[("sub", "ada"), (claim, text)]).unwrap();
            let may = [Scope::Read, Scope::Write, Scope::Admin].map(|scope| caller.has_scope(scope));
            assert_eq!(may, [read, write, admin], "{claim}: {text}");
            assert_eq!((caller.owns(&id("ada")), caller.owns(&id("eve"))), (true, admin), "{claim}: {text}");
            assert_eq!(caller.restricted_to().is_none(), admin);
        }
    }

    #[test]
    fn scopes_are_read_as_each_issuer_spells_them() {
        let mapping = |claims: &str, prefix: &str| {
            let prefix = ScopeMapping::parse_prefix(prefix).unwrap();
            ScopeMapping::new(Some(ScopeMapping::parse_claims(claims).unwrap()), Some(prefix))
        };
        let cognito = mapping("scope", "millrace/");
        let (auth0, entra) = (mapping("permissions", ""), mapping("scp,roles", ""));
        let entra_prefixed = mapping("roles", "api://millrace/");
        for (scopes, claim, text, read, write, admin) in [
            (&cognito, "scope", "openid millrace/users:read", true, false, false),
            (&cognito, "scope", "millrace/users:read millrace/users:write", true, true, false),
            (&cognito, "scope", "millrace/users:admin", true, true, true),
            // A scope without the prefix, or with another one, belongs to another service.
            (&cognito, "scope", "users:admin other/users:admin xmillrace/users:admin", false, false, false),
            (&cognito, "scope", "millrace/millrace/users:read", false, false, false),
            (&cognito, "scp", "millrace/users:read", false, false, false),
            (&auth0, "permissions", "[users:read users:write]", true, true, false),
            (&auth0, "permissions", "[]", false, false, false),
            (&auth0, "scope", "users:admin", false, false, false),
            (&entra, "roles", "[users:admin]", true, true, true),
            (&entra, "scp", "users:read users:write", true, true, false),
            (&entra_prefixed, "roles", "[users:admin api://millrace/users:read]", true, false, false),
            // A word with a comma is not a list, and neither is a text with only an opening bracket.
            (&mapping("scope", ""), "scope", "x,users:admin", false, false, false),
            (&mapping("scope", ""), "scope", "[users:admin", false, false, false),
        ] {
            let caller = caller_by(scopes, &[("sub", "ada"), (claim, text)]).unwrap();
            let may = [Scope::Read, Scope::Write, Scope::Admin].map(|scope| caller.has_scope(scope));
            assert_eq!(may, [read, write, admin], "{scopes:?} {claim}: {text}");
        }
        assert_eq!(cognito.scope_name(Scope::Read), "millrace/users:read");
        for text in ["", "scope,", "scope scp", ",roles"] {
            assert!(ScopeMapping::parse_claims(text).unwrap_err().contains("separated by commas"), "{text}");
        }
        for text in ["millrace /", "\"", "a\\b", "é"] {
            assert!(ScopeMapping::parse_prefix(text).unwrap_err().contains("such as millrace/"), "{text}");
        }
    }

    #[test]
    fn the_trusted_may_do_everything_and_subjects_of_two_issuers_are_two() {
        let trusted = Caller::unrestricted("iam AIDA".into());
        assert!(trusted.has_scope(Scope::Admin) && trusted.owns(&id("eve")));
        let of = |iss| caller(&[("sub", "ada"), ("iss", iss)]).unwrap();
        assert_ne!(of("https://one.example").name(), of("https://two.example").name());
    }
}
