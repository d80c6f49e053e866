//! The program `bauta-link`, as a person uses it. Needs root.

#![expect(clippy::expect_used, reason = "a program that prints no counters fails its test")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use bauta_lab::{Net, Process};
use nix::sys::signal::Signal;

const SOON: Duration = Duration::from_secs(5);

fn link(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bauta-link"));
    command.args(args);
    command
}

/// The counters it prints at the end.
fn counters(output: &str) -> serde_json::Value {
    let line = output.lines().rfind(|line| line.starts_with('{')).expect("counters as JSON");
    serde_json::from_str(line).expect("JSON")
}

#[test]
fn it_delays_obeys_counts_and_cleans_up() {
    let net = Net::new().unwrap();
    let (a, b) = (net.namespace("a").unwrap(), net.namespace("b").unwrap());
    let ends = [format!("{}:10.2.0.1/24", a.name()), format!("{}:10.2.0.2/24", b.name())];
    let socket = net.folder().join("control");
    let mut command = link(&["--between", &ends[0], "--and", &ends[1], "--delay", "20ms"]);
    command.args(["--jitter", "1ms", "uniform", "--seed", "3", "--control"]).arg(&socket);
    let mut program = Process::spawn_with_stdin(command, net.folder()).unwrap();
    program.wait_for_line("the link is up", SOON).unwrap();

    let ping = || a.run("ping", &["-c3", "-i0.1", "-W1", "10.2.0.2"]);
    let average: f64 = ping().unwrap().rsplit('/').nth(2).unwrap().parse().unwrap();
    assert!((38.0..44.0).contains(&average), "{average} ms");

    let mut typed = program.stdin().unwrap();
    writeln!(typed, "up blackhole on").unwrap();
    program.wait_for_line("ok: up", SOON).unwrap();
    ping().unwrap_err();

    let mut control = UnixStream::connect(&socket).unwrap();
    let mut answers = BufReader::new(control.try_clone().unwrap()).lines();
    writeln!(control, "nonsense").unwrap();
    assert!(answers.next().unwrap().unwrap().contains("`nonsense`"));
    writeln!(control, "blackhole off\nstats").unwrap();
    assert!(answers.next().unwrap().unwrap().starts_with("ok"));
    assert!(answers.next().unwrap().unwrap().contains("down"));
    assert!(answers.next().unwrap().unwrap().starts_with('{'));
    ping().unwrap();

    program.signal(Signal::SIGINT);
    let counters = counters(&program.finish(SOON).unwrap());
    assert_eq!(counters["up"]["blackholed"], 3);
    assert_eq!(counters["down"]["packets_out"], 6);
    assert!(!a.ip("link").unwrap().contains("link0"), "the device is gone");
    assert!(!socket.exists());
}

#[test]
fn it_makes_and_removes_namespaces_when_asked() {
    let net = Net::new().unwrap();
    let names = ["a", "b"].map(|end| format!("lab-{}-{end}", std::process::id()));
    let exists = |name: &String| std::path::Path::new("/run/netns").join(name).exists();
    let args = ["--create", "--between", &names[0], "--and", &names[1], "--duration", "300ms"];
    let mut program = net.spawn(link(&args)).unwrap();
    program.wait_for_line("the link is up", SOON).unwrap();
    assert!(names.iter().all(exists));
    program.finish(SOON).unwrap();
    assert!(!names.iter().any(exists));
}

#[test]
fn what_is_wrong_is_said_plainly() {
    let net = Net::new().unwrap();
    let fails = |args: &[&str]| {
        let mut program = net.spawn(link(args)).unwrap();
        program.finish(SOON).unwrap_err().to_string()
    };
    let error = fails(&["--between", "no-such-ns", "--and", "b"]);
    assert!(error.contains("ip netns add no-such-ns"), "{error}");
    let error = fails(&["--between", "a", "--and", "b", "--up", "rate fast"]);
    assert!(error.contains("--up") && error.contains("`fast`"), "{error}");
    let error = fails(&["--between", "a", "--and", "b", "--loss", "5"]);
    assert!(error.contains("`5`") && error.contains('%'), "{error}");
}
