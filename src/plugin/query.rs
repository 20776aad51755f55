//! Questions of a console: `.query plugin="azure-vm:" parameter=NAME` (daemons of version 11 and later).

use std::path::Path;

use super::host::Host;
use super::session::Session;
use crate::config::{self, DEFAULT_CONFIG_FILE};
use crate::notice::with_causes;
use crate::query::{Sources, answer, failure};

/// Answers `parameter`; every failure is part of the answer.
pub(super) fn text(
    session: &mut Session,
    host: &dyn Host,
    parameter: &str,
    command: &str,
) -> String {
    let sources = Sources {
        settings: session
            .settings(host, command)
            .map_err(|error| error.chain()),
        groups: config::groups_of_command(command, Path::new(DEFAULT_CONFIG_FILE))
            .map_err(|error| with_causes(&error)),
        state: session
            .find_state_folder(host)
            .map_err(|error| error.chain()),
        cancel: session.cancel.clone(),
    };
    let answered = session
        .bridge()
        .map(|bridge| bridge.run(answer(parameter, &sources), || ()));
    // A message of a console command goes to the console at once, in front of the answer, whose first line is fixed.
    session.notices.clear();
    let answer = match answered {
        Ok(Some(answer)) => answer,
        Ok(None) => failure(parameter, "gave up waiting"),
        Err(error) => failure(parameter, &error.chain()),
    };
    answer.to_string()
}
