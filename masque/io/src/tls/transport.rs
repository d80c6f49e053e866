//! QUIC's numbers.

use std::time::Duration;

/// Requests a client may have open at once; quiche allows one more for each that ends.
pub const MAX_REQUESTS: u64 = 1024;

/// Transport parameters and queue lengths of a QUIC connection (RFC 9000 §18.2).
///
/// The defaults suit a website and tunnels alike: windows for about 1 Gbit/s at 100 ms, and nothing
/// by which one could be told from the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportConfig {
    /// Silence after which a connection is gone; a client sends keep-alives well before.
    pub max_idle_timeout: Duration,
    /// Bytes the peer may send on all streams ahead of our reading.
    pub initial_max_data: u64,
    /// The most this window grows to, in bytes.
    pub max_connection_window: u64,
    /// Bytes the peer may send ahead on one stream.
    pub initial_max_stream_data: u64,
    /// The most this window grows to, in bytes.
    pub max_stream_window: u64,
    /// Requests the peer may have open at once.
    pub initial_max_streams_bidi: u64,
    /// Unidirectional streams the peer may open; HTTP/3 needs 3 and GREASE.
    pub initial_max_streams_uni: u64,
    /// Connection ids the peer may give us, for migration and probing.
    pub active_connection_id_limit: u64,
    /// DATAGRAM frames held until they are read.
    pub datagram_recv_queue: usize,
    /// DATAGRAM frames held until they are sent.
    pub datagram_send_queue: usize,
    /// The largest UDP payload taken in, in bytes.
    pub max_recv_udp_payload: usize,
    /// The largest UDP payload sent, in bytes: where path MTU discovery ends (1,500 − 20 − 8).
    pub max_send_udp_payload: usize,
    /// Probes for the path MTU (RFC 8899), from 1,200 bytes up.
    pub discover_pmtu: bool,
    /// The peer may not change its address.
    pub disable_active_migration: bool,
    /// Congestion control by its name: `cubic`, `reno`, `bbr2_gcongestion`.
    pub congestion_control: &'static str,
    /// Packets the congestion window never falls below, with pacing off: for connections whose rate
    /// is controlled elsewhere. Needs `bbr2_gcongestion`.
    pub window_floor: Option<usize>,
}

/// The largest window quiche knows, packets: it does not bind.
const NO_WINDOW: usize = 20_000;

impl TransportConfig {
    /// For a gateway.
    pub fn server() -> Self {
        Self {
            max_idle_timeout: Duration::from_secs(30),
            initial_max_data: 16 << 20,
            max_connection_window: 32 << 20,
            initial_max_stream_data: 1 << 20,
            max_stream_window: 8 << 20,
            initial_max_streams_bidi: MAX_REQUESTS,
            initial_max_streams_uni: 8,
            active_connection_id_limit: 8,
            datagram_recv_queue: 4096,
            datagram_send_queue: 4096,
            max_recv_udp_payload: 65_527,
            max_send_udp_payload: 1472,
            discover_pmtu: true,
            disable_active_migration: false,
            congestion_control: "cubic",
            window_floor: None,
        }
    }

    /// The same for connections that carry a tunnel with a rate control of its own: nothing else
    /// differs, and nothing of it is announced.
    #[must_use]
    pub fn tunnel(self) -> Self {
        Self { congestion_control: "bbr2_gcongestion", window_floor: Some(NO_WINDOW), ..self }
    }

    /// For a client: windows and stream counts as browsers announce them.
    pub fn client() -> Self {
        Self {
            initial_max_data: 15 << 20,
            initial_max_stream_data: 6 << 20,
            initial_max_streams_bidi: 100,
            initial_max_streams_uni: 103,
            max_recv_udp_payload: 1472,
            ..Self::server()
        }
    }

    pub(super) fn apply(&self, config: &mut quiche::Config) -> Result<(), quiche::Error> {
        config.set_application_protos(quiche::h3::APPLICATION_PROTOCOL)?;
        config.set_max_idle_timeout(
            self.max_idle_timeout.as_millis().try_into().unwrap_or(u64::MAX >> 2),
        );
        config.set_initial_max_data(self.initial_max_data);
        config.set_max_connection_window(self.max_connection_window);
        config.set_initial_max_stream_data_bidi_local(self.initial_max_stream_data);
        config.set_initial_max_stream_data_bidi_remote(self.initial_max_stream_data);
        config.set_initial_max_stream_data_uni(self.initial_max_stream_data);
        config.set_max_stream_window(self.max_stream_window);
        config.set_initial_max_streams_bidi(self.initial_max_streams_bidi);
        config.set_initial_max_streams_uni(self.initial_max_streams_uni);
        config.set_active_connection_id_limit(self.active_connection_id_limit);
        config.set_disable_active_migration(self.disable_active_migration);
        config.enable_dgram(true, self.datagram_recv_queue, self.datagram_send_queue);
        config.set_max_recv_udp_payload_size(self.max_recv_udp_payload);
        config.set_max_send_udp_payload_size(self.max_send_udp_payload);
        config.discover_pmtu(self.discover_pmtu);
        config.set_cc_algorithm_name(self.congestion_control)?;
        if let Some(packets) = self.window_floor {
            config.enable_pacing(false);
            config.set_custom_bbr_params(quiche::BbrParams {
                min_cwnd_packets: Some(packets),
                time_sent_set_to_now: Some(true),
                ..quiche::BbrParams::default()
            });
        }
        // quiche's GREASE carries a sentence of its own that anybody could recognise it by.
        config.grease(false);
        Ok(())
    }
}
