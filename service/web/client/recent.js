// What a tab that joins late needs beside the messages: the builds and answers under way, as the
// blocks that told of them. Pure and bounded. They are applied as any repeat (tabs.js).

const MAX_BUILDS = 100;
const MAX_ANSWERS = 16;
const MAX_PIECES = 5000; // of one answer; a tab that lacks the first ones shows it as incomplete

export class Recent {
  #builds = new Map(); // buildId -> block
  #answers = new Map(); // messageId -> blocks

  note(event, id, data) {
    switch (event) {
      case "build.status":
        return this.#build([event, id, data]);
      case "answer.state":
        return this.#answer(data.content.messageId, [[event, id, data]]);
      case "message.delta":
        return this.#piece([event, id, data]);
      case "message.new":
      case "message.replay":
        this.#answers.delete(data.messageId);
        return undefined;
      case "history.page":
        for (const { messageId } of data.messages) this.#answers.delete(messageId);
        return undefined;
      case "stream.reset":
        this.#builds.clear();
        this.#answers.clear();
        return undefined;
      default:
        return undefined;
    }
  }

  /** All of them, in an order in which they may be applied. */
  blocks() {
    return [...this.#builds.values(), ...[...this.#answers.values()].flat()];
  }

  #build(block) {
    const { status, content } = block[2];
    this.#builds.delete(content.buildId);
    if (status === "queued" || status === "in_progress") {
      bounded(this.#builds, MAX_BUILDS).set(content.buildId, block);
    }
  }

  #answer(messageId, blocks) {
    this.#answers.delete(messageId);
    bounded(this.#answers, MAX_ANSWERS).set(messageId, blocks);
  }

  #piece(block) {
    const { messageId } = block[2].content;
    const blocks = this.#answers.get(messageId);
    if (blocks === undefined) this.#answer(messageId, [block]);
    else {
      blocks.push(block);
      if (blocks.length > MAX_PIECES) blocks.shift();
    }
  }
}

/** The map with room for one more: the oldest goes. */
function bounded(map, most) {
  if (map.size >= most) map.delete(map.keys().next().value);
  return map;
}
