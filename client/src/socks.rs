//! SOCKS5 (RFC 1928), the server's side: the handshake and the header of relayed datagrams.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::dial::Target;

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const NONE_ACCEPTABLE: u8 = 0xff;

/// What the program asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A TCP connection to the target.
    Connect(Target),
    /// A relay for datagrams.
    UdpAssociate,
}

/// Reply codes (RFC 1928 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reply {
    /// Succeeded.
    Succeeded = 0,
    /// General failure.
    Failure = 1,
    /// Not allowed by the rules.
    NotAllowed = 2,
    /// Host unreachable.
    HostUnreachable = 4,
    /// Connection refused.
    Refused = 5,
    /// Command not supported.
    CommandUnsupported = 7,
    /// Address type not supported.
    AddressUnsupported = 8,
}

/// Why a handshake came to nothing.
#[derive(Debug, Error)]
pub enum SocksError {
    /// The program went away.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It speaks something else.
    #[error("not SOCKS5: version {0}")]
    Version(u8),
    /// It insists on a password.
    #[error("the program offers no way without a password")]
    Method,
    /// It asks for something that is not there.
    #[error("refused with {0:?}")]
    Refused(Reply),
}

/// Greets and reads the request; a refusal has been answered when this returns.
pub async fn accept<S>(stream: &mut S) -> Result<Request, SocksError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let version = stream.read_u8().await?;
    if version != VERSION {
        return Err(SocksError::Version(version));
    }
    let mut methods = [0; 255];
    let methods = &mut methods[..usize::from(stream.read_u8().await?)];
    stream.read_exact(methods).await?;
    if !methods.contains(&NO_AUTHENTICATION) {
        stream.write_all(&[VERSION, NONE_ACCEPTABLE]).await?;
        return Err(SocksError::Method);
    }
    stream.write_all(&[VERSION, NO_AUTHENTICATION]).await?;
    match request(stream).await {
        Err(SocksError::Refused(code)) => {
            reply(stream, code, None).await?;
            Err(SocksError::Refused(code))
        }
        other => other,
    }
}

async fn request<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Request, SocksError> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let [version, command, _, kind] = head;
    if version != VERSION {
        return Err(SocksError::Version(version));
    }
    let host = match kind {
        1 => IpAddr::from(read::<4, _>(stream).await?).to_string(),
        4 => IpAddr::from(read::<16, _>(stream).await?).to_string(),
        3 => {
            let mut name = vec![0; usize::from(stream.read_u8().await?)];
            stream.read_exact(&mut name).await?;
            String::from_utf8(name).map_err(|_| SocksError::Refused(Reply::AddressUnsupported))?
        }
        _ => return Err(SocksError::Refused(Reply::AddressUnsupported)),
    };
    let port = stream.read_u16().await?;
    match command {
        1 => Target::new(&host, port)
            .map(Request::Connect)
            .map_err(|_| SocksError::Refused(Reply::AddressUnsupported)),
        // The address says where datagrams will come from, and is zero more often than right: not used.
        3 => Ok(Request::UdpAssociate),
        _ => Err(SocksError::Refused(Reply::CommandUnsupported)),
    }
}

async fn read<const N: usize, S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// Answers a request; `bound` is where a relay listens.
pub async fn reply<S: AsyncWrite + Unpin>(
    stream: &mut S,
    code: Reply,
    bound: Option<SocketAddr>,
) -> io::Result<()> {
    let mut out = vec![VERSION, code as u8, 0];
    put(&mut out, bound.unwrap_or_else(|| (Ipv4Addr::UNSPECIFIED, 0).into()));
    stream.write_all(&out).await
}

fn put(out: &mut Vec<u8>, addr: SocketAddr) {
    match addr.ip() {
        IpAddr::V4(ip) => {
            out.push(1);
            out.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(4);
            out.extend(ip.octets());
        }
    }
    out.extend(addr.port().to_be_bytes());
}

