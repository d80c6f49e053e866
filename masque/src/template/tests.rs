use super::*;
use proptest::prelude::*;

fn get(template: &str, path: &str) -> Option<Vec<(String, String)>> {
    let template = Template::parse(template).unwrap();
    let vars = template.match_path(path)?;
    Some(template.variables().filter_map(|n| Some((n.into(), vars.raw(n)?.into()))).collect())
}

fn pairs(list: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
    Some(list.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect())
}

#[test]
fn rule_24_the_defaults_expand_and_match() {
    let udp = Template::udp(DEFAULT_UDP).unwrap();
    let path = udp.expand(&[("target_host", "192.0.2.6"), ("target_port", "443")]);
    assert_eq!(path, "/.well-known/masque/udp/192.0.2.6/443/");
    let vars = udp.match_path(&path).unwrap();
    assert_eq!(
        (vars.raw("target_host"), vars.raw("target_port")),
        (Some("192.0.2.6"), Some("443"))
    );
    let ip = Template::ip(DEFAULT_IP).unwrap();
    assert_eq!(ip.expand(&[("target", "*"), ("ipproto", "*")]), "/.well-known/masque/ip/*/*/");
    assert_eq!(
        ip.expand(&[("target", "2001:db8::/32"), ("ipproto", "17")]),
        "/.well-known/masque/ip/2001%3Adb8%3A%3A%2F32/17/"
    );
}

#[test]
fn the_query_forms_of_the_rfcs_match() {
    let form = "https://proxy.example.org:4443/masque/ip{?target,ipproto}";
    assert_eq!(Template::parse(form).unwrap().origin(), "https://proxy.example.org:4443");
    let wanted = pairs(&[("target", "a"), ("ipproto", "6")]);
    assert_eq!(get(form, "/masque/ip?target=a&ipproto=6"), wanted);
    assert_eq!(get(form, "/masque/ip?ipproto=6&target=a"), wanted);
    assert_eq!(get(form, "/masque/ip"), pairs(&[]));
    assert_eq!(get(form, "/masque/ip?target=a&target=b"), None);
    assert_eq!(Template::parse(form).unwrap().expand(&[("ipproto", "6")]), "/masque/ip?ipproto=6");

    let literal = "https://masque.example.org/?h={target_host}&p={target_port}";
    assert_eq!(get(literal, "/?h=x&p=1"), pairs(&[("target_host", "x"), ("target_port", "1")]));
    assert_eq!(get(literal, "/?h=x"), None);
    let expanded =
        Template::parse(literal).unwrap().expand(&[("target_host", "::1"), ("target_port", "1")]);
    assert_eq!(expanded, "/?h=%3A%3A1&p=1");

    let fixed = "https://masque.example.org/?user=bob";
    assert_eq!(get(fixed, "/?user=bob"), pairs(&[]));
    assert_eq!(get(fixed, "/?user=eve"), None);
    assert_eq!(get(fixed, "/"), None);
    let both = "/m?user=bob{&target}";
    assert_eq!(get(both, "/m?user=bob&target=x"), pairs(&[("target", "x")]));
    assert_eq!(Template::parse(both).unwrap().expand(&[("target", "x")]), "/m?user=bob&target=x");
}

#[test]
fn rule_23_what_the_rfc_forbids_is_refused() {
    use TemplateError::*;
    let table = [
        ("https://example.org/{+target_host}/", Operator('+')),
        ("https://example.org/{#target_host}", Operator('#')),
        ("https://example.org/{.target_host}", Operator('.')),
        ("https://example.org{/target_host}", VariablePlace),
        ("https://example.org/a{/target_host}", Operator('/')),
        ("https://example.org/{;target_host}", Operator(';')),
        ("https://{target_host}/", Form),
        ("https://a.{target_host}/", VariablePlace),
        ("https://example.org", Form),
        ("example.org/{a}", Form),
        ("://example.org/{a}", Form),
        ("https://exämple.org/{a}", Character('ä')),
        ("https://example.org/ {a}", Character(' ')),
        ("/{a}{b}", Ambiguous),
        ("/{a}-{b}", Ambiguous),
        ("/{a}/{a}", Variable("a".into())),
        ("/{a", Expression("{a".into())),
        ("/a}", Expression("}".into())),
        ("/{a*}", Expression("a*".into())),
        ("/{a:3}", Expression("a:3".into())),
        ("/{}", Expression(String::new())),
        ("/a#b", Form),
    ];
    for (template, error) in table {
        assert_eq!(Template::parse(template), Err(error), "{template}");
    }
    assert_eq!(Template::udp("/x/{target_host}"), Err(Missing("target_port")));
}

#[test]
fn several_variables_share_a_segment() {
    assert_eq!(get("/t/{a,b}", "/t/x,y"), pairs(&[("a", "x"), ("b", "y")]));
    assert_eq!(get("/t/h:{a}:{b}.x", "/t/h:1:2.x"), pairs(&[("a", "1"), ("b", "2")]));
    assert_eq!(get("/t/{a,b}", "/t/x"), None);
}

#[test]
fn only_an_expansion_matches() {
    let host = |path| get(DEFAULT_UDP, path);
    assert!(host("/.well-known/masque/udp/h/1/").is_some());
    for path in [
        "/",
        "/.well-known/masque/udp/h/1",
        "/.well-known/masque/udp/h/1/x",
        "/.well-known/masque/ip/h/1/",
        "x",
    ] {
        assert_eq!(host(path), None, "{path}");
    }
    assert_eq!(host(&format!("/.well-known/masque/udp/{}/1/", "a".repeat(MAX_LEN))), None);
}

#[test]
fn rule_26_values_are_decoded_exactly_once() {
    let template = Template::parse("/{a}").unwrap();
    let decode = |path| template.match_path(path).unwrap().get("a").map(|v| v.map(Cow::into_owned));
    assert_eq!(decode("/%252F"), Ok(Some("%2F".into())));
    assert_eq!(decode("/2001%3Adb8%3a%3a1"), Ok(Some("2001:db8::1".into())));
    for bad in ["/%", "/%2", "/%zz", "/a%f", "/%ff"] {
        assert_eq!(decode(bad), Err(BadEncoding), "{bad}");
    }
    assert_eq!(template.match_path("/x").unwrap().get("b"), Ok(None));
}

proptest! {
    #[test]
    fn any_text_never_panics(template in ".{0,60}", path in ".{0,60}") {
        if let Ok(template) = Template::parse(&template) {
            let _ = template.match_path(&path);
            let _ = template.expand(&[("a", "b")]);
        }
    }

    #[test]
    fn odd_templates_never_panic(template in "[/{}?&=,a-c:.*#+;]{0,24}", path in "[/?&=,a-c%]{0,24}") {
        if let Ok(template) = Template::parse(&template) {
            let _ = template.match_path(&path).map(|v| v.get("a").is_ok());
        }
    }

    #[test]
    fn what_is_expanded_matches_with_the_same_values(host in ".{0,40}", port: u16) {
        for form in [DEFAULT_UDP, "/m{?target_host,target_port}", "/{target_host,target_port}.x"] {
            let template = Template::udp(form).unwrap();
            let path = template.expand(&[("target_host", &host), ("target_port", &port.to_string())]);
            prop_assert!(path.bytes().all(|b| (0x21..0x7f).contains(&b)));
            let vars = template.match_path(&path).unwrap();
            prop_assert_eq!(vars.get("target_host").unwrap().unwrap(), host.as_str());
            prop_assert_eq!(vars.get("target_port").unwrap().unwrap(), port.to_string());
        }
    }
}
