//! The contract as one deployment keeps it: without the paths of a tier that is off, with the scheme by which callers are
//! let in, the scopes as their tokens spell them and API Gateway's refusals, and with the base path.
//!
//! Texts of the whole document that do not change are taken over unchanged ([`RawValue`]), so that members keep
//! their order.

use std::fmt;

use millrace_shared::http::caller::{AuthMode, Scope, ScopeMapping};
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Error, Value, json};

use super::OPENAPI_JSON;

/// The paths that the relational tier serves.
pub const SEARCH_PATHS: [&str; 3] = ["/search/users", "/users/{user_id}/summary", "/stats/users"];
/// The scheme of tokens, by its name in the document.
const TOKEN: &str = "token";
/// The scheme of signatures.
const SIGNATURE: &str = "signature";
const SCHEMAS: &str = "#/components/schemas/";
const METHODS: [&str; 5] = ["get", "put", "post", "patch", "delete"];

/// What of a deployment changes its contract.
#[derive(Clone, Debug)]
pub struct ContractDeployment {
    /// Who lets requests in.
    pub auth: AuthMode,
    /// How tokens spell scopes.
    pub scopes: ScopeMapping,
    /// Whether there is a relational replica that serves searches.
    pub has_relational: bool,
}

impl ContractDeployment {
    /// The document for a client whose paths begin with this base path.
    ///
    /// # Errors
    /// The whole document is not of the shape that the contract gives it.
    pub fn document(&self, base: &str) -> Result<Vec<u8>, Error> {
        let mut document: ObjectMembers = serde_json::from_str(OPENAPI_JSON)?;
        let mut paths: ObjectMembers = document.take("paths")?;
        paths.0.retain(|(path, _)| self.has_relational || !SEARCH_PATHS.contains(&path.as_str()));
        for (_, item) in &mut paths.0 {
            let mut methods: ObjectMembers = serde_json::from_str(item.get())?;
            for (_, operation) in methods.0.iter_mut().filter(|(name, _)| METHODS.contains(&name.as_str())) {
                *operation = self.secured(operation)?;
            }
            *item = raw(&methods)?;
        }
        let paths = raw(&paths)?;
        let mut components: ObjectMembers = document.take("components")?;
        let mut schemas: ObjectMembers = components.take("schemas")?;
        schemas.keep_referred(paths.get());
        components.set("schemas", raw(&schemas)?);
        match self.auth {
            AuthMode::Jwt => {}
            AuthMode::Iam => components.set("securitySchemes", raw(&json!({SIGNATURE: signature()}))?),
            AuthMode::None => components.0.retain(|(name, _)| name != "securitySchemes"),
        }
        document.set("paths", paths);
        document.set("components", raw(&components)?);
        if !base.is_empty() {
            document.set("servers", raw(&json!([{"url": base}]))?);
        }
        serde_json::to_vec_pretty(&document)
    }

    /// Returns an operation with the security of this deployment. API Gateway rejects every request without a signature
    /// or a token; the operation lists the scopes that a token needs.
    fn secured(&self, operation: &RawValue) -> Result<Box<RawValue>, Error> {
        let mut operation: ObjectMembers = serde_json::from_str(operation.get())?;
        let scoped: Vec<Value> = match operation.get("security") {
            Some(security) => serde_json::from_str(security.get())?,
            None => Vec::new(),
        };
        let security = match self.auth {
            AuthMode::None => {
                operation.0.retain(|(name, _)| name != "security");
                let mut responses: ObjectMembers = operation.take("responses")?;
                responses.0.retain(|(status, _)| status != "401" && status != "403");
                operation.set("responses", raw(&responses)?);
                return raw(&operation);
            }
            AuthMode::Iam => json!([{SIGNATURE: []}]),
            AuthMode::Jwt if scoped.is_empty() => json!([{TOKEN: []}]),
            AuthMode::Jwt => scoped.iter().map(|scheme| json!({TOKEN: self.scope_names(&scheme[TOKEN])})).collect(),
        };
        operation.set("security", raw(&security)?);
        operation.set("responses", self.with_refusal(operation.take("responses")?)?);
        raw(&operation)
    }

