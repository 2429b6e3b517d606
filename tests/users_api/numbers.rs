use super::service::UsersService;
use aws_sdk_dynamodb::types::AttributeValue;

const DIGITS: &str = "0.12345678901234567890123456789012345678";

#[tokio::test]
async fn a_number_of_38_digits_goes_in_and_out_unchanged() {
    let service = UsersService::start().await;
    let api = service.api();
    let body = format!(
        r#"{{"user_id":"ada","timestamp":7,"name":"A","attributes":{{"n":{DIGITS},"l":[{{"m":-{DIGITS}}}]}}}}"#
    );
    let created = api.post(&body).await;
    assert_eq!(created.status, 201, "{}", created.text);
    let attributes = format!(r#""attributes":{{"l":[{{"m":-{DIGITS}}}],"n":{DIGITS}}}"#);
    assert!(created.text.contains(&attributes), "{}", created.text);
    let stored = service.item("ada", 7).await.unwrap()["attributes"].as_m().unwrap()["n"].clone();
    assert_eq!(stored, AttributeValue::N(DIGITS.into()));
    let patched = api.patch("/users/ada/7", r#"{"attributes":{"other":1E+2}}"#).await;
    assert!(patched.text.contains(&format!(r#""n":{DIGITS}"#)), "a patch beside it rounds nothing: {}", patched.text);
    assert!(api.get("/users/ada").await.text.contains(&attributes.replace('}', "")[..60]));
}

#[tokio::test]
async fn any_json_may_be_an_attribute() {
    let service = UsersService::start().await;
    let api = service.api();
    let attributes =
        r#"{" ":"","a":[],"b":{},"c":[null,true,false,[[]],"\u0000\n\"ü"],"d.e[0]":{":#":"x"},"n":[0,-1,1.5]}"#;
    let created = api.post(&format!(r#"{{"user_id":"ada","timestamp":7,"name":"A","attributes":{attributes}}}"#)).await;
    assert_eq!(created.status, 201, "{}", created.text);
    let read = api.get("/users/ada/7").await;
    let expected: serde_json::Value = serde_json::from_str(attributes).unwrap();
    assert_eq!(read.json["user"]["attributes"], expected);
}

#[tokio::test]
async fn nesting_ends_where_dynamodb_s_ends() {
    let service = UsersService::start().await;
    let api = service.api();
    let nested = |levels: usize| {
        let deep = format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
        format!(r#"{{"name":"A","attributes":{deep}}}"#)
    };
    let deepest = api.post(&nested(31)).await;
    assert_eq!(deepest.status, 201, "{}", deepest.text);
    let refused = api.post(&nested(32)).await;
    assert_eq!(refused.status, 422);
    assert_eq!(refused.json["errors"][0]["pointer"], format!("/attributes{}", "/a".repeat(32)));
}

#[tokio::test]
async fn a_number_that_the_table_cannot_hold_is_pointed_at() {
    let service = UsersService::start().await;
    let api = service.api();
    for number in ["123456789012345678901234567890123456789", "1e126", "-1e-131", "1e99999999999"] {
        let refused = api.post(&format!(r#"{{"name":"A","attributes":{{"a":[0,{number}]}}}}"#)).await;
        assert_eq!(refused.status, 422, "{number}");
        assert_eq!(refused.json["errors"][0]["pointer"], "/attributes/a/1", "{number}");
    }
    for number in ["9.9999999999999999999999999999999999999e125", "-1E-130", "0.000"] {
        let kept = api.post(&format!(r#"{{"name":"A","attributes":{{"a":{number}}}}}"#)).await;
        assert_eq!(kept.status, 201, "{number}: {}", kept.text);
        let id = kept.json["user"]["user_id"].as_str().unwrap();
        assert_eq!(api.get(&format!("/users/{id}/latest")).await.status, 200, "{number}");
    }
}
