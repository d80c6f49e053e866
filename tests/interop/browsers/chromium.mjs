// The website as Chromium meets it: upgraded to h3 by Alt-Svc, over h2, and over HTTP/1.1, with a screenshot of each.
//
//   node chromium.mjs --url https://site.test/ --address 198.51.100.1 --certificate site.pem --out DIR
import { createHash, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { parse, Report, require, sleep } from './lib.mjs';

const { chromium } = require('playwright-core');
const args = parse(['url', 'address', 'certificate', 'out']);
const host = new URL(args.url).hostname;
const report = new Report(args.out);

const key = new X509Certificate(readFileSync(args.certificate)).publicKey.export({ type: 'spki', format: 'der' });
const always = [
  '--no-sandbox', '--disable-background-networking', '--disable-component-update', '--no-first-run', '--disable-gpu',
  `--host-resolver-rules=MAP ${host} ${args.address}`,
  `--ignore-certificate-errors-spki-list=${createHash('sha256').update(key).digest('base64')}`,
];
const ways = {
  // A wrong port on purpose: it exempts the host from the rule that QUIC wants a known root, and forces nothing. The
  // upgrade itself is Alt-Svc's.
  h3: [`--origin-to-force-quic-on=${host}:1`, '--enable-quic'],
  h2: ['--disable-quic'],
  'http/1.1': ['--disable-quic', '--disable-http2'],
};

/** Loads the page until it came over `wanted`; every protocol that was seen, in order. */
async function protocols(page, wanted) {
  const seen = [];
  for (let i = 0; i < 8; i += 1) {
    // A page that is only revalidated keeps the protocol it first came over: each visit is of a page of its own.
    const visit = new URL(args.url);
    visit.searchParams.set('visit', i);
    const response = await page.goto(visit.href, { waitUntil: 'load', timeout: 10_000 });
    if (!response.ok()) throw new Error(`status ${response.status()}`);
    seen.push(await page.evaluate(() => performance.getEntriesByType('navigation')[0].nextHopProtocol));
    if (seen.at(-1) === wanted) break;
    await sleep(400);
  }
  return seen;
}

for (const [wanted, flags] of Object.entries(ways)) {
  const label = wanted.replace('http/1.1', 'h1');
  const facts = (report.facts[label] = {});
  let browser;
  try {
    browser = await chromium.launch({ executablePath: '/usr/bin/chromium', headless: true, args: [...always, ...flags], timeout: 20_000 });
    facts.version = browser.version();
    const context = await browser.newContext({ viewport: { width: 1200, height: 800 } });
    const page = await context.newPage();
    const broken = [];
    page.on('requestfailed', (request) => broken.push(`${request.url()} ${request.failure()?.errorText}`));
    page.on('response', (response) => response.status() >= 400 && broken.push(`${response.url()} ${response.status()}`));
    facts.protocols = await protocols(page, wanted);
    facts.title = await page.title();
    facts.parts = await page.evaluate(() => performance.getEntriesByType('resource').map((e) => [e.name, e.nextHopProtocol, e.decodedBodySize]));
    facts.broken = broken;
    await page.screenshot({ path: `${args.out}/${label}.png` });
    report.check(`chromium_loads_the_site_over_${label}`, facts.protocols.at(-1) === wanted, facts.protocols.join(' '));
    if (wanted === 'h3') report.check('chromium_was_upgraded_by_alt_svc', facts.protocols[0] === 'h2', facts.protocols.join(' '));
    report.check(`chromium_loads_every_part_over_${label}`, broken.length === 0 && facts.title !== '', broken.join(' ') || 'no title');
  } catch (failed) {
    report.check(`chromium_loads_the_site_over_${label}`, false, failed.message);
  } finally {
    await browser?.close();
  }
}
report.finish();
