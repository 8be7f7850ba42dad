//! Which roots of trust are in force, in the order of contracts §6: the last bundle from the controller, the file it keeps up
//! to date, the text that the injector put in.
//!
//! Whoever connects asks at every attempt, so that a file that appears later counts. An earlier source is never skipped
//! because the connection fails with it: whoever holds a root that was withdrawn could bring that about. It opens no
//! connection.

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
    sync::Arc,
};

use arc_swap::ArcSwapOption;
use mesh_proto::{names, trust::TrustBundle};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use crate::{
    config::TrustSources,
    tls::{Roots, RootsError},
};

/// Largest file that is read: a bundle of many roots is some 30 KiB.
const MAX_FILE: u64 = 1024 * 1024;

/// The roots of trust. Cloning is a reference count.
#[derive(Clone, Debug)]
pub struct Trust(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    trust_domain: String,
    sources: TrustSources,
    received: ArcSwapOption<Roots>,
}

/// Where roots came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The controller, in this life of the process.
    Controller,
    /// The controller, in an earlier life of the container.
    StateDir,
    /// The file that the controller keeps up to date.
    File,
    /// The environment.
    Environment,
}

impl Source {
    /// For logs and the admin page.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::StateDir => "state directory",
            Self::File => "bundle file",
            Self::Environment => "environment",
        }
    }
}

/// No source has roots that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there are no usable roots of trust ({}); inject the pod again", .0.join("; "))]
pub struct NoRoots(pub Vec<String>);

impl Trust {
    /// Of a trust domain.
    pub fn new(trust_domain: &str, sources: TrustSources) -> Self {
        Self(Arc::new(Shared { trust_domain: trust_domain.to_owned(), sources, received: ArcSwapOption::empty() }))
    }

    /// The roots in force now. A source that cannot be used is passed over with a warning.
    pub fn roots(&self) -> Result<(Arc<Roots>, Source), NoRoots> {
        if let Some(roots) = self.0.received.load_full() {
            return Ok((roots, Source::Controller));
        }
        let Shared { trust_domain, sources, received: _ } = &*self.0;
        let state = sources.state_dir.as_ref().map(|dir| dir.join(names::TRUST_BUNDLE_KEY));
        let mut reasons = Vec::new();
        let mut usable = |source: Source, text: Result<Option<String>, io::Error>| {
            let roots = match text {
                Ok(None) => Err("is absent".to_owned()),
                Ok(Some(text)) => read_pem(trust_domain, &text),
                Err(error) => Err(error.to_string()),
            };
            roots.map_err(|reason| reasons.push(format!("{}: {reason}", source.as_str()))).ok().map(|r| (r, source))
        };
        let found = usable(Source::StateDir, read(state.as_deref()))
            .or_else(|| usable(Source::File, read(sources.file.as_deref())))
            .or_else(|| usable(Source::Environment, Ok(sources.pem.clone())));
        for reason in reasons.iter().filter(|reason| !reason.ends_with(": is absent")) {
            tracing::warn!(reason, "a source of roots of trust was passed over");
        }
        found.ok_or(NoRoots(reasons))
    }

    /// Takes a bundle that the controller sent: in force from now on, and kept for the container's next life.
    pub fn receive(&self, bundle: &TrustBundle) -> Result<Arc<Roots>, RootsError> {
        let roots = Arc::new(Roots::of_domain(bundle, &self.0.trust_domain)?);
        let known = self.0.received.load().as_ref().is_some_and(|known| known.bundle() == bundle);
        self.0.received.store(Some(Arc::clone(&roots)));
        if let Some(dir) = self.0.sources.state_dir.as_deref().filter(|_| !known)
            && let Err(error) = keep(dir, bundle)
        {
            tracing::warn!(%error, dir = %dir.display(), "the roots of trust were not kept for a restart");
        }
        Ok(roots)
    }
}

