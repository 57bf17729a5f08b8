// What a person can ask for: the verbs of the arbiter as buttons, what is said before it hurts, and what came of it.
//
// Nothing is decided here: each button sends one verb to circusd and shows its answer, with circusd's own reason where
// it refuses. Somebody who may only look gets no buttons; where circusd does not answer they are disabled.
//
//   useCanAct(host)     -> {hidden, disabled, why}: whether this reader may act on this host, and can now
//   useVerb()           -> run(host, verb, properties, {what, quiet, inPlace}) -> the answer; null: refused, and a toast says why
//   VerbButton          {host, verb, properties, label, confirm, danger, primary, what, done, disabled, why, title}
//   ConfirmDialog       {title, label, danger, disabled, onConfirm, onCancel, children, wide}: a modal <dialog>
//   confirmed({title, sentence, label, danger}) -> Promise<boolean>: the same, asked from an event handler
//   openDialog((close) => vnode) shows a component in the top layer until it calls `close`
//   AgentActions        {host, agent, compact}: all verbs of an agent; compact: one button that opens a list of them

export { ConfirmDialog, Dialog, confirmed, openDialog } from "./dialogs.js";
export { VerbButton, useCanAct, useVerb } from "./verbs.js";
export { AgentActions } from "./agent_verbs.js";
export { TELL_SECS } from "./agent_forms.js";
