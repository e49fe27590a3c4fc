// All of a project's state that events make: the one place that says what each event does.
//
// Pure: no I/O and no clock. It says what is missing (`gaps`, `isEmpty`), and fetches nothing.

import { Answers } from "./answers.js";
import { Builds } from "./builds.js";
import { MessageList } from "./message_list.js";
import { People } from "./people.js";

const CHANGES = new Set(["message.edited", "message.redacted", "reaction.added", "reaction.removed"]);

export class ProjectModel {
  headSeq = 0;
  #onMessage;

  /**
   * `onMessage(message)` is called for each message that is new here or was changed, after it is in
   * the list: to decode its text, and to end the sending of one's own.
   */
  constructor({ max, isMine, onMessage = () => {} } = {}) {
    this.list = new MessageList({ max, isMine });
    this.answers = new Answers();
    this.builds = new Builds();
    this.people = new People();
    this.#onMessage = onMessage;
  }

  /** Apply one event of docs/protocol.md §6. Returns whether it said something new. */
  apply(event, data, nowMs) {
    if (event === "message.new" || event === "message.replay") return this.#message(data);
    if (CHANGES.has(event)) return this.#change(event, data);
    switch (event) {
      case "history.page": // not of the service: what long polling fetched, see polling.js
        return this.page(data);
      case "message.delta":
        return !this.list.hasMessage(data.content.messageId) && this.answers.delta(data);
      case "answer.state":
        if (this.list.hasMessage(data.content.messageId)) return false;
        this.answers.state(data);
        return true;
      case "build.status":
        return this.builds.status(data);
      case "typing.start":
      case "typing.stop":
        return this.people.typing(data.userId, event === "typing.start", nowMs);
      case "presence.changed":
        return this.people.presence(data.userId, data.content.status === "online");
      case "read.changed":
        return this.people.read(data.userId, data.content.seq);
      case "member.changed":
        if (data.content.status === "removed") this.people.removed(data.userId);
        return true;
      case "stream.open":
      case "stream.live":
      case "heartbeat":
        return this.#head(data.headSeq);
      case "replay.end":
        this.list.advance(data.liveFromSeq - 1);
        return true;
      case "stream.reset":
        this.list.reset(data.headSeq);
        this.answers.clear();
        this.builds.clear();
        this.headSeq = data.headSeq;
        return true;
      default:
        return false; // an event of a later edition
    }
  }

  /**
   * A page of the history: `messages` are all between the bounds, which are exclusive. With `newest`
   * it is the end of the log, with `older` what stands before the oldest one shown.
   */
  page({ messages, after, before, headSeq, newest = false, older = false }) {
    this.#head(headSeq);
    if (newest) this.list.newestPage(messages, headSeq);
    else if (older) this.list.olderPage(messages, { after, headSeq });
    else {
      this.list.begin(after);
      this.list.page(messages, { after, before, headSeq });
      this.list.advance(before - 1);
    }
    for (const message of messages) if (message.targetSeq === undefined) this.#stored(message.seq);
    return true;
  }

  gaps() {
    return this.list.gaps();
  }

  #message(data) {
    this.#head(data.seq);
    if (!this.list.message(data)) return false;
    this.#stored(data.seq);
    return true;
  }

  #change(event, data) {
    this.#head(data.seq);
    if (!this.list.change(event, data)) return false;
    const message = this.list.find(data.targetSeq);
    if (message !== undefined) this.#onMessage(message);
    return true;
  }

  #stored(seq) {
    const message = this.list.find(seq);
    if (message === undefined) return;
    this.answers.end(message.messageId);
    this.builds.ended(message);
    this.#onMessage(message);
  }

  #head(seq) {
    if (!(seq > this.headSeq)) return false;
    this.headSeq = seq;
    return true;
  }
}