fn read_pem(trust_domain: &str, text: &str) -> Result<Arc<Roots>, String> {
    let certificates = CertificateDer::pem_slice_iter(text.as_bytes());
    let roots = certificates.map(|certificate| certificate.map(|der| der.to_vec().into())).collect::<Result<_, _>>();
    let roots = roots.map_err(|error| format!("is not PEM: {error}"))?;
    let bundle = TrustBundle { trust_domain: trust_domain.to_owned(), roots };
    Roots::new(&bundle).map(Arc::new).map_err(|error| error.to_string())
}

/// A file's text; none where there is no such file.
fn read(path: Option<&Path>) -> io::Result<Option<String>> {
    let Some(path) = path else {
        return Ok(None);
    };
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(Some(text))
}

/// Writes beside and renames, so that a reader sees the old text or the new one.
fn keep(dir: &Path, bundle: &TrustBundle) -> io::Result<()> {
    let mut text = String::new();
    for root in &bundle.roots {
        text += &pem(root);
    }
    let beside = dir.join(format!(".{}.new", names::TRUST_BUNDLE_KEY));
    fs::write(&beside, text)?;
    fs::rename(beside, dir.join(names::TRUST_BUNDLE_KEY))
}

fn pem(der: &[u8]) -> String {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let text = BASE64_STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem += line;
        pem += "\n";
        rest = after;
    }
    pem + "-----END CERTIFICATE-----\n"
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    use super::*;

    fn root() -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn bundle(root: &[u8]) -> TrustBundle {
        TrustBundle { trust_domain: "cluster.local".into(), roots: vec![root.to_vec().into()] }
    }

    fn in_force(trust: &Trust) -> (Vec<u8>, Source) {
        let (roots, source) = trust.roots().expect("there is a source");
        (roots.bundle().roots[0].to_vec(), source)
    }

    #[test]
    fn the_sources_count_in_their_order_and_what_was_received_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (environment, in_file, sent) = (root(), root(), root());
        let sources = TrustSources {
            state_dir: Some(dir.path().to_owned()),
            file: Some(dir.path().join("bundle")),
            pem: Some(pem(&environment)),
        };
        let trust = Trust::new("cluster.local", sources.clone());
        assert_eq!(in_force(&trust), (environment.clone(), Source::Environment));
        fs::write(dir.path().join("bundle"), pem(&in_file)).unwrap();
        assert_eq!(in_force(&trust), (in_file.clone(), Source::File));
        trust.receive(&bundle(&sent)).unwrap();
        assert_eq!(in_force(&trust), (sent.clone(), Source::Controller));
        let after_a_restart = Trust::new("cluster.local", sources.clone());
        assert_eq!(in_force(&after_a_restart), (sent, Source::StateDir));
        fs::write(dir.path().join(names::TRUST_BUNDLE_KEY), "garbage").unwrap();
        assert_eq!(in_force(&Trust::new("cluster.local", sources)), (in_file, Source::File));
    }

    #[test]
    fn a_bundle_of_another_trust_domain_changes_nothing() {
        let environment = root();
        let sources = TrustSources { pem: Some(pem(&environment)), ..TrustSources::default() };
        let trust = Trust::new("cluster.local", sources);
        let foreign = TrustBundle { trust_domain: "other".into(), ..bundle(&root()) };
        assert!(matches!(trust.receive(&foreign), Err(RootsError::OtherTrustDomain { .. })));
        assert!(trust.receive(&TrustBundle { trust_domain: "cluster.local".into(), roots: vec![] }).is_err());
        assert_eq!(in_force(&trust), (environment, Source::Environment));
    }

    #[test]
    fn without_any_roots_every_source_is_named() {
        let sources = TrustSources { pem: Some("nonsense".into()), ..TrustSources::default() };
        let text = Trust::new("cluster.local", sources).roots().unwrap_err().to_string();
        for source in ["state directory: is absent", "bundle file: is absent", "environment: "] {
            assert!(text.contains(source), "{text}");
        }
    }
}
