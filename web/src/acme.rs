//! Certificates fetched and renewed by themselves (ACME, RFC 8555).
//!
//! Two clients stand behind one [`Acme`]: rustls-acme as a rule, instant-acme where external account
//! binding, renewal information (RFC 9773), IP addresses (RFC 8738) or profiles are asked for. Each
//! is only ever asked for one order; when, how often and what becomes of the answer is decided here
//! (`schedule`), so that the bounds hold for both and across restarts (`store`).

mod by_instant_acme;
mod by_rustls_acme;
mod challenge;
pub mod schedule;
mod store;

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::cert::{CertError, CertSource, Clock, Facts, Pem, Status, seconds};
pub use challenge::{Challenges, HTTP01_PATH, TLS_ALPN01};
use schedule::{Given, History, Plan, Validity, plan};
use store::Store;

/// Let's Encrypt.
pub const LETS_ENCRYPT: &str = instant_acme::LetsEncrypt::Production.url();

/// Its twin for trying things out: generous limits, certificates nobody trusts.
pub const LETS_ENCRYPT_STAGING: &str = instant_acme::LetsEncrypt::Staging.url();

/// Time for a whole order.
const ORDER: Duration = Duration::from_secs(300);

/// Time to ask for a suggestion.
const SUGGESTION: Duration = Duration::from_secs(30);

/// The longest sleep: the wall clock may jump, and timers do not notice.
const NAP: Duration = Duration::from_secs(600);

/// The wait when what is done cannot be written down.
const UNWRITABLE: Duration = Duration::from_secs(60);

/// Bounds on how long an authority's suggestion holds (RFC 9773 section 4.3.2).
const SUGGESTION_HOLDS: (u64, u64) = (600, 86_400);

/// How a name is proven to be ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// A TLS handshake on port 443.
    TlsAlpn01,
    /// A request to port 80.
    Http01,
}

impl fmt::Display for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Http01 => "http-01",
        })
    }
}

/// The account at the authority that ours is bound to (RFC 8555 section 7.3.4).
#[derive(Clone, PartialEq, Eq)]
pub struct Eab {
    /// The key's name.
    pub kid: String,
    /// The key.
    pub key: Vec<u8>,
}

impl fmt::Debug for Eab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Eab").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// What is to be fetched, from whom.
#[derive(Clone, Debug)]
pub struct AcmeConfig {
    /// Domains, and IP addresses, in lower case; one certificate for all.
    pub names: Vec<String>,
    /// The authority's directory.
    pub directory: String,
    /// Whom it may write to.
    pub email: Option<String>,
    /// How HTTPS to the authority is checked.
    pub client: Arc<rustls::ClientConfig>,
    /// How names are proven; `None`: by TLS-ALPN-01 first, and by the other after a failure.
    pub challenge: Option<Challenge>,
    /// How long before its end a certificate is renewed; `None`: a third of its life.
    pub renew_before: Option<Duration>,
    /// Whether the authority is asked when to renew.
    pub ari: bool,
    /// The profile to order, such as `shortlived`.
    pub profile: Option<String>,
    /// The account to bind ours to.
    pub eab: Option<Eab>,
    /// Where accounts and certificates are kept; made if need be.
    pub dir: PathBuf,
    /// The wall clock.
    pub clock: Clock,
}

impl AcmeConfig {
    fn contact(&self) -> impl Iterator<Item = String> {
        self.email.iter().map(|email| format!("mailto:{email}"))
    }

    /// Whether something is asked for that rustls-acme does not know.
    fn is_special(&self) -> bool {
        let ip = self.names.iter().any(|name| name.parse::<IpAddr>().is_ok());
        ip || self.ari || self.profile.is_some() || self.eab.is_some()
    }
}

/// Why an order brought nothing.
#[derive(Debug, thiserror::Error)]
enum OrderError {
    /// The authority's words, or the network's.
    #[error("{0}")]
    Refused(String),
    /// Nothing came back.
    #[error("the authority did not answer in {} s", ORDER.as_secs())]
    Slow,
}

/// A certificate by ACME.
pub struct Acme {
    config: AcmeConfig,
    store: Store,
    challenges: Challenges,
    history: History,
    current: Option<Facts>,
    /// The window, and until when it holds.
    suggested: Option<(Validity, u64)>,
    status: watch::Sender<Status>,
    hurry: Arc<Notify>,
}

impl Acme {
    /// With the answers that the listeners give meanwhile.
    pub fn new(config: AcmeConfig, challenges: Challenges) -> Self {
        let source = if config.is_special() { "instant-acme" } else { "rustls-acme" };
        let from = config.directory.clone();
        let bound_to = config.eab.as_ref().map_or("", |eab| &eab.kid);
        let store = Store::new(&config.dir, &config.directory, &config.names, bound_to);
        Self {
            history: store.history(),
            status: watch::Sender::new(Status { source, from, ..Status::default() }),
            config,
            store,
            challenges,
            current: None,
            suggested: None,
            hurry: Arc::default(),
        }
    }

    /// Notify this to try again at once after failures, within the bounds.
    pub fn hurry(&self) -> Arc<Notify> {
        self.hurry.clone()
    }

    fn now(&self) -> u64 {
        seconds((self.config.clock)())
    }

