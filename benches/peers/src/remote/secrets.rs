//! An authority made for this run, and the certificates of server and client.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub const HOST: &str = "localhost";

/// Gone from disk when dropped.
pub struct Secrets(PathBuf);

impl Secrets {
    pub fn make() -> Secrets {
        let folder = std::env::temp_dir().join(format!("bulkhead-peers-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for the certificates");
        let mut authority = CertificateParams::new(vec![]).expect("no names");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        write(&folder, "ca.pem", &authority.self_signed(&key).expect("a certificate").pem());
        let issuer = Issuer::new(authority, key);
        for who in ["server", "client"] {
            let key = KeyPair::generate().expect("a key");
            let names = CertificateParams::new(vec![HOST.to_string()]).expect("a name");
            let certificate = names.signed_by(&key, &issuer).expect("a certificate");
            write(&folder, &format!("{who}.pem"), &certificate.pem());
            write(&folder, &format!("{who}.key"), &key.serialize_pem());
        }
        Secrets(folder)
    }
    pub fn folder(&self) -> &Path {
        &self.0
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).expect("the certificates' folder");
}

pub fn pem(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).expect("a certificate")
}

fn own(folder: &Path, who: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let certificate = CertificateDer::from_pem_file(folder.join(format!("{who}.pem"))).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(folder.join(format!("{who}.key"))).expect("a key");
    (vec![certificate], key)
}

fn roots(folder: &Path) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.pem")).expect("the authority")).expect("the authority");
    Arc::new(roots)
}

pub fn acceptor(folder: &Path) -> tokio_rustls::TlsAcceptor {
    let (certificate, key) = own(folder, "server");
    let clients = rustls::server::WebPkiClientVerifier::builder(roots(folder)).build().expect("a verifier");
    let config = ServerConfig::builder().with_client_cert_verifier(clients).with_single_cert(certificate, key);
    Arc::new(config.expect("a TLS server")).into()
}

pub fn connector(folder: &Path) -> tokio_rustls::TlsConnector {
    let (certificate, key) = own(folder, "client");
    let config = ClientConfig::builder().with_root_certificates(roots(folder)).with_client_auth_cert(certificate, key);
    Arc::new(config.expect("a TLS client")).into()
}

pub fn host() -> ServerName<'static> {
    ServerName::try_from(HOST).expect("a name")
}
