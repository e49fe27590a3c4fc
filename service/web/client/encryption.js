// Content encryption with Web Crypto: texts that the service stores, orders and cannot read.
//
// AES-GCM with a fresh random nonce of 96 bits for each text (NIST SP 800-38D: at most 2^32 texts
// with one key). The project's id is authenticated with the text, so that a text moved to another
// project is not shown. Not hidden: who writes when, how long a text is, reactions, metadata. The
// service could leave out, repeat or reorder texts of one project. Keys are the application's.

const ALGORITHM = "AES-GCM";
const VERSION = 1;
const NONCE_BYTES = 12;

/**
 * Make what `encryption` of `open` takes. `key` is a CryptoKey for AES-GCM, or a function that
 * returns the one of a key id (of undefined, the one to write with, as `{key, keyId}`). Texts without encryption, such as an assistant's, are shown as they are; in their
 * item `metadata.encryption` is missing.
 */
export function aesGcm({ project, key, keyId }) {
  const additionalData = new TextEncoder().encode(`seqstream/${VERSION}/${project}`);
  const find = async (id) => {
    const found = typeof key === "function" ? await key(id) : { key, keyId };
    return found.key === undefined ? { key: found } : found;
  };

  return {
    async encode(text) {
      const writing = await find(undefined);
      const iv = crypto.getRandomValues(new Uint8Array(NONCE_BYTES));
      const sealed = await crypto.subtle.encrypt(
        { name: ALGORITHM, iv, additionalData }, writing.key, new TextEncoder().encode(text),
      );
      const bytes = new Uint8Array(NONCE_BYTES + sealed.byteLength);
      bytes.set(iv);
      bytes.set(new Uint8Array(sealed), NONCE_BYTES);
      const id = writing.keyId === undefined ? {} : { keyId: writing.keyId };
      return { message: toBase64(bytes), metadata: { encryption: { v: VERSION, ...id } } };
    },

    async decode({ content, metadata }) {
      const used = metadata?.encryption;
      if (used === undefined || used === null) return content.text;
      if (used.v !== VERSION) throw new Error("encrypted by a newer version");
      const bytes = fromBase64(content.text);
      const reading = await find(used.keyId);
      const opened = await crypto.subtle.decrypt(
        { name: ALGORITHM, iv: bytes.subarray(0, NONCE_BYTES), additionalData },
        reading.key, bytes.subarray(NONCE_BYTES),
      );
      return new TextDecoder().decode(opened);
    },
  };
}

/** A key from 32 bytes that the application keeps; it cannot be read back from the page. */
export function aesKey(bytes) {
  return crypto.subtle.importKey("raw", bytes, ALGORITHM, false, ["encrypt", "decrypt"]);
}

function toBase64(bytes) {
  let text = "";
  // In pieces: a call has a limit on its arguments.
  for (let at = 0; at < bytes.length; at += 8192) {
    text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  }
  return btoa(text);
}

function fromBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}
