// Classic CONNECT over HTTP/2, by Node's own HTTP/2: TLS to an origin inside the tunnel, and what a stranger meets.
//
//   node h2_vs_gateway.mjs SITE ORIGIN-ADDRESS ORIGIN-NAME TOKEN CA-FILE
import { readFileSync } from 'node:fs';
import { connect, constants } from 'node:http2';
import { connect as tls } from 'node:tls';

const [site, address, name, token, ca] = process.argv.slice(2);
const session = connect(`https://${site}`, { ca: readFileSync(ca) });
session.on('error', (failed) => say('h2_session', false, failed.message));
const deadline = setTimeout(() => { say('h2_within_ten_seconds', false); process.exit(1); }, 10_000);

function say(check, ok, why = '') {
  console.log(`${ok ? 'ok  ' : 'FAIL'} ${check}${ok ? '' : `: ${why}`}`);
  if (!ok) process.exitCode = 1;
}

/** Opens a stream; its answer's headers, and the stream. */
function ask(headers) {
  const stream = session.request(headers, { endStream: headers[':method'] !== 'CONNECT' });
  return new Promise((done, fail) => {
    stream.once('error', fail);
    stream.once('response', (head) => done([head, stream]));
  });
}

async function text(stream) {
  let all = '';
  for await (const piece of stream) all += piece;
  return all;
}

const request = (authorization) => ({ ':method': 'CONNECT', ':authority': `${address}:443`, ...authorization });

async function carries() {
  const [head, stream] = await ask(request({ 'proxy-authorization': `Bearer ${token}` }));
  say('h2_connect_is_accepted', head[':status'] === 200, head[':status']);
  const inside = tls({ socket: stream, servername: name, ca: readFileSync(ca) });
  inside.write(`GET / HTTP/1.1\r\nHost: ${name}\r\nConnection: close\r\n\r\n`);
  const page = await text(inside);
  say('h2_connect_carries_tls_to_the_origin', page.startsWith('HTTP/1.1 200') && page.includes('</html>'), page.slice(0, 200));
}

async function hides() {
  const [head, stream] = await ask(request({ 'proxy-authorization': 'Bearer wrong' }));
  const body = await text(stream.end());
  const [missing, other] = await ask({ ':path': '/no/such/page' });
  const same = head[':status'] === missing[':status'] && body === await text(other) && !('proxy-status' in head);
  say('h2_connect_of_a_stranger_meets_the_sites_404', same && head[':status'] === 404, `${head[':status']} ${body.length}`);
}

try {
  await carries();
  await hides();
} catch (failed) {
  say('h2_connect', false, failed.message);
}
clearTimeout(deadline);
session.close(constants.NGHTTP2_NO_ERROR);
