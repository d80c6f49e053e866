use super::super::{Folder, Pages, SELECTING};
use super::*;
use http::{Request, StatusCode};
use http_body_util::BodyExt;

async fn ask(pages: &Pages<Folder>, target: &str, encodings: Option<&str>) -> (StatusCode, Bytes) {
    let mut request = Request::builder().uri(target);
    if let Some(encodings) = encodings {
        request = request.header(header::ACCEPT_ENCODING, encodings);
    }
    let response = pages.answer(request.body(Body::empty()).unwrap()).await;
    let status = response.status();
    (status, response.into_body().collect().await.unwrap().to_bytes())
}

/// Asks until the answer is kept.
async fn ask_until_kept(pages: &Pages<Folder>, target: &str) -> Bytes {
    for _ in 0..1000 {
        let (status, body) = ask(pages, target, None).await;
        assert_eq!(status, StatusCode::OK);
        if pages.kept.find(target, &Variant(None)).is_some() {
            return body;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{target} was never kept");
}

#[tokio::test]
async fn a_change_is_seen_by_the_next_request() {
    let root = tempfile::tempdir().unwrap();
    let page = root.path().join("page.txt");
    let pages = Pages::new(Folder::new(root.path()).unwrap());
    for text in ["one", "two", "six"] {
        fs::write(&page, text).unwrap();
        assert_eq!(ask(&pages, "/page.txt", None).await.1, text);
        assert_eq!(ask_until_kept(&pages, "/page.txt").await, text);
    }
    fs::write(root.path().join("new"), "seven").unwrap();
    fs::rename(root.path().join("new"), &page).unwrap();
    assert_eq!(ask(&pages, "/page.txt", None).await.1, "seven", "another file of that name");
    ask_until_kept(&pages, "/page.txt").await;
    fs::remove_file(&page).unwrap();
    assert_eq!(ask(&pages, "/page.txt", None).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_folder_moved_by_its_link_is_another_site() {
    let root = tempfile::tempdir().unwrap();
    let (link, next) = (root.path().join("now"), root.path().join("next"));
    for version in ["old", "new"] {
        fs::create_dir(root.path().join(version)).unwrap();
        fs::write(root.path().join(version).join("index.html"), version).unwrap();
    }
    std::os::unix::fs::symlink("old", &link).unwrap();
    let pages = Pages::new(Folder::new(&link).unwrap());
    assert_eq!(ask_until_kept(&pages, "/").await, "old");
    std::os::unix::fs::symlink("new", &next).unwrap();
    fs::rename(&next, &link).unwrap();
    assert_eq!(ask(&pages, "/", None).await.1, "new");
}

#[tokio::test]
async fn a_neighbour_that_appears_is_found() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("a.css"), "plain").unwrap();
    let pages = Pages::new(Folder::new(root.path()).unwrap());
    for _ in 0..4 {
        assert_eq!(ask(&pages, "/a.css", Some("gzip")).await.1, "plain");
        tokio::time::sleep(SETTLED).await;
    }
    fs::write(root.path().join("a.css.gz"), "squeezed").unwrap();
    assert_eq!(ask(&pages, "/a.css", Some("gzip")).await.1, "squeezed");
    assert_eq!(ask(&pages, "/a.css", None).await.1, "plain");
}

#[test]
fn only_what_selects_by_encoding_alone_is_kept() {
    let of = |fields: &[(&'static str, &str)]| {
        let pairs = fields.iter().map(|(name, value)| {
            (header::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        });
        let mut asked = HeaderMap::new();
        for (name, value) in pairs {
            asked.append(name, value);
        }
        variant(&asked, &SELECTING)
    };
    assert!(of(&[("user-agent", "x")]).is_some());
    assert_ne!(of(&[("accept-encoding", "br")]), of(&[]));
    assert!(of(&[("accept-encoding", "br"), ("accept-encoding", "gzip")]).is_none());
    assert!(of(&[("accept-encoding", &"x".repeat(NAME + 1))]).is_none());
    for name in ["range", "if-none-match", "if-modified-since", "if-range"] {
        assert!(of(&[(name, "x")]).is_none(), "{name}");
    }
}

#[tokio::test]
async fn what_is_kept_has_bounds() {
    let kept = Kept::default();
    let now = Instant::now();
    let put = |place: &str, variant: Option<&'static str>, length| {
        let body = Bytes::from(vec![0; length]);
        let answer = Some(Answer { made: now, headers: HeaderMap::new(), body });
        let variant = Variant(variant.map(HeaderValue::from_static));
        kept.put(place, Entry { variant, visits: Vec::new(), since: now, answer });
    };
    let size = || {
        let shelf = kept.read();
        let count: usize = shelf.places.values().map(Vec::len).sum();
        (count, shelf.octets)
    };
    put("/", None, 10);
    put("/", None, 7);
    assert_eq!(size(), (1, 7), "a newer answer replaces an older one");
    for variant in ["a", "b", "c", "d", "e"] {
        put("/", Some(variant), 10);
    }
    assert_eq!(size(), (VARIANTS, 40));
    put("/large", None, OCTETS);
    assert_eq!(size(), (1, OCTETS));
    for place in 0..PLACES {
        put(&format!("/{place}"), None, 0);
    }
    assert!(size().0 <= PLACES && size().1 <= OCTETS, "{:?}", size());
}
