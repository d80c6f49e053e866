//! Connection ids: short keys, and the stateless-reset tokens that belong to them.

use quiche::{ConnectionId, MAX_CONN_ID_LEN};

/// Length of the ids this side chooses, in bytes.
pub const LOCAL_CID_LEN: usize = 8;

/// A connection id as a map key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cid {
    len: u8,
    bytes: [u8; MAX_CONN_ID_LEN],
}

impl std::hash::Hash for Cid {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write(self.as_slice());
    }
}

impl Cid {
    /// The id in `bytes`; `None` when it is longer than QUIC version 1 allows (20 bytes).
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut cid = Self { len: u8::try_from(bytes.len()).ok()?, bytes: [0; MAX_CONN_ID_LEN] };
        cid.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(cid)
    }

    /// The id's bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The id in quiche's type.
    pub fn to_quic(self) -> ConnectionId<'static> {
        ConnectionId::from_vec(self.as_slice().to_vec())
    }
}

/// Fills `out` with the system's randomness.
///
/// # Panics
/// Where the kernel has no randomness at all: nothing secure can be done then.
pub fn random(out: &mut [u8]) {
    #[expect(clippy::expect_used, reason = "without randomness there is no safe way on")]
    getrandom::fill(out).expect("the kernel gives random bytes");
}

/// The stateless-reset token of a connection id (RFC 9000 section 10.3.2): a keyed hash, so that a
/// gateway that was restarted can still end the connections of its former life.
pub fn reset_token(key: &[u8; 32], cid: &[u8]) -> Option<u128> {
    let digest = boring::hash::hmac_sha256(key, cid).ok()?;
    digest.first_chunk().copied().map(u128::from_be_bytes)
}
