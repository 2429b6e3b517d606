//! Whom a connection believes: the authorities of RDS, the public ones, or those of a file.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

/// The file says where it comes from.
const RDS: &[u8] = include_bytes!("../../certificates/rds.pem");

/// A connector that believes the authorities of `file` alone, or, without one, those of RDS and the public ones, which
/// an RDS proxy's certificates come from.
///
/// # Errors
/// What is wrong with the file.
pub(super) fn connector(file: Option<&Path>) -> Result<MakeRustlsConnect, String> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = file {
        let unread = |error: &dyn std::fmt::Display| format!("sslrootcert={} cannot be used: {error}", file.display());
        let pem = std::fs::read(file).map_err(|error| unread(&error))?;
        add(&mut roots, &pem).map_err(|error| unread(&error))?;
        if roots.is_empty() {
            return Err(unread(&"it holds no certificate"));
        }
    } else {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        add(&mut roots, RDS)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = versions.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

fn add(roots: &mut RootCertStore, pem: &[u8]) -> Result<(), String> {
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authorities_of_rds_are_all_readable() {
        let mut roots = RootCertStore::empty();
        add(&mut roots, RDS).unwrap();
        let carried = String::from_utf8_lossy(RDS).matches("BEGIN CERTIFICATE").count();
        assert!(carried > 80 && roots.len() == carried, "{} of {carried}", roots.len());
        assert!(connector(None).is_ok());
    }

    #[test]
    fn a_file_that_is_of_no_use_is_named() {
        let said = |file: &Path| connector(Some(file)).map(|_| ()).unwrap_err();
        assert!(said(Path::new("/nowhere/ca.pem")).contains("/nowhere/ca.pem"));
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        assert!(said(&own).contains("no certificate"), "{}", said(&own));
    }
}
