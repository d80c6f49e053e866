//! What is queued on one stream and has not been taken by QUIC yet.

use std::collections::VecDeque;

use bytes::Bytes;
use quiche::h3::{self, Header};

use super::{HIGH_WATER, LOW_WATER, Quic};

/// A part of a message, in the order in which it goes out.
pub(super) enum Piece {
    Interim(Vec<Header>),
    Head(Vec<Header>),
    Body(Bytes),
    Trailers(Vec<Header>),
}

/// How far writing came.
pub(super) enum Progress {
    /// The stream goes on; `writable` when its queue has drained after having been full.
    Open { writable: bool },
    /// All is written, the end included.
    Ended,
    /// The peer wants no more of it.
    Stopped(u64),
}

#[derive(Default)]
pub(super) struct Outgoing {
    pieces: VecDeque<Piece>,
    queued: usize,
    fin: bool,
    full: bool,
}

impl Outgoing {
    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    pub(super) fn push(&mut self, piece: Piece, fin: bool) {
        if self.fin {
            return;
        }
        if let Piece::Body(body) = &piece {
            self.queued += body.len();
            self.full |= self.queued > HIGH_WATER;
        }
        self.pieces.push_back(piece);
        self.fin = fin;
    }

    pub(super) fn write(
        &mut self,
        h3: &mut h3::Connection,
        quic: &mut Quic,
        stream: u64,
    ) -> Progress {
        while let Some(piece) = self.pieces.pop_front() {
            let last = self.fin && self.pieces.is_empty();
            let written = match piece {
                Piece::Interim(list) => h3
                    .send_response(quic, stream, &list, false)
                    .map_err(|e| (e, Piece::Interim(list))),
                Piece::Head(list) => self
                    .write_head(h3, quic, stream, &list, last)
                    .map_err(|e| (e, Piece::Head(list))),
                Piece::Trailers(list) => h3
                    .send_additional_headers(quic, stream, &list, true, true)
                    .map_err(|e| (e, Piece::Trailers(list))),
                Piece::Body(body) => self
                    .write_body(h3, quic, stream, body, last)
                    .map_err(|(e, rest)| (e, Piece::Body(rest))),
            };
            match written {
                Ok(()) => {}
                Err((h3::Error::Done | h3::Error::StreamBlocked, piece)) => {
                    self.pieces.push_front(piece);
                    return self.drained();
                }
                Err((h3::Error::TransportError(quiche::Error::StreamStopped(code)), _)) => {
                    return Progress::Stopped(code);
                }
                // The stream or the connection is gone: nothing of it can be written any more.
                Err(_) => return Progress::Ended,
            }
            if last {
                return Progress::Ended;
            }
        }
        self.drained()
    }

    fn write_head(
        &self,
        h3: &mut h3::Connection,
        quic: &mut Quic,
        stream: u64,
        list: &[Header],
        fin: bool,
    ) -> Result<(), h3::Error> {
        match h3.send_response(quic, stream, list, fin) {
            // An interim response came first: quiche then wants the final one as additional headers.
            Err(h3::Error::FrameUnexpected) => {
                h3.send_additional_headers(quic, stream, list, false, fin)
            }
            other => other,
        }
    }

    fn write_body(
        &mut self,
        h3: &mut h3::Connection,
        quic: &mut Quic,
        stream: u64,
        mut body: Bytes,
        fin: bool,
    ) -> Result<(), (h3::Error, Bytes)> {
        loop {
            let length = body.len();
            if length == 0 && !fin {
                return Ok(());
            }
            match h3.send_body_zc(quic, stream, &mut body, fin) {
                // quiche leaves the written part in `body` when it took all of it.
                Ok(n) => {
                    self.queued -= n.min(self.queued);
                    if n == length {
                        return Ok(());
                    }
                }
                Err(error) => return Err((error, body)),
            }
        }
    }

    fn drained(&mut self) -> Progress {
        if self.pieces.is_empty() {
            // A tunnel says a few words at its beginning and stays for hours.
            self.pieces = VecDeque::new();
        }
        let writable = self.full && self.queued <= LOW_WATER;
        if writable {
            self.full = false;
        }
        Progress::Open { writable }
    }
}
