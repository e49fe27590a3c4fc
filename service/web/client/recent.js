// What a tab that joins late needs beside the messages: the builds and answers under way, as blocks
// that tell of them. Pure and bounded. They are applied as any repeat (tabs.js).

import { Answers } from "./answers.js";

const MAX_BUILDS = 100;
const MAX_ANSWERS = 16;

export class Recent {
  #builds = new Map(); // buildId -> block
  #answers = new Answers({ max: MAX_ANSWERS });

  note(event, id, data) {
    switch (event) {
      case "build.status":
        this.#build([event, id, data]);
        return;
      case "answer.state":
        this.#answers.state(data);
        return;
      case "message.delta":
        this.#answers.delta(data);
        return;
      case "message.new":
      case "message.replay":
        this.#answers.end(data.messageId);
        return;
      case "history.page":
        for (const { messageId } of data.messages) this.#answers.end(messageId);
        return;
      case "stream.reset":
        this.#builds.clear();
        this.#answers.clear();
    }
  }

  /** All of them, in an order in which they may be applied. */
  blocks() {
    const answers = this.#answers.events().map(({ event, data }) => [event, "", data]);
    return [...this.#builds.values(), ...answers];
  }

  #build(block) {
    const { status, content } = block[2];
    this.#builds.delete(content.buildId);
    if (status !== "queued" && status !== "in_progress") return;
    if (this.#builds.size >= MAX_BUILDS) this.#builds.delete(this.#builds.keys().next().value);
    this.#builds.set(content.buildId, block);
  }
}
