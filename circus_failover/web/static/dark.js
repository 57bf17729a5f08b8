// Whether the page is dark now, for what draws its own colours.

import { useLayoutEffect, useReducer } from "./html.js";

export function isDark() {
  return document.documentElement.dataset.theme === "dark";
}

export function useDark() {
  const [, again] = useReducer((count) => count + 1, 0);
  useLayoutEffect(() => {
    addEventListener("themechange", again);
    return () => removeEventListener("themechange", again);
  }, []);
  return isDark();
}
