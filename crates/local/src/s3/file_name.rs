//! Encodes object keys as file paths: one path for each key, and readable if the key is.
//!
//! A key of letters, digits and `-_.=+,@:~` in which only the last segment contains a dot is its own path, so that
//! other programs can read the archive in place. Everything else is escaped: a byte as `%2A`, an empty segment as `%e`.
//! A file and a folder never have the same name: a file's name contains a dot or ends with `%f`, a folder's name
//! contains no dot or ends with `%d`. A segment that is too long for a file name is continued in a nested folder; the
//! name of a part that is continued ends with `%l`.

use std::path::{Path, PathBuf};

/// File systems allow 255 bytes; a marker and the suffix of the attributes' file are added to this.
const NAME_BYTES: usize = 200;

/// Returns the path of an object relative to its bucket.
pub(super) fn object_path(key: &str) -> PathBuf {
    let (folders, last) = key.rsplit_once('/').map_or((None, key), |(folders, last)| (Some(folders), last));
    let mut path = folders.map(segments).unwrap_or_default();
    let name = push_long(&mut path, last);
    path.push(if name.contains('.') { name } else { name + "%f" });
    path
}

/// Returns the folder of all keys with this prefix, which is the path of the prefix's complete segments.
pub(super) fn folder_path(prefix: &str) -> PathBuf {
    prefix.rsplit_once('/').map(|(folders, _)| segments(folders)).unwrap_or_default()
}

/// Returns the key of the object at this path; `None` if the path is not that of a key.
pub(super) fn key_at(path: &Path) -> Option<String> {
    let mut names = path.components().map(|name| name.as_os_str().to_str()).collect::<Option<Vec<_>>>()?;
    let last = names.pop()?;
    let mut key = Vec::new();
    for name in names {
        if let Some(part) = name.strip_suffix("%l") {
            unescape(part, &mut key)?;
        } else {
            unescape(name.strip_suffix("%d").unwrap_or(name), &mut key)?;
            key.push(b'/');
        }
    }
    unescape(last.strip_suffix("%f").unwrap_or(last), &mut key)?;
    let key = String::from_utf8(key).ok()?;
    (object_path(&key) == path).then_some(key)
}

fn segments(folders: &str) -> PathBuf {
    let mut path = PathBuf::new();
    for segment in folders.split('/') {
        let name = push_long(&mut path, segment);
        path.push(if name.contains('.') { name + "%d" } else { name });
    }
    path
}

/// Pushes all but the last part of a segment to the path, and returns the last part.
fn push_long(path: &mut PathBuf, segment: &str) -> String {
    if segment.is_empty() {
        return "%e".to_owned();
    }
    let mut name = String::new();
    for byte in segment.bytes() {
        let is_plain = byte.is_ascii_alphanumeric() || b"-_.=+,@:~".contains(&byte);
        if name.len() + if is_plain { 1 } else { 3 } > NAME_BYTES {
            path.push(name + "%l");
            name = String::new();
        }
        if is_plain {
            name.push(char::from(byte));
        } else {
            name.push('%');
            name.extend([byte >> 4, byte & 15].map(|digit| char::from(b"0123456789ABCDEF"[usize::from(digit)])));
        }
    }
    // These names mean the folder itself and its parent.
    if name == "." || name == ".." { name.replace('.', "%2E") } else { name }
}

fn unescape(name: &str, key: &mut Vec<u8>) -> Option<()> {
    if name == "%e" {
        return Some(());
    }
    let mut parts = name.split('%');
    key.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        key.push(u8::from_str_radix(code, 16).ok()?);
        key.extend_from_slice(rest.as_bytes());
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_archives_key_is_its_own_path() {
        for key in [
            "archive/Users/dt=2026-11-22/hr=09/4f.ndjson.zst",
            "parquet/Users/dt=2026-11-22/run-00000.parquet",
            "quarantine/replicator/dynamodb/Users/2026-11-01T08:00:00.000-5.json",
            "mine.txt",
        ] {
            assert_eq!(object_path(key), Path::new(key));
        }
    }

    #[test]
    fn no_two_keys_and_no_file_and_folder_share_a_path() {
        for (key, path) in [
            ("a", "a%f"),
            ("a/", "a/%e%f"),
            ("a/b", "a/b%f"),
            ("a//b", "a/%e/b%f"),
            ("/a", "%e/a%f"),
            ("../a", "%2E%2E/a%f"),
            ("a/..", "a/%2E%2E%f"),
            ("a.txt/b", "a.txt%d/b%f"),
            ("a+b c%é", "a+b%20c%25%C3%A9%f"),
        ] {
            assert_eq!(object_path(key), Path::new(path), "{key}");
            assert_eq!(key_at(Path::new(path)).as_deref(), Some(key));
        }
        for path in ["a", "a%d/b%f", "a.b/c%f", "%61%f", "a%g", "%zz.x", "%FF%f", "é.x", "a.b%f", ""] {
            assert_eq!(key_at(Path::new(path)), None, "{path}");
        }
    }

    #[test]
    fn a_long_segment_fits_a_file_name() {
        for key in ["x".repeat(1024), "é".repeat(512), format!("{}/y", ".".repeat(900)), "x".repeat(200) + ".."] {
            let path = object_path(&key);
            assert!(path.components().all(|name| name.as_os_str().len() <= NAME_BYTES + 4), "{path:?}");
            assert!(path.components().all(|name| matches!(name, std::path::Component::Normal(_))), "{path:?}");
            assert_eq!(key_at(&path), Some(key));
        }
    }

    proptest! {
        #[test]
        fn a_path_has_one_key(key in "[a.%/ é\\PC]{1,40}") {
            prop_assert_eq!(key_at(&object_path(&key)), Some(key));
        }

        #[test]
        fn an_object_lies_in_the_folder_of_each_of_its_beginnings(key in "[ab./]{1,12}") {
            for (at, _) in key.char_indices() {
                prop_assert!(object_path(&key).starts_with(folder_path(&key[..at])));
            }
        }

        #[test]
        fn no_object_lies_below_another(keys in proptest::array::uniform2("[ab./%]{1,8}")) {
            let [one, other] = keys;
            prop_assume!(one != other);
            prop_assert!(!object_path(&one).starts_with(object_path(&other)));
        }
    }
}
