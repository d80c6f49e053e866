//! Settings: from a TOML file, the environment, and a link, the later ones overriding the earlier.

mod names;

use std::{
    fmt, fs,
    io::Read,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use bauta_masque::bond::Policy;
use bauta_masque::shape::Shape;
use bauta_masque::template::{DEFAULT_IP, DEFAULT_UDP, Template, TemplateError};
use serde::{Deserialize, Deserializer};
use thiserror::Error;

use crate::{
    interfaces::{PathName, Paths},
    key::{self, Credential},
    link::{Link, LinkError, MAX_LINK, Pin, Server},
    net::Net,
    rate::Rate,
    secret::{MAX_TOKEN, Token},
    tcp::Transport,
};

pub use names::{PolicyName, ShapeName};

/// The file that is read when none is named, if it exists.
pub const DEFAULT_FILE: &str = "/etc/bauta/bauta.toml";
/// The interface's name when none is given.
pub const DEFAULT_NAME: &str = "bauta0";
/// Packets that one AES-GCM key may protect (RFC 9001 §6.6).
pub const AEAD_LIMIT: u64 = 1 << 23;
/// The fewest packets a connection may be limited to: fewer would not carry the hand-over itself.
pub const MIN_PACKET_LIMIT: u64 = 256;
/// The largest configuration file read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// What is wrong with the configuration: where, what, and what to do.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {cause}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{path}:{line}:{column}: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// The link is malformed.
    #[error("{from}: {cause}")]
    Link {
        /// Where the link came from.
        from: String,
        /// What is wrong.
        cause: LinkError,
    },
    /// Something needed is not there, or does not go together.
    #[error("{0}")]
    Missing(String),
}

/// The TOML file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    #[serde(deserialize_with = "parsed")]
    link: Option<Link>,
    #[serde(deserialize_with = "parsed")]
    server: Option<Server>,
    token: Option<Token>,
    token_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    cert: Option<PathBuf>,
    sni: Option<String>,
    ca: Option<PathBuf>,
    #[serde(deserialize_with = "parsed")]
    pin: Option<Pin>,
    addr: Vec<IpAddr>,
    ip_template: Option<String>,
    udp_template: Option<String>,
    name: Option<InterfaceName>,
    dns: Vec<IpAddr>,
    kill_switch: Option<bool>,
    allow_lan: bool,
    exclude: Vec<Net>,
    ipv4: Option<bool>,
    ipv6: Option<bool>,
    mtu: Option<Mtu>,
    mark: Option<Mark>,
    table: Option<Mark>,
    state_dir: Option<PathBuf>,
    packet_limit: Option<PacketLimit>,
    keepalive: Option<Seconds>,
    transport: Transport,
    shape: ShapeName,
    qlog: Option<PathBuf>,
    resilience: Option<bool>,
    paths: Vec<PathName>,
    policy: Option<PolicyName>,
    #[serde(deserialize_with = "parsed")]
    rate: Option<Rate>,
    proxy: Proxy,
}

/// The local proxies.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Proxy {
    /// Where SOCKS5 listens.
    pub socks: Option<SocketAddr>,
    /// Where the HTTP proxy listens.
    pub http: Option<SocketAddr>,
}

