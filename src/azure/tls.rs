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

    use super::*;

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
