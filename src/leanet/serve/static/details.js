// The right column: what the model says of the chosen picture, what people said, the nearest normal.

import { ask } from "./server.js";
import { find, label_text, make, note, score_text, when_text } from "./page.js";
import { verdict_word } from "./gallery.js";

const AGAIN = 4000; // ms until the nearest normal picture is asked for again

export class Details {
  constructor({ neighbor_found, neighbor_wanted }) {
    this.told = { neighbor_found, neighbor_wanted };
    this.root = find("details");
    this.known = null; // the full answer for the chosen picture
    this.neighbor = make("div", { class: "neighbor" });
  }

  clear() {
    this.known = null;
    this.root.replaceChildren();
  }

  // At once what the gallery knows, then the rest.
  async show(item) {
    this.item = item;
    this.known = null;
    this.neighbor.replaceChildren(make("p", { class: "muted" }, "looking …"));
    this.build();
    await this.reload(item.id);
    if (this.item.id === item.id) this.find_neighbor(item.id);
  }

  async reload(id) {
    try {
      const known = await ask(`/review/images/${id}`);
      if (this.item?.id !== id) return;
      this.known = known;
      this.build();
    } catch (error) {
      note(`What is known of this picture did not arrive: ${error.message}`, "error");
    }
  }

  update(item) {
    if (this.item?.id !== item.id) return;
    this.item = item;
    this.build();
  }

  build() {
    const { item, known } = this;
    this.root.replaceChildren(
      verdict_of(item, known),
      label_of(item),
      parts_of(item),
      section("Nearest normal picture", this.neighbor),
      known ? history_of(known) : "",
      known ? origin_of(item, known) : "",
    );
  }

  async find_neighbor(id) {
    let found;
    try {
      found = await ask(`/review/images/${id}/nearest`);
    } catch (error) {
      found = { items: [], why: error.message };
    }
    if (this.item?.id !== id) return;
    if (!found.items.length && !found.why) { // the server may still be describing them
      clearTimeout(this.later);
      this.later = setTimeout(() => this.item?.id === id && this.find_neighbor(id), AGAIN);
    }
    const first = found.items[0];
    const neighbor = first
      ? { address: `/review/images/${id}/nearest/0?of=${encodeURIComponent(found.model)}`, name: first.name, why: "" }
      : { address: null, name: "", why: found.why || "not known yet" };
    this.neighbor.replaceChildren(
      first
        ? make("button", { class: "plain-picture", title: "Show beside (b)", onclick: this.told.neighbor_wanted },
          make("img", { src: neighbor.address, alt: `nearest normal picture, ${first.name}`, loading: "lazy" }))
        : make("p", { class: "muted" }, neighbor.why),
      first ? make("p", { class: "muted small" }, `${first.name} · distance ${score_text(first.distance)}`) : "",
    );
    this.told.neighbor_found(id, neighbor);
  }
}

function section(title, ...children) {
  return make("section", {}, make("h3", {}, title), ...children);
}

function verdict_of(item, known) {
  const word = verdict_word(item).replace("?", "");
  const facts = [];
  if (item.score !== null) facts.push(`score ${score_text(item.score)}`);
  if (known?.threshold !== null && known?.threshold !== undefined) facts.push(`threshold ${score_text(known.threshold)}`);
  const chance = item.probability === null ? "" : make("p", { class: "chance" }, `${(100 * item.probability).toFixed(1)} % probability of a defect`);
  return make(
    "div",
    { class: `verdict ${item.verdict ?? ""}` },
    make("p", { class: "word" }, word, item.review ? make("span", { class: "tag" }, "review zone") : ""),
    make("p", { class: "muted" }, facts.join(" · ")),
    chance,
    item.predicted ? make("p", {}, `predicted: ${item.predicted}`) : "",
  );
}

function label_of(item) {
  const label = item.label && item.label !== "none" ? item.label : null;
  const state = item.pending ? make("span", { class: "tag waits" }, "saving …") : "";
  return make("p", { class: "labelled" }, "Label ", make("b", { class: label ? `badge ${label}` : "badge none" },
    label ? label_text(label, item.kind) : "none yet"), state);
}

function parts_of(item) {
  const parts = Object.entries(item.parts ?? {});
  if (!parts.length) return "";
  const most = parts.reduce((a, [, value]) => Math.max(a, Math.abs(value)), 0) || 1;
  const are_shares = parts.every(([, value]) => value >= 0 && value <= 1);
  const rows = parts.map(([name, value]) => {
    const bar = make("i");
    bar.style.width = are_shares ? `${100 * value}%` : `${(100 * Math.abs(value)) / most}%`;
    return make("tr", {}, make("th", {}, name), make("td", { class: "n" }, score_text(value)), are_shares ? make("td", { class: "bars" }, bar) : "");
  });
  return section("Parts of the score", make("table", { class: "parts" }, make("tbody", {}, ...rows)));
}

function history_of(known) {
  if (!known.history.length) return "";
  const rows = known.history.map((event) =>
    make("li", {}, make("b", {}, event.undoes ? `undo: ${label_text(event.label, event.kind)}` : label_text(event.label, event.kind)),
      make("span", { class: "muted" }, ` ${event.who}, ${when_text(event.when)}`)));
  return section("History of labels", make("ol", { class: "history" }, ...rows));
}

function origin_of(item, known) {
  const lines = [["Size", `${item.width} × ${item.height} px`], ["Source", known.source], ["Folder", known.folder], ["Added", when_text(known.added)], ["Judged by", known.model]];
  const list = lines.filter(([, value]) => value).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]);
  const learned = known.learned ? make("p", { class: "muted small" }, "The live model has learned from this picture, so its score flatters.") : "";
  return section("Origin", make("dl", { class: "origin" }, ...list), learned);
}
