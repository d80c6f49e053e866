//! What becomes of the ingress when its process dies, and what the process must be allowed.

use crate::wire::*;
use bauta_lab::{Namespace, Process};

/// Starts this very program as one that opens the ingress and holds it, by way of `prefix`.
fn holder(host: &Namespace, prefix: &[&str]) -> Process {
    let program = std::env::current_exe().unwrap();
    let test =
        ["--exact", "process::holds_the_ingress_until_it_is_killed", "--ignored", "--nocapture"];
    let words: Vec<&str> =
        prefix.iter().copied().chain([program.to_str().unwrap()]).chain(test).collect();
    host.start(words[0], &words[1..]).unwrap()
}

#[test]
#[ignore = "not a test: the others start it"]
fn holds_the_ingress_until_it_is_killed() {
    let opened = bauta_xdp::open("veth0", &filter(), &bauta_xdp::FASTEST_FIRST);
    for step in &opened.steps {
        println!("{step}");
    }
    println!("{}", if opened.ingress.is_some() { "opened" } else { "refused" });
    std::thread::sleep(SOON * 4);
}

#[test]
fn a_killed_process_leaves_nothing_attached_and_the_next_one_attaches_at_once() {
    let wire = Wire::new();
    let socket = wire.host_socket(PORT);
    for _ in 0..3 {
        let mut child = holder(&wire.host, &["env"]);
        child.wait_for_line("opened", SOON).unwrap();
        assert!(wire.has_program());
        child.kill();
        let gone = bauta_lab::clock::poll_until(SOON, || (!wire.has_program()).then_some(()));
        assert!(gone.is_some(), "the program went with its process");
        wire.peer_socket().send_to(b"kernel", to(HOST, PORT)).unwrap();
        assert_eq!(socket.recv(&mut [0; 16]).unwrap(), 6);
    }
    assert!(wire.open().ingress.is_some());
}

#[test]
fn three_capabilities_are_enough_without_root_and_none_is_too_few() {
    let wire = Wire::new();
    let nobody = |capabilities: &'static str| {
        [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--inh-caps",
            capabilities,
            "--ambient-caps",
            capabilities,
            "--",
        ]
    };
    let mut child = holder(&wire.host, &nobody("-all,+net_admin,+net_raw,+bpf"));
    child.wait_for_line("opened", SOON).unwrap();
    child.kill();
    for missing in ["-all,+net_admin,+net_raw", "-all,+net_raw,+bpf", "-all"] {
        let mut child = holder(&wire.host, &nobody(missing));
        child.wait_for_line("refused", SOON).unwrap();
        assert!(child.output().contains("CAP_NET_ADMIN"), "{missing}: {}", child.output());
    }
}
