// Real React on a small page, with the client installed as its npm package would be.

import { cpSync } from "node:fs";

import { Window } from "happy-dom";

const INSTALLED = new URL("./node_modules/seqstream-client/", import.meta.url);
cpSync(new URL("../../service/web/client/", import.meta.url), INSTALLED, { recursive: true });

const window = new Window({ url: "http://localhost/" });
Object.assign(globalThis, { window, document: window.document, IS_REACT_ACT_ENVIRONMENT: true });
// Node 21 and newer have one.
if (globalThis.navigator === undefined) globalThis.navigator = window.navigator;

export const { act, createElement, StrictMode } = await import("react");
export const { createRoot } = await import("react-dom/client");
