//! Tokenization of a name for the similarity search. The database splits the stored names in the same way
//! (`users_name_keys`).

/// The characters that separate words.
const SEPARATORS: &[char] =
    &[' ', '-', '.', ',', ';', ':', '/', '|', '(', ')', '[', ']', '"', '_', '\t', '\n', '\r', '\u{a0}', '\u{3000}'];
/// The characters that are ignored when the length of a word is determined.
const IGNORED_CHARS: &[char] = &['\'', '\u{2019}'];

/// Returns the words of a name. A matching name must contain each of them, or a similar word. Initials are included
/// only if there are no longer words. A text without any word is returned unchanged, and matches no name.
pub(super) fn words(name: &str) -> Vec<String> {
    let letters = |word: &str| word.chars().filter(|letter| !IGNORED_CHARS.contains(letter)).count();
    let mut words: Vec<&str> = name.split(SEPARATORS).filter(|word| letters(word) > 0).collect();
    if words.iter().any(|word| letters(word) > 1) {
        words.retain(|word| letters(word) > 1);
    }
    if words.is_empty() {
        words.push(name);
    }
    words.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initials_are_tokens_only_if_there_are_no_longer_ones() {
        for (name, expected) in [
            ("Ada Lovelace", &["Ada", "Lovelace"][..]),
            (" lovelace,\u{a0}A.-M. d'Ada", &["lovelace", "d'Ada"]),
            ("A. L.", &["A", "L"]),
            ("Li", &["Li"]),
            ("'a' b", &["'a'", "b"]),
            ("-_'", &["-_'"]),
        ] {
            assert_eq!(words(name), expected, "{name}");
        }
    }
}
