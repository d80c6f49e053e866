//! The configuration: one TOML file, every field with a default but the domain.
//!
//! `CONFIG.md` beside the sources is the reference; a test loads every field it names.

mod acme;
mod limits;
mod units;
mod xdp;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use acme::{Acme, Challenge, Eab};
pub use limits::Limits;
pub use units::{Net, Rate, Size, Span};
pub use xdp::{Xdp, XdpMode};

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The name the certificate is for and clients connect to. The only field without a default.
    #[serde(deserialize_with = "domain")]
    pub domain: String,
    /// Address and port of the site and the tunnels, TCP and UDP alike.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Where plain HTTP is answered with a redirect to HTTPS; absent: nowhere, and with `[acme]` on
    /// port 80.
    pub http: Option<SocketAddr>,
    /// Threads that carry packets; absent: one a core, at most [`MAX_WORKERS`].
    pub workers: Option<usize>,
    /// The user to become once sockets, TUN and rules exist; absent: `bauta`, or `nobody`.
    pub user: Option<String>,
    /// Where leases and ACME's accounts and certificates are remembered.
    #[serde(default = "default_state_dir")]
    pub state_dir: PathBuf,
    /// QUIC connections a worker may hold; each costs 16–30 KB.
    #[serde(default = "default_max_connections")]
    pub max_connections: usize,
    /// Packets one QUIC connection may protect before it is closed (RFC 9001 §6.6).
    #[serde(default = "default_packet_limit")]
    pub packet_limit: u64,
    /// The certificate in files.
    #[serde(default)]
    pub tls: Tls,
    /// Or one that is fetched.
    pub acme: Option<Acme>,
    /// What strangers see.
    #[serde(default)]
    pub site: Site,
    /// What account holders get.
    #[serde(default)]
    pub tunnel: Tunnel,
    /// Who they are.
    #[serde(default)]
    pub accounts: Accounts,
    /// What strangers may ask for.
    #[serde(default)]
    pub limits: Limits,
    /// Metrics and health.
    #[serde(default)]
    pub admin: Admin,
    /// Datagrams straight from an interface's queues.
    #[serde(default)]
    pub xdp: Xdp,
    /// What is written down.
    #[serde(default)]
    pub log: Log,
}

/// `[tls]`: PEM files, read again when they change and at `SIGHUP`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// The chain, leaf first.
    pub cert: PathBuf,
    /// The private key, PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// `[site]`: the website.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "lowercase")]
pub enum Site {
    /// The built-in sample.
    #[default]
    Sample,
    /// A folder of static files.
    Folder {
        /// Its path.
        path: PathBuf,
    },
    /// Another web server, reached over HTTP.
    Upstream {
        /// Its origin, such as `http://127.0.0.1:8080`.
        url: String,
    },
}

/// `[tunnel]`: CONNECT-IP, CONNECT-UDP and CONNECT.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tunnel {
    /// Whether anything but the website is served.
    pub enabled: bool,
    /// Whether CONNECT-IP is served; it alone needs a TUN, root and nftables.
    pub ip: bool,
    /// IPv4 addresses for clients; the first is the gateway's own. `""` in the file: none.
    #[serde(deserialize_with = "pool")]
    pub ipv4_pool: Option<Net>,
    /// IPv6 addresses for clients, likewise.
    #[serde(deserialize_with = "pool")]
    pub ipv6_pool: Option<Net>,
    /// The TUN's name.
    pub name: String,
    /// Bytes of the largest IP packet inside the TUN; what a client's path cannot carry is
    /// answered with Packet Too Big.
    pub mtu: u16,
    /// Whether packets leave under the gateway's own addresses.
    pub nat: bool,
    /// Resolvers told to CONNECT-IP clients.
    pub dns: Vec<IpAddr>,
    /// Networks reachable although the built-in policy refuses them (private, for instance).
    pub allow: Vec<Net>,
    /// Networks never reachable; stronger than `allow`.
    pub deny: Vec<Net>,
    /// Whether clients reach one another.
    pub client_to_client: bool,
    /// Path template of CONNECT-UDP (RFC 9298 §2).
    pub udp_template: String,
    /// Path template of CONNECT-IP (RFC 9484 §3).
    pub ip_template: String,
    /// Whether CONNECT-IP sessions are offered rate control, repair of losses and several paths;
    /// without it they are RFC 9484 and nothing else.
    pub resilience: bool,
    /// Silence after which a UDP flow ends; at least two minutes (RFC 9298 §3.1).
    pub udp_idle: Span,
    /// Time for a name to resolve.
    pub dns_timeout: Span,
    /// Time for a TCP target to accept.
    pub connect_timeout: Span,
    /// UDP flows and TCP connections one account may hold at once.
    pub flows: usize,
    /// Sessions of an account that names no number of its own.
    pub sessions: usize,
    /// Bits a second, each way, of an account that names none; absent: unlimited.
    pub rate: Option<Rate>,
}

