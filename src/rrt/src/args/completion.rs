//! Completions for bash, zsh and fish: commands, flags, values of flags, and the names of containers, which `rrt list` tells.

use super::flags::TABLE;
use super::table::{Entry, Flag, Kind, Table, Values};
use std::fmt::Write as _;

/// A shell there is a completion for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Shell {
    /// Its script for all commands.
    pub fn script(self) -> String {
        match self {
            Shell::Bash => bash(&TABLE),
            Shell::Zsh => zsh(&TABLE),
            Shell::Fish => fish(&TABLE),
        }
    }
}

/// The program, whose name is empty, and each command, with its flags.
fn scopes(table: &Table) -> impl Iterator<Item = (&'static str, Vec<&'static Flag>)> {
    std::iter::once(&table.global).chain(table.commands).map(|entry| (entry.name, entry.shown()))
}

fn spellings(flags: &[&Flag], which: impl Fn(&Flag) -> bool) -> String {
    flags.iter().filter(|f| which(f)).flat_map(|flag| flag.spellings()).collect::<Vec<_>>().join(" ")
}

/// For bash, sourced or found by bash-completion.
pub fn bash(table: &Table) -> String {
    let names: Vec<_> = table.commands.iter().map(|c| c.name).collect();
    let (mut flags, mut values, mut containers) = (String::new(), String::new(), Vec::new());
    for (scope, list) in scopes(table) {
        let (all, taking) = (spellings(&list, |_| true), spellings(&list, |f| f.value().is_some()));
        let _ = writeln!(flags, "    '{scope}') flags='{all} --help' taking=' {taking} ' ;;");
        for flag in list {
            let words = match flag.values() {
                Values::Files => "-f".to_string(),
                Values::Directories => "-d".to_string(),
                Values::Of(words) => format!("-W '{}'", words.join(" ")),
                Values::Unknown => continue,
            };
            for spelling in flag.spellings() {
                let _ = writeln!(values, "    '{scope} {spelling}') how=({words}) ;;");
            }
        }
    }
    containers.extend(table.commands.iter().filter(|c| c.takes_container()).map(|c| c.name));
    format!(
        "# bash completion for rrt(8), made from its table of commands\n\n\
         # Sets: flags, and taking (those with a value), of a command or, for '', of rrt itself.\n\
         _rrt_flags() {{\n    case $1 in\n{flags}    *) flags='' taking='' ;;\n    esac\n}}\n\n\
         # Sets: how compgen makes the values of a flag.\n\
         _rrt_values() {{\n    how=()\n    case $1 in\n{values}    esac\n}}\n\n\
         _rrt() {{\n\
         \x20   local cur=${{COMP_WORDS[COMP_CWORD]}} command='' root=() flags taking how=() i word words=0 pending=''\n\
         \x20   COMPREPLY=()\n\
         \x20   [ \"$cur\" = = ] && cur=''\n\
         \x20   _rrt_flags ''\n\
         \x20   for ((i = 1; i < COMP_CWORD; i++)); do\n\
         \x20       word=${{COMP_WORDS[i]}}\n\
         \x20       # bash takes `--flag=value` for three words.\n\
         \x20       [ \"$word\" = = ] && continue\n\
         \x20       if [ \"$pending\" ]; then\n\
         \x20           [ \"$pending\" = --root ] && root=(--root \"$word\")\n\
         \x20           pending=''\n\
         \x20       elif [[ $word == -* && $taking == *\" $word \"* ]]; then\n\
         \x20           pending=$word\n\
         \x20       elif [[ $word == -* ]]; then\n\
         \x20           :\n\
         \x20       elif [ ! \"$command\" ]; then\n\
         \x20           command=$word\n\
         \x20           _rrt_flags \"$command\"\n\
         \x20       else\n\
         \x20           words=$((words + 1))\n\
         \x20       fi\n\
         \x20   done\n\
         \x20   if [ \"$pending\" ]; then\n\
         \x20       _rrt_values \"$command $pending\"\n\
         \x20   elif [[ $cur == -* ]]; then\n\
         \x20       how=(-W \"$flags\")\n\
         \x20   elif [ ! \"$command\" ] || [ \"$command$words\" = help0 ]; then\n\
         \x20       how=(-W '{}')\n\
         \x20   elif [ $words = 0 ] && [[ ' {} ' == *\" $command \"* ]]; then\n\
         \x20       how=(-W \"$(\"${{COMP_WORDS[0]}}\" \"${{root[@]}}\" list --quiet 2>/dev/null)\")\n\
         \x20   elif [ \"$command$words\" = completion0 ]; then\n\
         \x20       how=(-W 'bash zsh fish')\n\
         \x20   elif [ \"$command$words\" = kill1 ]; then\n\
         \x20       how=(-W '{SIGNALS}')\n\
         \x20   fi\n\
         \x20   [ ${{#how[@]}} = 0 ] || mapfile -t COMPREPLY < <(compgen \"${{how[@]}}\" -- \"$cur\")\n\
         }}\n\ncomplete -F _rrt rrt\n",
        names.join(" "),
        containers.join(" "),
    )
}

const SIGNALS: &str = "TERM KILL HUP INT QUIT USR1 USR2 STOP CONT WINCH";

