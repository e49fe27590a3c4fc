// What a test answers in place of the service: a `fetch` whose streams and responses it controls.

const encoder = new TextEncoder();

export class FakeService {
  /** Every request: {method, path, query, headers, body, stream?}. */
  requests = [];
  /** Streams that were opened, the last one last. */
  streams = [];
  #answers = new Map(); // "METHOD path-end" -> function of the request

  /** Answer requests with this method whose path ends so: a Response, [status, body], or a throw. */
  on(method, pathEnd, answer) {
    this.#answers.set(`${method} ${pathEnd}`, answer);
    return this;
  }

  fetch = async (href, { method = "GET", headers = {}, body, signal } = {}) => {
    const url = new URL(href);
    const request = {
      method, headers, signal,
      path: url.pathname,
      query: Object.fromEntries(url.searchParams),
      body: body === undefined ? undefined : JSON.parse(body),
    };
    this.requests.push(request);
    const found = [...this.#answers].find(([key]) => {
      const [wanted, end] = key.split(" ");
      return wanted === method && url.pathname.endsWith(end);
    });
    if (found === undefined) {
      if (url.pathname.endsWith("/presence")) return json(200, { users: [] });
      if (url.pathname.endsWith("/chat/stream")) return this.#stream(request).response;
      return json(404, { error: "none", code: "NOT_FOUND" });
    }
    const aborted = new Promise((_, reject) => {
      signal?.addEventListener("abort", () => reject(new DOMException("aborted", "AbortError")));
    });
    aborted.catch(() => {});
    const answer = await Promise.race([found[1](request, () => this.#stream(request)), aborted]);
    return Array.isArray(answer) ? json(...answer) : answer;
  };

  /** Requests to paths that end so. */
  to(pathEnd, method = "GET") {
    return this.requests.filter((each) => each.method === method && each.path.endsWith(pathEnd));
  }

  get stream() {
    return this.streams[this.streams.length - 1];
  }

  #stream(request) {
    const stream = new FakeStream(request);
    this.streams.push(stream);
    return stream;
  }
}

class FakeStream {
  #controller;

  constructor(request) {
    this.request = request;
    const body = new ReadableStream({
      start: (controller) => {
        this.#controller = controller;
      },
      cancel: () => {
        this.isCancelled = true;
      },
    });
    this.response = new Response(body, {
      headers: { "Content-Type": "text/event-stream; charset=utf-8" },
    });
    request.signal?.addEventListener("abort", () => this.break());
  }

  raw(text) {
    this.#controller.enqueue(encoder.encode(text));
    return this;
  }

  send(event, data, { id, retry } = {}) {
    const fields = [`event: ${event}`];
    if (retry !== undefined) fields.push(`retry: ${retry}`);
    if (id !== undefined) fields.push(`id: ${id}`);
    return this.raw(`${fields.join("\n")}\ndata: ${JSON.stringify(data)}\n\n`);
  }

  /** The stream's start: open, these messages as a replay, live. */
  open({ cursor = null, head = 0, replay = [], retry = 1000 } = {}) {
    this.send("stream.open", { projectId: "p", cursor, headSeq: head }, { id: cursor ?? head, retry });
    for (const data of replay) this.send("message.replay", data, { id: data.seq });
    return this.send("stream.live", { projectId: "p", headSeq: head });
  }

  message(data) {
    return this.send("message.new", data, { id: data.seq });
  }

  end() {
    this.#controller.close();
  }

  break() {
    try {
      this.#controller.error(new TypeError("terminated"));
    } catch {
      // It has ended.
    }
  }
}

export function json(status, body, headers = {}) {
  return new Response(body === null ? null : JSON.stringify(body), {
    status, headers: { "Content-Type": "application/json", ...headers },
  });
}

/** A message as the service sends it. */
export function message(seq, { text = `text ${seq}`, userId = "ann", id = null, ...rest } = {}) {
  return {
    seq,
    messageId: `m${seq}`,
    client_msg_id: id,
    projectId: "p",
    userId,
    content: { text, type: "user", mode: "chat", actor_type: "client" },
    timestamp: "2030-01-01T00:00:00.000000Z",
    metadata: { build_id: null, response_data: null },
    ...rest,
  };
}

/** A history that answers `GET …/chat/messages` from a list of entries. */
export function history(entries) {
  return ({ query }) => {
    const head = entries.length > 0 ? Math.max(...entries.map((entry) => entry.seq)) : 0;
    const after = Number(query.after_seq ?? 0);
    const before = Number(query.before_seq ?? head + 1);
    const limit = Number(query.limit ?? 50);
    const within = entries.filter((entry) => entry.seq > after && entry.seq < before);
    const ordered = query.order === "desc" ? [...within].reverse() : within;
    const messages = ordered.slice(0, limit);
    const hasMore = ordered.length > messages.length;
    const nextAfterSeq = query.order === "desc" ? null : (messages.at(-1)?.seq ?? after);
    return [200, { messages, headSeq: head, hasMore, nextAfterSeq }];
  };
}
