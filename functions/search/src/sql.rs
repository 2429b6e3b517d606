//! A statement and its parameters, apart from each other from the first piece on: [`SqlBuilder`]

/// A statement as it grows.
#[derive(Debug)]
pub(crate) struct SqlBuilder {
    text: String,
    parameters: Vec<String>,
}

impl SqlBuilder {
    pub(crate) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), parameters: Vec::new() }
    }

    /// Adds a piece. A constant of this crate, never what a caller sent.
    pub(crate) fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Adds a value, and tells what stands for it in the text.
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
