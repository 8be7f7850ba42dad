//! What becomes of a playground in which processes die: what ran is started again, and when one of those dies that hold
//! it together, nothing stays behind.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read},
    process::{Child, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use tokio::time::Instant;

use crate::support::{Inside, Playground, items, parent, text};

/// Liveness takes three failures, ten seconds apart, to end a process; the rest is for a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

#[test]
fn what_dies_is_started_again_and_the_end_of_the_first_process_is_the_end_of_all() {
    let playground = Playground::new();
    playground.ok("playground --detach");
    let inside = playground.inside();
    let mut tap = Tap::start(&playground);
    tap.next();

    // It hangs: nobody sees a process end, its liveness probe does.
    assert_eq!(inside.signal("mesh-injector run", Signal::SIGSTOP), 1);
    for words in ["mesh-controller run", "mesh-shop web --version=v2", "mesh-shop stock"] {
        assert_eq!(inside.signal(words, Signal::SIGKILL), 1, "{words}");
    }
    // Proxies hold all they know in memory: certificate, policy, destinations.
    assert!(inside.signal("mesh-proxy run", Signal::SIGKILL) >= 4);

    let killed = [("mesh-controller", "controller"), ("web", "web"), ("stock", "stock"), ("load", "mesh-proxy")];
    let rows = wait(&playground, "every one was started again and is ready", |rows| {
        killed.iter().all(|(workload, container)| find(rows, workload, container)["restarts"] == 1)
            && killed.iter().all(|(workload, container)| find(rows, workload, container)["ready"] == true)
    });
    for (workload, container) in killed {
        let end = &find(&rows, workload, container)["lastEnd"];
        assert!(end.as_str().is_some_and(|end| end.contains("SIGKILL")), "{workload}: {end}");
    }
    // The tap that ran all the while shows what the new proxies show.
    tap.until("tap of pod shop/web-v1-", "goes on");
    tap.next();
    // The new proxies have certificates again, from the new controller.
    let tap = playground.ok("tap deploy/web-v1 --playground --from deploy/load -o ndjson -c 1");
    let event: Value = serde_json::from_str(&tap).unwrap();
    assert_eq!(event["tls"], true, "{event}");
    assert!(playground.get("deploy/load", "http://web/").starts_with("200 OK"));

    let rows = wait(&playground, "what hung was ended, started again and is ready", |rows| {
        let injector = find(rows, "mesh-injector", "injector");
        injector["restarts"] == 1 && injector["ready"] == true
    });
    let end = find(&rows, "mesh-injector", "injector")["lastEnd"].clone();
    assert!(end.as_str().is_some_and(|end| end.ends_with(": no answer within 1s")), "{end}");

    kill(playground.supervisor(), Signal::SIGKILL).unwrap();
    nothing_is_left(&playground, &inside);
}

#[test]
fn a_killed_keeper_or_launcher_takes_everything_along() {
    let playground = Playground::new();
    playground.ok("playground --detach");
    let inside = playground.inside();
    kill(parent(playground.supervisor()).unwrap(), Signal::SIGKILL).unwrap();
    until("all processes have ended", || inside.processes().is_empty());

    // Nobody was left to remove the directory: the next one is started in it.
    let mut launcher = playground.command("playground").stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(launcher.stderr.take().unwrap()).lines();
    let said: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.contains("ready in")).collect();
    assert!(said.iter().any(|line| line.starts_with("control plane")), "{said:#?}");
    let inside = playground.inside();
    launcher.kill().unwrap();
    launcher.wait().unwrap();
    nothing_is_left(&playground, &inside);
}

pub(crate) fn nothing_is_left(playground: &Playground, inside: &Inside) {
    until("all processes have ended", || inside.processes().is_empty());
    until("no file is left", || fs::read_dir(playground.runtime()).unwrap().count() == 0);
}

/// A tap of the web service that nobody ends.
struct Tap {
    child: Child,
    lines: Receiver<String>,
    talk: Receiver<String>,
}

impl Tap {
    fn start(playground: &Playground) -> Self {
        let mut command = playground.command("tap deploy/web-v1 --playground -o ndjson");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let read = |from: Box<dyn Read + Send>| {
            let (sender, receiver) = channel();
            std::thread::spawn(move || {
                BufReader::new(from).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
            });
            receiver
        };
        let (lines, talk) =
            (read(Box::new(child.stdout.take().unwrap())), read(Box::new(child.stderr.take().unwrap())));
        Self { child, lines, talk }
    }

    /// Waits for a request that is not shown yet.
    fn next(&mut self) {
        while self.lines.try_recv().is_ok() {}
        let line = self.lines.recv_timeout(PATIENCE).unwrap();
        assert!(line.contains("\"workload\":\"deployment/web-v1\""), "{line}");
    }

    /// Waits until it says something that begins and ends so.
    fn until(&mut self, begin: &str, end: &str) {
        while let line = self.talk.recv_timeout(PATIENCE).unwrap()
            && !(line.starts_with(begin) && line.ends_with(end))
        {}
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The rows of `playground status`, once they are as they should be.
fn wait(playground: &Playground, what: &str, are: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let begun = Instant::now();
    loop {
        // It fails, and prints the same, while a pod is not ready.
        let output = playground.meshctl("playground status -o json");
        let rows = items(&text(&output.stdout));
        if output.status.success() && are(&rows) {
            return rows;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: {rows:#?}\n{}", text(&output.stderr));
    }
}

pub(crate) fn until(what: &str, is: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

/// A container of a workload.
fn find<'a>(rows: &'a [Value], workload: &str, container: &str) -> &'a Value {
    let row = rows.iter().find(|row| row["workload"] == format!("deployment/{workload}")).unwrap();
    row["containers"].as_array().unwrap().iter().find(|one| one["name"] == container).unwrap()
}
