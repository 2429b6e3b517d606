//! The certificate authorities that a connection trusts: those of RDS and the public ones, or those of a file.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

/// The origin of the file is stated in the file.
const RDS: &[u8] = include_bytes!("../../certificates/rds.pem");

/// The certificate authorities in a file.
pub(super) type CaBundle = Vec<CertificateDer<'static>>;

/// Reads a file of certificate authorities.
///
/// # Errors
/// A description of the problem with the file.
pub(super) fn authorities(file: &Path) -> Result<CaBundle, String> {
    let unusable = |error: &dyn std::fmt::Display| format!("has sslrootcert={}: {error}", file.display());
    let pem = std::fs::read(file).map_err(|error| unusable(&error))?;
    let found = certificates(&pem).map_err(|error| unusable(&error))?;
    if found.is_empty() {
        return Err(unusable(&"the file contains no certificate"));
    }
    add(&mut RootCertStore::empty(), &found).map_err(|error| unusable(&error))?;
    Ok(found)
}

/// Creates a connector that trusts only `own` or, without it, the authorities of RDS and the public ones. The latter
/// issue the certificates of RDS Proxy.
///
/// # Errors
/// A description of the problem with the certificates.
pub(super) fn connector(own: Option<&CaBundle>) -> Result<MakeRustlsConnect, String> {
    let mut roots = RootCertStore::empty();
    if let Some(own) = own {
        add(&mut roots, own)?;
    } else {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        add(&mut roots, &certificates(RDS)?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = versions.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

fn certificates(pem: &[u8]) -> Result<CaBundle, String> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| error.to_string())
}

fn add(roots: &mut RootCertStore, certificates: &CaBundle) -> Result<(), String> {
    certificates.iter().try_for_each(|one| roots.add(one.clone()).map_err(|error| error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authorities_of_rds_are_all_readable() {
        let mut roots = RootCertStore::empty();
        add(&mut roots, &certificates(RDS).unwrap()).unwrap();
        let carried = String::from_utf8_lossy(RDS).matches("BEGIN CERTIFICATE").count();
        assert!(carried > 80 && roots.len() == carried, "{} of {carried}", roots.len());
        assert!(connector(None).is_ok());
    }

    #[test]
    fn a_file_that_is_of_no_use_is_named() {
        assert!(authorities(Path::new("/nowhere/ca.pem")).unwrap_err().contains("/nowhere/ca.pem"));
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        assert!(authorities(&own).unwrap_err().contains("no certificate"));
        let rds = Path::new(env!("CARGO_MANIFEST_DIR")).join("certificates/rds.pem");
        assert!(connector(Some(&authorities(&rds).unwrap())).is_ok());
    }
}
