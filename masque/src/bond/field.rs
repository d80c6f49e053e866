//! The negotiation: the `Bauta-Bond` header field, a Dictionary (RFC 9651 §3.2) on a CONNECT-IP
//! request and, if the proxy will have it, on the 2xx response.
//!
//! `Bauta-Bond: v=1, ctx=2, rs16, slc, paths=4`. Keys nobody knows are ignored; a field that does
//! not parse, or without a version both ends speak, counts as absent: plain RFC 9484 it is.

use sfv::{BareItem, Dictionary, ListEntry, Parser};

/// The field's name, in lower case as HTTP/2 and HTTP/3 want it.
pub const NAME: &str = "bauta-bond";

/// The version of the extension that this is.
pub const VERSION: i64 = 1;

/// The longest field value that is looked at, bytes.
pub const MAX_LEN: usize = 256;

/// The least rate that can be declared, and the largest (an Integer has 15 digits), bits a second.
pub const MIN_RATE: u64 = 64_000;
const MAX_RATE: u64 = 999_999_999_999_999;

/// The largest Context ID that may be agreed upon, so that it takes one byte.
pub const MAX_CONTEXT: u64 = 63;

/// What one end offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// The Context ID the layer's datagrams shall have; even, as the client allocates it
    /// (RFC 9484 §5).
    pub context: u64,
    /// Block Reed-Solomon repair is understood.
    pub rs16: bool,
    /// Sliding-window repair is understood.
    pub slc: bool,
    /// Paths that may be in use at once.
    pub paths: u8,
    /// The request is made by a further connection, which is to join a bond that exists: a
    /// BOND_JOIN capsule comes first, and no addresses are asked for.
    pub join: bool,
    /// In an answer: how many workers the proxy shares connections among, by the first four bytes
    /// of their destination connection ids, modulo this; 0: it does not say.
    pub workers: u16,
    /// What neither end is to exceed in sending, repair included, bits a second: what the client
    /// asks for, and in an answer what holds. Below [`MIN_RATE`] it is taken for that.
    pub rate: Option<u64>,
}

impl Default for Offer {
    fn default() -> Self {
        Self { context: 2, rs16: true, slc: true, paths: 4, join: false, workers: 0, rate: None }
    }
}

/// What both ends understand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// The Context ID of the layer's datagrams, in both directions.
    pub context: u64,
    /// Block Reed-Solomon repair may be sent.
    pub rs16: bool,
    /// Sliding-window repair may be sent.
    pub slc: bool,
    /// Paths that may be in use at once.
    pub paths: u8,
    /// What neither end is to exceed in sending, bits a second.
    pub rate: Option<u64>,
}

impl Offer {
    /// The field's value.
    pub fn serialize(&self) -> String {
        let mut out = format!("v={VERSION}, ctx={}, paths={}", self.context, self.paths);
        for (name, there) in [("rs16", self.rs16), ("slc", self.slc), ("join", self.join)] {
            if there {
                out.push_str(", ");
                out.push_str(name);
            }
        }
        if self.workers > 0 {
            out.push_str(&format!(", workers={}", self.workers));
        }
        if let Some(rate) = self.rate {
            out.push_str(&format!(", rate={}", rate.min(MAX_RATE)));
        }
        out
    }

    /// Reads a field's value; `None` if it is not one this end can deal with.
    pub fn parse(value: &[u8]) -> Option<Self> {
        if value.len() > MAX_LEN {
            return None;
        }
        let fields: Dictionary = Parser::new(value).parse().ok()?;
        if integer(&fields, "v")? != VERSION {
            return None;
        }
        let context = u64::try_from(integer(&fields, "ctx")?).ok()?;
        if context == 0 || context > MAX_CONTEXT || !context.is_multiple_of(2) {
            return None;
        }
        let paths = integer(&fields, "paths").unwrap_or(1).clamp(1, super::MAX_PATHS as i64) as u8;
        let flag = |name| matches!(item(&fields, name), Some(BareItem::Boolean(true)));
        let workers = integer(&fields, "workers").and_then(|n| n.try_into().ok()).unwrap_or(0);
        let (rs16, slc, join) = (flag("rs16"), flag("slc"), flag("join"));
        let rate = integer(&fields, "rate").map(|n| (n.max(0) as u64).max(MIN_RATE));
        Some(Self { context, rs16, slc, paths, join, workers, rate })
    }

