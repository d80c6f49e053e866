//! The link emulator with real packets. Needs root.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot be made fails its test")]

use std::sync::Mutex;
use std::time::Duration;

use bauta_lab::link::Stats;
use bauta_lab::{Direction, Emulator, End, LinkPair, LinkSpec, Namespace, Net, Process};

/// Later than this at the 99th percentile, a measurement on a shared machine is not believed.
const LATENESS_P99: u64 = 10_000_000;
/// How often a measurement spoiled by lateness is tried again.
const TRIES: usize = 3;

/// Measurements take turns: they would disturb each other.
static TURN: Mutex<()> = Mutex::new(());

struct Lab {
    link: Emulator,
    a: Namespace,
    b: Namespace,
    _net: Net,
}

impl Lab {
    fn new(link: LinkPair) -> Self {
        let net = Net::new().unwrap();
        let (a, b) = (net.namespace("a").unwrap(), net.namespace("b").unwrap());
        for ns in [&a, &b] {
            ns.sysctl("ipv4/tcp_wmem", "4096 65536 33554432").unwrap();
            ns.sysctl("ipv4/tcp_rmem", "4096 131072 33554432").unwrap();
        }
        let ends = (
            End::new(&a, "link").address("10.1.0.1/24").address("2001:db8:a::1/64"),
            End::new(&b, "link").address("10.1.0.2/24").address("2001:db8:a::2/64"),
        );
        let link = Emulator::between(ends.0, ends.1, link).unwrap();
        Self { link, a, b, _net: net }
    }

    fn words(words: &str) -> Self {
        Self::new(LinkPair::symmetric(words.parse().unwrap()))
    }

    fn iperf(&self, args: &str) -> serde_json::Value {
        let mut server = self.b.start("iperf3", &["-s", "-1", "--forceflush"]).unwrap();
        server.wait_for_line("Server listening", Duration::from_secs(5)).unwrap();
        let words = format!("-J -c 10.1.0.2 {args}");
        let mut client: Process =
            self.a.start("iperf3", &words.split(' ').collect::<Vec<_>>()).unwrap();
        let report = client.finish(Duration::from_secs(30)).unwrap();
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        assert!(report["error"].is_null(), "{report}");
        report
    }

    /// Sends numbered UDP datagrams at a steady pace; returns the numbers in order of arrival.
    fn datagrams(&self, count: u32, gap: Duration) -> Vec<u32> {
        let receiver = self.b.enter(|| std::net::UdpSocket::bind("10.1.0.2:9")).unwrap().unwrap();
        let sender = self.a.enter(|| std::net::UdpSocket::bind("10.1.0.1:0")).unwrap().unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let collect = std::thread::spawn(move || {
            let mut buffer = [0; 64];
            let mut numbers = Vec::new();
            while receiver.recv(&mut buffer).is_ok() {
                numbers.push(u32::from_be_bytes(buffer[..4].try_into().unwrap()));
            }
            numbers
        });
        let start = bauta_lab::clock::now_ns();
        for n in 0..count {
            let due = start + u64::from(n) * gap.as_nanos() as u64;
            std::thread::sleep(Duration::from_nanos(
                due.saturating_sub(bauta_lab::clock::now_ns()),
            ));
            sender.send_to(&n.to_be_bytes(), "10.1.0.2:9").unwrap();
        }
        collect.join().unwrap()
    }
}

fn ping_average(ns: &Namespace, target: &str) -> f64 {
    let out = ns.run("ping", &["-c10", "-i0.05", "-W2", target]).unwrap();
    out.rsplit('/').nth(2).unwrap().parse().unwrap()
}

fn received_mbit(report: &serde_json::Value) -> f64 {
    report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap() / 1e6
}

/// Measures again while the machine was too busy for the result to be believed.
fn measure<T>(words: &str, measurement: impl Fn(&Lab) -> T) -> (T, Stats) {
    let _turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    for _ in 0..TRIES {
        let lab = Lab::words(words);
        let result = measurement(&lab);
        let stats = lab.link.stop();
        eprintln!("{words}: realtime {}, up {:?}", stats.realtime, stats.up.lateness);
        if stats.is_sound(LATENESS_P99) {
            return (result, stats.up);
        }
    }
    panic!("the machine is too busy: {TRIES} measurements were late");
}

#[test]
fn ping_takes_twice_the_delay_in_both_families() {
    let (averages, _) = measure("delay 20ms", |lab| {
        [ping_average(&lab.a, "10.1.0.2"), ping_average(&lab.b, "2001:db8:a::1")]
    });
    for average in averages {
        assert!((40.0..43.0).contains(&average), "{average} ms");
    }
}

#[test]
fn directions_are_independent() {
    let _turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    let spec = |words: &str| words.parse::<LinkSpec>().unwrap();
    let lab = Lab::new(LinkPair::asymmetric(spec("delay 5ms"), spec("delay 30ms")));
    let average = ping_average(&lab.a, "10.1.0.2");
    assert!((35.0..38.0).contains(&average), "{average} ms");
}

