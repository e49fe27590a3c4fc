// The transport is one of the AI SDK's, by its own types; checked by `tsc --strict`, never run.
import type { ChatTransport, UIMessage, UIMessageChunk } from "ai";
import { open } from "seqstream-client";
import { chatTransport, uiMessages } from "seqstream-client/ai-sdk";
import type { AnswerChunk, ChatMetadata } from "seqstream-client/ai-sdk";

const project = open({ project: "p" });
const transport: ChatTransport<UIMessage<ChatMetadata>> = chatTransport(project, { lostAfterMs: 10_000 });
const plain: ChatTransport<UIMessage> = chatTransport(project);
const messages: UIMessage[] = uiMessages(project.state.messages);
const own: UIMessage<ChatMetadata>[] = uiMessages(project.state.messages);
const chunk = (made: AnswerChunk): UIMessageChunk => made;
console.log(transport, plain, messages, own[0]?.metadata?.ending, chunk);

// @ts-expect-error: a transport is of a project
chatTransport({ url: "https://chat.example" });