    /// The responses of an operation, and that of API Gateway to a request that it rejects itself, in its own form.
    fn with_refusal(&self, mut responses: ObjectMembers) -> Result<Box<RawValue>, Error> {
        let (status, description) = match self.auth {
            AuthMode::Iam => (
                "403",
                "API Gateway rejected the request: the signature is missing or invalid, or its principal is not authorized",
            ),
            AuthMode::Jwt | AuthMode::None => {
                ("401", "API Gateway rejected the request: the token is missing or invalid")
            }
        };
        let form = json!({"schema": {"type": "object", "properties": {"message": {"type": "string"}}}});
        let response = match responses.get(status) {
            Some(response) => {
                let mut response: ObjectMembers = serde_json::from_str(response.get())?;
                let mut content = response.take("content")?;
                content.set("application/json", raw(&form)?);
                response.set("content", raw(&content)?);
                raw(&response)?
            }
            None => raw(&json!({"description": description, "content": {"application/json": form}}))?,
        };
        responses.set(status, response);
        raw(&responses)
    }

    fn scope_names(&self, scopes: &Value) -> Vec<String> {
        let all = [Scope::Read, Scope::Write, Scope::Admin];
        let named =
            |scope: &Scope| scopes.as_array().is_some_and(|names| names.iter().any(|name| name == scope.as_str()));
        all.into_iter().filter(named).map(|scope| self.scopes.scope_name(scope)).collect()
    }
}

/// As API Gateway's own documents have it: the generators that know Signature Version 4 know it by the extension.
fn signature() -> Value {
    json!({
        "type": "apiKey",
        "name": "Authorization",
        "in": "header",
        "description": "AWS Signature Version 4 of a principal with the permission execute-api:Invoke",
        "x-amazon-apigateway-authtype": "awsSigv4",
    })
}

fn raw(value: &impl Serialize) -> Result<Box<RawValue>, Error> {
    serde_json::value::to_raw_value(value)
}

/// The members of an object, in their order.
struct ObjectMembers(Vec<(String, Box<RawValue>)>);

impl ObjectMembers {
    fn get(&self, name: &str) -> Option<&RawValue> {
        self.0.iter().find(|(member, _)| member == name).map(|(_, value)| &**value)
    }

    /// A member as members.
    fn take(&self, name: &str) -> Result<Self, Error> {
        serde_json::from_str(self.get(name).map_or("null", RawValue::get))
    }

    /// Puts a value in its place, or at the end.
    fn set(&mut self, name: &str, value: Box<RawValue>) {
        match self.0.iter_mut().find(|(member, _)| member == name) {
            Some((_, existing)) => *existing = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// Keeps the schemas that a text refers to, and those that they refer to.
    fn keep_referred(&mut self, text: &str) {
        let mut kept = vec![false; self.0.len()];
        let mut texts = vec![text];
        while let Some(text) = texts.pop() {
            for ((name, schema), kept) in self.0.iter().zip(&mut kept) {
                if !*kept && text.contains(&format!("\"{SCHEMAS}{name}\"")) {
                    *kept = true;
                    texts.push(schema.get());
                }
            }
        }
        let mut kept = kept.into_iter();
        self.0.retain(|_| kept.next().unwrap_or(false));
    }
}

impl Serialize for ObjectMembers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for ObjectMembers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = ObjectMembers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ObjectMembers, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(ObjectMembers(members))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn deployment(auth: AuthMode, has_relational: bool) -> ContractDeployment {
        let scopes = ScopeMapping::new(None, Some("millrace/".to_owned()));
        ContractDeployment { auth, scopes, has_relational }
    }

    fn document(deployment: &ContractDeployment, base: &str) -> Value {
        serde_json::from_slice(&deployment.document(base).unwrap()).unwrap()
    }

    fn operations(document: &Value) -> impl Iterator<Item = (&String, &Value)> {
        let paths = document["paths"].as_object().unwrap().iter();
        paths.flat_map(|(path, methods)| methods.as_object().unwrap().values().map(move |operation| (path, operation)))
    }

    /// Every `$ref` of a document.
    fn references(node: &Value, found: &mut BTreeSet<String>) {
        match node {
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
                members.values().for_each(|member| references(member, found));
            }
            _ => {}
        }
    }

