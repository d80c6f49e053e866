use super::*;
use proptest::prelude::*;

fn credential() -> Credential {
    Credential {
        key_id: b"basement".to_vec(),
        public_key: vec![7; 32],
        proof: vec![9; 64],
        scheme: ED25519,
        verification: vec![3; 16],
        realm: Vec::new(),
    }
}

const HOME: Origin<'_> = Origin { scheme: b"https", host: b"example.org", port: 443 };

#[test]
fn the_example_of_the_rfc_parses() {
    // RFC 9729 §5; its byte sequences spell what they stand for.
    let value = b"Concealed k=YmFzZW1lbnQ, a=VGhpcyBpcyBh-HB1YmxpYyBrZXkgaW4gdXNl_GhlcmU, s=2055, \
        v=dmVyaWZpY2F0aW9u_zE2Qg, p=SW5zZXJ0_HNpZ25hdHVyZSBvZiBub25jZSBoZXJlIHdoaWNoIHRha2VzIDUxMiBiaXRz-GZvciBFZDI1NTE5IQ";
    let parsed = Credential::parse(value).unwrap();
    assert_eq!(parsed.key_id, b"basement");
    assert_eq!(parsed.public_key, b"This is a\xf8public key in use\xfchere");
    assert_eq!((parsed.scheme, parsed.verification.len(), parsed.proof.len()), (ED25519, 16, 64));
    assert!(parsed.realm.is_empty());
}

#[test]
fn rule_87_the_context_is_every_field_in_order_with_minimal_varints() {
    let long = [b'h'; 70];
    let origin = Origin { scheme: b"https", host: &long, port: 8443 };
    let context = context(ED25519, b"id", &[1; 32], origin, b"r");
    let mut wanted = vec![8, 7, 2, b'i', b'd', 32];
    wanted.extend([1; 32]);
    wanted.extend(b"\x05https");
    wanted.extend([0x40, 70]);
    wanted.extend(long);
    wanted.extend([0x20, 0xfb, 1, b'r']);
    assert_eq!(context, wanted);
    assert_eq!(*credential().context(HOME).last().unwrap(), 0, "no realm is an empty one");
}

#[test]
fn rule_88_what_is_signed_is_the_rfcs_example() {
    // RFC 9729 §3.3, where the first 32 exported bytes are 01.
    let mut exported = [1; EXPORTED];
    exported[32..].fill(2);
    let wanted = [
        &[0x20; 64][..],
        &[
            0x48, 0x54, 0x54, 0x50, 0x20, 0x43, 0x6f, 0x6e, 0x63, 0x65, 0x61, 0x6c, 0x65, 0x64,
            0x20, 0x41, 0x75, 0x74, 0x68, 0x65, 0x6e, 0x74, 0x69, 0x63, 0x61, 0x74, 0x69, 0x6f,
            0x6e, 0,
        ],
        &[1; 32],
    ]
    .concat();
    assert_eq!(content(&exported)[..], wanted[..]);
    assert_eq!(verification(&exported), [2; 16]);
}

#[test]
fn rule_89_every_parameter_is_required_once_and_in_its_form() {
    let good = credential().value();
    assert_eq!(Credential::parse(good.as_bytes()), Some(credential()));
    for name in ["k", "a", "s", "v", "p"] {
        let parameters = good.strip_prefix("Concealed ").unwrap().split(", ");
        let without: Vec<_> =
            parameters.filter(|part| !part.starts_with(&format!("{name}="))).collect();
        let without = format!("Concealed {}", without.join(", "));
        assert_eq!(Credential::parse(without.as_bytes()), None, "without {name}");
        let twice = format!("{good}, {name}=AA");
        assert_eq!(Credential::parse(twice.as_bytes()), None, "{name} twice");
        let quoted = format!("{without}, {name}=\"AA\"");
        assert_eq!(Credential::parse(quoted.as_bytes()), None, "{name} in quotes");
        let plain = format!("{without}, {name}={}", if name == "s" { "0" } else { "AA" });
        assert!(Credential::parse(plain.as_bytes()).is_some(), "{name} put back");
    }
    for (from, to) in [
        ("s=2055", "s=02055"),
        ("s=2055", "s=+2055"),
        ("s=2055", "s=65536"),
        ("s=2055", "s="),
        ("k=YmFzZW1lbnQ", "k=YmFzZW1lbnQ="),
        ("k=YmFzZW1lbnQ", "k=YmFz ZW1lbnQ"),
        ("k=YmFzZW1lbnQ", "k=YmFz+W1lbnQ"),
        ("Concealed ", "Concealed"),
        ("Concealed ", "Bearer "),
        (", s", " s"),
        (", s", ", =, s"),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(bad, good);
        assert_eq!(Credential::parse(bad.as_bytes()), None, "{bad}");
    }
    let long = format!("{good}, x={}", "y".repeat(MAX_VALUE));
    assert_eq!(Credential::parse(long.as_bytes()), None);
}

#[test]
fn lists_are_lists_and_names_have_no_case() {
    let value = credential().value();
    let loose = value.replace(", ", " ,\t, ").replace("s=", "S =  ").replace("Con", "cON");
    assert_eq!(Credential::parse(loose.as_bytes()), Some(credential()));
    let unknown = value + ", later=\"a, \\\" b\"";
    assert_eq!(Credential::parse(unknown.as_bytes()), Some(credential()));
}

#[test]
fn an_origin_has_the_port_named_or_the_default() {
    let of = |scheme, authority| Origin::of(scheme, authority).map(|o| (o.host, o.port));
    let https = Some(&b"https"[..]);
    assert_eq!(of(https, b"a.org"), Some((&b"a.org"[..], 443)));
    assert_eq!(of(Some(b"http"), b"a.org"), Some((&b"a.org"[..], 80)));
    assert_eq!(of(https, b"a.org:8443"), Some((&b"a.org"[..], 8443)));
    assert_eq!(of(None, b"[2001:db8::1]:22"), Some((&b"[2001:db8::1]"[..], 22)));
    assert_eq!(of(https, b"[2001:db8::1]"), Some((&b"[2001:db8::1]"[..], 443)));
    for bad in [&b""[..], b":443", b"a:", b"a:0x1", b"a:65536", b"a:1:2"] {
        assert_eq!(of(https, bad), None, "{bad:?}");
    }
    assert_eq!(of(Some(b"gopher"), b"a.org"), None);
}

proptest! {
    #[test]
    fn any_credential_survives_a_round_trip(
        key_id in proptest::collection::vec(any::<u8>(), 0..64),
        public_key in proptest::collection::vec(any::<u8>(), 0..64),
        proof in proptest::collection::vec(any::<u8>(), 0..80),
        verification in proptest::collection::vec(any::<u8>(), 0..20),
        scheme: u16,
        realm in "[ -~]{0,40}",
    ) {
        let realm = realm.into_bytes();
        let given = Credential { key_id, public_key, proof, scheme, verification, realm };
        prop_assert_eq!(Credential::parse(given.value().as_bytes()), Some(given));
    }

    #[test]
    fn no_bytes_do_harm(value in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Credential::parse(&value);
        let _ = Credential::parse(&[b"Concealed ", &value[..]].concat());
        let _ = Origin::of(None, &value);
    }
}
