// The working point: both distributions of scores, the threshold on them, and what it would miss.

import { ask } from "./server.js";
import { draw, find, interval_text, note, percent, score_text } from "./page.js";

const BINS = 60, MARGIN = 10, RUG_MOST = 150;

export class Point {
  constructor({ who, changed }) {
    this.told = { who, changed };
    this.svg = find("chart");
    this.scores = null; // {normal, anomalous, intervals: {normal, anomalous}, note}, scores ascending
    this.stored = { threshold: null, review: null };
    this.now = { threshold: null, review: null };
    this.shown = null; // score of the chosen picture
    new ResizeObserver(() => this.render()).observe(this.svg);
    find("threshold").addEventListener("change", (event) => this.set(Number(event.target.value)));
    find("zone").addEventListener("change", (event) => this.set_zone(event.target.checked));
    find("reset-threshold").addEventListener("click", () => this.reset());
    find("point-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.use();
    });
  }

  async load() {
    const answer = await ask("/review/scores");
    this.scores = answer.threshold === null ? null : answer;
    find("point").hidden = this.scores === null;
    if (!this.scores) return;
    this.stored = { threshold: answer.threshold, review: answer.review };
    if (this.touched !== true) this.now = copy(this.stored);
    this.render();
  }

  show(score) {
    this.shown = score;
    this.render();
  }

  reset() {
    this.touched = false;
    this.now = copy(this.stored);
    this.render();
  }

  set(value, part = "threshold") {
    if (!Number.isFinite(value)) return this.render();
    this.touched = true;
    const now = this.now;
    if (part === "threshold") {
      const shift = value - now.threshold;
      now.threshold = value;
      if (now.review) now.review = [Math.min(now.review[0] + shift, value), Math.max(now.review[1] + shift, value)];
    } else if (part === "low") now.review[0] = Math.min(value, now.threshold);
    else now.review[1] = Math.max(value, now.threshold);
    this.render();
  }

  set_zone(is_wanted) {
    this.touched = true;
    const tenth = (this.range[1] - this.range[0]) / 20;
    const { threshold } = this.now;
    this.now.review = is_wanted ? (this.stored.review?.slice() ?? [threshold - tenth, threshold + tenth]) : null;
    if (is_wanted) this.now.review = [Math.min(this.now.review[0], threshold), Math.max(this.now.review[1], threshold)];
    this.render();
  }

  async use() {
    const { threshold, review } = this.now;
    try {
      const who = await this.told.who();
      await ask("/review/threshold", { method: "POST", body: { value: threshold, review, who } });
      this.touched = false;
      note(`threshold ${score_text(threshold)} is in use`);
      await this.told.changed();
    } catch (error) {
      note(`The threshold was not stored: ${error.message}`, "error");
    }
  }

  get range() {
    const { normal, anomalous } = this.scores;
    const values = [...normal, ...anomalous, ...this.scores.here, this.stored.threshold, ...(this.stored.review ?? [])];
    const low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
    const room = 0.03 * (high - low || Math.abs(high) || 1);
    return [low - room, high + room];
  }

  render() {
    if (!this.scores || !this.svg.clientWidth) return;
    this.figures();
    const width = this.svg.clientWidth, height = this.svg.clientHeight;
    const [low, high] = this.range;
    const x = (value) => MARGIN + ((value - low) / (high - low)) * (width - 2 * MARGIN);
    const back = (pixel) => low + ((pixel - MARGIN) / (width - 2 * MARGIN)) * (high - low);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const focused = document.activeElement?.dataset?.part;
    this.svg.replaceChildren(
      ...this.zone(x, height),
      ...bars(this.scores.here, low, high, x, height, "here"),
      ...bars(this.scores.normal, low, high, x, height, "normal"),
      ...bars(this.scores.anomalous, low, high, x, height, "anomalous"),
      ...rug(this.scores.anomalous, x, height),
      ...axis(low, high, x, width, height),
      ...this.marks(x, height),
      ...this.handles(x, back, height),
    );
    if (focused) this.svg.querySelector(`[data-part=${focused}]`)?.focus();
  }

  zone(x, height) {
    if (!this.now.review) return [];
    const [low, high] = this.now.review.map(x);
    return [draw("rect", { class: "zone", x: low, y: 0, width: Math.max(high - low, 0), height: height - 16 })];
  }

  marks(x, height) {
    const drawn = [];
    if (this.now.threshold !== this.stored.threshold) {
      const at = x(this.stored.threshold);
      drawn.push(draw("line", { class: "stored", x1: at, x2: at, y1: 0, y2: height - 16 }));
    }
    if (this.shown !== null) {
      const at = Math.min(Math.max(x(this.shown), 4), this.svg.clientWidth - 4), foot = height - 16;
      drawn.push(draw("path", { class: "chosen", d: `M${at} ${foot - 1} l-5 8 h10 z` }));
    }
    return drawn;
  }

  handles(x, back, height) {
    const parts = [["threshold", this.now.threshold]];
    if (this.now.review) parts.unshift(["low", this.now.review[0]], ["high", this.now.review[1]]);
    return parts.map(([part, value]) => this.handle(part, value, x, back, height));
  }

  handle(part, value, x, back, height) {
    const at = x(value);
    const names = { threshold: "Threshold", low: "Lower end of the review zone", high: "Upper end of the review zone" };
    const group = draw("g", {
      class: `handle ${part}`, "data-part": part, role: "slider", tabindex: 0, "aria-label": names[part],
      "aria-valuenow": value, "aria-valuemin": this.range[0], "aria-valuemax": this.range[1], "aria-valuetext": score_text(value),
    },
    draw("rect", { class: "grip", x: at - 9, y: 0, width: 18, height: height - 16 }),
    draw("line", { x1: at, x2: at, y1: 0, y2: height - 16 }),
    part === "threshold" ? draw("path", { class: "knob", d: `M${at - 6} 0 h12 v7 l-6 6 l-6 -6 z` }) : draw("circle", { class: "knob", cx: at, cy: 6, r: 4.5 }));
    group.addEventListener("pointerdown", (event) => this.drag(event, part, back));
    group.addEventListener("keydown", (event) => this.nudge(event, part, value));
    return group;
  }

  drag(event, part, back) {
    event.preventDefault();
    const left = this.svg.getBoundingClientRect().left;
    const move = (moved) => this.set(back(moved.clientX - left), part);
    const stop = () => {
      window.removeEventListener("pointermove", move);
      window.removeEventListener("pointerup", stop);
      this.svg.querySelector(`[data-part=${part}]`)?.focus();
    };
    window.addEventListener("pointermove", move);
    window.addEventListener("pointerup", stop);
  }

  nudge(event, part, value) {
    const step = (this.range[1] - this.range[0]) / (event.shiftKey ? 40 : 400);
    const by = { ArrowLeft: -step, ArrowDown: -step, ArrowRight: step, ArrowUp: step }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    this.set(value + by, part);
  }

  figures() {
    const { normal, anomalous, intervals } = this.scores;
    const { threshold, review } = this.now;
    const missed = first_at_least(anomalous, threshold);
    const alarms = normal.length - first_at_least(normal, threshold);
    tell("escapes", missed, anomalous.length, intervals.anomalous);
    tell("overkill", alarms, normal.length, intervals.normal);
    const all = normal.length + anomalous.length;
    const inside = review ? [normal, anomalous].reduce((n, s) => n + first_at_least(s, review[1]) - first_at_least(s, review[0]), 0) : 0;
    find("reviewed").textContent = review && all ? percent(inside / all) : "–";
    find("reviewed-note").textContent = review ? `${inside} of ${all}` : "no review zone";
    find("count-normal").textContent = normal.length;
    find("count-anomalous").textContent = anomalous.length;
    find("scores-from").textContent = this.scores.note;
    const { here, num_here } = this.scores;
    const rejected = here.length ? 1 - first_at_least(here, threshold) / here.length : 0;
    find("here").hidden = !num_here;
    find("count-here").textContent = `${num_here}, ${percent(rejected)} anomalous`;
    const changed = threshold !== this.stored.threshold || String(review) !== String(this.stored.review);
    find("use-threshold").disabled = !changed;
    find("reset-threshold").disabled = !changed;
    find("zone").checked = Boolean(review);
    if (document.activeElement !== find("threshold")) find("threshold").value = Number(threshold.toPrecision(6));
  }
}

