//! How the system's allocator is told to behave.

/// Freed bytes kept at the end of the heap for what comes next.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT: i32 = 16 << 20;
/// Bytes asked of the kernel at once.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const STEP: i32 = 1 << 20;

/// Lets glibc keep freed memory. quiche allocates each received datagram, and a train of them lies at
/// the end of the heap: by default it would be given back to the kernel after every train and faulted
/// in again for the next. To be called once, before there are threads. Elsewhere it does nothing.
pub fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt sets two numbers in the allocator, under its lock.
    unsafe {
        nix::libc::mallopt(nix::libc::M_TRIM_THRESHOLD, KEPT);
        nix::libc::mallopt(nix::libc::M_TOP_PAD, STEP);
    }
}
