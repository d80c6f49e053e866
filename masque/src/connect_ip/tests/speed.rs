//! A rough figure for the data path, for people: run with `--release -- --ignored --nocapture speed`.

use super::*;

const ROUNDS: u32 = 5_000_000;

#[test]
#[ignore = "a measurement, not a check"]
fn speed_of_the_data_path() {
    let (mut proxy, mut client) = tunnel();
    let policy = policy();
    let up4 = payload(&v4(CLIENT4, WEB4, 17, &[0; 1200]));
    let up6 = payload(&v6(CLIENT6, WEB6, 6, &[0; 1200]));
    let down4 = v4(WEB4, CLIENT4, 17, &[0; 1200]);
    let down6 = v6(WEB6, CLIENT6, 6, &[0; 1200]);
    let now = start();
    for (name, packet) in [("handle_datagram v4", &up4), ("handle_datagram v6", &up6)] {
        let mut packet = packet.clone();
        measure(name, || {
            matches!(
                proxy.handle_datagram(now, std::hint::black_box(&mut packet), &policy),
                Verdict::Forward(_)
            )
        });
    }
    for (name, packet) in [("encapsulate v4", &down4), ("encapsulate v6", &down6)] {
        let mut packet = packet.clone();
        let hop = if packet[0] >> 4 == 4 { 8 } else { 7 };
        measure(name, || {
            packet[hop] = 64;
            matches!(
                proxy.encapsulate(now, std::hint::black_box(&mut packet), 1_400),
                Verdict::Forward(_)
            )
        });
    }
    let mut packet = up4[1..].to_vec();
    measure("encapsulate v4 at the client", || {
        matches!(
            client.encapsulate(now, std::hint::black_box(&mut packet), 1_400),
            Verdict::Forward(_)
        )
    });
}

fn measure(name: &str, mut each: impl FnMut() -> bool) {
    let begin = start();
    assert!((0..ROUNDS).all(|_| each()));
    println!("{name}: {:.1} ns", begin.elapsed().as_nanos() as f64 / f64::from(ROUNDS));
}
