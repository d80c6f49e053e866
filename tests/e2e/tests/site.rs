//! What a stranger sees: a website. Needs root for the namespaces.

use std::fs;

use anyhow::{Context, Result, ensure};
use bauta_e2e::{Client, Gateway, Setting, play};

/// curl to the site, its authority trusted.
fn get(client: &Client, gateway: &Gateway, words: &[&str]) -> Result<String> {
    let ca = gateway.authority.file().to_string_lossy().into_owned();
    let mut line = vec!["--cacert", &ca];
    line.extend(words);
    client.curl(&line)
}

/// An answer without what changes from one second to the next.
fn timeless(answer: &str) -> String {
    answer
        .lines()
        .filter(|line| !line.to_lowercase().starts_with("date:"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn the_site_is_the_same_over_every_version_of_http() {
    play(Setting::default(), |scene| {
        let (client, gateway, _) = scene.cast();
        let mut bodies = Vec::new();
        for (words, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
            let with = [
                words,
                "-o",
                "/dev/null",
                "-w",
                "%{http_version} %{http_code}",
                "https://site.test/",
            ];
            let seen = get(client, gateway, &with)?;
            ensure!(seen == format!("{version} 200"), "{words}: {seen}");
            bodies.push(get(client, gateway, &[words, "https://site.test/"])?);
        }
        let folder = client.ns.folder().join("h3");
        fs::create_dir_all(&folder)?;
        let save = format!("--download={}", folder.display());
        for host in ["198.51.100.1", "2001:db8:1::1"] {
            let words = [
                "-q",
                "--exit-on-all-streams-close",
                "--timeout=10s",
                "--sni=site.test",
                &save,
                host,
                "443",
                "https://site.test/index.html",
            ];
            client.ns.run("gtlsclient", &words)?;
            let file = fs::read_dir(&folder)?.next().context("nothing over HTTP/3")??.path();
            bodies.push(fs::read_to_string(&file)?);
            fs::remove_file(file)?;
        }
        ensure!(bodies[0].contains("</html>") && bodies[0].len() > 1000, "{}", bodies[0]);
        ensure!(bodies.iter().all(|body| *body == bodies[0]), "the bodies differ");
        let requests = |http| gateway.metric(&format!("bauta_requests_total{{http=\"{http}\"}}"));
        ensure!(requests("1.1")? == 2 && requests("2")? == 2 && requests("3")? == 2, "miscounted");
        Ok(())
    });
}

#[test]
fn alt_svc_leads_from_tcp_to_quic() {
    play(Setting::default(), |scene| {
        let (client, gateway, _) = scene.cast();
        for words in ["--http1.1", "--http2"] {
            let head = get(client, gateway, &[words, "-I", "https://site.test/"])?.to_lowercase();
            ensure!(head.contains("alt-svc: h3=\":443\""), "{words}: {head}");
        }
        Ok(())
    });
}

#[test]
fn port_80_leads_to_https() {
    play(Setting::default().gateway("http = \"[::]:80\""), |scene| {
        let (client, gateway, _) = scene.cast();
        let seen = get(
            client,
            gateway,
            &["-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", "http://site.test/a?b"],
        )?;
        ensure!(seen == "308 https://site.test/a?b", "{seen}");
        let seen = get(
            client,
            gateway,
            &["-L", "-o", "/dev/null", "-w", "%{http_code}", "http://site.test/"],
        )?;
        ensure!(seen == "200", "{seen}");
        Ok(())
    });
}

#[test]
fn a_wrong_token_is_answered_like_no_token_and_like_a_page_that_does_not_exist() {
    play(Setting::default(), |scene| {
        let (client, gateway, _) = scene.cast();
        let paths = ["/.well-known/masque/udp/203.0.113.2/7/", "/.well-known/masque/ip/*/*/"];
        for version in ["--http1.1", "--http2"] {
            let unknown = timeless(&get(
                client,
                gateway,
                &[version, "-i", "https://site.test/no-such-page/"],
            )?);
            ensure!(unknown.contains(" 404"), "{unknown}");
            for path in paths {
                let url = format!("https://site.test{path}");
                for header in
                    ["x-nothing: 1", "authorization: Bearer wrong", "authorization: Basic eDp5"]
                {
                    let answer = timeless(&get(
                        client,
                        gateway,
                        &[version, "-g", "-i", "-H", header, &url],
                    )?);
                    ensure!(
                        answer == unknown,
                        "{path} with {header}:\n{answer}\ninstead of\n{unknown}"
                    );
                }
            }
        }
        Ok(())
    });
}

#[test]
fn a_connect_without_the_right_token_is_answered_like_one_with_a_wrong_one() {
    play(Setting::default(), |scene| {
        let (client, gateway, _) = scene.cast();
        let ca = gateway.authority.file().display();
        let ask = |header: &str| -> Result<String> {
            let line = format!(
                "(printf 'CONNECT 203.0.113.2:80 HTTP/1.1\\r\\nHost: 203.0.113.2:80\\r\\n{header}\\r\\n'; sleep 1) | \
                 timeout 5 openssl s_client -quiet -verify_quiet -CAfile {ca} -servername site.test \
                 -connect site.test:443 2>/dev/null || true"
            );
            Ok(timeless(&client.ns.shell(&line)?))
        };
        let (none, wrong) = (ask("")?, ask("Proxy-Authorization: Bearer wrong\\r\\n")?);
        ensure!(none.starts_with("HTTP/1.1 4") && !none.contains("407"), "{none}");
        ensure!(!none.to_lowercase().contains("proxy-"), "{none}");
        ensure!(none == wrong, "{none}\nand\n{wrong}");
        Ok(())
    });
}
