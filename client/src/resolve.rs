//! From the gateway's name to its addresses.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use crate::{
    link::Server,
    stage::{Failure, Stage},
};

/// How long the system's resolver may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most addresses tried.
pub const MAX_ADDRESSES: usize = 8;

/// The gateway's addresses in the order in which they are to be tried: IPv6 and IPv4 in turns (RFC 8305 §4).
pub async fn resolve(server: &Server, given: &[IpAddr]) -> Result<Vec<SocketAddr>, Failure> {
    let port = server.port;
    if !given.is_empty() {
        return Ok(in_turns(given.iter().map(|&ip| (ip, port).into())));
    }
    if let Ok(ip) = server.host.parse::<IpAddr>() {
        return Ok(vec![(ip, port).into()]);
    }
    let looked_up =
        tokio::time::timeout(PATIENCE, tokio::net::lookup_host((server.host.as_str(), port))).await;
    let fail = |what: String| {
        Failure::new(
            Stage::Resolve,
            what,
            "is the name right, and does this machine resolve others? `addr=IP` in the link makes a name server unnecessary",
        )
    };
    match looked_up {
        Err(_) => Err(fail(format!(
            "no answer from the name servers for {} in {} s",
            server.host,
            PATIENCE.as_secs()
        ))),
        Ok(Err(e)) => Err(fail(format!("{} cannot be resolved: {e}", server.host))),
        Ok(Ok(found)) => {
            let found = in_turns(found);
            if found.is_empty() {
                Err(fail(format!("{} has no address", server.host)))
            } else {
                Ok(found)
            }
        }
    }
}

fn in_turns(found: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let (v6, v4): (Vec<_>, Vec<_>) = found.into_iter().partition(SocketAddr::is_ipv6);
    let (mut v6, mut v4) = (v6.into_iter(), v4.into_iter());
    let mut out: Vec<SocketAddr> = Vec::new();
    loop {
        let (a, b) = (v6.next(), v4.next());
        if a.is_none() && b.is_none() {
            return out;
        }
        for addr in [a, b].into_iter().flatten() {
            if out.len() < MAX_ADDRESSES && !out.contains(&addr) {
                out.push(addr);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_and_duplicates_go() {
        let list = ["192.0.2.1:1", "192.0.2.1:1", "192.0.2.2:1", "[2001:db8::1]:1"]
            .map(|a| a.parse().unwrap());
        let order: Vec<String> = in_turns(list).iter().map(SocketAddr::to_string).collect();
        assert_eq!(order, ["[2001:db8::1]:1", "192.0.2.1:1", "192.0.2.2:1"]);
    }

    #[test]
    fn given_addresses_need_no_name_server() {
        let server = Server { host: "no.such.invalid".into(), port: 443 };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let found = runtime.block_on(resolve(&server, &["192.0.2.1".parse().unwrap()])).unwrap();
        assert_eq!(found, ["192.0.2.1:443".parse().unwrap()]);
    }

    #[test]
    fn a_name_that_does_not_exist_is_a_failure_of_its_stage() {
        let server = Server { host: "no.such.invalid".into(), port: 443 };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let failure = runtime.block_on(resolve(&server, &[])).unwrap_err();
        assert_eq!(failure.stage, Stage::Resolve);
        assert!(failure.to_string().contains("no.such.invalid"));
    }
}
