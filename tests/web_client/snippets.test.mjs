// The React snippets of docs/snippets/, as an application's build would make JavaScript of them.

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import test from "node:test";

import typescript from "typescript";

import { FakeService, message } from "./fake_service.mjs";
import { act, createElement, createRoot } from "./react_page.mjs";

const { Chat } = await snippet("react");
const { Assistant } = await snippet("ai_sdk");

/** The exports of a `.jsx` file. */
async function snippet(name) {
  const { outputText } = typescript.transpileModule(
    readFileSync(new URL(`../../docs/snippets/${name}.jsx`, import.meta.url), "utf8"),
    { compilerOptions: { jsx: "react-jsx", module: "esnext", target: "es2022" } },
  );
  const made = new URL(`./node_modules/${name}_snippet.mjs`, import.meta.url);
  writeFileSync(made, outputText);
  return import(made.href);
}

/** The component on a page, and a service that the test answers for. */
async function shown(component) {
  const service = new FakeService();
  globalThis.fetch = service.fetch;
  const container = document.createElement("div");
  const root = createRoot(container);
  await act(async () => root.render(createElement(component, { url: "http://service", token: "t" })));
  await until(() => service.stream !== undefined);
  return {
    service, root, container,
    stream: service.stream,
    button: () => container.querySelector("button"),
    shows: (...texts) => until(() => {
      const list = [...container.querySelectorAll("li")].map((each) => each.textContent);
      return JSON.stringify(list) === JSON.stringify(texts);
    }),
  };
}

async function until(condition) {
  while (!condition()) await act(() => new Promise((resolve) => setTimeout(resolve, 5)));
}

async function press(button) {
  await act(async () => button.dispatchEvent(new window.MouseEvent("click", { bubbles: true })));
}

test("react.jsx shows messages, and sends one at a press of its button", { timeout: 30_000 }, async () => {
  const { service, stream, root, container, button, shows } = await shown(Chat);
  service.on("POST", "/chat/messages", ({ body }) => [201, {
    seq: 2, messageId: "m2", client_msg_id: body.client_msg_id, timestamp: "", duplicate: false,
  }]);
  stream.open({ head: 1, replay: [message(1)] });
  await until(() => container.firstChild.getAttribute("aria-busy") === "false");
  await shows("text 1");
  await press(button());
  await until(() => service.to("/chat/messages", "POST").length === 1);
  await shows("text 1", "hello");
  await act(async () => root.unmount());
});

const answer = (seq, messageId, text, replyTo) => message(seq, {
  messageId, text, metadata: { build_id: null, response_data: { type: "answer", replyTo } },
  content: { text, type: "assistant", mode: "plan", actor_type: "assistant" },
});
const about = (content) => ({ projectId: "demo", userId: "ann", timestamp: "2030-01-01T00:00:00.000000Z", content });
const piece = (messageId, index, delta) =>
  ["message.delta", { ...about({ messageId, index, kind: "text", delta }), entryId: `1-${index + 1}` }];

test("ai_sdk.jsx goes on after a reload, shows others, and stops", { timeout: 30_000 }, async () => {
  const { service, stream, root, button, shows } = await shown(Assistant);
  service.on("POST", "/chat/unified", ({ body }) => [201, {
    seq: 4, messageId: "m4", client_msg_id: body.client_msg_id, timestamp: "", duplicate: false, assistantMessageId: "a2",
  }]);
  service.on("POST", "/answers/a2/stop", () => [200, {}]);
  const soFar = { messageId: "a1", replyTo: "m1", index: 1, text: "so far", parts: [], status: "in_progress" };
  stream.send("stream.open", { projectId: "demo", cursor: null, headSeq: 1 }, { id: 0, retry: 1000 });
  stream.send("message.replay", message(1), { id: 1 });
  stream.send("answer.state", about(soFar));
  stream.send("stream.live", { projectId: "demo", headSeq: 1 });
  await shows("text 1", "so far");
  assert.equal(button().textContent, "Stop");
  stream.send(...piece("a1", 2, " so good"));
  await shows("text 1", "so far so good");
  stream.message(answer(2, "a1", "so far so good", "m1")).message(message(3, { userId: "bob" }));
  await shows("text 1", "so far so good", "text 3");

  await press(button());
  await until(() => service.to("/chat/unified", "POST").length === 1);
  stream.send(...piece("a2", 0, "Hi"));
  await shows("text 1", "so far so good", "text 3", "hello", "Hi");
  await press(button());
  await until(() => service.to("/answers/a2/stop", "POST").length === 1);
  await until(() => button().textContent === "Say hello");
  await act(async () => root.unmount());
  assert.ok(stream.request.signal.aborted);
});
