//! An invalid command line in one line: what is wrong, the most similar name, and the list of the valid ones
//! ([`describe`]).

use std::ffi::OsString;

use clap::Command;
use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

/// Returns clap's error without its usage, joined to one line. A name that clap suggests and, for an unknown name, the
/// list of the valid ones are included.
pub(crate) fn describe(error: &Error, command: &Command, arguments: &[OsString]) -> String {
    let text = error.to_string();
    let text = text.trim_start_matches("error: ");
    // An argument that clap prints on a line of its own is included.
    let lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
    let problem = lines.collect::<Vec<_>>().join(" ");
    // An error of this program, and not of clap, contains everything.
    if error.context().next().is_none() {
        return problem;
    }
    let command = innermost(command, arguments);
    let allowed = match error.kind() {
        ErrorKind::UnknownArgument => format!("expected one of {}", options(command).join(", ")),
        ErrorKind::InvalidSubcommand => {
            let names: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
            format!("expected one of {}", names.join(", "))
        }
        _ => "--help lists the options".to_owned(),
    };
    let suggested = [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue];
    let suggested = suggested.into_iter().find_map(|kind| error.get(kind)).and_then(first);
    let hint = suggested.map_or_else(String::new, |name| format!("; did you mean {name}?"));
    format!("{problem}; {allowed}{hint}")
}

/// Returns the subcommand that the arguments name, as far as they do.
fn innermost<'c>(command: &'c Command, arguments: &[OsString]) -> &'c Command {
    arguments.iter().skip(1).fold(command, |command, argument| {
        argument.to_str().and_then(|name| command.find_subcommand(name)).unwrap_or(command)
    })
}

/// Returns the options of a command, and those that it takes over from the commands around it.
fn options(command: &Command) -> Vec<String> {
    command.get_arguments().filter_map(|argument| argument.get_long()).map(|name| format!("--{name}")).collect()
}

fn first(value: &ContextValue) -> Option<&str> {
    match value {
        ContextValue::String(name) => Some(name),
        ContextValue::Strings(names) => names.last().map(String::as_str),
        _ => None,
    }
}
