//! JWT authorizer of the local stack, a simulation of API Gateway's: [`TokenAuthorizer`] verifies a bearer token
//! against a key set and passes the claims to the API in the same form as API Gateway, as text in the request's
//! context.
//!
//! It checks less than API Gateway: any issuer and audience is accepted. A request without a valid token is forwarded
//! without claims, so the API rejects it; API Gateway would not invoke the API at all.

use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use http::header::AUTHORIZATION;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use millrace_http::gateway::GatewayContext;
use millrace_shared::http::caller::ScopeMapping;
use serde_json::{Map, Value, json};

/// The ID of the key that is generated at a start without a key set.
const OWN_KEY: &str = "local";
/// The lifetime of a token that this program signs.
const TOKEN_SECONDS: i64 = 12 * 60 * 60;

/// Authentication mode of the API on this machine.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum LocalAuth {
    /// No authentication.
    #[default]
    None,
    /// Bearer tokens, verified with the keys of a file (RFC 7517) or with a key that is generated at the start.
    Jwt(Option<PathBuf>),
}

/// An authorizer that cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum AuthorizerError {
    /// The file cannot be read.
    #[error("{}: {source}: specify a JSON Web Key Set with --jwks", path.display())]
    Unreadable {
        /// The path of the file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The file is not a key set, or contains no public key.
    #[error("{}: {reason}: specify a JSON Web Key Set of public keys with --jwks", path.display())]
    NoKeys {
        /// The path of the file.
        path: PathBuf,
        /// The reason why the file is rejected.
        reason: String,
    },
    /// No key can be generated.
    #[error("cannot generate a key: {0}")]
    NoKey(String),
}

/// Authorizer with the keys that verify tokens.
pub struct TokenAuthorizer {
    keys: JwkSet,
    own: Option<EncodingKey>,
    scopes: ScopeMapping,
}

impl TokenAuthorizer {
    /// Returns the authorizer of this mode, or `None` without authentication. The tokens that it signs contain scopes
    /// as `scopes` specifies.
    ///
    /// # Errors
    /// Same as [`TokenAuthorizer::generate_key`] and [`TokenAuthorizer::load`].
    pub fn from_auth(auth: &LocalAuth, scopes: ScopeMapping) -> Result<Option<Arc<Self>>, AuthorizerError> {
        let authorizer = match auth {
            LocalAuth::None => return Ok(None),
            LocalAuth::Jwt(None) => Self::generate_key()?,
            LocalAuth::Jwt(Some(path)) => Self::load(path)?,
        };
        Ok(Some(Arc::new(Self { scopes, ..authorizer })))
    }

    /// Returns an authorizer with a generated key, which signs the tokens of [`TokenAuthorizer::token`].
    ///
    /// # Errors
    /// Fails if the machine has no randomness to generate a key.
    pub fn generate_key() -> Result<Self, AuthorizerError> {
        let failed = |error: &dyn std::fmt::Display| AuthorizerError::NoKey(error.to_string());
        let pair = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let own = EncodingKey::from_ec_der(pair.map_err(|error| failed(&error))?.as_ref());
        let mut key = Jwk::from_encoding_key(&own, Algorithm::ES256).map_err(|error| failed(&error))?;
        key.common.key_id = Some(OWN_KEY.to_owned());
        Ok(Self { keys: JwkSet { keys: vec![key] }, own: Some(own), scopes: ScopeMapping::default() })
    }

    /// Returns an authorizer with the keys of a file.
    ///
    /// # Errors
    /// Fails if the file cannot be read, or contains no public key.
    pub fn load(path: &Path) -> Result<Self, AuthorizerError> {
        let text = std::fs::read(path);
        let text = text.map_err(|source| AuthorizerError::Unreadable { path: path.to_owned(), source })?;
        let refused = |reason: String| AuthorizerError::NoKeys { path: path.to_owned(), reason };
        let keys: JwkSet = serde_json::from_slice(&text).map_err(|error| refused(error.to_string()))?;
        if keys.keys.iter().any(|key| algorithm(key).is_some()) {
            Ok(Self { keys, own: None, scopes: ScopeMapping::default() })
        } else {
            Err(refused("the key set contains no key that verifies a signature".to_owned()))
        }
    }

