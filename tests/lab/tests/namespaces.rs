//! Namespaces, processes and wires, for real. Needs root.

use std::process::Command;
use std::time::Duration;

use bauta_lab::{Capture, LabError, Net, Process, Topology};
use nix::sys::signal::kill;
use nix::unistd::Pid;

const SOON: Duration = Duration::from_secs(5);

fn alive(pid: u32) -> bool {
    kill(Pid::from_raw(pid as i32), None).is_ok()
}

fn exists(namespace: &str) -> bool {
    std::path::Path::new("/run/netns").join(namespace).exists()
}

/// Waits until a process that is not our child is gone.
fn wait_until_gone(pid: u32) -> bool {
    bauta_lab::clock::poll_until(SOON, || (!alive(pid)).then_some(())).is_some()
}

#[test]
fn two_namespaces_on_a_wire_reach_each_other_at_once_in_both_families() {
    let net = Net::new().unwrap();
    let (a, b) = (net.namespace("a").unwrap(), net.namespace("b").unwrap());
    net.veth((&a, "to-b"), (&b, "to-a")).unwrap();
    a.address("to-b", &["10.9.0.1/24", "2001:db8:9::1/64"]).unwrap();
    b.address("to-a", &["10.9.0.2/24", "2001:db8:9::2/64"]).unwrap();
    a.run("ping", &["-c1", "-W2", "10.9.0.2"]).unwrap();
    a.run("ping", &["-c1", "-W2", "2001:db8:9::2"]).unwrap();
}

#[test]
fn sockets_opened_inside_belong_to_the_namespace() {
    let net = Net::new().unwrap();
    let ns = net.namespace("inside").unwrap();
    net.veth((&ns, "x"), (&net.namespace("other").unwrap(), "y")).unwrap();
    ns.address("x", &["10.9.1.1/24"]).unwrap();
    let bind = || std::net::UdpSocket::bind("10.9.1.1:0");
    ns.enter(bind).unwrap().expect("bound inside");
    assert!(bind().is_err(), "the address does not exist outside");
}

#[test]
fn a_dropped_network_takes_processes_namespaces_and_files_with_it() {
    let net = Net::new().unwrap();
    let ns = net.namespace("gone").unwrap();
    ns.resolvers(&["192.0.2.53"]).unwrap();
    assert_eq!(ns.run("cat", &["/etc/resolv.conf"]).unwrap(), "nameserver 192.0.2.53\n");
    let sleeper = ns.start("sleep", &["600"]).unwrap();
    let (pid, name, folder) = (sleeper.pid(), ns.name().to_owned(), net.folder().to_owned());
    // A grandchild that left the process group is found by its namespace.
    let mut stray = ns.command("sh");
    stray.args(["-c", "setsid sleep 600 & echo stray $!; wait"]);
    let mut stray = ns.spawn(stray).unwrap();
    let line = stray.wait_for_line("stray ", SOON).unwrap();
    let stray_pid = line.trim_start_matches("stray ").parse().unwrap();
    assert!(alive(pid) && alive(stray_pid) && exists(&name) && folder.exists());
    drop(sleeper);
    drop((net, ns, stray));
    assert!(wait_until_gone(pid) && wait_until_gone(stray_pid));
    assert!(!exists(&name) && !folder.exists());
    assert!(!std::path::Path::new("/etc/netns").join(&name).exists());
}

/// Not a test by itself: the victim of the next one.
#[test]
#[ignore = "started by what_a_killed_test_left_behind_is_swept_by_the_next"]
fn victim() {
    let net = Net::new().unwrap();
    let ns = net.namespace("victim").unwrap();
    let direct = ns.start("sleep", &["600"]).unwrap();
    let mut stray = ns.command("sh");
    stray.args(["-c", "setsid sleep 600 & echo stray $!; wait"]);
    let mut stray = ns.spawn(stray).unwrap();
    let line = stray.wait_for_line("stray ", SOON).unwrap();
    println!("ready {} {} {}", ns.name(), direct.pid(), line.trim_start_matches("stray "));
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn what_a_killed_test_left_behind_is_swept_by_the_next() {
    let net = Net::new().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "victim", "--nocapture"]);
    let mut victim = net.spawn(command).unwrap();
    let line = victim.wait_for_line("ready ", SOON).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "ready").unwrap();
    let name = words[at + 1];
    let pids: Vec<u32> = words[at + 2..].iter().map(|pid| pid.parse().unwrap()).collect();
    assert!(exists(name) && pids.iter().all(|&pid| alive(pid)));

    victim.kill();
    assert!(wait_until_gone(pids[0]), "a direct child dies with its maker");
    // Another test's sweep may be quicker than ours.
    let swept = bauta_lab::sweep_stale();
    assert!(!exists(name), "{swept:?}");
    assert!(pids.iter().all(|&pid| wait_until_gone(pid)));
    assert!(net.folder().exists(), "the living keep what is theirs");
}

#[test]
fn a_process_shows_its_last_words_when_something_fails() {
    let net = Net::new().unwrap();
    let ns = net.namespace("words").unwrap();
    let mut fails = ns.start("sh", &["-c", "echo last words >&2; exit 3"]).unwrap();
    let error = fails.wait_for_line("never", SOON).unwrap_err();
    assert!(matches!(error, LabError::Failed { .. }));
    assert!(error.to_string().contains("last words") && error.to_string().contains('3'));

    let mut stays = ns.start("sh", &["-c", "echo still here; sleep 600"]).unwrap();
    let error = stays.wait_for_line("never", Duration::from_millis(300)).unwrap_err();
    assert!(error.to_string().contains("still here"), "{error}");
    assert!(stays.is_running());
    stays.kill();
    assert!(!stays.is_running());
    assert!(matches!(ns.run("false", &[]), Err(LabError::Failed { .. })));
}

