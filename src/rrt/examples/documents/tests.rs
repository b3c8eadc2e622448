use super::*;
use std::process::Command;

fn document(name: &str) -> String {
    documents("2026-01-01").into_iter().find(|(n, _)| n.ends_with(name)).unwrap_or_else(|| panic!("{name}")).1
}

/// The help is another reader of the same table: every flag in it must be in every document.
#[test]
fn every_command_and_flag_is_in_each_document() {
    let (bash, zsh, fish) = (document("/rrt"), document("/_rrt"), document("rrt.fish"));
    let overview = document("/rrt.8");
    for entry in flags::TABLE.commands {
        let page = document(&format!("/rrt-{}.8", entry.name));
        assert!(overview.contains(&format!("rrt\\-{} (8)", entry.name)), "{}", entry.name);
        assert!(bash.contains(&format!("    '{}') flags=", entry.name)), "{}", entry.name);
        assert!(zsh.contains(&format!("            '{}:", entry.name)), "{}", entry.name);
        assert!(fish.contains(&format!(" -a {} -d ", entry.name)), "{}", entry.name);
        let help = help::of_command("rrt", entry);
        let words = help.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        for flag in words.filter(|w| w.starts_with("--") && w.len() > 2 && *w != "--help") {
            let name = flag.trim_start_matches('-').trim_end_matches('-');
            // A help text may speak of a flag of another command.
            if !help.lines().any(|l| l.trim_start().starts_with('-') && l.contains(flag)) {
                continue;
            }
            assert!(page.contains(&format!("\\fB\\-\\-{}\\fR", name.replace('-', "\\-"))), "{} {flag}", entry.name);
            let line = bash.lines().find(|l| l.contains(&format!("'{}') flags=", entry.name))).unwrap();
            assert!(line.contains(&format!("--{name} ")), "{} {flag}", entry.name);
            assert!(zsh.contains(&format!("--{name}")), "{} {flag}", entry.name);
            let of_fish = format!("'contains {} (__rrt_command)' -l {name}", entry.name);
            assert!(fish.contains(&of_fish), "{} {flag}", entry.name);
        }
    }
    assert!(overview.contains("\\fB\\-\\-log\\-format\\fR \\fIFORMAT\\fR"));
}

#[test]
fn every_command_is_described_and_every_flag_has_a_help_text() {
    for page in flags::TABLE.commands {
        assert!(man::description(page.name).is_some_and(|d| d.len() > page.about.len()), "{}", page.name);
        for flag in page.shown() {
            assert!(
                flag.help.len() > 5 && flag.help.starts_with(|c: char| !c.is_lowercase() || c == 's'),
                "{} --{}",
                page.name,
                flag.long
            );
        }
        for word in page.words {
            assert!(!word.help.is_empty(), "{} {}", page.name, word.name);
        }
    }
}

/// What bash offers for a command line whose last word is being typed.
fn offered(line: &[&str]) -> Vec<String> {
    let dir =
        std::env::temp_dir().join(format!("rrt-completion-{}-{}", std::process::id(), line.join("_").replace('/', "")));
    std::fs::create_dir_all(&dir).unwrap();
    // A runtime with one container here, and another one below another --root.
    let rrt = dir.join("rrt");
    std::fs::write(&rrt, "#!/bin/sh\ncase $* in '--root /x list --quiet') echo elsewhere ;; 'list --quiet') echo box; echo web ;; esac\n")
        .unwrap();
    std::fs::set_permissions(&rrt, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(dir.join("completion"), document("/rrt")).unwrap();
    std::fs::create_dir_all(dir.join("bundle")).unwrap();
    let script = "cd \"$1\" && . ./completion && shift && COMP_WORDS=(./rrt \"$@\") COMP_CWORD=$# && _rrt && printf '%s\\n' \"${COMPREPLY[@]}\"";
    let out = Command::new("bash").args(["--norc", "-euc", script, "bash"]).arg(&dir).args(line).output().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(out.status.success() && out.stderr.is_empty(), "{line:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().lines().map(str::to_owned).filter(|l| !l.is_empty()).collect()
}

#[test]
fn bash_completes() {
    assert_eq!(offered(&["ev"]), ["events"]);
    assert_eq!(offered(&[""]).len(), flags::TABLE.commands.len());
    assert_eq!(offered(&["--log-format", "j"]), ["json"]);
    assert_eq!(offered(&["--log-fo"]), ["--log-format"]);
    assert_eq!(offered(&["delete", ""]), ["box", "web"]);
    assert_eq!(offered(&["--root", "/x", "delete", ""]), ["elsewhere"]);
    assert_eq!(offered(&["--root", "=", "/x", "delete", ""]), ["elsewhere"]);
    assert_eq!(offered(&["delete", "--force", "w"]), ["web"]);
    assert_eq!(offered(&["list", "--format", ""]), ["table", "json"]);
    assert_eq!(offered(&["list", "--format", "="]), ["table", "json"]);
    assert_eq!(offered(&["run", "--bundle", "bu"]), ["bundle"]);
    assert_eq!(offered(&["exec", "--proc"]), ["--process", "--process-label"]);
    assert_eq!(offered(&["kill", "box", "KI"]), ["KILL"]);
    assert_eq!(offered(&["help", "res"]), ["resume", "restore"]);
    // A new container has no name to offer, and a program in it is not ours to know.
    assert!(offered(&["create", ""]).is_empty() && offered(&["exec", "box", ""]).is_empty());
}
