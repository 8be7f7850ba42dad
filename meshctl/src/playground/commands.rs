//! The subcommands that talk to a running playground: `stop`, `logs`, `exec`; `status` is in
//! [`super::status`].

use std::{
    ffi::OsString,
    fs::File,
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::Context as _;
use nix::sched::{CloneFlags, setns};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::{keeper, paths::RuntimeDir};
use crate::{
    cluster::{Cluster, ClusterError, PodInfo, playground::Client},
    commands::select,
    failure::{Exit, Failure},
    printer::Printer,
    resource::Resource,
};

/// Longest the end may take.
const STOP: Duration = Duration::from_secs(15);
/// How often a file that must go is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Ends the playground and waits until nothing is left of it.
pub(super) async fn stop(printer: &Printer) -> Result<(), Failure> {
    let directory = RuntimeDir::of_this_user().map_err(Failure::from)?;
    if let Err(error) = Client::at(directory.socket()).stop().await {
        if matches!(error, ClusterError::NotRunning(_)) && keeper::clean(&directory).unwrap_or_default() {
            let path = directory.path().display();
            printer.say(format!("none was running; removed {path}, which one that was killed had left"));
            return Ok(());
        }
        return Err(error.into());
    }
    let deadline = Instant::now() + STOP;
    // The keeper removes the directory last.
    while directory.path().exists() {
        if Instant::now() > deadline {
            let path = directory.path().display();
            return Err(Failure::new(Exit::TimedOut, format!("the playground did not end within {STOP:?}")).fix(
                format!("end the process `meshctl playground-keeper {path}`; the kernel ends everything with it"),
            ));
        }
        sleep(LOOK).await;
    }
    printer.say("stopped; nothing is left");
    Ok(())
}

#[derive(Deserialize)]
struct Log {
    container: String,
    text: String,
}

/// Prints what containers printed last.
pub(super) async fn logs(resource: &Resource, container: Option<&str>, printer: &Printer) -> Result<(), Failure> {
    let pod = one_pod(resource).await?;
    let client = Client::of_this_user()?;
    let logs: Vec<Log> = client.get(&format!("/v1/logs/{}/{}", pod.namespace, pod.name)).await?;
    let wanted = logs.iter().filter(|log| container.is_none_or(|name| log.container == name));
    let mut some = false;
    for log in wanted {
        some = true;
        for line in log.text.lines() {
            let clean = crate::printer::table::clean(line);
            printer.data(&match container {
                Some(_) => format!("{clean}\n"),
                None => format!("{}: {clean}\n", log.container),
            })?;
        }
    }
    let names: Vec<_> = logs.iter().map(|log| log.container.as_str()).collect();
    if some {
        return Ok(());
    }
    Err(Failure::new(Exit::NotFound, format!("pod {} has no such container", pod.name))
        .fix(format!("there is {}", names.join(", "))))
}

/// Descriptors of the supervisor that name a pod's namespaces.
#[derive(Deserialize)]
struct Descriptors {
    network: i32,
    mounts: i32,
}

/// Runs a program inside a pod. The calling process has one thread: it joins the pod's namespaces.
pub(super) fn exec(resource: &Resource, words: &[OsString]) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(anyhow::Error::from)?;
    let (supervisor, pod, descriptors) = runtime.block_on(async {
        let pod = one_pod(resource).await?;
        let client = Client::of_this_user()?;
        let supervisor = client.supervisor_pid().await?;
        let descriptors: Descriptors = client.get(&format!("/v1/sandbox/{}/{}", pod.namespace, pod.name)).await?;
        Ok::<_, Failure>((supervisor, pod, descriptors))
    })?;
    drop(runtime);
    let (program, arguments) = words.split_first().context("name a program")?;
    join(supervisor, &descriptors).with_context(|| format!("enter pod {}/{}", pod.namespace, pod.name))?;
    let mut command = Command::new(program);
    command.args(arguments).env("HOSTNAME", &pod.name);
    let status = command.status().map_err(|error| {
        Failure::new(Exit::NotFound, format!("run {}: {error}", program.display()))
            .fix("the program must be one of this machine; `/proc/self/exe mesh-shop get http://web/` always is")
    })?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

fn join(supervisor: i32, descriptors: &Descriptors) -> anyhow::Result<()> {
    let open = |path: String| File::open(&path).with_context(|| format!("open {path}"));
    let descriptor = |number: i32| open(format!("/proc/{supervisor}/fd/{number}"));
    // All are opened before the first is joined: /proc is another one inside.
    let users = open(format!("/proc/{supervisor}/ns/user"))?;
    let processes = open(format!("/proc/{supervisor}/ns/pid"))?;
    let (network, mounts) = (descriptor(descriptors.network)?, descriptor(descriptors.mounts)?);
    setns(&users, CloneFlags::CLONE_NEWUSER).context("join the user namespace")?;
    setns(&network, CloneFlags::CLONE_NEWNET).context("join the network namespace")?;
    setns(&processes, CloneFlags::CLONE_NEWPID).context("join the process namespace")?;
    setns(&mounts, CloneFlags::CLONE_NEWNS).context("join the mount namespace")?;
    Ok(())
}

async fn one_pod(resource: &Resource) -> Result<PodInfo, Failure> {
    let pods = select(Cluster::playground()?.pods(None).await?, Some(resource))?;
    // Any pod of a workload is as good as another, as with kubectl.
    pods.into_iter().next().ok_or_else(|| Failure::new(Exit::NotFound, format!("{resource} has no pod")))
}
