//! Topology, gateway and clients together.

use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use bauta_lab::addresses::{GATEWAY_V4, GATEWAY_V6, INTERNET_V4};
use bauta_lab::{Namespace, Topology, TopologyBuilder};

use crate::client::Client;
use crate::gateway::{DOMAIN, Gateway};

/// No test takes longer: then everything in its namespaces is killed, and what waits for it fails.
const LIMIT: Duration = Duration::from_secs(240);

/// Scenes of one test program take turns: they measure.
static TURN: Mutex<()> = Mutex::new(());

/// What a scene is made of; [`Setting::default`] is one client on a veth.
pub struct Setting {
    topology: TopologyBuilder,
    gateway: String,
    tunnel: String,
    tables: String,
    client: String,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            topology: Topology::builder(),
            gateway: String::new(),
            tunnel: String::new(),
            tables: String::new(),
            client: String::new(),
        }
    }
}

impl Setting {
    /// Another network.
    #[must_use]
    pub fn topology(self, build: impl FnOnce(TopologyBuilder) -> TopologyBuilder) -> Self {
        Self { topology: build(self.topology), ..self }
    }

    /// So many clients, each with an account of its own.
    #[must_use]
    pub fn clients(self, clients: usize) -> Self {
        self.topology(|t| t.clients(clients))
    }

    /// Lines for the top of the gateway's configuration.
    #[must_use]
    pub fn gateway(self, lines: &str) -> Self {
        Self { gateway: self.gateway + lines + "\n", ..self }
    }

    /// Lines for its `[tunnel]`.
    #[must_use]
    pub fn tunnel(self, lines: &str) -> Self {
        Self { tunnel: self.tunnel + lines + "\n", ..self }
    }

    /// Whole tables of it.
    #[must_use]
    pub fn tables(self, lines: &str) -> Self {
        Self { tables: self.tables + lines + "\n", ..self }
    }

    /// Lines of every client's configuration.
    #[must_use]
    pub fn client(self, lines: &str) -> Self {
        Self { client: self.client + lines + "\n", ..self }
    }
}

/// A network with a gateway that serves, and clients that hold accounts `user-0`, `user-1`, ….
pub struct Scene {
    /// The clients; none is up.
    pub clients: Vec<Client>,
    /// The gateway; it serves.
    pub gateway: Gateway,
    /// The network.
    pub topology: Topology,
}

impl Scene {
    fn new(setting: Setting) -> Result<Self> {
        let topology = setting.topology.build()?;
        topology.gateway.resolvers(&[&INTERNET_V4.to_string()])?;
        let mut gateway =
            Gateway::new(&topology.gateway, &setting.gateway, &setting.tunnel, &setting.tables)?;
        let mut clients = Vec::new();
        let hosts = format!("127.0.0.1 localhost\n{GATEWAY_V4} {DOMAIN}\n{GATEWAY_V6} {DOMAIN}\n");
        for (n, ns) in topology.clients.iter().enumerate() {
            // A name server that does not exist: what still asks it, asks past the tunnel.
            ns.resolvers(&["198.51.100.53"])?;
            ns.etc_file("hosts", &hosts)?;
            let link = gateway.complete(&gateway.add_user(&format!("user-{n}"))?);
            clients.push(Client::new(ns, n, link, &setting.client)?);
        }
        gateway.start()?;
        Ok(Self { clients, gateway, topology })
    }

    /// The internet.
    #[must_use]
    pub fn internet(&self) -> &Namespace {
        &self.topology.internet
    }

    /// The first client, the gateway, the internet.
    pub fn cast(&mut self) -> (&mut Client, &mut Gateway, &Namespace) {
        (&mut self.clients[0], &mut self.gateway, &self.topology.internet)
    }
}

/// Sets a scene and plays a test on it. A failure panics while everything still runs, so that each
/// program's last lines are shown.
#[track_caller]
pub fn play(setting: Setting, test: impl FnOnce(&mut Scene) -> Result<()>) {
    let _turn: MutexGuard<'_, ()> = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut scene = Scene::new(setting).unwrap_or_else(|e| panic!("the scene: {e:#}"));
    let _watchdog = Watchdog::over(&scene.topology);
    if let Err(error) = test(&mut scene) {
        panic!("{error:#}");
    }
}

/// Ends a test that hangs.
struct Watchdog {
    _over: mpsc::Sender<()>,
}

impl Watchdog {
    fn over(topology: &Topology) -> Self {
        let mut all = topology.clients.clone();
        all.extend([topology.gateway.clone(), topology.internet.clone()]);
        let (over, told) = mpsc::channel::<()>();
        thread::spawn(move || {
            if told.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("the test takes longer than {LIMIT:?}: everything it started is killed");
                all.iter().for_each(Namespace::kill_all);
            }
        });
        Self { _over: over }
    }
}
