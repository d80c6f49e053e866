// What both browsers' scripts share: arguments, results, and the packages that `setup` put under target/.
import { createRequire } from 'node:module';
import { writeFileSync, mkdirSync } from 'node:fs';

export const require = createRequire(new URL('../../../target/interop/node/', import.meta.url));

/** `--name value` pairs; a name of `wanted` that is missing ends the program. */
export function parse(wanted) {
  const given = {};
  for (let i = 2; i < process.argv.length; i += 2) given[process.argv[i].replace(/^--/, '')] = process.argv[i + 1];
  for (const name of wanted) {
    if (given[name] === undefined) {
      console.error(`missing --${name}`);
      process.exit(2);
    }
  }
  mkdirSync(given.out, { recursive: true });
  return given;
}

/** Collects facts and checks; `finish` writes result.json and sets the exit code. */
export class Report {
  constructor(out) {
    this.out = out;
    this.facts = {};
    this.failed = 0;
  }

  check(name, ok, why = '') {
    console.log(`${ok ? 'ok  ' : 'FAIL'} ${name}${ok || !why ? '' : `: ${String(why).replace(/\s+/g, ' ').slice(0, 600)}`}`);
    if (!ok) this.failed += 1;
  }

  finish() {
    writeFileSync(`${this.out}/result.json`, `${JSON.stringify(this.facts, null, 2)}\n`);
    process.exitCode = this.failed ? 1 : 0;
  }
}

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
