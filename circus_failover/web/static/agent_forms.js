// The forms of an agent's verbs that need more than a yes: each says what will happen, sends one verb, and stays open
// with what was typed when circusd refuses it.

import { html, useEffect, useState } from "./html.js";
import { get, post, under } from "./api.js";
import { plain } from "./format.js";
import { ConfirmDialog } from "./dialogs.js";
import { reasonOf, useVerb } from "./verbs.js";

/** Send a verb from a form, and close it when circusd has agreed: what was typed is not lost otherwise. */
function useForm(host, close) {
  const send = useVerb();
  return async (verb, properties, what) => {
    if (await send(host, verb, properties, { what, inPlace: true })) close();
  };
}

function TaskField({ label, value, onInput, required, id }) {
  return html`
    <label class="field" for=${id}>${label}</label>
    <textarea
      id=${id}
      data-testid="text"
      data-first
      rows="5"
      required=${required}
      value=${value}
      onInput=${(event) => onInput(event.target.value)}
      onKeyDown=${(event) => {
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) event.target.form.requestSubmit();
      }}
    ></textarea>
  `;
}

function Field({ label, value, onInput, id, hint }) {
  return html`
    <label class="field" for=${id}>${label}</label>
    <input id=${id} type="text" value=${value} autocomplete="off" onInput=${(event) => onInput(event.target.value)} />
    ${hint ? html`<p class="hint">${hint}</p>` : null}
  `;
}

export function WakeForm({ host, agent, close }) {
  const [task, setTask] = useState("");
  const [topic, setTopic] = useState("");
  const [mode, setMode] = useState("nothing");
  const submit = useForm(host, close);
  const name = plain(agent.identity);
  const wake = () => {
    const properties = { names: [agent.identity], mode };
    if (task.trim()) properties.task = task;
    if (topic.trim()) properties.topic = topic.trim();
    return submit("wake", properties, `wake ${name}`);
  };
  const choice = (value, label) => html`
    <label class="choice">
      <input type="radio" name="mode" value=${value} checked=${mode === value} onChange=${() => setMode(value)} />
      ${label}
    </label>
  `;
  return html`
    <${ConfirmDialog} title=${`Wake ${name}`} label="Wake" onConfirm=${wake} onCancel=${close}>
      <${TaskField} id="wake-task" label="Task for it (optional)" value=${task} onInput=${setTask} />
      <p class="hint">A task is queued first, and typed when the agent is ready. It stays queued when the wake fails.</p>
      <${Field} id="wake-topic" label="Topic (optional)" value=${topic} onInput=${setTopic} />
      <fieldset class="choices">
        <legend>Conversation</legend>
        ${choice("nothing", "as its last end decides")}${choice("resume", "go on with the last one, or fail")}
        ${choice("fresh", "begin a new one")}
      </fieldset>
    <//>
  `;
}

/** How long a text has to arrive, in seconds; circusd needs some of them to say what became of it. */
export const TELL_SECS = 20;

export function TellForm({ host, agent, close }) {
  const [text, setText] = useState("");
  const submit = useForm(host, close);
  const name = plain(agent.identity);
  const tell = () => submit("tell", { name: agent.identity, text, secs: TELL_SECS }, `tell ${name}`);
  return html`
    <${ConfirmDialog}
      title=${`Tell ${name}`}
      label="Send"
      disabled=${!text.trim()}
      onConfirm=${tell}
      onCancel=${close}
    >
      <${TaskField} id="tell-text" label="What it is told" value=${text} onInput=${setText} required />
      <p class="hint">
        It is typed into its terminal when it takes input. What has not arrived within ${TELL_SECS} s is not typed at
        all, and the answer says why.
      </p>
    <//>
  `;
}

export function AssignForm({ host, agent, close }) {
  const [task, setTask] = useState("");
  const [topic, setTopic] = useState("");
  const [id, setId] = useState("");
  const submit = useForm(host, close);
  const name = plain(agent.identity);
  const assign = () => {
    const properties = { name: agent.identity, task };
    if (id.trim()) properties.id = id.trim();
    if (topic.trim()) properties.topic = topic.trim();
    return submit("assign", properties, `assign to ${name}`);
  };
  return html`
    <${ConfirmDialog}
      title=${`Give work to ${name}`}
      label="Assign"
      disabled=${!task.trim()}
      onConfirm=${assign}
      onCancel=${close}
    >
      <${TaskField} id="assign-task" label="What it is told" value=${task} onInput=${setTask} required />
      <${Field} id="assign-topic" label="Topic (optional)" value=${topic} onInput=${setTopic} />
      <${Field}
        id="assign-id"
        label="Id (optional)"
        value=${id}
        onInput=${setId}
        hint="The same id with the same text is not given twice."
      />
    <//>
  `;
}

export function RemoveForm({ host, agent, close }) {
  const [lives, setLives] = useState(false);
  const submit = useForm(host, close);
  const name = plain(agent.identity);
  const remove = () => submit("rm", { name: agent.identity, nostop: lives }, `remove ${name}`);
  return html`
    <${ConfirmDialog} title=${`Remove ${name}?`} label="Remove" danger onConfirm=${remove} onCancel=${close}>
      <p>
        ${lives
          ? `${name} is let go of: its watcher is removed, and its program lives on unsupervised.`
          : `${name} is ended and its watcher removed. ${CUT_OFF} Its queued tasks are cancelled, its assignment goes ` +
            "back to its pool or to a person."}
        ${" "}Its history stays. While its section is still in circus.ini it can be started again.
      </p>
      <label class="choice">
        <input type="checkbox" checked=${lives} onChange=${(event) => setLives(event.target.checked)} />
        let its program live on
      </label>
    <//>
  `;
}

