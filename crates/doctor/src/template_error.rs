//! A template that cannot be read: [`TemplateError`].

/// A part of a template that cannot be read, as one line that names file and line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}", prefix(.file.as_deref(), *.line))]
pub struct TemplateError {
    file: Option<String>,
    line: usize,
    problem: String,
}

impl TemplateError {
    /// Returns an error at a line, starting at 1; 0 if it has none.
    #[must_use]
    pub fn new(line: usize, problem: String) -> Self {
        let is_one_line = !problem.contains(char::is_control);
        let problem = if is_one_line { problem } else { problem.split_whitespace().collect::<Vec<_>>().join(" ") };
        Self { file: None, line, problem }
    }

    /// Adds the file, unless the error names one.
    #[must_use]
    pub fn in_file(mut self, file: &str) -> Self {
        self.file.get_or_insert_with(|| file.to_owned());
        self
    }

    /// Returns the line.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }
}

fn prefix(file: Option<&str>, line: usize) -> String {
    match (file, line) {
        (Some(file), 0) => format!("{file}: "),
        (Some(file), line) => format!("{file}:{line}: "),
        (None, 0) => String::new(),
        (None, line) => format!("line {line}: "),
    }
}
