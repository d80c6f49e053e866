//! Static sites through the service, as every server in front uses it.

use crate::{Body, Site, SiteConfig, SiteError, Source, alt_svc};
use http::{Method, Request, Response, StatusCode, Version, header};
use http_body_util::BodyExt;
use std::{fs, os::unix::fs::symlink, path::Path};
use tempfile::TempDir;
use tower::ServiceExt;

/// Long enough to be compressed.
const PAGE: &str = "<p>The bath is size of carrageen, and the colours float on it.</p>\n";

fn folder() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(root.path().join(name), text).unwrap();
    fs::create_dir(root.path().join("shop")).unwrap();
    fs::create_dir(root.path().join("empty")).unwrap();
    fs::create_dir(root.path().join(".git")).unwrap();
    fs::create_dir(root.path().join(".well-known")).unwrap();
    write("index.html", &PAGE.repeat(50));
    write("shop/index.html", "shop");
    write("404.html", "lost");
    write("digits.bin", "0123456789");
    write("ready.css", &"a{}".repeat(400));
    write("ready.css.br", "precompressed");
    write(".env", "SECRET=1");
    write(".git/config", "secret");
    write(".well-known/security.txt", "Contact: us");
    root
}

fn site(root: &Path) -> Site {
    let source = Source::Folder { path: root.to_owned() };
    Site::new(&SiteConfig { source, alt_svc: None }).unwrap()
}

fn sample() -> Site {
    Site::new(&SiteConfig { alt_svc: Some(alt_svc(8443)), ..Default::default() }).unwrap()
}

