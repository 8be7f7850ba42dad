//! Whether what the mesh reads is there in the version that it reads. Also before there is a mesh: `pre`.

use crate::check::{
    Finding,
    observe::{Served, Unseen},
};

/// Of what was found; a mesh that is `installed` has brought its own resource definitions.
pub(crate) fn versions(served: &[Served], installed: bool) -> Vec<Finding> {
    served.iter().filter_map(|one| version(one, installed)).collect()
}

/// Of what may not have been found.
pub(super) fn found(served: Option<&Result<Vec<Served>, Unseen>>, installed: bool) -> Vec<Finding> {
    match served {
        None => Vec::new(),
        Some(Ok(served)) => versions(served, installed),
        Some(Err(unseen)) => {
            let found = Finding::new(format!("the API server does not say: {}", unseen.reason));
            vec![
                found.fix(
                    "kubectl get --raw /apis shows what it says; ask again, with --request-timeout if it was late",
                ),
            ]
        }
    }
}

fn version(served: &Served, installed: bool) -> Option<Finding> {
    let Served { name, version, is_ours, versions } = served;
    if versions.contains(version) {
        return None;
    }
    if versions.is_empty() {
        // Without the Gateway API there are no routes to miss.
        let missing = *is_ours && installed;
        return missing.then(|| {
            Finding::new(format!("{name} is not there: nobody can write such an object"))
                .fix("meshctl install | kubectl apply -f -")
        });
    }
    let found =
        Finding::new(format!("{name} is served as {} and not as {version}, which is read", versions.join(", ")));
    Some(if *is_ours {
        found.fix(format!(
            "another release of the mesh made it: use its meshctl, or, if nothing needs what is written there: kubectl delete \
             crd {name}"
        ))
    } else {
        found.fix(format!(
            "apply the standard channel of the Gateway API, in a release that serves {version} (1.0 or newer)"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_served_in_another_version_is_named_and_what_is_not_there_only_if_it_is_ours() {
        let served = |is_ours, versions: &[&str]| Served {
            name: "things.example".into(),
            version: "v1".into(),
            is_ours,
            versions: versions.iter().map(|&version| version.to_owned()).collect(),
        };
        for (one, installed, says) in [
            (served(true, &["v1"]), true, ""),
            (served(true, &["v2", "v1"]), true, ""),
            (served(true, &[]), true, "is not there"),
            (served(true, &[]), false, ""),
            (served(false, &[]), true, ""),
            (served(true, &["v1beta9"]), false, "is served as v1beta9 and not as v1"),
            (served(false, &["v1alpha2", "v1beta1"]), true, "is served as v1alpha2, v1beta1 and not as v1"),
        ] {
            let found = versions(std::slice::from_ref(&one), installed);
            assert_eq!(found.is_empty(), says.is_empty(), "{one:?}");
            assert!(found.iter().all(|found| found.text.contains(says) && found.fix.is_some()), "{found:?}");
        }
    }
}
