//! Wire elements.

use bauta_masque::packet::PacketView;
use bauta_masque::request::{Carriage, Head, Templates};
use bauta_masque::template::{DEFAULT_IP, DEFAULT_UDP, Template};
use bauta_masque::{
    address, capsule as caps, concealed as auth, datagram as dgram, dns as resolvers,
    fragment as frag,
};
use bauta_masque::{icmp as msg, packet as ip, request as req, route, varint as int};

/// What decodes is what its minimal form decodes to.
pub fn varint(data: &[u8]) {
    let Some((value, len)) = int::decode(data) else { return };
    let mut out = Vec::new();
    int::encode(value, &mut out);
    assert!(value <= int::MAX && len <= data.len() && out.len() <= len);
    assert_eq!(int::decode(&out), Some((value, int::len(value))));
}

/// A prefix names a stream the client opened.
pub fn datagram(data: &[u8]) {
    if let Ok((stream, len)) = dgram::decode(data) {
        assert!(stream % 4 == 0 && len <= data.len());
    }
}

/// However the stream is cut, the same capsules come out, and no more is held than is allowed.
pub fn capsule(data: &[u8]) {
    let Some((step, data)) = data.split_first() else { return };
    let run = |step: usize| {
        let mut parser = caps::CapsuleParser::new(caps::KNOWN_IP);
        let mut seen = Vec::new();
        for piece in data.chunks(step.max(1)) {
            let pushed = parser.push(piece, &mut |c| seen.push((c.kind, c.value.to_vec())));
            assert!(parser.buffered() <= caps::MAX_DATAGRAM.max(route::MAX_CAPSULE));
            if let Err(error) = pushed {
                return (seen, Err(error));
            }
        }
        (seen, parser.finish())
    };
    assert_eq!(run(usize::from(*step)), run(data.len()));
}

/// A credential that parses is written and read again to itself, whatever it was written like.
pub fn concealed(data: &[u8]) {
    let _ = auth::Origin::of(None, data);
    if let Some(credential) = auth::Credential::parse(data) {
        assert!(data.len() <= auth::MAX_VALUE && data.is_ascii());
        assert_eq!(auth::Credential::parse(credential.value().as_bytes()), Some(credential));
    }
}

/// A list that parses is encoded to itself.
pub fn addresses(data: &[u8]) {
    if let Ok(list) = address::parse_assigned(data) {
        let mut out = Vec::new();
        address::encode_assigned(&list, &mut out);
        assert_eq!(address::parse_assigned(&out).as_ref(), Ok(&list));
        assert!(list.iter().all(|a| a.prefix.to_string().parse() == Ok(a.prefix)));
    }
    if let Ok(list) = address::parse_requested(data) {
        assert!(!list.is_empty() && list.iter().all(|r| r.request_id != 0));
    }
}

/// A list that parses is valid, encodes to itself and can be looked up by its own ends.
pub fn routes(data: &[u8]) {
    let Ok(list) = route::parse(data) else { return };
    let mut out = Vec::new();
    route::encode(&list, &mut out);
    assert_eq!(out, data);
    let table = route::RouteTable::new(&list);
    for range in &list {
        assert!(
            table.allows(range.start, range.protocol) && table.allows(range.end, range.protocol)
        );
        let prefixes = range.prefixes();
        assert_eq!(prefixes.first().map(|p| p.addr), Some(range.start));
        assert_eq!(prefixes.last().map(|p| p.last()), Some(range.end));
    }
    let normal = route::normalise(&list);
    assert_eq!(route::validate(&normal), Ok(()));
}

/// A configuration that parses is encoded to itself.
pub fn dns(data: &[u8]) {
    if let Ok(list) = resolvers::parse(data) {
        let mut out = Vec::new();
        resolvers::encode(&list, &mut out);
        assert_eq!(resolvers::parse(&out), Ok(list));
    }
}

/// A template and a path, split at the first line feed.
pub fn template(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (template, path) = text.split_once('\n').unwrap_or((text, "/a/b"));
    let Ok(template) = Template::parse(template) else { return };
    if let Some(vars) = template.match_path(path) {
        let _ = template.variables().filter(|name| vars.get(name).is_err()).count();
    }
    let names: Vec<&str> = template.variables().collect();
    let values: Vec<(&str, &str)> = names.iter().map(|n| (*n, "2001:db8::/32")).collect();
    let expanded = template.expand(&values);
    if expanded.len() <= bauta_masque::template::MAX_LEN {
        let vars = template.match_path(&expanded);
        // A template may name one query key twice, which nothing matches.
        if let Some(vars) = vars {
            assert!(names.iter().all(|n| vars.raw(n) == Some("2001%3Adb8%3A%3A%2F32")));
        }
    }
}

