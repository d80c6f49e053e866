//! Certificates and TLS for both stacks: rustls over TCP, BoringSSL under QUIC.
