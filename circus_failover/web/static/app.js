// The shell: who is signed in, which page is shown, navigation, what is wrong with the connection, the theme.
// Pages are loaded when they are opened; one that cannot be loaded says so and leaves the rest alone.

import { html, render, useEffect, useErrorBoundary, useLayoutEffect, useRef, useState, stylesheet } from "./html.js";
import { Link, navigate, usePath } from "./router.js";
import { readSession, signOut, useSession } from "./api.js";
import { connect, disconnect, useAbout, useConnection } from "./live.js";
import { When, plain, told } from "./format.js";
import { Toasts, toast } from "./toast.js";
import { Keys } from "./keys.js";
import { Mark } from "./mark.js";

// The pages: what their address is, which module shows them, which stylesheets they need beside console.css.
const PAGES = [
  { path: /^\/$/, title: "Fleet", load: () => import("./pages/fleet.js"), styles: [] },
  {
    path: /^\/agents\/([^/]+)\/([^/]+)$/, title: "Agent", load: () => import("./pages/agent.js"),
    styles: ["agent.css"], under: "/",
  },
  { path: /^\/deaths$/, title: "Deaths", load: () => import("./pages/deaths.js"), styles: ["pages.css"] },
  { path: /^\/accounts$/, title: "Accounts", load: () => import("./pages/accounts.js"), styles: ["pages.css"] },
  { path: /^\/work$/, title: "Work", load: () => import("./pages/work.js"), styles: ["pages.css"] },
  {
    path: /^\/circus(?:\/([^/]+)\/([^/]+))?$/, title: "Circus", load: () => import("./pages/circus.js"),
    styles: ["pages.css"], under: "/circus",
  },
  { path: /^\/sign-in$/, title: "Sign in", load: () => import("./pages/signin.js"), styles: [], signedOut: true },
];

const UNREADABLE = Symbol("the page could not be loaded");
const loaded = new Map(); // page -> its component, or UNREADABLE

async function load(page) {
  try {
    const [module] = await Promise.all([page.load(), ...page.styles.map(stylesheet)]);
    loaded.set(page, module.default);
  } catch (error) {
    console.error(error);
    loaded.set(page, UNREADABLE);
  }
}

function pageAt(path) {
  for (const page of PAGES) {
    const match = page.path.exec(path);
    if (match === null) continue;
    try {
      const [host = null, name = null] = match.slice(1).map((part) => part && decodeURIComponent(part));
      return { page, host, name };
    } catch {
      return null; // an escape that is none
    }
  }
  return null;
}

function Trouble({ title, children }) {
  return html`<section class="page-trouble">
    <h1 tabindex="-1">${title}</h1>
    ${children}
  </section>`;
}

// Shows the page of the address; a page that throws is replaced by what went wrong, and the shell stays.
function Page({ page, host, name, query }) {
  const [, again] = useState(0);
  const [error, reset] = useErrorBoundary((problem) => console.error(problem));
  const found = loaded.get(page);
  useEffect(() => {
    if (found === undefined) load(page).then(() => again((count) => count + 1));
  }, [page, found]);
  if (error) {
    return html`<${Trouble} title="This page has failed">
      <p>${plain(error.message)}</p>
      <button type="button" onClick=${reset}>Show it again</button>
    <//>`;
  }
  if (found === undefined) return html`<p class="waiting" role="status">Loading…</p>`;
  if (found === UNREADABLE) {
    const retry = () => {
      loaded.delete(page);
      again((count) => count + 1);
    };
    return html`<${Trouble} title=${`${page.title}: this page could not be loaded`}>
      <p>A part of the console did not come: it does not answer, or was replaced by another version.</p>
      <p class="row"><button type="button" onClick=${retry}>Try again</button>
      <button type="button" onClick=${() => location.reload()}>Load the console anew</button></p>
    <//>`;
  }
  return html`<${found} host=${host} name=${name} query=${query} />`;
}

const NAVIGATION = [
  { href: "/", label: "Fleet" },
  { href: "/deaths", label: "Deaths" },
  { href: "/accounts", label: "Accounts" },
  { href: "/work", label: "Work" },
  { href: "/circus", label: "Circus" },
];

