// A chat of the AI SDK over one project, which tells, one JSON object a line, what it shows.
//
// Argument: {url, project, token} as JSON. Lines on standard input: {send: text}, {resume: true},
// {regenerate: true}, {stop: true}, {close: true}. Lines out, after each change: {status, messages:
// [{id, role, text, ending, reasoning, calls}]}. Between answers the messages are the project's, as in
// docs/snippets/ai_sdk.jsx.
import { createInterface } from "node:readline";
import { chatTransport, uiMessages } from "../../service/web/client/ai_sdk.js";
import { open } from "../../service/web/client/seqstream.js";
import { Chat } from "./ai_chat.mjs";

const { url, project: id, token } = JSON.parse(process.argv[2]);
const project = open({ url, project: id, credentials: { token } });
const chat = new Chat({ transport: chatTransport(project), onChange: () => queueMicrotask(tell) });

const textOf = ({ parts }, wanted) =>
  parts.filter(({ type }) => type === wanted).map(({ text }) => text).join("");

let told = "";
function tell() {
  const messages = chat.messages.map((message) => ({
    id: message.id,
    role: message.role,
    text: textOf(message, "text"),
    reasoning: textOf(message, "reasoning"),
    calls: message.parts.filter(({ type }) => type === "dynamic-tool").map(({ toolName, input }) => ({ toolName, input })),
    ending: message.metadata?.ending ?? null,
  }));
  const line = JSON.stringify({ status: chat.status, error: chat.error?.message ?? null, messages });
  if (line !== told) process.stdout.write(line + "\n");
  told = line;
}

function follow() {
  if (chat.status === "ready") chat.messages = uiMessages(project.state.messages);
}
project.subscribe(follow);

function run({ send, resume, regenerate, stop }) {
  if (send !== undefined) return chat.sendMessage({ text: send });
  if (resume) return chat.resumeStream();
  if (regenerate) return chat.regenerate();
  return stop ? chat.stop() : undefined;
}

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  if (command.close) break;
  void Promise.resolve(run(command)).then(follow);
}
project.close();
process.exit(0);
