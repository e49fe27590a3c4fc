// The React hook, with real React, from the npm package as users install it.

import assert from "node:assert/strict";
import test from "node:test";

import { act, createElement, createRoot, StrictMode } from "./react_page.mjs";

const { useProject } = await import("seqstream-client/react");

/** A source that the test feeds; `log` has what became of each. */
function sources() {
  const log = [];
  return {
    log,
    source: (sink) => {
      const made = { sink, isStarted: false, isStopped: false };
      log.push(made);
      return {
        start: () => { made.isStarted = true; },
        stop: () => { made.isStopped = true; },
        wake() {}, reconnect() {},
      };
    },
  };
}

const noRequests = () => new Promise(() => {});

function options(source, more = {}) {
  return { url: "http://service", project: "p", userId: "u", source, fetch: noRequests, ...more };
}

function message(seq, text) {
  const content = { text, type: "user", mode: "chat", actor_type: "client" };
  return {
    seq, messageId: `m${seq}`, client_msg_id: null, projectId: "p", userId: "v", content,
    timestamp: "2026-01-01T00:00:00.000000Z", metadata: {},
  };
}

function Chat({ options }) {
  const { state, project } = useProject(options);
  const texts = state.messages.map((item) => createElement("li", { key: item.key }, item.text));
  return createElement("ol", { "data-open": String(project !== null) }, texts);
}

async function mounted(element) {
  const container = document.createElement("div");
  const root = createRoot(container);
  await act(async () => root.render(element));
  return { container, root };
}

test("a component shows messages as they arrive, and closes when it is unmounted", async () => {
  const { log, source } = sources();
  const { container, root } = await mounted(createElement(Chat, { options: options(source) }));
  assert.equal(log.length, 1);
  assert.ok(log[0].isStarted);
  await act(async () => {
    log[0].sink.onBlock("message.new", "1", message(1, "one"));
    log[0].sink.onBlock("message.new", "2", message(2, "two"));
  });
  assert.equal(container.textContent, "onetwo");
  await act(async () => root.unmount());
  assert.ok(log[0].isStopped);
});

test("other options with the same project keep it open; another project opens anew", async () => {
  const { log, source } = sources();
  const { container, root } = await mounted(createElement(Chat, { options: options(source) }));
  await act(async () => root.render(createElement(Chat, { options: options(source) })));
  assert.equal(log.length, 1);
  await act(async () => root.render(createElement(Chat, { options: options(source, { project: "q" }) })));
  assert.deepEqual(log.map((each) => each.isStopped), [true, false]);
  await act(async () => log[1].sink.onBlock("message.new", "1", message(1, "of q")));
  assert.equal(container.textContent, "of q");
  await act(async () => root.unmount());
});

test("without options nothing is opened, and the state is an empty one", async () => {
  const { container, root } = await mounted(createElement(Chat, { options: null }));
  assert.equal(container.firstChild.getAttribute("data-open"), "false");
  await act(async () => root.unmount());
});

test("effects that run twice leave one project open", async () => {
  const { log, source } = sources();
  const chat = createElement(Chat, { options: options(source) });
  const { root } = await mounted(createElement(StrictMode, null, chat));
  assert.deepEqual(log.map((each) => each.isStopped), [true, false]);
  await act(async () => root.unmount());
  assert.deepEqual(log.map((each) => each.isStopped), [true, true]);
});