#[test]
fn a_process_outlives_the_thread_that_started_it() {
    let net = Net::new().unwrap();
    let ns = net.namespace("thread").unwrap();
    let started = std::thread::spawn(move || ns.start("sleep", &["600"]).unwrap());
    let mut process: Process = started.join().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert!(process.is_running());
}

#[test]
fn the_shared_topology_has_the_addresses_it_promises() {
    let topology = Topology::builder().clients(2).build().unwrap();
    let [first, second] = &topology.clients[..] else { panic!("two clients") };
    for client in [first, second] {
        client.run("ping", &["-c1", "-W2", "198.51.100.1"]).unwrap();
        client.run("ping", &["-c1", "-W2", "2001:db8:1::1"]).unwrap();
    }
    topology.gateway.run("ping", &["-c1", "-W2", "198.51.100.3"]).unwrap();
    topology.gateway.run("ping", &["-c1", "-W2", "203.0.113.2"]).unwrap();
    topology.gateway.run("ping", &["-c1", "-W2", "2001:db8:2::2"]).unwrap();
    // The gateway does not forward, and the internet knows no way back.
    assert!(first.run("ping", &["-c1", "-W1", "203.0.113.2"]).is_err());
    assert!(!topology.internet.ip("route").unwrap().contains("default"));
}

#[test]
fn a_leak_towards_the_default_route_is_seen_on_the_outer_link() {
    let topology = Topology::internet().unwrap();
    let capture = Capture::start(&topology.gateway, "access0", "").unwrap();
    let _ = topology.client().run("ping", &["-c2", "-W1", "203.0.113.2"]);
    let captured = capture.stop().unwrap();
    assert_eq!(captured.count("icmp and dst host 203.0.113.2").unwrap(), 2);
    assert_eq!(captured.count("udp port 443").unwrap(), 0);
}

#[test]
fn routers_with_a_narrow_mtu_answer_long_packets_in_both_directions() {
    let topology = Topology::builder().outer_router(1280).inner_router(1400).build().unwrap();
    let ping = |ns: &bauta_lab::Namespace, size: &str, target: &str| {
        let result = ns.run("ping", &["-c2", "-i0.2", "-W1", "-M", "do", "-s", size, target]);
        result.map_err(|e| e.to_string())
    };
    for (ns, target, outer) in [
        (topology.client(), "198.51.100.1", true),
        (&topology.gateway, "198.51.100.2", true),
        (&topology.gateway, "203.0.113.2", false),
        (&topology.internet, "203.0.113.1", false),
    ] {
        let (fits, mtu) = if outer { ("1252", "1280") } else { ("1372", "1400") };
        ping(ns, fits, target).unwrap();
        let error = ping(ns, "1440", target).unwrap_err();
        assert!(
            error.contains(&format!("mtu = {mtu}")) || error.contains(&format!("mtu={mtu}")),
            "{error}"
        );
    }
    ping(topology.client(), "1232", "2001:db8:1::1").unwrap();
    let error = ping(topology.client(), "1400", "2001:db8:1::1").unwrap_err();
    assert!(error.contains("1280"), "{error}");
    ping(&topology.internet, "1352", "2001:db8:2::1").unwrap();
    assert!(ping(&topology.internet, "1400", "2001:db8:2::1").unwrap_err().contains("1400"));
}

#[test]
fn each_path_of_a_client_carries_what_is_sent_from_its_address() {
    let paths = ["delay 5ms", "delay 40ms"].map(|w| w.parse::<bauta_lab::LinkSpec>().unwrap());
    let topology = Topology::builder().paths(paths).build().unwrap();
    for (source, least) in [("198.51.100.2", 10.0), ("10.81.1.2", 80.0), ("2001:db8:1:1::2", 80.0)]
    {
        let target = if source.contains(':') { "2001:db8:1::1" } else { "198.51.100.1" };
        let out = topology.client().run("ping", &["-c3", "-i0.2", "-I", source, target]).unwrap();
        let average: f64 = out.rsplit('/').nth(2).unwrap().parse().unwrap();
        assert!((least..least + 10.0).contains(&average), "{source}: {out}");
    }
}

#[test]
fn an_emulated_access_link_serves_a_topology_with_routers_and_several_clients() {
    let link: bauta_lab::LinkSpec = "delay 10ms rate 50mbit".parse().unwrap();
    let built = Topology::builder().clients(2).access(link).outer_router(1280).build();
    let topology = built.unwrap();
    for client in &topology.clients {
        client.run("ping", &["-c2", "-i0.2", "-W1", "198.51.100.1"]).unwrap();
        client.run("ping", &["-c2", "-i0.2", "-W1", "2001:db8:1::1"]).unwrap();
    }
    assert_eq!(topology.link().unwrap().stats().up.packets_in, 4);
    topology.link().unwrap().blackhole(true);
    topology.client().run("ping", &["-c1", "-W1", "198.51.100.1"]).unwrap_err();
    topology.clients[1].run("ping", &["-c1", "-W1", "198.51.100.1"]).unwrap();
}
