//! Who calls, and who has decided that they may.
//!
//! In both modes the decision is made before a request arrives here, so no request carries a caller and every record is
//! open to whoever is let in. A mode that decides by request belongs here: it would read the caller from the request's
//! context before a handler runs, and compare it with the `user_id` in the path.

/// Who lets requests in. Required, without a default: an API that is open to everyone must be so in so many words.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Auth {
    /// API Gateway, by the caller's IAM signature.
    Iam,
    /// Nobody: for one machine, or behind something else that decides.
    None,
}

impl Auth {
    /// Reads a mode.
    ///
    /// # Errors
    /// The text is no mode, or one that this version does not offer.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "iam" => Ok(Self::Iam),
            "none" => Ok(Self::None),
            "jwt" => Err("is \"jwt\", which this version does not offer: set it to iam or none".to_owned()),
            _ => Err(format!("is {text:?}: set it to iam or none")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_that_is_not_offered_is_refused_and_never_taken_for_another() {
        assert_eq!((Auth::parse("iam"), Auth::parse("none")), (Ok(Auth::Iam), Ok(Auth::None)));
        assert!(Auth::parse("jwt").unwrap_err().contains("does not offer"));
        for text in ["", "IAM", "off", "None"] {
            assert!(Auth::parse(text).unwrap_err().contains("set it to iam or none"), "{text}");
        }
    }
}
