//! Policy of a bucket, queue, topic or key: [`AccessPolicy`].

use crate::iam_policy::any_match;
use crate::setting::SettingValue;
use crate::template_scope::{ResolvedNode, ResolvedValue};

/// The decision of a policy about one role, action and resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyDecision {
    /// A statement allows the role itself, or everybody.
    Allowed,
    /// A statement allows the account, so the role's own policies decide.
    Delegated,
    /// A statement denies it.
    Denied,
    /// No statement concerns it.
    Silent,
    /// A statement allows it under conditions that cannot be evaluated, for this reason.
    MayAllow(String),
    /// It cannot be determined, for this reason.
    Unknown(String),
}

/// A statement of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessStatement {
    denies: bool,
    /// The principals of IAM, with wildcards; `None` in the policy of a role.
    principals: Option<Vec<SettingValue<String>>>,
    actions: Vec<SettingValue<String>>,
    resources: Vec<SettingValue<String>>,
    /// The keys of its conditions.
    conditions: Vec<String>,
    /// Why it is not evaluated, if it is not.
    opaque: Option<String>,
}

/// A policy of a resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessPolicy {
    statements: Vec<AccessStatement>,
    unknown: Option<String>,
}

/// Returns the texts of a member, which may be one or a list.
fn texts(node: &ResolvedNode) -> Vec<SettingValue<String>> {
    let text = |node: &ResolvedNode| match &node.value {
        ResolvedValue::Text(text) => SettingValue::Known(text.clone()),
        ResolvedValue::Unresolved(reason) => SettingValue::Unresolved(reason.clone()),
        _ => SettingValue::Unresolved(format!("line {}: expected a string", node.line)),
    };
    node.one_or_many().into_iter().map(text).collect()
}

/// Returns whether a condition never holds for a call of Lambda, which uses TLS.
fn is_without_tls(operator: &str, key: &str, value: &ResolvedNode) -> bool {
    operator.eq_ignore_ascii_case("Bool")
        && key.eq_ignore_ascii_case("aws:SecureTransport")
        && value.one_or_many().iter().all(|value| value.text() == Some("false"))
}

impl AccessStatement {
    /// Parses a statement; `None` for one that denies only calls without TLS.
    #[must_use]
    pub fn parse(node: &ResolvedNode) -> Option<Self> {
        // A statement whose effect is not resolved may deny.
        let denies = node.get("Effect").and_then(ResolvedNode::text) != Some("Allow");
        let mut conditions = Vec::new();
        let mut opaque = node.unresolved().map(str::to_owned);
        if let Some(condition) = node.get("Condition") {
            opaque = opaque.or_else(|| condition.unresolved().map(str::to_owned));
            for (operator, keys) in condition.entries() {
                opaque = opaque.or_else(|| keys.unresolved().map(str::to_owned));
                for (key, value) in keys.entries() {
                    // All conditions must hold, so the statement is never applied.
                    if denies && is_without_tls(operator, key, value) {
                        return None;
                    }
                    conditions.push(key.clone());
                }
            }
        }
        for name in ["NotPrincipal", "NotAction", "NotResource"] {
            if node.get(name).is_some() {
                opaque.get_or_insert_with(|| format!("a statement with {name} is not evaluated"));
            }
        }
        let principals = node.get("Principal").map(|principal| match &principal.value {
            // Services and identity providers are never the role.
            ResolvedValue::Map(_) => principal.get("AWS").map_or_else(Vec::new, texts),
            _ => texts(principal),
        });
        let every = || vec![SettingValue::Known("*".to_owned())];
        Some(Self {
            denies,
            principals,
            actions: node.get("Action").map_or_else(Vec::new, texts),
            resources: node.get("Resource").map_or_else(every, texts),
            conditions,
            opaque,
        })
    }

    /// Returns whether the statement denies.
    #[must_use]
    pub fn denies(&self) -> bool {
        self.denies
    }

