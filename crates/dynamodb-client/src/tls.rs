//! The TLS configuration, shared by all connections of the process: [`client_config`].
//!
//! It is that of the SDK's own HTTP client: rustls with aws-lc-rs, and the certificate authorities of the system, which
//! the variables `SSL_CERT_FILE` and `SSL_CERT_DIR` replace. TLS sessions are kept in memory and resumed.

use std::sync::{Arc, LazyLock};

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, RootCertStore};

static CONFIG: LazyLock<Result<Arc<ClientConfig>, String>> = LazyLock::new(|| {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (valid, _) = roots.add_parsable_certificates(loaded.certs);
    if valid == 0 {
        let reasons: Vec<String> = loaded.errors.iter().map(ToString::to_string).collect();
        return Err(format!("the system has no certificate authorities: {}", reasons.join(", ")));
    }
    config_with(roots).map_err(|error| error.to_string())
});

/// Returns the configuration. The first call reads the certificate authorities of the system.
pub(crate) fn client_config() -> Result<Arc<ClientConfig>, String> {
    CONFIG.clone()
}

/// Returns a configuration that trusts these certificate authorities.
pub(crate) fn config_with(roots: RootCertStore) -> Result<Arc<ClientConfig>, rustls::Error> {
    let config =
        ClientConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions()?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}