/// Everything decided.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the gateway is.
    pub server: Server,
    /// The credential.
    pub credential: Credential,
    /// The name in the certificate, in the handshake and in `:authority`.
    pub sni: String,
    /// A PEM file of authorities instead of the system's.
    pub ca: Option<PathBuf>,
    /// The public key to insist on.
    pub pin: Option<Pin>,
    /// Addresses that replace name resolution.
    pub addr: Vec<IpAddr>,
    /// The CONNECT-IP template.
    pub ip_template: Template,
    /// The CONNECT-UDP template.
    pub udp_template: Template,
    /// Name of the TUN interface and of this tunnel's state folder.
    pub name: String,
    /// Name servers to use in the tunnel instead of those the gateway assigns.
    pub dns: Vec<IpAddr>,
    /// Whether nothing may leave outside the tunnel; `None`: exactly when the tunnel is a full one.
    pub kill_switch: Option<bool>,
    /// Private and link-local networks stay reachable beside the tunnel.
    pub allow_lan: bool,
    /// Networks that stay outside the tunnel.
    pub exclude: Vec<Net>,
    /// Ask for an IPv4 address.
    pub ipv4: bool,
    /// Ask for an IPv6 address.
    pub ipv6: bool,
    /// An upper bound on the interface's MTU, bytes.
    pub mtu: Option<u16>,
    /// Firewall mark of the packets that carry the tunnel.
    pub mark: u32,
    /// Routing table of the tunnel.
    pub table: u32,
    /// Where the state folders are.
    pub state_dir: PathBuf,
    /// Packets a key may protect; a session moves on at three quarters.
    pub packet_limit: u64,
    /// Silence after which a ping is sent.
    pub keepalive: Duration,
    /// QUIC, TCP, or whichever gets through.
    pub transport: Transport,
    /// How much of what is sent looks like a browser's.
    pub shape: Shape,
    /// Folder for qlog files.
    pub qlog: Option<PathBuf>,
    /// Ask for rate control, repair of losses and several paths; otherwise RFC 9484 and nothing else.
    pub resilience: bool,
    /// The interfaces that carry the tunnel.
    pub paths: Paths,
    /// How packets are spread over them.
    pub policy: Policy,
    /// What the tunnel is not to exceed, each way, bits a second.
    pub rate: Option<u64>,
    /// The local proxies.
    pub proxy: Proxy,
}

/// Where the parts come from.
#[derive(Debug, Default)]
pub struct Sources {
    /// `--config`, or `BAUTA_CONFIG`.
    pub file: Option<PathBuf>,
    /// The link: where it came from, and its text.
    pub link: Option<(String, String)>,
    /// `--name`.
    pub name: Option<String>,
    /// `--state-dir`, or `BAUTA_STATE_DIR`.
    pub state_dir: Option<PathBuf>,
    /// `--key-file`, or `BAUTA_KEY_FILE`.
    pub key_file: Option<PathBuf>,
    /// `--cert`, or `BAUTA_CERT`.
    pub cert: Option<PathBuf>,
    /// `--path`, instead of the file's.
    pub paths: Vec<PathName>,
    /// `--policy`, instead of the file's.
    pub policy: Option<PolicyName>,
    /// `--shape`, instead of the file's.
    pub shape: Option<ShapeName>,
    /// `--rate`, instead of the file's.
    pub rate: Option<Rate>,
}

/// The folder for state when none is given.
pub const DEFAULT_STATE_DIR: &str = "/run/bauta";

impl Sources {
    fn file(&self) -> Result<File, ConfigError> {
        let default = Path::new(DEFAULT_FILE);
        let mut file = match &self.file {
            Some(path) => File::read(path)?,
            None if default.exists() => File::read(default)?,
            None => File::default(),
        };
        if let Some(name) = &self.name {
            file.name = Some(InterfaceName(name.clone()));
        }
        if let Some(dir) = &self.state_dir {
            file.state_dir = Some(dir.clone());
        }
        if let Some(path) = &self.key_file {
            file.key_file = Some(path.clone());
        }
        file.cert = self.cert.clone().or(file.cert);
        if !self.paths.is_empty() {
            file.paths.clone_from(&self.paths);
        }
        file.policy = self.policy.or(file.policy);
        file.shape = self.shape.unwrap_or(file.shape);
        file.rate = self.rate.or(file.rate);
        Ok(file)
    }

    /// Where this machine's key is, or would be.
    pub fn key_path(&self) -> Result<PathBuf, ConfigError> {
        let path = self.file()?.key_file.or_else(key::default_path);
        path.ok_or_else(|| ConfigError::Missing("no home for a key: set `key_file`".into()))
    }

    /// Where a certificate is that takes the place of that key.
    pub fn cert_path(&self) -> Result<Option<PathBuf>, ConfigError> {
        Ok(self.file()?.cert)
    }

    /// The state folder alone, for which no link is needed: where it is, and the tunnel's name.
    pub fn place(&self) -> Result<(PathBuf, String), ConfigError> {
        let file = self.file()?;
        let name = file.name.map_or_else(|| DEFAULT_NAME.into(), |name| name.0);
        Ok((file.state_dir.unwrap_or_else(|| DEFAULT_STATE_DIR.into()), name))
    }
}

