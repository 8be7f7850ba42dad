//! Join tokens: the bootstrap proof where there is no Kubernetes to issue one (contracts §6).
//!
//! An Ed25519 JWS that names the identity and the pod, lives ten minutes at most and is good for one certificate
//! request. [`mint`] is for whoever plays the kubelet; checking is the controller's.

use std::time::{Duration, SystemTime};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, errors::ErrorKind};
use mesh_proto::{identity::Identity, names, outcome::Outcome, server::Refusal};
use rcgen::KeyPair;
use serde::{Deserialize, Serialize};

use super::{CaError, store::Store, used::Used};

/// Longest life of a token.
pub const LONGEST_LIFE: Duration = Duration::from_mins(10);
/// Longest token looked at.
const LONGEST: usize = 4096;
/// File of the signing key.
const KEY_FILE: &str = "join-token.key";

/// The pod a token is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    aud: String,
    sub: String,
    pod: Pod,
    iat: u64,
    exp: u64,
    jti: String,
}

/// What a token proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Who the holder is.
    pub identity: Identity,
    /// In which pod.
    pub pod: Pod,
}

/// Signs tokens.
pub struct Minter(EncodingKey);

impl Minter {
    /// With the key in the controller's state directory, made if it is not there yet.
    pub fn open(store: &Store) -> Result<Self, CaError> {
        Ok(Self(EncodingKey::from_ed_der(key(store)?.serialized_der())))
    }

    /// A token for `identity` in `pod`, good for one certificate request within `life` (at most [`LONGEST_LIFE`]).
    pub fn mint(&self, identity: &Identity, pod: Pod, life: Duration) -> Result<String, CaError> {
        self.sign(names::TOKEN_AUDIENCE, identity, pod, now() + life.min(LONGEST_LIFE).as_secs())
    }

    fn sign(&self, audience: &str, identity: &Identity, pod: Pod, exp: u64) -> Result<String, CaError> {
        let jti = format!("{:032x}", rand::random::<u128>());
        let claims = Claims { aud: audience.to_owned(), sub: identity.to_string(), pod, iat: now(), exp, jti };
        jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &self.0)
            .map_err(|error| CaError::TokenKey(error.to_string()))
    }
}

/// Checks tokens, each of which it accepts once, restarts included.
pub struct Checker {
    key: DecodingKey,
    used: Used,
}

impl Checker {
    /// With the key in the controller's state directory, made if it is not there yet.
    pub fn open(store: &Store) -> Result<Self, CaError> {
        Ok(Self { key: DecodingKey::from_ed_der(key(store)?.public_key_raw()), used: Used::open(store, now())? })
    }

    /// What a token proves. The token is used up by this.
    pub fn check(&self, token: &str) -> Result<Proof, Refusal> {
        let invalid = |reason: String| Refusal::new(Outcome::TokenInvalid, reason);
        if token.len() > LONGEST {
            return Err(invalid(format!("{} bytes are more than a token has", token.len())));
        }
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_audience(&[names::TOKEN_AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "aud", "sub"]);
        validation.leeway = 5;
        let claims = match jsonwebtoken::decode::<Claims>(token.trim(), &self.key, &validation) {
            Ok(decoded) => decoded.claims,
            Err(error) if matches!(error.kind(), ErrorKind::ExpiredSignature) => {
                return Err(Refusal::new(Outcome::TokenExpired, "the join token has expired"));
            }
            Err(error) => return Err(invalid(format!("join token: {error}"))),
        };
        let now = now();
        if claims.exp > now + LONGEST_LIFE.as_secs() + validation.leeway {
            return Err(invalid("join token: it lives longer than ten minutes".into()));
        }
        let identity: Identity = claims.sub.parse().map_err(|error| invalid(format!("join token: sub: {error}")))?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if claims.jti.is_empty() || claims.jti.len() > 64 || !claims.jti.bytes().all(plain) {
            return Err(invalid("join token: jti must have 1 to 64 of A-Z, a-z, 0-9, '-' and '_'".into()));
        }
        self.used.insert(claims.jti, claims.exp + validation.leeway, now)?;
        Ok(Proof { identity, pod: claims.pod })
    }
}

fn key(store: &Store) -> Result<KeyPair, CaError> {
    let unusable = |error: rcgen::Error| CaError::TokenKey(error.to_string());
    let fresh = KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(unusable)?;
    let pem = store.read_or_make(KEY_FILE, || fresh.serialize_pem())?;
    KeyPair::from_pem(&pem).map_err(unusable)
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        Pod { namespace: "shop".into(), name: "web-1".into(), uid: "u1".into() }
    }

    #[test]
    fn a_token_proves_identity_and_pod_once() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let (minter, checker) = (Minter::open(&store).unwrap(), Checker::open(&store).unwrap());
        let identity = Identity::new("cluster.local", "shop", "web").unwrap();
        let token = minter.mint(&identity, pod(), Duration::from_mins(1)).unwrap();
        assert_eq!(checker.check(&token).unwrap(), Proof { identity, pod: pod() });
        assert_eq!(checker.check(&token).unwrap_err().outcome, Outcome::TokenUsed);
    }

    #[test]
    fn each_fault_of_a_token_has_its_code() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("own")).unwrap();
        let (minter, checker) = (Minter::open(&store).unwrap(), Checker::open(&store).unwrap());
        let foreign = Minter::open(&Store::open(directory.path().join("foreign")).unwrap()).unwrap();
        let identity = Identity::new("cluster.local", "shop", "web").unwrap();
        let good = minter.mint(&identity, pod(), Duration::from_mins(1)).unwrap();
        let unsigned = good.rsplit_once('.').unwrap().0.to_owned() + ".";
        let audience = names::TOKEN_AUDIENCE;
        for (fault, token, outcome) in [
            ("foreign key", foreign.mint(&identity, pod(), LONGEST_LIFE).unwrap(), Outcome::TokenInvalid),
            ("foreign audience", minter.sign("else", &identity, pod(), now() + 60).unwrap(), Outcome::TokenInvalid),
            ("long life", minter.sign(audience, &identity, pod(), now() + 3600).unwrap(), Outcome::TokenInvalid),
            ("expired", minter.sign(audience, &identity, pod(), now() - 60).unwrap(), Outcome::TokenExpired),
            ("no signature", unsigned, Outcome::TokenInvalid),
            ("empty", String::new(), Outcome::TokenInvalid),
            ("too long", "a".repeat(5000), Outcome::TokenInvalid),
        ] {
            assert_eq!(checker.check(&token).unwrap_err().outcome, outcome, "{fault}");
        }
        checker.check(&good).unwrap();
    }
}
