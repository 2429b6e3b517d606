//! Sealed texts: only this service can create and read them. A client returns such a text later and can neither change
//! it nor use it for another purpose.
//!
//! The cipher is AES-256-GCM-SIV (RFC 8452), with which a repeated nonce reveals only that two texts are equal. The
//! context to which a text is bound is authenticated but not contained in it: to open the text, the same context must
//! be supplied.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// The version of the layout. A text of another version is rejected rather than misread.
const FORMAT: u8 = 2;
const KEY_BYTES: usize = 32;
/// The maximum length of a key's id, which is that of the id of a secret's version.
const MAX_ID_CHARS: usize = 64;

/// The base64 format of a key. It accepts a generated secret of 43 letters and digits, whose last character may contain
/// two bits in addition to the 256 of the key.
const KEY_TEXT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The random bytes that sealing one text requires.
pub type SealNonce = [u8; NONCE_LEN];

/// The keys: the first one seals, and each of them opens. Clones share them.
#[derive(Clone)]
pub struct SealKeys(Arc<[(String, LessSafeKey)]>);

/// Shows only the ids of the keys.
impl fmt::Debug for SealKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(id, _)| id)).finish()
    }
}

impl SealKeys {
    /// Parses comma-separated `id:base64` pairs, each with a key of 32 bytes.
    ///
    /// # Errors
    /// A pair is malformed, or an id is repeated. Since the text is a secret, the error shows only ids.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut keys: Vec<(String, LessSafeKey)> = Vec::new();
        for (number, pair) in (1..).zip(text.split(',')) {
            let (id, key) = pair.trim().split_once(':').unwrap_or_default();
            let letters = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            if !(1..=MAX_ID_CHARS).contains(&id.len()) || !id.bytes().all(letters) {
                return Err(format!("has no id in pair {number}: expected id:base64, the id 1 to 64 of A-Za-z0-9-_"));
            }
            if keys.iter().any(|(known, _)| known == id) {
                return Err(format!("contains the id {id} twice: each key must have its own"));
            }
            let bytes = KEY_TEXT.decode(key).unwrap_or_default();
            let key = (bytes.len() == KEY_BYTES).then(|| UnboundKey::new(&AES_256_GCM_SIV, &bytes).ok()).flatten();
            let key =
                key.ok_or_else(|| format!("has no key of 32 bytes in base64 under {id}: openssl rand -base64 32"))?;
            keys.push((id.to_owned(), LessSafeKey::new(key)));
        }
        Ok(Self(keys.into()))
    }

    /// Seals a text and binds it to the context `bound`. Returns `None` only if the text is longer than the cipher
    /// allows, which is gigabytes.
    #[must_use]
    pub fn seal(&self, text: &[u8], bound: &[u8], salt: SealNonce) -> Option<String> {
        let (id, key) = self.0.first()?;
        let mut sealed = vec![FORMAT, u8::try_from(id.len()).ok()?];
        sealed.extend(id.as_bytes());
        let mut body = text.to_vec();
        let aad = Aad::from([&sealed, bound].concat());
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(salt), aad, &mut body).ok()?;
        sealed.extend(salt);
        sealed.extend(body);
        Some(URL_SAFE_NO_PAD.encode(sealed))
    }

    /// Returns the text if it was sealed with one of these keys and is bound to the same context.
    #[must_use]
    pub fn open(&self, sealed: &str, bound: &[u8]) -> Option<Vec<u8>> {
        let bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (&[format, length], rest) = bytes.split_first_chunk()?;
        let (id, rest) = rest.split_at_checked(usize::from(length))?;
        let (salt, body) = rest.split_first_chunk::<NONCE_LEN>()?;
        let (_, key) = self.0.iter().find(|(known, _)| known.as_bytes() == id).filter(|_| format == FORMAT)?;
        let aad = Aad::from([&bytes[..2 + id.len()], bound].concat());
        let mut body = body.to_vec();
        let text = key.open_in_place(Nonce::assume_unique_for_key(*salt), aad, &mut body).ok()?;
        Some(text.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONE: &str = "one:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    const TWO: &str = "two:YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXphYmNkZWY=";

    fn keys(text: &str) -> SealKeys {
        SealKeys::parse(text).unwrap()
    }

    #[test]
    fn a_sealed_text_is_opened_by_its_key_for_what_it_is_bound_to() {
        let sealed = keys(ONE).seal(b"the text", b"bound", [7; 12]).unwrap();
        assert!(sealed.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{sealed}");
        assert_eq!(keys(ONE).open(&sealed, b"bound").unwrap(), b"the text");
        assert_eq!(keys(ONE).open(&sealed, b"bounD"), None);
        assert_eq!(keys(TWO).open(&sealed, b"bound"), None);
        let version = ONE.replace("one:", "a1b2c3d4-5678-90ab-cdef-1234567890ab:");
        let sealed_by_version = keys(&version).seal(b"the text", b"bound", [7; 12]).unwrap();
        assert_eq!(keys(&version).open(&sealed_by_version, b"bound").unwrap(), b"the text");
        let impostor = ONE.replace("MDEy", "MDEz");
        assert_eq!(keys(&impostor).open(&sealed, b"bound"), None, "the same id is not the same key");
    }

    #[test]
    fn a_new_key_goes_first_and_the_old_one_still_opens() {
        let old = keys(ONE).seal(b"old", b"", [1; 12]).unwrap();
        let both = keys(&format!("{TWO}, {ONE}"));
        assert_eq!(both.open(&old, b"").unwrap(), b"old");
        let new = both.seal(b"new", b"", [1; 12]).unwrap();
        assert_eq!((keys(TWO).open(&new, b"").is_some(), keys(ONE).open(&new, b"").is_some()), (true, false));
    }

    #[test]
    fn malformed_keys_are_refused_and_not_shown() {
        for (text, says) in [
            ("", "pair 1"),
            ("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", "pair 1"),
            ("a b:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", "pair 1"),
            (&format!("{ONE},"), "pair 2"),
            (&format!("{ONE},{ONE}"), "one twice"),
            (&format!("{}:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", "a".repeat(65)), "the id 1 to 64"),
            ("short:MDEyMzQ1", "under short"),
            ("odd:!!!!", "under odd"),
        ] {
            let message = SealKeys::parse(text).unwrap_err();
            assert!(message.contains(says) && !message.contains("MDEy"), "{message}");
        }
        assert!(SealKeys::parse(&format!("generated:{}", "z".repeat(43))).is_ok(), "43 letters are a key");
        assert_eq!(format!("{:?}", keys(ONE)), r#"["one"]"#);
    }

    proptest! {
        #[test]
        fn a_text_that_was_changed_anywhere_is_refused(index in 0_usize..60, by in 1_u8..255) {
            let sealed = keys(ONE).seal(b"the text of a cursor", b"bound", [7; 12]).unwrap();
            let mut bytes = URL_SAFE_NO_PAD.decode(&sealed).unwrap();
            let index = index % bytes.len();
            bytes[index] = bytes[index].wrapping_add(by);
            prop_assert_eq!(keys(ONE).open(&URL_SAFE_NO_PAD.encode(bytes), b"bound"), None);
        }

        #[test]
        fn no_bytes_are_taken_for_a_sealed_text(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            prop_assert_eq!(keys(ONE).open(&URL_SAFE_NO_PAD.encode(&bytes), b""), None);
            prop_assert_eq!(keys(ONE).open(&String::from_utf8_lossy(&bytes), b""), None);
        }
    }
}
