// The large view: picture and heat map at native resolution, zoomed and moved together.

import { address } from "./server.js";
import { find, make, note } from "./page.js";

const LARGEST = 32, PIXELATED_FROM = 3; // screen pixels per pixel of the picture
const STEP = 1.25;

export class Viewer {
  constructor() {
    this.stage = find("stage");
    this.mode = "map";
    this.opacity = 1;
    this.item = null;
    this.facts = { has_map: false };
    this.neighbor = null; // {address, name} of the nearest normal picture
    this.zoom = null; // {scale, x, y}: null = fitted
    this.layers = [];
    for (const button of document.querySelectorAll("[data-mode]")) {
      button.addEventListener("click", () => this.set_mode(button.dataset.mode));
    }
    find("opacity").addEventListener("input", (event) => {
      this.opacity = event.target.value / 100;
      this.place();
    });
    find("fit").addEventListener("click", () => this.fit());
    new ResizeObserver(() => this.place()).observe(this.stage);
    this.listen();
  }

  // Show a picture of the gallery; `facts`: {name, has_map, low, top, unit} of the live model.
  show(item, facts) {
    this.item = item;
    this.facts = facts;
    this.neighbor = null;
    this.zoom = null;
    this.build();
  }

  set_neighbor(id, neighbor) {
    if (this.item?.id !== id) return;
    this.neighbor = neighbor;
    if (this.mode === "normal") this.build();
  }

  set_mode(mode) {
    this.mode = mode;
    this.build();
  }

  toggle_map() {
    this.set_mode(this.mode === "map" ? "picture" : "map");
  }

  // Without a map there is only the picture, alone or beside a normal one.
  get shown_mode() {
    return this.facts.has_map || this.mode === "normal" ? this.mode : "picture";
  }

  build() {
    const mode = this.shown_mode;
    for (const button of document.querySelectorAll("[data-mode]")) {
      button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
      button.disabled = !this.facts.has_map && ["map", "side"].includes(button.dataset.mode);
    }
    find("opacity").disabled = !this.facts.has_map;
    this.layers = [];
    if (!this.item) {
      find("scale").hidden = true;
      return this.stage.replaceChildren();
    }
    const picture = address.picture(this.item.id);
    const map = this.facts.has_map ? address.overlay(this.item.id, this.facts.name) : null;
    this.stage.replaceChildren(...this.panes(picture, map));
    this.stage.classList.toggle("two", this.stage.children.length > 1);
    this.show_scale(Boolean(map) && mode !== "picture");
    this.place();
  }

  panes(picture, map) {
    const mode = this.shown_mode;
    if (mode === "picture") return [this.pane("", [picture])];
    if (mode === "side") return [this.pane("picture", [picture]), this.pane("heat map", [picture, map])];
    if (mode === "normal") {
      const neighbor = this.neighbor;
      const beside = neighbor?.address
        ? this.pane(`nearest normal picture · ${neighbor.name}`, [neighbor.address])
        : make("div", { class: "pane nothing" }, make("p", {}, neighbor?.why ?? "looking for the nearest normal picture …"));
      return [this.pane("this picture", [picture, map]), beside];
    }
    return [this.pane("", [picture, map])];
  }

  pane(title, sources) {
    const images = sources.filter(Boolean).map((source, k) => {
      const image = make("img", { src: source, alt: k ? "heat map" : this.item.name, draggable: "false", class: k ? "map" : "" });
      image.addEventListener("load", () => {
        image.classList.add("loaded");
        this.place();
      });
      image.addEventListener("error", () => k === 0 && note("this picture cannot be shown", "error"));
      return image;
    });
    this.layers.push(images);
    return make("div", { class: "pane" }, ...images, title ? make("p", { class: "pane-title" }, title) : "");
  }