/// `[accounts]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Accounts {
    /// The file `bauta-gateway user` writes.
    pub file: PathBuf,
    /// Server names in whose handshakes clients are asked for a certificate; the site's certificate
    /// has to cover them, and nobody else should know them.
    pub certificate_names: Vec<String>,
}

/// `[admin]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Where `/metrics`, `/healthz` and `/sessions` answer; keep it private. `""`: nowhere.
    #[serde(deserialize_with = "address")]
    pub listen: Option<SocketAddr>,
}

/// `[log]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// A filter such as `info` or `bauta_gateway=debug`. Client addresses appear at `debug`.
    pub level: String,
    /// Shape of a line.
    pub format: LogFormat,
    /// A folder for qlog files, one a connection: for hunting faults, not for daily use.
    pub qlog: Option<PathBuf>,
}

/// Shape of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Threads that carry packets: connection ids name the worker in one byte.
pub const MAX_WORKERS: usize = 64;

fn default_listen() -> SocketAddr {
    SocketAddr::from(([0u16; 8], 443))
}

fn default_state_dir() -> PathBuf {
    "/var/lib/bauta-gateway".into()
}

const fn default_max_connections() -> usize {
    20_000
}

const fn default_packet_limit() -> u64 {
    1 << 23
}

impl Default for Tls {
    fn default() -> Self {
        Self { cert: "/etc/bauta/cert.pem".into(), key: "/etc/bauta/key.pem".into() }
    }
}

impl Default for Tunnel {
    fn default() -> Self {
        Self {
            enabled: true,
            ip: true,
            ipv4_pool: "10.77.0.0/16".parse().ok(),
            ipv6_pool: "fd62:6175:7461::/64".parse().ok(),
            name: "bautag0".into(),
            mtu: 1420,
            nat: true,
            dns: Vec::new(),
            allow: Vec::new(),
            deny: Vec::new(),
            client_to_client: false,
            udp_template: "/.well-known/masque/udp/{target_host}/{target_port}/".into(),
            ip_template: "/.well-known/masque/ip/{target}/{ipproto}/".into(),
            resilience: true,
            udp_idle: Span::secs(180),
            dns_timeout: Span::secs(5),
            connect_timeout: Span::secs(10),
            flows: 4096,
            sessions: 16,
            rate: None,
        }
    }
}

impl Default for Accounts {
    fn default() -> Self {
        Self { file: "/etc/bauta/accounts.toml".into(), certificate_names: Vec::new() }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: Some(SocketAddr::from(([127, 0, 0, 1], 9464))) }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text, qlog: None }
    }
}