    /// Returns whether the statement concerns an action on a resource, and its conditions hold for certain.
    ///
    /// # Errors
    /// The reason why that cannot be determined.
    pub fn concerns(&self, action: &str, resource: &str) -> Result<bool, String> {
        if let Some(reason) = &self.opaque {
            return Err(reason.clone());
        }
        let actions = any_match(&self.actions, &action.to_ascii_lowercase(), true);
        let resources = any_match(&self.resources, resource, false);
        match (actions, resources) {
            (Ok(false), _) | (_, Ok(false)) => Ok(false),
            (Err(reason), _) | (_, Err(reason)) => Err(reason),
            (Ok(true), Ok(true)) if self.conditions.is_empty() => Ok(true),
            (Ok(true), Ok(true)) => {
                let verb = if self.denies { "denies" } else { "allows" };
                Err(format!("a statement {verb} {action} under conditions on {}", self.conditions.join(", ")))
            }
        }
    }

    /// Returns whether the statement names the role itself or everybody, or else its account.
    fn names(&self, role: &str) -> Result<Option<bool>, String> {
        let principals = self.principals.as_deref().unwrap_or_default();
        let is_account = |text: &str| text.ends_with(":root") || text == "${AWS.AccountId}" || is_account_number(text);
        let names_account = principals.iter().any(|it| it.known().is_some_and(|text| is_account(text)));
        match any_match(principals, role, false) {
            Ok(true) => Ok(Some(true)),
            _ if names_account => Ok(Some(false)),
            Ok(false) => Ok(None),
            Err(reason) => Err(reason),
        }
    }
}

fn is_account_number(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|digit| digit.is_ascii_digit())
}

impl AccessPolicy {
    /// Parses a policy document.
    #[must_use]
    pub fn parse(document: &ResolvedNode) -> Self {
        let Some(statements) = document.get("Statement") else {
            return Self { statements: Vec::new(), unknown: document.unresolved().map(str::to_owned) };
        };
        if let Some(reason) = statements.unresolved() {
            return Self::unknown(reason.to_owned());
        }
        Self {
            statements: statements.one_or_many().into_iter().filter_map(AccessStatement::parse).collect(),
            unknown: None,
        }
    }

    /// Returns the policy that KMS gives a key without one: the account's own policies decide.
    #[must_use]
    pub fn account_default() -> Self {
        let known = |text: &str| vec![SettingValue::Known(text.to_owned())];
        let statement = AccessStatement {
            denies: false,
            principals: Some(known("${AWS.AccountId}")),
            actions: known("kms:*"),
            resources: known("*"),
            conditions: Vec::new(),
            opaque: None,
        };
        Self { statements: vec![statement], unknown: None }
    }

    /// Returns a policy that is not known, for this reason.
    #[must_use]
    pub fn unknown(reason: String) -> Self {
        Self { statements: Vec::new(), unknown: Some(reason) }
    }

