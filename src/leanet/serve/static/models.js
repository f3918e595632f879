// Retraining, old and new model side by side, switching, rolling back.

import { address, ask } from "./server.js";
import { count_text, find, interval_text, label_text, make, note, percent, score_text, when_text } from "./page.js";

const EVERY = 1200; // ms between questions about a running job

export class Models {
  constructor({ who, switched, job_changed }) {
    this.told = { who, switched, job_changed };
    this.dialog = find("models");
    this.job = null;
    this.state = null;
    this.compared = null; // {old, new} names
    this.parts = {};
    this.timer = null;
    this.frame();
  }

  get running() {
    return this.job?.state === "running";
  }

  frame() {
    const p = this.parts;
    p.job = make("div", { class: "job" });
    p.history = make("div", { class: "model-history" });
    p.comparison = make("div", { class: "comparison" });
    this.dialog.replaceChildren(
      make("header", { class: "dialog-head" }, make("h2", { tabindex: -1, autofocus: true }, "Models"),
        make("button", { class: "quiet", "aria-label": "Close", onclick: () => this.dialog.close() }, "✕")),
      make("div", { class: "models-body" }, make("div", { class: "left" }, p.job, p.history), p.comparison),
    );
  }

  async open() {
    if (!this.dialog.open) this.dialog.showModal();
    await this.load();
  }

  async load() {
    try {
      this.state = await ask("/review/models");
    } catch (error) {
      return note(`The models did not arrive: ${error.message}`, "error");
    }
    this.set_job(this.state.job);
    this.compared ??= this.newest();
    this.show_history();
    await this.compare();
  }

  // The newest model, beside the one that answers, unless that is it.
  newest() {
    const { models, live } = this.state, last = models[models.length - 1];
    return last.name === live ? null : { old: live, new: last.name };
  }

  set_job(job) {
    const before = this.job?.state;
    this.job = job;
    this.show_job();
    this.told.job_changed(job);
    clearTimeout(this.timer);
    if (this.running) this.timer = setTimeout(() => this.watch(), EVERY);
    if (before === "running" && !this.running) this.finished();
  }

  async watch() {
    try {
      this.set_job(await ask("/review/retrain"));
    } catch {
      this.timer = setTimeout(() => this.watch(), 3 * EVERY);
    }
  }

  finished() {
    if (this.job.state === "finished") {
      note(`Model ${this.job.name} is trained; compare it before it answers`);
      this.compared = null;
    } else if (this.job.state === "failed") note("The training failed; its log says why", "error");
    if (this.dialog.open) this.load();
  }

  show_job() {
    const job = this.job ?? {};
    const labels = this.state?.new_labels ?? {};
    const text = Object.entries(labels.by ?? {}).map(([label, n]) => `${n} ${label_text(label, "")}`).join(", ");
    const count = labels.total ?? 0;
    const start = make("button", { class: "strong", disabled: this.running || !count, onclick: () => this.start() }, "Retrain");
    const stop = make("button", { onclick: () => this.cancel() }, "Cancel");
    this.parts.job.replaceChildren(
      make("h3", {}, "Retrain"),
      make("p", {}, count ? `${count_text(count, "new label")} since the live model was trained: ${text}.` : "No new labels since the live model was trained."),
      make("p", { class: "muted small" }, "OK and NG are learned from; unsure pictures wait. The live model goes on answering."),
      make("p", { class: "buttons" }, this.running ? stop : start),
      ...(job.state && job.state !== "idle" ? this.progress(job) : []),
    );
  }

  progress(job) {
    const bar = this.running ? make("progress", { max: 1, value: job.share, "aria-label": "training" }) : "";
    const word = { running: "training", finished: "finished", failed: "failed", cancelled: "cancelled" }[job.state] ?? job.state;
    const log = make("details", { class: "log", open: job.state === "failed" }, make("summary", {}, "Log"), make("pre", {}, (job.log ?? []).join("\n")));
    const left_out = (job.notices ?? []).map((text) => make("p", { class: "muted small" }, text));
    const line = job.error || (this.running ? job.line : finished_text(job));
    return [bar, make("p", { class: `small ${job.error ? "error" : "muted"}` }, make("b", {}, `Model ${job.name}: ${word}. `), line), ...left_out, log];
  }

