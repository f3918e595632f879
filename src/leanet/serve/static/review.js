// The page: keys, labels, filters, and how its parts hear of each other.

import { LabelQueue, ask } from "./server.js";
import { Details } from "./details.js";
import { Gallery } from "./gallery.js";
import { count_text, find, label_text, make, note } from "./page.js";
import { Models } from "./models.js";
import { Point } from "./point.js";
import { Viewer } from "./viewer.js";

const JUDGING = 1000, RESTING = 15000; // ms between questions about the server's state
const NAME = "leanet-who";
const FILTERS = { "by-verdict": "verdict", "by-label": "label", "by-kind": "kind", "by-source": "source" };

let state = null; // the last answer of /review/state
let timer = null;

const queue = new LabelQueue({ saved, refused, changed: show_unsaved });
const viewer = new Viewer();
const details = new Details({
  neighbor_found: (id, neighbor) => viewer.set_neighbor(id, neighbor),
  neighbor_wanted: () => viewer.set_mode("normal"),
});
const gallery = new Gallery({ chosen, counted: show_counted });
const point = new Point({ who, changed: everything_changed });
const models = new Models({ who, switched: everything_changed, job_changed: show_job });

// ---------------------------------------------------------------- state

async function load_state() {
  clearTimeout(timer);
  try {
    const before = state;
    state = await ask("/review/state");
    show_state();
    const judged = before?.judging.running && !state.judging.running;
    if (judged) await reload();
    if (before && before.model.name !== state.model.name) await everything_changed();
  } catch (error) {
    if (error.status !== 401) find("judging-text").textContent = error.message;
  }
  timer = setTimeout(load_state, state?.judging.running ? JUDGING : RESTING);
}

function show_state() {
  const { model, judging, counts } = state;
  find("run").textContent = state.run;
  find("model").textContent = `model: ${model.name}`;
  document.title = `${state.run} · review`;
  find("judging").hidden = !judging.running;
  find("judging-bar").max = judging.total || 1;
  find("judging-bar").value = judging.done;
  find("judging-text").textContent = `judging ${judging.done} of ${judging.total}`;
  find("unreadable").hidden = !judging.unreadable;
  find("unreadable").textContent = `${judging.unreadable} unreadable`;
  show_options("by-verdict", "Verdict", [["anomalous", "anomalous"], ["normal", "normal"], ["review", "review zone"]], counts.verdict);
  show_options("by-label", "Label", [["none", "no label"], ["ng", "NG"], ["ok", "OK"], ["unsure", "unsure"]], counts.label);
  show_options("by-kind", "Type", state.kinds.map((kind) => [kind, kind]), counts.kind);
  show_options("by-source", "Source", Object.keys(counts.source).map((source) => [source, source]), counts.source);
  find("empty").hidden = counts.all > 0 || judging.running;
  find("empty").textContent = "No pictures yet: drop some here, name folders with --images, or start with --keep to keep those of requests.";
  show_job(models.job ?? state.job);
  if (state.job?.state === "running" && !models.running) models.set_job(state.job);
}

function show_options(id, title, options, counts) {
  const select = find(id), chosen = select.value;
  const known = new Map(options);
  if (chosen && !known.has(chosen)) known.set(chosen, chosen);
  const made = [...known].map(([value, text]) => make("option", { value }, counts?.[value] === undefined ? text : `${text} (${counts[value]})`));
  select.replaceChildren(make("option", { value: "" }, title), ...made);
  select.value = chosen;
  select.classList.toggle("set", Boolean(chosen));
}

function show_job(job) {
  const count = state?.new_labels.total ?? 0;
  const button = find("open-models");
  button.classList.toggle("strong", count > 0 || job?.state === "running");
  if (job?.state === "running") button.textContent = `Training ${job.share === null ? "…" : `${Math.round(100 * job.share)} %`}`;
  else button.textContent = count ? `Retrain · ${count_text(count, "new label")}` : "Retrain";
}

// A new threshold or another model: every verdict may have changed.
async function everything_changed() {
  state = await ask("/review/state");
  show_state();
  await Promise.all([point.load(), reload()]);
  clearTimeout(timer);
  timer = setTimeout(load_state, JUDGING);
}

// ---------------------------------------------------------------- gallery

function query() {
  const words = new URLSearchParams({ order: find("order").value });
  for (const [id, name] of Object.entries(FILTERS)) if (find(id).value) words.set(name, find(id).value);
  const search = find("search").value.trim();
  if (search) words.set("search", search);
  return words.toString();
}

async function reload(keep = gallery.current?.id) {
  try {
    await gallery.load(query(), keep);
  } catch (error) {
    if (error.status !== 401) note(`The gallery did not arrive: ${error.message}`, "error");
  }
}

