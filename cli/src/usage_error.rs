//! Errors of the command line in one line: [`explain`].

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Returns an error of the command line as one line that names the argument, the nearest valid one, and the valid ones.
#[must_use]
pub fn explain(error: &clap::Error, program: &clap::Command, arguments: &[OsString]) -> String {
    let command = command_of(program, arguments);
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        Some(ContextValue::Strings(texts)) => texts.first().map(String::as_str),
        _ => None,
    };
    let nearest = |kind| text(kind).map_or_else(String::new, |name| format!(" (did you mean {name}?)"));
    let name = command_name(command, program);
    match error.kind() {
        ErrorKind::InvalidSubcommand => format!(
            "unknown command {:?} of {name}{}; the commands are {}",
            text(ContextKind::InvalidSubcommand).unwrap_or_default(),
            nearest(ContextKind::SuggestedSubcommand),
            subcommands(command),
        ),
        ErrorKind::UnknownArgument => format!(
            "unknown argument {:?} of {name}{}; {}",
            text(ContextKind::InvalidArg).unwrap_or_default(),
            nearest(ContextKind::SuggestedArg),
            options(command),
        ),
        _ => {
            let message = first_paragraph(&error.to_string());
            format!("{message}{}; --help lists the options", nearest(ContextKind::SuggestedValue))
        }
    }
}

/// Returns the command or subcommand that the arguments name.
fn command_of<'c>(program: &'c clap::Command, arguments: &[OsString]) -> &'c clap::Command {
    let step = |command: &'c clap::Command, argument: &OsString| command.find_subcommand(argument).unwrap_or(command);
    arguments.iter().skip(1).fold(program, step)
}

fn command_name(command: &clap::Command, program: &clap::Command) -> String {
    let (program, command) = (program.get_name(), command.get_name());
    if program == command { program.to_owned() } else { format!("{program} {command}") }
}

fn subcommands(command: &clap::Command) -> String {
    command.get_subcommands().map(clap::Command::get_name).collect::<Vec<_>>().join(", ")
}

fn options(command: &clap::Command) -> String {
    let longs = command.get_arguments().filter_map(|argument| Some(format!("--{}", argument.get_long()?)));
    let longs: Vec<String> = longs.collect();
    let commands = subcommands(command);
    match (longs.is_empty(), commands.is_empty()) {
        (false, true) => format!("the options are {}", longs.join(", ")),
        (false, false) => format!("the options are {}, and the commands {commands}", longs.join(", ")),
        _ => format!("the commands are {commands}"),
    }
}

/// Returns clap's message without its hints and usage, joined to one line; an argument that clap prints on a line of its
/// own is included.
fn first_paragraph(text: &str) -> String {
    let text = text.trim_start_matches("error: ");
    let lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" ")
}
