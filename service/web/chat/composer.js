// The form: text, mode, send. Says when the user types. What sending means is chat.js's affair.

export class Composer {
  #form;
  #field;
  #button;
  #onSend;
  #onTyping;

  /** `onSend(text, mode)` and `onTyping(typing)` are called; the field is empty after a send. */
  constructor({ form, field, sendButton, onSend, onTyping }) {
    this.#form = form;
    this.#field = field;
    this.#button = sendButton;
    this.#onSend = onSend;
    this.#onTyping = onTyping;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    field.addEventListener("keydown", (event) => this.#pressed(event));
    field.addEventListener("input", () => this.#changed());
    field.addEventListener("blur", () => onTyping(false));
  }

  enable() {
    this.#field.disabled = false;
    this.#changed();
  }

  focus() {
    this.#field.focus({ preventScroll: true });
  }

  /** Focus the field where that opens no keyboard over the page. */
  takeFocus() {
    if (!matchMedia("(pointer: coarse)").matches) this.focus();
  }

  #pressed(event) {
    // While an input method composes, Enter takes its suggestion (229: Safari, after the fact).
    const isComposing = event.isComposing || event.keyCode === 229;
    if (event.key !== "Enter" || event.shiftKey || isComposing) return;
    event.preventDefault();
    this.#send();
  }

  #changed() {
    const field = this.#field;
    const filled = field.value.trim() !== "";
    this.#button.disabled = field.disabled || !filled;
    // As high as its text, up to the maximum in chat.css.
    field.style.height = "auto";
    field.style.height = `${field.scrollHeight}px`;
    if (document.activeElement === field) this.#onTyping(filled);
  }

  #send() {
    const text = this.#field.value.trimEnd();
    if (text === "" || this.#field.disabled) return;
    this.#field.value = "";
    this.#changed();
    this.#onSend(text, new FormData(this.#form).get("mode"));
    this.focus();
  }
}