function tell(name, k, n, intervals) {
  find(name).textContent = n ? percent(k / n) : "–";
  const [low, high] = intervals[k] ?? [0, 1];
  find(`${name}-interval`).textContent = n ? `${k} of ${n}; ${interval_text({ low, high })}` : "no such pictures";
}

const copy = ({ threshold, review }) => ({ threshold, review: review ? review.slice() : null });

// How many of ascending scores lie below a value.
function first_at_least(scores, value) {
  let low = 0, high = scores.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (scores[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

// Normal pictures above the middle line, anomalous ones below it, each on the scale of its own class.
function bars(scores, low, high, x, height, kind) {
  const counts = new Array(BINS).fill(0);
  for (const score of scores) counts[Math.min(Math.floor(((score - low) / (high - low)) * BINS), BINS - 1)] += 1;
  const most = counts.reduce((a, b) => Math.max(a, b), 1);
  const middle = (height - 16) / 2, room = middle - 10;
  const width = x(low + (high - low) / BINS) - x(low) - 1;
  return counts.flatMap((count, k) => {
    if (!count) return [];
    const size = Math.max((room * count) / most, 2);
    const at = x(low + (k * (high - low)) / BINS);
    return [draw("rect", { class: `bar ${kind}`, x: at, y: kind === "anomalous" ? middle : middle - size, width, height: size })];
  });
}

function rug(scores, x, height) {
  if (scores.length > RUG_MOST) return [];
  return scores.map((score) => draw("line", { class: "rug", x1: x(score), x2: x(score), y1: height - 22, y2: height - 17 }));
}

function axis(low, high, x, width, height) {
  const foot = height - 16, middle = foot / 2;
  const step = nice((high - low) / Math.max(width / 110, 2));
  const drawn = [
    draw("line", { class: "axis", x1: 0, x2: width, y1: middle, y2: middle }),
    draw("line", { class: "axis", x1: 0, x2: width, y1: foot, y2: foot }),
  ];
  for (let value = Math.ceil(low / step) * step; value <= high; value += step) {
    const text = draw("text", { x: x(value), y: height - 3, "text-anchor": "middle" });
    text.textContent = Number(value.toPrecision(6));
    drawn.push(text);
  }
  return drawn;
}

function nice(step) {
  const power = 10 ** Math.floor(Math.log10(step));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= step);
}
