// What the page asks of the server, and the queue that brings every label home.

export class ServerError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// A JSON answer; throws ServerError (status 0: no connection). 401 asks for the token first.
export async function ask(path, { method = "GET", body, form } = {}) {
  const options = { method, headers: {}, credentials: "same-origin", cache: "no-store" };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  if (form) options.body = form;
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new ServerError(0, "the server does not answer");
  }
  if (answer.status === 401) window.dispatchEvent(new Event("token-needed"));
  const content = await answer.json().catch(() => ({}));
  if (answer.ok) return content;
  throw new ServerError(answer.status, message_of(content) || `the server answered ${answer.status}`);
}

function message_of(content) {
  const detail = content.detail ?? content.error ?? "";
  if (Array.isArray(detail)) return detail.map((one) => one.msg).join("; ");
  return typeof detail === "string" ? detail : detail.message ?? "";
}

export const address = {
  thumb: (id) => `/review/images/${id}/thumb`,
  picture: (id) => `/review/images/${id}/picture`,
  overlay: (id, model) => `/review/images/${id}/overlay?model=${encodeURIComponent(model)}`,
};

const KEPT = "leanet-unsaved";
const FIRST_WAIT = 700, LONGEST_WAIT = 15000; // ms between attempts

// Labels on their way, in order, one at a time. They stay in localStorage until the server has said
// that it has them, so that neither a reload nor a lost connection loses one. Each carries a key of
// its own: sent twice, it is stored once.
export class LabelQueue {
  constructor({ saved, refused, changed }) {
    this.told = { saved, refused, changed };
    this.entries = kept();
    this.busy = false;
    this.wait = FIRST_WAIT;
    this.trouble = "";
    window.addEventListener("online", () => this.pump());
    window.addEventListener("beforeunload", (event) => {
      if (this.entries.length) event.preventDefault();
    });
  }

  add(entry) {
    this.entries.push({ ...entry, key: key_of() });
    this.keep();
    this.pump();
  }

  has(id) {
    return this.entries.some((entry) => entry.id === id);
  }

  async pump() {
    if (this.busy || !this.entries.length) return;
    this.busy = true;
    const entry = this.entries[0];
    try {
      const path = entry.undo ? "/review/undo" : "/review/labels";
      const answer = await ask(path, { method: "POST", body: entry });
      this.done();
      this.told.saved(entry, answer);
    } catch (error) {
      if (for_good(error)) {
        this.done();
        this.told.refused(entry, error);
      } else {
        this.trouble = error.message;
        this.told.changed();
        setTimeout(() => this.pump(), this.wait);
        this.wait = Math.min(2 * this.wait, LONGEST_WAIT);
      }
    }
    this.busy = false;
    if (!this.trouble) this.pump();
  }

  done() {
    this.entries.shift();
    this.trouble = "";
    this.wait = FIRST_WAIT;
    this.keep();
  }

  keep() {
    localStorage.setItem(KEPT, JSON.stringify(this.entries));
    this.told.changed();
  }
}

function key_of() { // randomUUID is there on https and localhost alone
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (n) => n.toString(16).padStart(2, "0")).join("");
}

function for_good(error) { // asking again would change nothing
  return error.status >= 400 && error.status < 500 && ![401, 408, 429].includes(error.status);
}

function kept() {
  try {
    const entries = JSON.parse(localStorage.getItem(KEPT) ?? "[]");
    return Array.isArray(entries) ? entries : [];
  } catch {
    return [];
  }
}
