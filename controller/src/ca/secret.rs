//! In a cluster the files of the authority are a Secret: this keeps the Secret and the state directory alike.
//!
//! The Secret is made by a plain create; whoever finds that another made it first takes what that one made (contracts
//! §6), so that controllers that start at once have one root, without an election. After that a change on either side
//! reaches the other: a renewed issuer and the steps of a rotation go to the Secret, and from there to the other
//! controllers. [`super::files`] sees only the directory, which is in memory there. It does not know what the files mean.

mod call;

use std::{collections::BTreeMap, time::Duration};

use http::StatusCode;
use mesh_proto::names;
use mesh_runtime::backoff::Backoff;
use tokio::time::Instant;

use self::call::Kept;
use super::{
    CaError,
    files::{self, Files},
    store::{Store, StoreError},
};
use crate::api::{Api, Failure};

/// Waits while the API server is away or does not let us.
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(5);
/// How long an API server may refuse the Secret before the controller ends and says why: at the start of a cluster the
/// roles may come after the controller. One that is away is waited for, since a restart would change nothing.
const PATIENCE: Duration = Duration::from_mins(1);

/// Why the Secret could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The API server did not answer, or refused.
    #[error("{act} the Secret {namespace}/{name}: {failure}{fix}",
        namespace = names::SYSTEM_NAMESPACE, name = names::CA_SECRET_NAME)]
    Api {
        /// What was tried.
        act: &'static str,
        /// Why it failed.
        failure: Failure,
        /// What to do.
        fix: &'static str,
    },
    /// It is there, and is not what it should be.
    #[error("read the Secret {namespace}/{name}: it has no {key}; delete it to start with a new root",
        namespace = names::SYSTEM_NAMESPACE, name = names::CA_SECRET_NAME)]
    Lacks {
        /// What it should have.
        key: &'static str,
    },
    /// The directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A new authority.
    #[error("{0}")]
    Make(String),
}

impl SecretError {
    fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Api { failure, .. } => failure.status(),
            _ => None,
        }
    }

    /// Whether the API server understood the question and said no; a 5xx or 429 is one that is not up.
    fn is_refusal(&self) -> bool {
        self.status().is_some_and(|status| status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS)
    }
}

impl From<CaError> for SecretError {
    fn from(error: CaError) -> Self {
        Self::Make(error.to_string())
    }
}

/// The Secret and the directory.
pub struct Mirror {
    api: Api,
    store: Store,
    /// The Secret as it was when both were alike.
    alike: Kept,
}

impl Mirror {
    /// Fills the directory from the Secret, or the Secret from a new authority in the directory. An API server that is
    /// away is asked again until it is there; one that refuses for a minute, from its first refusal on.
    pub async fn open(api: Api, store: Store, trust_domain: &str) -> Result<Self, SecretError> {
        let mut refused: Option<Instant> = None;
        let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        loop {
            let error = match first(&api, &store, trust_domain).await {
                Ok(alike) => return Ok(Self { api, store, alike }),
                Err(error @ SecretError::Api { .. }) => error,
                Err(error) => return Err(error),
            };
            let wait = backoff.wait();
            refused = error.is_refusal().then(|| refused.unwrap_or_else(Instant::now));
            if refused.is_some_and(|since| since.elapsed() + wait > PATIENCE) {
                return Err(error);
            }
            tracing::warn!(%error, retry_in = ?wait, "the certificate authority waits for its Secret");
            tokio::time::sleep(wait).await;
        }
    }

    /// Keeps both alike for ever, looking every `pause`; what cannot be done is told to `problem` (none: all is well).
    pub async fn follow(mut self, pause: Duration, problem: impl Fn(Option<String>)) {
        loop {
            tokio::time::sleep(pause).await;
            let step = self.step().await;
            problem(step.err().map(|error| format!("{error}; what is known stays in force")));
        }
    }

    async fn step(&mut self) -> Result<(), SecretError> {
        let found = call::read(&self.api).await?;
        let local = local(&self.store)?;
        self.alike = match found {
            // What was changed elsewhere wins: it was there first.
            Some(found) if found.version != self.alike.version => {
                take(&self.store, &found)?;
                found
            }
            Some(_) if local == self.alike.files => return Ok(()),
            Some(_) => call::replace(&self.api, &local, &self.alike.version).await?,
            None => call::create(&self.api, &local).await?,
        };
        Ok(())
    }
}

async fn first(api: &Api, store: &Store, trust_domain: &str) -> Result<Kept, SecretError> {
    if let Some(found) = call::read(api).await? {
        take(store, &found)?;
        return Ok(found);
    }
    Files::own(store, trust_domain)?;
    match call::create(api, &local(store)?).await {
        Err(error) if error.status() == Some(StatusCode::CONFLICT) => {
            let found = call::read(api).await?.unwrap_or_default();
            take(store, &found)?;
            Ok(found)
        }
        other => other,
    }
}

/// The files of the directory.
fn local(store: &Store) -> Result<BTreeMap<String, String>, SecretError> {
    let mut local = BTreeMap::new();
    for name in files::ALL {
        if let Some(text) = store.read(name)? {
            local.insert(name.to_owned(), text);
        }
    }
    Ok(local)
}

/// Makes the directory what the Secret is. Whoever reads between two files looks again.
fn take(store: &Store, found: &Kept) -> Result<(), SecretError> {
    if let Some(key) = files::NEEDED.into_iter().find(|key| !found.files.contains_key(*key)) {
        return Err(SecretError::Lacks { key });
    }
    for name in files::ALL {
        let before = store.read(name)?;
        match found.files.get(name) {
            Some(text) if before.as_ref() == Some(text) => {}
            Some(text) => store.replace(name, text)?,
            None if before.is_some() => store.remove(name)?,
            None => {}
        }
    }
    Ok(())
}
