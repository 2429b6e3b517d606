//! Request paths in canonical form: [`RequestPath`].
//!
//! A path is decoded once: by API Gateway before the function is invoked, or here if clients connect to the function's
//! own server. The decoded path may contain only characters that occur in routes, so that all components interpret it
//! in the same way: the gateway's route and authorizer, policies by path, the log, and the router. Any other path is
//! rejected and never corrected: `/users/alice/../bob/1` is not `/users/bob/1`.

use std::fmt;

use super::percent;

/// The description of a canonical path in error messages.
const RULE: &str =
    "a path consists of segments of A-Za-z0-9._~:|@+- with one slash before each, and no segment is . or ..";

/// A path in canonical form, which has only one interpretation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RequestPath(String);

/// A path that is rejected.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PathError {
    /// The decoded path contains a character that occurs in no route.
    Character(char),
    /// The path contains two consecutive slashes.
    EmptySegment,
    /// The path contains the segment `.` or `..`.
    DotSegment(&'static str),
    /// The path does not start with a slash.
    NoSlash,
    /// An escape is malformed, or the decoded bytes are not valid UTF-8.
    Encoding,
    /// The path and the query together are longer than a URI may be.
    TooLong,
    /// The gateway authorized a different route from that of the path.
    OtherRoute(String),
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Character(found) => write!(f, "the path contains {found:?} after decoding: {RULE}"),
            Self::EmptySegment => write!(f, "the path contains an empty segment (//): {RULE}"),
            Self::DotSegment(found) => write!(f, "the path contains the segment {found:?}: {RULE}"),
            Self::NoSlash => write!(f, "the path does not start with a slash: {RULE}"),
            Self::Encoding => {
                f.write_str("the path is not percent-encoded UTF-8: write a byte as % and two hex digits")
            }
            Self::TooLong => f.write_str("the path and the query are too long: shorten them to 64 KB"),
            Self::OtherRoute(route) => {
                write!(f, "the path was authorized as the route {route:?} but matches another: do not encode slashes")
            }
        }
    }
}

impl RequestPath {
    /// Validates a decoded path. An empty path is that of the root.
    ///
    /// # Errors
    /// The path is not canonical.
    pub fn from_decoded(text: &str) -> Result<Self, PathError> {
        if text.is_empty() {
            return Ok(Self("/".to_owned()));
        }
        let mut segments = text.strip_prefix('/').ok_or(PathError::NoSlash)?.split('/').peekable();
        while let Some(segment) = segments.next() {
            check(segment, segments.peek().is_none())?;
        }
        Ok(Self(text.to_owned()))
    }

    /// Decodes the path of a URI once and validates it. An encoded slash is rejected, because decoding would make it a
    /// separator.
    ///
    /// # Errors
    /// The path is not canonical.
    pub fn from_encoded(text: &str) -> Result<Self, PathError> {
        if !text.contains('%') {
            return Self::from_decoded(text);
        }
        let mut path = String::with_capacity(text.len());
        let mut segments = text.strip_prefix('/').ok_or(PathError::NoSlash)?.split('/').peekable();
        while let Some(segment) = segments.next() {
            let segment = percent::decode(segment).ok_or(PathError::Encoding)?;
            check(&segment, segments.peek().is_none())?;
            path.push('/');
            path.push_str(&segment);
        }
        Ok(Self(path))
    }

    /// Returns the decoded path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns a URI with this path and this query. The query may be any text: characters that a query must not contain
    /// are escaped.
    #[must_use]
    pub fn uri(&self, query: Option<&str>) -> String {
        // This is the only character of a canonical path that the path of a URI must not contain (RFC 3986).
        let path = self.0.replace('|', "%7C");
        match query {
            Some(query) if !query.is_empty() => format!("{path}?{}", percent::encode_query(query)),
            _ => path,
        }
    }
}

/// Validates a segment. The last one may be empty: `/users/` is a valid path, although it matches no route.
fn check(segment: &str, is_last: bool) -> Result<(), PathError> {
    let is_of_a_route = |found: char| found.is_ascii_alphanumeric() || "._~:|@+-".contains(found);
    match segment {
        "" if is_last => Ok(()),
        "" => Err(PathError::EmptySegment),
        "." => Err(PathError::DotSegment(".")),
        ".." => Err(PathError::DotSegment("..")),
        _ => segment
            .chars()
            .find(|found| !is_of_a_route(*found))
            .map_or(Ok(()), |found| Err(PathError::Character(found))),
    }
}