impl Settings {
    /// Puts the settings together. A link replaces the file's link, server, token and trust.
    pub fn load(sources: Sources) -> Result<Settings, ConfigError> {
        let file = sources.file()?;
        let link = match sources.link {
            Some((from, text)) => {
                Some(text.parse().map_err(|cause| ConfigError::Link { from, cause })?)
            }
            None => file.link.clone(),
        };
        file.settle(link)
    }
}

impl File {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<File, ConfigError> {
        File::parse(&read_bounded(path, MAX_FILE)?, path)
    }

    /// Parses the text of the file called `path`.
    pub fn parse(text: &str, path: &Path) -> Result<File, ConfigError> {
        toml::from_str(text).map_err(|e| {
            let (line, column) = position(text, e.span().map_or(0, |span| span.start));
            ConfigError::Parse {
                path: path.into(),
                line,
                column,
                message: e.message().trim().into(),
            }
        })
    }

    fn settle(self, link: Option<Link>) -> Result<Settings, ConfigError> {
        let missing = |what: &str| ConfigError::Missing(what.into());
        let link = match link {
            Some(link) => link,
            None => Link {
                server: self.server.ok_or_else(|| {
                    missing(
                        "no gateway is named: give a link, or set `server` in the configuration",
                    )
                })?,
                token: match (self.token, self.token_file) {
                    (Some(token), None) => Some(token),
                    (None, Some(path)) => Some(read_token(&path)?),
                    (Some(_), Some(_)) => {
                        return Err(missing("`token` and `token_file` exclude each other"));
                    }
                    (None, None) => None,
                },
                sni: self.sni,
                ca: self.ca,
                pin: self.pin,
                addr: self.addr,
                dns: Vec::new(),
                ip: self.ip_template,
                udp: self.udp_template,
            },
        };
        let unusable = |e| ConfigError::Missing(format!("`cert`: {e}"));
        let credential = match (link.token, &self.cert) {
            (_, Some(cert)) => {
                let key = self.key_file.as_ref().unwrap_or(cert);
                key::certificate(cert, key).map_err(unusable)?
            }
            (Some(token), None) => Credential::Bearer(token),
            (None, None) => {
                let path = self.key_file.or_else(key::default_path);
                let path =
                    path.ok_or_else(|| missing("no token, and no home for a key: set `key_file`"))?;
                let read = key::load(&path);
                let key =
                    read.map_err(|e| ConfigError::Missing(format!("the link has no token: {e}")))?;
                Credential::Key(Arc::new(key))
            }
        };
        let name = self.name.map_or_else(|| DEFAULT_NAME.into(), |name| name.0);
        let (ipv4, ipv6) = (self.ipv4.unwrap_or(true), self.ipv6.unwrap_or(true));
        if !ipv4 && !ipv6 {
            return Err(missing(
                "`ipv4` and `ipv6` are both off: nothing would go through the tunnel",
            ));
        }
        let resilience = self.resilience.unwrap_or(true);
        let paths = Paths::of(self.paths).map_err(|e| missing(&format!("`paths`: {e}")))?;
        if paths != Paths::Routed && !resilience {
            return Err(missing("`paths` needs `resilience = true`"));
        }
        if self.rate.is_some() && !resilience {
            return Err(missing("`rate` needs `resilience = true`"));
        }
        let mark = self.mark.map_or_else(|| mark_of(&name), |mark| mark.0);
        Ok(Settings {
            sni: link.sni.unwrap_or_else(|| link.server.host.clone()),
            server: link.server,
            credential,
            ca: link.ca,
            pin: link.pin,
            addr: link.addr,
            ip_template: template("ip", Template::ip(link.ip.as_deref().unwrap_or(DEFAULT_IP)))?,
            udp_template: template(
                "udp",
                Template::udp(link.udp.as_deref().unwrap_or(DEFAULT_UDP)),
            )?,
            dns: if self.dns.is_empty() { link.dns } else { self.dns },
            kill_switch: self.kill_switch,
            allow_lan: self.allow_lan,
            exclude: self.exclude,
            ipv4,
            ipv6,
            mtu: self.mtu.map(|mtu| mtu.0),
            mark,
            table: self.table.map_or(mark, |table| table.0),
            state_dir: self.state_dir.unwrap_or_else(|| DEFAULT_STATE_DIR.into()),
            packet_limit: self.packet_limit.map_or(AEAD_LIMIT, |limit| limit.0),
            transport: self.transport,
            shape: self.shape.into(),
            keepalive: Duration::from_secs(self.keepalive.map_or(15, |s| s.0)),
            qlog: self.qlog,
            resilience,
            paths,
            policy: self.policy.map_or_else(Policy::default, Policy::from),
            rate: self.rate.map(|rate| rate.0),
            proxy: self.proxy,
            name,
        })
    }
}

