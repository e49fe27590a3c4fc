// docs/snippets/react.jsx, as an application's build would make JavaScript of it.

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import test from "node:test";

import typescript from "typescript";

import { act, createElement, createRoot } from "./react_page.mjs";

const { outputText } = typescript.transpileModule(
  readFileSync(new URL("../../docs/snippets/react.jsx", import.meta.url), "utf8"),
  { compilerOptions: { jsx: "react-jsx", module: "esnext", target: "es2022" } },
);
const made = new URL("./node_modules/react_snippet.mjs", import.meta.url);
writeFileSync(made, outputText);
const { Chat } = await import(made.href);

/** The least of a service: a stream of one message, and a receipt for each post. */
function service(posted) {
  const block = (event, data, id = "") => `event: ${event}\n${id && `id: ${id}\n`}data: ${JSON.stringify(data)}\n\n`;
  const content = { text: "one", type: "user", mode: "chat", actor_type: "client" };
  const message = {
    seq: 1, messageId: "m1", client_msg_id: null, projectId: "demo", userId: "v", content,
    timestamp: "2026-01-01T00:00:00.000000Z", metadata: {},
  };
  const opening = block("stream.open", { headSeq: 1 }, "0") + block("message.replay", message, "1") +
    block("stream.live", { headSeq: 1 });
  return async (url, { method = "GET", body, signal } = {}) => {
    if (method === "POST") {
      const { message: text, client_msg_id: id } = JSON.parse(body);
      posted.push(text);
      const receipt = { seq: 2, messageId: "m2", client_msg_id: id, timestamp: "", duplicate: false };
      return new Response(JSON.stringify(receipt), { status: 201 });
    }
    if (!url.includes("/chat/stream")) return new Response(JSON.stringify({ users: [] }));
    const stream = new ReadableStream({
      start(to) {
        to.enqueue(new TextEncoder().encode(opening));
        signal.addEventListener("abort", () => to.error(signal.reason));
      },
    });
    return new Response(stream, { headers: { "Content-Type": "text/event-stream" } });
  };
}

async function until(condition) {
  while (!condition()) await act(() => new Promise((resolve) => setTimeout(resolve, 5)));
}

test("it shows messages, and sends one at a press of its button", { timeout: 30_000 }, async () => {
  const posted = [];
  globalThis.fetch = service(posted);
  const container = document.createElement("div");
  const root = createRoot(container);
  await act(async () => root.render(createElement(Chat, { url: "http://service", token: "t" })));
  const list = () => [...container.querySelectorAll("li")].map((each) => each.textContent);
  await until(() => container.firstChild.getAttribute("aria-busy") === "false");
  assert.deepEqual(list(), ["one"]);
  await act(async () => container.querySelector("button").dispatchEvent(
    new window.MouseEvent("click", { bubbles: true }),
  ));
  await until(() => posted.length === 1);
  assert.deepEqual(list(), ["one", "hello"]);
  await act(async () => root.unmount());
});
