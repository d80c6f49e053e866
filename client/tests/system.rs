//! Routes, firewall, name servers and their undoing on the real kernel, each test in namespaces of its own.
//!
//! They need root; without it they say so and pass.
#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
    process::Command,
    time::Duration,
};

use bauta::{
    dns,
    killswitch::{self, Guard},
    net::Net,
    routes::{Installed, Netlink, Plan},
    state::{Change, Folder},
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::socket::{setsockopt, sockopt::Mark},
};

const MARK: u32 = 0xba00;
const GATEWAY: &str = "203.0.113.1:443";

/// Runs a test on a thread that has a network and a mount namespace of its own.
fn isolated<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("NOT TESTED: needs root for namespaces");
        return;
    }
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .unwrap();
        // /proc/sys/net shows the namespace of the process that reads it; nothing to mount.
        sh("ip link set lo up");
        sh("ip link add outer type veth peer name beyond");
        sh("ip addr add 192.0.2.2/24 dev outer; ip -6 addr add 2001:db8::2/64 dev outer nodad");
        sh("ip link set outer up; ip link set beyond up");
        sh("ip neigh add 192.0.2.1 lladdr 02:00:00:00:00:01 dev outer");
        sh("ip route add default via 192.0.2.1; ip -6 route add default via 2001:db8::1 dev outer");
        sh(
            "ip tuntap add bauta0 mode tun; ip addr add 10.9.0.2/32 dev bauta0; ip link set bauta0 up",
        );
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    });
    thread.join().unwrap();
}

fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {err}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// All that the client may change, as text.
fn picture() -> String {
    sh(
        "ip rule; ip -6 rule; ip route show table all | sort; ip -6 route show table all | sort; nft list ruleset",
    )
}

fn nets(list: &[&str]) -> Vec<Net> {
    list.iter().map(|n| n.parse().unwrap()).collect()
}

fn plan(full: bool, through: &[&str]) -> Plan {
    Plan { mark: MARK, table: MARK, full, through: nets(through), exclude: Vec::new() }
}

/// Which interface the kernel sends to `target` by; empty when it refuses.
fn way(target: &str, mark: u32) -> String {
    let script = format!("ip route get {target} mark {mark} 2>&1 || true");
    let text = sh(&script);
    text.split_whitespace().skip_while(|w| *w != "dev").nth(1).unwrap_or("").into()
}

/// Whether the firewall lets a datagram out.
fn leaves(target: &str, mark: Option<u32>) -> bool {
    let target: SocketAddr = target.parse().unwrap();
    let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).unwrap();
    if let Some(mark) = mark {
        setsockopt(&socket, Mark, &mark).unwrap();
    }
    socket.send_to(b"x", target).is_ok()
}

fn guard<'a>(gateways: &'a [SocketAddr], addresses: &'a [IpAddr]) -> Guard<'a> {
    Guard {
        tun: "bauta0",
        mark: MARK,
        gateways,
        addresses,
        exclude: &[],
        allow_lan: false,
        drop: true,
    }
}

#[test]
fn a_full_tunnel_takes_everything_but_the_marked_and_leaves_no_trace() {
    isolated(|| async {
        let before = picture();
        let netlink = Netlink::open().unwrap();
        let tun = netlink.index("bauta0").await.unwrap();
        let full = plan(true, &["0.0.0.0/0"]);
        netlink.install(&full, tun).await.unwrap();
        // Twice is fine: a client that takes over does that.
        netlink.install(&full, tun).await.unwrap();
        assert_eq!(way("198.51.100.1", 0), "bauta0");
        assert_eq!(way("203.0.113.1", MARK), "outer");
        assert_eq!(way("192.0.2.9", 0), "outer", "a connected network stays what it was");
        assert_eq!(way("2001:db8:1::1", 0), "", "the family not carried is unreachable");
        assert_eq!(way("2001:db8:1::1", MARK), "outer");
        netlink.remove(&Installed { mark: MARK, table: MARK }).await.unwrap();
        assert_eq!(picture(), before);
        netlink.remove(&Installed { mark: MARK, table: MARK }).await.unwrap();
    });
}