fn template(what: &str, parsed: Result<Template, TemplateError>) -> Result<Template, ConfigError> {
    parsed.map_err(|e| ConfigError::Missing(format!("the {what} template is not right: {e}")))
}

/// A mark of its own for each tunnel: `0xba00` for `bauta0`, and so on; other names are hashed.
fn mark_of(name: &str) -> u32 {
    let digits = name.strip_prefix("bauta").and_then(|n| n.parse::<u8>().ok());
    let hash =
        || name.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    digits.map_or_else(|| 0xbb00 | (hash() & 0xff), |n| 0xba00 | u32::from(n))
}

/// Reads a link from a file, or from standard input for `-`.
pub fn read_link(path: &Path) -> Result<(String, String), ConfigError> {
    let text = read_bounded(path, MAX_LINK as u64)?;
    let from =
        if path == Path::new("-") { "standard input".into() } else { path.display().to_string() };
    Ok((from, text.trim().into()))
}

fn read_token(path: &Path) -> Result<Token, ConfigError> {
    let text = read_bounded(path, MAX_TOKEN as u64 + 1)?;
    Token::new(text.trim()).map_err(|e| ConfigError::Missing(format!("{}: {e}", path.display())))
}

fn read_bounded(path: &Path, limit: u64) -> Result<String, ConfigError> {
    let read = || {
        let mut text = String::new();
        let n = if path == Path::new("-") {
            std::io::stdin().lock().take(limit + 1).read_to_string(&mut text)?
        } else {
            fs::File::open(path)?.take(limit + 1).read_to_string(&mut text)?
        };
        if n as u64 > limit {
            return Err(std::io::Error::other(format!("longer than {limit} bytes")));
        }
        Ok(text)
    };
    read().map_err(|cause| ConfigError::Read { path: path.into(), cause })
}

/// Line and column, both from 1, of a byte offset.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (line, column)
}

fn parsed<'de, D, T>(d: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    String::deserialize(d)?.parse().map(Some).map_err(serde::de::Error::custom)
}

#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
struct InterfaceName(String);

impl TryFrom<String> for InterfaceName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        check_name(&name).map(|()| InterfaceName(name))
    }
}

/// Whether `name` can name an interface and a folder: 1 to 15 letters, digits, `-` and `_`.
pub fn check_name(name: &str) -> Result<(), String> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if (1..=15).contains(&name.len()) && name.bytes().all(fits) && !name.starts_with('-') {
        return Ok(());
    }
    Err(format!("`{name}` cannot name an interface: 1 to 15 letters, digits, `-` or `_`"))
}

/// A number of a bounded range.
macro_rules! bounded {
    ($name:ident, $repr:ty, $what:literal, $range:expr) => {
        #[derive(Clone, Copy, Debug, Deserialize)]
        #[serde(try_from = "i64")]
        struct $name($repr);

        impl TryFrom<i64> for $name {
            type Error = String;

            fn try_from(value: i64) -> Result<Self, String> {
                let range = $range;
                match <$repr>::try_from(value) {
                    Ok(value) if range.contains(&value) => Ok($name(value)),
                    _ => Err(format!("{} is from {} to {}", $what, range.start(), range.end())),
                }
            }
        }
    };
}
bounded!(Mtu, u16, "an MTU", 576..=9000);
bounded!(
    Mark,
    u32,
    "a mark or table (0x100 up, for the system owns those below)",
    0x100..=u32::MAX
);
bounded!(PacketLimit, u64, "a packet limit", MIN_PACKET_LIMIT..=AEAD_LIMIT);
bounded!(Seconds, u64, "a keep-alive in seconds", 1..=600);

#[cfg(test)]
mod tests;
