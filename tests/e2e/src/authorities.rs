//! Certificate authorities that speak ACME, each a real server in the scene's internet.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bauta_lab::clock::poll_until;
use bauta_lab::{Namespace, Process, addresses};

use crate::Authority;
use crate::gateway::DOMAIN;

/// How long an authority may take to answer.
const UP: Duration = Duration::from_secs(30);

/// The key that Pebble asks for where it asks for one, and its name.
pub const EAB: (&str, &str) =
    ("kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W");

/// An authority: its files, and its processes while it runs.
pub struct Acme {
    /// The URL of its directory.
    pub directory: String,
    /// What its own HTTPS is trusted by.
    pub ca: PathBuf,
    /// The root of what it issues, once it runs.
    pub root: PathBuf,
    processes: Vec<Process>,
}

impl Acme {
    /// Pebble, with a name server that leads every name to the gateway. It validates for real. With
    /// `bound` it wants accounts bound to [`EAB`].
    pub fn pebble(internet: &Namespace, bound: bool) -> Result<Self> {
        Self::pebble_at(internet, bound, Path::new("pebble"))
    }

    /// A pebble that knows renewal information (RFC 9773): the one that `tests/lib/pebble` builds.
    pub fn pebble_with_ari(internet: &Namespace) -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let program = root.join("target/tests/bin/pebble");
        ensure!(program.exists(), "{}: tests/lib/pebble builds it", program.display());
        Self::pebble_at(internet, false, &program.canonicalize()?)
    }

    fn pebble_at(internet: &Namespace, bound: bool, program: &Path) -> Result<Self> {
        let folder = internet.folder().join("pebble");
        fs::create_dir_all(&folder)?;
        let host = addresses::INTERNET_V4;
        let [ca, cert, key] = ["ca.pem", "cert.pem", "key.pem"].map(|name| folder.join(name));
        // One that comes back is the one that was there.
        if !ca.exists() {
            Authority::new(&folder)?.issue(&host.to_string(), "pebble", &folder)?;
        }
        let settings = serde_json::json!({ "pebble": {
            "listenAddress": format!("{host}:14000"),
            "managementListenAddress": "127.0.0.1:15000",
            "certificate": cert,
            "privateKey": key,
            "httpPort": 80,
            "tlsPort": 443,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": bound,
            "externalAccountMACKeys": { EAB.0: EAB.1 },
        }});
        let config = folder.join("pebble.json");
        fs::write(&config, settings.to_string())?;
        let gateway = format!("-defaultIPv4={}", addresses::UPLINK_V4);
        let names = internet.start(
            "pebble-challtestsrv",
            &[
                &gateway,
                "-defaultIPv6=",
                "-dns01=127.0.0.1:8053",
                "-http01=",
                "-https01=",
                "-tlsalpn01=",
                "-management=127.0.0.1:8055",
            ],
        )?;
        let mut command = internet.command(&program.to_string_lossy());
        command.arg("-config").arg(&config).args(["-dnsserver", "127.0.0.1:8053", "-strict"]);
        command.env("PEBBLE_VA_NOSLEEP", "1");
        let pebble = internet.spawn(command)?;
        let root = folder.join("root.pem");
        let fetch = format!("curl -sk https://127.0.0.1:15000/roots/0 -o {}", root.display());
        poll_until(UP, || internet.shell(&fetch).is_ok().then_some(()))
            .context("pebble is not up")?;
        Ok(Self {
            directory: format!("https://{host}:14000/dir"),
            ca,
            root,
            processes: vec![names, pebble],
        })
    }

    /// Caddy's ACME server: certificates for twelve hours, names looked up in the hosts file.
    pub fn caddy(internet: &Namespace) -> Result<Self> {
        let folder = internet.folder().join("caddy");
        fs::create_dir_all(&folder)?;
        internet.etc_file(
            "hosts",
            &format!("127.0.0.1 localhost\n{} {DOMAIN}\n", addresses::UPLINK_V4),
        )?;
        let host = addresses::INTERNET_V4;
        let text = format!(
            "{{\n admin off\n auto_https disable_redirects\n skip_install_trust\n \
             storage file_system {}\n}}\n\
             https://{host} {{\n tls internal\n acme_server\n}}\n",
            folder.display()
        );
        let config = folder.join("Caddyfile");
        fs::write(&config, text)?;
        let mut command = internet.command("caddy");
        command.arg("run").arg("--adapter=caddyfile").arg("--config").arg(&config);
        command.env("HOME", &folder);
        let caddy = internet.spawn(command)?;
        let root = folder.join("pki/authorities/local/root.crt");
        let directory = format!("https://{host}/acme/local/directory");
        let ask = format!("curl -sf --cacert {} {directory}", root.display());
        poll_until(UP, || internet.shell(&ask).is_ok().then_some(())).context("caddy is not up")?;
        Ok(Self { directory, ca: root.clone(), root, processes: vec![caddy] })
    }

    /// The lines of `[acme]` that lead to it.
    #[must_use]
    pub fn lines(&self) -> String {
        format!("[acme]\ndirectory = \"{}\"\nca = \"{}\"\n", self.directory, self.ca.display())
    }

    /// Has a pebble suggest to renew `certificate` (PEM) between two times (RFC 3339).
    pub fn suggest(internet: &Namespace, certificate: &str, window: [&str; 2]) -> Result<()> {
        let [start, end] = window;
        let said = serde_json::json!({ "suggestedWindow": { "start": start, "end": end } });
        let body = serde_json::json!({
            "certificate": certificate,
            "ariResponse": said.to_string(),
        });
        let file = internet.folder().join("suggestion.json");
        fs::write(&file, body.to_string())?;
        let line = format!(
            "curl -sfk --data-binary @{} https://127.0.0.1:15000/set-renewal-info/",
            file.display()
        );
        internet.shell(&line).map(|_| ()).context("pebble takes no suggestion")
    }

    /// Ends it; its files stay.
    pub fn stop(&mut self) {
        self.processes.iter_mut().for_each(Process::kill);
    }
}
