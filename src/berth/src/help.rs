//! `--help`, in Docker's layout.

use crate::cli::{Entry, Leaf, root_command};
use clap::{Arg, Command};

/// Docker wraps the flags' descriptions at a terminal's width, 80 where there is none.
const WIDTH: usize = 80;

/// `berth` and `berth --help`.
pub fn root(tree: &[Entry]) -> String {
    let mut out = String::from("Usage:  berth [OPTIONS] COMMAND\n\nThe Docker workflow without a daemon\n");
    let leaf = |leaf: &&'static Leaf| (leaf.name, leaf.about);
    let common: Vec<_> =
        tree.iter().filter_map(|e| if let Entry::Common(l) = e { Some(leaf(l)) } else { None }).collect();
    let other: Vec<_> =
        tree.iter().filter_map(|e| if let Entry::Other(l) = e { Some(leaf(l)) } else { None }).collect();
    let groups = tree.iter().filter_map(|e| if let Entry::Group(n, about, _) = e { Some((*n, *about)) } else { None });
    section(&mut out, "Common Commands", &common);
    section(&mut out, "Management Commands", &groups.collect::<Vec<_>>());
    section(&mut out, "Commands", &other);
    options(&mut out, "Global Options", &root_command());
    out.push_str("\nRun 'berth COMMAND --help' for more information on a command.\n");
    out
}

/// `berth image --help`.
pub fn group(path: &str, about: &str, leaves: &[&Leaf]) -> String {
    let mut out = format!("Usage:  {path} COMMAND\n\n{about}\n");
    section(&mut out, "Commands", &leaves.iter().map(|leaf| (leaf.name, leaf.about)).collect::<Vec<_>>());
    out.push_str(&format!("\nRun '{path} COMMAND --help' for more information on a command.\n"));
    out
}

/// `berth images --help`.
pub fn leaf(path: &str, leaf: &Leaf, command: &Command) -> String {
    let mut out = format!("Usage:  {path} {}\n\n{}\n", leaf.usage, leaf.about);
    if !leaf.aliases.is_empty() {
        let aliases: Vec<_> = leaf.aliases.iter().map(|alias| format!("berth {alias}")).collect();
        out.push_str(&format!("\nAliases:\n  {}\n", aliases.join(", ")));
    }
    options(&mut out, "Options", command);
    out
}

fn section(out: &mut String, title: &str, commands: &[(&str, &str)]) {
    if commands.is_empty() {
        return;
    }
    out.push_str(&format!("\n{title}:\n"));
    for (name, about) in commands {
        out.push_str(&format!("  {name:<11} {about}\n"));
    }
}

fn options(out: &mut String, title: &str, command: &Command) {
    let mut args: Vec<&Arg> = command.get_arguments().filter(|arg| !arg.is_hide_set()).collect();
    args.sort_by_key(|arg| arg.get_long());
    let name = |arg: &Arg| {
        let short = arg.get_short().map_or("    ".to_owned(), |short| format!("-{short}, "));
        let kind = arg.get_value_names().filter(|_| !arg.is_require_equals_set()).and_then(|names| names.first());
        let kind = kind.map(|kind| format!(" {kind}")).unwrap_or_default();
        format!("  {short}--{}{kind}", arg.get_long().unwrap_or_default())
    };
    let width = args.iter().map(|arg| name(arg).len()).max().unwrap_or(0) + 3;
    if args.is_empty() {
        return;
    }
    out.push_str(&format!("\n{title}:\n"));
    for arg in args {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let lines: Vec<String> = help.lines().flat_map(|line| wrap(line, WIDTH.saturating_sub(width))).collect();
        out.push_str(&format!("{:<width$}", name(arg)));
        out.push_str(&lines.join(&format!("\n{}", " ".repeat(width))));
        out.push('\n');
    }
}

/// Words in lines of at most `width`; a line that is made of columns stays as it is.
fn wrap(line: &str, width: usize) -> Vec<String> {
    if line.contains("  ") {
        return vec![line.to_owned()];
    }
    let mut lines = vec![String::new()];
    for word in line.split(' ') {
        match lines.last_mut() {
            Some(last) if last.is_empty() => last.push_str(word),
            Some(last) if last.len() + 1 + word.len() <= width => {
                last.push(' ');
                last.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::TREE;

    #[test]
    fn the_tree_is_grouped_as_dockers() {
        let text = root(TREE);
        let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part} is not in:\n{text}"));
        assert!(text.starts_with("Usage:  berth [OPTIONS] COMMAND\n"));
        assert!(at("Common Commands:") < at("  images      List images"));
        assert!(at("Management Commands:") < at("  image       Manage images"));
        assert!(at("\nCommands:") < at("  rmi         Remove one or more images"));
        assert!(at("Global Options:") < at("  -D, --debug "));
        assert!(text[at("Global Options:")..].lines().all(|line| line.len() <= WIDTH), "{text}");
    }

    #[test]
    fn a_command_shows_its_flags() {
        let Some(images) =
            TREE.iter().find_map(|e| if let Entry::Common(l) = e { (l.name == "images").then_some(*l) } else { None })
        else {
            panic!("no images")
        };
        let text = leaf("berth images", images, &images.command());
        for line in [
            "Usage:  berth images [OPTIONS] [REPOSITORY[:TAG]]",
            "  berth image ls, berth image list, berth images",
            "  -a, --all             Show all images (default hides intermediate images)",
            "  -f, --filter filter   Filter output based on conditions provided",
            "                        'table':            Print output in table format",
        ] {
            assert!(text.contains(line), "{line} is not in:\n{text}");
        }
    }
}
