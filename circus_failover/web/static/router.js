// Addresses: which page is shown is the address bar's business, and nothing else's.
// Ordinary links stay ordinary: a middle click, a modifier key or another target is the browser's.

import { html, useCallback, useLayoutEffect, useReducer } from "./html.js";

const listeners = new Set();

let current = read();

function read() {
  return { path: location.pathname, query: new URLSearchParams(location.search), hash: location.hash };
}

function moved() {
  current = read();
  for (const listener of [...listeners]) listener();
}

addEventListener("popstate", moved);

// Go to a path of the console ("/agents/local/alpha?tab=log"); `replace` leaves no entry in the history.
export function navigate(path, { replace = false } = {}) {
  const target = new URL(path, location.href);
  if (target.origin !== location.origin) return;
  const next = target.pathname + target.search + target.hash;
  if (next === location.pathname + location.search + location.hash) return;
  history[replace ? "replaceState" : "pushState"](null, "", next);
  const elsewhere = target.pathname !== current.path;
  moved();
  if (elsewhere) scrollTo(0, 0);
}

// Change keys of the query and leave the others; null or "" takes one away.
export function setQuery(changes, { replace = true } = {}) {
  const query = new URLSearchParams(location.search);
  for (const [key, value] of Object.entries(changes)) {
    if (value === null || value === undefined || value === "") query.delete(key);
    else query.set(key, String(value));
  }
  const text = query.toString();
  navigate(location.pathname + (text ? "?" + text : ""), { replace });
}

// The path of a page, its parts escaped: path("agents", host, name) is "/agents/local/alpha".
export function path(...parts) {
  return "/" + parts.map(encodeURIComponent).join("/");
}

// Where we are: {path, query: URLSearchParams, hash}; the component is rendered again when that changes.
export function usePath() {
  const [, again] = useReducer((count) => count + 1, 0);
  useLayoutEffect(() => {
    listeners.add(again);
    return () => listeners.delete(again);
  }, []);
  return current;
}

function ordinary(event) {
  return event.button === 0 && !event.defaultPrevented
    && !(event.metaKey || event.ctrlKey || event.shiftKey || event.altKey);
}

// A link to a page of the console; every other property goes to the <a>.
export function Link({ href, replace, onClick, children, ...rest }) {
  const follow = useCallback((event) => {
    onClick?.(event);
    if (!ordinary(event) || (rest.target && rest.target !== "_self")) return;
    event.preventDefault();
    navigate(href, { replace });
  }, [href, replace, onClick]);
  return html`<a href=${href} onClick=${follow} ...${rest}>${children}</a>`;
}