  async start() {
    try {
      const who = await this.told.who();
      this.set_job(await ask("/review/retrain", { method: "POST", body: { who } }));
    } catch (error) {
      note(`No training began: ${error.message}`, "error");
    }
  }

  async cancel() {
    try {
      this.set_job(await ask("/review/retrain/cancel", { method: "POST", body: {} }));
    } catch (error) {
      note(`It could not be cancelled: ${error.message}`, "error");
    }
  }

  show_history() {
    const { models, live, history } = this.state;
    const rows = models.map((model) => make("li", { class: model.name === live ? "live" : "" },
      make("button", { class: "quiet", "aria-pressed": String(this.compared?.new === model.name), disabled: model.name === live,
        onclick: () => this.choose(model.name) },
      make("b", {}, model.name), model.name === live ? make("span", { class: "tag" }, "live") : ""),
      make("span", { class: "muted small" }, model_text(model))));
    const back = make("button", { disabled: !this.state.back, onclick: () => this.roll_back() }, this.state.back ? `Roll back to ${this.state.back}` : "Roll back");
    const events = history.slice(-12).reverse().map((event) =>
      make("li", {}, `${event.back ? "back to " : ""}${event.after} `, make("span", { class: "muted" }, `${event.who}, ${when_text(event.at)}`)));
    this.parts.history.replaceChildren(
      make("h3", {}, "Models of this run"), make("ul", { class: "plain models" }, ...rows), make("p", { class: "buttons" }, back),
      events.length ? make("h3", {}, "Who switched") : "", make("ol", { class: "history" }, ...events),
    );
  }

  choose(name) {
    this.compared = { old: this.state.live, new: name };
    this.show_history();
    this.compare();
  }

  async compare() {
    const root = this.parts.comparison;
    if (this.compared) this.compared.old = this.state.live;
    if (!this.compared || this.compared.new === this.state.live) {
      this.compared = null;
      root.replaceChildren(make("p", { class: "muted nothing-yet" },
        "When a model has been retrained, it stands here beside the live one: figures, and every picture whose verdict changes. Nothing goes live before you say so."));
      return;
    }
    const { old, new: fresh } = this.compared;
    root.replaceChildren(make("p", { class: "muted nothing-yet" }, `comparing ${fresh} with ${old} …`));
    try {
      const answer = await ask(`/review/compare?old=${encodeURIComponent(old)}&new=${encodeURIComponent(fresh)}`);
      if (this.compared?.new === fresh) this.show_comparison(answer);
    } catch (error) {
      root.replaceChildren(make("p", { class: "error" }, `The two cannot be compared: ${error.message}`));
    }
  }

  show_comparison(answer) {
    const use = make("button", { class: "strong", id: "switch", onclick: () => this.go_live(answer.new) }, `Switch to ${answer.new}`);
    const { changed } = answer;
    this.parts.comparison.replaceChildren(
      make("div", { class: "comparison-head" }, make("h3", {}, `${answer.old} (live) and ${answer.new}`), use),
      figures_table(answer),
      make("p", { class: "in-words" }, in_words(answer)),
      make("ul", { class: "remarks muted small" }, ...answer.remarks.map((text) => make("li", {}, text))),
      make("h3", {}, `${count_text(answer.num_changed, "verdict")} ${answer.num_changed === 1 ? "changes" : "change"}`),
      changed.length ? make("div", { class: "changed" }, ...changed.map((one) => changed_row(one, answer))) : make("p", { class: "muted" }, "Both models judge all pictures alike."),
      answer.num_changed > changed.length ? make("p", { class: "muted small" }, `and ${answer.num_changed - changed.length} more`) : "",
    );
  }

  async go_live(name) {
    await this.change("/review/switch", { name }, `${name} answers from now on`);
  }

  async roll_back() {
    await this.change("/review/roll_back", {}, "rolled back");
  }

  async change(path, body, text) {
    try {
      const who = await this.told.who();
      const answer = await ask(path, { method: "POST", body: { ...body, who } });
      note(text === "rolled back" ? `rolled back to ${answer.live}` : text);
      this.compared = null;
      await this.told.switched();
      await this.load();
    } catch (error) {
      note(`The model was not changed: ${error.message}`, "error");
    }
  }
}