#[test]
fn routes_stay_closed_when_the_interface_goes() {
    isolated(|| async {
        let netlink = Netlink::open().unwrap();
        let tun = netlink.index("bauta0").await.unwrap();
        netlink.install(&plan(false, &["10.0.0.0/8"]), tun).await.unwrap();
        assert_eq!(way("10.1.2.3", 0), "bauta0");
        assert_eq!(way("198.51.100.1", 0), "outer", "what is not advertised goes as before");
        sh("ip link del bauta0");
        assert_eq!(way("10.1.2.3", 0), "");
    });
}

#[test]
fn another_advertisement_changes_the_routes_in_place() {
    isolated(|| async {
        let before = picture();
        let netlink = Netlink::open().unwrap();
        let tun = netlink.index("bauta0").await.unwrap();
        let (full, scoped) =
            (plan(true, &["0.0.0.0/0", "::/0"]), plan(false, &["10.0.0.0/8", "172.16.0.0/12"]));
        netlink.install(&full, tun).await.unwrap();
        netlink.change(&full, &scoped, tun).await.unwrap();
        assert_eq!((way("10.1.1.1", 0), way("198.51.100.1", 0)), ("bauta0".into(), "outer".into()));
        assert_eq!(sh("ip -6 rule | grep -c ^31 || true").trim(), "0");
        netlink.change(&scoped, &full, tun).await.unwrap();
        assert_eq!(way("198.51.100.1", 0), "bauta0");
        netlink.remove(&Installed { mark: MARK, table: MARK }).await.unwrap();
        assert_eq!(picture(), before);
    });
}

#[test]
fn exclusions_go_the_old_way() {
    isolated(|| async {
        let netlink = Netlink::open().unwrap();
        let tun = netlink.index("bauta0").await.unwrap();
        let plan = Plan { exclude: nets(&["198.51.100.0/24"]), ..plan(true, &["0.0.0.0/0"]) };
        netlink.install(&plan, tun).await.unwrap();
        assert_eq!(
            (way("198.51.100.7", 0), way("198.51.101.7", 0)),
            ("outer".into(), "bauta0".into())
        );
    });
}

#[test]
fn nothing_passes_the_kill_switch_but_the_tunnel_itself() {
    isolated(|| async {
        let before = picture();
        let gateways = [GATEWAY.parse().unwrap()];
        let addresses = ["10.9.0.2".parse().unwrap()];
        assert!(leaves("198.51.100.1:53", None));
        killswitch::install(&guard(&gateways, &addresses)).await.unwrap();
        assert!(!leaves("198.51.100.1:53", None));
        assert!(!leaves("[2001:db8:1::1]:53", None), "IPv6 as well");
        assert!(!leaves("192.0.2.1:53", None), "the local network too");
        assert!(!leaves(GATEWAY, None), "to the gateway only with the mark");
        assert!(!leaves("203.0.113.1:53", Some(MARK)), "with the mark only to its port");
        assert!(!leaves("198.51.100.1:443", Some(MARK)), "with the mark only to the gateway");
        assert!(leaves(GATEWAY, Some(MARK)));
        assert!(leaves("127.0.0.1:9", None));
        // Replaced in place: the gateway has moved.
        let moved = ["203.0.113.9:443".parse().unwrap()];
        killswitch::install(&guard(&moved, &addresses)).await.unwrap();
        assert!(!leaves(GATEWAY, Some(MARK)));
        killswitch::remove("bauta").await.unwrap();
        killswitch::remove("bauta").await.unwrap();
        assert_eq!(picture(), before);
    });
}

#[test]
fn what_is_meant_for_the_tunnel_passes_the_kill_switch() {
    isolated(|| async {
        let gateways = [GATEWAY.parse().unwrap()];
        let netlink = Netlink::open().unwrap();
        let tun = netlink.index("bauta0").await.unwrap();
        killswitch::install(&guard(&gateways, &[])).await.unwrap();
        netlink.install(&plan(true, &["0.0.0.0/0"]), tun).await.unwrap();
        // Nobody holds the interface, so it has no carrier and eats the packet; but it is not refused.
        let script = "nft list table inet bauta | grep -A20 'chain output' | grep 'kept inside'";
        let counted = sh(script);
        let _ = leaves("198.51.100.1:53", None);
        assert_eq!(sh(script), counted);
        // Exclusions are open in both.
        let exclude = nets(&["198.51.100.0/24"]);
        killswitch::install(&Guard { exclude: &exclude, allow_lan: true, ..guard(&gateways, &[]) })
            .await
            .unwrap();
        assert!(leaves("192.168.77.1:53", Some(1)) || way("192.168.77.1", 0) == "bauta0");
    });
}

