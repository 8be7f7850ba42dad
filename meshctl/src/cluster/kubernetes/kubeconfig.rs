//! The kubeconfig that the flags name, or what is wrong with it and the way out. Called by [`super::Client::new`]; it
//! connects to nothing.

use kube::{
    Config,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};

use super::chain;
use crate::{cli::Globals, cluster::ClusterError, failure::did_you_mean};

/// Contexts that are named of a kubeconfig with many.
const SHOWN: usize = 10;

/// The client's configuration for the context that was asked for, else the current one.
pub(super) async fn read(globals: &Globals) -> Result<Config, ClusterError> {
    let read = match &globals.kubeconfig {
        Some(file) => Kubeconfig::read_from(file),
        None => Kubeconfig::read(),
    };
    let kubeconfig = read.map_err(|error| unread(&error))?;
    let options = KubeConfigOptions { context: globals.context.clone(), ..KubeConfigOptions::default() };
    let contexts = kubeconfig.contexts.iter().map(|context| context.name.clone()).collect::<Vec<_>>();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    config.map_err(|error| unusable(&error, &contexts))
}

fn failed(reason: impl Into<String>, fix: impl Into<String>) -> ClusterError {
    ClusterError::Kubeconfig { reason: reason.into(), fix: Some(fix.into()) }
}

/// The file itself.
fn unread(error: &KubeconfigError) -> ClusterError {
    match error {
        // What a newcomer sees first.
        KubeconfigError::ReadConfig(io, file) if io.kind() == std::io::ErrorKind::NotFound => {
            ClusterError::Kubeconfig { reason: format!("there is none at {}", file.display()), fix: None }
        }
        // The parser shows the place in further lines.
        KubeconfigError::Parse(error) => {
            let text = error.to_string();
            let text = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            failed(format!("it is no kubeconfig: {text}"), "kubectl config view shows what it makes of it")
        }
        error => ClusterError::Kubeconfig { reason: chain(error), fix: None },
    }
}

/// What is in it.
fn unusable(error: &KubeconfigError, contexts: &[String]) -> ClusterError {
    let known = || match contexts {
        [] => "it has none".to_owned(),
        some if some.len() <= SHOWN => format!("it has {}", some.join(", ")),
        some => format!("it has {} and {} more", some[..SHOWN].join(", "), some.len() - SHOWN),
    };
    match error {
        KubeconfigError::CurrentContextNotSet => failed(
            format!("it says of no context that it is the current one; {}", known()),
            "--context NAME, or kubectl config use-context NAME",
        ),
        KubeconfigError::LoadContext(name) => {
            let meant = did_you_mean(name, contexts.iter().map(String::as_str));
            let fix =
                meant.map_or_else(|| "--context NAME;".to_owned(), |meant| format!("did you mean --context {meant}?"));
            failed(
                format!("it has no context {name:?}; {}", known()),
                format!("{fix} kubectl config get-contexts lists them"),
            )
        }
        KubeconfigError::LoadClusterOfContext(name) => failed(
            format!("its context names the cluster {name:?}, which it does not have"),
            format!("kubectl config set-cluster {name} --server=URL, or another --context"),
        ),
        error => ClusterError::Kubeconfig { reason: chain(error), fix: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_that_is_not_there_is_named_with_those_that_are() {
        let contexts = ["kind-dev", "prod"].map(str::to_owned);
        let many: Vec<String> = (0..12).map(|number| format!("c{number}")).collect();
        for (error, contexts, reason, fix) in [
            (
                KubeconfigError::LoadContext("kind-dve".into()),
                &contexts[..],
                "it has no context \"kind-dve\"; it has kind-dev, prod",
                "did you mean --context kind-dev?",
            ),
            (KubeconfigError::LoadContext("x".into()), &many[..], "c9 and 2 more", "--context NAME; kubectl"),
            (KubeconfigError::CurrentContextNotSet, &[][..], "it has none", "use-context"),
            (
                KubeconfigError::LoadClusterOfContext("gone".into()),
                &contexts[..],
                "the cluster \"gone\"",
                "set-cluster gone",
            ),
        ] {
            let ClusterError::Kubeconfig { reason: said, fix: Some(way_out) } = unusable(&error, contexts) else {
                panic!("{error} has no way out")
            };
            assert!(said.contains(reason) && way_out.contains(fix), "{said} | {way_out}");
        }
    }
}
