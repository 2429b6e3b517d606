//! The environment of a function as a value, which is read once and completely before the first event.
//!
//! All missing and malformed variables are reported together, by name, so that a deployment can be fixed in one step.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// The variables that were renamed, as pairs of the old and the new name.
///
/// A value under an old name would have no effect, so [`Environment::read`] reports each one that is set.
pub const RENAMED_VARIABLES: [(&str, &str); 5] = [
    ("CACHE_LOGIN", "CACHE_AUTH"),
    ("POSTGRES_LOGIN", "POSTGRES_AUTH"),
    ("PRECONDITIONS", "REQUIRE_PRECONDITIONS"),
    ("REPLICA_IN_FLIGHT", "REPLICA_MAX_CONCURRENCY"),
    ("TOMBSTONE_DAYS", "TOMBSTONE_RETENTION_DAYS"),
];

/// Environment variables by name. An empty value counts as unset, because templates set a variable to the empty text to
/// leave it out.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Returns the environment of the process.
    #[must_use]
    pub fn from_env() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the only code that reads the process environment")]
        // `vars` would panic on a variable that is not Unicode. No variable of Millrace may be one.
        let variables = std::env::vars_os();
        variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect()
    }

    /// Returns the value of a variable if it is set and not empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Sets a variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: String) -> Self {
        self.0.insert(name.to_owned(), value);
        self
    }

    /// Starts reading and collects the problems. The first ones are the variables that are set under an old name.
    #[must_use]
    pub fn read(&self) -> VariableReader<'_> {
        let renamed = RENAMED_VARIABLES.iter().filter_map(|(old, new)| {
            let value = self.get(old)?;
            Some(format!("{old} is {value:?}, but this variable was renamed: set {new} instead"))
        });
        VariableReader { environment: self, problems: renamed.collect() }
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(variables: T) -> Self {
        Self(variables.into_iter().collect())
    }
}

/// Reads variables one by one and records the problems.
#[derive(Debug)]
pub struct VariableReader<'a> {
    environment: &'a Environment,
    problems: Vec<String>,
}

impl VariableReader<'_> {
    /// Reads a variable that must be set. If it is missing or malformed, the problem is recorded and `None` is
    /// returned.
    pub fn required<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        if self.environment.get(name).is_none() {
            self.problems.push(format!("{name} is not set"));
        }
        self.optional(name, parse)
    }

    /// Reads a variable that may be absent. A malformed one is recorded as a problem and does not count as absent.
    pub fn optional<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let parsed = self.environment.get(name).map(parse)?;
        parsed.map_err(|problem| self.problems.push(format!("{name} {problem}"))).ok()
    }

    /// Reads a variable that has an effect only if the variable `switch` is `true`, and must then be set.
    pub fn required_if<T>(&mut self, switch: &str, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let is_on = self.optional(switch, flag).unwrap_or(false);
        let value = self.optional(name, parse);
        if is_on && self.environment.get(name).is_none() {
            self.problems.push(format!("{name} is not set: {switch} needs it"));
        }
        value.filter(|_| is_on)
    }

    /// Returns a part of the configuration that was read from the same environment. Of its problems, only those that
    /// are not yet recorded are added.
    pub fn collect<T>(&mut self, parsed: Result<T, EnvironmentError>) -> Option<T> {
        let new = |problem: &String| !self.problems.contains(problem);
        match parsed {
            Ok(part) => Some(part),
            Err(EnvironmentError(theirs)) => {
                let theirs: Vec<String> = theirs.into_iter().filter(new).collect();
                self.problems.extend(theirs);
                None
            }
        }
    }

    /// Returns a value that was read from several variables. Its problems, each of which names its variable, are
    /// recorded.
    pub fn collect_optional<T>(&mut self, parsed: Result<Option<T>, Vec<String>>) -> Option<T> {
        parsed.unwrap_or_else(|problems| {
            self.problems.extend(problems);
            None
        })
    }

    /// Records a problem that is detected from several variables together.
    pub fn add_error(&mut self, problem: String) {
        self.problems.push(problem);
    }

    /// Returns the problems of all variables that were read.
    #[must_use]
    pub fn problems(self) -> EnvironmentError {
        EnvironmentError(self.problems)
    }
}

/// The problems of an environment, one per line.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub struct EnvironmentError(Vec<String>);

/// Same as `Display`, because a process that exits with this error prints it with `Debug`.
impl fmt::Debug for EnvironmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl EnvironmentError {
    /// Returns whether there are no problems.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for EnvironmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "the environment has {count} {}:", if count == 1 { "problem" } else { "problems" })?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

/// Parses any text.
///
/// # Errors
/// The text begins or ends with white space, which no name of a table or bucket does.
pub fn text(value: &str) -> Result<String, String> {
    if value.trim() == value {
        Ok(value.to_owned())
    } else {
        Err(format!("is {value:?}: remove leading and trailing white space"))
    }
}

/// Parses `true` or `false`.
///
/// # Errors
/// The text is neither.
pub fn flag(value: &str) -> Result<bool, String> {
    value.parse().map_err(|_| format!("is {value:?}: set it to true or false"))
}

/// Parses a number.
///
/// # Errors
/// The text is not a number or exceeds the range of the type.
pub fn number<T: FromStr>(value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("is {value:?}: set it to a number in range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn all_problems_are_reported_at_once_and_by_name() {
        let environment = environment(&[("DAYS", "soon"), ("EMPTY", ""), ("TABLE", " Users")]);
        let mut read = environment.read();
        assert_eq!(read.required("BUCKET", text), None);
        assert_eq!(read.required("EMPTY", text), None);
        assert_eq!(read.optional("DAYS", number::<u16>), None);
        assert_eq!(read.optional("TABLE", text), None);
        assert_eq!(read.optional("ABSENT", text), None);
        let message = read.problems().to_string();
        for part in
            ["4 problems:", "BUCKET is not set", "EMPTY is not set", "DAYS is \"soon\"", "TABLE is \" Users\": remove"]
        {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn renamed_variables_are_reported_with_their_new_names() {
        let wrong = environment(&[("TOMBSTONE_DAYS", "30"), ("POSTGRES_LOGIN", "iam"), ("CACHE_LOGIN", "")]);
        let message = wrong.read().problems().to_string();
        for part in [
            "2 problems:",
            "TOMBSTONE_DAYS is \"30\", but this variable was renamed: set TOMBSTONE_RETENTION_DAYS instead",
            "POSTGRES_LOGIN is \"iam\", but this variable was renamed: set POSTGRES_AUTH instead",
        ] {
            assert!(message.contains(part), "{message}");
        }
        let new = RENAMED_VARIABLES.map(|(_, new)| (new, "1"));
        assert!(environment(&new).read().problems().is_empty(), "a new name is not an old one");
    }

    #[test]
    fn valid_variables_are_read_without_problems() {
        let environment = environment(&[("TABLE", "Users"), ("DAYS", "8")]);
        let mut read = environment.read();
        assert_eq!(read.required("TABLE", text).as_deref(), Some("Users"));
        assert_eq!(read.optional("DAYS", number::<u16>), Some(8));
        assert!(read.problems().is_empty());
    }
}
