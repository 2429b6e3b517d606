//! A template together with its nested applications, each parsed from its own file: [`TemplateDocument`].

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use crate::template_error::TemplateError;
use crate::template_loop;
use crate::template_node::TemplateNode;

/// The maximum depth of nested applications; a deeper one contains itself.
const MAX_APPLICATION_DEPTH: usize = 5;
/// The maximum number of files of one template: a template that contains others many times is not deployable.
const MAX_FILES: usize = 200;
/// The maximum number of resources of a template; `CloudFormation` accepts 500.
const MAX_RESOURCES: usize = 2_000;
/// The maximum size of a template; `CloudFormation` accepts 1 MB.
pub(crate) const MAX_BYTES: u64 = 4_000_000;

/// A parsed template and its nested applications.
#[derive(Debug)]
pub struct TemplateDocument {
    /// The tree of the template.
    pub node: TemplateNode,
    /// The file, for messages.
    pub file: String,
    /// The nested applications by logical ID: those whose template is a local file.
    pub applications: BTreeMap<String, Self>,
}

/// Reads the text of a template.
///
/// # Errors
/// A [`TemplateError`] if the file cannot be read, is too large or is not UTF-8.
pub fn read_text(path: &Path, most_bytes: u64) -> Result<String, TemplateError> {
    let fail = |problem: String| TemplateError::new(0, problem).in_file(&path.display().to_string());
    let unreadable = |error: std::io::Error| fail(format!("cannot read the file: {error}"));
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    if size > most_bytes {
        return Err(fail(format!("the file has {size} bytes: at most {most_bytes} are read")));
    }
    // A pipe or a device has no size, and may have no end.
    let mut bytes = Vec::new();
    file.take(most_bytes + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > most_bytes {
        return Err(fail(format!("the file has more than {most_bytes} bytes: at most {most_bytes} are read")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        fail(format!("cannot read the file: byte {at} is not UTF-8: save it as UTF-8"))
    })
}

impl TemplateDocument {
    /// Parses a template from the text of a file, with its loops expanded, and its nested applications from the files
    /// in `folder`; without a folder, nested applications are not read. Nested applications that cannot be read are
    /// reported in `problems`.
    ///
    /// # Errors
    /// A [`TemplateError`] if the text is not a template.
    pub fn parse(
        text: &str,
        file: &str,
        folder: Option<&Path>,
        parameters: &BTreeMap<String, String>,
        problems: &mut Vec<TemplateError>,
    ) -> Result<Self, TemplateError> {
        if text.len() as u64 > MAX_BYTES {
            let problem = format!("the template has {} bytes: at most {MAX_BYTES} are read", text.len());
            return Err(TemplateError::new(0, problem).in_file(file));
        }
        let mut files = 0;
        Self::parse_nested(text, file, folder, Some(parameters), 0, &mut files, problems)
    }

    fn parse_nested(
        text: &str,
        file: &str,
        folder: Option<&Path>,
        parameters: Option<&BTreeMap<String, String>>,
        depth: usize,
        files: &mut usize,
        problems: &mut Vec<TemplateError>,
    ) -> Result<Self, TemplateError> {
        let mut node = TemplateNode::parse(text).map_err(|error| error.in_file(file))?;
        template_loop::expand(&mut node, parameters);
        let resources = node.get("Resources").map_or(&[][..], TemplateNode::entries);
        if resources.is_empty() {
            let problem = "no Resources: expected a template of CloudFormation or SAM, or a Terraform plan in JSON";
            return Err(TemplateError::new(node.line, problem.to_owned()).in_file(file));
        }
        if resources.len() > MAX_RESOURCES {
            let problem = format!(
                "the template has {} resources: at most {MAX_RESOURCES} are read, and CloudFormation accepts 500",
                resources.len()
            );
            return Err(TemplateError::new(node.line, problem).in_file(file));
        }
        let mut applications = BTreeMap::new();
        for (id, resource) in resources {
            let Some((location, line)) = local_location(resource) else { continue };
            let Some(folder) = folder else { continue };
            let fail = |problem: String| TemplateError::new(line, format!("{id}: {problem}")).in_file(file);
            *files += 1;
            if depth == MAX_APPLICATION_DEPTH || *files > MAX_FILES {
                problems.push(fail(format!("the nested template {location} contains itself")));
                continue;
            }
            let path = folder.join(location);
            let nested = read_text(&path, MAX_BYTES).map_err(|error| fail(error.to_string())).and_then(|text| {
                // Its parameters are resolved later, so loops over them are not.
                let file = path.display().to_string();
                Self::parse_nested(&text, &file, path.parent(), None, depth + 1, files, problems)
            });
            match nested {
                Ok(nested) => {
                    applications.insert(id.clone(), nested);
                }
                Err(problem) => problems.push(problem),
            }
        }
        Ok(Self { node, file: file.to_owned(), applications })
    }
}

/// Returns the local path of a nested application's template, and its line.
fn local_location(resource: &TemplateNode) -> Option<(&str, usize)> {
    let property = match resource.get("Type")?.text()? {
        "AWS::Serverless::Application" => "Location",
        "AWS::CloudFormation::Stack" => "TemplateURL",
        _ => return None,
    };
    let location = resource.get("Properties")?.get(property)?;
    let path = location.text().filter(|path| !path.contains("://"))?;
    Some((path, location.line))
}
