// One build: its state, how far it is, and a button to cancel it.

import { element, setText } from "./dom.js";

const STATES = {
  queued: "Build waits for a worker",
  in_progress: "Build is running",
  completed: "Build completed",
  failed: "Build failed",
};

export class BuildView {
  #state;
  #attempt;
  #bar;
  #percent;
  #step;
  #cancel;
  #id;

  /** `actions` has `cancel` (build id), which resolves to whether it was accepted. */
  constructor(actions) {
    this.#state = element("strong");
    this.#attempt = element("span", { class: "note" });
    this.#bar = element("progress", { max: 100, "aria-label": "Progress of the build" });
    this.#percent = element("span", { class: "percent" });
    this.#step = element("p", { class: "step" });
    this.#cancel = element("button", { type: "button" }, "Cancel build");
    this.#cancel.addEventListener("click", () => this.#press(actions));
    this.#id = null;
    // Not live: progress would be read out at every step. The end comes as a message.
    this.element = element(
      "section",
      { class: "build", "aria-live": "off", "aria-label": "Build" },
      element("p", { class: "state" }, this.#state, this.#attempt),
      element("div", { class: "bar" }, this.#bar, this.#percent),
      this.#step,
      this.#cancel,
    );
  }

  update(build) {
    this.#id = build.buildId;
    const under = build.status === "queued" || build.status === "in_progress";
    this.element.className = `build ${build.status}`;
    setText(this.#state, STATES[build.status] ?? build.status);
    setText(this.#attempt, build.attempt > 1 ? `attempt ${build.attempt}` : "");
    setText(this.#step, [build.step, build.message].filter(Boolean).join(": "));
    this.#bar.parentElement.hidden = build.status !== "in_progress";
    this.#cancel.hidden = !under;
    if (build.progress === null) {
      this.#bar.removeAttribute("value");
      setText(this.#percent, "");
    } else {
      this.#bar.value = build.progress;
      setText(this.#percent, `${Math.round(build.progress)} %`);
    }
  }

  async #press(actions) {
    this.#cancel.disabled = true;
    setText(this.#cancel, "Cancelling …");
    if (await actions.cancel(this.#id)) return;
    this.#cancel.disabled = false;
    setText(this.#cancel, "Cancel build");
  }
}
