// The view library in one place: preact and its hooks, bound to htm's tagged templates.
// Every page takes these from here, so the vendored files are named once. Text from outside always goes
// through text nodes and properties: there is no way to insert markup here, and none may be added.

import { h, render, Fragment, Component, createContext } from "./vendor/preact.mjs";
import {
  useState, useEffect, useMemo, useRef, useCallback, useLayoutEffect, useReducer, useContext, useId,
  useErrorBoundary,
} from "./vendor/preact-hooks.mjs";
import htm from "./vendor/htm.mjs";

export const html = htm.bind(h);
export { h, render, Fragment, Component, createContext };
export {
  useState, useEffect, useMemo, useRef, useCallback, useLayoutEffect, useReducer, useContext, useId,
  useErrorBoundary,
};

function sameProps(before, after) {
  for (const key in before) if (!(key in after)) return false;
  for (const key in after) if (!Object.is(before[key], after[key])) return false;
  return true;
}

// The component, rendered again only when one of its properties is another object or value.
export function memo(component) {
  return class extends Component {
    shouldComponentUpdate(props) {
      return !sameProps(this.props, props);
    }

    render(props) {
      return h(component, props);
    }
  };
}

const sheets = new Map();

// Load one of the console's own stylesheets (a path below static/), once; the promise resolves when it applies.
// A sheet that cannot be had costs the looks of a page, never the page.
export function stylesheet(path) {
  if (!sheets.has(path)) {
    sheets.set(path, new Promise((resolve) => {
      const link = document.createElement("link");
      link.rel = "stylesheet";
      link.href = new URL(path, import.meta.url).href;
      link.onload = link.onerror = () => resolve();
      document.head.append(link);
    }));
  }
  return sheets.get(path);
}
