// A React hook for one project. React is the application's own (18 or newer).

import { useCallback, useEffect, useState, useSyncExternalStore } from "react";

import { open } from "./seqstream.js";

const CLOSED = Object.freeze({
  connection: Object.freeze({ status: "closed", transport: "stream" }),
  messages: Object.freeze([]),
  builds: Object.freeze([]),
  typing: Object.freeze([]),
  online: Object.freeze([]),
  headSeq: 0,
  oldestSeq: null,
  hasOlder: false,
  loadingOlder: false,
  gaps: Object.freeze([]),
  readSeq: 0,
  reads: Object.freeze({}),
});

/**
 * Follow a project while the component is mounted: `{state, project}`. `project` is null before the
 * first effect and with options of null. It is opened anew when `url`, `project` or `userId` of the
 * options change; other options are read at that moment.
 */
export function useProject(options) {
  const [project, setProject] = useState(null);
  const key = options === null ? null : JSON.stringify([options.url, options.project, options.userId]);
  useEffect(() => {
    if (key === null) return undefined;
    const opened = open(options);
    setProject(opened);
    return () => {
      opened.close();
      setProject(null);
    };
    // The options' identity changes with every render; `key` has what they stand for.
  }, [key]);
  const subscribe = useCallback((listener) => project?.subscribe(listener) ?? (() => {}), [project]);
  const state = useSyncExternalStore(subscribe, () => project?.state ?? CLOSED, () => CLOSED);
  return { state, project };
}
