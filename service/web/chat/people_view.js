// Who is online, and who types.

import { setText } from "./dom.js";

const NAMED = 3;

export class PeopleView {
  #people;
  #typing;

  constructor({ people, typing }) {
    this.#people = people;
    this.#typing = typing;
  }

  /** `me` is left out of the names, since the user knows. Who is online is known only while live. */
  update(state, me, isLive) {
    const others = state.online.filter((user) => user !== me);
    setText(
      this.#people,
      others.length === 0 ? "Nobody else is online" : `Online: ${names(others)}`,
    );
    // Nobody tells a page without a connection who comes and goes.
    this.#people.hidden = !isLive;
    this.#people.title = others.join(", ");
    const { typing } = state;
    const verb = typing.length === 1 ? "is" : "are";
    setText(this.#typing, typing.length === 0 ? "" : `${names(typing)} ${verb} typing …`);
  }
}

function names(users) {
  if (users.length <= NAMED) return users.join(", ");
  return `${users.slice(0, NAMED).join(", ")} and ${users.length - NAMED} more`;
}