/// Lines of `name value`, read as each carriage; the templates hit by the path as it is.
pub fn request(data: &[u8]) {
    let templates = Templates::new(Some(DEFAULT_UDP), Some(DEFAULT_IP));
    let Ok(templates) = templates else { unreachable!("the defaults are templates") };
    let fields = || {
        data.split(|b| *b == b'\n').map(|line| match line.iter().position(|b| *b == b' ') {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &b""[..]),
        })
    };
    let _ = req::classify(&Head::from_fields(Carriage::H3, fields()), &templates);
    let _ = req::classify(&Head::from_h1(b"GET", data, fields()), &templates);
    let _ = req::classify(&Head::from_h1(b"CONNECT", data, fields()), &templates);
    let _ = req::capsule_protocol(data);
    if let Ok(text) = std::str::from_utf8(data) {
        for (kind, template) in [("connect-udp", &templates.udp), ("connect-ip", &templates.ip)] {
            let (a, b) = text.split_once('\n').unwrap_or((text, "443"));
            let vars = [("target_host", a), ("target_port", b), ("target", a), ("ipproto", b)];
            let path = template.expand(&vars);
            let fields = [
                (":method", "CONNECT"),
                (":protocol", kind),
                (":scheme", "https"),
                (":authority", "a"),
                (":path", &path),
            ];
            let fields = fields.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
            let ask = req::classify(&Head::from_fields(Carriage::H2, fields), &templates);
            assert!(ask != req::Ask::UnknownProtocol);
        }
    }
}

/// A view never reaches outside its packet, and a hop changes nothing but the hop.
pub fn packet(data: &[u8]) {
    let Ok(view) = PacketView::parse(data) else { return };
    assert_eq!(view.upper_offset() + view.upper().len(), data.len());
    let mut after = data.to_vec();
    if ip::decrement_ttl(&mut after).is_ok() {
        let Ok(hop) = PacketView::parse(&after) else { panic!("a hop broke the packet") };
        assert_eq!((hop.ttl() + 1, hop.protocol()), (view.ttl(), view.protocol()));
    } else {
        assert!(view.ttl() <= 1 && after == data);
    }
}

/// Every message made about a packet is a packet, bounded, and never answered by another error.
pub fn icmp(data: &[u8]) {
    let Ok(view) = PacketView::parse(data) else { return };
    let (router, most): (std::net::IpAddr, _) = match view.is_v4() {
        true => ([192, 0, 2, 1].into(), msg::MAX_V4),
        false => ([0x20; 16].into(), msg::MAX_V6),
    };
    let _ = (msg::is_error(&view), msg::quoted(&view));
    let about = msg::IcmpError::TooBig(1280);
    if let Some(reply) = msg::error(about, &view, router) {
        let Ok(reply_view) = PacketView::parse(&reply) else { panic!("no packet") };
        assert!(reply.len() <= most && msg::is_error(&reply_view));
        assert_eq!(msg::error(about, &reply_view, router), None);
        assert_eq!(reply_view.destination(), view.source());
    }
    if let Some(reply) = msg::echo_reply(&view, router) {
        assert!(PacketView::parse(&reply).is_ok());
    }
}

/// Fragments fit, parse and cover the payload.
pub fn fragment(data: &[u8]) {
    let Some((mtu, data)) = data.split_first_chunk::<2>() else { return };
    let mtu = usize::from(u16::from_be_bytes(*mtu));
    let Ok(view) = PacketView::parse(data) else { return };
    let mut covered = 0;
    let pieces = frag::fragment_v4(data, mtu, |piece| {
        assert!(piece.len() <= mtu.max(frag::MIN_MTU));
        let Ok(piece) = PacketView::parse(piece) else { panic!("a fragment is no packet") };
        covered += piece.upper().len();
    });
    if pieces.is_some() {
        assert_eq!(covered, view.upper().len());
    }
}
