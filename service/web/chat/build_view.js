// One build: its state, how far it is, and a button to cancel it.

import {element, setText} from "./dom.js";

const STATES = {
  queued: "Build waits for a worker",
  in_progress: "Build is running",
  completed: "Build completed",
  failed: "Build failed",
};

export class BuildView {
  /** `actions` has `cancel` (build id), which resolves to whether it was accepted. */
  constructor(actions) {
    this._state = element("strong");
    this._attempt = element("span", {class: "note"});
    this._bar = element("progress", {max: 100, "aria-label": "Progress of the build"});
    this._percent = element("span", {class: "percent"});
    this._step = element("p", {class: "step"});
    this._cancel = element("button", {type: "button"}, "Cancel build");
    this._cancel.addEventListener("click", () => this._press(actions));
    this._id = null;
    // Not live: progress would be read out at every step. The end comes as a message.
    this.element = element(
      "section",
      {class: "build", "aria-live": "off", "aria-label": "Build"},
      element("p", {class: "state"}, this._state, this._attempt),
      element("div", {class: "bar"}, this._bar, this._percent),
      this._step,
      this._cancel,
    );
  }

  update(build) {
    this._id = build.buildId;
    const under = build.status === "queued" || build.status === "in_progress";
    this.element.className = `build ${build.status}`;
    setText(this._state, STATES[build.status] ?? build.status);
    setText(this._attempt, build.attempt > 1 ? `attempt ${build.attempt}` : "");
    setText(this._step, [build.step, build.message].filter(Boolean).join(": "));
    this._bar.parentElement.hidden = build.status !== "in_progress";
    this._cancel.hidden = !under;
    if (build.progress === null) {
      this._bar.removeAttribute("value");
      setText(this._percent, "");
    } else {
      this._bar.value = build.progress;
      setText(this._percent, `${Math.round(build.progress)} %`);
    }
  }

  async _press(actions) {
    this._cancel.disabled = true;
    setText(this._cancel, "Cancelling …");
    if (await actions.cancel(this._id)) return;
    this._cancel.disabled = false;
    setText(this._cancel, "Cancel build");
  }
}
