// The gallery: of thousands of pictures only those in sight are elements of the page.

import { address, ask } from "./server.js";
import { LABEL_WORDS, find, make, score_text } from "./page.js";

const PAGE = 60; // pictures per request
const MOST_PAGES = 14; // kept in memory
const LEAST_CELL = 104, CAPTION = 36, GAP = 8; // px
const AHEAD = 2; // rows drawn above and below

export class Gallery {
  constructor({ chosen, counted }) {
    this.told = { chosen, counted };
    this.scroller = find("grid");
    this.sheet = find("sheet");
    this.pages = new Map(); // number of page -> items, the most recently used last
    this.asked = new Set();
    this.cells = new Map(); // index -> element
    this.query = "";
    this.total = 0;
    this.index = -1;
    this.gone = new Map(); // id -> index: pictures that no longer fit the filter; they stay in sight
    this.turn = 0; // answers to an earlier query are dropped
    this.scroller.addEventListener("scroll", () => this.render());
    new ResizeObserver(() => this.render(true)).observe(this.scroller);
  }

  // Show what fits a query (the text behind ?), and choose `keep` or the first.
  async load(query, keep = null) {
    this.turn += 1;
    this.query = query;
    this.pages.clear();
    this.asked.clear();
    this.gone.clear();
    const turn = this.turn;
    const answer = await ask(`/review/gallery?${query}&offset=0&limit=${PAGE}`);
    if (turn !== this.turn) return;
    this.total = answer.total;
    this.pages.set(0, answer.items);
    this.index = -1;
    this.scroller.scrollTop = 0;
    this.clear();
    this.render(true);
    this.told.counted();
    const found = keep ? answer.items.findIndex((item) => item.id === keep) : -1;
    this.choose(this.total ? Math.max(found, 0) : -1);
  }

  item(index) {
    return this.pages.get(Math.floor(index / PAGE))?.[index % PAGE] ?? null;
  }

  get current() {
    return this.index < 0 ? null : this.item(this.index);
  }

  place_of(id) {
    for (const [number, items] of this.pages) {
      const k = items.findIndex((item) => item.id === id);
      if (k >= 0) return number * PAGE + k;
    }
    return -1;
  }

  async choose(index) {
    if (index >= this.total) return;
    this.index = index;
    if (index < 0) return this.told.chosen(null);
    this.into_sight(index);
    this.render();
    if (!this.item(index)) await this.fetch(Math.floor(index / PAGE));
    if (this.index === index && this.item(index)) this.told.chosen(this.item(index));
  }

  move(step) {
    if (!this.total) return;
    this.choose(Math.min(Math.max(this.index + step, 0), this.total - 1));
  }

  get columns() {
    return this.shape().columns;
  }

  // Change what is known of a picture, wherever it stands.
  update(id, changes) {
    const index = this.place_of(id);
    if (index < 0) return null;
    const item = Object.assign(this.item(index), changes);
    this.cells.get(index)?.remove();
    this.cells.delete(index);
    this.render();
    return item;
  }

  // Later pages are asked for as the server counts them: without those that have left the filter.
  leave(id, is_gone) {
    const index = this.place_of(id);
    if (is_gone && index >= 0) this.gone.set(id, index);
    else this.gone.delete(id);
  }

  async fetch(number) {
    if (this.asked.has(number)) return;
    this.asked.add(number);
    const turn = this.turn, start = number * PAGE;
    const before = [...this.gone.values()].filter((index) => index < start).length;
    try {
      const offset = Math.max(start - before, 0);
      const answer = await ask(`/review/gallery?${this.query}&offset=${offset}&limit=${PAGE}`);
      if (turn !== this.turn) return;
      this.pages.set(number, answer.items);
      while (this.pages.size > MOST_PAGES) this.forget(number);
      this.render();
    } finally {
      this.asked.delete(number);
    }
  }

  forget(newest) {
    const here = Math.floor(Math.max(this.index, 0) / PAGE);
    const oldest = [...this.pages.keys()].find((number) => number !== here && number !== newest);
    this.pages.delete(oldest);
  }

