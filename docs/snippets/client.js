import { open } from "/client/seqstream.js";

const project = open({ project: "demo", credentials: { token } });
project.subscribe(() => show(project.state.messages, project.state.connection.status));
await project.send("hello");
