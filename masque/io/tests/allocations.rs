//! What the way of a packet allocates once it runs: nothing by our code; what quiche does is listed.

#![expect(clippy::unwrap_used, reason = "a test says where and what")]

mod road;

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use road::Road;

thread_local! {
    static WATCHING: Cell<bool> = const { Cell::new(false) };
    static SEEN: RefCell<Vec<(Backtrace, usize)>> = const { RefCell::new(Vec::new()) };
}

/// Keeps a backtrace of every allocation of a thread that watches.
struct Counting;

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(ptr, layout, size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn note(size: usize) {
    let watching = WATCHING.try_with(|w| w.replace(false)).unwrap_or(false);
    if watching {
        let trace = Backtrace::force_capture();
        SEEN.with_borrow_mut(|seen| seen.push((trace, size)));
        WATCHING.set(true);
    }
}

/// Whose allocation it is: the innermost function of a crate that may be to blame, not of a
/// collection. A line of a backtrace names a function, or says where the one before it stands; an
/// inlined function has its crate only there.
fn culprit(trace: &Backtrace) -> (&'static str, String) {
    const WHO: [&str; 7] = ["quiche", "octets", "tokio", "tun-rs", "quinn-udp", "mio", "boring"];
    let text = trace.to_string();
    let mut function = "";
    for line in text.lines().map(str::trim_start) {
        let at = line.strip_prefix("at ").unwrap_or_default();
        if at.is_empty() {
            function = line.split_once(": ").map_or("", |(_, name)| name);
        }
        if at.starts_with("./tests/road/") {
            return ("test", function.to_owned());
        }
        let here = at.starts_with("./src/") || at.contains("/masque/src/");
        if here || function.trim_start_matches('<').starts_with("bauta_") {
            return ("bauta", function.to_owned());
        }
        let is = |who: &&str| {
            let path = who.replace('-', "_") + "::";
            at.contains(&format!("/{who}-")) || function.trim_start_matches('<').starts_with(&path)
        };
        if let Some(who) = WHO.into_iter().find(|who| is(who)) {
            return (who, function.to_owned());
        }
    }
    ("test", function.to_owned())
}

/// Packets watched, after as many that warm everything up.
const PACKETS: u64 = 2_000;

#[test]
fn our_code_allocates_nothing_for_a_packet() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut road = runtime.block_on(Road::open());
    for size in [64, 1_200] {
        let packet = road::packet(size);
        runtime.block_on(road.up(&packet, 40, PACKETS));
        SEEN.take();
        WATCHING.set(true);
        let before = road.far.arrived;
        runtime.block_on(road.up(&packet, 40, PACKETS));
        WATCHING.set(false);
        let packets = (road.far.arrived - before) as f64;
        let mut by_name = BTreeMap::<(&str, String), (u64, usize)>::new();
        for (trace, bytes) in SEEN.take() {
            let who = culprit(&trace);
            let entry = by_name.entry(who).or_default();
            *entry = (entry.0 + 1, entry.1 + bytes);
        }
        eprintln!("{size} bytes, {packets} packets; allocations a packet, bytes a packet:");
        let (mut ours, mut theirs) = (0, 0);
        for ((who, function), (count, bytes)) in &by_name {
            let each = *count as f64 / packets;
            eprintln!("{each:8.4} {:8.1}  {who}: {function}", *bytes as f64 / packets);
            match *who {
                "bauta" => ours += count,
                "quiche" => theirs += count,
                _ => {}
            }
        }
        assert_eq!(road.far.refused, 0);
        assert!(theirs as f64 >= packets * 0.9, "the list is blind: quiche copies each datagram");
        // A queue may grow once more; what is allocated for packets would show a thousandfold.
        assert!((ours as f64) < packets / 100.0, "{ours} allocations of ours");
    }
}
