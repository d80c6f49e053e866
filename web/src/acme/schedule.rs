//! When to ask for a certificate: pure, in seconds since 1970.
//!
//! Whatever happens outside, a plan stays below what public authorities allow an account: Let's
//! Encrypt, the strictest known, refuses the sixth failed validation of a name within an hour and
//! the sixth certificate for the same names within a week.

use serde::{Deserialize, Serialize};

/// Orders in any hour, failed or not.
pub const ORDERS_AN_HOUR: usize = 4;

/// Certificates for the same names in any week, where they live longer than [`SHORT`].
pub const CERTIFICATES_A_WEEK: usize = 4;

/// Certificates of at most this life, in seconds, are made to be fetched daily.
pub const SHORT: u64 = 2 * 86_400;

const HOUR: u64 = 3600;
const WEEK: u64 = 7 * 86_400;

/// The wait after a first failure; each further one doubles it.
const FIRST_WAIT: u64 = 300;

/// The longest wait while there is no certificate that is valid.
const LONGEST_WITHOUT: u64 = 2 * HOUR;

/// The longest wait while there is one; shorter for short-lived ones.
const LONGEST_WITH: u64 = 12 * HOUR;

/// The wait after the authority said that it was asked too often, if it named none.
const RATE_LIMITED: u64 = 3 * HOUR;

/// From when until when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validity {
    /// The first second.
    pub from: u64,
    /// The last.
    pub until: u64,
}

impl Validity {
    fn life(self) -> u64 {
        self.until.saturating_sub(self.from)
    }
}

/// What was done so far; kept on disk, so that restarting does not ask more often.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// When orders were begun, oldest first; the last [`ORDERS_AN_HOUR`] of them.
    pub orders: Vec<u64>,
    /// When certificates came of them; the last [`CERTIFICATES_A_WEEK`].
    pub issued: Vec<u64>,
    /// Failures since the last certificate.
    pub failures: u32,
    /// Why the last one failed.
    pub error: Option<String>,
    /// Not before this, says the authority.
    pub not_before: u64,
    /// What the jitter is drawn from; new after each order.
    pub seed: u64,
}

impl History {
    /// An order begins.
    pub fn begin(&mut self, now: u64) {
        push(&mut self.orders, now, ORDERS_AN_HOUR);
    }

    /// It brought a certificate.
    pub fn succeeded(&mut self, now: u64, seed: u64) {
        push(&mut self.issued, now, CERTIFICATES_A_WEEK);
        *self = Self {
            orders: std::mem::take(&mut self.orders),
            issued: std::mem::take(&mut self.issued),
            seed,
            ..Self::default()
        };
    }

    /// It did not. `rate_limited`: because the authority is asked too often.
    pub fn failed(&mut self, now: u64, error: String, rate_limited: bool, seed: u64) {
        self.failures = self.failures.saturating_add(1);
        self.error = Some(error);
        self.seed = seed;
        if rate_limited {
            self.not_before = now + RATE_LIMITED;
        }
    }
}

fn push(list: &mut Vec<u64>, value: u64, keep: usize) {
    list.push(value);
    let excess = list.len().saturating_sub(keep);
    list.drain(..excess);
}

/// What the time of the next order follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// There is no certificate for these names.
    None,
    /// The one there is nears its end.
    Renewal,
    /// The authority suggests the time (ARI, RFC 9773).
    Suggested,
    /// The last order failed.
    Failed,
    /// The authority said it was asked too often.
    RateLimited,
    /// Our own bounds on orders an hour and certificates a week.
    Bounds,
}

/// The next order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// When.
    pub at: u64,
    /// Why then.
    pub why: Why,
}

/// What a plan is made from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given {
    /// The certificate there is.
    pub validity: Option<Validity>,
    /// Seconds before its end to renew it; by default a third of its life.
    pub renew_before: Option<u64>,
    /// The time the authority suggests.
    pub suggested: Option<Validity>,
    /// Somebody mended something and asks to try at once: failures do not delay, bounds do.
    pub impatient: bool,
}

/// When the next order is due.
pub fn plan(given: &Given, history: &History, now: u64) -> Plan {
    let mut plan = wish(given, history.seed);
    let mut later = |at: u64, why: Why| {
        if at > plan.at {
            plan = Plan { at, why };
        }
    };
    let last = history.orders.last().copied().unwrap_or(0);
    if history.failures > 0 && !given.impatient {
        later(last + wait(given.validity, history, now), Why::Failed);
    }
    later(history.not_before, Why::RateLimited);
    let full = |list: &[u64], most: usize, span: u64| {
        let first = list.len().checked_sub(most)?;
        list.get(first).map(|at| at + span)
    };
    later(full(&history.orders, ORDERS_AN_HOUR, HOUR).unwrap_or(0), Why::Bounds);
    if given.validity.is_none_or(|validity| validity.life() > SHORT) {
        later(full(&history.issued, CERTIFICATES_A_WEEK, WEEK).unwrap_or(0), Why::Bounds);
    }
    plan
}

/// The time that nothing yet speaks against.
fn wish(given: &Given, seed: u64) -> Plan {
    let Some(validity) = given.validity else { return Plan { at: 0, why: Why::None } };
    if let Some(window) = given.suggested {
        // Uniform within the window (RFC 9773 section 4.2).
        return Plan { at: window.from + share(window.life(), seed), why: Why::Suggested };
    }
    let life = validity.life();
    let before = given.renew_before.unwrap_or(life / 3).min(life);
    // Many gateways set up at the same hour do not come back at the same hour.
    let jitter = share((life / 20).min(before / 4).min((life - before) / 2), seed);
    Plan { at: validity.until.saturating_sub(before).saturating_add(jitter), why: Why::Renewal }
}

