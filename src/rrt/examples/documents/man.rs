//! Man pages in man(7)'s language: rrt(8), and one for each command.

use crate::table::{Entry, Flag, Table};

/// All pages.
pub fn pages(table: &Table, date: &str) -> Vec<(String, String)> {
    let mut pages = vec![("man/man8/rrt.8".to_string(), overview(table, date))];
    pages.extend(table.commands.iter().map(|page| (format!("man/man8/rrt-{}.8", page.name), command(page, date))));
    pages
}

/// What cannot be taken from the table: a command in a few sentences.
pub fn description(command: &str) -> Option<&'static str> {
    Some(match command {
        "create" => {
            "Makes a container of the bundle: its cgroups, namespaces, mounts, and its first process, which waits for \
             rrt-start(8). What is wrong with the bundle is an error here, a program that cannot be executed too. After a \
             failure nothing of the container is left."
        }
        "start" => "Has the first process of a created container execute its program, and returns once it runs.",
        "run" => {
            "Does what rrt-create(8) and rrt-start(8) do, stays until the container's first process ends, passes signals \
             on to it, and deletes the container. With --detach it returns once the program runs."
        }
        "exec" => {
            "Runs a further process in a running container. With --process the whole process is described by a file; \
             otherwise it is the one of config.json, changed by the flags. Security labels are the container's own unless \
             others are given. Words after the container's name are the program and its arguments, flags among them."
        }
        "kill" => "Sends a signal to the first process of a container, or to all of its processes.",
        "delete" => {
            "Removes a container that has ended, or was created and never started: its cgroups, its state, and what is \
             left of its processes. With --force also one that runs, or whose create was killed."
        }
        "wait" => {
            "Returns when the container has ended, and prints its exit code, or 128 and the number of the signal that ended \
             it. The container need not be a child of the caller. Before Linux 6.15 its parent must not have reaped it yet."
        }
        "state" => {
            "Prints what the runtime specification calls the state, with the time of creation and the root file system."
        }
        "list" => "Lists the containers whose state is below the directory of --root.",
        "ps" => "Lists the container's processes by ps(1), with the process ids of the host, or as a list of numbers.",
        "events" => {
            "Prints the container's statistics at an interval, and a line whenever the kernel has killed a process for \
             want of memory, each a JSON object."
        }
        "pause" => "Freezes all processes of a container, and returns when they stand still.",
        "resume" => "Lets the processes of a paused container go on.",
        "update" => {
            "Changes limits of a container while it runs. What is not mentioned stays as it is. When one limit is refused, \
             those changed before it are put back."
        }
        "spec" => "Writes a config.json to start from. A file that is there is not overwritten.",
        "features" => {
            "Prints the document of the runtime specification that says what this build does. With --probe it prints \
             instead which interfaces the running kernel has, since which release there is each, and what it is for; each \
             was found by a call that changes nothing. An interface that could not be tried for want of a right is null."
        }
        "info" => {
            "Prints the runtime, the kernel and what of this machine matters to containers: cgroups, namespaces and the \
             capabilities that a container could be given. For people and for reports of errors; what a program wants to \
             know is in rrt-features(8)."
        }
        "completion" => {
            "Prints the script that makes a shell complete rrt's commands, flags and the names of containers."
        }
        "plan" => {
            "Prints the value that rrt-create(8) would run, and does nothing of it. No other file than config.json is read."
        }
        "checkpoint" => {
            "Saves the processes of a running container to files by criu(8), and ends them unless --leave-running or --pre-dump is \
             given. A checkpoint that fails or is interrupted leaves the container running. What criu cannot give back later \
             is told as a warning."
        }
        "restore" => {
            "Makes a container of a bundle and of the files that rrt-checkpoint(8) has written. Without --detach it stands in for \
             the process as rrt-run(8) does. A restore that fails leaves nothing."
        }
        "help" => "Prints a summary of all commands, or the flags of one.",
        "check" => {
            "Reads a bundle and lists what of it would fail on this machine, and why: a line each, with the property in front. \
             Misspelt and deprecated properties are warnings. Settings of the kernel's are tried in a process that ends, so that \
             nothing is left. The exit status is 1 when there is an error."
        }
        "mounts" => {
            "Adds, replaces or removes mounts of a running container, or lists what it has. The mounts come from a JSON file as \
             crun takes it, or from flags. With replace there is no moment in which neither the old nor the new mount is seen."
        }
        _ => return None,
    })
}