    #[test]
    fn whole_contract_is_the_file_but_for_security() {
        let mut served: Value = serde_json::from_str(OPENAPI_JSON).unwrap();
        let mut document =
            document(&ContractDeployment { scopes: ScopeMapping::default(), ..deployment(AuthMode::Jwt, true) }, "");
        for open in ["/health", "/openapi.json"] {
            assert_eq!(served["paths"][open]["get"].get("security"), None);
            let operation = document["paths"][open]["get"].as_object_mut().unwrap();
            assert_eq!(operation.remove("security"), Some(json!([{"token": []}])), "{open}");
            let refusal = operation["responses"].as_object_mut().unwrap().remove("401").unwrap();
            assert_eq!(refusal["content"].as_object().unwrap().len(), 1, "API Gateway's alone");
        }
        let paths = document["paths"].as_object_mut().unwrap().values_mut();
        for operation in paths.flat_map(|methods| methods.as_object_mut().unwrap().values_mut()) {
            if let Some(refusal) = operation["responses"].get_mut("401") {
                let own = refusal["content"].as_object_mut().unwrap().remove("application/json");
                assert!(own.is_some() && refusal["content"].get("application/problem+json").is_some());
            }
        }
        // The file lists shapes that nothing refers to: generators of clients want them.
        for document in [&mut served, &mut document] {
            document["components"]["schemas"].take();
        }
        assert_eq!(document, served);
    }

    #[test]
    fn contract_lists_the_paths_and_schemas_of_the_tiers_that_are_on() {
        for has_relational in [false, true] {
            let document = document(&deployment(AuthMode::Jwt, has_relational), "");
            for path in SEARCH_PATHS {
                assert_eq!(document["paths"].get(path).is_some(), has_relational, "{path}");
            }
            let mut referred = BTreeSet::new();
            references(&document, &mut referred);
            let schemas = document["components"]["schemas"].as_object().unwrap();
            let listed: BTreeSet<String> = schemas.keys().map(|name| format!("{SCHEMAS}{name}")).collect();
            assert_eq!(listed, referred, "each is there that is referred to, and no other");
            assert_eq!(schemas.contains_key("Stats"), has_relational);
        }
    }

    #[test]
    fn security_of_every_operation_is_the_deployment_s() {
        let none = document(&deployment(AuthMode::None, true), "");
        assert!(operations(&none).all(|(_, operation)| operation.get("security").is_none()));
        assert_eq!(none["components"].get("securitySchemes"), None);

        let iam = document(&deployment(AuthMode::Iam, true), "");
        assert!(operations(&iam).all(|(_, operation)| operation["security"] == json!([{"signature": []}])));
        let schemes = iam["components"]["securitySchemes"].as_object().unwrap();
        assert_eq!(schemes.keys().collect::<Vec<_>>(), ["signature"]);
        assert_eq!(schemes["signature"]["x-amazon-apigateway-authtype"], "awsSigv4");

        let jwt = document(&deployment(AuthMode::Jwt, true), "");
        for (path, operation) in operations(&jwt) {
            let security = &operation["security"];
            let expected = match (path.as_str(), operation["operationId"].as_str().unwrap()) {
                ("/health" | "/openapi.json", _) => json!([{"token": []}]),
                ("/users", "listUsers") | ("/search/users" | "/stats/users", _) => {
                    json!([{"token": ["millrace/users:admin"]}])
                }
                (_, "createUser" | "replaceUser" | "updateUser" | "deleteUser") => {
                    json!([{"token": ["millrace/users:write"]}, {"token": ["millrace/users:admin"]}])
                }
                _ => json!([{"token": ["millrace/users:read"]}, {"token": ["millrace/users:admin"]}]),
            };
            assert_eq!(*security, expected, "{path}");
        }
        assert_eq!(jwt["components"]["securitySchemes"]["token"]["scheme"], "bearer");
    }

    #[test]
    fn api_gateway_rejections_are_documented_for_every_operation() {
        for (auth, status) in [(AuthMode::Iam, "403"), (AuthMode::Jwt, "401")] {
            for (path, operation) in operations(&document(&deployment(auth, true), "")) {
                let message = &operation["responses"][status]["content"]["application/json"]["schema"]["properties"];
                assert!(message.get("message").is_some(), "{path}");
            }
        }
        for (path, operation) in operations(&document(&deployment(AuthMode::None, true), "")) {
            let refused = ["401", "403"].map(|status| operation["responses"].get(status));
            assert_eq!(refused, [None, None], "nobody is refused: {path}");
        }
    }

    #[test]
    fn base_path_is_the_server_s() {
        let deployment = deployment(AuthMode::None, false);
        assert_eq!(document(&deployment, "/v1")["servers"], json!([{"url": "/v1"}]));
        assert_eq!(document(&deployment, "").get("servers"), None);
        assert!(deployment.document("").unwrap().starts_with(b"{\n  \"openapi\": \"3.1"), "members keep their order");
    }
}
