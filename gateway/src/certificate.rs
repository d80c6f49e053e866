//! Where the gateway's certificate comes from, and how a new one reaches everybody who serves it.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use bauta_masque_io::clock;
use bauta_masque_io::tls::{Certified, HotCertificate, Roots, rustls_client_config};
use bauta_web::acme::{self, Acme, AcmeConfig, Challenges};
use bauta_web::cert::{CertSource, Files, Pem, Status};
use tokio::sync::{Notify, watch};

use crate::config::{self, Config};
use crate::metrics::CertificateGauges;
use crate::shared::Everything;
use crate::worker::Message;

/// Where certificates come from, with what the rest of the gateway needs of it.
pub(crate) struct Origin {
    pub(crate) source: Box<dyn CertSource>,
    /// What the listeners answer to an authority.
    pub(crate) challenges: Challenges,
    /// Makes it try again at once.
    pub(crate) hurry: Option<Arc<Notify>>,
    pub(crate) status: watch::Receiver<Status>,
}

impl Origin {
    /// As the configuration has it.
    pub(crate) fn new(config: &Config) -> Result<Self> {
        let challenges = Challenges::default();
        let (source, hurry): (Box<dyn CertSource>, _) = match &config.acme {
            None => (Box::new(Files::new(&config.tls.cert, &config.tls.key)), None),
            Some(acme) => {
                let acme = Acme::new(order(config, acme)?, challenges.clone());
                let hurry = acme.hurry();
                (Box::new(acme), Some(hurry))
            }
        };
        let status = source.status();
        Ok(Self { source, challenges, hurry, status })
    }

    /// The certificate to begin with, checked against the clock; `None` while ACME has none yet.
    pub(crate) fn first(&mut self) -> Result<Option<Arc<Certified>>> {
        let first = self.source.first().context(
            "certificate ([tls] cert and key, or [acme]); a PEM chain and its key must be there, \
             readable by this user",
        )?;
        first.map(certified).transpose()
    }
}

fn certified(pem: Pem) -> Result<Arc<Certified>> {
    let certified = Certified::from_pem(pem.chain, pem.key)?;
    if let Err(error) = certified.check_time(clock::unix_time()) {
        tracing::warn!("{error}");
    }
    Ok(Arc::new(certified))
}

fn order(config: &Config, acme: &config::Acme) -> Result<AcmeConfig> {
    let roots = acme.ca.clone().map_or(Roots::System, Roots::Pem);
    let client = rustls_client_config(&roots, &[]).context("[acme] ca")?;
    let directory = match &acme.directory {
        Some(directory) => directory,
        None if acme.staging => acme::LETS_ENCRYPT_STAGING,
        None => acme::LETS_ENCRYPT,
    };
    let challenge = acme.challenge.map(|challenge| match challenge {
        config::Challenge::TlsAlpn01 => acme::Challenge::TlsAlpn01,
        config::Challenge::Http01 => acme::Challenge::Http01,
    });
    let eab = acme.eab.as_ref();
    Ok(AcmeConfig {
        names: config.names(),
        directory: directory.into(),
        email: acme.email.clone(),
        client,
        challenge,
        renew_before: acme.renew_before.map(|before| before.0),
        ari: acme.ari,
        profile: acme.profile.clone(),
        eab: eab.map(|eab| acme::Eab { kid: eab.kid.clone(), key: eab.key.clone() }),
        dir: config.acme_dir(),
        clock: clock::unix_time,
    })
}

/// Takes over every certificate the source comes up with, for ever.
pub(crate) async fn keep(
    mut source: Box<dyn CertSource>,
    shared: Everything,
    hot: Arc<HotCertificate>,
) {
    let gauges = shared.metrics.certificate.clone();
    let mut status = source.status();
    tokio::spawn(async move {
        loop {
            gauges.show(&status.borrow_and_update());
            if status.changed().await.is_err() {
                return;
            }
        }
    });
    loop {
        match certified(source.next().await) {
            Ok(certificate) => {
                install(&shared, &hot, &certificate).await;
                tracing::info!("a new certificate is served; connections go on");
            }
            Err(error) => tracing::error!("the certificate in force stays: {error:#}"),
        }
    }
}

/// Serves a certificate from now on, over TCP and QUIC. Connections in being keep theirs.
pub(crate) async fn install(
    shared: &Everything,
    hot: &HotCertificate,
    certificate: &Arc<Certified>,
) {
    hot.replace(certificate);
    for worker in &shared.workers {
        let _ = worker.send(Message::Certificate(certificate.clone())).await;
    }
}

/// Where plain HTTP is answered: as configured, and with ACME on port 80 in any case.
pub(crate) fn http(config: &Config) -> Option<SocketAddr> {
    let default = config.acme.as_ref().map(|_| SocketAddr::new(config.listen.ip(), 80));
    config.http.or(default)
}

impl CertificateGauges {
    fn show(&self, status: &Status) {
        self.valid_until.set(status.valid_until.unwrap_or(0));
        self.next_order.set(status.next.unwrap_or(0));
        self.renewals.set(status.renewals);
        self.failures.set(status.failures);
    }
}
