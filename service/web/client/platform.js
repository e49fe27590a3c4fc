// What differs between browsers, pages without a secure context and Node.

/** Call `wake` when the page comes back, or the network does; returns how to stop. */
export function onWake(wake) {
  const { document } = globalThis;
  if (document === undefined) return () => {};
  const onVisible = () => {
    if (document.visibilityState === "visible") wake();
  };
  document.addEventListener("visibilitychange", onVisible);
  for (const name of ["online", "pageshow"]) globalThis.addEventListener?.(name, wake);
  return () => {
    document.removeEventListener("visibilitychange", onVisible);
    for (const name of ["online", "pageshow"]) globalThis.removeEventListener?.(name, wake);
  };
}

export function newId() {
  // crypto.randomUUID needs a secure context; a page on plain http in a local network has none.
  // Node 18 has no global crypto. The id has to be unique among its user's, and no secret.
  const bytes = globalThis.crypto?.getRandomValues(new Uint8Array(16)) ??
    Uint8Array.from({ length: 16 }, () => Math.random() * 256);
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function parsed(data) {
  try {
    const value = JSON.parse(data);
    return value !== null && typeof value === "object" ? value : undefined;
  } catch {
    return undefined; // not of this service: nothing that could be applied
  }
}

/** Run a function whose errors are shown to the page's developer, and end nothing here. */
export function report(callback) {
  try {
    callback();
  } catch (error) {
    if (typeof reportError === "function") reportError(error);
    else console.error(error);
  }
}
