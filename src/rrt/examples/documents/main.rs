//! Man pages and shell completions, made from the table of commands that rrt reads its command line by. An example, so that nothing
//! of it is in the binary: `cargo run -p rrt --example documents -- DIR DATE`, or `hack/documents`.

#[path = "../../src/args/completion.rs"]
#[allow(dead_code, reason = "the binary uses the rest")]
mod completion;
#[path = "../../src/args/flags.rs"]
#[allow(dead_code, reason = "the binary uses the rest")]
mod flags;
#[cfg(test)]
#[path = "../../src/args/help.rs"]
mod help;
mod man;
#[path = "../../src/args/table.rs"]
#[allow(dead_code, reason = "the binary uses the rest")]
mod table;

use std::path::Path;

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [dir, date] = &args[..] else {
        return Err(std::io::Error::other("usage: documents DIR DATE"));
    };
    for (name, text) in documents(date) {
        let path = Path::new(dir).join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        std::fs::write(path, text)?;
    }
    Ok(())
}

/// Every file: its name, as it is installed below /usr/share, and its text.
fn documents(date: &str) -> Vec<(String, String)> {
    let table = &flags::TABLE;
    let mut all = man::pages(table, date);
    all.push(("bash-completion/completions/rrt".into(), completion::bash(table)));
    all.push(("zsh/vendor-completions/_rrt".into(), completion::zsh(table)));
    all.push(("fish/vendor_completions.d/rrt.fish".into(), completion::fish(table)));
    all
}

#[cfg(test)]
mod tests;
