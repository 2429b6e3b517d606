//! The words of a name that others are to be like. The database splits the names that it holds in the same way
//! (`users_name_keys`).

/// What stands between words.
const SEPARATORS: &[char] =
    &[' ', '-', '.', ',', ';', ':', '/', '|', '(', ')', '[', ']', '"', '_', '\t', '\n', '\r', '\u{a0}', '\u{3000}'];
/// What is left out of them.
const IGNORED_CHARS: &[char] = &['\'', '\u{2019}'];

/// The words that a name must have, or something like them. Initials count only where there is nothing else; a text without
/// any word stands for itself, and is nobody's name.
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
    fn initials_count_only_among_themselves_and_there_is_always_a_word() {
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