function chosen(item) {
  point.show(item?.score ?? null);
  find("place").textContent = item ? `${gallery.index + 1} / ${gallery.total}` : "";
  find("name").textContent = item?.name ?? "";
  find("name").title = item?.name ?? "";
  close_kinds();
  if (!item) {
    details.clear();
    return viewer.show(null, state.model);
  }
  viewer.show(item, state.model);
  details.show(item);
}

function show_counted() {
  const { label } = state.counts;
  const all = Math.max(state.counts.all, gallery.total); // more may have come since they were counted
  const labelled = all - (label.none ?? 0);
  find("counted").textContent = gallery.total === all
    ? `${count_text(all, "picture")}, ${labelled} labeled`
    : `${gallery.total.toLocaleString("en")} of ${count_text(all, "picture")}, ${labelled} labeled`;
  const gone = gallery.gone.size;
  find("refresh").hidden = !gone;
  find("refresh").textContent = `${gone} no longer here · refresh`;
}

// ---------------------------------------------------------------- labels

async function who() {
  const name = localStorage.getItem(NAME);
  if (name) return name;
  const dialog = find("ask-who");
  find("who-name").value = "";
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve, reject) => {
    dialog.addEventListener("close", () => {
      const given = localStorage.getItem(NAME);
      if (given) resolve(given);
      else reject(new Error("a label needs the name of who gives it"));
    }, { once: true });
  });
}

function show_who() {
  find("who").textContent = localStorage.getItem(NAME) || "who?";
}

async function label(word, kind = "") {
  const item = gallery.current;
  if (!item) return;
  const { id } = item;
  let name;
  try {
    name = await who();
  } catch (error) {
    return note(error.message, "error");
  }
  gallery.update(id, { label: word, kind, pending: true });
  queue.add({ id, label: word, kind, who: name });
  close_kinds();
  if (gallery.current?.id === id && gallery.index + 1 < gallery.total) gallery.move(1);
  else details.update(gallery.current);
}

async function undo() {
  try {
    queue.add({ undo: true, who: await who() });
  } catch (error) {
    note(error.message, "error");
  }
}

function saved(entry, answer) {
  const stands = answer.event;
  if (!stands) return note("nothing to undo");
  const item = gallery.update(stands.image, { label: stands.label, kind: stands.kind, pending: queue.has(stands.image) });
  gallery.leave(stands.image, !fits(stands));
  if (item) details.update(item);
  if (details.item?.id === stands.image) details.reload(stands.image);
  if (entry.undo) {
    note(`undone: ${item?.name ?? "a picture"} is ${label_text(stands.label, stands.kind)} again`);
    const place = gallery.place_of(stands.image);
    if (place >= 0) gallery.choose(place);
  }
  state.new_labels = answer.new_labels;
  state.counts = answer.counts;
  state.kinds = answer.kinds;
  show_state();
  show_counted();
  clearTimeout(saved.timer);
  saved.timer = setTimeout(() => point.load().catch(() => {}), 400);
}

function refused(entry, error) {
  note(`A label was refused and is not saved: ${error.message}`, "error");
  if (entry.id) reload(entry.id);
}

function fits({ label: word, kind }) {
  const by_label = find("by-label").value, by_kind = find("by-kind").value;
  return (!by_label || by_label === word) && (!by_kind || by_kind === kind);
}

function show_unsaved() {
  const { entries, trouble } = queue;
  const box = find("unsaved");
  box.hidden = !trouble;
  box.textContent = trouble ? `${count_text(entries.length, "label")} not saved yet (${trouble}); trying again` : "";
}

// ---------------------------------------------------------------- types

function open_kinds() {
  if (!gallery.current) return;
  find("kinds").hidden = false;
  find("kind").value = "";
  show_kinds();
  find("kind").focus();
}

function close_kinds() {
  if (find("kinds").hidden) return;
  find("kinds").hidden = true;
  find("grid").focus({ preventScroll: true });
}

function show_kinds() {
  const typed = find("kind").value.trim().toLowerCase();
  const kinds = state.kinds.filter((kind) => kind.toLowerCase().includes(typed)).slice(0, 9);
  find("kind-list").replaceChildren(...kinds.map((kind, k) =>
    make("li", {}, make("button", { class: "quiet", onclick: () => label("ng", kind) }, make("kbd", {}, String(k + 1)), ` ${kind}`))));
}

