//! SAS URLs as arguments: given outright, in the environment, or on standard input.

use std::io::{self, BufRead};

use azure_vm_fd::azure::{PageBlob, SasUrl, Transport};
use azure_vm_fd::config::TransferSettings;
use azure_vm_fd::secret::Secret;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::failure::Failure;

/// What stands for a line of standard input.
const STDIN: &str = "-";

/// Takes the SAS that `given` is or stands for.
///
/// # Errors
///
/// Standard input has no such line; it is not a URL with a SAS.
pub(crate) fn resolve(given: &Secret) -> Result<SasUrl, Failure> {
    if given.expose() != STDIN {
        return parse(given.expose());
    }
    let mut line = Zeroizing::new(String::new());
    io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| Failure::usage(format!("read a SAS URL from standard input: {error}")))?;
    parse(line.trim())
}

/// Connections for blobs that are reached by a SAS alone.
///
/// # Errors
///
/// An unusable CA file; no trusted roots.
pub(crate) fn transport(settings: &TransferSettings) -> Result<Transport, Failure> {
    let ca_file = settings.ca_file.as_deref();
    let connections = settings.limits.concurrency;
    Ok(Transport::new(ca_file, settings.allow_http, connections)?)
}

/// The blob, and how messages call it.
pub(crate) fn blob(
    transport: &Transport,
    sas: SasUrl,
    cancel: &CancellationToken,
) -> (PageBlob, String) {
    let name = format!("image {sas}");
    (PageBlob::from_sas(transport, sas, cancel.clone()), name)
}

fn parse(text: &str) -> Result<SasUrl, Failure> {
    SasUrl::parse(text).map_err(|error| Failure::usage(error.to_string()))
}
