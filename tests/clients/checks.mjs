// What the checks of all JavaScript clients share.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// Standard output holds a line for each check and nothing else; what clients have to say is not part
// of it.
const say = console.log.bind(console);
console.log = console.error;

// From the broken connection to the free slot.
export const FREED_WITHIN_MS = 1000;

export const base = process.argv[2].replace(/\/+$/, "");

// The clients lie beside this script, in node/.
const { resolve } = createRequire(new URL("./node/package.json", import.meta.url));
export const find = (name) => resolve(name);
export const client = (name) => import(pathToFileURL(find(name)));

// Sums of all series by metric name.
export async function metrics() {
  const text = await (await fetch(`${base}/metrics`)).text();
  const sums = {};
  for (const line of text.split("\n").filter((line) => line && !line.startsWith("#"))) {
    const at = line.lastIndexOf(" ");
    const name = line.slice(0, at).split("{", 1)[0];
    sums[name] = (sums[name] ?? 0) + Number(line.slice(at + 1));
  }
  return sums;
}

// Leaves a stream after a few parts by calling `abort`, and waits until its slot is free.
export async function breaksOff(stream, abort) {
  const before = (await metrics()).weir_cancelled_total;
  let heard = 0;
  try {
    for await (const _ of stream) {
      heard += 1;
      if (heard === 4) {
        assert.equal((await metrics()).weir_slots_used, 1, "the stream ended by itself");
        abort();
        break;
      }
    }
  } catch (error) {
    // Some clients tell whoever aborts that it was aborted.
    assert.match(String(error), /abort/i);
  }
  assert.equal(heard, 4);
  const deadline = performance.now() + FREED_WITHIN_MS;
  let now = await metrics();
  while (now.weir_slots_used !== 0 || now.weir_cancelled_total === before) {
    assert.ok(performance.now() < deadline, `slots used ${now.weir_slots_used} after 1 s`);
    await new Promise((resume) => setTimeout(resume, 10));
    now = await metrics();
  }
  assert.equal(now.weir_cancelled_total, before + 1);
}

// One line for each; the exit status says whether all passed.
export async function run(checks) {
  let failed = 0;
  for (const check of checks) {
    try {
      await check();
      say(`ok ${check.name}`);
    } catch (why) {
      failed += 1;
      say(`FAILED ${check.name}: ${String(why).replaceAll("\n", " ")}`);
    }
  }
  process.exitCode = failed > 0 ? 1 : 0;
}
