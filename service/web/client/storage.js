// The store that `persist` chooses: one project's snapshot in IndexedDB, so that a reload resumes.
//
// Users are kept apart: two who use one browser must not see each other's messages. What is not
// sent yet is kept by message, because several tabs of one project may have some. What a snapshot
// means is in message_list.js.

const DATABASE = "seqstream";
const VERSION = 1;
const SNAPSHOTS = "snapshots";
const PENDING = "pending";
const MAX_MESSAGES = 500; // a page's start; older ones are read from the history
const OPEN_TIMEOUT_MS = 5000; // another tab with an older version may block the opening

/** Make a store for one user's view of one project. */
export function indexedDbStore({ base, userId, project }) {
  return new IndexedDbStore(JSON.stringify([base, userId, project]), project);
}

/** Remove what is kept in this browser, of all users and projects: for a sign-out. */
export async function clearStored() {
  if (globalThis.indexedDB === undefined) return;
  const database = await opened();
  try {
    await done(database, (snapshots, pending) => {
      snapshots.clear();
      pending.clear();
    });
  } finally {
    database.close();
  }
}

class IndexedDbStore {
  #key;
  #project;
  #opening = null;
  #own = new Set(); // clientMsgIds that were written or loaded here, and so are removed here

  constructor(key, project) {
    this.#key = key;
    this.#project = project;
  }

  async load() {
    const database = await this.#database();
    const transaction = database.transaction([SNAPSHOTS, PENDING], "readonly");
    const [snapshot, pending] = await Promise.all([
      result(transaction.objectStore(SNAPSHOTS).get(this.#key)),
      result(transaction.objectStore(PENDING).getAll(range(this.#key))),
    ]);
    if (snapshot === undefined && pending.length === 0) return null;
    for (const { message } of pending) this.#own.add(message.clientMsgId);
    const messages = pending.sort((a, b) => a.at - b.at).map(({ message }) => message);
    const empty = { project: this.#project, messages: [], floor: null, cursor: null, gaps: [] };
    return { ...empty, ...snapshot, pending: messages };
  }

  async save(snapshot) {
    const { pending, ...rest } = newest(snapshot, MAX_MESSAGES);
    const unsent = new Set(pending.map(({ clientMsgId }) => clientMsgId));
    const database = await this.#database();
    await done(database, (snapshots, kept) => {
      snapshots.put(rest, this.#key);
      for (const id of this.#own) if (!unsent.has(id)) kept.delete([this.#key, id]);
      pending.forEach((message, at) => kept.put({ message, at }, [this.#key, message.clientMsgId]));
    });
    this.#own = unsent;
  }

  /** Forget the project: its messages must not outlive the access to them. */
  async clear() {
    const database = await this.#database();
    await done(database, (snapshots, pending) => {
      snapshots.delete(this.#key);
      pending.delete(range(this.#key));
    });
    this.#own.clear();
  }

  #database() {
    this.#opening ??= opened().then(
      (database) => {
        // A newer version of this file may open the database in another tab.
        database.onversionchange = database.onclose = () => {
          database.close();
          this.#opening = null;
        };
        return database;
      },
      (error) => {
        this.#opening = null;
        throw error;
      },
    );
    return this.#opening;
  }
}

/** The snapshot with its newest messages alone, and the bounds that fit them. */
export function newest(snapshot, count) {
  const { messages } = snapshot;
  if (messages.length <= count) return snapshot;
  const kept = messages.slice(-count);
  const floor = kept[0].seq - 1;
  const gaps = snapshot.gaps
    .filter((gap) => gap.before - 1 > floor)
    .map((gap) => ({ after: Math.max(gap.after, floor), before: gap.before }));
  return { ...snapshot, messages: kept, floor, gaps };
}

/** All keys `[key, clientMsgId]`. */
function range(key) {
  return IDBKeyRange.bound([key], [key, []]);
}

function opened() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(DATABASE, VERSION);
    const late = setTimeout(() => reject(new Error("IndexedDB did not open in time")), OPEN_TIMEOUT_MS);
    request.onupgradeneeded = () => {
      for (const name of [SNAPSHOTS, PENDING]) request.result.createObjectStore(name);
    };
    request.onsuccess = () => {
      clearTimeout(late);
      resolve(request.result);
    };
    request.onerror = () => {
      clearTimeout(late);
      reject(request.error);
    };
  });
}

/** Run `write` in one transaction over both stores; resolves when it is committed. */
function done(database, write) {
  return new Promise((resolve, reject) => {
    const transaction = database.transaction([SNAPSHOTS, PENDING], "readwrite");
    transaction.oncomplete = () => resolve();
    transaction.onabort = transaction.onerror = () => reject(transaction.error);
    write(transaction.objectStore(SNAPSHOTS), transaction.objectStore(PENDING));
  });
}

function result(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
