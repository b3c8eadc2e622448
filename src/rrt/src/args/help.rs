//! `--help`, of the program and of a command.

use super::table::{Entry, Flag, Table, Word};

/// The global flags and the list of commands; `program` is the name in the usage line.
pub fn overview(program: &str, table: &Table) -> String {
    let commands = table.commands.iter().map(|command| (command.name.to_owned(), command.about)).collect();
    page(&table.global, format!("{program} [OPTIONS] [COMMAND]"), ("Commands", commands))
}

/// A command's flags and words.
pub fn of_command(program: &str, entry: &Entry) -> String {
    let mut usage = format!("{program} {}", entry.name);
    if !entry.shown().is_empty() {
        usage.push_str(" [OPTIONS]");
    }
    for word in entry.words {
        usage.push(' ');
        usage.push_str(&word.shown());
    }
    let words = entry.words.iter().map(|word: &Word| (word.shown(), word.help)).collect();
    page(entry, usage, ("Arguments", words))
}

type Rows = Vec<(String, &'static str)>;

fn page(entry: &Entry, usage: String, first: (&str, Rows)) -> String {
    let row = |flag: &Flag| {
        let short = flag.short.map_or("    ".to_owned(), |letter| format!("-{letter}, "));
        (short + &flag.shown(), flag.help)
    };
    let mut options: Rows = entry.shown().into_iter().map(row).collect();
    options.push(("-h, --help".into(), "Print help"));
    let mut out = format!("{}\n\nUsage: {usage}\n", entry.about);
    for (title, rows) in [first, ("Options", options)] {
        let width = rows.iter().map(|(name, _)| name.len()).max();
        let Some(width) = width else { continue };
        out.push_str(&format!("\n{title}:\n"));
        out.extend(rows.iter().map(|(name, help)| format!("  {name:width$}  {help}\n")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::flags;
    use super::*;

    #[test]
    fn a_page_has_usage_words_and_flags_in_columns() {
        let help = |name: &str| of_command("rrt", flags::find(name.as_ref()).unwrap());
        assert_eq!(
            help("kill"),
            "Send a signal to a container's init process\n\n\
             Usage: rrt kill [OPTIONS] <container-id> [signal]\n\n\
             Arguments:\n  \
             <container-id>  Name of the container\n  \
             [signal]        Name or number [default: TERM]\n\n\
             Options:\n  \
             -a, --all    Signal all processes, also of a stopped container\n  \
             -r, --regex  Take the name as an extended regular expression; act on each container it matches\n  \
             -h, --help   Print help\n"
        );
        assert!(help("info").ends_with("\n\nUsage: rrt info\n\nOptions:\n  -h, --help  Print help\n"));
        assert!(help("exec").contains("\nUsage: rrt exec [OPTIONS] <container-id> [command]...\n"));
        let update = help("update");
        assert!(update.contains("\n  -r, --resources <FILE>            Read a JSON `linux.resources`"), "{update}");
        assert!(update.contains("\n      --cpu-idle <N>                1 runs the container"), "{update}");
        assert!(!update.contains("kernel-memory"), "{update}");
    }

    #[test]
    fn the_overview_lists_the_commands() {
        let help = overview("runc", &flags::TABLE);
        assert!(
            help.contains("\n\nUsage: runc [OPTIONS] [COMMAND]\n\nCommands:\n  create      Create a container that"),
            "{help}"
        );
        assert!(help.contains("\n  -v, --version                   Print the version\n  -h, --help "), "{help}");
        assert!(!help.contains("--criu"), "{help}");
    }
}
