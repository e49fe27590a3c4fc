import { useProject } from "seqstream-client/react";

export function Chat({ url, token }) {
  const { state, project } = useProject({ url, project: "demo", credentials: { token } });
  return (
    <section aria-busy={state.connection.status !== "live"}>
      <ol>{state.messages.map((item) => <li key={item.key}>{item.text}</li>)}</ol>
      <button onClick={() => project.send("hello")}>Say hello</button>
    </section>
  );
}
