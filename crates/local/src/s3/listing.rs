//! Page of a bucket's keys, as `ListObjects` returns it. Pure.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The characters that `EncodingType=url` does not encode. A client decodes `+` to a space.
const URL_ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'*').remove(b'/');

/// Parameters of a listing.
#[derive(Clone, Debug, Default)]
pub(super) struct ListingRequest {
    /// The prefix of the listed keys.
    pub(super) prefix: String,
    /// Keys that contain the delimiter after the prefix are grouped to a common prefix.
    pub(super) delimiter: Option<String>,
    /// A key or common prefix after which the listing starts.
    pub(super) after: String,
    /// The maximum number of keys and common prefixes.
    pub(super) limit: usize,
}

/// A part of the keys, in order, and of the common prefixes among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ListingPage {
    pub(super) keys: Vec<String>,
    pub(super) prefixes: Vec<String>,
    /// The last key or common prefix of the page, if others follow.
    pub(super) next: Option<String>,
}

impl ListingRequest {
    /// Returns the page. `sorted` contains all keys of the bucket in the order of their bytes.
    pub(super) fn page(&self, sorted: &[String]) -> ListingPage {
        let mut page = ListingPage::default();
        let mut last: Option<&str> = None;
        for key in sorted.iter().filter(|key| key.starts_with(&self.prefix)) {
            let prefix = self.common_prefix(key);
            let entry = prefix.unwrap_or(key);
            // If a page ended with a common prefix, the next one skips all keys with that prefix.
            if key.as_str() <= self.after.as_str() || entry == self.after || last == Some(entry) {
                continue;
            }
            if page.keys.len() + page.prefixes.len() >= self.limit {
                page.next = last.map(str::to_owned);
                return page;
            }
            match prefix {
                Some(prefix) => page.prefixes.push(prefix.to_owned()),
                None => page.keys.push(key.clone()),
            }
            last = Some(entry);
        }
        page
    }

    /// Returns the key up to and including the first delimiter after the prefix.
    fn common_prefix<'k>(&self, key: &'k str) -> Option<&'k str> {
        let delimiter = self.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty())?;
        let found = key[self.prefix.len()..].find(delimiter)?;
        Some(&key[..self.prefix.len() + found + delimiter.len()])
    }
}

/// Encodes a text in the format of `EncodingType=url`.
pub(super) fn url_encoded(text: &str) -> String {
    utf8_percent_encode(text, URL_ENCODED).to_string().replace("%20", "+")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn keys_are_given_in_order_and_folders_once() {
        let all = keys(&["a//b", "a/b", "a/c/d", "a/c/e", "b"]);
        let request = ListingRequest { limit: 1000, ..ListingRequest::default() };
        assert_eq!(request.page(&all), ListingPage { keys: all.clone(), prefixes: vec![], next: None });
        let folder = ListingRequest { prefix: "a/".into(), delimiter: Some("/".into()), ..request.clone() };
        let page = folder.page(&all);
        assert_eq!((page.keys, page.prefixes), (keys(&["a/b"]), keys(&["a//", "a/c/"])));
        let none = ListingRequest { limit: 0, ..request };
        assert_eq!(none.page(&all), ListingPage::default());
    }

    #[test]
    fn listed_key_is_url_encoded_as_in_s3() {
        for (key, encoded) in [
            ("q/a+b", "q/a%2Bb"),
            ("a b", "a+b"),
            ("a%2Bb", "a%252Bb"),
            ("é&<(3)~*-_.", "%C3%A9%26%3C%283%29%7E*-_."),
            ("a//b\n", "a//b%0A"),
        ] {
            assert_eq!(url_encoded(key), encoded);
        }
    }

    proptest! {
        #[test]
        fn page_by_page_everything_is_given_once(
            all in proptest::collection::btree_set("[ab/]{1,5}", 0..30),
            prefix in "[ab/]{0,2}",
            delimiter in proptest::option::of(Just("/".to_owned())),
            limit in 1..5_usize,
        ) {
            let all: Vec<String> = all.into_iter().collect();
            let whole = ListingRequest { prefix, delimiter, after: String::new(), limit: usize::MAX };
            let wanted = whole.page(&all);
            let (mut given, mut after) = (ListingPage::default(), String::new());
            loop {
                let page = ListingRequest { after, limit, ..whole.clone() }.page(&all);
                prop_assert!(page.keys.len() + page.prefixes.len() <= limit);
                given.keys.extend(page.keys);
                given.prefixes.extend(page.prefixes);
                let Some(next) = page.next else { break };
                after = next;
            }
            prop_assert_eq!(given, wanted);
        }
    }
}
