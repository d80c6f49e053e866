//! The one fork in the road: a tunnel for account holders, the website for everybody else.

use std::time::SystemTime;

use bauta_masque::concealed::{Origin, SCHEME};
use bauta_masque::proxy_status::ProxyError;
use bauta_masque::request::{Ask, Head, Templates, classify};
use bauta_masque_io::concealed::Export;

use crate::accounts::{Accounts, Grant};
use crate::dial::Refusal;

/// Where a request goes.
#[derive(Debug)]
pub enum Route {
    /// To the website, as if there were no tunnels.
    Site(Examined),
    /// Into a tunnel.
    Tunnel(Ask, Grant),
    /// Nowhere, and the account holder is told why.
    Refuse(u16, Refusal),
}

/// Whether a request's credentials were looked at, which takes time. An answer that what was asked
/// for is not there always comes after that work: where it was not done, it is done for show
/// ([`Accounts::pretend`]), or somebody could tell by the clock what is looked at (RFC 9729 §6.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Examined {
    /// They were.
    Yes,
    /// They were not.
    No,
}

/// The credentials of a request, as they came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Credentials<'a> {
    /// `authorization`.
    pub authorization: Option<&'a [u8]>,
    /// `proxy-authorization`.
    pub proxy_authorization: Option<&'a [u8]>,
}

impl<'a> Credentials<'a> {
    /// Picks them from a request's fields; of a repeated field the first counts.
    pub fn of(fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let mut credentials = Self::default();
        for (name, value) in fields {
            if name.eq_ignore_ascii_case(b"authorization") {
                credentials.authorization.get_or_insert(value);
            } else if name.eq_ignore_ascii_case(b"proxy-authorization") {
                credentials.proxy_authorization.get_or_insert(value);
            }
        }
        credentials
    }

    /// Every kind is tried, so that it takes as long whichever is there: but for who is let in by a
    /// token, who sees that anyway, and pays for no signature that is not there.
    fn grant(
        &self,
        head: &Head<'_>,
        accounts: &Accounts,
        tls: &mut dyn Export,
        now: SystemTime,
    ) -> Option<Grant> {
        let proxy = accounts.authenticate(self.proxy_authorization, now);
        let origin = accounts.authenticate(self.authorization, now);
        let token = proxy.or(origin);
        if token.is_some() && self.concealed().is_none() {
            return token;
        }
        let target = head.authority.and_then(|authority| Origin::of(head.scheme, authority));
        let concealed = accounts.authenticate_concealed(self.concealed(), target, tls, now);
        let shown = accounts.authenticate_certificate(tls.peer_spki(), now);
        concealed.or(token).or(shown)
    }

    fn concealed(&self) -> Option<&'a [u8]> {
        let is_one = |value: &&[u8]| {
            let scheme = value.get(..SCHEME.len());
            scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME.as_bytes()))
        };
        self.proxy_authorization.filter(is_one).or(self.authorization.filter(is_one))
    }
}

/// Decides; `tls` is that of the connection.
pub fn route(
    head: &Head<'_>,
    credentials: Credentials<'_>,
    templates: &Templates,
    accounts: &Accounts,
    tls: &mut dyn Export,
    now: SystemTime,
) -> Route {
    let ask = classify(head, templates);
    let looks_like_a_tunnel = head.method == b"CONNECT" || head.protocol.is_some();
    if !looks_like_a_tunnel {
        return Route::Site(Examined::No);
    }
    let grant = credentials.grant(head, accounts, tls, now);
    match (ask, grant) {
        (Ask::Http, _) | (_, None) => Route::Site(Examined::Yes),
        (_, Some(grant)) if grant.account.is_spent() => {
            let details = Some("the traffic of this month is used up".to_owned());
            Route::Refuse(403, Refusal { error: ProxyError::HttpRequestDenied, details })
        }
        (Ask::Malformed(reason), Some(_)) => {
            let details = Some(reason.to_string());
            Route::Refuse(400, Refusal { error: ProxyError::HttpRequestError, details })
        }
        (Ask::UnknownProtocol, Some(_)) => Route::Refuse(501, ProxyError::HttpRequestDenied.into()),
        (ask, Some(grant)) => Route::Tunnel(ask, grant),
    }
}

#[cfg(test)]
mod tests {
    use bauta_masque::request::Carriage;

    use super::*;
    use crate::accounts::{Entry, FileError, edit, hash_hex};

    fn accounts() -> (tempfile::TempDir, Accounts) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("accounts.toml");
        let tokens = vec![hash_hex("good")];
        let entry = Entry { name: "alice".into(), tokens, ..Entry::default() };
        edit::<_, FileError>(&path, |file| {
            file.accounts.push(entry);
            Ok(())
        })
        .unwrap();
        let accounts = Accounts::load(path, None).unwrap();
        (dir, accounts)
    }

    struct NoTls;

    impl Export for NoTls {
        fn export(&mut self, _: &[u8]) -> Option<[u8; 48]> {
            None
        }
    }

    fn ask(fields: &[(&str, &str)]) -> Route {
        let (_dir, accounts) = accounts();
        let fields = || fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let head = Head::from_fields(Carriage::H3, fields());
        let templates = Templates::new(None, None).unwrap();
        let now = SystemTime::UNIX_EPOCH;
        route(&head, Credentials::of(fields()), &templates, &accounts, &mut NoTls, now)
    }

    fn udp<'a>(path: &'a str, extra: &[(&'a str, &'a str)]) -> Route {
        let head = [
            (":method", "CONNECT"),
            (":protocol", "connect-udp"),
            (":scheme", "https"),
            (":authority", "a.org"),
            (":path", path),
        ];
        ask(&[&head, extra].concat())
    }

    const TARGET: &str = "/.well-known/masque/udp/192.0.2.1/53/";

    #[test]
    fn either_field_opens_the_tunnel() {
        for field in ["authorization", "proxy-authorization"] {
            let route = udp(TARGET, &[(field, "Bearer good")]);
            assert!(matches!(route, Route::Tunnel(Ask::ConnectUdp { port: 53, .. }, _)), "{field}");
        }
        let route = udp(TARGET, &[("authorization", "x"), ("proxy-authorization", "Bearer good")]);
        assert!(matches!(route, Route::Tunnel(..)));
    }

    #[test]
    fn without_credentials_everything_is_the_website() {
        for extra in [&[][..], &[("authorization", "Bearer bad")]] {
            assert!(matches!(udp(TARGET, extra), Route::Site(Examined::Yes)));
            assert!(matches!(udp("/.well-known/masque/udp/x/0/", extra), Route::Site(_)));
            let connect = [&[(":method", "CONNECT"), (":authority", "b.org:443")], extra].concat();
            assert!(matches!(ask(&connect), Route::Site(_)));
            let odd = [
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                (":scheme", "https"),
                (":authority", "a.org"),
                (":path", "/"),
            ];
            assert!(matches!(ask(&[&odd, extra].concat()), Route::Site(_)));
        }
    }

    #[test]
    fn an_account_holder_is_told_what_is_wrong() {
        let good = [("authorization", "Bearer good")];
        let route = udp("/.well-known/masque/udp/192.0.2.1/0/", &good);
        assert!(matches!(route, Route::Refuse(400, _)));
        assert!(matches!(udp("/elsewhere", &good), Route::Site(_)));
    }

    #[test]
    fn an_ordinary_request_is_the_websites_whatever_it_carries() {
        let get = [(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/")];
        let route = ask(&[&get[..], &[("authorization", "Bearer good")]].concat());
        assert!(matches!(route, Route::Site(Examined::No)));
    }
}