function Navigation({ path }) {
  const page = pageAt(path)?.page;
  const within = page?.under ?? path;
  return html`<nav class="navigation" aria-label="Pages">
    ${NAVIGATION.map(({ href, label }) => html`
      <${Link} key=${href} href=${href} aria-current=${path === href ? "page" : within === href ? "true" : null}>
        ${label}
      <//>`)}
  </nav>`;
}

// What is wrong with the ways to the fleet, the worst first; null when nothing is.
function wrongs({ console: reached, first, hosts }) {
  if (!reached) return first ? { kind: "waiting", text: "Connecting" } : { kind: "bad", text: "Console gone" };
  const gone = hosts.filter((host) => !host.reachable);
  if (gone.length === 0) return null;
  const names = hosts.length > 1 ? gone.map(({ name }) => plain(name)).join(", ") : "circusd";
  return { kind: "bad", text: `${names} gone` };
}

function Connection() {
  const connection = useConnection();
  const wrong = wrongs(connection);
  const kind = wrong?.kind ?? "good";
  return html`<span class=${`connection connection-${kind}`} data-testid="connection" data-state=${kind}>
    <span class="connection-dot" aria-hidden="true"></span>
    <span role="status">${wrong?.text ?? "Live"}</span>
  </span>`;
}

// A reason that others have given, as the end of a sentence.
function sentence(text) {
  const line = plain(text);
  return line === "" || /[.!?]$/.test(line) ? line : `${line}.`;
}

// One banner for each thing that keeps the page from being true.
function Banners() {
  const { console: reached, first, since, hosts } = useConnection();
  if (first) return null;
  if (!reached) {
    return html`<div class="banner banner-bad" role="alert" data-testid="banner">
      <strong>The console does not answer</strong> since <${When} at=${since} />: what is shown is from then.
      It is tried again by itself.
    </div>`;
  }
  return hosts.map((host) => {
    const name = plain(host.name);
    if (!host.reachable) {
      return html`<div key=${host.name} class="banner banner-bad" role="alert" data-testid="banner">
        <strong>circusd on ${name} does not answer</strong>
        ${host.since ? html` since <${When} at=${host.since} />` : null}: ${sentence(host.why)}
        ${" "}Agents go on running; what is shown is from then.
      </div>`;
    }
    if (host.trouble) {
      return html`<div key=${host.name} class="banner banner-warn" role="status">
        <strong>circusd on ${name} is in trouble:</strong> ${told(host.trouble)}
      </div>`;
    }
    return null;
  });
}

const THEMES = { auto: ["◐", "as the system"], light: ["☀", "light"], dark: ["☾", "dark"] };
const NEXT_THEME = { auto: "light", light: "dark", dark: "auto" };

function ThemeButton() {
  const [choice, setChoice] = useState(document.documentElement.dataset.themeChoice ?? "auto");
  const [symbol, words] = THEMES[choice] ?? THEMES.auto;
  const next = () => {
    const chosen = NEXT_THEME[choice] ?? "auto";
    dispatchEvent(new CustomEvent("settheme", { detail: chosen }));
    setChoice(chosen);
  };
  return html`<button type="button" class="icon-button" onClick=${next} data-testid="theme"
    aria-label=${`Colours: ${words}. Change them`} title=${`Colours: ${words}`}>
    <span aria-hidden="true">${symbol}</span>
  </button>`;
}

function Who({ session }) {
  const about = useAbout();
  const leave = async () => {
    try {
      await signOut();
    } catch (error) {
      toast("Signed out here only", { kind: "error", detail: error.message });
    }
  };
  return html`
    <button type="button" class="who-button" popovertarget="who" aria-label=${`Signed in as ${session.role}`} data-testid="who">
      <span class=${`role role-${session.role}`}>${session.role === "viewer" ? "read-only" : session.role}</span>
    </button>
    <div id="who" class="who-menu" popover="auto">
      <p class="dim">${plain(about.who || session.who)}</p>
      <p class="dim">circus-failover ${plain(session.version)}</p>
      <button type="button" onClick=${leave} data-testid="sign-out">Sign out</button>
    </div>`;
}

function Header({ path, session, showKeys }) {
  return html`<header class="top">
    <${Link} href="/" class="brand" aria-label="circus-failover: the fleet">
      <${Mark} /><span>failover</span>
    <//>
    <${Navigation} path=${path} />
    <div class="top-end">
      <${Connection} />
      <button type="button" class="icon-button keys-button" onClick=${showKeys} aria-label="Keys" title="Keys (?)">
        <span aria-hidden="true">?</span></button>
      <${ThemeButton} />
      <${Who} session=${session} />
    </div>
  </header>`;
}

function Console() {
  const { path, query } = usePath();
  const session = useSession();
  const main = useRef(null);
  const [keys, setKeys] = useState(false);
  const [asked, setAsked] = useState(null); // why it is not known who is signed in
  const found = pageAt(path);
  const signingIn = found?.page.signedOut ?? false;

  useEffect(() => {
    if (session !== undefined) return undefined;
    let timer = null;
    const ask = () => readSession().catch((error) => {
      setAsked(error.message);
      timer = setTimeout(ask, 2000);
    });
    ask();
    return () => clearTimeout(timer);
  }, [session]);

  useEffect(() => {
    if (session) connect();
    if (session === null) disconnect();
    if (session === null && !signingIn) {
      const back = location.pathname + location.search;
      navigate("/sign-in" + (back === "/" ? "" : `?next=${encodeURIComponent(back)}`), { replace: true });
    }
  }, [session, signingIn]);

  // A reader with a screen reader or a keyboard begins at the top of the new page; the first page is the browser's.
  const shown = useRef(path);
  useLayoutEffect(() => {
    const parts = [found?.name, found?.page.title ?? "Not found", "circus-failover"];
    document.title = parts.filter(Boolean).map(plain).join(" · ");
    if (shown.current !== path) main.current?.focus({ preventScroll: true });
    shown.current = path;
  }, [path, session]);

  if (session === undefined) {
    return asked === null ? null : html`<p class="waiting" role="alert">${asked} It is tried again.</p>`;
  }
  if (signingIn) {
    return html`<main class="alone"><${Page} key="sign-in" ...${found} query=${query} /></main><${Toasts} />`;
  }
  if (session === null) return null;
  return html`
    <a class="skip" href="#main">Skip to the content</a>
    <${Header} path=${path} session=${session} showKeys=${() => setKeys(true)} />
    <${Banners} />
    <main id="main" ref=${main} tabindex="-1">
      ${found === null
        ? html`<${Trouble} title="No such page"><p>There is nothing at this address.</p>
            <p><${Link} href="/">To the fleet<//></p><//>`
        : html`<${Page} key=${path} ...${found} query=${query} />`}
    </main>
    <${Toasts} />
    <${Keys} open=${keys} setOpen=${setKeys} />`;
}

render(html`<${Console} />`, document.getElementById("app"));