    /// What a proxy that offers `self` answers to a client's offer: the context is the client's,
    /// the rest what both have, the rate the lower one.
    pub fn answer(&self, client: &Self) -> Self {
        Self {
            context: client.context,
            rs16: self.rs16 && client.rs16,
            slc: self.slc && client.slc,
            paths: self.paths.min(client.paths),
            join: client.join,
            workers: self.workers,
            rate: least(self.rate, client.rate),
        }
    }

    /// What a client that offered `self` has agreed upon by the proxy's answer; `None` if the answer
    /// says something that was not offered.
    pub fn agree(&self, answer: &Self) -> Option<Agreed> {
        let fits = answer.context == self.context
            && answer.join == self.join
            && answer.paths <= self.paths
            && (self.rs16 || !answer.rs16)
            && (self.slc || !answer.slc);
        fits.then(|| Agreed { rate: least(self.rate, answer.rate), ..answer.agreed() })
    }

    /// An answer as what was agreed upon.
    pub const fn agreed(&self) -> Agreed {
        let Self { context, rs16, slc, paths, rate, .. } = *self;
        Agreed { context, rs16, slc, paths, rate }
    }
}

fn least(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    a.into_iter().chain(b).min()
}

fn item<'a>(fields: &'a Dictionary, name: &str) -> Option<&'a BareItem> {
    match fields.get(name)? {
        ListEntry::Item(item) => Some(&item.bare_item),
        ListEntry::InnerList(_) => None,
    }
}

fn integer(fields: &Dictionary, name: &str) -> Option<i64> {
    match item(fields, name)? {
        BareItem::Integer(n) => Some((*n).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_reads_as_it_was_written() {
        let offer = Offer { context: 4, slc: false, join: true, ..Offer::default() };
        assert_eq!(Offer::parse(offer.serialize().as_bytes()), Some(offer));
        assert_eq!(offer.serialize(), "v=1, ctx=4, paths=4, rs16, join");
    }

    #[test]
    fn what_is_unknown_is_ignored_and_what_is_wrong_is_no_offer() {
        let answer = Offer { workers: 6, ..Offer::default() };
        assert_eq!(Offer::parse(answer.serialize().as_bytes()), Some(answer));
        let known = Offer::parse(b"v=1;x, zzz=(a b), ctx=2, slc;y=3, rs16=?0").unwrap();
        assert_eq!((known.slc, known.rs16, known.paths, known.join), (true, false, 1, false));
        for bad in [
            "",
            "v=2, ctx=2",
            "v=1",
            "v=1, ctx=0",
            "v=1, ctx=3",
            "v=1, ctx=64",
            "v=a, ctx=2",
            "v=1,,",
        ] {
            assert_eq!(Offer::parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(Offer::parse(&[b' '; MAX_LEN + 1]), None);
        assert_eq!(Offer::parse(&[0xff]), None);
    }

    #[test]
    fn the_lower_rate_holds_at_both_ends() {
        let client = Offer { rate: Some(50_000_000), ..Offer::default() };
        assert!(client.serialize().ends_with(", rate=50000000"));
        for (own, holds) in [(None, 50), (Some(20_000_000), 20), (Some(80_000_000), 50)] {
            let asked = Offer::parse(client.serialize().as_bytes()).unwrap();
            let answer = Offer { rate: own, ..Offer::default() }.answer(&asked);
            assert_eq!(answer.agreed().rate, Some(holds * 1_000_000));
            assert_eq!(client.agree(&answer).unwrap().rate, Some(holds * 1_000_000));
        }
        // A proxy that does not know the key binds the client all the same.
        assert_eq!(client.agree(&Offer::default()).unwrap().rate, client.rate);
        let low = Offer::parse(b"v=1, ctx=2, rate=-5").unwrap();
        assert_eq!(low.rate, Some(MIN_RATE));
    }

    #[test]
    fn both_ends_agree_on_what_both_have() {
        let client = Offer { rs16: false, paths: 8, ..Offer::default() };
        let answer = Offer::default().answer(&client);
        let agreed = client.agree(&answer).unwrap();
        let rate = None;
        assert_eq!(agreed, Agreed { context: 2, rs16: false, slc: true, paths: 4, rate });
        assert_eq!(client.agree(&Offer { rs16: true, ..answer }), None);
        assert_eq!(client.agree(&Offer { context: 4, ..answer }), None);
    }
}
