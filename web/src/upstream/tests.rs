//! The reverse proxy against a real hyper server on loopback.
