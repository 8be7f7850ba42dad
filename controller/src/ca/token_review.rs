//! Projected service-account tokens: the bootstrap proof in a cluster (contracts §5), checked by the API server.
//!
//! Called by [`super::Authority`]. Every token is asked about anew and the answer is used once: a token of a pod that is
//! gone is no proof, and only the API server knows. Where it cannot be asked, nothing is proved.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus, UserInfo};
use kube::{Resource as _, api::PostParams};
use mesh_proto::{identity::Identity, names, outcome::Outcome, server::Refusal};
use tokio::sync::Semaphore;

use super::token::{Pod, Proof};
use crate::api::Api;

/// Longest that a proxy waits for a review, its turn included.
const LONGEST_REVIEW: Duration = Duration::from_secs(10);
/// Most reviews at a time: when every pod of a cluster starts at once, the API server has more to do than this.
const MOST_AT_ONCE: usize = 32;
/// Longest token looked at; real ones are below 2 KiB.
const LONGEST_TOKEN: usize = 16 * 1024;
/// What the user name of a service account begins with.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";
/// Where a review names the pod that a token is bound to.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Has tokens reviewed.
pub struct Reviewer {
    api: Api,
    turns: Semaphore,
}

impl Reviewer {
    /// By `api`.
    pub fn new(api: Api) -> Self {
        Self { api, turns: Semaphore::new(MOST_AT_ONCE) }
    }

    /// What a token proves.
    pub async fn check(&self, token: &str, trust_domain: &str) -> Result<Proof, Refusal> {
        let token = token.trim();
        if token.is_empty() || token.len() > LONGEST_TOKEN {
            return Err(invalid(format!("{} bytes are no service-account token", token.len())));
        }
        let review = tokio::time::timeout(LONGEST_REVIEW, self.review(token)).await;
        let late = || unchecked(&format!("the API server did not answer within {LONGEST_REVIEW:?}"));
        proof(&review.unwrap_or_else(|_| Err(late()))?, trust_domain)
    }

    async fn review(&self, token: &str) -> Result<TokenReviewStatus, Refusal> {
        let _turn = self.turns.acquire().await.map_err(|error| unchecked(&error))?;
        let spec =
            TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![names::TOKEN_AUDIENCE.to_owned()]) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let body = serde_json::to_vec(&review).map_err(|error| unchecked(&error))?;
        let request = kube::core::Request::new(TokenReview::url_path(&(), None));
        let request = request.create(&PostParams::default(), body).map_err(|error| unchecked(&error))?;
        let review: TokenReview =
            self.api.call(request, LONGEST_REVIEW).await.map_err(|failure| unchecked(&failure))?;
        review.status.ok_or_else(|| unchecked(&"the review has no status"))
    }
}

/// What a review says.
fn proof(status: &TokenReviewStatus, trust_domain: &str) -> Result<Proof, Refusal> {
    if status.authenticated != Some(true) {
        let reason: String = status.error.as_deref().unwrap_or("no reason").chars().take(300).collect();
        let outcome = if reason.contains("expired") { Outcome::TokenExpired } else { Outcome::TokenInvalid };
        return Err(Refusal::new(outcome, format!("the API server does not accept the token: {reason}")));
    }
    // A server that does not know audiences leaves this empty and accepts tokens for others.
    if !status.audiences.iter().flatten().any(|audience| audience == names::TOKEN_AUDIENCE) {
        return Err(invalid(format!("the token is not for the audience {}", names::TOKEN_AUDIENCE)));
    }
    let user = status.user.clone().unwrap_or_default();
    let name = user.username.as_deref().unwrap_or_default();
    let account = name.strip_prefix(SERVICE_ACCOUNT).and_then(|rest| rest.split_once(':'));
    let Some((namespace, account)) = account else {
        return Err(invalid(format!("the token is of {name:?}, which is no service account")));
    };
    let identity = Identity::new(trust_domain, namespace, account);
    let identity = identity.map_err(|error| invalid(format!("the token's service account: {error}")))?;
    let pod = Pod { namespace: namespace.to_owned(), name: bound(&user, POD_NAME)?, uid: bound(&user, POD_UID)? };
    Ok(Proof { identity, pod })
}