async fn ask(site: &Site, method: &str, target: &str, fields: &[(&str, &str)]) -> Response<Body> {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    site.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

fn field<'a>(response: &'a Response<Body>, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

async fn text(response: Response<Body>) -> String {
    let octets = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8_lossy(&octets).into_owned()
}

#[tokio::test]
async fn a_file_has_a_type_a_length_and_validators() {
    let root = folder();
    let response = ask(&site(root.path()), "GET", "/", &[]).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(field(&response, "content-type"), "text/html; charset=utf-8");
    assert_eq!(field(&response, "content-length"), (PAGE.len() * 50).to_string());
    assert_eq!(field(&response, "accept-ranges"), "bytes");
    assert!(field(&response, "etag").starts_with('"'));
    assert!(field(&response, "last-modified").ends_with(" GMT"));
    assert_eq!(field(&response, "server"), "");
    assert_eq!(text(response).await, PAGE.repeat(50));
}

#[tokio::test]
async fn a_head_is_a_get_without_its_body() {
    let root = folder();
    for site in [site(root.path()), sample()] {
        for (target, fields) in [
            ("/", &[][..]),
            ("/", &[("accept-encoding", "br")]),
            ("/digits.bin", &[("range", "bytes=2-4")]),
            ("/nothing", &[]),
            ("/shop", &[]),
        ] {
            let get = ask(&site, "GET", target, fields).await;
            let head = ask(&site, "HEAD", target, fields).await;
            assert_eq!(get.status(), head.status(), "{target}");
            assert_eq!(get.headers(), head.headers(), "{target}");
            assert_eq!(text(head).await, "");
        }
    }
}

#[tokio::test]
async fn an_unchanged_file_is_not_sent_again() {
    let root = folder();
    let site = site(root.path());
    let first = ask(&site, "GET", "/", &[("accept-encoding", "br")]).await;
    let (tag, date) = (field(&first, "etag"), field(&first, "last-modified"));
    for condition in [("if-none-match", tag), ("if-none-match", "*"), ("if-modified-since", date)] {
        let again = ask(&site, "GET", "/", &[condition]).await;
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{condition:?}");
        assert_eq!(field(&again, "vary"), "accept-encoding");
        assert_eq!(text(again).await, "");
    }
    let both = [("if-none-match", "\"x\""), ("if-modified-since", date)];
    let other = ask(&site, "GET", "/", &both).await;
    assert_eq!(other.status(), StatusCode::OK, "the tag is stronger than the date");
    let lost = ask(&site, "GET", "/", &[("if-match", "\"x\"")]).await;
    assert_eq!(lost.status(), StatusCode::PRECONDITION_FAILED);
}

#[tokio::test]
async fn a_range_is_cut_out_and_one_beyond_the_end_is_refused() {
    let root = folder();
    let site = site(root.path());
    for (range, expected) in [("bytes=2-4", "234"), ("bytes=7-", "789"), ("bytes=-2", "89")] {
        let part = ask(&site, "GET", "/digits.bin", &[("range", range)]).await;
        assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
        assert!(field(&part, "content-range").ends_with("/10"));
        assert_eq!(text(part).await, expected);
    }
    let beyond = ask(&site, "GET", "/digits.bin", &[("range", "bytes=10-")]).await;
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(field(&beyond, "content-range"), "bytes */10");
    for ignored in ["lines=1-2", "bytes=0-1,4-5"] {
        let whole = ask(&site, "GET", "/digits.bin", &[("range", ignored)]).await;
        assert_eq!(whole.status(), StatusCode::OK, "{ignored}");
    }
}

#[tokio::test]
async fn if_range_gives_the_part_of_the_same_file_and_the_whole_of_another() {
    let root = folder();
    let site = site(root.path());
    let whole = ask(&site, "GET", "/digits.bin", &[]).await;
    let (tag, date) = (field(&whole, "etag"), field(&whole, "last-modified"));
    let weak = format!("W/{tag}");
    for (validator, status) in [(tag, 206), (date, 206), (&*weak, 200), ("\"old\"", 200)] {
        let fields = [("range", "bytes=2-4"), ("if-range", validator)];
        let response = ask(&site, "GET", "/digits.bin", &fields).await;
        assert_eq!(response.status(), status, "{validator}");
    }
    let fields = [("range", "bytes=90-"), ("if-range", "\"old\"")];
    assert_eq!(ask(&site, "GET", "/digits.bin", &fields).await.status(), 200);
}

#[tokio::test]
async fn text_is_compressed_on_the_fly_under_a_weak_tag() {
    let root = folder();
    let site = site(root.path());
    for coding in ["br", "gzip"] {
        let response = ask(&site, "GET", "/", &[("accept-encoding", coding)]).await;
        assert_eq!(field(&response, "content-encoding"), coding);
        assert!(field(&response, "vary").contains("accept-encoding"));
        assert!(field(&response, "etag").starts_with("W/\""));
        assert!(text(response).await.len() < PAGE.len() * 10);
    }
    let binary = ask(&site, "GET", "/digits.bin", &[("accept-encoding", "br")]).await;
    assert_eq!(field(&binary, "content-encoding"), "");
}

#[tokio::test]
async fn a_precompressed_neighbour_is_preferred_and_has_a_strong_tag() {
    let root = folder();
    let site = site(root.path());
    let response = ask(&site, "GET", "/ready.css", &[("accept-encoding", "gzip, br")]).await;
    assert_eq!(field(&response, "content-encoding"), "br");
    assert_eq!(field(&response, "content-type"), "text/css; charset=utf-8");
    assert!(field(&response, "etag").starts_with('"'));
    assert_eq!(text(response).await, "precompressed");
    let plain = ask(&site, "GET", "/ready.css", &[]).await;
    assert_eq!(field(&plain, "vary"), "accept-encoding");
    assert_eq!(text(plain).await, "a{}".repeat(400));
}

#[tokio::test]
async fn a_folder_is_its_index_behind_a_slash() {
    let root = folder();
    let site = site(root.path());
    assert_eq!(text(ask(&site, "GET", "/shop/", &[]).await).await, "shop");
    for (asked, location) in [("/shop?a=b", "/shop/?a=b"), ("https://x.test//shop", "/shop/")] {
        let response = ask(&site, "GET", asked, &[]).await;
        assert_eq!(response.status(), StatusCode::MOVED_PERMANENTLY);
        assert_eq!(field(&response, "location"), location);
    }
    assert_eq!(ask(&site, "GET", "/empty/", &[]).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_does_not_exist_is_the_same_to_every_method() {
    let root = folder();
    for site in [site(root.path()), sample()] {
        let reference = ask(&site, "GET", "/nothing", &[]).await;
        let (head, body) = (reference.headers().clone(), text(reference).await);
        let masque = "https://x.test/.well-known/masque/udp/192.0.2.1/443/";
        for (method, target) in [
            ("GET", masque),
            ("POST", "/nothing"),
            ("BREW", "/nothing"),
            ("CONNECT", masque),
            ("CONNECT", "192.0.2.1:443"),
            ("OPTIONS", "*"),
            ("PROPFIND", "/no/where/"),
        ] {
            let response = ask(&site, method, target, &[("authorization", "Bearer x")]).await;
            assert_eq!(response.status(), StatusCode::NOT_FOUND, "{method} {target}");
            assert_eq!(response.headers(), &head, "{method} {target}");
            assert_eq!(text(response).await, body, "{method} {target}");
        }
    }
}

#[tokio::test]
async fn another_method_on_a_file_is_not_allowed() {
    let root = folder();
    for site in [site(root.path()), sample()] {
        for method in ["POST", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"] {
            let response = ask(&site, method, "https://x.test/", &[]).await;
            assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{method}");
            assert_eq!(field(&response, "allow"), "GET, HEAD");
        }
    }
}

#[tokio::test]
async fn nothing_hidden_special_or_outside_is_served() {
    let root = folder();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    symlink(outside.path(), root.path().join("out")).unwrap();
    symlink(outside.path().join("secret"), root.path().join("leak")).unwrap();
    symlink("digits.bin", root.path().join("inside")).unwrap();
    symlink("loop", root.path().join("loop")).unwrap();
    let fifo = std::process::Command::new("mkfifo").arg(root.path().join("fifo")).status();
    assert!(fifo.unwrap().success());
    let site = site(root.path());
    let long = format!("/{}", "a".repeat(5000));
    for target in [
        "/.env",
        "/%2eenv",
        "/.git/config",
        "/out/secret",
        "/leak",
        "/loop",
        "/fifo",
        "/../secret",
        "/%2e%2e/secret",
        "/shop/..%2f..%2fetc/passwd",
        "/%00",
        "/%ff",
        "/digits.bin/",
        "/digits.bin/x",
        "/shop%5c..%5cdigits.bin",
        &long,
    ] {
        let response = ask(&site, "GET", target, &[]).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{target}");
        assert_eq!(text(response).await, "lost", "{target}");
    }
    for (target, expected) in
        [("/inside", "0123456789"), ("/.well-known/security.txt", "Contact: us")]
    {
        assert_eq!(text(ask(&site, "GET", target, &[]).await).await, expected);
    }
}

#[tokio::test]
async fn without_a_404_page_there_is_a_plain_one() {
    let root = tempfile::tempdir().unwrap();
    let response = ask(&site(root.path()), "GET", "/", &[]).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert!(text(response).await.contains("Not Found"));
}

#[tokio::test]
async fn a_missing_folder_is_named() {
    let source = Source::Folder { path: "/no/such/folder".into() };
    let error = Site::new(&SiteConfig { source, alt_svc: None }).err().unwrap();
    assert!(matches!(error, SiteError::Folder { .. }));
    assert!(error.to_string().contains("/no/such/folder"), "{error}");
}

#[tokio::test]
async fn http_3_is_offered_to_those_who_do_not_have_it() {
    for (version, offer) in [
        (Version::HTTP_11, "h3=\":8443\"; ma=86400"),
        (Version::HTTP_2, "h3=\":8443\"; ma=86400"),
        (Version::HTTP_3, ""),
    ] {
        let request = Request::builder().version(version).uri("/nothing").body(Body::empty());
        let response = sample().oneshot(request.unwrap()).await.unwrap();
        assert_eq!(field(&response, "alt-svc"), offer);
    }
}

#[tokio::test]
async fn a_large_file_is_read_as_fast_as_its_reader_and_no_faster() {
    let root = tempfile::tempdir().unwrap();
    let file = fs::File::create(root.path().join("large.bin")).unwrap();
    file.set_len(1 << 30).unwrap();
    let site = site(root.path());
    let end = ask(&site, "GET", "/large.bin", &[("range", "bytes=-70000")]).await;
    assert_eq!(field(&end, "content-range"), "bytes 1073671824-1073741823/1073741824");
    assert_eq!(text(end).await.len(), 70_000);
    let mut body = ask(&site, "GET", "/large.bin", &[]).await.into_body();
    for _ in 0..8 {
        let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(piece.len() <= 64 * 1024, "{}", piece.len());
    }
}

#[tokio::test]
async fn the_body_of_an_unwanted_upload_is_read_away_within_bounds() {
    use bytes::Bytes;
    use futures_util::stream;
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };
    let read = Arc::new(AtomicUsize::new(0));
    let count = read.clone();
    let endless = stream::iter(std::iter::repeat_with(move || {
        count.fetch_add(1024, Ordering::Relaxed);
        Ok::<_, std::io::Error>(Bytes::from_static(&[0; 1024]))
    }));
    let request = Request::builder().method(Method::POST).uri("/nothing");
    let request = request.header(header::HOST, "x.test").body(Body::from_stream(endless)).unwrap();
    let response = sample().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    tokio::task::yield_now().await;
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let read = read.load(Ordering::Relaxed);
    assert!((256 * 1024..300 * 1024).contains(&read), "{read}");
}

#[tokio::test]
async fn every_link_of_the_sample_site_leads_somewhere() {
    let site = sample();
    let (mut todo, mut seen) = (vec!["/".to_owned()], Vec::new());
    while let Some(page) = todo.pop() {
        if seen.contains(&page) {
            continue;
        }
        let response = ask(&site, "GET", &page, &[]).await;
        assert_eq!(response.status(), StatusCode::OK, "{page}");
        assert!(response.headers().contains_key("content-security-policy"));
        assert!(response.headers().contains_key("cache-control"));
        let kind = field(&response, "content-type").to_owned();
        assert!(!kind.contains("octet-stream"), "{page}");
        if kind.starts_with("text/html") {
            let html = text(response).await;
            assert!(!html.to_lowercase().contains("bauta"), "{page}");
            for attribute in ["href=\"", "src=\""] {
                let links = html.split(attribute).skip(1).filter_map(|rest| rest.split('"').next());
                let paths = links.filter_map(|link| link.split('#').next());
                todo.extend(paths.filter(|path| path.starts_with('/')).map(str::to_owned));
            }
        }
        seen.push(page);
    }
    assert!(seen.len() >= 12, "{seen:?}");
}
