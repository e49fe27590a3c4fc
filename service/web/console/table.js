// A table that is filled again and again: rows keep their element by key, so that focus and
// selection stay; a click on a head sorts.

import {make, setText} from "./elements.js";

export class Table {
  /**
   * columns: {label, text(row)} with optional {number, sort(row), fill(cell, row), heads, name}.
   * `key` names a row; `sorted` is [column's label, descending] at first.
   */
  constructor(place, caption, columns, key, sorted = null) {
    this.columns = columns;
    this.key = key;
    this.rows = [];
    this.elements = new Map();
    this.by = sorted && columns.find((column) => column.label === sorted[0]);
    this.descending = sorted ? sorted[1] : false;
    this.heads = columns.map((column) => this.head(column));
    this.body = make("tbody");
    place.append(make("table", {},
      make("caption", {class: "hidden"}, caption),
      make("thead", {}, make("tr", {}, ...this.heads)), this.body));
    this.mark();
  }

  head(column) {
    const cell = make("th", {scope: "col", class: column.number ? "number" : null});
    if (!column.sort) {
      cell.append(column.label);
      return cell;
    }
    const button = make("button", {type: "button"}, column.label);
    button.addEventListener("click", () => {
      this.descending = this.by === column ? !this.descending : Boolean(column.number);
      this.by = column;
      this.mark();
      this.fill(this.rows);
    });
    cell.append(button);
    return cell;
  }

  mark() {
    this.columns.forEach((column, place) => {
      const head = this.heads[place];
      if (column !== this.by) head.removeAttribute("aria-sort");
      else head.setAttribute("aria-sort", this.descending ? "descending" : "ascending");
    });
  }

  fill(rows) {
    this.rows = rows;
    const shown = this.by ? [...rows].sort((a, b) => this.compare(a, b)) : rows;
    const focused = this.body.contains(document.activeElement) ? document.activeElement : null;
    const left = new Set(this.elements.keys());
    let before = this.body.firstChild;
    for (const row of shown) {
      const key = this.key(row);
      left.delete(key);
      const element = this.elements.get(key) ?? this.add(key);
      this.columns.forEach((column, place) => this.cell(column, element.children[place], row));
      if (element === before) before = before.nextSibling;
      else this.body.insertBefore(element, before);
    }
    for (const key of left) {
      this.elements.get(key).remove();
      this.elements.delete(key);
    }
    // An element that is moved loses the focus.
    if (focused && focused.isConnected) focused.focus({preventScroll: true});
  }

  add(key) {
    const row = make("tr", {}, ...this.columns.map((column) => {
      const kind = [column.number && "number", column.name && "name"].filter(Boolean).join(" ");
      return column.heads ? make("th", {scope: "row", class: kind || null})
        : make("td", {class: kind || null});
    }));
    this.elements.set(key, row);
    return row;
  }

  cell(column, cell, row) {
    if (column.fill) column.fill(cell, row);
    else setText(cell, column.text(row));
    if (column.name) cell.title = cell.textContent;
  }

  compare(a, b) {
    const [one, two] = [this.by.sort(a), this.by.sort(b)];
    const order = one < two ? -1 : one > two ? 1 : 0;
    return (this.descending ? -order : order) || (this.key(a) < this.key(b) ? -1 : 1);
  }
}
