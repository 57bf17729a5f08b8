// Signing in: with the token, or with the one-time code that `failoverctl web` puts behind the # of the address,
// where no server and no log sees it.

import { html, useEffect, useRef, useState } from "../html.js";
import { navigate } from "../router.js";
import { readSession, signIn, useSession } from "../api.js";
import { Mark } from "../mark.js";

// Where to go afterwards: a path of this console, and nothing else that an address may be made to say.
function after(query) {
  const next = query.get("next") ?? "/";
  return /^\/(?![/\\])/.test(next) && !next.startsWith("/sign-in") ? next : "/";
}

export default function SignIn({ query }) {
  const session = useSession();
  const field = useRef(null);
  const [busy, setBusy] = useState(false);
  const [wrong, setWrong] = useState("");

  const enter = async (credentials) => {
    setBusy(true);
    setWrong("");
    try {
      await signIn(credentials);
    } catch (error) {
      const wait = error.retryAfter ? ` Try again in ${Math.ceil(error.retryAfter)} s.` : "";
      setWrong(error.message + wait);
      setBusy(false);
      field.current?.focus();
      field.current?.select();
    }
  };

  useEffect(() => {
    const code = new URLSearchParams(location.hash.slice(1)).get("code");
    if (!code) return;
    // Out of the address bar and the history before anything else.
    history.replaceState(null, "", location.pathname + location.search);
    enter({ code });
  }, []);

  // Somebody may have signed in by another page of this browser meanwhile.
  useEffect(() => {
    const shown = () => document.hidden || readSession().catch(() => {});
    document.addEventListener("visibilitychange", shown);
    return () => document.removeEventListener("visibilitychange", shown);
  }, []);

  useEffect(() => {
    if (session) navigate(after(query), { replace: true });
  }, [session]);

  const submit = (event) => {
    event.preventDefault();
    const token = field.current.value.trim();
    if (token) enter({ token });
  };
  return html`<section class="sign-in">
    <h1 class="brand"><${Mark} />circus-failover</h1>
    <form onSubmit=${submit}>
      <label for="token">Token</label>
      <input id="token" ref=${field} type="password" autocomplete="current-password" spellcheck=${false}
        autofocus required aria-invalid=${wrong ? "true" : null} aria-describedby="wrong hint" data-testid="sign-in-token" />
      <p id="wrong" class="wrong" role="alert" hidden=${!wrong}>${wrong}</p>
      <button type="submit" class="primary" disabled=${busy} data-testid="sign-in-submit">
        ${busy ? "Signing in…" : "Sign in"}</button>
    </form>
    <p id="hint" class="hint">On the console's host, <code>failoverctl web</code> opens this page signed in, and shows the
      token the first time. With <code>--read-only</code> it does so for somebody who only looks.</p>
  </section>`;
}