function finished_text(job) {
  const minutes = (new Date(job.ended) - new Date(job.started)) / 60000;
  const took = minutes < 1 ? "less than a minute" : count_text(Math.round(minutes), "minute");
  return `${count_text(job.num_new + job.num_changed, "label")} more than the original run, ${took}.`;
}

function model_text(model) {
  return `${model.num_normal} normal, ${model.num_anomalous} anomalous · ${when_text(1000 * model.finished)}`;
}

function figures_table(answer) {
  const cell = (figure) => make("td", {}, make("strong", {}, figure_text(figure)), make("small", { class: "muted" }, interval_of(figure)));
  const rows = answer.figures.map((row) => make("tr", {},
    make("th", {}, row.title, row.about ? make("small", { class: "muted" }, row.about) : ""), cell(row.old), cell(row.new),
    make("td", {}, make("span", { class: `change ${row.better === null ? "" : row.better ? "better" : "worse"}` }, change_text(row)), make("small", { class: "muted" }, change_interval(row)))));
  return make("table", { class: "figures-table" },
    make("thead", {}, make("tr", {}, make("th"), make("th", {}, answer.old), make("th", {}, answer.new), make("th", {}, "change, 95 % interval"))),
    make("tbody", {}, ...rows));
}

function figure_text(figure) {
  if (!figure || figure.value === null) return "–";
  return figure.of === undefined || figure.of === null ? figure.value.toFixed(3) : percent(figure.value);
}

function interval_of(figure) {
  if (!figure || figure.value === null) return "";
  const counted = figure.of ? `${figure.count} of ${figure.of}; ` : "";
  if (figure.low === null || figure.low === undefined) return counted;
  return counted + (figure.of ? interval_text(figure) : `${figure.low.toFixed(3)} to ${figure.high.toFixed(3)}`);
}

function change_text(row) {
  const by = row.change.difference;
  const sign = by > 0 ? "+" : by < 0 ? "−" : "±";
  return row.new.of ? `${sign}${(100 * Math.abs(by)).toFixed(1)} points` : sign + Math.abs(by).toFixed(3);
}

// 95 % of the paired difference, in the unit of the change.
function change_interval(row) {
  const factor = row.new.of ? 100 : 1, digits = row.new.of ? 1 : 3;
  const end = (value) => `${value < 0 ? "−" : "+"}${Math.abs(factor * value).toFixed(digits)}`;
  return `${end(row.change.low)} to ${end(row.change.high)}${row.change.clear ? "" : "; may be chance"}`;
}

function in_words({ right, origins, num_normal, num_anomalous, old, new: fresh }) {
  const { labeled } = origins;
  const of_labeled = labeled.num ? ` Of ${count_text(labeled.num, "picture")} labeled here, ${old} has ${labeled.old_wrong} wrong and ${fresh} ${labeled.new_wrong}.` : "";
  return `On ${num_normal} normal and ${num_anomalous} anomalous pictures ${fresh} mends ${right.only_new} verdicts and spoils ${right.only_old}.${of_labeled}`;
}

function changed_row(one, answer) {
  const panel = (source, title, verdict, score) => make("figure", {},
    make("img", { src: source, alt: title, loading: "lazy" }),
    make("figcaption", { class: verdict ?? "" }, title, verdict ? make("span", { class: "word" }, ` ${verdict} ${score_text(score)}`) : ""));
  const map = (name) => (answer.has_map ? address.overlay(one.id, name) : address.picture(one.id));
  return make("div", { class: `changed-row ${one.better ? "better" : "worse"}` },
    make("div", { class: "changed-name" }, make("b", {}, one.name),
      make("span", { class: `badge ${one.label}` }, label_text(one.label, one.label === "ng" ? one.kind : "")),
      make("span", { class: "change" }, one.better ? "now right" : "now wrong")),
    panel(address.picture(one.id), "picture"),
    panel(map(answer.old), answer.old, one.old_verdict, one.old_score),
    panel(map(answer.new), answer.new, one.new_verdict, one.new_score));
}
