// The builds of a project and their newest status. Pure: no I/O, no clock.

const MAX_BUILDS = 200;
const RANK = { queued: 0, in_progress: 1, completed: 2, failed: 2 };

export class Builds {
  #builds = new Map(); // buildId -> {build, entry}

  /** `build.status`. Returns false for what is a repeat, or older than what is known. */
  status({ userId, status, content, timestamp, entryId }) {
    const known = this.#builds.get(content.buildId);
    const entry = entryOf(entryId);
    const attempt = content.attempt ?? known?.build.attempt ?? 0;
    if (known !== undefined && !isNews(known, { status, attempt, timestamp, entry })) return false;
    const build = {
      buildId: content.buildId,
      versionId: content.versionId ?? known?.build.versionId ?? null,
      userId: userId ?? known?.build.userId ?? null,
      status,
      attempt,
      progress: content.progress ?? (status === "completed" ? 100 : null),
      step: content.step ?? null,
      message: content.message ?? null,
      timestamp: timestamp ?? null,
    };
    this.#builds.set(build.buildId, { build, entry: entry ?? known?.entry ?? null });
    if (this.#builds.size > MAX_BUILDS) this.#dropOne();
    return true;
  }

  /** The message that reports a build's end: it is in the log, a status may have been missed. */
  ended({ metadata, timestamp }) {
    const end = metadata?.response_data?.type;
    const known = this.#builds.get(metadata?.build_id);
    if (known === undefined || (end !== "build_completed" && end !== "build_failed")) return;
    const status = end === "build_completed" ? "completed" : "failed";
    const { attempt = known.build.attempt } = metadata.response_data;
    const { buildId, versionId } = known.build;
    this.status({ userId: null, status, content: { buildId, versionId, attempt }, timestamp });
  }

  list() {
    return [...this.#builds.values()].map((each) => each.build);
  }

  clear() {
    this.#builds.clear();
  }

  #dropOne() {
    const ended = [...this.#builds].find(([, { build }]) => RANK[build.status] === 2);
    this.#builds.delete(ended?.[0] ?? this.#builds.keys().next().value);
  }
}

function isNews({ build, entry }, next) {
  if (RANK[build.status] === 2) return false; // an end is final
  if (next.attempt !== build.attempt) return next.attempt > build.attempt;
  if (entry !== null && next.entry !== null) return compare(next.entry, entry) > 0;
  if (RANK[next.status] !== RANK[build.status]) return RANK[next.status] > RANK[build.status];
  // Without an id (the state that is sent after a replay): the times are the service's, of one form.
  return (next.timestamp ?? "") > (build.timestamp ?? "");
}

function entryOf(entryId) {
  const parts = typeof entryId === "string" ? entryId.split("-").map(Number) : [];
  return parts.length === 2 && parts.every(Number.isInteger) ? parts : null;
}

function compare(a, b) {
  return a[0] - b[0] || a[1] - b[1];
}
