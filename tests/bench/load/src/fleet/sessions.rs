//! What is known of each tunnel.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bauta::config::Settings;
use bauta::headers;
use bauta_masque::address::Prefix;
use bauta_masque::connect_ip::{self, Config, ConnectIp};
use bauta_masque_io::{App, ConnId, Connection, DatagramBuf, Endpoint, Event, clock};

/// How long path MTU discovery may take before the tunnel goes on with what is known.
const MTU_PATIENCE: Duration = Duration::from_secs(1);

/// One tunnel.
struct Tunnel {
    ip: ConnectIp,
    stream: Option<u64>,
    since: Instant,
    source: Option<IpAddr>,
}

/// All tunnels, and what happens to them.
pub(super) struct Sessions {
    settings: Settings,
    tunnels: HashMap<ConnId, Tunnel>,
    /// SETTINGS have come; path MTU discovery is under way.
    settled: Vec<ConnId>,
    ready: Vec<ConnId>,
    failure: Option<String>,
    /// Packets that came back.
    pub(super) echoes: u64,
}

impl Sessions {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            tunnels: HashMap::new(),
            settled: Vec::new(),
            ready: Vec::new(),
            failure: None,
            echoes: 0,
        }
    }

    pub(super) fn begin(&mut self, id: ConnId, now: Instant) {
        let ip = ConnectIp::new(Config { decrement_ttl: false, ..Config::client() });
        self.tunnels.insert(id, Tunnel { ip, stream: None, since: now, source: None });
    }

    pub(super) fn forget_all(&mut self) {
        self.tunnels.clear();
        self.settled.clear();
        self.ready.clear();
    }

    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    pub(super) fn rising(&self) -> usize {
        self.tunnels.len() - self.ready.len()
    }

    pub(super) fn ready_ids(&self) -> Vec<ConnId> {
        self.ready.clone()
    }

    /// The request stream and our address of a tunnel that is up.
    pub(super) fn way(&self, id: ConnId) -> Option<(u64, IpAddr)> {
        let tunnel = self.tunnels.get(&id)?;
        Some((tunnel.stream?, tunnel.source?))
    }

    pub(super) fn take_failure(&mut self) -> Option<String> {
        self.failure.take()
    }

    /// Asks for the tunnels whose path is known.
    pub(super) fn ask(&mut self, now: Instant, endpoint: &mut Endpoint) {
        let mut waiting = std::mem::take(&mut self.settled);
        waiting.retain(|&id| {
            let (Some(conn), Some(tunnel)) = (endpoint.get(id), self.tunnels.get_mut(&id)) else {
                return false;
            };
            if !conn.path_mtu_settled() && now < tunnel.since + MTU_PATIENCE {
                return true;
            }
            let list = headers::connect_ip(&self.settings, conn);
            match conn.request(&list, false) {
                Ok(stream) => {
                    tunnel.stream = Some(stream);
                    let any = ["0.0.0.0/32", "::/128"];
                    let want: Vec<Prefix> = any.iter().filter_map(|p| p.parse().ok()).collect();
                    tunnel.ip.request_addresses(&want);
                    transmit(tunnel, conn);
                }
                Err(error) => self.failure = Some(format!("no request can be made: {error}")),
            }
            endpoint.touch(id);
            false
        });
        self.settled.append(&mut waiting);
    }

    /// Reads capsules; a tunnel with an address is up.
    fn read(&mut self, conn: &mut Connection, stream: u64) {
        let Some(tunnel) = self.tunnels.get_mut(&conn.id()) else { return };
        let mut buffer = [0; 4096];
        loop {
            let n = conn.recv_body(stream, &mut buffer);
            if n == 0 {
                break;
            }
            if let Err(error) = tunnel.ip.handle_stream(clock::now(), &buffer[..n]) {
                self.failure = Some(format!("the gateway's capsules: {error}"));
            }
        }
        while let Some(event) = tunnel.ip.poll_event() {
            let connect_ip::Event::AddressesAssigned(list) = event else { continue };
            let mut addresses = list.iter().filter(|a| !a.is_refusal()).map(|a| a.prefix.addr);
            let Some(v4) = addresses.find(IpAddr::is_ipv4) else { continue };
            if tunnel.source.replace(v4).is_none() {
                self.ready.push(conn.id());
            }
        }
        transmit(tunnel, conn);
    }
}

fn transmit(tunnel: &mut Tunnel, conn: &mut Connection) {
    let Some(stream) = tunnel.stream else { return };
    while let Some(bytes) = tunnel.ip.poll_transmit() {
        conn.send_body(stream, bytes, false);
    }
}

impl App for Sessions {
    fn datagram(&mut self, _: &mut Connection, _: u64, _: DatagramBuf) {
        self.echoes += 1;
    }

    fn event(&mut self, conn: &mut Connection, event: Event) {
        match event {
            Event::Settings => self.settled.push(conn.id()),
            Event::Headers { stream, headers: list, .. } => match headers::status(&list) {
                200..300 => self.read(conn, stream),
                status => self.failure = Some(format!("the gateway answers {status}")),
            },
            Event::Data { stream } => self.read(conn, stream),
            Event::Closed(closed) if self.tunnels.remove(&conn.id()).is_some() => {
                self.ready.retain(|&id| id != conn.id());
                self.failure = Some(format!("a tunnel was lost: {closed:?}"));
            }
            _ => {}
        }
    }
}
