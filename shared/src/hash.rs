//! Hashes that outlive a build, and the text form of digests.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};

/// The SHA-256 of bytes that arrive in parts, by aws-lc, which uses the processor's instructions for it on x86-64 and on
/// arm64.
#[derive(Clone)]
pub struct Sha256Hasher(Context);

impl Sha256Hasher {
    /// Starts with no bytes.
    #[must_use]
    pub fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.update(bytes.as_ref());
    }

    /// Returns the digest of all bytes.
    #[must_use]
    pub fn finish(self) -> [u8; 32] {
        let mut digest = [0; 32];
        digest.copy_from_slice(self.0.finish().as_ref());
        digest
    }
}

impl Default for Sha256Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Sha256Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sha256Hasher").finish_non_exhaustive()
    }
}

/// Returns the SHA-256 of these bytes.
#[must_use]
pub fn sha256(bytes: impl AsRef<[u8]>) -> [u8; 32] {
    let mut hasher = Sha256Hasher::new();
    hasher.update(bytes);
    hasher.finish()
}

/// Returns the FNV-1a hash of a text.
///
/// It never changes: checkpoints and cursors that one build wrote are used by another one.
#[must_use]
pub fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Formats bytes as lower-case hexadecimal digits.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnv1a_has_the_published_values() {
        assert_eq!(fnv1a(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a("foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn sha256_has_the_published_values_in_whatever_parts_the_bytes_arrive() {
        let text = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        let expected = "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1";
        assert_eq!(to_hex(&sha256("")), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        for part in [1, 7, 55, 56] {
            let mut hasher = Sha256Hasher::new();
            text.chunks(part).for_each(|part| hasher.update(part));
            assert_eq!(to_hex(&hasher.clone().finish()), expected);
            hasher.update("more");
            assert_ne!(to_hex(&hasher.finish()), expected);
        }
    }

    #[test]
    fn bytes_are_two_digits_each() {
        assert_eq!(to_hex(&[0x00, 0x0f, 0xa9, 0xff]), "000fa9ff");
        assert_eq!(to_hex(&[]), "");
    }
}
