//! The files of a certificate authority, and what becomes of them over the years.
//!
//! `ca.crt` (roots that are trusted), `tls.crt` (the issuer, then what vouches for it) and `tls.key` (the issuer's key)
//! are what daily work needs: the layout of a `kubernetes.io/tls` Secret, as cert-manager writes it. Given ones are only
//! read. Our own are made at the first start from `root.pem`, which can be kept elsewhere from then on, and are rotated
//! step by step: [`add_root`], [`switch_issuer`], [`drop_roots`], each in force without a restart. Called by [`super`].

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{
    CaError,
    issuer::{self, Issuer, Texts},
    root::{self, ISSUER_LIFETIME},
    store::Store,
};

/// Roots that are trusted.
const ROOTS: &str = "ca.crt";
/// The issuer's certificate.
const ISSUER: &str = "tls.crt";
/// The issuer's key.
const ISSUER_KEY: &str = "tls.key";
/// Our root: key and certificate.
const ROOT: &str = "root.pem";
/// Our next root, between [`add_root`] and [`switch_issuer`].
const NEXT_ROOT: &str = "next-root.pem";
/// Whatever an authority may have.
pub(super) const ALL: [&str; 5] = [ROOTS, ISSUER, ISSUER_KEY, ROOT, NEXT_ROOT];
/// What it cannot do without.
pub(super) const NEEDED: [&str; 3] = [ROOTS, ISSUER, ISSUER_KEY];
/// How much longer than the old one a new issuer must live.
const WORTH_IT: Duration = Duration::from_hours(24);
/// Largest of the files that is read.
const LARGEST: u64 = 1 << 20;

/// Where the files are.
#[derive(Debug, Clone)]
pub struct Files {
    directory: PathBuf,
    /// Where we may make and replace them.
    own: Option<Store>,
}

/// Tells whether the files may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp([Option<(u64, u64, i64, i64)>; 3]);

impl Files {
    /// Our own, in the state directory; made where they are not there.
    pub fn own(store: &Store, trust_domain: &str) -> Result<Self, CaError> {
        let files = Self { directory: store.directory().to_owned(), own: Some(store.clone()) };
        if store.read(ISSUER)?.is_none() {
            let fresh = root::make_root(trust_domain)?;
            let root = store.read_or_make(ROOT, || fresh)?;
            if store.read(ROOTS)?.is_none() {
                store.replace(ROOTS, root::certificate(&root))?;
            }
            issue(store, &root, trust_domain)?;
        } else if let (Some(issuer), Some(root)) = (store.read(ISSUER)?, store.read(ROOT)?)
            && has_expired(&issuer)
            && !has_expired(&root)
        {
            // Nobody was there to renew it in time.
            issue(store, &root, trust_domain)?;
        }
        Ok(files)
    }

    /// Given ones; somebody else renews them.
    pub fn given(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), own: None }
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Reads the issuer and its roots.
    pub fn load(&self, trust_domain: &str, leaf_lifetime: Duration) -> Result<Issuer, CaError> {
        let [roots, chain, key] = [ROOTS, ISSUER, ISSUER_KEY].map(|name| self.read(name));
        let texts = Texts { roots: roots?, chain: chain?, key: key? };
        let fix = if self.own.is_some() {
            "put root.pem back, which signs a new one"
        } else {
            "put a new issuer there (tls.crt, tls.key)"
        };
        Issuer::new(&texts, trust_domain, leaf_lifetime).map_err(|reason| match reason.as_str() {
            issuer::EXPIRED => self.unusable(format!("{reason}; {fix}")),
            _ => self.unusable(reason),
        })
    }

    /// Changes when the files do.
    pub fn stamp(&self) -> Stamp {
        Stamp([ROOTS, ISSUER, ISSUER_KEY].map(|name| {
            let metadata = fs::metadata(self.directory.join(name)).ok()?;
            Some((metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec()))
        }))
    }

    /// Signs a new issuer of our own with our root in the last third of the old one's life.
    pub fn renew(&self, issuer: &Issuer, trust_domain: &str) -> Result<(), CaError> {
        let left = issuer.not_after().duration_since(SystemTime::now()).unwrap_or_default();
        if left > ISSUER_LIFETIME / 3 {
            return Ok(());
        }
        let days = left.as_secs() / (24 * 3600);
        let Some(store) = &self.own else {
            // Whoever made it renews it; what is said here is for when that does not happen.
            return if left > ISSUER_LIFETIME / 12 { Ok(()) } else { Err(self.ends(days, "renew it")) };
        };
        let root = store.read(ROOT)?;
        let root = root.ok_or_else(|| self.ends(days, "put root.pem back for a moment, or switch to another root"))?;
        // Otherwise the next one would be no better, and the one after that neither.
        if root::ends(&root)? <= issuer.not_after() + WORTH_IT {
            return Err(
                self.ends(days, "its root ends as well: replace it, beginning with mesh-controller ca add-root")
            );
        }
        issue(store, &root, trust_domain)
    }

    fn ends(&self, days: u64, fix: &str) -> CaError {
        self.unusable(format!("the issuer is good for {days} more days; {fix}"))
    }

    fn unusable(&self, reason: String) -> CaError {
        CaError::Issuer { directory: self.directory.display().to_string(), reason }
    }

    fn read(&self, name: &str) -> Result<String, CaError> {
        let path = self.directory.join(name);
        let read = || match fs::metadata(&path)? {
            metadata if metadata.size() > LARGEST => Err(io::ErrorKind::FileTooLarge.into()),
            _ => fs::read_to_string(&path),
        };
        read().map_err(|error| self.unusable(format!("{name}: {error}")))
    }
}