/// What a token is bound to: exactly one pod.
fn bound(user: &UserInfo, key: &str) -> Result<String, Refusal> {
    match user.extra.as_ref().and_then(|extra| extra.get(key)).map(Vec::as_slice) {
        Some([value]) if !value.is_empty() => Ok(value.clone()),
        _ => Err(invalid(format!("the token is bound to no pod ({key}); it must be a projected one"))),
    }
}

fn invalid(detail: String) -> Refusal {
    Refusal::new(Outcome::TokenInvalid, detail)
}

fn unchecked(reason: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(Outcome::TokenUnchecked, reason.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn good() -> TokenReviewStatus {
        let one = |text: &str| vec![text.to_owned()];
        let extra = [(POD_NAME, "web-1"), (POD_UID, "u1"), ("authentication.kubernetes.io/node-name", "n1")];
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(one(names::TOKEN_AUDIENCE)),
            user: Some(UserInfo {
                username: Some("system:serviceaccount:shop:web".into()),
                extra: Some(extra.map(|(key, value)| (key.to_owned(), one(value))).into()),
                ..UserInfo::default()
            }),
            error: None,
        }
    }

    fn user(change: impl FnOnce(&mut UserInfo)) -> TokenReviewStatus {
        let mut status = good();
        change(status.user.as_mut().unwrap());
        status
    }

    fn extra(change: impl FnOnce(&mut BTreeMap<String, Vec<String>>)) -> TokenReviewStatus {
        user(|user| change(user.extra.as_mut().unwrap()))
    }

    #[test]
    fn a_review_proves_service_account_and_pod() {
        let proof = proof(&good(), "cluster.local").unwrap();
        assert_eq!(proof.identity.as_str(), "spiffe://cluster.local/ns/shop/sa/web");
        assert_eq!(proof.pod, Pod { namespace: "shop".into(), name: "web-1".into(), uid: "u1".into() });
    }

    #[test]
    fn anything_less_proves_nothing() {
        let refused = |error: &str| TokenReviewStatus { error: Some(error.into()), ..TokenReviewStatus::default() };
        for (fault, status, outcome) in [
            ("nothing said", TokenReviewStatus::default(), Outcome::TokenInvalid),
            ("refused", TokenReviewStatus { authenticated: Some(false), ..good() }, Outcome::TokenInvalid),
            ("expired", refused("[invalid bearer token, service account token has expired]"), Outcome::TokenExpired),
            ("no audience", TokenReviewStatus { audiences: None, ..good() }, Outcome::TokenInvalid),
            (
                "another audience",
                TokenReviewStatus { audiences: Some(vec!["https://kubernetes.default.svc".into()]), ..good() },
                Outcome::TokenInvalid,
            ),
            ("no user", TokenReviewStatus { user: None, ..good() }, Outcome::TokenInvalid),
            ("a person", user(|user| user.username = Some("admin".into())), Outcome::TokenInvalid),
            ("half a name", user(|user| user.username = Some(format!("{SERVICE_ACCOUNT}shop"))), Outcome::TokenInvalid),
            (
                "a name with more parts",
                user(|user| user.username = Some(format!("{SERVICE_ACCOUNT}shop:web:admin"))),
                Outcome::TokenInvalid,
            ),
            ("no extra", user(|user| user.extra = None), Outcome::TokenInvalid),
            ("no pod", extra(|extra| drop(extra.remove(POD_NAME))), Outcome::TokenInvalid),
            ("no uid", extra(|extra| drop(extra.remove(POD_UID))), Outcome::TokenInvalid),
            ("two pods", extra(|extra| extra.get_mut(POD_NAME).unwrap().push("b".into())), Outcome::TokenInvalid),
            (
                "an empty uid",
                extra(|extra| drop(extra.insert(POD_UID.into(), vec![String::new()]))),
                Outcome::TokenInvalid,
            ),
        ] {
            assert_eq!(proof(&status, "cluster.local").unwrap_err().outcome, outcome, "{fault}");
        }
    }
}
