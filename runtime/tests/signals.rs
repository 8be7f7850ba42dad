//! Signals reach the process as drain, then abort. Its own test binary, since signals are per process.

use std::process;
use std::time::Duration;

use mesh_runtime::shutdown::{Signal, Signals};
use nix::sys::signal::{self, Signal as Kind};
use nix::unistd::Pid;

#[tokio::test]
async fn the_first_signal_drains_and_the_second_aborts() {
    let mut signals = Signals::install().unwrap();
    assert_eq!(next_after(&mut signals, Kind::SIGTERM).await, Signal::Drain);
    assert_eq!(next_after(&mut signals, Kind::SIGINT).await, Signal::Abort);
}

async fn next_after(signals: &mut Signals, kind: Kind) -> Signal {
    let this = Pid::from_raw(i32::try_from(process::id()).expect("a process id"));
    signal::kill(this, kind).expect("send to ourselves");
    tokio::time::timeout(Duration::from_secs(30), signals.next()).await.expect("the signal arrives")
}