export function PurgeForm({ host, agent, close }) {
  const [typed, setTyped] = useState("");
  const submit = useForm(host, close);
  const name = plain(agent.identity);
  const purge = () => submit("purge", { name: agent.identity }, `purge ${name}`);
  return html`
    <${ConfirmDialog}
      title=${`Purge ${name}?`}
      label="Purge"
      danger
      disabled=${typed !== agent.identity}
      onConfirm=${purge}
      onCancel=${close}
    >
      <p>
        All that is remembered of ${name} is deleted for good: its launches, history, intents, tasks and pane logs.
        circusd refuses it for an agent that runs, or that a section of circus.ini names.
      </p>
      <${Field} id="purge-name" label=${`Type ${name} to confirm`} value=${typed} onInput=${setTyped} />
    <//>
  `;
}

/** Choose an account, see what is in the way, then switch. */
export function SwitchForm({ host, agent, close }) {
  const [accounts, setAccounts] = useState(null);
  const [trouble, setTrouble] = useState("");
  const [to, setTo] = useState("");
  const [force, setForce] = useState(false);
  const [preview, setPreview] = useState(null);
  const submit = useForm(host, close);
  const name = plain(agent.identity);

  useEffect(() => {
    get(under("hosts", host, "accounts")).then(
      (answer) => setAccounts(answer.accounts),
      (error) => setTrouble(reasonOf(error)),
    );
  }, []);

  useEffect(() => {
    // A dry run of another choice may be answered later than this one's.
    let current = true;
    setPreview(null);
    setTrouble("");
    if (!to) return undefined;
    const asked = { names: [agent.identity], to, force, dry_run: true };
    post(under("hosts", host, "verbs", "switch"), asked).then(
      (answer) => current && setPreview(answer.agents[0]),
      (error) => {
        const verdicts = error.answer && error.answer.agents;
        if (!current) return;
        if (verdicts && verdicts.length) setPreview(verdicts[0]);
        else setTrouble(reasonOf(error));
      },
    );
    return () => void (current = false);
  }, [to, force]);

  const change = () => submit("switch", { names: [agent.identity], to, force }, `switch ${name} to ${plain(to)}`);
  const usable = (accounts || []).filter((one) => !one.runtime || one.runtime === agent.runtime);
  const other = (accounts || []).length - usable.length;
  return html`
    <${ConfirmDialog}
      title=${`Switch ${name} to another account`}
      label="Switch"
      danger=${Boolean(preview && preview.ok && force)}
      disabled=${!preview || !preview.ok || preview.already}
      onConfirm=${change}
      onCancel=${close}
      wide
    >
      <label class="field" for="switch-to">Account</label>
      <select
        id="switch-to"
        data-testid="switch-to"
        data-first
        disabled=${!accounts}
        value=${to}
        onChange=${(event) => setTo(event.target.value)}
      >
        <option value="">${accounts ? "choose one" : "asking circusd …"}</option>
        ${usable.map((one) => html`<option key=${one.name} value=${one.name}>${accountLine(one, agent)}</option>`)}
      </select>
      ${other ? html`<p class="hint">Accounts of other runtimes: ${other}; no agent can go there.</p>` : null}
      ${accounts && !usable.length ? html`<p>No account of runtime ${plain(agent.runtime)} is configured.</p>` : null}
      <label class="choice">
        <input type="checkbox" checked=${force} onChange=${(event) => setForce(event.target.checked)} />
        also when nothing can be done on it, or it is full
      </label>
      <div class="preview" aria-live="polite" data-testid="switch-preview">
        ${trouble ? html`<p class="trouble">${trouble}</p>` : null}
        ${to && !preview && !trouble ? html`<p>Looking what is in the way …</p>` : null}
        ${preview ? html`<${Preview} found=${preview} agent=${agent} to=${to} />` : null}
      </div>
    <//>
  `;
}

function accountLine(one, agent) {
  const parts = [plain(one.name), plain(one.state)];
  if (one.name === agent.account) parts.push("it is on this one");
  if (typeof one.headroom === "number") parts.push(`${Math.round(one.headroom * 100)} % left`);
  const most = one.max_agents == null ? "" : ` of ${one.max_agents}`;
  parts.push(`agents: ${(one.running || []).length}${most}`);
  return parts.join(", ");
}

/** What a dry run of a switch has found. */
function Preview({ found, agent, to }) {
  if (found.already) return html`<p>Nothing to do: it is on ${plain(to)} already.</p>`;
  const hindrances = found.hindrances || (found.ok ? [] : [found.reason]);
  if (!found.ok) {
    return html`
      <p><strong>It would be refused</strong>, and nothing ended:</p>
      <ul>
        ${hindrances.map((one) => html`<li>${plain(one)}</li>`)}
      </ul>
    `;
  }
  const runs = ["up", "starting"].includes(agent.phase);
  return html`
    <p>
      <strong>Nothing is in the way.</strong>${" "}
      ${runs
        ? `It is ended, and resumes its conversation on ${plain(to)}; a turn that is cut off goes on there.`
        : `It is ${plain(agent.phase)}: its next launch is on ${plain(to)}.`}
    </p>
  `;
}