/// A relayed datagram: where it goes, and where its payload begins. `None` for fragments and nonsense, which are
/// dropped (RFC 1928 §7).
pub fn datagram(packet: &[u8]) -> Option<(Target, &[u8])> {
    let (head, rest) = packet.split_first_chunk::<4>()?;
    let [0, 0, 0, kind] = *head else { return None };
    let (host, rest) = match kind {
        1 => rest.split_first_chunk::<4>().map(|(a, r)| (Ipv4Addr::from(*a).to_string(), r))?,
        4 => rest.split_first_chunk::<16>().map(|(a, r)| (Ipv6Addr::from(*a).to_string(), r))?,
        3 => {
            let (&len, rest) = rest.split_first()?;
            let (name, rest) = rest.split_at_checked(len.into())?;
            (String::from_utf8(name.to_vec()).ok()?, rest)
        }
        _ => return None,
    };
    let (port, payload) = rest.split_first_chunk::<2>()?;
    Some((Target::new(&host, u16::from_be_bytes(*port)).ok()?, payload))
}

/// The header in front of datagrams that come back from `target`.
pub fn datagram_header(target: &Target) -> Vec<u8> {
    let mut out = vec![0, 0, 0];
    match target.host().parse::<IpAddr>() {
        Ok(ip) => put(&mut out, (ip, target.port()).into()),
        Err(_) => {
            out.push(3);
            // A target's name fits: `Target::new` saw to it.
            out.push(target.host().len() as u8);
            out.extend(target.host().as_bytes());
            out.extend(target.port().to_be_bytes());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shake(input: &[u8]) -> (Result<Request, SocksError>, Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut ours, mut theirs) = tokio::io::duplex(1024);
            theirs.write_all(input).await.unwrap();
            theirs.shutdown().await.unwrap();
            let outcome = accept(&mut ours).await;
            drop(ours);
            let mut answer = Vec::new();
            theirs.read_to_end(&mut answer).await.unwrap();
            (outcome, answer)
        })
    }

    #[test]
    fn a_connect_to_a_name_is_understood() {
        let (request, answer) = shake(b"\x05\x02\x02\x00\x05\x01\x00\x03\x0bexample.org\x01\xbb");
        assert_eq!(request.unwrap(), Request::Connect(Target::new("example.org", 443).unwrap()));
        assert_eq!(answer, [5, 0]);
    }

    #[test]
    fn a_connect_to_an_ipv6_address_is_understood() {
        let mut input = b"\x05\x01\x00\x05\x01\x00\x04".to_vec();
        input.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        input.extend([0, 80]);
        assert_eq!(
            shake(&input).0.unwrap(),
            Request::Connect(Target::new("2001:db8::1", 80).unwrap())
        );
    }

    #[test]
    fn what_is_not_offered_is_refused_with_its_code() {
        assert_eq!(shake(b"\x05\x01\x02").1, [5, 0xff]);
        let bind = shake(b"\x05\x01\x00\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x50").1;
        assert_eq!(bind[2..5], [5, Reply::CommandUnsupported as u8, 0]);
        let odd = shake(b"\x05\x01\x00\x05\x01\x00\x09").1;
        assert_eq!(odd[3], Reply::AddressUnsupported as u8);
        let port_zero = shake(b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x00").1;
        assert_eq!(port_zero[3], Reply::AddressUnsupported as u8);
        assert!(matches!(shake(b"\x04\x01").0, Err(SocksError::Version(4))));
        assert!(matches!(shake(b"\x05\x05\x00").0, Err(SocksError::Io(_))));
    }

    #[test]
    fn datagrams_go_both_ways_with_the_same_header() {
        for (host, port) in [("192.0.2.1", 53), ("2001:db8::1", 443), ("dns.example", 853)] {
            let target = Target::new(host, port).unwrap();
            let mut packet = datagram_header(&target);
            packet.extend(b"payload");
            assert_eq!(datagram(&packet), Some((target, &b"payload"[..])));
        }
    }

    #[test]
    fn fragments_and_nonsense_are_dropped() {
        for bad in [
            &b"\0\0\x01\x01\x7f\0\0\x01\0\x35x"[..],
            b"\0\0\0\x03\xffab",
            b"\0\0",
            b"\0\0\0\x07",
            b"",
        ] {
            assert_eq!(datagram(bad), None);
        }
    }
}
