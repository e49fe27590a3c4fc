// What seqstream.d.ts declares is there, and nothing else: types alone do not show that.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { open } from "../../service/web/client/seqstream.js";
import { FakeClock } from "./fake_clock.mjs";
import { FakeService } from "./fake_service.mjs";

const types = readFileSync(new URL("../../service/web/client/seqstream.d.ts", import.meta.url), "utf8");

function declared(name) {
  const [, body] = new RegExp(`interface ${name} \\{\\n([^]*?)\\n\\}`).exec(types);
  return [...body.matchAll(/^ {2}(?:readonly )?(\w+)[?]?[(:]/gm)].map(([, member]) => member).sort();
}

function opened(context) {
  const { fetch } = new FakeService();
  const project = open({ project: "p", url: "http://s", fetch, clock: new FakeClock() });
  context.after(() => project.close());
  return project;
}

test("a project has the members that are declared", (t) => {
  const { prototype } = opened(t).constructor;
  const members = Object.getOwnPropertyNames(prototype).filter((name) => name !== "constructor");
  assert.deepEqual(members.sort(), declared("Project"));
});

test("a state has the members that are declared, and is frozen", (t) => {
  const { state } = opened(t);
  assert.deepEqual(Object.keys(state).sort(), declared("ProjectState"));
  assert.ok(Object.isFrozen(state));
});

test("an item has no member that is not declared", (t) => {
  const project = opened(t);
  project.send("hello");
  const known = new Set(declared("Item"));
  assert.deepEqual(Object.keys(project.state.messages[0]).filter((key) => !known.has(key)), []);
});