/// Text in which nothing is a request or an escape.
fn text(plain: &str) -> String {
    let escaped = plain.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq").replace('`', "\\(ga");
    match escaped.starts_with(['.', '\'']) {
        true => format!("\\&{escaped}"),
        false => escaped,
    }
}

fn head(title: &str, date: &str) -> String {
    format!(".TH {} 8 {date} \"rrt {}\" \"System Administration\"\n", title.to_uppercase(), env!("CARGO_PKG_VERSION"))
}

fn options(flags: &[&Flag]) -> String {
    let option = |flag: &&Flag| {
        let names = flag.spellings().iter().map(|s| format!("\\fB{}\\fR", text(s))).collect::<Vec<_>>().join(", ");
        let value = flag.value().map(|v| format!(" \\fI{}\\fR", text(v))).unwrap_or_default();
        format!(".TP\n{names}{value}\n{}.\n", text(flag.help.trim_end_matches('.')))
    };
    flags.iter().map(option).collect()
}

fn overview(table: &Table, date: &str) -> String {
    let commands = table.commands.iter();
    let commands: String = commands.map(|c| format!(".TP\n.BR rrt\\-{} (8)\n{}.\n", c.name, text(c.about))).collect();
    format!(
        "{}.SH NAME\nrrt \\- run containers as the Open Container Initiative specifies\n\
         .SH SYNOPSIS\n.B rrt\n[\\fIglobal flag\\fR ...] \\fIcommand\\fR [\\fIflag\\fR ...] [\\fIargument\\fR ...]\n\
         .SH DESCRIPTION\n{}\n\
         .SH OPTIONS\nThese stand before the command. A flag may also be written with one dash, and its value after an equals sign.\n{}\
         .SH COMMANDS\n{commands}\
         .SH EXIT STATUS\n0 on success; 1 on failure, for\n.BR rrt\\-exec (8)\n255.\n\
         In the foreground, the exit status of the process, or 128 and the signal that killed it.\n\
         .SH ENVIRONMENT\n.TP\n\\fBLISTEN_FDS\\fR, \\fBLISTEN_PID\\fR, \\fBLISTEN_FDNAMES\\fR\n{}\n.TP\n.B NOTIFY_SOCKET\n{}\n.TP\n.B XDG_RUNTIME_DIR\n{}\n\
         .SH FILES\n.TP\n.I /run/rrt\nState of the containers, unless\n.B \\-\\-root\nnames another directory.\n\
         .SH SEE ALSO\n.BR namespaces (7),\n.BR cgroups (7),\n.BR capabilities (7),\n.BR apparmor (7)\n",
        head("rrt", date),
        text(
            "rrt takes a bundle, a directory with a config.json and a root file system, and makes a container of it. It has no \
             daemon: every command does its work and ends. Mostly it is called by an engine, in place of runc(8), whose \
             commands and flags it has."
        ),
        options(&table.global.shown()),
        text(
            "File descriptors of socket activation, passed on to the container if they were passed to rrt (sd_listen_fds(3))."
        ),
        text("A socket at which the container's program says that it is ready (sd_notify(3)); passed on."),
        text("For users the state is in its directory rrt."),
    )
}

fn command(page: &Entry, date: &str) -> String {
    let words: String = page
        .words
        .iter()
        .map(|word| {
            let name = format!("\\fI{}\\fR{}", text(word.name), if word.many { " ..." } else { "" });
            if word.required { format!(" {name}") } else { format!(" [{name}]") }
        })
        .collect();
    let shown = page.shown();
    let flags = if shown.is_empty() { "" } else { " [\\fIflag\\fR ...]" };
    let arguments: String = page
        .words
        .iter()
        .map(|w| format!(".TP\n.I {}\n{}.\n", text(w.name), text(w.help.trim_end_matches('.'))))
        .collect();
    let sections = [("ARGUMENTS", arguments), ("OPTIONS", options(&shown))];
    let sections: String =
        sections.iter().filter(|(_, t)| !t.is_empty()).map(|(name, t)| format!(".SH {name}\n{t}")).collect();
    format!(
        "{}.SH NAME\nrrt\\-{} \\- {}\n.SH SYNOPSIS\n.B rrt\n[\\fIglobal flag\\fR ...] \\fB{}\\fR{flags}{words}\n\
         .SH DESCRIPTION\n{}\n{sections}.SH SEE ALSO\n.BR rrt (8)\n",
        head(&format!("rrt-{}", page.name), date),
        page.name,
        text(page.about),
        page.name,
        text(description(page.name).unwrap_or(page.about)),
    )
}
