//! [`SqlBuilder`]: an SQL statement and its parameters, kept separate from the start.

/// An SQL statement under construction.
#[derive(Debug)]
pub(crate) struct SqlBuilder {
    text: String,
    parameters: Vec<String>,
}

impl SqlBuilder {
    pub(crate) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), parameters: Vec::new() }
    }

    /// Appends a fragment, which must be a constant of this crate and never input of a caller.
    pub(crate) fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Adds a parameter and returns its placeholder.
    pub(crate) fn parameter(&mut self, value: String) -> String {
        self.parameters.push(value);
        format!("${}::text", self.parameters.len())
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn parameters(&self) -> &[String] {
        &self.parameters
    }
}
