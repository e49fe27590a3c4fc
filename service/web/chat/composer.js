// The form: text, mode, send. Says when the user types. What sending means is chat.js's affair.

export class Composer {
  /** `onSend(text, mode)` and `onTyping(typing)` are called; the field is empty after a send. */
  constructor({form, field, sendButton, onSend, onTyping}) {
    this._form = form;
    this._field = field;
    this._button = sendButton;
    this._onSend = onSend;
    this._onTyping = onTyping;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this._send();
    });
    field.addEventListener("keydown", (event) => this._pressed(event));
    field.addEventListener("input", () => this._changed());
    field.addEventListener("blur", () => onTyping(false));
  }

  enable() {
    this._field.disabled = false;
    this._changed();
  }

  focus() {
    this._field.focus({preventScroll: true});
  }

  /** Focus the field where that opens no keyboard over the page. */
  takeFocus() {
    if (!matchMedia("(pointer: coarse)").matches) this.focus();
  }

  _pressed(event) {
    // While an input method composes, Enter takes its suggestion (229: Safari, after the fact).
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    this._send();
  }

  _changed() {
    const {_field: field} = this;
    const filled = field.value.trim() !== "";
    this._button.disabled = field.disabled || !filled;
    // As high as its text, up to the maximum in chat.css.
    field.style.height = "auto";
    field.style.height = `${field.scrollHeight}px`;
    if (document.activeElement === field) this._onTyping(filled);
  }

  _send() {
    const text = this._field.value.trimEnd();
    if (text === "" || this._field.disabled) return;
    this._field.value = "";
    this._changed();
    this._onSend(text, new FormData(this._form).get("mode"));
    this.focus();
  }
}
