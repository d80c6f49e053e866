//! An order by instant-acme: for external account binding, renewal information, IP addresses and
//! profiles, which rustls-acme does not know.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, BodyWrapper, BytesResponse,
    CertificateIdentifier, ChallengeType, Error, ExternalAccountKey, HttpClient, Identifier,
    NewAccount, NewOrder, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use super::schedule::Validity;
use super::store::Store;
use super::{AcmeConfig, Challenge, Challenges, OrderError};
use crate::cert::{Facts, Pem};

/// The suffix of its account's file.
const ACCOUNT: &str = "json";

/// How the authority is asked whether it is done.
const POLL: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(500))
    .backoff(1.5)
    .timeout(Duration::from_secs(120));

pub(super) async fn order(
    config: &AcmeConfig,
    store: &Store,
    challenges: &Challenges,
    challenge: Challenge,
    replaced: Option<&Facts>,
) -> Result<Pem, OrderError> {
    let mut account = account(config, store, false).await?;
    let identifiers: Vec<_> = config.names.iter().map(|name| identifier(name)).collect();
    let mut begun = begin(config, &account, &identifiers, replaced).await;
    if matches!(&begun, Err(e) if forgotten(e)) {
        account = self::account(config, store, true).await?;
        begun = begin(config, &account, &identifiers, replaced).await;
    }
    if let (Err(_), Some(_)) = (&begun, replaced) {
        // An authority may refuse the link to the certificate it replaces; that alone is no reason.
        begun = begin(config, &account, &identifiers, None).await;
    }
    let mut order = begun?;
    let answers = challenges.by_hand();
    let kind = match challenge {
        Challenge::Http01 => ChallengeType::Http01,
        Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
    };
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let Some(mut ready) = authorization.challenge(kind.clone()) else {
            return Err(OrderError::Refused(format!("the authority offers no {challenge}")));
        };
        let proof = ready.key_authorization();
        match challenge {
            Challenge::Http01 => {
                challenges.put_http01(ready.token.clone(), proof.as_str().to_owned());
            }
            Challenge::TlsAlpn01 => {
                let name = ready.identifier().to_string();
                let put = challenges.put_tls_alpn01(&name, proof.digest().as_ref());
                put.map_err(|e| OrderError::Refused(e.to_string()))?;
            }
        }
        ready.set_ready().await?;
    }
    if order.poll_ready(&POLL).await? == OrderStatus::Invalid {
        return Err(OrderError::Refused(verdict(&mut order).await));
    }
    drop(answers);
    let (key, csr) = request(&config.names).map_err(|e| OrderError::Refused(e.to_string()))?;
    order.finalize_csr(&csr).await?;
    let chain = order.poll_certificate(&POLL).await?;
    Ok(Pem { chain: chain.into_bytes(), key: key.into_bytes() })
}

/// When the authority suggests to renew a certificate, and how long that word holds.
pub(super) async fn suggestion(
    config: &AcmeConfig,
    store: &Store,
    facts: &Facts,
) -> Result<(Validity, Duration), OrderError> {
    let account = account(config, store, false).await?;
    let id = CertificateIdentifier::try_from(&facts.leaf).map_err(OrderError::Refused)?;
    let (info, holds) = account.renewal_info(&id).await?;
    let window = info.suggested_window;
    let second = |at: i64| u64::try_from(at).unwrap_or(0);
    let (from, until) = (window.start.unix_timestamp(), window.end.unix_timestamp());
    Ok((Validity { from: second(from), until: second(until) }, holds))
}

async fn begin(
    config: &AcmeConfig,
    account: &Account,
    identifiers: &[Identifier],
    replaced: Option<&Facts>,
) -> Result<instant_acme::Order, Error> {
    let mut order = NewOrder::new(identifiers);
    if let Some(profile) = &config.profile {
        order = order.profile(profile);
    }
    if let Some(id) = replaced.and_then(|f| CertificateIdentifier::try_from(&f.leaf).ok()) {
        order = order.replaces(id);
    }
    account.new_order(&order).await
}

/// The account on disk, or a new one.
async fn account(config: &AcmeConfig, store: &Store, anew: bool) -> Result<Account, OrderError> {
    let builder = Account::builder_with_http(Box::new(Https::new(config)));
    let kept = store.account(ACCOUNT).map_err(|e| OrderError::Refused(e.to_string()))?;
    let kept = kept.and_then(|text| serde_json::from_slice::<AccountCredentials>(&text).ok());
    if let Some(credentials) = kept.filter(|_| !anew) {
        return Ok(builder.from_credentials(credentials).await?);
    }
    let contact: Vec<_> = config.contact().collect();
    let contact: Vec<_> = contact.iter().map(String::as_str).collect();
    let new = NewAccount {
        contact: &contact,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let eab = config.eab.as_ref().map(|eab| ExternalAccountKey::new(eab.kid.clone(), &eab.key));
    let made = builder.create(&new, config.directory.clone(), eab.as_ref()).await?;
    let text = serde_json::to_vec(&made.1).unwrap_or_default();
    store.put_account(ACCOUNT, &text).map_err(|e| OrderError::Refused(e.to_string()))?;
    Ok(made.0)
}

fn identifier(name: &str) -> Identifier {
    name.parse().map_or_else(|_| Identifier::Dns(name.to_owned()), |ip: IpAddr| Identifier::Ip(ip))
}

fn request(names: &[String]) -> Result<(String, Vec<u8>), rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    let key = KeyPair::generate()?;
    let csr = params.serialize_request(&key)?;
    Ok((key.serialize_pem(), csr.der().to_vec()))
}

/// What the authority found wrong with the challenges of an order.
async fn verdict(order: &mut instant_acme::Order) -> String {
    let mut found = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { continue };
        let errors = state.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        found.extend(errors.map(|error| error.to_string()));
    }
    if found.is_empty() {
        "the authority could not verify the names".into()
    } else {
        found.join("; ")
    }
}

fn forgotten(error: &Error) -> bool {
    matches!(error, Error::Api(problem)
        if problem.r#type.as_deref().is_some_and(|t| t.ends_with(":accountDoesNotExist")))
}

impl From<Error> for OrderError {
    fn from(error: Error) -> Self {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(inner) = source {
            text = format!("{text}: {inner}");
            source = inner.source();
        }
        Self::Refused(text)
    }
}

/// HTTPS that trusts whom the configuration says.
struct Https(Client<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>);

impl Https {
    fn new(config: &AcmeConfig) -> Self {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(rustls::ClientConfig::clone(&config.client))
            .https_only()
            .enable_http1()
            .build();
        Self(Client::builder(TokioExecutor::new()).build(connector))
    }
}

impl HttpClient for Https {
    fn request(
        &self,
        request: http::Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let answer = self.0.request(request);
        Box::pin(async move {
            answer.await.map(BytesResponse::from).map_err(|e| Error::Other(Box::new(e)))
        })
    }
}
