//! Floods of HTTP/2 frames against the inbound side, by a peer outside the mesh that keeps to no rule: the proxy lives, its
//! memory comes back, and the requests of others are all answered meanwhile.

use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use mesh_testbed::{
    Member,
    apps::HTTP_PORT,
    floods::{End, attack, floods},
    member::Pod,
    talk::get,
    until,
};

use crate::{WEB, http, mesh, settings};

/// Longest a flood lasts.
const FLOOD: Duration = Duration::from_secs(3);
/// What a flood may leave behind (reliability.md §3.1: INV 3).
const LEFT_BEHIND: f64 = 16.0 * 1024.0 * 1024.0;

fn resident(member: &Member) -> io::Result<f64> {
    member.gauge("process_resident_memory_bytes", &[])
}

pub(crate) fn floods_of_frames_end_their_own_connection_and_harm_nobody_else() -> anyhow::Result<()> {
    let mesh = mesh(settings())?;
    let pod = Pod::new("a", "web", 1);
    let server = mesh.member(&pod)?;
    let client = mesh.member(&Pod::new("client", "client", 2))?;
    // Without a redirect: its frames arrive as they are.
    let outsider = mesh.unready_member(&Pod::new("outsider", "outsider", 3))?;
    let address = SocketAddr::from((pod.ip(), HTTP_PORT));
    let ask = || client.run(|| get(http(WEB), "/", &[]));
    assert_eq!(ask()??.status, 200);
    let (started, before) = (server.gauge("process_start_time_seconds", &[])?, resident(&server)?);

    for flood in floods() {
        let over = AtomicBool::new(false);
        let (end, asked) = thread::scope(|scope| {
            let attack = scope.spawn(|| {
                let end = outsider.run(|| attack(address, &flood, FLOOD));
                over.store(true, Ordering::Relaxed);
                end
            });
            let mut asked = 0;
            while !over.load(Ordering::Relaxed) || asked < 20 {
                let answer = ask()??;
                anyhow::ensure!(answer.status == 200, "{}: another client got {answer:?}", flood.name);
                asked += 1;
            }
            let end = attack.join().map_err(|_| anyhow::anyhow!("the attack panicked"))??;
            Ok((end?.0, asked))
        })?;
        assert!(end == End::Closed || !flood.closed, "{}: {end:?}, {asked} requests of another client", flood.name);
    }
    until("the memory is back", || (resident(&server).ok()? <= before + LEFT_BEHIND).then_some(()))?;
    let restarted = server.gauge("process_start_time_seconds", &[])? - started;
    assert!(restarted.abs() < 0.5, "it is another process");
    assert!(!server.log().contains("panicked"), "{}", server.log());
    Ok(())
}
