// Small tools of the page: elements without innerHTML, numbers, words.

export const find = (id) => document.getElementById(id);

// An element; text and children are never read as HTML, for they may be names of files.
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";
export function draw(tag, properties = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(properties)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// Three or four figures that matter, whatever the size of the scores.
export function score_text(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e5)) return value.toExponential(2);
  return value.toFixed(size >= 100 ? 1 : size >= 10 ? 2 : size >= 0.1 ? 3 : 4);
}

export function percent(share) {
  if (share === null || share === undefined) return "–";
  const value = 100 * share;
  return `${value === 0 || value >= 9.95 ? value.toFixed(0) : value.toFixed(1)} %`;
}

export const interval_text = ({ low, high }) => `${percent(low).slice(0, -2)} to ${percent(high)}`;

export const LABEL_WORDS = { ok: "OK", ng: "NG", unsure: "unsure", none: "no label" };
export const label_text = (label, kind) => (kind ? `${LABEL_WORDS[label]} · ${kind}` : LABEL_WORDS[label] ?? label);

export function when_text(iso) {
  const date = new Date(iso);
  if (Number.isNaN(date.getTime())) return "";
  const today = date.toDateString() === new Date().toDateString();
  const time = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  return today ? time : `${date.toLocaleDateString()} ${time}`;
}

export const count_text = (n, one, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

export function note(text, kind = "") {
  const line = make("p", { class: `note ${kind}` }, text);
  find("notes").append(line);
  setTimeout(() => line.remove(), kind === "error" ? 9000 : 4000);
}