#[test]
fn tcp_fills_the_rate_and_no_more() {
    let (mbit, stats) =
        measure("rate 50mbit delay 10ms", |lab| received_mbit(&lab.iperf("-C cubic -t 6 -O 2")));
    // 50 Mbit/s of IP packets of 1,500 bytes carry 1,448 bytes each.
    assert!((44.0..48.4).contains(&mbit), "{mbit} Mbit/s, {stats:?}");
    assert!(stats.queue_max <= 125_000, "{stats:?}");
}

#[test]
fn udp_beyond_the_rate_is_dropped_at_the_queue() {
    let (report, stats) =
        measure("rate 20mbit delay 10ms queue 50KB", |lab| lab.iperf("-u -b 40M -l 1400 -t 4"));
    let lost = report["end"]["sum"]["lost_percent"].as_f64().unwrap();
    assert!((48.0..53.0).contains(&lost), "{lost} %");
    assert!(stats.queue_dropped > 1000 && stats.lost == 0, "{stats:?}");
}

#[test]
fn random_loss_holds_its_share_of_real_packets_and_repeats_itself() {
    let run = || {
        let gap = Duration::from_micros(100);
        measure("loss 5% delay 5ms", |lab| lab.datagrams(20_000, gap))
    };
    let ((first, stats), (again, _)) = (run(), run());
    let share = 1.0 - first.len() as f64 / 20_000.0;
    assert!((0.044..0.056).contains(&share), "{share}");
    assert!((stats.loss_ratio() - share).abs() < 0.001, "{stats:?}");
    assert_eq!(first, again, "the same packets are lost again");
    assert!(first.is_sorted());
}

#[test]
fn bursts_of_real_losses_have_the_length_asked_for() {
    let (numbers, _) =
        measure("loss 5% burst 5", |lab| lab.datagrams(40_000, Duration::from_micros(50)));
    let gaps: Vec<u32> =
        numbers.windows(2).map(|w| w[1] - w[0] - 1).filter(|&gap| gap > 0).collect();
    let mean = f64::from(gaps.iter().sum::<u32>()) / gaps.len() as f64;
    assert!((4.3..5.7).contains(&mean), "{mean}");
}

#[test]
fn jitter_reorders_only_when_asked() {
    let gap = Duration::from_micros(500);
    let (kept, _) = measure("delay 20ms 5ms normal", |lab| lab.datagrams(2000, gap));
    assert!(kept.is_sorted() && kept.len() == 2000);
    let (mixed, _) = measure("delay 20ms 5ms normal reorder", |lab| lab.datagrams(2000, gap));
    assert!(!mixed.is_sorted() && mixed.len() == 2000);
}

#[test]
fn a_running_link_changes_on_command() {
    let _turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    let lab = Lab::words("delay 5ms");
    let ping = || lab.a.run("ping", &["-c1", "-W1", "10.1.0.2"]);
    ping().unwrap();
    lab.link.blackhole(true);
    ping().unwrap_err();
    lab.link.blackhole(false);
    ping().unwrap();
    lab.link.apply(Direction::Up, "delay 45ms").unwrap();
    let average = ping_average(&lab.a, "10.1.0.2");
    assert!((50.0..54.0).contains(&average), "{average} ms");
    assert_eq!(lab.link.spec(Direction::Down).to_string(), "delay 5ms rate unlimited queue 1bdp");
    assert!(lab.link.apply(None, "dealy 5ms").is_err());
    assert!(lab.link.stats().up.blackholed > 0);
    lab.link.reset_stats();
    assert_eq!(lab.link.stats().up.packets_in, 0);
}

#[test]
fn a_hole_is_silent_or_answers_with_its_mtu() {
    let _turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    let lab = Lab::words("hole 1400");
    let ping = |size: &str, target: &str| {
        lab.a.run("ping", &["-c2", "-i0.2", "-W1", "-M", "do", "-s", size, target])
    };
    ping("1372", "10.1.0.2").unwrap();
    let silence = ping("1373", "10.1.0.2").unwrap_err().to_string();
    assert!(silence.contains("100% packet loss") && !silence.contains("mtu"), "{silence}");
    lab.link.apply(None, "ptb 1400").unwrap();
    let answer = ping("1373", "10.1.0.2").unwrap_err().to_string();
    assert!(answer.contains("mtu = 1400") || answer.contains("mtu=1400"), "{answer}");
    let answer = ping("1400", "2001:db8:a::2").unwrap_err().to_string();
    assert!(answer.contains("1400"), "{answer}");
}

#[test]
fn a_gigabit_at_twenty_milliseconds_is_held() {
    let (mbit, stats) =
        measure("rate 1gbit delay 20ms", |lab| received_mbit(&lab.iperf("-C cubic -t 6 -O 2")));
    eprintln!(
        "{mbit:.0} Mbit/s; lateness p50 {} µs, p99 {} µs, worst {} µs; {:.1} packets a wake-up",
        stats.lateness.p50_ns / 1000,
        stats.lateness.p99_ns / 1000,
        stats.lateness.max_ns / 1000,
        stats.packets_in as f64 / stats.wakeups.max(1) as f64,
    );
    assert_eq!(stats.failed, 0, "{stats:?}");
    assert!(mbit > 700.0, "{mbit} Mbit/s, {stats:?}");
}