/// The wait after the failures there were.
fn wait(validity: Option<Validity>, history: &History, now: u64) -> u64 {
    let valid = validity.filter(|validity| validity.until > now);
    let longest = valid
        .map_or(LONGEST_WITHOUT, |validity| (validity.life() / 24).clamp(FIRST_WAIT, LONGEST_WITH));
    let wait = FIRST_WAIT << (history.failures - 1).min(16);
    let wait = wait.min(longest);
    wait + share(wait / 4, history.seed)
}

/// Between 0 and `span`, as the seed has it.
fn share(span: u64, seed: u64) -> u64 {
    // The upper bits of a product: uniform without a division.
    ((u128::from(span) * u128::from(seed)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;
    const START: u64 = 1_800_000_000;

    fn valid(from: u64, life: u64) -> Option<Validity> {
        Some(Validity { from, until: from + life })
    }

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_life_with_jitter() {
        for (life, earliest, latest) in [
            (90 * DAY, 60 * DAY, 65 * DAY),
            (12 * HOUR, 8 * HOUR, 9 * HOUR),
            (6 * DAY, 4 * DAY, 5 * DAY),
        ] {
            for seed in [0, 1 << 40, u64::MAX / 2, u64::MAX] {
                let given = Given { validity: valid(START, life), ..Given::default() };
                let plan = plan(&given, &History { seed, ..History::default() }, START);
                assert_eq!(plan.why, Why::Renewal);
                let at = plan.at - START;
                assert!((earliest..latest).contains(&at), "{life}: {at}");
            }
        }
    }

    #[test]
    fn a_suggested_window_decides() {
        let validity = valid(START, 90 * DAY);
        let suggested = valid(START + 10, 100);
        let given = Given { validity, suggested, ..Given::default() };
        for (seed, at) in [(0, 10), (u64::MAX, 109), (1 << 63, 60)] {
            let plan = plan(&given, &History { seed, ..History::default() }, START);
            assert_eq!(plan, Plan { at: START + at, why: Why::Suggested });
        }
    }

    /// Everything fails, for a month, whatever the jitter: no hour sees more than four orders.
    #[test]
    fn endless_failures_stay_below_the_limits() {
        for seed in [0, 1 << 62, u64::MAX] {
            let mut history = History { seed, ..History::default() };
            let (mut now, mut orders) = (START, Vec::new());
            while now < START + 30 * DAY {
                let plan = plan(&Given::default(), &history, now);
                now = now.max(plan.at);
                history.begin(now);
                orders.push(now);
                history.failed(now + 5, "no".into(), false, seed.rotate_left(orders.len() as u32));
                now += 5;
            }
            assert!(orders.windows(5).all(|w| w[4] - w[0] >= HOUR));
            assert!(orders.windows(2).all(|w| w[1] - w[0] <= LONGEST_WITHOUT * 5 / 4));
        }
    }

    /// Somebody sends SIGHUP all day: four orders an hour at most, all the same.
    #[test]
    fn impatience_does_not_break_the_bounds() {
        let given = Given { impatient: true, ..Given::default() };
        let mut history = History::default();
        let (mut now, mut orders) = (START, Vec::new());
        while now < START + DAY {
            now = now.max(plan(&given, &history, now).at);
            history.begin(now);
            orders.push(now);
            history.failed(now, "no".into(), false, 7);
            now += 1;
        }
        assert!(orders.len() > 90);
        assert!(orders.windows(5).all(|w| w[4] - w[0] >= HOUR));
    }

    /// A setting that asks for renewal at once, for ever.
    #[test]
    fn eager_renewal_stays_below_the_certificates_a_week() {
        for life in [90 * DAY, 12 * HOUR] {
            let mut history = History::default();
            let (mut now, mut issued) = (START, Vec::new());
            let mut validity = None;
            while now < START + 30 * DAY {
                let given = Given { validity, renew_before: Some(life), ..Given::default() };
                now = now.max(plan(&given, &history, now).at);
                history.begin(now);
                history.succeeded(now, 0);
                validity = valid(now, life);
                issued.push(now);
                now += 1;
            }
            let span = if life > SHORT { WEEK } else { HOUR };
            assert!(issued.len() > 5, "{} in 30 days", issued.len());
            assert!(issued.windows(5).all(|w| w[4] - w[0] >= span));
        }
    }

    #[test]
    fn an_authority_that_is_asked_too_often_is_left_alone() {
        let mut history = History::default();
        history.begin(START);
        history.failed(START, "rateLimited".into(), true, 0);
        let given = Given { impatient: true, ..Given::default() };
        let plan = plan(&given, &history, START + 1);
        assert_eq!(plan, Plan { at: START + 3 * HOUR, why: Why::RateLimited });
        history.succeeded(START + 3 * HOUR, 1);
        assert_eq!((history.failures, history.not_before, history.error), (0, 0, None));
    }

    #[test]
    fn a_failed_renewal_of_a_short_lived_certificate_is_repeated_in_time() {
        let validity = valid(START, 12 * HOUR);
        let given = Given { validity, ..Given::default() };
        let mut history = History::default();
        let (mut now, mut orders) = (START, 0);
        while now < START + 12 * HOUR {
            now = now.max(plan(&given, &history, now).at);
            history.begin(now);
            history.failed(now, "no".into(), false, u64::MAX);
            orders += 1;
        }
        assert!(orders >= 7, "{orders} orders in the last four hours");
    }
}
