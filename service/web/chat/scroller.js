// Where the reader is in the conversation. Follows the newest message only while the reader is at
// the end, keeps the reader's place when messages come in above, and says when the start is near.
// What the messages are is not known here.

// Closer to the end than this counts as at the end, in CSS pixels.
const NEAR_PX = 48;

export class Scroller {
  /**
   * `root` scrolls, `content` is inside and holds one element per item, `button` leads to the end,
   * `top` is an element above the items; `onTop` is called when it comes near.
   */
  constructor({root, content, button, top, onTop}) {
    this._root = root;
    this._content = content;
    this._button = button;
    this._atEnd = true;
    root.addEventListener("scroll", () => this._scrolled(), {passive: true});
    button.addEventListener("click", () => {
      this.toEnd();
      root.focus({preventScroll: true});
    });
    // The keyboard of a phone, a longer composer, an answer that grows: the end stays in sight.
    const resized = new ResizeObserver(() => {
      if (this._atEnd) this._jump();
    });
    resized.observe(root);
    resized.observe(content);
    this._near = new IntersectionObserver(
      (entries) => {
        if (entries.some((entry) => entry.isIntersecting)) onTop();
      },
      {root, rootMargin: "600px 0px 0px 0px"},
    );
    this._top = top;
  }

  get atEnd() {
    return this._atEnd;
  }

  /** Begin to watch the start, or watch it anew: it may still be in sight after a page of history. */
  watchTop() {
    this._near.unobserve(this._top);
    this._near.observe(this._top);
  }

  /** Change the content by `change()`, with the reader's place kept; true from it: there is news. */
  hold(change) {
    if (this._atEnd) {
      change();
      this._jump();
      return;
    }
    const anchor = this._firstInSight();
    const before = anchor?.getBoundingClientRect().top ?? 0;
    const news = change();
    if (anchor?.isConnected) {
      this._root.scrollTop += anchor.getBoundingClientRect().top - before;
    }
    if (news) this._button.hidden = false;
  }

  /** Go to the end, and follow it from now on. */
  toEnd() {
    this._atEnd = true;
    this._button.hidden = true;
    this._jump();
  }

  _jump() {
    this._root.scrollTop = this._root.scrollHeight;
  }

  _scrolled() {
    const {scrollTop, scrollHeight, clientHeight} = this._root;
    this._atEnd = scrollHeight - scrollTop - clientHeight <= NEAR_PX;
    if (this._atEnd) this._button.hidden = true;
  }

  /** The first item that reaches below the upper edge, by bisection: the items are in order. */
  _firstInSight() {
    const edge = this._root.getBoundingClientRect().top;
    const items = this._content.children;
    let low = 0;
    let high = items.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (items[middle].getBoundingClientRect().bottom > edge) high = middle;
      else low = middle + 1;
    }
    return items[low] ?? null;
  }
}
