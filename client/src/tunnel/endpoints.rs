//! The sockets a tunnel uses side by side: one, or one for each interface that is a path.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Instant;

use bauta_masque_io::bonded::Connections;
use bauta_masque_io::udp::UdpSocket;
use bauta_masque_io::{App, ConnId, Connection, Endpoint, EndpointConfig};

use crate::config::Settings;
use crate::interfaces::Usable;
use crate::quic;
use crate::stage::{Failure, Stage};

/// Connections are numbered from the number of their link, shifted so far.
const LINK_SHIFT: u32 = 48;

/// A link's number, never used again.
pub(super) type LinkId = u64;

/// Which link a connection is on.
pub(super) fn link_of(conn: ConnId) -> LinkId {
    conn >> LINK_SHIFT
}

/// A socket, and the interface it is bound to.
pub(super) struct Link {
    pub(super) id: LinkId,
    /// The interface; `None` where the system's routes decide.
    pub(super) interface: Option<Usable>,
    pub(super) endpoint: Endpoint,
}

/// All links.
pub(super) struct Endpoints {
    links: Vec<Link>,
    /// Where new sessions begin.
    main: LinkId,
    next: LinkId,
}

impl Endpoints {
    pub(super) fn new() -> Endpoints {
        Endpoints { links: Vec::new(), main: 0, next: 0 }
    }

    /// Adds a link over an interface, or wherever routes lead.
    pub(super) fn add(
        &mut self,
        settings: &Settings,
        interface: Option<Usable>,
    ) -> Result<LinkId, Failure> {
        let id = self.next;
        let config = EndpointConfig {
            packet_limit: settings.packet_limit,
            qlog_dir: settings.qlog.clone(),
            shape: settings.shape,
            first_id: id << LINK_SHIFT,
            ..EndpointConfig::default()
        };
        let device = interface.as_ref().map(|i| i.name.as_str());
        let endpoint = Endpoint::client(quic::bound_socket(settings, device)?, config)
            .map_err(|e| Failure::new(Stage::Handshake, e, "this is a fault of the client"))?;
        self.next += 1;
        if self.links.is_empty() {
            self.main = id;
        }
        self.links.push(Link { id, interface, endpoint });
        Ok(id)
    }

    /// Lets a link go, with all that is on it.
    pub(super) fn remove(&mut self, id: LinkId) {
        self.links.retain(|link| link.id != id);
        if self.main == id
            && let Some(first) = self.links.first()
        {
            self.main = first.id;
        }
    }

    pub(super) fn links(&self) -> &[Link] {
        &self.links
    }

    pub(super) fn link(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.id == id)
    }

    /// Where new sessions begin.
    pub(super) fn main(&mut self) -> Option<&mut Link> {
        let id = self.main;
        self.link(id)
    }

    /// New sessions begin on the next link, in turn.
    pub(super) fn rotate(&mut self) {
        let at = self.links.iter().position(|link| link.id == self.main).unwrap_or(0);
        if let Some(next) = self.links.get((at + 1) % self.links.len().max(1)) {
            self.main = next.id;
        }
    }

    /// New sessions begin on this link.
    pub(super) fn set_main(&mut self, id: LinkId) {
        self.main = id;
    }

    pub(super) fn get(&mut self, conn: ConnId) -> Option<&mut Connection> {
        self.link(link_of(conn))?.endpoint.get(conn)
    }

    pub(super) fn touch(&mut self, conn: ConnId) {
        if let Some(link) = self.link(link_of(conn)) {
            link.endpoint.touch(conn);
        }
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        self.links.iter().filter_map(|link| link.endpoint.timeout()).min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, app: &mut impl App) {
        self.links.iter_mut().for_each(|link| link.endpoint.handle_timeout(now, app));
    }

    pub(super) fn handle_readable(&mut self, now: Instant, app: &mut impl App) {
        self.links.iter_mut().for_each(|link| link.endpoint.handle_readable(now, app));
    }

    pub(super) fn flush(&mut self, now: Instant, app: &mut impl App) {
        self.links.iter_mut().for_each(|link| link.endpoint.flush(now, app));
    }

    pub(super) fn close_all(&mut self, code: u64, reason: &[u8]) {
        self.links.iter_mut().for_each(|link| link.endpoint.close_all(code, reason));
    }

    /// Goes on over another socket, where routes decide.
    pub(super) fn rebind(&mut self, socket: UdpSocket) {
        if let Some(link) = self.main() {
            link.endpoint.rebind(socket);
        }
    }

    /// Waits until one of the sockets has something to read, or has failed.
    pub(super) async fn readable(&self) {
        poll_fn(|cx| {
            let ready = self.links.iter().any(|link| link.endpoint.poll_readable(cx).is_ready());
            if ready { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Waits until one of the sockets takes again what it refused.
    pub(super) async fn writable(&self) {
        poll_fn(|cx| {
            let ready = self.links.iter().any(|link| link.endpoint.poll_writable(cx).is_ready());
            if ready { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl Link {
    /// The gateway's addresses that are reached over this link, out of all.
    pub(super) fn gateways<'a>(&'a self, all: &'a [SocketAddr]) -> &'a [SocketAddr] {
        self.interface.as_ref().map_or(all, |interface| &interface.gateways)
    }

    /// How it is called.
    pub(super) fn name(&self) -> &str {
        self.interface.as_ref().map_or("routed", |interface| &interface.name)
    }
}

impl Connections for Endpoints {
    fn get(&mut self, id: ConnId) -> Option<&mut Connection> {
        Self::get(self, id)
    }

    fn touch(&mut self, id: ConnId) {
        Self::touch(self, id);
    }
}
