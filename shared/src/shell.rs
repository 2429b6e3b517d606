//! Arguments of shell commands that are printed or written for an operator: [`quote`].

/// Returns a text as one argument of a POSIX shell command. The text can be any: attribute names and paths can contain
/// quotes.
#[must_use]
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_ends_the_argument_is_escaped_and_begins_it_again() {
        assert_eq!(quote(r#"{"a":"$HOME `b` \n"}"#), r#"'{"a":"$HOME `b` \n"}'"#);
        assert_eq!(quote("it's"), r"'it'\''s'");
    }
}