  show_scale(is_shown) {
    find("scale").hidden = !is_shown;
    find("scale-low").textContent = this.facts.low.toFixed(this.facts.top < 10 ? 2 : 0);
    find("scale-top").textContent = this.facts.top.toFixed(this.facts.top < 10 ? 2 : 0) + (this.facts.unit ? ` ${this.facts.unit}` : "");
  }

  // Where the picture lies in a pane of this size when it fits: {scale, x, y} in screen pixels.
  fitted(pane) {
    const { clientWidth: width, clientHeight: height } = pane;
    const scale = Math.min(width / this.item.width, height / this.item.height);
    return { scale, x: (width - scale * this.item.width) / 2, y: (height - scale * this.item.height) / 2 };
  }

  place() {
    if (!this.item || !this.layers.length) return;
    for (const images of this.layers) {
      const pane = images[0]?.parentElement;
      if (!pane) continue;
      const { scale, x, y } = this.zoom ?? this.fitted(pane);
      images.forEach((image, k) => {
        image.style.width = `${this.item.width}px`;
        image.style.height = `${this.item.height}px`;
        image.style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
        image.classList.toggle("pixelated", scale >= PIXELATED_FROM);
        if (k) image.style.opacity = this.opacity;
      });
    }
    const pane = this.layers[0][0].parentElement;
    const { scale } = this.zoom ?? this.fitted(pane);
    find("fit").textContent = `${Math.round(100 * scale)} %`;
    this.stage.classList.toggle("zoomed", this.zoom !== null);
  }

  fit() {
    this.zoom = null;
    this.place();
  }

  // Enlarge by `factor` around a point of the pane (its middle if none).
  enlarge(factor, point = null) {
    const pane = this.layers[0]?.[0]?.parentElement;
    if (!pane) return;
    const before = this.zoom ?? this.fitted(pane);
    const least = this.fitted(pane).scale;
    const scale = Math.min(before.scale * factor, Math.max(LARGEST, least));
    if (scale <= least) return this.fit();
    const [px, py] = point ?? [pane.clientWidth / 2, pane.clientHeight / 2];
    const ratio = scale / before.scale;
    this.zoom = { scale, x: px - ratio * (px - before.x), y: py - ratio * (py - before.y) };
    this.place();
  }

  listen() {
    const spot = (event) => {
      const pane = event.target.closest(".pane") ?? this.stage;
      const box = pane.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    this.stage.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.enlarge(event.deltaY < 0 ? STEP : 1 / STEP, spot(event));
    }, { passive: false });
    this.stage.addEventListener("dblclick", (event) => {
      if (this.zoom) return this.fit();
      const pane = this.layers[0]?.[0]?.parentElement;
      if (!pane) return;
      const { scale } = this.fitted(pane);
      this.enlarge(scale < 1 ? 1 / scale : 3, spot(event));
    });
    this.listen_to_fingers();
  }

  listen_to_fingers() {
    const held = new Map(); // pointer -> [x, y]
    let apart = 0;
    const distance = () => {
      const [[ax, ay], [bx, by]] = [...held.values()];
      return Math.hypot(ax - bx, ay - by);
    };
    this.stage.addEventListener("pointerdown", (event) => {
      held.set(event.pointerId, [event.clientX, event.clientY]);
      this.stage.setPointerCapture(event.pointerId);
      if (held.size === 2) apart = distance();
    });
    this.stage.addEventListener("pointermove", (event) => {
      if (!held.has(event.pointerId)) return;
      const [x, y] = held.get(event.pointerId);
      held.set(event.pointerId, [event.clientX, event.clientY]);
      if (held.size === 2) {
        const now = distance();
        this.enlarge(now / apart);
        apart = now;
      } else if (this.zoom) {
        this.zoom.x += event.clientX - x;
        this.zoom.y += event.clientY - y;
        this.place();
      }
    });
    for (const name of ["pointerup", "pointercancel"]) {
      this.stage.addEventListener(name, (event) => held.delete(event.pointerId));
    }
  }
}