    /// Signs a token with these scopes, or returns `None` if the keys were loaded from a file. It is valid for twelve
    /// hours from `now`.
    #[must_use]
    pub fn token(&self, subject: &str, scope: &str, now: i64) -> Option<String> {
        let words: Vec<String> = scope.split_whitespace().map(|word| self.scopes.prefixed(word)).collect();
        // Issuers that use neither of these claims write a list.
        let listed = match self.scopes.first_claim() {
            "scope" | "scp" => words.join(" ").into(),
            _ => Value::from(words),
        };
        let ends = now.saturating_add(TOKEN_SECONDS);
        let mut claims = json!({"iss": "local", "sub": subject, "iat": now, "exp": ends});
        claims[self.scopes.first_claim()] = listed;
        let header = Header { kid: Some(OWN_KEY.to_owned()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, &claims, self.own.as_ref()?).ok()
    }

    /// Returns the router behind this authorizer.
    pub fn layer(self: Arc<Self>, router: Router) -> Router {
        router.layer(from_fn(move |mut request: Request, next: Next| {
            let authorizer = Arc::clone(&self);
            async move {
                if let Some(claims) = bearer(&request).and_then(|token| authorizer.verify(token))
                    && let Some(context) = context(&request, &claims)
                {
                    request.extensions_mut().insert(context);
                }
                next.run(request).await
            }
        }))
    }

    /// Returns the claims of a token that was signed with one of the keys and has not expired.
    fn verify(&self, token: &str) -> Option<Map<String, Value>> {
        let header = jsonwebtoken::decode_header(token).ok()?;
        let named = |key: &&Jwk| header.kid.is_none() || key.common.key_id == header.kid;
        self.keys.keys.iter().filter(named).find_map(|key| {
            // The algorithm is taken from the key; the one that the token names is ignored.
            let mut validation = Validation::new(algorithm(key)?);
            validation.validate_aud = false;
            validation.validate_nbf = true;
            let key = DecodingKey::from_jwk(key).ok()?;
            jsonwebtoken::decode::<Map<String, Value>>(token, &key, &validation).ok().map(|token| token.claims)
        })
    }
}

/// Returns the algorithm that a key verifies with; `None` for a shared secret, since anyone who can verify with it can
/// also sign with it.
fn algorithm(key: &Jwk) -> Option<Algorithm> {
    let default = match &key.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P384 => Algorithm::ES384,
        AlgorithmParameters::OctetKeyPair(_) => Algorithm::EdDSA,
        _ => return None,
    };
    match key.common.key_algorithm {
        Some(named) => Algorithm::from_str(&named.to_string()).ok(),
        None => Some(default),
    }
}

fn bearer(request: &Request) -> Option<&str> {
    let (scheme, token) = request.headers().get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Returns the context of a request as API Gateway writes it for these claims.
fn context(request: &Request, claims: &Map<String, Value>) -> Option<GatewayContext> {
    let claims: Map<String, Value> = claims.iter().map(|(name, claim)| (name.clone(), as_text(claim).into())).collect();
    let context = json!({
        "stage": "$default",
        "timeEpoch": 0,
        "authorizer": {"jwt": {"claims": claims, "scopes": null}},
        "http": {
            "method": request.method().as_str(), "path": request.uri().path(), "protocol": "HTTP/1.1",
            "sourceIp": "127.0.0.1", "userAgent": "",
        },
    });
    serde_json::from_value(context).ok()
}

fn as_text(claim: &Value) -> String {
    match claim {
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(as_text).collect::<Vec<_>>().join(" ")),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG_AGO: i64 = 1_000_000_000;
    /// The year 2100: the JWT library uses the system clock.
    const LATER: i64 = 4_102_444_800;

    fn set(keys: &str) -> Result<TokenAuthorizer, AuthorizerError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        std::fs::write(&path, keys).unwrap();
        TokenAuthorizer::load(&path)
    }

    #[test]
    fn a_token_of_its_own_key_is_verified_and_no_other_is() {
        let (one, other) = (TokenAuthorizer::generate_key().unwrap(), TokenAuthorizer::generate_key().unwrap());
        let token = one.token("ada", "users:read", LATER).unwrap();
        assert_eq!(one.verify(&token).unwrap()["sub"], "ada");
        assert_eq!(other.verify(&token), None, "the same key id, another key");
        assert_eq!(one.verify(&one.token("ada", "users:read", LONG_AGO).unwrap()), None, "past its time");
        let mut parts: Vec<&str> = token.split('.').collect();
        let forged = "eyJzdWIiOiJldmUiLCJleHAiOjQxMDI0NDQ4MDB9";
        parts[1] = forged;
        assert_eq!(one.verify(&parts.join(".")), None);
        // {"alg":"none"}
        assert_eq!(one.verify(&format!("eyJhbGciOiJub25lIn0.{forged}.")), None);
        for text in ["", "a.b.c", "Bearer", "...."] {
            assert_eq!(one.verify(text), None, "{text}");
        }
    }

    #[test]
    fn the_public_half_in_a_file_verifies_and_cannot_sign() {
        let signer = TokenAuthorizer::generate_key().unwrap();
        let public = set(&serde_json::to_string(&signer.keys).unwrap()).unwrap();
        assert!(public.verify(&signer.token("ada", "", LATER).unwrap()).is_some());
        assert_eq!(public.token("ada", "", LATER), None);
    }

    #[test]
    fn a_file_without_public_keys_is_refused_with_what_to_do() {
        let secret = r#"{"keys":[{"kty":"oct","kid":"a","alg":"HS256","k":"c2VjcmV0"}]}"#;
        for keys in ["", "{}", r#"{"keys":[]}"#, secret] {
            let Err(refused) = set(keys) else { panic!("accepted {keys}") };
            assert!(refused.to_string().contains("--jwks"), "{refused}");
        }
        assert!(TokenAuthorizer::load(Path::new("/nowhere/keys.json")).is_err());
    }

    #[test]
    fn claims_are_text_as_api_gateway_writes_them() {
        for (claim, text) in [(json!("a b"), "a b"), (json!(7), "7"), (json!(true), "true"), (json!(["a", 1]), "[a 1]")]
        {
            assert_eq!(as_text(&claim), text);
        }
    }
}
