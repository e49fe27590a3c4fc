import type { Project, ProjectOptions, ProjectState } from "./seqstream.js";

/**
 * Follow a project while the component is mounted. `project` is null before the first effect and
 * with options of null; the state is then an empty one, `closed`. It is opened anew when `url`,
 * `project` or `userId` change.
 */
export function useProject(options: ProjectOptions | null): {
  readonly state: ProjectState;
  readonly project: Project | null;
};