/// Why a configuration cannot be used; reads as `file:line:column: what, and what to do`.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {error}; name another with --config or BAUTA_CONFIG", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// A field is unknown, missing, of the wrong kind or out of range.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in characters.
        column: usize,
        /// What is wrong and what to do.
        message: String,
    },
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Read { path: path.into(), error })?;
        Self::parse(&text, path)
    }

    /// Checks a file's text; `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|e| {
            let (line, column) = position(text, e.span().map_or(0, |span| span.start));
            let message = e.message().to_owned();
            ConfigError::Field { path: path.into(), line, column, message }
        })?;
        match config.contradiction() {
            None => Ok(config),
            Some((field, message)) => {
                let (line, column) = position(text, find(text, field));
                Err(ConfigError::Field { path: path.into(), line, column, message })
            }
        }
    }

    /// Threads that carry packets, for a machine of `cores`.
    pub fn worker_count(&self, cores: usize) -> usize {
        self.workers.unwrap_or(cores).clamp(1, MAX_WORKERS)
    }

    /// The names a certificate by ACME is for, the domain first.
    pub fn names(&self) -> Vec<String> {
        let mut names = vec![self.domain.clone()];
        for name in self.acme.iter().flat_map(|acme| &acme.domains) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }

    /// Where ACME keeps accounts and certificates.
    pub fn acme_dir(&self) -> PathBuf {
        self.state_dir.join("acme")
    }

    /// The first field out of range, with what to do.
    fn contradiction(&self) -> Option<(&'static str, String)> {
        let tunnel = &self.tunnel;
        let range = |field, ok: bool, say: &str| (!ok).then(|| (field, format!("{field} {say}")));
        let family = |field, pool: Option<Net>, v4: bool, widest: u8| {
            let pool = pool?;
            if pool.addr.is_ipv4() != v4 {
                return Some((field, format!("{field}: {pool} is of the other IP family")));
            }
            let say = format!("{field}: {pool} holds no two addresses; widen it to /{widest}");
            (pool.len > widest).then_some((field, say))
        };
        let template = |field, text: &str, variables: &[&str]| {
            let missing = variables.iter().find(|v| !text.contains(&format!("{{{v}}}")))?;
            Some((field, format!("{field} must contain {{{missing}}}")))
        };
        let workers = (1..=MAX_WORKERS).contains(&self.workers.unwrap_or(1));
        range("workers", workers, "must be 1 to 64")
            .or_else(|| self.limits.contradiction())
            .or_else(|| {
                let names = &self.accounts.certificate_names;
                let known = names
                    .iter()
                    .find(|n| self.names().iter().any(|m| m.eq_ignore_ascii_case(n)))?;
                let say = "certificate_names must be names that no visitor asks for, but";
                Some(("certificate_names", format!("{say} {known} is the site's")))
            })
            .or_else(|| range("max_connections", self.max_connections > 0, "must be at least 1"))
            .or_else(|| {
                let ok = (1..=1 << 23).contains(&self.packet_limit);
                range("packet_limit", ok, "must be 1 to 8388608, what AES-GCM allows a key")
            })
            .or_else(|| {
                let ok = tunnel.ipv6_pool.is_none() || tunnel.mtu >= 1280;
                range("mtu", ok && tunnel.mtu >= 576, "must be at least 1280 (576 without IPv6)")
            })
            .or_else(|| family("ipv4_pool", tunnel.ipv4_pool, true, 30))
            .or_else(|| family("ipv6_pool", tunnel.ipv6_pool, false, 126))
            .or_else(|| {
                let ok = !tunnel.ip || tunnel.ipv4_pool.or(tunnel.ipv6_pool).is_some();
                range("ip", ok, "needs ipv4_pool or ipv6_pool; give one, or set ip = false")
            })
            .or_else(|| {
                let ok = (1..=15).contains(&tunnel.name.len())
                    && tunnel.name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
                range("name", ok, "must be 1 to 15 letters, digits or hyphens")
            })
            .or_else(|| {
                let ok = tunnel.udp_idle >= Span::secs(120);
                range("udp_idle", ok, "must be at least 2m (RFC 9298, section 3.1)")
            })
            .or_else(|| {
                let acme = self.acme.as_ref();
                let ok = !acme.is_some_and(|acme| acme.staging && acme.directory.is_some());
                range("staging", ok, "and directory name two authorities; keep one of them")
            })
            .or_else(|| {
                let ok = self.acme.as_ref().is_none_or(|acme| acme.domains.len() < 100);
                range("domains", ok, "must be fewer than 100, what authorities take")
            })
            .or_else(|| range("flows", tunnel.flows > 0, "must be at least 1"))
            .or_else(|| range("sessions", tunnel.sessions > 0, "must be at least 1"))
            .or_else(|| {
                template("udp_template", &tunnel.udp_template, &["target_host", "target_port"])
            })
    }
}

/// Byte offset to line and column, both from 1.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

/// Where a field is set: the first line that begins with its name.
fn find(text: &str, field: &str) -> usize {
    let is_set = |line: &str| {
        let rest = line.trim_start().strip_prefix(field);
        rest.is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        if is_set(line) {
            return offset + line.len() - line.trim_start().len();
        }
        offset += line.len();
    }
    0
}

fn domain<'de, D: serde::Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    let text = String::deserialize(d)?.to_ascii_lowercase();
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if text.len() > 253 || !text.split('.').all(label) {
        let say =
            format!("`{text}` is not a domain name; write e.g. example.org, no scheme or port");
        return Err(serde::de::Error::custom(say));
    }
    Ok(text)
}

fn pool<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Net>, D::Error> {
    optional(d)
}

fn address<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(d)?;
    let say = || format!("`{text}` is not an address and port; write e.g. 127.0.0.1:9464");
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| serde::de::Error::custom(say()))
}

/// An empty string stands for absence, where absence in the file means the default.
fn optional<'de, D, T>(d: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: std::str::FromStr<Err = String>,
{
    let text = String::deserialize(d)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests;
