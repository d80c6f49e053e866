//! The one fork in the road: a tunnel for account holders, the website for everybody else.

use std::time::SystemTime;

use bauta_masque::proxy_status::ProxyError;
use bauta_masque::request::{Ask, Head, Templates, classify};

use crate::accounts::{Accounts, Grant};
use crate::dial::Refusal;

/// Where a request goes.
#[derive(Debug)]
pub enum Route {
    /// To the website, as if there were no tunnels.
    Site,
    /// Into a tunnel.
    Tunnel(Ask, Grant),
    /// Nowhere, and the account holder is told why.
    Refuse(u16, Refusal),
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

    /// Both are tried, always, so that it takes as long whichever is there.
    fn grant(&self, accounts: &Accounts, now: SystemTime) -> Option<Grant> {
        let proxy = accounts.authenticate(self.proxy_authorization, now);
        let origin = accounts.authenticate(self.authorization, now);
        proxy.or(origin)
    }
}

/// Decides.
pub fn route(
    head: &Head<'_>,
    credentials: Credentials<'_>,
    templates: &Templates,
    accounts: &Accounts,
    now: SystemTime,
) -> Route {
    let ask = classify(head, templates);
    let looks_like_a_tunnel = head.method == b"CONNECT" || head.protocol.is_some();
    if !looks_like_a_tunnel {
        return Route::Site;
    }
    let grant = credentials.grant(accounts, now);
    match (ask, grant) {
        (Ask::Http, _) | (_, None) => Route::Site,
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
        let entry =
            Entry { name: "alice".into(), tokens, sessions: None, rate: None, expires: None };
        edit::<_, FileError>(&path, |file| {
            file.accounts.push(entry);
            Ok(())
        })
        .unwrap();
        let accounts = Accounts::load(path, None).unwrap();
        (dir, accounts)
    }

    fn ask(fields: &[(&str, &str)]) -> Route {
        let (_dir, accounts) = accounts();
        let fields = || fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let head = Head::from_fields(Carriage::H3, fields());
        let templates = Templates::new(None, None).unwrap();
        route(&head, Credentials::of(fields()), &templates, &accounts, SystemTime::UNIX_EPOCH)
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
            assert!(matches!(udp(TARGET, extra), Route::Site));
            assert!(matches!(udp("/.well-known/masque/udp/x/0/", extra), Route::Site));
            let connect = [&[(":method", "CONNECT"), (":authority", "b.org:443")], extra].concat();
            assert!(matches!(ask(&connect), Route::Site));
            let odd = [
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                (":scheme", "https"),
                (":authority", "a.org"),
                (":path", "/"),
            ];
            assert!(matches!(ask(&[&odd, extra].concat()), Route::Site));
        }
    }

    #[test]
    fn an_account_holder_is_told_what_is_wrong() {
        let good = [("authorization", "Bearer good")];
        let route = udp("/.well-known/masque/udp/192.0.2.1/0/", &good);
        assert!(matches!(route, Route::Refuse(400, _)));
        assert!(matches!(udp("/elsewhere", &good), Route::Site));
    }

    #[test]
    fn an_ordinary_request_is_the_websites_whatever_it_carries() {
        let get = [(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/")];
        let route = ask(&[&get[..], &[("authorization", "Bearer good")]].concat());
        assert!(matches!(route, Route::Site));
    }
}