#[test]
fn a_bind_mounted_resolv_conf_is_written_in_place_and_restored() {
    isolated(|| async {
        let dir = tempfile::tempdir().unwrap();
        let (lower, path) = (dir.path().join("lower"), dir.path().join("resolv.conf"));
        let original = "nameserver 192.0.2.53 # mine\n";
        fs::write(&lower, original).unwrap();
        fs::write(&path, "").unwrap();
        mount(Some(&lower), &path, None::<&Path>, MsFlags::MS_BIND, None::<&Path>).unwrap();
        let saved = dns::save(&path, "bauta0").unwrap();
        dns::apply(&saved, "bauta0", &["9.9.9.9".parse().unwrap()], &[]).await.unwrap();
        assert!(fs::read_to_string(&lower).unwrap().contains("9.9.9.9"));
        assert!(dns::restore(&saved, "bauta0").await.unwrap());
        assert_eq!(fs::read_to_string(&lower).unwrap(), original);
        nix::mount::umount(&path).unwrap();
    });
}

#[test]
fn what_a_killed_client_leaves_is_undone_from_its_state_file_alone() {
    isolated(|| async {
        let dir = tempfile::tempdir().unwrap();
        let resolv = dir.path().join("resolv.conf");
        fs::write(&resolv, "nameserver 192.0.2.53\n").unwrap();
        let before = picture();
        let folder = Folder::new(dir.path(), "bauta0");
        let sysctl = Path::new("/proc/sys/net/ipv4/conf/all/src_valid_mark");
        let knob = fs::read_to_string(sysctl).unwrap();
        {
            // Everything a client does, and then it is gone without a word.
            let mut held = folder.hold().unwrap().unwrap();
            held.begin("gateway:443".into(), vec![GATEWAY.parse().unwrap()]).unwrap();
            held.record(Change::Firewall { table: killswitch::table("bauta0") }).unwrap();
            killswitch::install(&guard(&[GATEWAY.parse().unwrap()], &[])).await.unwrap();
            held.record(Change::Sysctl { path: sysctl.into(), original: knob.clone() }).unwrap();
            fs::write(sysctl, "1").unwrap();
            held.record(Change::Routes(Installed { mark: MARK, table: MARK })).unwrap();
            let netlink = Netlink::open().unwrap();
            let tun = netlink.index("bauta0").await.unwrap();
            netlink.install(&plan(true, &["0.0.0.0/0", "::/0"]), tun).await.unwrap();
            let saved = dns::save(&resolv, "bauta0").unwrap();
            held.record(Change::Dns(saved.clone())).unwrap();
            dns::apply(&saved, "bauta0", &["9.9.9.9".parse().unwrap()], &[]).await.unwrap();
        }
        assert!(!leaves("198.51.100.1:53", Some(MARK)), "closed until somebody says otherwise");
        let mut held = folder.hold().unwrap().unwrap();
        assert_eq!(held.state().gateways, [GATEWAY.parse().unwrap()]);
        // A new client takes over: routes go, the firewall and the name servers stay until replaced.
        assert!(held.take_over().await.is_empty());
        assert!(!leaves("198.51.100.1:53", None));
        assert!(held.saved_dns().is_some());
        assert!(held.restore().await.is_empty());
        assert_eq!(picture(), before);
        assert_eq!(fs::read_to_string(sysctl).unwrap(), knob);
        assert_eq!(fs::read_to_string(&resolv).unwrap(), "nameserver 192.0.2.53\n");
        assert!(!folder.in_use());
    });
}

#[test]
fn an_address_that_comes_and_goes_is_noticed() {
    isolated(|| async {
        let mut changes = bauta::watch::changes().unwrap();
        sh("ip addr add 192.0.2.3/24 dev outer");
        tokio::time::timeout(Duration::from_secs(5), changes.recv()).await.unwrap().unwrap();
        assert_eq!(
            bauta::watch::source(GATEWAY.parse().unwrap(), Some(MARK)),
            Some("192.0.2.2".parse().unwrap())
        );
    });
}
