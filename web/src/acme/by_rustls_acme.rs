//! An order by rustls-acme: one turn of its state machine, so that the schedule stays ours.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures_util::StreamExt;
use rustls_acme::{AccountCache, CertCache, EventOk, UseChallenge};

use super::store::Store;
use super::{AcmeConfig, Challenge, Challenges, OrderError};
use crate::cert::{CertError, Pem};

/// The suffix of its account's file: the bare PKCS#8 key.
const ACCOUNT: &str = "p8";

/// Orders begun anew because the authority did not like a nonce; it is free to, at any time.
const BAD_NONCES: usize = 5;

pub(super) async fn order(
    config: &AcmeConfig,
    store: &Store,
    challenges: &Challenges,
    challenge: Challenge,
) -> Result<Pem, OrderError> {
    let mut tries = BAD_NONCES;
    loop {
        match attempt(config, store, challenges, challenge).await {
            Err(OrderError::Refused(text)) if text.contains("badNonce") && tries > 0 => tries -= 1,
            other => return other,
        }
    }
}

async fn attempt(
    config: &AcmeConfig,
    store: &Store,
    challenges: &Challenges,
    challenge: Challenge,
) -> Result<Pem, OrderError> {
    let shelf = Shelf { store: store.clone(), pem: Arc::default() };
    let pem = shelf.pem.clone();
    let client = config.client.clone();
    let mut state = rustls_acme::AcmeConfig::new_with_client_config(&config.names, client)
        .directory(&config.directory)
        .contact(config.contact())
        .challenge_type(match challenge {
            Challenge::Http01 => UseChallenge::Http01,
            Challenge::TlsAlpn01 => UseChallenge::TlsAlpn01,
        })
        .cache(shelf)
        .state();
    let _answers = challenges.by_library(state.resolver());
    loop {
        match state.next().await {
            Some(Ok(EventOk::CertCacheStore)) => {
                let pem = pem.lock().unwrap_or_else(PoisonError::into_inner).take();
                return pem.ok_or_else(|| OrderError::Refused("an empty certificate".into()));
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(OrderError::Refused(explain(&error.to_string()))),
            None => return Err(OrderError::Refused("rustls-acme ended".into())),
        }
    }
}

/// The authority's own words, where the error has some: they name the record or port to mend.
fn explain(error: &str) -> String {
    let detail = error.split("detail: Some(\"").nth(1).and_then(|rest| rest.split("\")").next());
    match detail {
        Some(detail) => format!("{} ({})", detail, kind(error).unwrap_or("refused")),
        None => error.replace('\n', " "),
    }
}

fn kind(error: &str) -> Option<&str> {
    let rest = error.split("urn:ietf:params:acme:error:").nth(1)?;
    rest.split(|c: char| !c.is_ascii_alphanumeric()).next()
}

/// Keeps the account on disk and the certificate for the caller.
struct Shelf {
    store: Store,
    pem: Arc<Mutex<Option<Pem>>>,
}

#[async_trait]
impl CertCache for Shelf {
    type EC = CertError;

    async fn load_cert(&self, _: &[String], _: &str) -> Result<Option<Vec<u8>>, CertError> {
        Ok(None)
    }

    async fn store_cert(&self, _: &[String], _: &str, cert: &[u8]) -> Result<(), CertError> {
        *self.pem.lock().unwrap_or_else(PoisonError::into_inner) = Pem::split(cert);
        Ok(())
    }
}

#[async_trait]
impl AccountCache for Shelf {
    type EA = CertError;

    async fn load_account(&self, _: &[String], _: &str) -> Result<Option<Vec<u8>>, CertError> {
        self.store.account(ACCOUNT)
    }

    async fn store_account(&self, _: &[String], _: &str, key: &[u8]) -> Result<(), CertError> {
        self.store.put_account(ACCOUNT, key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_is_quoted() {
        let error = "order: bad auth object: Auth { challenges: [Challenge { typ: TlsAlpn01, \
                     error: Some(Problem { typ: Some(\"urn:ietf:params:acme:error:connection\"), \
                     detail: Some(\"no route to 192.0.2.1\") }) }] }";
        assert_eq!(explain(error), "no route to 192.0.2.1 (connection)");
        assert_eq!(explain("io error:\nbroken"), "io error: broken");
    }
}
