// The product's mark, drawn in the colours of the page.

import { html } from "./html.js";

export function Mark() {
  return html`<svg class="mark" viewBox="0 0 32 32" aria-hidden="true">
    <path d="M5 22 12 10l5 8 3.500-5L27 22" /><circle cx="27" cy="22" r="2.500" />
  </svg>`;
}