/// Whether the first certificate of a text has. One that cannot be read is for its reader to complain about.
fn has_expired(pem: &str) -> bool {
    root::ends(pem).is_ok_and(|ends| ends <= SystemTime::now())
}

/// Makes an issuer and puts it in force. A reader between the two files finds a key that does not fit, and looks again.
fn issue(store: &Store, root: &str, trust_domain: &str) -> Result<(), CaError> {
    let made = root::make_issuer(root, trust_domain)?;
    store.replace(ISSUER_KEY, &made.key)?;
    store.replace(ISSUER, &made.certificate)?;
    Ok(())
}

/// Rotation, first step: a new root that everybody trusts and nobody uses yet.
pub fn add_root(store: &Store, trust_domain: &str) -> Result<(), CaError> {
    let roots = store.read(ROOTS)?.ok_or(CaError::Rotation("there is no authority yet; start the controller once"))?;
    if store.read(NEXT_ROOT)?.is_some() {
        return Err(CaError::Rotation("the next root is there already; go on with: mesh-controller ca switch-issuer"));
    }
    let fresh = root::make_root(trust_domain)?;
    let next = store.read_or_make(NEXT_ROOT, || fresh)?;
    Ok(store.replace(ROOTS, &format!("{}\n{}", roots.trim_end(), root::certificate(&next)))?)
}

/// Second step, once every proxy trusts the new root: it signs the issuer from now on.
pub fn switch_issuer(store: &Store, trust_domain: &str) -> Result<(), CaError> {
    let next = store.read(NEXT_ROOT)?;
    let next = next.ok_or(CaError::Rotation("there is no next root; begin with: mesh-controller ca add-root"))?;
    issue(store, &next, trust_domain)?;
    store.replace(ROOT, &next)?;
    Ok(store.remove(NEXT_ROOT)?)
}

/// Last step, once every proxy has a certificate of the new issuer: other roots are trusted no longer.
pub fn drop_roots(store: &Store) -> Result<(), CaError> {
    if store.read(NEXT_ROOT)?.is_some() {
        return Err(CaError::Rotation("the issuer was not switched yet; go on with: mesh-controller ca switch-issuer"));
    }
    let root = store.read(ROOT)?.ok_or(CaError::Rotation("root.pem is not here; put it back for a moment"))?;
    Ok(store.replace(ROOTS, root::certificate(&root))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOMAIN: &str = "cluster.local";
    const LIFE: Duration = Duration::from_hours(1);

    fn days(days: u64) -> Duration {
        Duration::from_hours(24 * days)
    }

    /// A store whose issuer lives for `issuer` days, with a root that lives for `root` days.
    fn aged(directory: &Path, issuer: u64, root: u64) -> Files {
        let store = Store::open(directory).unwrap();
        let old = root::make_root_for(DOMAIN, days(issuer)).unwrap();
        issue(&store, &old, DOMAIN).unwrap();
        let root = root::make_root_for(DOMAIN, days(root)).unwrap();
        store.replace(ROOTS, &format!("{}{}", root::certificate(&old), root::certificate(&root))).unwrap();
        store.replace(ROOT, &root).unwrap();
        Files::own(&store, DOMAIN).unwrap()
    }

    #[test]
    fn an_issuer_of_our_own_is_renewed_in_the_last_third_of_its_life() {
        for (issuer, renewed) in [(200, false), (100, true)] {
            let directory = tempfile::tempdir().unwrap();
            let files = aged(directory.path(), issuer, 1000);
            let before = files.load(DOMAIN, LIFE).unwrap();
            files.renew(&before, DOMAIN).unwrap();
            let after = files.load(DOMAIN, LIFE).unwrap();
            assert_eq!(after.not_after() > before.not_after() + days(100), renewed, "{issuer}");
        }
    }

    /// As after a year in which no controller ran.
    #[test]
    fn an_issuer_of_our_own_that_has_expired_is_made_anew_if_its_root_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        Files::own(&store, DOMAIN).unwrap();
        let expired = root::make_root_for(DOMAIN, Duration::ZERO).unwrap();
        store.replace(ISSUER, root::certificate(&expired)).unwrap();
        let files = Files::own(&store, DOMAIN).unwrap();
        assert!(files.load(DOMAIN, LIFE).unwrap().not_after() > SystemTime::now() + days(300));
        store.replace(ISSUER, root::certificate(&expired)).unwrap();
        store.replace(ISSUER_KEY, &expired).unwrap();
        store.remove(ROOT).unwrap();
        let error = Files::own(&store, DOMAIN).unwrap().load(DOMAIN, LIFE).err().unwrap().to_string();
        assert!(error.ends_with("tls.crt: it has expired; put root.pem back, which signs a new one"), "{error}");
    }

    #[test]
    fn an_issuer_that_cannot_be_renewed_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let files = aged(directory.path(), 100, 100);
        let issuer = files.load(DOMAIN, LIFE).unwrap();
        let error = |files: &Files| files.renew(&issuer, DOMAIN).unwrap_err().to_string();
        assert!(error(&files).contains("99 more days; its root ends as well"), "{}", error(&files));
        fs::remove_file(directory.path().join(ROOT)).unwrap();
        assert!(error(&files).contains("put root.pem back"), "{}", error(&files));
        let given = Files::given(directory.path());
        given.renew(&issuer, DOMAIN).unwrap();
        let issuer = aged(directory.path(), 20, 100).load(DOMAIN, LIFE).unwrap();
        assert!(given.renew(&issuer, DOMAIN).unwrap_err().to_string().ends_with("renew it"));
    }
}
