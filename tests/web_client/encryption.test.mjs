// Content encryption: what the service is given, and what readers make of it.

import assert from "node:assert/strict";
import test from "node:test";

import { aesGcm, aesKey } from "../../service/web/client/encryption.js";

const bytes = (value) => new Uint8Array(32).fill(value);
const stored = ({ message, metadata }) => ({ content: { text: message }, metadata });

test("a text is read with the key it was written with", async () => {
  const encryption = aesGcm({ project: "p", key: await aesKey(bytes(1)) });
  for (const text of ["hello", "🧵\u2028\u0000 é", "x".repeat(48_000)]) {
    assert.equal(await encryption.decode(stored(await encryption.encode(text))), text);
  }
});

test("the service cannot read it, and equal texts look different", async () => {
  const encryption = aesGcm({ project: "p", key: await aesKey(bytes(1)) });
  const [one, two] = [await encryption.encode("attack at dawn"), await encryption.encode("attack at dawn")];
  assert.notEqual(one.message, two.message);
  assert.ok(!Buffer.from(one.message, "base64").includes("attack"));
  assert.match(one.message, /^[A-Za-z0-9+/=]+$/);
});

test("another key, another project and a changed text are refused", async () => {
  const key = await aesKey(bytes(1));
  const sealed = stored(await aesGcm({ project: "p", key }).encode("hello"));
  const changed = Buffer.from(sealed.content.text, "base64");
  changed[changed.length - 1] ^= 1;
  const other = { ...sealed, content: { text: changed.toString("base64") } };
  const refusals = [
    aesGcm({ project: "p", key: await aesKey(bytes(2)) }).decode(sealed),
    aesGcm({ project: "q", key }).decode(sealed),
    aesGcm({ project: "p", key }).decode(other),
  ];
  for (const refusal of refusals) await assert.rejects(refusal);
});

test("a function chooses the key to write with, and the one of each text", async () => {
  const keys = { old: await aesKey(bytes(1)), new: await aesKey(bytes(2)) };
  const before = aesGcm({ project: "p", key: keys.old, keyId: "old" });
  const after = aesGcm({
    project: "p",
    key: (id) => (id === undefined ? { key: keys.new, keyId: "new" } : keys[id]),
  });
  const written = await after.encode("two");
  assert.deepEqual(written.metadata, { encryption: { v: 1, keyId: "new" } });
  assert.equal(await after.decode(stored(written)), "two");
  assert.equal(await after.decode(stored(await before.encode("one"))), "one");
});

test("a text that is not encrypted is shown as it is; one of a later version is refused", async () => {
  const encryption = aesGcm({ project: "p", key: await aesKey(bytes(1)) });
  const plain = { content: { text: "I am the assistant" }, metadata: { response_data: null } };
  assert.equal(await encryption.decode(plain), "I am the assistant");
  await assert.rejects(encryption.decode({ ...plain, metadata: { encryption: { v: 2 } } }));
});
