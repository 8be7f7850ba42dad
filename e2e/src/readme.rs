//! The commands of a Markdown page, as a reader would type them.
//!
//! A block of ```` ```sh ```` is what to type; a block of ```` ```text ```` right after it is what the page says comes
//! out. Pure; whoever calls runs them.

/// One command of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Line of the page, from 1.
    pub line: usize,
    /// What to type.
    pub text: String,
    /// What the page says comes out; empty where it says nothing.
    pub output: Vec<String>,
}

/// The commands under the heading `## TITLE`, or of the whole page, in order.
pub fn commands(page: &str, title: Option<&str>) -> Vec<Command> {
    let mut commands: Vec<Command> = Vec::new();
    let mut here = title.is_none();
    let mut block: Option<&str> = None;
    for (index, line) in page.lines().enumerate() {
        match (block, line.strip_prefix("```")) {
            (None, Some(language)) => block = Some(language.trim()),
            (Some(_), Some(_)) => block = None,
            (None, None) if line.starts_with("## ") => here = title.is_none_or(|title| line[3..] == *title),
            (Some("sh"), None) if here && !line.trim().is_empty() && !line.starts_with('#') => {
                commands.push(Command { line: index + 1, text: line.to_owned(), output: Vec::new() });
            }
            (Some("text"), None) if here => {
                if let Some(command) = commands.last_mut() {
                    command.output.push(line.to_owned());
                }
            }
            _ => {}
        }
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
# Page
```sh
not here
```
## Tour
Type this:
```sh
# a comment
one --flag
two
```
```text
HEADER  X
row     1
```
```toml
three = 3
```
## Else
```sh
four
```
";

    #[test]
    fn only_shell_blocks_under_the_heading_are_commands() {
        let commands = commands(PAGE, Some("Tour"));
        let texts: Vec<_> = commands.iter().map(|command| (command.line, command.text.as_str())).collect();
        assert_eq!(texts, [(9, "one --flag"), (10, "two")]);
        assert_eq!(commands[1].output, ["HEADER  X", "row     1"]);
        assert!(commands[0].output.is_empty());
        let all: Vec<_> = super::commands(PAGE, None).into_iter().map(|command| command.text).collect();
        assert_eq!(all, ["not here", "one --flag", "two", "four"]);
    }
}
