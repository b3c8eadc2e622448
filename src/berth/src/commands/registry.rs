//! `registry serve`.

use crate::app::App;
use crate::cli::{Count, Leaf, is_on, switch, text, value};
use crate::exit::Exit;
use clap::{ArgMatches, Command};
use rrt_registry_server::{Config, serve};
use std::io::{self, Write};
use std::net::SocketAddr;

pub const SERVE: Leaf = Leaf {
    name: "serve",
    other_names: &[],
    about: "Serve the distribution API until SIGTERM or Ctrl-C",
    usage: "[OPTIONS]",
    aliases: &[],
    count: Count::Exactly(0),
    flags,
    run,
};

const DEFAULT: &str = "127.0.0.1:5000";

fn flags(command: Command) -> Command {
    command
        .arg(value(
            "htpasswd",
            None,
            "string",
            "File of users (htpasswd -B), who may do everything; without it everybody may",
        ))
        .arg(value("listen", Some('l'), "string", "Address and port (default 127.0.0.1:5000); port 0 takes a free one"))
        .arg(switch("quiet", Some('q'), "Do not log requests"))
        .arg(switch("read-only", None, "Refuse pushes and deletions"))
}

/// `PORT` alone is one of loopback.
fn address(given: &str) -> Result<SocketAddr, Exit> {
    let whole = if given.contains(':') { given.to_owned() } else { format!("127.0.0.1:{given}") };
    whole.parse().map_err(|_| {
        Exit::failed(format!("Error: --listen {given}: expected ADDRESS:PORT, such as {DEFAULT} or [::]:5000"))
    })
}

fn run(app: &mut App, matches: &ArgMatches) -> Result<(), Exit> {
    let listen = address(text(matches, "listen").unwrap_or(DEFAULT))?;
    let quiet = is_on(matches, "quiet");
    let config = Config {
        listen,
        content: app.images()?.content().clone(),
        htpasswd: text(matches, "htpasswd").map(Into::into),
        read_only: is_on(matches, "read-only"),
        log: Box::new(move |line| {
            if !quiet {
                let _ = writeln!(io::stderr(), "{line}");
            }
        }),
    };
    serve(config, |address| {
        let _ = app.out.line(&format!("serving on http://{address}"));
    })
    .map_err(|e| Exit::error(&e))
}
