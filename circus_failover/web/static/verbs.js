// The verbs of the arbiter: who may send one, sending it, and what came of it, in circusd's own words.

import { html, useCallback, useState } from "./html.js";
import { post, under } from "./api.js";
import { useConnection, useHost, useRole } from "./live.js";
import { plain } from "./format.js";
import { toast } from "./toast.js";
import { confirmed } from "./dialogs.js";

/** Whether this reader may act on a host, and whether circusd would hear it.
 *
 * @param {string} host the name of the host
 * @returns {{hidden: boolean, disabled: boolean, why: string}} `why` is a sentence where it is disabled
 */
export function useCanAct(host) {
  const role = useRole();
  const there = useConnection().console;
  const reachable = Boolean(useHost(host)?.reachable);
  let why = "";
  if (!there) why = "The console does not answer: nothing can be asked now";
  else if (!reachable) why = `circusd on ${plain(host)} does not answer: nothing can be asked of it now`;
  return { hidden: role !== "operator", disabled: why !== "", why };
}

/** A function that sends a verb and says what came of it: run(host, verb, properties, {what, quiet, inPlace}).
 *
 * `what` names for people what is done, as in "park alpha"; `quiet` says nothing of a success. It resolves to
 * circusd's answer, or to null when it was refused or could not be asked; with `inPlace` it rejects then, with an
 * error that says why: what a dialog covers could not be read.
 */
export function useVerb() {
  return useCallback(run, []);
}

async function run(host, verb, properties, { what, quiet, inPlace } = {}) {
  const did = what || verb;
  try {
    const answer = await post(under("hosts", host, "verbs", verb), properties ?? {});
    if (!quiet) toast(`${did}: ${came(answer)}`, { kind: "ok" });
    return answer;
  } catch (error) {
    if (inPlace) throw new Error(reasonOf(error));
    toast(`${did}: ${reasonOf(error)}`, { kind: "error" });
    return null;
  }
}

/** Why a verb came to nothing, in circusd's words where it has answered. */
export function reasonOf(error) {
  return plain(error.answer?.reason || error.message || "no answer");
}

/** What a verb's answer says, as one line. */
function came(answer) {
  if (answer && Array.isArray(answer.agents) && answer.agents.length) {
    return answer.agents.map(verdict).join("; ");
  }
  if (answer && answer.assignment) return `assignment ${plain(answer.assignment.id)} is ${plain(answer.assignment.state)}`;
  if (answer && answer.deleted) {
    const parts = Object.entries(answer.deleted).filter(([, number]) => number);
    return `deleted ${parts.map(([name, number]) => `${plain(name)} ${number}`).join(", ") || "nothing"}`;
  }
  return "done";
}

function verdict(one) {
  let line = one.already ? `already ${plain(one.phase)}` : plain(one.phase);
  if (one.generation) line += ` (generation ${one.generation})`;
  if (one.reason) line += `: ${plain(one.reason)}`;
  if (one.tasks_note) line += `; ${plain(one.tasks_note)}`;
  return line;
}

/** A button that sends a verb.
 *
 * @param {object} props host; verb; properties; label; what (for the toast, else the label); confirm: what will
 *   happen, in words, asked before, or null; danger; primary; disabled and why: beside what the host says;
 *   done(answer): called after circusd has agreed
 */
export function VerbButton(props) {
  const { host, verb, properties, label, confirm, danger, primary, done, title } = props;
  const can = useCanAct(host);
  const send = useVerb();
  const [busy, setBusy] = useState(false);
  if (can.hidden) return null;
  const click = async () => {
    const what = props.what || label;
    if (confirm && !(await confirmed({ title: `${what}?`, sentence: confirm, label, danger }))) return;
    setBusy(true);
    const answer = await send(host, verb, properties, { what });
    setBusy(false);
    if (answer && done) done(answer);
  };
  const cannot = can.disabled ? can.why : props.disabled ? props.why || "" : "";
  return html`
    <button
      type="button"
      class=${`button${danger ? " danger" : ""}${primary ? " primary" : ""}`}
      data-testid=${`verb-${verb}`}
      disabled=${can.disabled || props.disabled || busy}
      aria-busy=${busy ? "true" : null}
      title=${cannot || title || null}
      onClick=${click}
    >
      ${label}
    </button>
  `;
}
