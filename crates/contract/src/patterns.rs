//! The formats of texts by member or parameter name: the rules of `millrace_shared::user` and of the API's header parsers, as
//! regular expressions.

use utoipa::Modify;
use utoipa::openapi::schema::AdditionalProperties;
use utoipa::openapi::{OpenApi as Document, RefOr, Schema};

/// The request schemas: they allow their declared members and no others.
const REQUEST_SCHEMAS: [&str; 5] = ["CreateUserRequest", "Replacement", "Patch", "BatchGetUsersRequest", "Key"];

const USER_ID: &str = r"^([A-Za-z0-9_~:|@+-][A-Za-z0-9._~:|@+-]{0,127}|\.[A-Za-z0-9_~:|@+-][A-Za-z0-9._~:|@+-]{0,126}|\.\.[A-Za-z0-9._~:|@+-]{1,126})$";
/// A text that is not blank and contains no control characters.
const WORDS: &str = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$";
const EMAIL: &str = r"^(?=[^@]{1,64}@)[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)+$";
const TAGS: &str = r#"^(\*|(W/)?"[!#-~]*"(, ?(W/)?"[!#-~]*"){0,49})$"#;
const KEY: &str = r#"^([!#-+\--\[\]-~]{1,255}|"[!#-+\--\[\]-~]{1,255}")$"#;

/// A sealed text in base64url: pattern and minimum length, which the key's id, the nonce, the time and the tag require.
const SEALED: (&str, usize) = ("^[A-Za-z0-9_-]+$", 50);

/// The constraints of a text: its pattern, and its minimum and maximum length in characters.
struct TextConstraints {
    pattern: &'static str,
    shortest: usize,
    longest: Option<usize>,
}

/// Returns the constraints of a member or parameter.
fn constraints_of(name: &str) -> Option<TextConstraints> {
    let (pattern, shortest, longest) = match name {
        "user_id" => (USER_ID, 1, Some(128)),
        "name" | "name_prefix" | "name_like" => (WORDS, 1, Some(256)),
        "status" => (WORDS, 1, Some(64)),
        "email" => (EMAIL, 5, Some(254)),
        "if-match" | "if-none-match" => (TAGS, 1, None),
        "idempotency-key" => (KEY, 1, None),
        "cursor" => (SEALED.0, SEALED.1, None),
        _ => return None,
    };
    Some(TextConstraints { pattern, shortest, longest })
}

/// Adds the patterns to the request schemas and the parameters, and requires unique items in their arrays.
pub(super) struct PatternModifier;

impl Modify for PatternModifier {
    fn modify(&self, document: &mut Document) {
        let schemas = &mut document.components.get_or_insert_default().schemas;
        for name in REQUEST_SCHEMAS {
            if let Some(RefOr::T(Schema::Object(sent))) = schemas.get_mut(name) {
                sent.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
                for (name, member) in &mut sent.properties {
                    constrain(name, member);
                }
            }
        }
        for item in document.paths.paths.values_mut() {
            let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.patch, &mut item.delete];
            let parameters = operations.into_iter().flatten().filter_map(|operation| operation.parameters.as_mut());
            for parameter in parameters.flatten() {
                if let RefOr::T(parameter) = parameter
                    && let Some(schema) = &mut parameter.schema
                {
                    constrain(&parameter.name, schema);
                }
            }
        }
    }
}

fn constrain(name: &str, schema: &mut RefOr<Schema>) {
    if let RefOr::T(Schema::Array(array)) = schema {
        array.unique_items = true;
    }
    if let RefOr::T(Schema::Object(object)) = schema
        && let Some(TextConstraints { pattern, shortest, longest }) = constraints_of(name)
    {
        object.pattern = Some(pattern.to_owned());
        object.min_length = Some(shortest);
        object.max_length = longest;
    }
    // An integer of any size is accepted as a limit, so no integer format applies.
    if let RefOr::T(Schema::Object(object)) = schema
        && name == "limit"
    {
        object.format = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_that_a_client_may_shape_has_its_pattern() {
        for name in ["user_id", "name", "status", "email", "if-match", "if-none-match", "idempotency-key", "cursor"] {
            let is_whole = |text: TextConstraints| {
                text.pattern.starts_with('^') && text.pattern.ends_with('$') && text.shortest > 0
            };
            assert!(constraints_of(name).is_some_and(is_whole), "{name}");
        }
        assert!(constraints_of("attributes").is_none());
    }
}
