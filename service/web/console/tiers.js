// Draws Postgres, Redis, this process's memory and the cursors of streams on one axis of seqs.

import {byId, bytes, duration, make, number} from "./elements.js";

// Above this the axis begins later, and what lies before it is marked as going on.
const MOST_SEQS = 1000;
const WORDS = {live: "live", catching_up: "catching up", blocked: "blocked",
  ahead: "ahead of this process", closing: "closing"};

export const stateWord = (state) => WORDS[state] ?? state;

/** Draw a project as it was seen; `whole`: from its first seq on. */
export function drawTiers(seen, whole) {
  const axis = axisOf(seen, whole);
  byId("tiers").replaceChildren(
    postgresRow(seen, axis), redisRow(seen, axis), memoryRow(seen, axis), streamsRow(seen, axis),
    make("div", {class: "axis", "aria-hidden": "true"},
      make("span", {}, `seq ${number(axis.low)}`), make("span", {}, `${number(axis.high)}`)));
}

function axisOf(seen, whole) {
  const {postgres, redis, memory, streams} = seen;
  const known = (values) => values.filter((value) => value != null);
  const high = Math.max(1, ...known([postgres?.headSeq, redis?.hi, memory?.lastSeq]));
  const first = postgres?.firstSeq ?? 1;
  if (whole) return axis(first, high);
  const lows = known([postgres?.range?.fromSeq, redis?.lo, memory?.firstSeq,
    ...streams.map((stream) => stream.cursor)]);
  const low = Math.max(Math.min(high, ...lows), high - MOST_SEQS, first);
  // Some room on the left shows that the tiers begin there and are not cut off.
  return axis(Math.max(first, low - Math.ceil((high - low) * 0.06)), high);
}

function axis(low, high) {
  const seqs = Math.max(1, high - low + 1);
  return {low, high, at: (seq) => Math.min(100, Math.max(0, ((seq - low) / seqs) * 100))};
}

function place(element, axis, from, to) {
  element.style.left = `${axis.at(from)}%`;
  element.style.width = `${Math.max(0, axis.at(to + 1) - axis.at(from))}%`;
  return element;
}

function row(name, small, lane, figures, said) {
  return make("div", {class: "tier"},
    make("p", {class: "tier-name"}, name, make("small", {}, small)),
    make("div", {class: "tier-lane", role: "img", "aria-label": said}, ...lane),
    make("p", {class: "tier-figures"}, ...figures.filter((each) => each?.textContent)));
}

function range(kind, axis, from, to) {
  const goesOn = from < axis.low ? " goes-on" : "";
  return place(make("span", {class: `tier-range ${kind}${goesOn}`}), axis, from, to);
}

function holesOf(tier, axis) {
  return tier.holes.filter((hole) => hole.toSeq >= axis.low)
    .map((hole) => place(make("span", {class: "tier-hole"}), axis, hole.fromSeq, hole.toSeq));
}

function holeFigure(tier) {
  if (!tier.missingSeqs) return figure("no holes");
  const named = tier.holes.map(({fromSeq, toSeq}) =>
    fromSeq === toSeq ? number(fromSeq) : `${number(fromSeq)}–${number(toSeq)}`);
  return make("span", {class: "bad"},
    `${number(tier.missingSeqs)} missing: ${named.slice(0, 5).join(", ")}${named.length > 5 ? " …" : ""}`);
}

/** The stores are asked one beside the other: a message that is just on its way may show here. */
function behindFigure(seen, seq) {
  const behind = (seen.postgres?.headSeq ?? 0) - seq;
  return behind > 0 ? make("span", {class: "warn"}, `${number(behind)} behind the log`) : null;
}

const figure = (text) => make("span", {}, text);

function nothing(why, isBad = false) {
  return [make("span", {class: `tier-none${isBad ? " bad" : ""}`}, why)];
}

function away(seen, part) {
  return seen.missing.find((each) => each.part === part)?.why ?? "not known";
}