function key_in_kinds(event) {
  if (event.key === "Escape") close_kinds();
  else if (event.key === "Enter") label("ng", find("kind").value.trim());
  else if (/^[1-9]$/.test(event.key) && !find("kind").value) find("kind-list").children[event.key - 1]?.firstChild.click();
  else return;
  event.preventDefault();
  event.stopPropagation();
}

// ---------------------------------------------------------------- pictures from outside

async function upload(files) {
  if (!files.length) return;
  note(`judging ${count_text(files.length, "picture")} …`);
  let added = null;
  for (const file of files) { // one by one: the server limits what a request may hold
    const form = new FormData();
    form.append("file", file);
    try {
      added = (await ask("/review/upload", { method: "POST", form })).id;
    } catch (error) {
      note(`${file.name}: ${error.message}`, "error");
    }
  }
  await load_state();
  if (!added) return;
  await reload(added);
  if (gallery.current?.id !== added) {
    find("order").value = "newest";
    await reload(added);
  }
}

function listen_to_drops() {
  const box = find("drop");
  const has_files = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!has_files(event)) return;
    event.preventDefault();
    box.hidden = false;
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) box.hidden = true;
  });
  document.addEventListener("drop", (event) => {
    if (!has_files(event)) return;
    event.preventDefault();
    box.hidden = true;
    upload([...event.dataTransfer.files]);
  });
  find("upload").addEventListener("change", (event) => {
    upload([...event.target.files]);
    event.target.value = "";
  });
}

async function show_unreadable() {
  const { items } = await ask("/review/unreadable");
  find("unreadable-items").replaceChildren(...items.map(({ name, reason }) => make("li", {}, make("b", {}, name), ` ${reason}`)));
  find("unreadable-list").showModal();
}

// ---------------------------------------------------------------- keys and buttons

const KEYS = {
  j: () => gallery.move(1), ArrowRight: () => gallery.move(1),
  k: () => gallery.move(-1), ArrowLeft: () => gallery.move(-1),
  ArrowDown: () => gallery.move(gallery.columns), ArrowUp: () => gallery.move(-gallery.columns),
  o: () => label("ok"), n: () => label("ng"), u: () => label("unsure"),
  t: open_kinds, z: undo, h: () => viewer.toggle_map(),
  s: () => viewer.set_mode("side"), b: () => viewer.set_mode("normal"),
  "+": () => viewer.enlarge(1.25), "=": () => viewer.enlarge(1.25), "-": () => viewer.enlarge(0.8), 0: () => viewer.fit(),
  m: () => models.open(), "/": () => find("search").focus(), "?": () => find("help").showModal(),
};

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const field = event.target.closest("input, select, textarea");
  if (field && field.type !== "checkbox" && field.type !== "range") {
    if (event.key === "Escape") field.blur();
    return;
  }
  const action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

function listen() {
  document.addEventListener("keydown", key);
  find("kinds").addEventListener("keydown", key_in_kinds);
  find("kind").addEventListener("input", show_kinds);
  for (const button of document.querySelectorAll("[data-label]")) {
    button.addEventListener("click", () => label(button.dataset.label));
  }
  const clicks = {
    "open-kind": () => (find("kinds").hidden ? open_kinds() : close_kinds()), undo, previous: () => gallery.move(-1),
    next: () => gallery.move(1), "open-models": () => models.open(), model: () => models.open(),
    "open-help": () => find("help").showModal(), unreadable: show_unreadable, refresh: () => reload(),
    who: () => {
      find("who-name").value = localStorage.getItem(NAME) ?? "";
      find("ask-who").showModal();
    },
  };
  for (const [id, action] of Object.entries(clicks)) find(id).addEventListener("click", action);
  for (const id of ["order", ...Object.keys(FILTERS)]) {
    find(id).addEventListener("change", () => {
      find(id).classList.toggle("set", id !== "order" && Boolean(find(id).value));
      find("grid").focus({ preventScroll: true });
      reload();
    });
  }
  let typing = null;
  find("search").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => reload(), 250);
  });
  find("who-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = find("who-name").value.trim();
    if (name) localStorage.setItem(NAME, name);
    show_who();
    find("ask-who").close();
  });
  window.addEventListener("token-needed", () => find("ask-token").open || find("ask-token").showModal());
  find("token-form").addEventListener("submit", log_in);
}

async function log_in(event) {
  event.preventDefault();
  try {
    await ask("/login", { method: "POST", body: { token: find("token").value } });
    find("ask-token").close();
    find("token").value = "";
    await start();
  } catch (error) {
    find("token-error").textContent = error.message;
  }
}

async function start() {
  await load_state();
  if (!state) return;
  await Promise.all([point.load(), reload()]);
  queue.pump();
}

listen();
listen_to_drops();
show_who();
start();
