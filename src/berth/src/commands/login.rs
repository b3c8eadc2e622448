//! `login`, `logout`.

use super::warn;
use crate::app::App;
use crate::cli::{Count, Leaf, arguments, is_on, switch, text, value};
use crate::exit::Exit;
use crate::output::terminal;
use clap::{ArgMatches, Command};
use rrt_oci::image::DEFAULT_REGISTRY;
use rrt_registry::{Credential, Stored};
use std::io::{self, IsTerminal, Read};

pub const LOGIN: Leaf = Leaf {
    name: "login",
    other_names: &[],
    about: "Authenticate to a registry",
    usage: "[OPTIONS] [SERVER]",
    aliases: &[],
    count: Count::AtMost(1),
    flags,
    run: login,
};

pub const LOGOUT: Leaf = Leaf {
    name: "logout",
    other_names: &[],
    about: "Log out from a registry",
    usage: "[SERVER]",
    aliases: &[],
    count: Count::AtMost(1),
    flags: |command| command,
    run: logout,
};

/// Longer is no password.
const MAX_PASSWORD: u64 = 1 << 20;

fn flags(command: Command) -> Command {
    command
        .arg(value("password", Some('p'), "string", "Password or Personal Access Token (PAT)"))
        .arg(switch("password-stdin", None, "Take the Password or Personal Access Token (PAT) from stdin"))
        .arg(value("username", Some('u'), "string", "Username"))
}

/// The registry's name as a reference has it: `https://index.docker.io/v1/` is docker.io.
fn registry(given: Option<&str>) -> String {
    let given = given.unwrap_or(DEFAULT_REGISTRY);
    let host = given.strip_prefix("https://").or(given.strip_prefix("http://")).unwrap_or(given);
    match host.split('/').next().unwrap_or_default() {
        "" | "index.docker.io" | "registry-1.docker.io" => DEFAULT_REGISTRY.to_owned(),
        host => host.to_owned(),
    }
}

fn login(app: &mut App, matches: &ArgMatches) -> Result<(), Exit> {
    let registry = registry(arguments(matches).first().copied());
    let (user, password) = (text(matches, "username"), text(matches, "password"));
    let from_stdin = is_on(matches, "password-stdin");
    if password.is_some() {
        if from_stdin {
            return Err(Exit::failed("--password and --password-stdin are mutually exclusive"));
        }
        warn("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
    }
    if from_stdin && user.unwrap_or_default().is_empty() {
        return Err(Exit::failed("the --password-stdin option requires --username to be set"));
    }
    let client = app.registry()?;
    let known = client.config().credentials.find(&registry, "").map_err(|e| Exit::error(&e))?;
    if let (None, None, false, Some(Credential::Basic { user, password })) = (user, password, from_stdin, &known) {
        app.out.line(&format!("Authenticating with existing credentials... [Username: {user}]"))?;
        match client.login(&registry, user, password) {
            Ok(_) => return app.out.line("\nLogin Succeeded"),
            Err(e) => warn(&format!("Login did not succeed, error: {e}")),
        }
    }
    let (user, password) = ask(user, password, from_stdin)?;
    match client.login(&registry, &user, &password) {
        Ok(done) => {
            if let Stored::File(path) = &done.stored {
                warn(&format!(
                    "\nWARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential helper to remove this \
                     warning: credHelpers or credsStore in that file.\n",
                    path.display()
                ));
            }
            if done.unchecked {
                warn(&format!("{registry} lets everybody in: name and password were not checked."));
            }
            app.out.line("Login Succeeded")
        }
        Err(e) => Err(Exit::error(&e)),
    }
}

/// Asks for what the flags do not say.
fn ask(user: Option<&str>, password: Option<&str>, from_stdin: bool) -> Result<(String, String), Exit> {
    let no_terminal = || Exit::failed("Error: cannot perform an interactive login from a non TTY device");
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::Interrupted => Exit::silent(130),
        _ => Exit::failed(format!("Error: can't read from the terminal: {e}")),
    };
    let user = match user.filter(|user| !user.is_empty()) {
        Some(user) => user.to_owned(),
        None if !io::stdin().is_terminal() => return Err(no_terminal()),
        None => terminal::ask("Username: ").map_err(failed)?,
    };
    if user.is_empty() {
        return Err(Exit::failed("Error: username is required"));
    }
    let password = match password {
        Some(password) => password.to_owned(),
        None if from_stdin => from_standard_input()?,
        None if !io::stdin().is_terminal() => return Err(no_terminal()),
        None => terminal::ask_secret("Password: ").map_err(failed)?,
    };
    if password.is_empty() {
        return Err(Exit::failed("Error: password is required"));
    }
    Ok((user, password))
}

fn from_standard_input() -> Result<String, Exit> {
    let mut text = String::new();
    let read = io::stdin().lock().take(MAX_PASSWORD).read_to_string(&mut text);
    read.map_err(|e| Exit::failed(format!("Error: can't read the password from standard input: {e}")))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

fn logout(app: &mut App, matches: &ArgMatches) -> Result<(), Exit> {
    let registry = registry(arguments(matches).first().copied());
    // Docker's name for it.
    let shown = if registry == DEFAULT_REGISTRY { "https://index.docker.io/v1/" } else { &registry };
    let removed = app.registry()?.logout(&registry).map_err(|e| Exit::error(&e))?;
    match removed {
        true => app.out.line(&format!("Removing login credentials for {shown}")),
        false => app.out.line(&format!("Not logged in to {shown}")),
    }
}
