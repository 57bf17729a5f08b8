// The CSRF token, the half of a session that is the page's own. Browsers give the cookie to every port of a host
// name; localStorage is read by pages of this very origin alone (scheme, name and port), in all tabs, and outlives
// the browser as the cookie does. Where it is forbidden, the token lasts as long as the page.
// It goes into a header or a subprotocol of this origin, and never into an address or a log.

const KEY = "csrf";

let unstored = null; // what could not be stored

// The token; null when nobody has signed in here.
export function csrf() {
  if (unstored !== null) return unstored;
  try {
    const found = localStorage.getItem(KEY);
    // What is none would not only be refused: a web socket takes it for no subprotocol at all, and throws.
    return /^[0-9a-f]{64}$/.test(found) ? found : null;
  } catch {
    return null;
  }
}

// Keep the token of a new session; null: there is none any more.
export function keepCsrf(token) {
  unstored = null;
  try {
    if (token === null) localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, token);
  } catch {
    unstored = token;
  }
}

// Have fn() called when another tab has signed in or out.
export function onOtherTab(fn) {
  addEventListener("storage", (event) => {
    if (event.key !== KEY && event.key !== null) return;
    unstored = null;
    fn();
  });
}