/// Returns whether the route that a gateway authorized (`GET /users/{user_id}`) may be the one that a router matched
/// (`/users/{user_id}`).
///
/// Both must have the same number of segments. A parameter in the gateway's route matches any segment, so
/// `/users/{user_id}/{timestamp}` also matches `/users/{user_id}/latest`. A route for every path matches any route.
#[must_use]
pub fn is_route(authorized: &str, matched: &str) -> bool {
    let Some((_, template)) = authorized.split_once(' ') else { return true };
    if template.contains("+}") {
        return true;
    }
    let is_parameter = |segment: &str| segment.starts_with('{');
    let own = template.split('/').skip(1);
    let of = matched.split('/').skip(1);
    let Some(base) = own.clone().count().checked_sub(of.clone().count()) else { return false };
    // The gateway's route may begin with a base path. The rest must begin with the same segment as the matched route.
    let rest = own.clone().skip(base);
    !own.take(base).any(is_parameter)
        && rest.clone().next() == of.clone().next()
        && rest.zip(of).all(|(own, of)| is_parameter(own) || own == of)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_of_a_route_is_itself() {
        for path in ["/", "/users", "/users/", "/users:batchGet", "/users/auth0|ada/7", "/users/a+b@c.d~e_f-g:h/latest"]
        {
            assert_eq!(RequestPath::from_decoded(path).unwrap().as_str(), path);
            assert_eq!(RequestPath::from_encoded(path).unwrap().as_str(), path);
        }
        assert_eq!(RequestPath::from_decoded("").unwrap().as_str(), "/");
        for path in ["/users/...", "/users/.a", "/users/a."] {
            assert!(RequestPath::from_decoded(path).is_ok(), "{path}");
        }
    }

    #[test]
    fn a_path_with_two_readings_is_refused() {
        for (path, error) in [
            ("/users/r1/1#0", PathError::Character('#')),
            ("/users/r1\\1", PathError::Character('\\')),
            ("/users/r\t1/1", PathError::Character('\t')),
            ("/users/r1/1?x", PathError::Character('?')),
            ("/users/r1/%31", PathError::Character('%')),
            ("/users/r 1/1", PathError::Character(' ')),
            ("/users/\u{e9}/1", PathError::Character('\u{e9}')),
            ("/users/r1;a=b/1", PathError::Character(';')),
            ("/users/r1/\0", PathError::Character('\0')),
            ("/users/r1/../r1/1", PathError::DotSegment("..")),
            ("/users/./r1/1", PathError::DotSegment(".")),
            ("/users/r1/..", PathError::DotSegment("..")),
            ("/users//1", PathError::EmptySegment),
            ("//users", PathError::EmptySegment),
            ("//", PathError::EmptySegment),
            ("users", PathError::NoSlash),
        ] {
            assert_eq!(RequestPath::from_decoded(path), Err(error), "{path:?}");
        }
    }

    #[test]
    fn an_encoded_path_is_decoded_once() {
        for (path, decoded) in
            [("/users/auth0%7Cada/7", "/users/auth0|ada/7"), ("/%75sers/a%2Bb%40c.d/%31", "/users/a+b@c.d/1")]
        {
            assert_eq!(RequestPath::from_encoded(path).unwrap().as_str(), decoded);
        }
        for (path, error) in [
            ("/users/r1/1%230", PathError::Character('#')),
            ("/users/r1%5C1", PathError::Character('\\')),
            ("/users/r%091/1", PathError::Character('\t')),
            ("/users/r1/%2531", PathError::Character('%')),
            ("/users/r1%2F1", PathError::Character('/')),
            ("/users/alice/%2E%2e/bob/1", PathError::DotSegment("..")),
            ("/users/alice/.%2e/bob/1", PathError::DotSegment("..")),
            ("/users/%2e/r1", PathError::DotSegment(".")),
            ("/users//%31", PathError::EmptySegment),
            ("/users/%ff/7", PathError::Encoding),
            ("/users/%4/7", PathError::Encoding),
        ] {
            assert_eq!(RequestPath::from_encoded(path), Err(error), "{path}");
        }
    }

    #[test]
    fn path_error_names_the_invalid_and_the_allowed_characters() {
        let message = RequestPath::from_decoded("/users/r1/1#0").unwrap_err().to_string();
        assert!(message.contains("'#'") && message.contains("A-Za-z0-9._~:|@+-"), "{message}");
    }

    #[test]
    fn the_authorized_route_is_the_matched_one() {
        for (authorized, matched) in [
            ("GET /users/{user_id}/{timestamp}", "/users/{user_id}/{timestamp}"),
            ("GET /users/{id}", "/users/{user_id}"),
            ("ANY /v1/users/{user_id}", "/users/{user_id}"),
            ("GET /users/{user_id}/{timestamp}", "/users/{user_id}/latest"),
            ("PUT /users/{user_id}/{timestamp}", "/users/{user_id}/summary"),
            ("$default", "/users"),
            ("ANY /{proxy+}", "/users/{user_id}"),
        ] {
            assert!(is_route(authorized, matched), "{authorized}");
        }
        for (authorized, matched) in [
            ("GET /users/{user_id}", "/users/{user_id}/{timestamp}"),
            ("GET /users/{user_id}/{timestamp}", "/users/{user_id}"),
            ("GET /users/{user_id}/latest", "/users/{user_id}/{timestamp}"),
            ("GET /users", "/users/{user_id}"),
        ] {
            assert!(!is_route(authorized, matched), "{authorized}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_path_or_refused(text in "(/|\\.|%2[ef]|%|#|[a-z|]|\\PC){0,12}") {
            if let Ok(path) = RequestPath::from_decoded(&text) {
                prop_assert_eq!(RequestPath::from_encoded(&path.uri(None)), Ok(path.clone()));
                prop_assert!(path.as_str().split('/').all(|segment| segment != "." && segment != ".."));
            }
            if let Ok(path) = RequestPath::from_encoded(&text) {
                prop_assert_eq!(RequestPath::from_decoded(path.as_str()), Ok(path));
            }
        }

        #[test]
        fn a_policy_s_path_holds_of_what_is_decoded(rest in "(/|\\.|%2[eEfF]|%5c|\\\\|[a-c]){0,12}") {
            // If a path begins with an allowed prefix before it is decoded, it does so afterwards, too.
            if let Ok(path) = RequestPath::from_encoded(&format!("/users/alice/{rest}")) {
                prop_assert!(path.as_str().starts_with("/users/alice/"), "{}", path.as_str());
            }
        }
    }
}
