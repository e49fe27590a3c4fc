import { useChat } from "@ai-sdk/react";
import { useEffect, useMemo } from "react";
import { chatTransport, uiMessages } from "seqstream-client/ai-sdk";
import { useProject } from "seqstream-client/react";

export function Assistant({ url, token }) {
  const { state, project } = useProject({ url, project: "demo", credentials: { token } });
  return project && <Chat project={project} stored={state.messages} />;
}

function Chat({ project, stored }) {
  const transport = useMemo(() => chatTransport(project), [project]);
  const { messages, setMessages, sendMessage, stop, status } = useChat({ transport, resume: true });
  useEffect(() => {
    // Others write too: between answers the chat shows what the project has.
    if (status === "ready") setMessages(uiMessages(stored));
  }, [stored, status, setMessages]);
  const isWriting = status === "submitted" || status === "streaming";
  const textOf = (parts) => parts.filter((part) => part.type === "text").map((part) => part.text);
  return (
    <section aria-busy={isWriting}>
      <ol>{messages.map(({ id, parts }) => <li key={id}>{textOf(parts)}</li>)}</ol>
      <button onClick={isWriting ? stop : () => sendMessage({ text: "hello" })}>
        {isWriting ? "Stop" : "Say hello"}
      </button>
    </section>
  );
}
