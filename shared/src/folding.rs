//! Case-insensitive comparison of texts, independent of their Unicode normalization: [`fold_case`].
//!
//! Two texts are equal if their folded forms are, and a text begins with another if its folded form begins with the
//! other's. The replica stores folded forms, and a search folds its search terms with the same code. A database's
//! `lower` cannot be used instead: it depends on the locale, does not handle the final sigma, and distinguishes `é`
//! from `e` with a combining accent.

use std::borrow::Cow;

use icu_casemap::CaseMapper;
use icu_normalizer::{ComposingNormalizerBorrowed, DecomposingNormalizerBorrowed};

/// The maximum length of a folded form, in bytes, because PostgreSQL limits an index entry to a third of an 8 KB page.
/// Folding lengthens some texts, so a shorter text may be truncated, too. Texts that differ only after this length
/// count as equal.
pub const FOLDED_BYTES: usize = 1_024;

/// Returns the text without differences of case, composed: full case folding between NFD and NFC (Unicode 3.13, D145).
///
/// Borrows if the text is ASCII without capitals.
#[must_use]
pub fn fold_case(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        let text = cut(text);
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Cow::Owned(text.to_ascii_lowercase());
        }
        return Cow::Borrowed(text);
    }
    let decomposed = const { DecomposingNormalizerBorrowed::new_nfd() }.normalize(text);
    let folded = CaseMapper::new().fold_string(&decomposed);
    let composed = const { ComposingNormalizerBorrowed::new_nfc() }.normalize(&folded);
    Cow::Owned(cut(&composed).to_owned())
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(FOLDED_BYTES)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spellings_of_one_text_are_alike() {
        for (one, other) in [
            ("ΓΙΆΝΝΗΣ", "Γιάννης"),
            ("Γιάννης", "ΓΙΑ\u{301}ΝΝΗΣ"),
            ("Zoë", "ZOE\u{308}"),
            ("Straße", "STRASSE"),
            ("STRAẞE", "strasse"),
            ("ﬁnn", "FINN"),
            ("Ǆ", "ǆ"),
            ("ᾳ", "ΑΙ"),
            ("\u{212b}sa", "A\u{30a}SA"),
            ("한국", "\u{1112}\u{1161}\u{11ab}\u{1100}\u{116e}\u{11a8}"),
            ("Ａｄａ", "ａＤＡ"),
            ("e\u{323}\u{302}", "\u{ea}\u{323}"),
        ] {
            assert_eq!(fold_case(one), fold_case(other), "{one} {other}");
        }
        for (one, other) in [("Zoe", "Zoë"), ("ı", "i"), ("Ada", "Ad a"), ("²", "2")] {
            assert_ne!(fold_case(one), fold_case(other), "{one} {other}");
        }
        assert_eq!(fold_case("Ada Lovelace"), "ada lovelace");
        assert!(matches!(fold_case("ada 7"), Cow::Borrowed("ada 7")));
    }

    #[test]
    fn a_folded_character_stays_as_it_is() {
        for character in '\0'..='\u{1ffff}' {
            let text = character.to_string();
            let folded = fold_case(&text);
            assert_eq!(fold_case(&folded), folded, "{character:?}");
        }
    }

    #[test]
    fn a_folded_form_fits_an_index() {
        for text in ["a".repeat(2_000), "A".repeat(2_000), "ΐ\u{1d160}".repeat(300), "ß".repeat(1_000)] {
            let folded = fold_case(&text);
            assert!((FOLDED_BYTES - 3..=FOLDED_BYTES).contains(&folded.len()), "{}", folded.len());
        }
    }

    proptest! {
        #[test]
        fn a_text_is_folded_once(text in "\\PC{0,40}") {
            let folded = fold_case(&text).into_owned();
            prop_assert_eq!(fold_case(&folded), folded.as_str());
        }

        #[test]
        fn composed_and_decomposed_are_alike(text in "\\PC{0,40}") {
            let nfd = DecomposingNormalizerBorrowed::new_nfd().normalize(&text).into_owned();
            let nfc = ComposingNormalizerBorrowed::new_nfc().normalize(&text).into_owned();
            prop_assert_eq!(fold_case(&nfd), fold_case(&nfc));
        }
    }
}
