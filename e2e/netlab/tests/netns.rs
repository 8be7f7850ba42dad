//! The network that everything else is tested in, tested itself: pods reach each other over the node, in both address
//! families, and processes end with their values.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, ExitCode};
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use mesh_netlab::{Addresses, Lab, Namespace, Process, userns};

/// Set for copies of this test that play a part in it.
const ROLE: &str = "NETLAB_TEST_ROLE";

#[expect(clippy::print_stderr, reason = "the harness speaks to the person who runs it")]
fn main() -> ExitCode {
    match std::env::var(ROLE).as_deref() {
        Ok("outside") => return run_outside(),
        Ok("init") => return run_init(),
        _ => {}
    }
    if let Err(error) = userns::enter(userns::Isolation::default()) {
        eprintln!("cannot run tests in network namespaces: {error}");
        return ExitCode::FAILURE;
    }
    let trials = vec![
        Trial::test("pods_reach_each_other_over_the_node", pods_reach_each_other_over_the_node),
        Trial::test("the_node_reaches_pods", the_node_reaches_pods),
        Trial::test("a_socket_opened_inside_works_outside", a_socket_opened_inside_works_outside),
        Trial::test("a_process_runs_inside_and_ends_with_its_value", a_process_runs_inside_and_ends_with_its_value),
        Trial::test("mounts_of_a_pod_are_its_own", mounts_of_a_pod_are_its_own),
        Trial::test(
            "everything_ends_with_the_init_of_a_pid_namespace",
            everything_ends_with_the_init_of_a_pid_namespace,
        ),
        Trial::test("the_address_of_a_dropped_pod_is_free_at_once", the_address_of_a_dropped_pod_is_free_at_once),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn addresses(host: u8) -> Addresses {
    Addresses { v4: [10, 0, 0, host].into(), v6: Some([0xfd00, 0, 0, 0, 0, 0, 0, host.into()].into()) }
}

fn lab() -> Result<Lab, Failed> {
    Ok(Lab::new(addresses(254))?)
}

/// What `client` reads from a connection to `address`, and the address the server saw.
fn greet(server: &Namespace, client: &Namespace, address: IpAddr) -> Result<(String, SocketAddr), Failed> {
    let listener = server.run(|| TcpListener::bind((address, 0)))??;
    let local = listener.local_addr()?;
    let mut stream = client.run(|| TcpStream::connect_timeout(&local, Duration::from_secs(10)))??;
    let (mut accepted, peer) = listener.accept()?;
    accepted.write_all(b"hello")?;
    drop(accepted);
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok((text, peer))
}

fn pods_reach_each_other_over_the_node() -> Result<(), Failed> {
    let lab = lab()?;
    let (web, client) = (lab.pod("web", addresses(1))?, lab.pod("client", addresses(2))?);
    for (address, source) in web.addresses().iter().zip(client.addresses().iter()) {
        let (text, peer) = greet(web.namespace(), client.namespace(), address)?;
        assert_eq!((text.as_str(), peer.ip()), ("hello", source));
    }
    Ok(())
}

fn the_node_reaches_pods() -> Result<(), Failed> {
    let lab = lab()?;
    let web = lab.pod("web", addresses(1))?;
    for address in web.addresses().iter() {
        let (text, _) = greet(web.namespace(), lab.node(), address)?;
        assert_eq!(text, "hello");
    }
    Ok(())
}

fn a_socket_opened_inside_works_outside() -> Result<(), Failed> {
    let lab = lab()?;
    let pod = lab.pod("web", addresses(1))?;
    let (text, peer) = greet(pod.namespace(), pod.namespace(), [127, 0, 0, 1].into())?;
    assert_eq!(text, "hello");
    assert!(peer.ip().is_loopback());
    Ok(())
}

fn a_process_runs_inside_and_ends_with_its_value() -> Result<(), Failed> {
    let lab = lab()?;
    let pod = lab.pod("web", addresses(1))?;
    let process = pod.start(Command::new("sh").args(["-c", "cat /proc/net/fib_trie; echo ready; exec sleep 1000"]))?;
    process.wait_for_line("ready", Duration::from_secs(10))?;
    assert!(process.output().contains("10.0.0.1"), "{}", process.output());
    let proc_entry = format!("/proc/{}", process.id());
    assert!(std::fs::exists(&proc_entry)?);
    drop(process);
    assert!(!std::fs::exists(&proc_entry)?);

    let silent = pod.start(&mut Command::new("true"))?;
    let error = silent.wait_for_line("never", Duration::from_secs(10)).expect_err("it prints nothing");
    assert!(error.to_string().contains("before its output ended"), "{error}");
    Ok(())
}

fn mounts_of_a_pod_are_its_own() -> Result<(), Failed> {
    let lab = lab()?;
    let hosts = std::env::temp_dir().join(format!("netlab-hosts-{}", std::process::id()));
    std::fs::write(&hosts, "10.0.0.9 web\n")?;
    let pod = lab.pod_with_mounts("web", addresses(1), || {
        nix::mount::mount(Some(&hosts), "/etc/hosts", None::<&str>, nix::mount::MsFlags::MS_BIND, None::<&str>)?;
        Ok(())
    })?;
    let inside = pod.run(|| std::fs::read_to_string("/etc/hosts"))??;
    let by_process = pod.start(Command::new("cat").arg("/etc/hosts"))?.wait_for_line("web", Duration::from_secs(10))?;
    let outside = std::fs::read_to_string("/etc/hosts")?;
    std::fs::remove_file(&hosts)?;
    assert_eq!(inside, "10.0.0.9 web\n");
    assert_eq!(by_process, "10.0.0.9 web");
    assert_ne!(outside, inside);
    Ok(())
}

fn the_address_of_a_dropped_pod_is_free_at_once() -> Result<(), Failed> {
    let lab = lab()?;
    let pod = lab.pod("web-1", addresses(1))?;
    let remains = pod.namespace().run(|| TcpListener::bind(("0.0.0.0", 0)))??;
    drop(pod);
    let again = lab.pod("web-2", addresses(1))?;
    let (text, _) = greet(again.namespace(), lab.node(), IpAddr::V4(again.addresses().v4))?;
    assert_eq!(text, "hello");
    drop(remains);
    Ok(())
}

fn everything_ends_with_the_init_of_a_pid_namespace() -> Result<(), Failed> {
    let outside = Process::start(&Namespace::create()?, Command::new(std::env::current_exe()?).env(ROLE, "outside"))?;
    let line = outside.wait_for_line("init is", Duration::from_secs(10))?;
    assert_eq!(line, "init is 1, in /proc also 1");
    // The orphan holds the output open for as long as it lives.
    let error = outside.wait_for_line("never", Duration::from_secs(10)).expect_err("nobody says so");
    assert!(error.to_string().contains("before its output ended"), "{error}");
    Ok(())
}

/// Makes a PID namespace and starts its init.
fn run_outside() -> ExitCode {
    userns::enter(userns::Isolation { pids: true }).expect("namespaces inside ours");
    let exe = std::env::current_exe().expect("this program has a path");
    let status = Command::new(exe).env(ROLE, "init").status().expect("init starts");
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Leaves an orphan behind.
#[expect(clippy::print_stdout, reason = "how it answers the test that started it")]
fn run_init() -> ExitCode {
    userns::mount_proc().expect("/proc of the new PID namespace");
    let in_proc = std::fs::read_link("/proc/self").expect("/proc is mounted");
    let orphan = Command::new("sleep").arg("1000").spawn().expect("a process starts");
    drop(orphan);
    println!("init is {}, in /proc also {}", std::process::id(), in_proc.display());
    ExitCode::SUCCESS
}
