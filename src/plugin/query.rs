//! Questions of a console: `.query plugin="azure-vm:" parameter=NAME` (daemons of version 11 and later).

use std::path::Path;

use super::error::Error;
use super::host::Host;
use super::session::Session;
use crate::config::{self, DEFAULT_CONFIG_FILE};

/// First line of every answer.
const HEAD: &str = "info=Query\n";

/// Fixed by the contract.
const UNKNOWN: &str =
    "Query not recognized, possible value={CONNECTION, VM}\ninfo=GROUP is known, too\n";

/// Answers `parameter`; every failure is part of the answer.
pub(super) fn answer(
    session: &mut Session,
    host: &dyn Host,
    parameter: &str,
    command: &str,
) -> String {
    let lines = match parameter.to_ascii_uppercase().as_str() {
        "CONNECTION" => {
            let state = match login(session, host, command) {
                Ok(()) => "OK",
                Err(error) => {
                    tracing::warn!("{}", error.chain());
                    "NOK"
                }
            };
            format!("CONNECTION={state}\n")
        }
        "VM" => listed("VM", virtual_machines(session, host, command)),
        "GROUP" => listed(
            "GROUP",
            config::groups_of_command(command, Path::new(DEFAULT_CONFIG_FILE)).map_err(Error::from),
        ),
        _ => UNKNOWN.to_owned(),
    };
    format!("{HEAD}{lines}")
}

fn listed(key: &str, values: Result<Vec<String>, Error>) -> String {
    match values {
        Ok(values) => values
            .iter()
            .map(|value| format!("{key}={value}\n"))
            .collect(),
        Err(error) => format!("error={}\n", error.chain().replace('\n', "; ")),
    }
}

fn login(session: &mut Session, host: &dyn Host, command: &str) -> Result<(), Error> {
    let settings = session.settings(host, command)?;
    let azure = session.connect(&settings)?;
    let login = session.bridge()?.race(azure.login());
    Ok(login.ok_or(Error::Cancelled)??)
}

/// All VMs that Azure lists, whatever the command selects, by name.
fn virtual_machines(
    session: &mut Session,
    host: &dyn Host,
    command: &str,
) -> Result<Vec<String>, Error> {
    let settings = session.settings(host, command)?;
    let azure = session.connect(&settings)?;
    let listing = session.bridge()?.race(azure.virtual_machines());
    let mut names: Vec<_> = listing
        .ok_or(Error::Cancelled)??
        .iter()
        .filter_map(|vm| vm["name"].as_str().map(str::to_owned))
        .collect();
    names.sort();
    Ok(names)
}
