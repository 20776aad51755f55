//! Whom to trust, and how to talk to them in private.

use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::{Error, ErrorKind};

/// TLS 1.2 or 1.3, trusting the system's roots and those of `ca_file` (PEM).
///
/// # Errors
///
/// An unusable CA file; no trusted roots at all.
pub(super) fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig, Error> {
    let roots = trusted_roots(ca_file)?;
    // The provider is passed on, never installed: a plugin must not decide for the whole process.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map(|builder| builder.with_root_certificates(roots).with_no_client_auth())
        .map_err(|error| {
            Error::new(
                ErrorKind::Configuration,
                "prepare TLS",
                &"",
                error.to_string(),
            )
        })
}

fn trusted_roots(ca_file: Option<&Path>) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::debug!("system trust store: {error}");
    }
    let (_added, ignored) = roots.add_parsable_certificates(system.certs);
    if ignored > 0 {
        tracing::debug!(ignored, "system trust store: unusable certificates");
    }
    if let Some(path) = ca_file {
        add_ca_file(&mut roots, path)?;
    }
    if roots.is_empty() {
        return Err(Error::new(
            ErrorKind::Configuration,
            "load trusted certificates",
            &"",
            "the system has none; install the package ca-certificates, or name a PEM file with ca_file",
        ));
    }
    Ok(roots)
}

fn add_ca_file(roots: &mut RootCertStore, path: &Path) -> Result<(), Error> {
    let refuse = |cause: String| {
        Error::new(
            ErrorKind::Configuration,
            "read CA file",
            &path.display(),
            cause,
        )
    };
    let pem = std::fs::read(path).map_err(|error| refuse(error.to_string()))?;
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| refuse(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| refuse(error.to_string()))?;
        count += 1;
    }
    if count == 0 {
        return Err(refuse("no certificate in it; PEM is expected".into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use rustls::{ClientConnection, PeerIncompatible};

    use super::*;

    /// A connection that has said its first word, and the record that says it.
    fn hello() -> (ClientConnection, Vec<u8>) {
        let config = Arc::new(client_config(None).unwrap());
        let name = "management.azure.com".try_into().unwrap();
        let mut connection = ClientConnection::new(config, name).unwrap();
        let mut record = Vec::new();
        connection.write_tls(&mut record).unwrap();
        (connection, record)
    }

    #[test]
    fn only_tls_1_2_and_1_3_are_offered() {
        let (_, record) = hello();
        // RFC 8446, 4.2.1: extension 43, length 5, list of 4 bytes.
        let offered = [0, 43, 0, 5, 4, 3, 4, 3, 3];
        assert!(record.windows(9).any(|window| window == offered));
    }

    #[test]
    fn servers_of_older_versions_are_refused() {
        for (minor, suite) in [(1, [0, 0x2f]), (2, [0, 0x2f]), (0, [0, 0x05])] {
            let (mut connection, _) = hello();
            // ServerHello: version, random, no session, suite, no compression.
            let mut body = vec![3, minor];
            body.extend([7; 32]);
            body.extend([0, suite[0], suite[1], 0]);
            let mut record = vec![22, 3, minor, 0, 42, 2, 0, 0, 38];
            record.extend(&body);
            connection.read_tls(&mut &*record).unwrap();
            let error = connection.process_new_packets().unwrap_err();
            assert!(
                matches!(
                    error,
                    rustls::Error::PeerIncompatible(
                        PeerIncompatible::ServerDoesNotSupportTls12Or13
                    )
                ),
                "3.{minor}: {error:?}"
            );
        }
    }

    #[test]
    fn unusable_ca_files_are_named() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"not PEM").unwrap();
        for path in [file.path(), Path::new("/no/such/file.pem")] {
            let error = client_config(Some(path)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            let text = error.to_string();
            assert!(
                text.starts_with(&format!("read CA file {}: ", path.display())),
                "{text}"
            );
        }
    }
}