function postgresRow(seen, axis) {
  const tier = seen.postgres;
  if (!tier) {
    const why = `not reachable: ${away(seen, "postgres")}`;
    return row("Postgres", "the log", nothing(why, true), [], `Postgres: ${why}`);
  }
  if (tier.firstSeq == null && !tier.missingSeqs) {
    return row("Postgres", "the log", nothing("no message yet"), [], "Postgres: no message yet");
  }
  const from = tier.firstSeq ?? 1;
  const figures = [figure(`${number(from)} … ${number(tier.headSeq)}`),
    figure(`${number(tier.counted)} of the newest ${number(tier.range.toSeq - tier.range.fromSeq + 1)} there`),
    holeFigure(tier)];
  return row("Postgres", "the log", [range("postgres", axis, from, tier.headSeq),
    ...holesOf(tier, axis)], figures, said("Postgres", from, tier.headSeq, tier));
}

function redisRow(seen, axis) {
  const tier = seen.redis;
  if (!tier) {
    const why = `not reachable: ${away(seen, "redis")}`;
    return row("Redis", "the window", nothing(why, true), [], `Redis: ${why}`);
  }
  const expiry = tier.expiresInSeconds == null ? "" : `expires in ${duration(tier.expiresInSeconds)}`;
  const figures = [figure(`${number(tier.messages)} messages`),
    figure(`${number(tier.transientEntries)} transient entries`), figure(bytes(tier.bytes)),
    figure(expiry)];
  if (tier.lo == null) {
    return row("Redis", "the window", nothing("no messages"), figures, "Redis: no messages");
  }
  return row("Redis", "the window", [range("redis", axis, tier.lo, tier.hi), ...holesOf(tier, axis)],
    [figure(`${number(tier.lo)} … ${number(tier.hi)}`), ...figures, holeFigure(tier),
      behindFigure(seen, tier.hi)],
    said("Redis", tier.lo, tier.hi, tier));
}

function memoryRow(seen, axis) {
  const tier = seen.memory;
  const small = `process ${seen.processId}`;
  if (!tier) {
    const why = "not held here: nobody reads it through this process";
    return row("Memory", small, nothing(why), [], `Memory: ${why}`);
  }
  const restored = tier.generation ? `restored ${number(tier.generation)} times` : "";
  const figures = [figure(`${number(tier.entries)} entries`),
    figure(`${bytes(tier.bytes)} of ${bytes(tier.maxBytes)}`), figure(restored),
    behindFigure(seen, tier.lastSeq)];
  if (tier.firstSeq == null) {
    const text = `none since it was made after seq ${number(tier.lastSeq)}`;
    return row("Memory", small, nothing(text), figures, `Memory: ${text}`);
  }
  return row("Memory", small, [range("memory", axis, tier.firstSeq, tier.lastSeq)],
    [figure(`${number(tier.firstSeq)} … ${number(tier.lastSeq)}`), ...figures],
    said("Memory", tier.firstSeq, tier.lastSeq, null));
}

/** Streams whose cursors fall on the same place are one tick with their number. */
function streamsRow(seen, axis) {
  const ticks = new Map();
  for (const {cursor, state} of seen.streams) {
    const at = Math.round(axis.at(cursor + 1) * 2) / 2;
    const tick = ticks.get(at) ?? {count: 0, state: "live"};
    tick.count += 1;
    if (state !== "live") tick.state = state;
    ticks.set(at, tick);
  }
  const lane = [...ticks].flatMap(([at, {count, state}]) => {
    const tick = make("span", {class: `tier-tick ${state}`});
    const label = make("span", {class: "tier-count"}, number(count));
    tick.style.left = `${Math.max(1, at)}%`;
    if (at > 50) label.style.right = `calc(${100 - at}% + 7px)`;
    else label.style.left = `calc(${at}% + 6px)`;
    return [tick, label];
  });
  const text = seen.streamsTotal === 0 ? "no open streams"
    : `${number(seen.streamsTotal)} open, cursors from `
      + `${number(Math.min(...seen.streams.map((stream) => stream.cursor)))}`;
  return row("Streams", "cursors", seen.streamsTotal ? lane : nothing(text), [], `Streams: ${text}`);
}

function said(name, from, to, tier) {
  const holes = tier ? `, ${tier.missingSeqs ? `${tier.missingSeqs} missing` : "no holes"}` : "";
  return `${name}: seqs ${from} to ${to}${holes}`;
}
