//! docs/commands.md: the reference of all commands, made from the command line's own definition.

use std::{fmt::Write as _, fs, path::Path};

use clap::{Arg, Command, CommandFactory as _};

use super::Cli;

#[test]
fn the_page_of_commands_is_the_command_line() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/commands.md");
    let expected = commands_page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&page, &expected).expect("write docs/commands.md");
        return;
    }
    let written = fs::read_to_string(&page).unwrap_or_default();
    assert!(written == expected, "write it anew: UPDATE_DOCS=1 cargo test -p meshctl the_page_of_commands");
}

fn commands_page() -> String {
    let mut root = Cli::command();
    root.build();
    let mut page = String::from(
        "# Commands\n\n\
         Data goes to stdout, everything else to stderr; the exit code is the same whatever `-o` asks for. Made from\n\
         `meshctl/src/cli.rs`; a test keeps it true.\n\n\
         ## Global options\n\nBefore or after the command.\n\n",
    );
    table(&mut page, root.get_arguments().filter(|arg| arg.is_global_set()));
    page.push_str("\n## Exit codes\n\n| code | meaning |\n|---|---|\n| 0 | success |\n");
    for exit in crate::failure::Exit::ALL {
        let _ = writeln!(page, "| {} | {} |", exit as u8, exit.text());
    }
    for command in visible(&root) {
        section(&mut page, command, "meshctl");
    }
    page
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help")
}

fn section(page: &mut String, command: &Command, parent: &str) {
    let name = format!("{parent} {}", command.get_name());
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    let _ = write!(page, "\n## {name}\n\n{about}.\n\n");
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").lines().map(str::trim).collect::<Vec<_>>().join("\n");
    let _ = writeln!(page, "```text\n{usage}\n```");
    let own: Vec<&Arg> = command
        .get_arguments()
        .filter(|arg| !arg.is_global_set() && arg.get_id() != "help" && arg.get_id() != "version")
        .collect();
    if !own.is_empty() {
        page.push('\n');
        table(page, own.into_iter());
    }
    for below in visible(command) {
        section(page, below, &name);
    }
}

fn table<'a>(page: &mut String, arguments: impl Iterator<Item = &'a Arg>) {
    page.push_str("| option | meaning |\n|---|---|\n");
    for arg in arguments.filter(|arg| !arg.is_hide_set() && arg.get_id() != "help" && arg.get_id() != "version") {
        let value = arg.get_value_names().filter(|_| arg.get_action().takes_values()).and_then(|names| names.first());
        let long = arg.get_long().map(|long| format!("--{long}"));
        let short = arg.get_short().map(|short| format!("-{short}"));
        let mut name = [short, long].into_iter().flatten().collect::<Vec<_>>().join(", ");
        if let Some(value) = value {
            name = if name.is_empty() { format!("{value}") } else { format!("{name} {value}") };
        }
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default().replace('|', "\\|");
        let default: Vec<_> = arg.get_default_values().iter().filter_map(|value| value.to_str()).collect();
        let default = match default.first() {
            Some(default) if arg.get_action().takes_values() && !arg.is_hide_default_value_set() => {
                format!(" (default: `{default}`)")
            }
            _ => String::new(),
        };
        let _ = writeln!(page, "| `{name}` | {help}{default} |");
    }
}