    /// Decides whether the policy lets a role perform an action on a resource.
    #[must_use]
    pub fn decide(&self, role: &str, action: &str, resource: &str) -> PolicyDecision {
        if let Some(reason) = &self.unknown {
            return PolicyDecision::Unknown(reason.clone());
        }
        let (mut is_allowed, mut is_delegated) = (false, false);
        let (mut may_deny, mut may_allow) = (None, None);
        for statement in &self.statements {
            let names = match (statement.names(role), statement.opaque.as_ref()) {
                (Ok(None), None) => continue,
                (names, _) => names,
            };
            match (statement.denies, names, statement.concerns(action, resource)) {
                (_, _, Ok(false)) | (_, Ok(None), Ok(true)) => {}
                (true, Ok(Some(_)), Ok(true)) => return PolicyDecision::Denied,
                (true, Err(reason), _) | (true, Ok(_), Err(reason)) => may_deny = Some(reason),
                (false, Err(reason), _) | (false, Ok(_), Err(reason)) => may_allow = Some(reason),
                (false, Ok(Some(true)), Ok(true)) => is_allowed = true,
                (false, Ok(Some(false)), Ok(true)) => is_delegated = true,
            }
        }
        match (may_deny, may_allow) {
            (None, _) if is_allowed => PolicyDecision::Allowed,
            (None, _) if is_delegated => PolicyDecision::Delegated,
            (Some(reason), _) => PolicyDecision::Unknown(reason),
            (None, Some(reason)) => PolicyDecision::MayAllow(reason),
            (None, None) => PolicyDecision::Silent,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::resource_entry::{resolved_json, unresolved};

    const ROLE: &str = "arn:aws:iam::123456789012:role/copier";
    const BUCKET: &str = "arn:aws:s3:::failures";

    fn decide(statements: Value) -> PolicyDecision {
        let mut document = json!({});
        document["Statement"] = statements;
        let policy = AccessPolicy::parse(&resolved_json(&document));
        policy.decide(ROLE, "s3:PutObject", &format!("{BUCKET}/aws/lambda/x"))
    }

    fn statement(effect: &str, principal: Value) -> Value {
        let mut statement = json!({"Effect": effect, "Action": "s3:Put*", "Resource": format!("{BUCKET}/*")});
        statement["Principal"] = principal;
        statement
    }

    #[test]
    fn policy_decision_is_allowed_delegated_denied_or_silent() {
        let root = json!({"AWS": "arn:aws:iam::123456789012:root"});
        for (statements, expected) in [
            (json!([]), PolicyDecision::Silent),
            (json!([statement("Allow", json!({"AWS": [ROLE]}))]), PolicyDecision::Allowed),
            (json!([statement("Allow", json!("*"))]), PolicyDecision::Allowed),
            (json!([statement("Allow", root.clone())]), PolicyDecision::Delegated),
            (json!([statement("Allow", json!({"AWS": "123456789012"}))]), PolicyDecision::Delegated),
            (json!(statement("Allow", json!({"Service": "lambda.amazonaws.com"}))), PolicyDecision::Silent),
            (json!([statement("Allow", json!({"AWS": "arn:aws:iam::123456789012:role/x"}))]), PolicyDecision::Silent),
            (json!([statement("Allow", json!("*")), statement("Deny", root)]), PolicyDecision::Denied),
        ] {
            assert_eq!(decide(statements.clone()), expected, "{statements}");
        }
    }

    #[test]
    fn a_condition_makes_a_statement_unknown_unless_it_concerns_calls_without_tls() {
        let mut denies = statement("Deny", json!("*"));
        denies["Condition"] = json!({"Bool": {"aws:SecureTransport": false}});
        assert_eq!(decide(json!([denies])), PolicyDecision::Silent);
        denies["Condition"] = json!({"StringNotEquals": {"aws:SourceVpce": "vpce-1"}});
        let PolicyDecision::Unknown(reason) = decide(json!([statement("Allow", json!("*")), denies])) else { panic!() };
        assert_eq!(reason, "a statement denies s3:PutObject under conditions on aws:SourceVpce");
        let mut allows = statement("Allow", json!("*"));
        allows["Condition"] = json!({"StringEquals": {"aws:PrincipalOrgID": "o-1"}});
        assert!(matches!(decide(json!([allows.clone()])), PolicyDecision::MayAllow(_)));
        // Another statement allows it in any case.
        assert_eq!(decide(json!([allows, statement("Allow", json!("*"))])), PolicyDecision::Allowed);
    }

    #[test]
    fn unevaluated_policy_statement_is_unknown() {
        let mut opaque = statement("Deny", json!("*"));
        opaque["NotResource"] = opaque["Resource"].take();
        assert!(matches!(decide(json!([opaque])), PolicyDecision::Unknown(_)));
        for statements in [unresolved("an import"), json!([unresolved("an import")])] {
            assert_eq!(decide(statements), PolicyDecision::Unknown("an import".to_owned()));
        }
        let principal = json!({"AWS": unresolved("an import")});
        assert_eq!(decide(json!([statement("Deny", principal)])), PolicyDecision::Unknown("an import".to_owned()));
    }
}
