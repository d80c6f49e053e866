// Firefox, whose own CONNECT-UDP client loads an origin through the gateway: h3 inside CONNECT-UDP inside h3.
// The first load goes by classic CONNECT over h3 to the origin's TCP port; its Alt-Svc then moves Firefox to QUIC.
//
//   node firefox.mjs --url https://origin.test/ --proxy site.test[:443] --token T --ca ca.pem --out DIR
import { copyFileSync, cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parse, Report, require, sleep } from './lib.mjs';

const puppeteer = require('puppeteer-core').default ?? require('puppeteer-core');
const args = parse(['url', 'proxy', 'token', 'ca', 'out']);
const report = new Report(args.out);
const [proxyHost, proxyPort = '443'] = args.proxy.split(':');
const home = mkdtempSync(join(tmpdir(), 'bauta-interop-firefox-'));

/** A copy of Debian's Firefox that reads our mozilla.cfg: links, but for what must lie beside the program itself. */
function install() {
  const from = '/usr/lib/firefox-esr';
  const to = join(home, 'firefox');
  mkdirSync(to);
  for (const name of readdirSync(from)) {
    if (name === 'distribution' || name === 'firefox-bin') continue;
    if (name === 'firefox-esr') copyFileSync(join(from, name), join(to, name));
    else if (name === 'defaults') cpSync(join(from, name), join(to, name), { recursive: true });
    else symlinkSync(join(from, name), join(to, name));
  }
  mkdirSync(join(to, 'defaults', 'pref'), { recursive: true });
  writeFileSync(join(to, 'defaults', 'pref', 'autoconfig.js'), [
    '// the first line is ignored',
    'pref("general.config.filename", "mozilla.cfg");',
    'pref("general.config.obscure_value", 0);',
    'pref("general.config.sandbox_enabled", false);',
    '',
  ].join('\n'));
  writeFileSync(join(to, 'mozilla.cfg'), configuration());
  return join(to, 'firefox-esr');
}

/** Trusts the throw-away CA and sends every page through the gateway. */
function configuration() {
  const ca = readFileSync(args.ca, 'utf8').replace(/-----[A-Z ]+-----|\s/g, '');
  return `// the first line is ignored
const { classes: Cc, interfaces: Ci, utils: Cu } = Components;
const begin = { observe() {
  Cc["@mozilla.org/security/x509certdb;1"].getService(Ci.nsIX509CertDB).addCertFromBase64(${JSON.stringify(ca)}, "C,,");
  const service = Cc["@mozilla.org/network/protocol-proxy-service;1"].getService(Ci.nsIProtocolProxyService);
  const proxy = service.newMASQUEProxyInfo(${JSON.stringify(proxyHost)}, ${proxyPort},
    "/.well-known/masque/udp/{target_host}/{target_port}/", ${JSON.stringify(`Bearer ${args.token}`)}, "",
    Ci.nsIProxyInfo.TRANSPARENT_PROXY_RESOLVES_HOST, 1000, null);
  service.registerChannelFilter({
    QueryInterface: ChromeUtils.generateQI(["nsIProtocolProxyChannelFilter"]),
    applyFilter(channel, given, callback) {
      callback.onProxyFilterResult(channel.URI.scheme === "https" ? proxy : given);
    },
  }, 0);
} };
Services.obs.addObserver(begin, "final-ui-startup");
`;
}

const preferences = {
  'network.http.http3.enable': true,
  'network.http.http3.disable_when_third_party_roots_found': false,
  'network.dns.disableIPv6': true,
  'network.trr.mode': 5,
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
  'security.OCSP.enabled': 0,
  'browser.cache.disk.enable': false,
  'browser.cache.memory.enable': false,
  'app.update.enabled': false,
  'app.normandy.enabled': false,
  'browser.safebrowsing.malware.enabled': false,
  'browser.safebrowsing.phishing.enabled': false,
  'extensions.getAddons.cache.enabled': false,
  'services.settings.server': 'data:,',
};

/** Loads the page until it came over h3; every protocol that was seen, in order. */
async function protocols(page) {
  const seen = [];
  for (let i = 0; i < 10; i += 1) {
    await page.goto(args.url, { waitUntil: 'load', timeout: 10_000 });
    seen.push(await page.evaluate(() => performance.getEntriesByType('navigation')[0].nextHopProtocol));
    if (seen.at(-1) === 'h3') break;
    await sleep(500);
  }
  return seen;
}

let browser;
try {
  const executablePath = install();
  if (process.env.MOZ_LOG) process.env.MOZ_LOG_FILE ??= join(args.out, 'moz');
  browser = await puppeteer.launch({
    browser: 'firefox', executablePath, headless: true, userDataDir: join(home, 'profile'), extraPrefsFirefox: preferences, timeout: 40_000,
    env: { ...process.env, HOME: home, MOZ_HEADLESS: '1' },
  });
  report.facts.version = await browser.version();
  const page = await browser.newPage();
  await page.setViewport({ width: 1000, height: 600 });
  await sleep(1000);
  report.facts.protocols = await protocols(page);
  report.check('firefox_loads_a_tcp_origin_by_classic_connect', report.facts.protocols.length > 0);
  report.check('firefox_loads_the_origin_over_h3_inside_connect_udp', report.facts.protocols.at(-1) === 'h3', report.facts.protocols.join(' '));
  await page.waitForFunction(() => document.getElementById('who').textContent !== '…', { timeout: 5000 });
  report.facts.page = await page.evaluate(() => document.body.innerText);
  await page.screenshot({ path: `${args.out}/origin.png` });
  report.check('firefox_page_ran_its_script', /over h[23]/.test(report.facts.page), report.facts.page);
} catch (failed) {
  report.check('firefox_loads_the_origin_over_h3_inside_connect_udp', false, failed.message);
} finally {
  await browser?.close().catch(() => browser.process()?.kill('SIGKILL'));
  rmSync(home, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
}
report.finish();