/// In single quotes, for zsh and fish.
fn quoted(text: &str) -> String {
    text.replace('\'', "’")
}

/// In a specification of zsh's _arguments, where brackets and colons mean something.
fn zsh_text(text: &str) -> String {
    quoted(text).replace('[', "\\[").replace(']', "\\]").replace(':', "\\:")
}

fn zsh_flags(flags: &[&Flag]) -> String {
    let mut out = String::new();
    for flag in flags {
        let action = match flag.values() {
            Values::Files => "_files".into(),
            Values::Directories => "_files -/".into(),
            Values::Of(words) => format!("({})", words.join(" ")),
            Values::Unknown => String::new(),
        };
        for spelling in flag.spellings() {
            let many = if matches!(flag.kind, Kind::Repeatable(_)) { "*" } else { "" };
            let (equals, value) = match flag.value() {
                Some(value) => {
                    (if spelling.starts_with("--") { "=" } else { "" }, format!(":{}:{action}", zsh_text(value)))
                }
                None => ("", String::new()),
            };
            let _ = writeln!(out, "            '{many}{spelling}{equals}[{}]{value}' \\", zsh_text(flag.help));
        }
    }
    out
}

/// For zsh, in a directory of $fpath.
pub fn zsh(table: &Table) -> String {
    let list: String =
        table.commands.iter().map(|c| format!("            '{}:{}'\n", c.name, zsh_text(c.about))).collect();
    let word = |page: &Entry| match page.name {
        "help" => "            '1:command:_rrt_commands'\n".to_string(),
        "completion" => "            '1:shell:(bash zsh fish)'\n".to_string(),
        "kill" => format!("            '1:container:_rrt_containers' '2:signal:({SIGNALS})'\n"),
        "exec" => "            '1:container:_rrt_containers' '*::program: _normal'\n".into(),
        _ if page.takes_container() => "            '1:container:_rrt_containers' '*:word:'\n".into(),
        _ => "            '*:word:'\n".into(),
    };
    let cases: String = table
        .commands
        .iter()
        .map(|c| {
            format!(
                "        {})\n            _arguments \\\n{}{}            ;;\n",
                c.name,
                zsh_flags(&c.shown()),
                word(c)
            )
        })
        .collect();
    format!(
        "#compdef rrt\n# zsh completion for rrt(8), made from its table of commands\n\n\
         _rrt_containers() {{\n    local -a names\n    names=(${{(f)\"$(rrt ${{rrt_root:+--root}} $rrt_root list --quiet 2>/dev/null)\"}})\n    _describe -t containers container names\n}}\n\n\
         _rrt_commands() {{\n    local -a commands\n    commands=(\n{list}    )\n    _describe -t commands command commands\n}}\n\n\
         _rrt() {{\n    local curcontext=$curcontext state line rrt_root\n    typeset -A opt_args\n    _arguments -C \\\n{}            '1:command:_rrt_commands' '*::argument:->argument'\n\
         \x20   rrt_root=${{opt_args[--root]}}\n\
         \x20   [[ $state == argument ]] || return\n    case $words[1] in\n{cases}    esac\n}}\n\n_rrt \"$@\"\n",
        zsh_flags(&table.global.shown()),
    )
}

/// For fish, in a directory of vendor_completions.d.
pub fn fish(table: &Table) -> String {
    let taking = spellings(&table.global.shown(), |f| f.value().is_some());
    let mut out = format!(
        "# fish completion for rrt(8), made from its table of commands\n\n\
         function __rrt_command --description 'The command on the line'\n    set -l skip 0\n\
         \x20   for word in (commandline -opc)[2..]\n        if test $skip = 1\n            set skip 0\n            continue\n        end\n\
         \x20       switch $word\n            case {taking}\n                set skip 1\n            case '-*'\n            case '*'\n                echo $word\n                return\n\
         \x20       end\n    end\n    echo none\nend\n\ncomplete -c rrt -f\n"
    );
    for page in table.commands {
        let _ = writeln!(
            out,
            "complete -c rrt -n 'contains none (__rrt_command)' -a {} -d '{}'",
            page.name,
            quoted(page.about)
        );
        if page.name == "completion" {
            out.push_str("complete -c rrt -n 'contains completion (__rrt_command)' -a 'bash zsh fish'\n");
        }
        if page.takes_container() {
            let _ = writeln!(
                out,
                "complete -c rrt -n 'contains {} (__rrt_command)' -a '(rrt list --quiet 2>/dev/null)'",
                page.name
            );
        }
    }
    for (scope, list) in scopes(table) {
        let scope = if scope.is_empty() { "none" } else { scope };
        for flag in list {
            let short = flag.short.map(|s| format!(" -s {s}")).unwrap_or_default();
            let value = match (flag.value(), flag.values()) {
                (None, _) => String::new(),
                (_, Values::Files) => " -r -F".into(),
                (_, Values::Directories) => " -x -a '(__fish_complete_directories)'".into(),
                (_, Values::Of(words)) => format!(" -x -a '{}'", words.join(" ")),
                (_, Values::Unknown) => " -x".into(),
            };
            let _ = writeln!(
                out,
                "complete -c rrt -n 'contains {scope} (__rrt_command)' -l {}{short}{value} -d '{}'",
                flag.long,
                quoted(flag.help)
            );
        }
    }
    out
}
