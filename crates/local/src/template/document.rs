//! A template together with its nested applications (`AWS::Serverless::Application` with a local `Location`), each parsed
//! from its own file.

use std::collections::BTreeMap;
use std::path::Path;

use super::PropertyError;
use super::node::{self, TemplateNode};

/// The type of a nested application.
pub(super) const APPLICATION: &str = "AWS::Serverless::Application";
/// The maximum depth of nested applications; a deeper one contains itself.
const MAX_APPLICATION_DEPTH: usize = 5;

/// A parsed template and its nested applications.
#[derive(Debug)]
pub(super) struct TemplateDocument {
    /// The tree of the template.
    pub(super) node: TemplateNode,
    /// The file, for error messages.
    pub(super) file: String,
    /// The nested applications by logical ID.
    pub(super) applications: BTreeMap<String, Self>,
}

impl TemplateDocument {
    /// Parses a template from the text of a file, and its nested applications from the files in `folder`.
    ///
    /// # Errors
    /// Fails if a text is not YAML, or if a nested application cannot be read.
    pub(super) fn parse(text: &str, file: &str, folder: Option<&Path>) -> Result<Self, PropertyError> {
        Self::parse_nested(text, file, folder, 0)
    }

    fn parse_nested(text: &str, file: &str, folder: Option<&Path>, depth: usize) -> Result<Self, PropertyError> {
        let node = node::document(text).map_err(|error| error.in_file(file))?;
        let mut applications = BTreeMap::new();
        for (id, resource) in node.get("Resources").map_or(&[][..], TemplateNode::entries) {
            if resource.get("Type").and_then(TemplateNode::text) == Some(APPLICATION) {
                let application = Self::application(id, resource, folder, depth);
                applications.insert(id.clone(), application.map_err(|error| error.in_file(file))?);
            }
        }
        Ok(Self { node, file: file.to_owned(), applications })
    }

    fn application(
        id: &str,
        resource: &TemplateNode,
        folder: Option<&Path>,
        depth: usize,
    ) -> Result<Self, PropertyError> {
        let path = format!("Resources.{id}.Properties.Location");
        let location = resource.get("Properties").and_then(|properties| properties.get("Location"));
        let at = location.unwrap_or(resource);
        let location = location.and_then(TemplateNode::text);
        let location = location.ok_or_else(|| at.fault(format!("{path}: expected the path of a template")))?;
        if depth == MAX_APPLICATION_DEPTH {
            return Err(at.fault(format!("{path}: {location} contains itself")));
        }
        let folder = folder.ok_or_else(|| at.fault(format!("{path}: {location} is another file")))?;
        let file = folder.join(location);
        let text = std::fs::read_to_string(&file);
        let text = text.map_err(|error| at.fault(format!("{path}: cannot read {}: {error}", file.display())))?;
        Self::parse_nested(&text, &file.display().to_string(), file.parent(), depth + 1)
    }
}
