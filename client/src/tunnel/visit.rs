//! A visit to the gateway's own website, before a tunnel is asked for on the same connection: what somebody on
//! the wire sees first is a page and what belongs to it, as a browser fetches them.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use bauta_masque::{datagram::H3_REQUEST_CANCELLED, shape::visit as shape};
use bauta_masque_io::{Connection, Event, cid, clock};

use super::session::{Session, Step};
use super::sessions::Sessions;
use crate::{
    config::Settings,
    headers,
    page::{self, Kind},
};

/// How long a visit may take: a site that is slower does not hold the tunnel up any longer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes that a visit may bring in; a page with more is not fetched to its end.
const MOST: usize = 512 * 1024;

/// How long somebody stays on the site where all traffic is given a shape.
const STAY: Duration = Duration::from_secs(30);
/// How long a page is read, milliseconds.
const READING: RangeInclusive<u64> = 500..=2500;
/// How long a browser takes from what it has read to what it asks for next, milliseconds.
const THOUGHT: RangeInclusive<u64> = 5..=20;
/// A tunnel that has sent more packets than so many since the last page needs no cover.
const BUSY: usize = 24;

/// A visit under way.
#[derive(Debug)]
pub(super) struct Visit {
    authority: String,
    /// What is asked for next, and when.
    wanted: VecDeque<(Option<Kind>, String)>,
    next: Instant,
    /// The page, until it is there whole.
    page: Option<Page>,
    /// Streams whose answers have not ended.
    open: Vec<u64>,
    taken: usize,
    until: Instant,
}

#[derive(Debug, Default)]
struct Page {
    encoding: Option<String>,
    content: Vec<u8>,
}

impl Visit {
    /// To the site's first page and all it is made of.
    pub(super) fn new(settings: &Settings, now: Instant) -> Visit {
        Visit { page: Some(Page::default()), ..Visit::again(headers::site(settings), now) }
    }

    /// To the page alone: the rest is in a browser's cache.
    fn again(authority: String, now: Instant) -> Visit {
        let wanted = VecDeque::from([(None, "/".to_owned())]);
        let (next, until) = (now + draw(THOUGHT), now + PATIENCE);
        Visit { authority, wanted, next, page: None, open: Vec::new(), taken: 0, until }
    }

    /// Asks for what is to be asked for now: all of one kind. Returns whether something was.
    pub(super) fn go_on(&mut self, conn: &mut Connection, now: Instant) -> bool {
        let due = now >= self.next;
        let Some(&(kind, _)) = self.wanted.front().filter(|_| due) else { return false };
        let bytes = match kind {
            None => shape::PAGE,
            Some(Kind::Style) => shape::STYLE,
            Some(Kind::Script) => shape::SCRIPT,
            Some(Kind::Picture) => shape::PICTURE,
        };
        while self.wanted.front().is_some_and(|(next, _)| *next == kind)
            && let Some((_, path)) = self.wanted.pop_front()
        {
            let asked = conn.request_of(&headers::page(&self.authority, &path), true, &bytes);
            self.open.extend(asked);
        }
        self.next = now + draw(THOUGHT);
        true
    }

    /// When it is to be looked at.
    pub(super) fn timeout(&self) -> Instant {
        if self.wanted.is_empty() { self.until } else { self.until.min(self.next) }
    }

    /// Whether all has come, or enough.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        (self.open.is_empty() && self.wanted.is_empty()) || now >= self.until
    }

    /// Leaves, whatever is still on its way.
    pub(super) fn end(mut self, conn: &mut Connection) {
        self.leave(conn);
    }

    /// Something has happened on `stream`.
    fn handle(&mut self, conn: &mut Connection, event: &Event, chunk: &mut [u8]) {
        match event {
            Event::Headers { headers, .. } => {
                let encoding = headers::field(headers, "content-encoding").map(str::to_owned);
                if let Some(page) = &mut self.page {
                    page.encoding = encoding;
                }
            }
            Event::Data { stream } => loop {
                let n = conn.recv_body(*stream, chunk);
                if n == 0 {
                    return;
                }
                self.taken += n;
                if let Some(page) = &mut self.page {
                    page.content.extend_from_slice(&chunk[..n]);
                }
                if self.taken > MOST {
                    return self.leave(conn);
                }
            },
            Event::Finished { stream } => {
                self.open.retain(|open| open != stream);
                if let Some(Page { encoding, content }) = self.page.take() {
                    let html = page::decode(&content, encoding.as_deref()).unwrap_or_default();
                    let assets = page::assets(&html).into_iter();
                    self.wanted.extend(assets.map(|(kind, path)| (Some(kind), path)));
                    self.next = clock::now() + draw(THOUGHT);
                }
            }
            Event::Reset { stream, .. } => self.open.retain(|open| open != stream),
            _ => {}
        }
    }

    fn leave(&mut self, conn: &mut Connection) {
        self.wanted.clear();
        for stream in self.open.drain(..) {
            conn.stop(stream, H3_REQUEST_CANCELLED);
        }
    }
}

/// What goes on while a tunnel has nothing to carry: a page now and then.
#[derive(Debug)]
pub(super) struct Stay {
    authority: String,
    pub(super) next: Instant,
    until: Instant,
    sent: usize,
}

impl Stay {
    pub(super) fn begin(settings: &Settings, now: Instant) -> Stay {
        let authority = headers::site(settings);
        Stay { authority, next: now + draw(READING), until: now + STAY, sent: 0 }
    }
}

/// A time within `range` of milliseconds.
fn draw(range: RangeInclusive<u64>) -> Duration {
    let mut seed = [0; 8];
    cid::random(&mut seed);
    let span = range.end() - range.start() + 1;
    Duration::from_millis(range.start() + u64::from_le_bytes(seed) % span)
}

impl Session {
    /// Goes on looking at pages beside the tunnel. Returns whether there is something to send.
    pub(super) fn look_on(&mut self, conn: &mut Connection, now: Instant) -> bool {
        if self.step < Step::Ready {
            return false;
        }
        if let Some(visit) = self.visit.as_mut().filter(|visit| !visit.is_over(now)) {
            return visit.go_on(conn, now);
        }
        if let Some(visit) = self.visit.take() {
            visit.end(conn);
        }
        let Some(stay) = self.stay.as_mut().filter(|stay| now >= stay.next) else { return false };
        stay.next = now + draw(READING);
        let sent = conn.stats().sent;
        let busy = sent.saturating_sub(stay.sent) > BUSY;
        stay.sent = sent;
        if !busy {
            self.visit = Some(Visit::again(stay.authority.clone(), now));
        }
        if now >= stay.until || self.retired.is_some() {
            self.stay = None;
        }
        false
    }
}

impl Sessions {
    /// Whether `event` was about a visit.
    pub(super) fn visited(&mut self, conn: &mut Connection, event: &Event) -> bool {
        let stream = match event {
            Event::Headers { stream, .. }
            | Event::Data { stream }
            | Event::Finished { stream }
            | Event::Reset { stream, .. } => *stream,
            _ => return false,
        };
        let session = self.list.iter_mut().find(|s| s.conn == conn.id());
        let visit = session.and_then(|s| s.visit.as_mut());
        let Some(visit) = visit.filter(|visit| visit.open.contains(&stream)) else { return false };
        visit.handle(conn, event, &mut self.chunk);
        true
    }
}
