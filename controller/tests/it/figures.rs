//! Measured: how long a change takes to reach a proxy.
//!
//! The aim is 200 ms at the 99th percentile, which is printed (`e2e/bench` measures it through the proxy). Asserted is that one
//! change in ten takes no longer: what another clock or another pass on the way would add, it adds to every change; what a
//! machine busy with other tests adds, it does not.

use std::time::Duration;

use mesh_proto::config::Key;
use tokio::time::Instant;

use crate::support::{Mesh, pod, service};

const AIM: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_change_reaches_the_stream_within_200_ms() {
    let web = |ready| pod("shop", "web-1", "web", "10.1.0.1", ready);
    let fixed = pod("shop", "load-1", "load", "127.0.0.2", true) + &service("shop", "web", "10.9.0.1");
    let mesh = Mesh::start(&[("fixed.yaml", &fixed), ("web.yaml", &web(true))]).await;
    let mut proxy = mesh.proxy("shop", "load", "load-1", "127.0.0.2").await;
    proxy.subscribe(Key::Outbound("10.9.0.1:80".parse().unwrap())).await;
    let mut took: Vec<Duration> = Vec::new();
    for change in 0..100 {
        let start = Instant::now();
        mesh.write("web.yaml", &web(change % 2 == 1));
        proxy.update().await;
        took.push(start.elapsed());
    }
    took.sort();
    println!("change -> message: median {:?}, p99 {:?}", took[49], took[98]);
    assert!(took[9] < AIM, "one in ten {:?}, median {:?}", took[9], took[49]);
}

/// The same in a namespace of a thousand pods and a hundred Services, one file each, with every Service dialled.
#[tokio::test]
async fn a_change_reaches_the_stream_within_200_ms_among_a_thousand_pods() {
    let name = |number: usize| format!("app-{:03}", number % 100);
    let web = |number: usize, ready| {
        let ip = format!("10.1.{}.{}", number / 200, number % 200 + 1);
        pod("shop", &format!("pod-{number}"), &name(number), &ip, ready)
    };
    let mut files = vec![("load.yaml".to_owned(), pod("shop", "load-1", "load", "127.0.0.2", true))];
    files.extend((0..1000).map(|number| (format!("pod-{number}.yaml"), web(number, true))));
    files.extend((0..100).map(|n| (format!("service-{n}.yaml"), service("shop", &name(n), &format!("10.9.0.{n}")))));
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let start = Instant::now();
    let mesh = Mesh::start(&files).await;
    println!("1101 files read: {:?}", start.elapsed());
    let mut proxy = mesh.proxy("shop", "load", "load-1", "127.0.0.2").await;
    for number in 0..100_u8 {
        proxy.subscribe(Key::Outbound(std::net::SocketAddr::from(([10, 9, 0, number], 80)))).await;
    }
    let mut took: Vec<Duration> = Vec::new();
    for change in 0..50 {
        let start = Instant::now();
        mesh.write(&format!("pod-{change}.yaml"), &web(change, false));
        proxy.update().await;
        took.push(start.elapsed());
    }
    took.sort();
    println!("change -> message among 1000 pods: median {:?}, slowest {:?}", took[24], took[49]);
    assert!(took[4] < AIM, "one in ten {:?}, median {:?}", took[4], took[24]);
}
