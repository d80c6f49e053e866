//! What a browser fetches for a page: the style sheets, scripts and images of its own site that its HTML names.

use std::io::Read as _;

/// Of one page at most: a browser would fetch more, and be done later.
const MOST: usize = 24;
/// The largest page looked at, bytes.
pub const MAX_PAGE: u64 = 256 * 1024;

/// A page's content, `encoding` undone; `None` where that is not known here, or the content is damaged.
pub fn decode(content: &[u8], encoding: Option<&str>) -> Option<String> {
    let mut plain = Vec::new();
    match encoding {
        None | Some("identity") => plain.extend_from_slice(content),
        Some("br") => {
            let reader = brotli_decompressor::Decompressor::new(content, 4096);
            reader.take(MAX_PAGE).read_to_end(&mut plain).ok()?;
        }
        Some(_) => return None,
    }
    Some(String::from_utf8_lossy(&plain).into_owned())
}

/// What a page is made of, in the order in which browsers want it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A style sheet.
    Style,
    /// A script.
    Script,
    /// A picture.
    Picture,
}

/// Paths on the same site, each once, kind by kind, in the order in which `html` names them.
pub fn assets(html: &str) -> Vec<(Kind, String)> {
    let mut found: Vec<(Kind, String)> = Vec::new();
    for tag in html.split('<').skip(1).filter_map(|rest| rest.split('>').next()) {
        let name = tag.split(|c: char| c.is_ascii_whitespace()).next().unwrap_or_default();
        let (kind, address) = match name.to_ascii_lowercase().as_str() {
            "script" => (Kind::Script, attribute(tag, "src")),
            "img" => (Kind::Picture, attribute(tag, "src")),
            "link" if attribute(tag, "rel") == Some("stylesheet") => {
                (Kind::Style, attribute(tag, "href"))
            }
            _ => continue,
        };
        let Some(path) = address.and_then(path) else { continue };
        if found.len() < MOST && !found.iter().any(|(_, known)| *known == path) {
            found.push((kind, path));
        }
    }
    found.sort_by_key(|(kind, _)| *kind);
    found
}

/// The value of an attribute of a tag, in quotes or without.
fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let mut at = 0;
    while let Some(found) = tag[at..].find(name) {
        let start = at + found;
        at = start + name.len();
        let value = tag[at..].trim_start().strip_prefix('=').map(str::trim_start);
        let begins = tag[..start].ends_with(|c: char| c.is_ascii_whitespace());
        let Some(value) = value.filter(|_| begins) else { continue };
        return match value.as_bytes().first() {
            Some(b'"') => value[1..].split('"').next(),
            Some(b'\'') => value[1..].split('\'').next(),
            _ => value.split(|c: char| c.is_ascii_whitespace()).next(),
        };
    }
    None
}

/// The path that a reference from the site's first page leads to, if it is on the same site.
fn path(reference: &str) -> Option<String> {
    let reference = reference.split('#').next().unwrap_or_default();
    let plain = |c: char| c.is_ascii_graphic() && !"\\\"<>^`{|}".contains(c);
    if reference.is_empty() || !reference.chars().all(plain) || reference.starts_with("//") {
        return None;
    }
    let first = reference.split('/').next().unwrap_or_default();
    // A scheme: of another site, or of none.
    if first.contains(':') {
        return None;
    }
    Some(match reference.strip_prefix('/') {
        Some(_) => reference.to_owned(),
        None => format!("/{}", reference.trim_start_matches("./")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_page_shows_is_fetched_and_what_it_leads_to_is_not() {
        let html = r#"<!doctype html><link rel="icon" href="/favicon.svg">
            <script src=/hours.js defer></script><link rel="stylesheet" href="/style.css"><a href="/books/">Books</a><IMG alt="" data-src="/no.png" src = '/map.svg'>
            <img src="pictures/a.jpg#x"><img src="https://elsewhere.test/b.png"><img src="//elsewhere.test/c.png">
            <img src="data:image/png;base64,AAAA"><img src="/map.svg"><img><img src>"#;
        let paths: Vec<_> = assets(html).into_iter().map(|(_, path)| path).collect();
        assert_eq!(paths, ["/style.css", "/hours.js", "/map.svg", "/pictures/a.jpg"]);
        assert!(assets("").is_empty() && assets("<img src=\"").is_empty());
        assert_eq!(assets(&"<img src=/a>".repeat(99)).len(), 1);
    }

    #[test]
    fn a_reference_that_no_request_could_name_is_left_out() {
        for reference in ["", "#top", "/a b", "/\u{e9}", "/a\r\nx: y", "javascript:alert(1)"] {
            assert_eq!(path(reference), None, "{reference:?}");
        }
        assert_eq!(path("./a?b=c").as_deref(), Some("/a?b=c"));
    }

    #[test]
    fn content_is_unpacked_as_far_as_it_is_known_how() {
        assert_eq!(decode(b"abc", None).as_deref(), Some("abc"));
        assert_eq!(decode(b"abc", Some("zstd")), None);
        assert_eq!(decode(b"\xff\xff\xff\xff\xff\xff", Some("br")), None);
        // "hello" in one uncompressed meta-block (RFC 7932).
        assert_eq!(decode(b"\x0b\x02\x80hello\x03", Some("br")).as_deref(), Some("hello"));
    }
}
