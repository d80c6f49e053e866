//! `bauta-gateway status`: what a running gateway says of its certificate.
#![expect(clippy::print_stdout, reason = "this is a command's output")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use bauta_masque_io::clock;
use serde::Deserialize;

use crate::config::Config;

/// Time for the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The fields of `/certificate` that are shown.
#[derive(Deserialize)]
struct Shown {
    source: String,
    from: String,
    names: Vec<String>,
    valid_until: Option<u64>,
    next: Option<u64>,
    why: Option<String>,
    ordering: bool,
    error: Option<String>,
}

pub(super) fn run(config: &Config) -> Result<()> {
    let Some(addr) = config.admin.listen else {
        bail!("[admin] listen is \"\", so that a running gateway cannot be asked")
    };
    let text = ask(addr)
        .with_context(|| format!("asking {addr} ([admin] listen); does the gateway run?"))?;
    let shown: Shown = serde_json::from_str(&text).context("reading the answer")?;
    print!("{}", describe(&shown, clock::unix_time()));
    Ok(())
}

fn ask(addr: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /certificate HTTP/1.1\r\nhost: {addr}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    body.context("no HTTP answer")
}

fn describe(shown: &Shown, now: SystemTime) -> String {
    let mut text = match shown.valid_until {
        Some(until) => {
            format!(
                "certificate   for {}\nends          {}\n",
                shown.names.join(", "),
                when(until, now)
            )
        }
        None => "certificate   none yet: TCP port 80 answers, port 443 waits\n".into(),
    };
    text += &format!("from          {} ({})\n", shown.from, shown.source);
    let why = match shown.why.as_deref() {
        Some("none") => "there is none for these names",
        Some("renewal") => "it nears its end",
        Some("suggested") => "the authority suggests the time",
        Some("failed") => "the last order failed",
        Some("rate-limited") => "the authority was asked too often",
        Some("bounds") => "our own bounds on orders keep below its limits",
        _ => "",
    };
    match shown.next {
        _ if shown.ordering => text += "next order    on its way\n",
        Some(next) => text += &format!("next order    {}: {why}\n", when(next, now)),
        None => {}
    }
    if let Some(error) = &shown.error {
        text += &format!("last failure  {error}\n");
    }
    text
}

/// `in 2 d 3 h, Sun, 06 Nov 1994 08:49:37 GMT`.
fn when(at: u64, now: SystemTime) -> String {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let date = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(at));
    let gap = at.abs_diff(now);
    let gap = match gap {
        0..60 => format!("{gap} s"),
        60..3600 => format!("{} min", gap / 60),
        3600..172_800 => format!("{} h {} min", gap / 3600, gap % 3600 / 60),
        _ => format!("{} d {} h", gap / 86_400, gap % 86_400 / 3600),
    };
    if at >= now { format!("in {gap}, {date}") } else { format!("{gap} ago, {date}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_and_why_are_told() {
        let shown = Shown {
            source: "rustls-acme".into(),
            from: "https://ca.test/dir".into(),
            names: vec!["a.org".into(), "b.org".into()],
            valid_until: Some(1_000_000 + 90 * 86_400),
            next: Some(1_000_000 + 300),
            why: Some("failed".into()),
            ordering: false,
            error: Some("no route to 192.0.2.1".into()),
        };
        let text = describe(&shown, SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
        for part in ["a.org, b.org", "in 90 d 0 h", "in 5 min", "the last order failed", "no route"]
        {
            assert!(text.contains(part), "{part} is missing from\n{text}");
        }
        let none = Shown { valid_until: None, ordering: true, error: None, ..shown };
        let text = describe(&none, SystemTime::UNIX_EPOCH);
        assert!(text.contains("none yet") && text.contains("on its way"), "{text}");
    }
}