    fn plan(&self, impatient: bool) -> Plan {
        let now = self.now();
        let given = Given {
            validity: self.current.as_ref().map(|facts| facts.validity),
            renew_before: self.config.renew_before.map(|before| before.as_secs()),
            suggested: self.suggested.map(|(window, _)| window),
            impatient,
        };
        let plan = plan(&given, &self.history, now);
        self.status.send_modify(|status| {
            status.next = Some(plan.at.max(now));
            status.why = Some(plan.why);
            status.ordering = false;
            status.error.clone_from(&self.history.error);
        });
        plan
    }

    async fn run(&mut self) -> Pem {
        let mut impatient = false;
        loop {
            self.ask_for_suggestion().await;
            let plan = self.plan(impatient);
            let now = self.now();
            if plan.at > now {
                let nap = Duration::from_secs(plan.at - now).min(NAP);
                tokio::select! {
                    () = tokio::time::sleep(nap) => {}
                    () = self.hurry.notified() => impatient = true,
                }
                continue;
            }
            impatient = false;
            self.history.begin(now);
            if let Err(error) = self.store.put_history(&self.history) {
                tracing::error!("no certificate is ordered, as it could not be kept: {error}");
                self.status.send_modify(|status| status.error = Some(error.to_string()));
                self.history.orders.pop();
                tokio::time::sleep(UNWRITABLE).await;
                continue;
            }
            if let Some(pem) = self.order().await {
                return pem;
            }
        }
    }

    /// One order, and what becomes of it.
    async fn order(&mut self) -> Option<Pem> {
        let Self { config, store, challenges, .. } = &*self;
        let challenge = config.challenge.unwrap_or(match self.history.failures % 2 {
            0 => Challenge::TlsAlpn01,
            _ => Challenge::Http01,
        });
        let names = config.names.join(", ");
        tracing::info!(names, directory = config.directory, %challenge, "ordering a certificate");
        self.status.send_modify(|status| (status.ordering, status.next) = (true, None));
        let order = async {
            if config.is_special() {
                let replaced = self.current.as_ref().filter(|_| config.ari);
                by_instant_acme::order(config, store, challenges, challenge, replaced).await
            } else {
                by_rustls_acme::order(config, store, challenges, challenge).await
            }
        };
        let outcome = tokio::time::timeout(ORDER, order).await.unwrap_or(Err(OrderError::Slow));
        let outcome = outcome.and_then(|pem| {
            let facts = Facts::of(&pem, "the authority's answer");
            let facts = facts.map_err(|e| OrderError::Refused(e.to_string()))?;
            Ok((pem, facts))
        });
        let (now, seed) = (self.now(), random());
        match outcome {
            Ok((pem, facts)) => {
                self.history.succeeded(now, seed);
                self.keep(&pem);
                tracing::info!(names, until = facts.validity.until, "a certificate came");
                self.status.send_modify(|status| {
                    status.show(&facts);
                    status.renewals += 1;
                });
                (self.current, self.suggested) = (Some(facts), None);
                Some(pem)
            }
            Err(error) => {
                let text = error.to_string();
                let limited = text.contains("rateLimited");
                self.history.failed(now, text, limited, seed);
                if let Err(error) = self.store.put_history(&self.history) {
                    tracing::error!("{error}");
                }
                self.status.send_modify(|status| status.failures += 1);
                let again = self.plan(false).at.saturating_sub(now);
                tracing::warn!(names, again_in = again, "no certificate: {error}");
                None
            }
        }
    }

    fn keep(&self, pem: &Pem) {
        let kept = self.store.put_certificate(pem);
        if let Err(error) = kept.and_then(|()| self.store.put_history(&self.history)) {
            tracing::error!("the certificate is lost at the next restart: {error}");
        }
    }

    /// Asks when to renew, where that is wanted and the last answer no longer holds.
    async fn ask_for_suggestion(&mut self) {
        let (true, Some(facts)) = (self.config.ari, &self.current) else { return };
        let now = self.now();
        if self.suggested.is_some_and(|(_, until)| until > now) {
            return;
        }
        let asked = by_instant_acme::suggestion(&self.config, &self.store, facts);
        let asked = tokio::time::timeout(SUGGESTION, asked).await.unwrap_or(Err(OrderError::Slow));
        let (least, most) = SUGGESTION_HOLDS;
        match asked {
            Ok((window, holds)) if window.until > window.from => {
                self.suggested = Some((window, now + holds.as_secs().clamp(least, most)));
            }
            Ok(_) => tracing::warn!("the authority suggests an empty time to renew"),
            // Without a suggestion the schedule is the usual one.
            Err(error) => tracing::debug!("no renewal information: {error}"),
        }
    }
}

impl CertSource for Acme {
    fn first(&mut self) -> Result<Option<Pem>, CertError> {
        self.store.prepare()?;
        let Some(pem) = self.store.certificate()? else { return Ok(None) };
        let facts = Facts::of(&pem, &self.config.dir.display().to_string())?;
        if !facts.cover(&self.config.names) {
            return Ok(None);
        }
        self.status.send_modify(|status| status.show(&facts));
        self.current = Some(facts);
        self.plan(false);
        Ok(Some(pem))
    }

    fn next(&mut self) -> Pin<Box<dyn Future<Output = Pem> + Send + '_>> {
        Box::pin(self.run())
    }

    fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness there is no jitter, and no TLS either.
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}