  shape() {
    const width = this.scroller.clientWidth - GAP;
    const columns = Math.max(1, Math.floor(width / (LEAST_CELL + GAP)));
    const side = Math.floor(width / columns) - GAP;
    return { columns, side, row: side + CAPTION + GAP };
  }

  into_sight(index) {
    const { columns, row } = this.shape();
    const top = Math.floor(index / columns) * row, height = this.scroller.clientHeight;
    if (top < this.scroller.scrollTop) this.scroller.scrollTop = top;
    const lowest = top + row + GAP - height;
    if (lowest > this.scroller.scrollTop) this.scroller.scrollTop = lowest;
  }

  clear() {
    for (const cell of this.cells.values()) cell.remove();
    this.cells.clear();
  }

  render(anew = false) {
    const { columns, side, row } = this.shape();
    if (anew) this.clear();
    this.sheet.style.height = `${Math.ceil(this.total / columns) * row + GAP}px`;
    const first_row = Math.floor(this.scroller.scrollTop / row) - AHEAD;
    const last_row = Math.ceil((this.scroller.scrollTop + this.scroller.clientHeight) / row) + AHEAD;
    const first = Math.max(first_row * columns, 0);
    const last = Math.min(last_row * columns, this.total);
    for (const [index, cell] of this.cells) {
      if (index >= first && index < last) continue;
      cell.remove();
      this.cells.delete(index);
    }
    for (let index = first; index < last; index += 1) this.show(index, { columns, side, row });
    this.mark();
  }

  show(index, { columns, side, row }) {
    if (this.cells.has(index)) return;
    const item = this.item(index);
    if (!item) return void this.fetch(Math.floor(index / PAGE));
    const cell = thumbnail(item, index, this.gone.has(item.id));
    cell.style.left = `${GAP + (index % columns) * (side + GAP)}px`;
    cell.style.top = `${GAP + Math.floor(index / columns) * row}px`;
    cell.style.width = `${side}px`;
    cell.firstChild.style.height = `${side}px`;
    cell.addEventListener("click", () => this.choose(index));
    this.sheet.append(cell);
    this.cells.set(index, cell);
  }

  mark() {
    this.sheet.querySelector("[aria-selected=true]")?.setAttribute("aria-selected", "false");
    const cell = this.cells.get(this.index);
    cell?.setAttribute("aria-selected", "true");
    if (cell) this.scroller.setAttribute("aria-activedescendant", cell.id);
  }
}

function thumbnail(item, index, gone) {
  const picture = make("img", { src: address.thumb(item.id), alt: "", loading: "lazy", draggable: "false" });
  const labeled = item.label && item.label !== "none";
  const badge = labeled ? make("b", { class: `badge ${item.label}` }, item.kind || LABEL_WORDS[item.label]) : "";
  const waits = item.pending ? make("b", { class: "badge waits", title: "not saved yet" }, "…") : "";
  const word = verdict_word(item);
  return make(
    "div",
    {
      class: `cell ${item.verdict ?? ""} ${item.review ? "review" : ""} ${gone ? "gone" : ""}`,
      id: `cell-${index}`,
      role: "option",
      "aria-selected": "false",
      "aria-label": `${item.name}, ${word} ${score_text(item.score)}${labeled ? `, labeled ${LABEL_WORDS[item.label]}` : ""}`,
      title: `${item.name}${item.probability === null ? "" : `\nprobability of a defect ${item.probability.toFixed(3)}`}`,
    },
    make("div", { class: "frame" }, picture, badge, waits),
    make("div", { class: "caption" }, make("span", { class: "word" }, word), make("span", {}, caption(item))),
  );
}

function caption(item) {
  if (item.score === null) return "";
  return score_text(item.score) + (item.probability === null ? "" : ` · ${Math.round(100 * item.probability)} %`);
}

// The model's word, with a question mark where a person should look.
export function verdict_word(item) {
  if (item.verdict) return item.verdict + (item.review ? "?" : "");
  return item.predicted || (item.judged ? "no verdict" : "waiting");
}
