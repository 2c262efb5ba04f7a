// The base of the book's explorables: small figures that a reader moves. No dependency, no network.
// Here are the state, the controls and the results; scene.js has what is drawn and dragged.
//
// A page says where one stands, and what would be seen there without scripts:
//   <div data-explorable="halves">A line of 100 pixels, cut in two.</div>
// A script of the same name, loaded before or after this one, says what it is:
//
//   (window.explorables ??= []).push({
//     name: "halves",
//     title: "Cut a line",
//     state: { cut: 50 },             // defaults: numbers, true or false, texts, lists of numbers
//     build(x, state) {               // once: makes the parts, and returns what draws them
//       const scene = x.scene({ width: 100, height: 40, label: "A line in two parts" });
//       const left = x.add(scene.svg, "line", { x1: 0, y1: 20, y2: 20, class: "prediction" });
//       x.slider("cut", { label: "Cut at", min: 0, max: 100, unit: "px" });
//       const share = x.reading("share", "Left part", { digits: 2 });
//       return () => {                // at the start and after every change of the state
//         x.set(left, { x2: state.cut });
//         share(state.cut / 100);     // shown with 2 digits; in full in data-value, for tests
//         x.say(`The left part is ${x.format(state.cut)} pixels long.`);
//       };
//     },
//   });
//
// Parts go into x.stage (left), x.panel (right, below on a phone) or x.below: `into: x.below`.
//   controls   x.slider(key, {label, min, max, step, digits, unit, log, steps: two step buttons})
//              x.checkbox(key, {label}), x.button(text, what to do)
//              x.choice(key, {label, options: [[value, text], …], select: true for a menu})
//   results    x.reading(key, label, {digits, unit, format}) gives a function that shows a value
//              x.table({caption, head: […]}) gives a function that shows rows of texts, or of
//              attributes: {text, class}; x.say(sentence) shows it and tells screen readers
//   scene      x.scene({width, height, label, pad}) in pixels of the image: .svg, .px (image pixels
//              in one of the screen), .look([x, y, w, h]) zooms, .pick((x, y) => …) hears clicks
//              .box({key, label, role, name, least}): moved, resized; .point({key, label, role});
//              both take `get` and `set` instead of `key`, stop at the borders, redraw themselves
//   plot       x.plot({x: [from, to], y, xlabel, ylabel, xticks, yticks, xlog, ylog, label, width,
//              height}): .line(attributes) gives a function of points; .X, .Y to scene units
//   drawing    x.add(parent, tag, attributes), x.set(element, attributes), x.fill(parent, tag, rows
//              of attributes); `text` is the content, null removes an attribute
//   state      x.change({cut: 40}); x.check(key, value => is it allowed?) for values of links
// Classes ground-truth, prediction, positive, background, ignored give a shape its role's colour
// and line; beware of classes that the theme has too (body, mark). Large data go into NAME.data.js.
// The state is in the address, as #halves.cut=40&iou.truth=1,2,3,4.
"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const QUIET = 400; // milliseconds without a change before an address or a sentence goes out
  const figures = [];
  let drawing; // Scene and Plot
  let known = location.hash; // the part of the address that figures were told of

  const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

  function set(element, attributes) {
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "text") element.textContent = value;
      else if (value === null) element.removeAttribute(name);
      else element.setAttribute(name, value);
    }
    return element;
  }

  function add(parent, tag, attributes = {}) {
    const drawn = tag === "svg" || parent.namespaceURI === SVG;
    const element = drawn ? document.createElementNS(SVG, tag) : document.createElement(tag);
    return parent.appendChild(set(element, attributes));
  }

  // As many children as rows; what is there already is used again.
  function fill(parent, tag, rows) {
    while (parent.children.length > rows.length) parent.lastElementChild.remove();
    rows.forEach((row, i) => set(parent.children[i] ?? add(parent, tag), row));
  }

  function format(value, digits = 0, unit = "") {
    const rounded = Number(value.toFixed(digits)) || 0; // never −0
    const text = rounded.toLocaleString("en-GB", {
      minimumFractionDigits: digits,
      maximumFractionDigits: digits,
    });
    return text.replace("-", "−") + (unit && `\u00a0${unit}`);
  }

  // A value from the address, of the default's type; undefined if it makes no sense.
  function parse(text, like) {
    if (typeof like === "string") return text;
    if (typeof like === "boolean") return text === "true";
    const numbers = text.split(",").map((part) => (part.trim() ? Number(part) : NaN));
    if (!numbers.every(Number.isFinite)) return undefined;
    if (!Array.isArray(like)) return numbers.length === 1 ? numbers[0] : undefined;
    return numbers.length === like.length ? numbers : undefined;
  }

  class Explorable {
    constructor(root, { name, title, state, build }) {
      Object.assign(this, { root, name, defaults: state, add, set, fill, format, clamp });
      this.state = structuredClone(state);
      this.checks = {};
      this.syncs = []; // bring controls and handles up to the state
      const fallback = [...root.childNodes]; // stays for print
      set(root, { class: "explorable", role: "group", "aria-label": title });
      add(root, "div", { class: "fallback" }).append(...fallback);
      const head = add(root, "div", { class: "head" });
      add(head, "strong", { text: title });
      const parts = add(root, "div", { class: "parts" });
      this.stage = add(parts, "div", { class: "stage" });
      this.panel = add(parts, "div", { class: "panel" });
      this.below = add(root, "div", { class: "below" });
      // What is seen changes at once, what is heard when the reader pauses.
      this.seen = add(root, "p", { class: "verdict", "aria-hidden": "true" });
      this.heard = add(root, "p", { class: "heard", role: "status" });
      this.button("Reset", () => this.change(structuredClone(this.defaults)), head);
      this.draw = build(this, this.state);
      this.load();
    }

    change(values) {
      Object.assign(this.state, values);
      this.update();
      clearTimeout(this.later);
      this.later = setTimeout(() => {
        this.heard.textContent = this.seen.textContent;
        remember();
      }, QUIET);
    }

    update() {
      for (const sync of this.syncs) sync();
      this.draw();
    }

    check(key, allowed) {
      (this.checks[key] ??= []).push(allowed);
    }

    // Take the state from the address. What it does not name has its default.
    load() {
      const given = new URLSearchParams(location.hash.slice(1));
      const named = [...given.keys()].some((key) => key.startsWith(`${this.name}.`));
      if (named || !this.loaded) {
        for (const [key, like] of Object.entries(structuredClone(this.defaults))) {
          const text = given.get(`${this.name}.${key}`);
          const value = text === null ? like : parse(text, like);
          const fine = value !== undefined && (this.checks[key] ?? []).every((is) => is(value));
          this.state[key] = fine ? value : like;
        }
        this.update();
      }
      this.loaded = true;
    }

    say(sentence) {
      this.seen.textContent = sentence;
    }

    reading(key, label, { digits = 0, unit = "", format: shown, into = this.panel } = {}) {
      const row = add(into, "div", { class: "reading" });
      add(row, "span", { text: label });
      const place = add(row, "b", { "data-name": key });
      return (value) =>
        set(place, {
          "data-value": JSON.stringify(value),
          text: shown ? shown(value) : format(value, digits, unit),
        });
    }

    table({ caption, head, into = this.below }) {
      // What may scroll sideways can be reached by the keyboard.
      const box = add(into, "div", { class: "scroll", tabindex: 0, role: "region" });
      set(box, { "aria-label": caption });
      const table = add(box, "table");
      add(table, "caption", { text: caption });
      const titles = head.map((text) => ({ text, scope: "col" }));
      fill(add(add(table, "thead"), "tr"), "th", titles);
      const body = add(table, "tbody");
      return (rows) => {
        fill(body, "tr", rows.map(() => ({})));
        rows.forEach((row, i) => {
          const cells = row.map((cell) => (cell.text === undefined ? { text: cell } : cell));
          fill(body.children[i], "td", cells.map((cell) => ({ class: null, ...cell })));
        });
      };
    }

    button(text, act, into = this.panel) {
      const button = add(into, "button", { type: "button", text });
      button.addEventListener("click", act);
      return button;
    }

    slider(key, options) {
      const { label, min, max, step = 1, digits = 0, unit = "", log, steps } = options;
      const [to, from] = log ? [Math.log2, (v) => 2 ** v] : [Number, Number];
      const row = add(options.into ?? this.panel, "div", { class: "slider" });
      const name = add(row, "label");
      add(name, "span", { text: label });
      const shown = add(name, "b");
      const input = add(name, "input", { type: "range", min: to(min), max: to(max), step });
      const turn = (way) => {
        const value = clamp(Number(input.value) + way * step, Number(input.min), Number(input.max));
        this.change({ [key]: from(Number(value.toFixed(9))) });
      };
      if (steps) {
        this.button("◀", () => turn(-1), row).ariaLabel = `${label}: back`;
        this.button("▶", () => turn(1), row).ariaLabel = `${label}: next`;
      }
      input.addEventListener("input", () => this.change({ [key]: from(Number(input.value)) }));
      this.check(key, (value) => value >= min && value <= from(Number(input.max)));
      this.syncs.push(() => {
        input.value = to(this.state[key]);
        shown.textContent = format(this.state[key], digits, unit);
        input.ariaValueText = shown.textContent;
      });
      return input; // a script may change its `max`
    }

    checkbox(key, { label, into = this.panel }) {
      const name = add(into, "label", { class: "checkbox" });
      const input = add(name, "input", { type: "checkbox" });
      add(name, "span", { text: label });
      input.addEventListener("change", () => this.change({ [key]: input.checked }));
      this.syncs.push(() => (input.checked = this.state[key]));
      return input;
    }

    choice(key, { label, options, select, into = this.panel }) {
      const choose = (text) => this.change({ [key]: parse(text, this.defaults[key]) });
      this.check(key, (value) => options.some(([one]) => one === value));
      if (select) {
        const name = add(into, "label", { class: "menu" });
        add(name, "span", { text: label });
        const menu = add(name, "select");
        fill(menu, "option", options.map(([value, text]) => ({ value, text })));
        menu.addEventListener("change", () => choose(menu.value));
        this.syncs.push(() => (menu.value = this.state[key]));
        return menu;
      }
      const group = add(into, "fieldset", { class: "choice" });
      add(group, "legend", { text: label });
      for (const [value, text] of options) {
        const name = add(group, "label");
        const same = `${figures.length}-${this.name}-${key}`; // one group of radio buttons
        const input = add(name, "input", { type: "radio", name: same, value });
        add(name, "span", { text });
        input.addEventListener("change", () => choose(input.value));
        this.syncs.push(() => (input.checked = this.state[key] === value));
      }
      return group;
    }

    scene(options) {
      return new drawing.Scene(this, options);
    }

    plot(options) {
      return new drawing.Plot(this, options);
    }
  }

  // Keep what differs from the defaults in the address: no entry in the history, no scrolling.
  function remember() {
    if (location.hash !== known) return; // a newer address, which is about to be loaded
    const parts = [];
    for (const { name, state, defaults } of figures) {
      for (const [key, value] of Object.entries(defaults)) {
        const now = String(state[key]);
        if (now !== String(value)) parts.push(`${name}.${key}=${encodeURI(now)}`);
      }
    }
    if (!parts.length && !location.hash.includes("=")) return; // a heading's address
    const bare = location.href.split("#")[0];
    history.replaceState(history.state, "", parts.length ? `${bare}#${parts.join("&")}` : bare);
    known = location.hash;
  }

  function start(definition) {
    for (const root of document.querySelectorAll(`[data-explorable="${definition.name}"]`)) {
      if (!root.explorable) figures.push((root.explorable = new Explorable(root, definition)));
    }
  }

  // A link to a state leads to the first figure that it names.
  function showNamed() {
    const roots = [...document.querySelectorAll("[data-explorable]")];
    const first = roots.find((root) => location.hash.includes(`${root.dataset.explorable}.`));
    first?.scrollIntoView({ block: "nearest" });
  }

  function startAll() {
    drawing = window.explorableDrawing({ add, set, format, clamp });
    const waiting = window.explorables ?? [];
    window.explorables = { push: start }; // for scripts that come later
    waiting.forEach(start);
    showNamed();
    addEventListener("hashchange", () => {
      known = location.hash;
      figures.forEach((figure) => figure.load());
      showNamed();
    });
  }

  if (document.readyState === "loading") addEventListener("DOMContentLoaded", startAll);
  else startAll();
})();
