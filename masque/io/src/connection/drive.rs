//! From what quiche has learnt to what the [`App`] is told.

use bauta_masque::datagram;
use quiche::h3;
use tracing::{debug, trace};

use super::outgoing::Progress;
use super::{Connection, EARLY_DATAGRAMS, Event};
use crate::endpoint::App;
use crate::tls::MAX_REQUESTS;

impl Connection {
    /// Tells `app` all that happened since the last call and moves queued stream data on.
    pub(crate) fn drive(&mut self, h3_config: &h3::Config, app: &mut impl App) {
        if !self.established {
            if !self.quic.is_established() {
                return;
            }
            self.established = true;
            match h3::Connection::with_transport(&mut self.quic, h3_config) {
                Ok(h3) => self.h3 = Some(h3),
                Err(error) => {
                    debug!(conn = self.id, %error, "HTTP/3 did not start");
                    return self.close(datagram::H3_INTERNAL_ERROR, b"");
                }
            }
            app.event(self, Event::Established);
        }
        // What the path carries is to be known to those who take a request that came over it.
        self.poll_paths(app);
        self.poll_h3(app);
        self.poll_datagrams(app);
        self.poll_writable(app);
    }

    fn poll_h3(&mut self, app: &mut impl App) {
        while let Some(h3) = self.h3.as_mut() {
            let polled = h3.poll(&mut self.quic);
            if !self.settings_seen && h3.peer_settings_raw().is_some() {
                (self.settings_seen, self.held) = (true, false);
                app.event(self, Event::Settings);
            }
            match polled {
                Ok((stream, event)) => self.tell(stream, event, app),
                Err(h3::Error::Done) => break,
                Err(error) => {
                    // quiche has closed the connection with the right code already.
                    trace!(conn = self.id, %error, "HTTP/3 error");
                    break;
                }
            }
        }
    }

    fn tell(&mut self, stream: u64, event: h3::Event, app: &mut impl App) {
        match event {
            h3::Event::Headers { list, more_frames } => {
                self.seen_streams = self.seen_streams.max(stream + 4);
                app.event(self, Event::Headers { stream, headers: list, fin: !more_frames });
                self.replay_early(stream, app);
            }
            h3::Event::Data => app.event(self, Event::Data { stream }),
            h3::Event::Finished => app.event(self, Event::Finished { stream }),
            h3::Event::Reset(code) => app.event(self, Event::Reset { stream, code }),
            h3::Event::GoAway => app.event(self, Event::GoAway),
            h3::Event::PriorityUpdate => {}
        }
    }

    fn replay_early(&mut self, stream: u64, app: &mut impl App) {
        for _ in 0..self.early.len() {
            let Some((id, buf)) = self.early.pop_front() else { break };
            if id == stream {
                app.datagram(self, stream, buf);
            } else {
                self.early.push_back((id, buf));
            }
        }
    }

    fn poll_datagrams(&mut self, app: &mut impl App) {
        while let Ok(mut buf) = self.quic.dgram_recv_buf() {
            let (stream, prefix) = match datagram::decode(buf.as_ref()) {
                Ok(decoded) => decoded,
                Err(_) => return self.close(datagram::H3_DATAGRAM_ERROR, b""),
            };
            buf.advance(prefix);
            if stream < self.seen_streams {
                app.datagram(self, stream, buf);
            } else if self.is_server && stream >= self.seen_streams + 4 * MAX_REQUESTS {
                return self.close(datagram::H3_ID_ERROR, b"");
            } else if self.is_server && self.early.len() < EARLY_DATAGRAMS {
                self.early.push_back((stream, buf));
            }
        }
    }

    fn poll_paths(&mut self, app: &mut impl App) {
        while let Some(event) = self.quic.path_event_next() {
            match event {
                quiche::PathEvent::PmtuUpdated { pmtu, .. } => {
                    self.path_mtu = pmtu;
                    app.event(self, Event::PathMtu { udp_payload: pmtu });
                }
                quiche::PathEvent::PeerMigrated(..) => {
                    self.moved = true;
                    app.event(self, Event::Migrated);
                }
                quiche::PathEvent::Validated(..) if !self.is_server => {
                    app.event(self, Event::Migrated);
                }
                _ => {}
            }
        }
    }

    fn poll_writable(&mut self, app: &mut impl App) {
        if self.outgoing.is_empty() {
            return;
        }
        while let Some(stream) = self.quic.stream_writable_next() {
            let Some(h3) = self.h3.as_mut() else { return };
            let Some(out) = self.outgoing.get_mut(&stream) else { continue };
            let progress = match self.quic.stream_capacity(stream) {
                Err(quiche::Error::StreamStopped(code)) => Progress::Stopped(code),
                _ => out.write(h3, &mut self.quic, stream),
            };
            match progress {
                Progress::Ended => drop(self.outgoing.remove(&stream)),
                Progress::Stopped(code) => {
                    self.outgoing.remove(&stream);
                    app.event(self, Event::Stopped { stream, code });
                }
                Progress::Open { writable: true } => app.event(self, Event::Writable { stream }),
                Progress::Open { writable: false } => {}
            }
        }
    }
}
