// Where the reader is in the conversation. Follows the newest message only while the reader is at
// the end, keeps the reader's place when messages come in above, and says when the start is near.
// What the messages are is not known here.

// Closer to the end than this counts as at the end, in CSS pixels.
const NEAR_PX = 48;

export class Scroller {
  #root;
  #content;
  #button;
  #atEnd;
  #near;
  #top;

  /**
   * `root` scrolls, `content` is inside and holds one element per item, `button` leads to the end,
   * `top` is an element above the items; `onTop` is called when it comes near.
   */
  constructor({ root, content, button, top, onTop }) {
    this.#root = root;
    this.#content = content;
    this.#button = button;
    this.#atEnd = true;
    root.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    button.addEventListener("click", () => {
      this.toEnd();
      root.focus({ preventScroll: true });
    });
    // The keyboard of a phone, a longer composer, an answer that grows: the end stays in sight.
    const resized = new ResizeObserver(() => {
      if (this.#atEnd) this.#jump();
    });
    resized.observe(root);
    resized.observe(content);
    this.#near = new IntersectionObserver(
      (entries) => {
        if (entries.some((entry) => entry.isIntersecting)) onTop();
      },
      { root, rootMargin: "600px 0px 0px 0px" },
    );
    this.#top = top;
  }

  get atEnd() {
    return this.#atEnd;
  }

  /** Begin to watch the start, or watch it anew: it may still be in sight after a page of history. */
  watchTop() {
    this.#near.unobserve(this.#top);
    this.#near.observe(this.#top);
  }

  /** Change the content by `change()`, with the reader's place kept; true from it: there is news. */
  hold(change) {
    if (this.#atEnd) {
      change();
      this.#jump();
      return;
    }
    const anchor = this.#firstInSight();
    const before = anchor?.getBoundingClientRect().top ?? 0;
    const news = change();
    if (anchor?.isConnected) {
      this.#root.scrollTop += anchor.getBoundingClientRect().top - before;
    }
    if (news) this.#button.hidden = false;
  }

  /** Go to the end, and follow it from now on. */
  toEnd() {
    this.#atEnd = true;
    this.#button.hidden = true;
    this.#jump();
  }

  #jump() {
    this.#root.scrollTop = this.#root.scrollHeight;
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.#root;
    this.#atEnd = scrollHeight - scrollTop - clientHeight <= NEAR_PX;
    if (this.#atEnd) this.#button.hidden = true;
  }

  /** The first item that reaches below the upper edge, by bisection: the items are in order. */
  #firstInSight() {
    const edge = this.#root.getBoundingClientRect().top;
    const items = this.#content.children;
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
