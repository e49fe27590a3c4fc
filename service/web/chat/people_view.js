// Who is online, and who types.

import {setText} from "./dom.js";

const NAMED = 3;

export class PeopleView {
  constructor({people, typing}) {
    this._people = people;
    this._typing = typing;
  }

  /** `me` is left out of the names, since the user knows. */
  update(state, me) {
    const others = state.online.filter((user) => user !== me);
    setText(this._people, others.length === 0 ? "Nobody else is online" : `Online: ${names(others)}`);
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
