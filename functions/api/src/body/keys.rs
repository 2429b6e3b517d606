//! The body of a batch request: the keys of records.

use millrace_http::problem::{ErrorLocation, FieldError, Problem};
use millrace_shared::table::MAX_KEYS;
use millrace_shared::user::Timestamp;
use millrace_shared::user::id::UserId;
use millrace_shared::user::{FieldPatch, UserKey};
use serde_json::value::RawValue;

use super::fields::BodyReader;

/// Parses `{"keys": [{"user_id": …, "timestamp": …}, …]}`: 1 to 100 keys without duplicates.
pub(crate) fn keys(body: &[u8]) -> Result<Vec<UserKey>, Problem> {
    let mut fields = BodyReader::open(body)?;
    let mut mistakes = Vec::new();
    let mut keys: Vec<UserKey> = Vec::new();
    match fields.items("keys") {
        FieldPatch::Set(items) if (1..=MAX_KEYS).contains(&items.len()) => {
            for (index, item) in items.into_iter().enumerate() {
                match key(item) {
                    Ok(key) if keys.contains(&key) => {
                        mistakes.push((index, String::new(), "is a duplicate of another key".to_owned()));
                    }
                    Ok(key) => keys.push(key),
                    Err(of_key) => mistakes.extend(of_key.into_iter().map(|(below, detail)| (index, below, detail))),
                }
            }
        }
        FieldPatch::Set(_) => fields.add_error("keys", &format!("keys must contain 1 to {MAX_KEYS} keys")),
        FieldPatch::Keep | FieldPatch::Remove => fields.add_missing_error("keys", "keys is required: an array of keys"),
    }
    for (index, below, detail) in mistakes {
        fields.add_error_at(format!("/keys/{index}{below}"), detail);
    }
    fields.finish()?;
    Ok(keys)
}

/// Parses one key, or returns all of its errors with their pointers.
fn key(item: &RawValue) -> Result<UserKey, Vec<(String, String)>> {
    let read = || {
        let mut fields = BodyReader::open(item.get().as_bytes())?;
        let id = fields.text("user_id", UserId::parse).set();
        let timestamp = fields.integer("timestamp", Timestamp::parse).set();
        if id.is_none() {
            fields.add_missing_error("user_id", "user_id is required");
        }
        if timestamp.is_none() {
            fields.add_missing_error("timestamp", "timestamp is required");
        }
        fields.finish().map(|()| id.zip(timestamp))
    };
    match read() {
        Ok(Some((id, timestamp))) => Ok(UserKey { id, timestamp }),
        Ok(None) => Err(Vec::new()),
        Err(Problem::Body(mistakes)) => Err(mistakes.into_iter().map(below).collect()),
        Err(_) => Err(vec![(String::new(), "must be an object with user_id and timestamp".to_owned())]),
    }
}

fn below(mistake: FieldError) -> (String, String) {
    match mistake.location {
        ErrorLocation::Pointer(pointer) => (pointer, mistake.detail),
        ErrorLocation::Parameter(_) | ErrorLocation::Header(_) => (String::new(), mistake.detail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointers(body: &str) -> Vec<String> {
        let Err(Problem::Body(mistakes)) = keys(body.as_bytes()) else { panic!("not refused: {body}") };
        mistakes.into_iter().map(|mistake| below(mistake).0).collect()
    }

    #[test]
    fn keys_are_read_in_their_order() {
        let Ok(read) = keys(br#"{"keys":[{"timestamp":7,"user_id":"b"},{"user_id":"a","timestamp":8}]}"#) else {
            panic!("refused")
        };
        let read: Vec<_> = read.iter().map(|key| (key.id.as_str(), key.timestamp.seconds())).collect();
        assert_eq!(read, [("b", 7), ("a", 8)]);
    }

    #[test]
    fn every_key_that_is_wrong_is_pointed_at() {
        let body = r#"{"keys":[7,{},{"user_id":"a b","timestamp":"7","more":1},{"user_id":"a","timestamp":7},
            {"user_id":"a","timestamp":7},null]}"#;
        let expected = [
            "/keys/0",
            "/keys/1/user_id",
            "/keys/1/timestamp",
            "/keys/2/user_id",
            "/keys/2/timestamp",
            "/keys/2/more",
            "/keys/4",
            "/keys/5",
        ];
        assert_eq!(pointers(body), expected);
        let many = |count: usize| {
            let keys: Vec<_> = (0..count).map(|second| format!(r#"{{"user_id":"a","timestamp":{second}}}"#)).collect();
            format!(r#"{{"keys":[{}]}}"#, keys.join(","))
        };
        for body in ["{}", r#"{"keys":null}"#, r#"{"keys":{}}"#, r#"{"keys":[]}"#, &many(101)] {
            assert_eq!(pointers(body), ["/keys"], "{body}");
        }
        assert!(keys(many(100).as_bytes()).is_ok());
        assert_eq!(pointers(r#"{"keys":[{"user_id":"a","timestamp":7}],"key":1}"#), ["/key"]);
    }
}
