//! The webhook's certificate: read from a directory, followed as it changes; and made, where nobody else makes one.
//!
//! The directory holds `tls.crt` and `tls.key` (and `ca.crt` for whoever configures the API server), as a mounted Secret
//! does. `app` follows it with [`Certificate::load`]; the playground fills it with [`self_signed`]. Knows no sockets.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::RwLock;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

/// File of the certificate chain.
pub const CERTIFICATE_FILE: &str = "tls.crt";
/// File of its key.
pub const KEY_FILE: &str = "tls.key";
/// File of the authority that the API server is told to trust.
pub const AUTHORITY_FILE: &str = "ca.crt";

/// How long a self-signed certificate lives.
const LIFETIME: Duration = Duration::from_hours(90 * 24);
/// Clocks differ.
const BACKDATED: Duration = Duration::from_hours(1);
/// Largest file that is read.
const MAX_FILE: u64 = 64 * 1024;

/// The certificate in use; clones share it. Handshakes fail until one is loaded.
#[derive(Debug, Clone, Default)]
pub struct Certificate {
    current: Arc<RwLock<Option<Loaded>>>,
}

#[derive(Debug)]
struct Loaded {
    pem: (Vec<u8>, Vec<u8>),
    key: Arc<CertifiedKey>,
}

/// Why a certificate could not be loaded; the last good one stays in use.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file cannot be read.
    #[error("read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not PEM, or not of the kind that is needed.
    #[error("read {path} as PEM: {source}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls_pki_types::pem::Error,
    },
    /// Certificate and key do not belong together, or are of an unknown kind.
    #[error("use the certificate and key in {path}: {source}")]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

impl Certificate {
    /// Loads what the directory holds. Says whether that changed anything.
    pub fn load(&self, directory: &Path) -> Result<bool, LoadError> {
        let (chain_path, key_path) = (directory.join(CERTIFICATE_FILE), directory.join(KEY_FILE));
        let pem = (read(&chain_path)?, read(&key_path)?);
        if self.current.read().as_ref().is_some_and(|loaded| loaded.pem == pem) {
            return Ok(false);
        }
        let chain = CertificateDer::pem_slice_iter(&pem.0).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|source| LoadError::Pem { path: chain_path, source })?;
        let key = PrivateKeyDer::from_pem_slice(&pem.1).map_err(|source| LoadError::Pem { path: key_path, source })?;
        let key = CertifiedKey::from_der(chain, key, &mesh_runtime::tls::provider());
        let key = Arc::new(key.map_err(|source| LoadError::Unusable { path: directory.to_owned(), source })?);
        *self.current.write() = Some(Loaded { pem, key });
        Ok(true)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.read().as_ref().map(|loaded| Arc::clone(&loaded.key))
    }
}

/// Reads a small file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let limited = || {
        let size = fs::metadata(path)?.len();
        if size > MAX_FILE {
            Err(io::Error::other(format!("{size} bytes, more than {MAX_FILE}")))
        } else {
            fs::read(path)
        }
    };
    limited().map_err(|source| LoadError::Read { path: path.to_owned(), source })
}

/// A certificate with its key and authority, as PEM.
#[derive(Clone)]
pub struct SelfSigned {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// The authority that signed it, whose own key is gone.
    pub authority: String,
}

/// Makes a certificate for these DNS names and addresses, good for 90 days.
pub fn self_signed(names: &[&str]) -> Result<SelfSigned, rcgen::Error> {
    let now = SystemTime::now();
    let params = |names: Vec<String>, common_name: &str| {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.not_before = (now - BACKDATED).into();
        params.not_after = (now + LIFETIME).into();
        Ok::<_, rcgen::Error>(params)
    };
    let mut authority = params(Vec::new(), "mesh-injector authority")?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority_key = KeyPair::generate()?;
    let authority_certificate = authority.self_signed(&authority_key)?;
    let mut leaf = params(names.iter().map(|name| (*name).to_owned()).collect(), "mesh-injector")?;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let certificate = leaf.signed_by(&key, &Issuer::new(authority, authority_key))?;
    Ok(SelfSigned { certificate: certificate.pem(), key: key.serialize_pem(), authority: authority_certificate.pem() })
}

impl SelfSigned {
    /// Writes the three files into a directory; the key readable by its owner alone.
    pub fn write_to(&self, directory: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        for (file, text) in
            [(KEY_FILE, &self.key), (CERTIFICATE_FILE, &self.certificate), (AUTHORITY_FILE, &self.authority)]
        {
            // Whoever follows the directory sees each file whole.
            let (path, whole) = (directory.join(format!(".{file}")), directory.join(file));
            let mut open = fs::OpenOptions::new();
            let mut out = open.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            out.write_all(text.as_bytes())?;
            fs::rename(path, whole)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_loaded_once_and_again_when_it_changed() {
        let directory = tempfile::tempdir().unwrap();
        let certificate = Certificate::default();
        assert!(matches!(certificate.load(directory.path()), Err(LoadError::Read { .. })));
        self_signed(&["localhost"]).unwrap().write_to(directory.path()).unwrap();
        assert!(certificate.load(directory.path()).unwrap());
        assert!(!certificate.load(directory.path()).unwrap());
        self_signed(&["localhost", "127.0.0.1"]).unwrap().write_to(directory.path()).unwrap();
        assert!(certificate.load(directory.path()).unwrap());
    }

    #[test]
    fn what_cannot_be_used_leaves_the_last_good_certificate() {
        let directory = tempfile::tempdir().unwrap();
        let good = self_signed(&["localhost"]).unwrap();
        good.write_to(directory.path()).unwrap();
        let certificate = Certificate::default();
        certificate.load(directory.path()).unwrap();
        let kept = Arc::clone(&certificate.current.read().as_ref().unwrap().key);
        let other = self_signed(&["localhost"]).unwrap();
        for bad in [
            SelfSigned { key: other.key, ..good.clone() },
            SelfSigned { key: "garbage".into(), ..good.clone() },
            SelfSigned { certificate: String::new(), ..good },
        ] {
            bad.write_to(directory.path()).unwrap();
            let error = certificate.load(directory.path()).unwrap_err();
            assert!(error.to_string().contains(directory.path().to_str().unwrap()), "{error}");
            assert!(Arc::ptr_eq(&kept, &certificate.current.read().as_ref().unwrap().key));
        }
    }
}
