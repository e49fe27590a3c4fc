import type { Encryption } from "./seqstream.js";

/** The key to write with, and its id, which readers are given. */
export interface WritingKey {
  key: CryptoKey;
  keyId?: string;
}

export interface AesGcmOptions {
  /** Authenticated with each text: one that is moved to another project is not shown. */
  project: string;
  /** One key, or a function: of undefined the key to write with, of a key id the one to read with. */
  key:
    | CryptoKey
    | ((keyId: string | undefined) => CryptoKey | WritingKey | Promise<CryptoKey | WritingKey>);
  /** Id of the one key; not for a function. */
  keyId?: string;
}

/** AES-GCM for `encryption` of `open`: the service stores and orders texts that it cannot read. */
export function aesGcm(options: AesGcmOptions): Encryption;

/** A key from 32 bytes; it cannot be read back from the page. */
export function aesKey(bytes: BufferSource): Promise<CryptoKey>;
