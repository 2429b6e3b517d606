//! The email of a user, which is the key of the email index.

use super::InvalidFieldError;

/// An email, `local@domain`, in ASCII: the dot-atom form of RFC 5322 within the lengths of RFC 5321 (64 characters
/// before the `@`, 254 in total), with a domain of at least two labels. Quoted local parts, comments and domain
/// literals are rejected: no mailbox in use needs them, and they may contain spaces and `@`, which other programs do
/// not expect in an email.
///
/// The case is preserved, so a lookup is case-sensitive, as the index is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Email(String);

impl Email {
    /// The maximum length of an email, in characters.
    pub const MAX_CHARS: usize = 254;
    const MAX_LOCAL_CHARS: usize = 64;
    const MAX_LABEL_CHARS: usize = 63;

    /// Parses an email.
    ///
    /// # Errors
    /// The text is not a valid email or is too long.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidFieldError> {
        let text = text.into();
        if text.len() > Self::MAX_CHARS {
            return Err(InvalidFieldError("email must have at most 254 characters"));
        }
        match text.split_once('@') {
            Some((local, domain)) if is_local(local) && is_domain(domain) => Ok(Self(text)),
            _ => Err(InvalidFieldError("email must be a valid email such as ada@example.com")),
        }
    }

    /// Returns the email as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_local(local: &str) -> bool {
    let is_atom = |atom: &str| {
        !atom.is_empty()
            && atom.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte))
    };
    local.len() <= Email::MAX_LOCAL_CHARS && local.split('.').all(is_atom)
}

fn is_domain(domain: &str) -> bool {
    let is_label = |label: &str| {
        (1..=Email::MAX_LABEL_CHARS).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    domain.contains('.') && domain.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_email_is_stored_as_it_was_sent() {
        for text in ["ada@example.com", "Ada.L+tag@Mail.Example.co.uk", "o'hara@xn--bcher-kva.example", "1@2.3"] {
            assert_eq!(Email::parse(text).unwrap().as_str(), text);
        }
        assert!(Email::parse(format!("{}@{}.com", "a".repeat(64), "b".repeat(63))).is_ok());
    }

    #[test]
    fn a_malformed_address_cannot_be_built() {
        for text in [
            "",
            "@",
            "ada",
            "ada@",
            "@example.com",
            "ada@example",
            "a@b@c.de",
            "a b@c.de",
            "ada@exa mple.com",
            ".ada@example.com",
            "ada.@example.com",
            "a..b@example.com",
            "ada@.com",
            "ada@example.",
            "ada@-a.com",
            "ada@a-.com",
            "\"a b\"@c.de",
            "ada@[127.0.0.1]",
            "ada@example.com\n",
            "ädä@example.com",
            "a@b.c,d@e.f",
        ] {
            assert!(Email::parse(text).is_err(), "{text:?}");
        }
        assert!(Email::parse(format!("{}@example.com", "a".repeat(65))).is_err());
        assert!(Email::parse(format!("a@{}.com", "b".repeat(64))).is_err());
        assert!(Email::parse(format!("a@{}com", "b.".repeat(126))).is_err());
    }
}
