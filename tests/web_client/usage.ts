// How the types are meant to be used; checked by `tsc --strict`, never run.
import { open, SeqstreamError } from "seqstream-client";
import type { Build, Encryption, Item, Project, ProjectState, Receipt, Source, SourceFactory, Store } from "seqstream-client";
import { chatTransport, uiMessages } from "seqstream-client/ai-sdk";

const project: Project = open({
  project: "p",
  url: "https://chat.example",
  credentials: { token: async () => ({ token: "t", expiresAt: "2030-01-01T00:00:00Z" }), via: "query" },
  tail: 100,
  onEvent: ({ event, data }) => console.log(event, data),
});
open({ project: "p" });
open({ project: "p", credentials: "cookie", after: "live" });
open({ project: "p", credentials: { token: "fixed" }, after: 0 });
open({ project: "p", credentials: { renewCookie: async () => {} }, persist: true, shareTabs: true });

const stop: () => void = project.subscribe(() => {
  const state: ProjectState = project.state;
  const lines: string[] = state.messages.map((item: Item) => `${item.seq ?? "…"} ${item.text}`);
  const builds: readonly Build[] = state.builds;
  console.log(lines, builds, state.connection.retryAt?.toFixed(), state.typing.length, state.reads["ann"]);
});

async function use(): Promise<void> {
  try {
    const receipt: Receipt = await project.send("hello", { mode: "plan", metadata: { a: 1 } });
    const more: boolean = await project.loadOlder(50);
    if (receipt.assistantMessageId && more) await project.stopAnswer(receipt.assistantMessageId);
    const again: string = await project.regenerateAnswer("a1");
    console.log(again, uiMessages(project.state.messages)[0]?.parts, chatTransport(project).resumeStreamIsReplay);
  } catch (error) {
    if (error instanceof SeqstreamError && error.status === 429) console.log(error.code, error.requestId);
  }
  await project.react(1, "👍");
  await project.edit(1, "better");
  await project.markRead(1);
  project.setTyping(true);
  stop();
  project.close();
}
void use();

const encryption: Encryption = {
  encode: async (text) => ({ message: btoa(text), metadata: { v: 1 } }),
  decode: async (message) => atob(message.content.text),
};
const store: Store = { load: async () => null, save: async ({ messages }) => console.log(messages.length) };
const source: SourceFactory = (sink): Source => ({
  start: () => sink.onStatus({ status: "live", transport: "stream" }),
  stop() {},
  wake: () => sink.onBlock("heartbeat", "", { headSeq: 1 }),
  reconnect: () => console.log(sink.cursor()),
});
open({ project: "p", encryption, store, source });

// @ts-expect-error: a project is needed
open({});
// @ts-expect-error: the state is a snapshot, and is not changed
project.state.headSeq = 1;
// @ts-expect-error: nor are its messages
project.state.messages.push();
// @ts-expect-error: no such mode
void project.send("x", { mode: "shout" });
// @ts-expect-error: no such place for a token
open({ project: "p", credentials: { token: "t", via: "cookie" } });
