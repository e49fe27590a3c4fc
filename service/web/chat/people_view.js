// Who is online, and who types.

import {setText} from "./dom.js";

const NAMED = 3;

export class PeopleView {
  constructor({people, typing}) {
    this._people = people;
    this._typing = typing;
  }

  /** `me` is left out of the names, since the user knows. Who is online is known only while live. */
  update(state, me, isLive) {
    const others = state.online.filter((user) => user !== me);
    setText(this._people, others.length === 0 ? "Nobody else is online" : `Online: ${names(others)}`);
    // Nobody tells a page without a connection who comes and goes.
    this._people.hidden = !isLive;
    this._people.title = others.join(", ");
    const {typing} = state;
    const verb = typing.length === 1 ? "is" : "are";
    setText(this._typing, typing.length === 0 ? "" : `${names(typing)} ${verb} typing …`);
  }
}

function names(users) {
  if (users.length <= NAMED) return users.join(", ");
  return `${users.slice(0, NAMED).join(", ")} and ${users.length - NAMED} more`;
}
