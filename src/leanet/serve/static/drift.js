// Drift: what the last pictures look like against those of the training. Asks every few seconds.

import { draw, find, make, percent, when_text } from "./page.js";
import { ask } from "./server.js";

const EVERY = 4000; // ms
const WIDTH = 210, HEIGHT = 92, PAD = 6; // of a chart, in its own units

function state_of(status) {
  if (!status.baseline) return ["", "No baseline", status.reason];
  if (status.alarms.length)
    return ["alarm", "The pictures have changed", "This is no defect and changes no verdict. But the model has not learned from such pictures: look at lamp, lens and camera, and do not trust the verdicts as before."];
  if (status.pictures < 25)
    return ["", "Waiting for pictures", `${status.pictures} of the 25 that a first look needs have come.`];
  return ["calm", "Pictures like those of the training", `Nothing unusual in the last ${status.pictures} pictures.`];
}

function origin_text(origin) {
  if (origin.source === "accepted")
    return `compared with ${origin.images} pictures that ${origin.who} accepted as the baseline ${when_text(origin.at)}`;
  return `compared with ${origin.images} normal training pictures`;
}

function share_text({ count, usual, from }, of, words) {
  const told = usual === null ? "" : ` (${from} ${percent(usual)})`;
  return [make("b", {}, percent(of ? count / of : 0)), ` ${words}${told}`];
}

function alarm_item(alarm) {
  const words = alarm.words[0].toUpperCase() + alarm.words.slice(1);
  return make("li", {}, make("b", {}, words), make("span", { class: "muted" }, `since ${when_text(alarm.since)}, picture ${alarm.picture.toLocaleString("en")}`));
}

// The vertical range: values, band and, where they are near, the limits.
function range_of({ values, band, limits }) {
  const there = values.filter((value) => value !== null);
  let low = Math.min(...there, ...(band ?? [])), high = Math.max(...there, ...(band ?? []));
  const room = (high - low || Math.abs(high) || 1) * 0.12;
  low -= room;
  high += room;
  if (limits) {
    const reach = high - low;
    if (limits[0] > low - reach / 2) low = Math.min(low, limits[0] - room / 2);
    if (limits[1] < high + reach / 2) high = Math.max(high, limits[1] + room / 2);
  }
  return [low, high];
}

function chart(one, window) {
  const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  const [low, high] = range_of(one);
  const y = (value) => PAD + (1 - (value - low) / (high - low)) * (HEIGHT - 2 * PAD);
  if (one.band) {
    const top = y(one.band[1]), bottom = y(one.band[0]);
    svg.append(draw("rect", { class: "band", x: 0, width: WIDTH, y: top, height: Math.max(bottom - top, 1) }));
    svg.append(draw("line", { class: "usual", x1: 0, x2: WIDTH, y1: y(one.usual), y2: y(one.usual) }));
  }
  for (const limit of one.limits ?? [])
    if (limit > low && limit < high) svg.append(draw("line", { class: "limit", x1: 0, x2: WIDTH, y1: y(limit), y2: y(limit) }));
  const start = window - one.values.length;
  one.values.forEach((value, k) => {
    if (value === null) return;
    const out = one.limits && (value < one.limits[0] || value > one.limits[1]);
    svg.append(draw("circle", { cx: ((start + k + 0.5) / window) * WIDTH, cy: y(value), r: out ? 2.2 : 1.6, class: out ? "out" : "in" }));
  });
  return svg;
}

function card(one, window) {
  const unit = one.unit ? ` ${one.unit}` : "";
  const now = one.now_text === null ? "–" : `${one.now_text}${unit}`;
  const usual = one.usual_text === null ? "nothing to compare with yet" : `usually ${one.usual_text}${unit}`;
  const distance = one.distance === null || one.distance === undefined ? "" : ` · distance ${one.distance.toFixed(2)}`;
  const told = `${one.title}: ${now}, ${usual}${one.alarm ? ", changed" : ""}`;
  return make("figure", { class: one.alarm ? "card alarm" : "card", role: "group", "aria-label": told, "data-name": one.name },
    make("header", {}, make("h3", {}, one.title), make("span", { class: "now" }, now)),
    chart(one, window),
    make("p", { class: "distance" }, usual + distance));
}

function show(status) {
  const [kind, head, text] = state_of(status);
  find("model").textContent = `Drift · ${status.model}`;
  const state = find("state");
  state.className = `state ${kind}`;
  state.replaceChildren(make("b", {}, head), text);
  find("alarms").replaceChildren(...status.alarms.map(alarm_item));
  const facts = [`Last ${status.pictures} of ${status.seen.toLocaleString("en")} pictures`];
  if (status.baseline) facts.push(`, ${origin_text(status.baseline)}. `);
  if (status.baseline && status.pictures) {
    facts.push(...share_text(status.unusual, status.pictures, "of them beyond a limit"), "; ");
    facts.push(...share_text(status.anomalous, status.pictures, "judged anomalous"), ".");
  }
  find("facts").replaceChildren(...facts);
  const shown = status.quantities.filter((one) => one.values.some((value) => value !== null));
  find("charts").replaceChildren(...shown.map((one) => card(one, status.window)));
  find("legend").hidden = !shown.length;
  find("accept").disabled = status.pictures < status.window / 2;
  find("accept").title = find("accept").disabled ? `needs the last ${status.window / 2} pictures` : "";
  find("training").hidden = status.baseline?.source !== "accepted";
}

async function refresh(path = "/drift/status", options = {}) {
  try {
    show(await ask(path, options));
    find("error").textContent = "";
  } catch (error) {
    find("error").textContent = error.message;
  }
}

function confirm_then(path, { title, text, yes, named }) {
  const dialog = find("ask");
  find("ask-title").textContent = title;
  find("ask-text").textContent = text;
  find("ask-yes").textContent = yes;
  find("ask-who-label").hidden = !named;
  find("ask-who").value = localStorage.getItem("leanet-who") ?? "";
  dialog.onclose = () => {
    if (dialog.returnValue !== "yes") return;
    const who = find("ask-who").value.trim();
    refresh(path, { method: "POST", body: named ? { who } : undefined });
  };
  dialog.returnValue = "";
  dialog.showModal();
}

find("reset").addEventListener("click", () =>
  confirm_then("/drift/reset", { title: "Start over?", text: "The last pictures and all alarms are forgotten. The baseline stays.", yes: "Start over" }));
find("accept").addEventListener("click", () =>
  confirm_then("/drift/accept", { title: "Accept the last pictures?", text: "They become what later pictures are compared with. The model and its threshold stay as they are.", yes: "Accept", named: true }));
find("training").addEventListener("click", () =>
  confirm_then("/drift/training", { title: "Back to the training pictures?", text: "The accepted baseline is given up.", yes: "Go back", named: true }));
window.addEventListener("token-needed", () => location.assign("/"));

refresh();
setInterval(() => document.hidden || refresh(), EVERY);
