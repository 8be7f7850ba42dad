//! Servers that keep to no rule and never stop, to the real binary: requests to others go on by the same proxy, it says what
//! happened, and its memory comes back.

use std::{
    io,
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use mesh_testbed::{
    Member,
    apps::HTTP_PORT,
    hostile::{ATTACKS, Now, ask_http2, serve},
    manifests,
    member::Pod,
    talk::get,
    until,
};

use crate::{WEB_A, WEB_B, http, mesh, settings};

/// What may stay behind (reliability.md §3.1: INV 3).
const LEFT_BEHIND: f64 = 16.0 * 1024.0 * 1024.0;
fn resident(member: &Member) -> io::Result<f64> {
    member.gauge("process_resident_memory_bytes", &[])
}

pub(crate) fn hostile_servers_harm_neither_the_proxy_nor_requests_to_others() -> anyhow::Result<()> {
    let mesh = mesh(settings())?;
    let _good = mesh.member(&Pod::new("a", "web", 1))?;
    let client = mesh.member(&Pod::new("client", "client", 2))?;
    let outsider = mesh.outsider("outsider", 9)?;
    let address = Ipv4Addr::new(10, 0, 0, 9);
    let listener = outsider.run(|| TcpListener::bind((address, HTTP_PORT)))??;
    mesh.control.apply("endpoints-b.yaml", &manifests::endpoints("web-b", address))?;
    let (now, over) = (Now::default(), AtomicBool::new(false));
    let ask = |service| client.run(|| get(http(service), "/", &[]))?;

    thread::scope(|scope| {
        scope.spawn(|| serve(&listener, &now, &over));
        let result = attacked(&client, &now, &ask);
        over.store(true, Ordering::Relaxed);
        // So that the listener looks up.
        let _ = outsider.run(|| TcpStream::connect((address, HTTP_PORT)));
        result
    })
}

fn attacked(
    client: &Member,
    now: &Now,
    ask: &(impl Fn(Ipv4Addr) -> io::Result<mesh_testbed::talk::Answer> + Sync),
) -> anyhow::Result<()> {
    until("the hostile server is an endpoint", || (ask(WEB_B).ok()?.status == 502).then_some(()))?;
    anyhow::ensure!(ask(WEB_A)?.status == 200, "the good server");
    let (started, before) = (client.gauge("process_start_time_seconds", &[])?, resident(client)?);
    for (number, attack) in ATTACKS.iter().enumerate() {
        now.store(number, Ordering::Relaxed);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let victim = scope.spawn(|| {
                let mut asked = 0;
                while !done.load(Ordering::Relaxed) || asked < 20 {
                    let answer = ask(WEB_A)?;
                    anyhow::ensure!(answer.status == 200, "{}: another request got {answer:?}", attack.name);
                    asked += 1;
                }
                anyhow::Ok(())
            });
            let attacked = (|| {
                if attack.http2 {
                    return anyhow::Ok(client.run(|| ask_http2(http(WEB_B)))??);
                }
                for _ in 0..3 {
                    let answer = ask(WEB_B)?;
                    let said = (answer.status, answer.header("mesh-error"));
                    anyhow::ensure!(said == (502, attack.code), "{}: {answer:?}", attack.name);
                }
                Ok(())
            })();
            done.store(true, Ordering::Relaxed);
            let victim = victim.join().map_err(|_| anyhow::anyhow!("the victim panicked"))?;
            attacked.and(victim)
        })?;
    }
    until("the memory is back", || (resident(client).ok()? <= before + LEFT_BEHIND).then_some(()))?;
    let restarted = client.gauge("process_start_time_seconds", &[])? - started;
    anyhow::ensure!(restarted.abs() < 0.5, "it is another process");
    anyhow::ensure!(!client.log().contains("panicked"), "{}", client.log());
    Ok(())
}
