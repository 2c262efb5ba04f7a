// What the explorables draw: scenes in pixels of an image, boxes and points to drag, plots.
// base.js tells how they are used, and calls this once with its tools, whichever was loaded first.
"use strict";
window.explorableDrawing = ({ add, set, format, clamp }) => {
  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  let plots = 0;

  class Scene {
    constructor(figure, { width, height, label, pad = 8, into = figure.stage }) {
      Object.assign(this, { figure, width, height, px: 1, grips: [], busy: false });
      this.svg = add(into, "svg", { role: "img", "aria-label": label, class: "scene" });
      this.look([-pad, -pad, width + 2 * pad, height + 2 * pad]);
      // Lines, letters and handles keep their size on the screen, whatever the scene's.
      new ResizeObserver(() => this.measure() && figure.update()).observe(this.svg);
      const at = ({ clientX, clientY }) =>
        new DOMPoint(clientX, clientY).matrixTransform(this.svg.getScreenCTM().inverse());
      let taken = null;
      this.svg.addEventListener("pointerdown", (event) => {
        let { grip } = event.target;
        if (!grip || event.button) return;
        const start = at(event);
        // Of boxes in boxes the smallest is meant, whichever was drawn last.
        if (grip.area) {
          const under = this.grips.filter((g) => g.area && g.holds(start));
          grip = under.sort((a, b) => a.area() - b.area())[0] ?? grip;
        }
        taken = { grip, start, from: grip.get() };
        this.busy = true;
        this.svg.setPointerCapture(event.pointerId);
        grip.group.focus({ preventScroll: true });
        event.preventDefault();
      });
      // A finger on a handle drags, elsewhere it scrolls. Chromium does not obey the style
      // touch-action on what is inside of an SVG.
      const hold = (event) => event.target.grip && event.preventDefault();
      this.svg.addEventListener("touchstart", hold, { passive: false });
      this.svg.addEventListener("pointermove", (event) => {
        if (!taken) return;
        const now = at(event);
        taken.grip.move(taken.from, now.x - taken.start.x, now.y - taken.start.y);
      });
      this.svg.addEventListener("lostpointercapture", () => {
        taken = null;
        this.busy = false;
        figure.update();
      });
      this.at = at;
    }

    look(view) {
      set(this.svg, { viewBox: view.join(" ") });
      this.view = view;
      this.measure();
    }

    measure() {
      const width = this.svg.getBoundingClientRect().width;
      if (!width) return false;
      this.px = this.view[2] / width;
      this.svg.style.setProperty("--px", this.px);
      return true;
    }

    pick(act) {
      this.svg.addEventListener("click", (event) => {
        if (event.target.grip) return;
        const { x, y } = this.at(event);
        act(x, y);
      });
    }

    // What a box and a point share: a place among the tabs, arrow keys, words for screen readers.
    movable({ key, get, set: put, label, role = "prediction", words, move, shift }) {
      const { figure } = this;
      set(this.svg, { role: "group" });
      const group = add(this.svg, "g", { class: `movable ${role}`, tabindex: 0, role: "slider" });
      set(group, { "aria-label": label, "aria-roledescription": "movable in two directions" });
      get ??= () => figure.state[key];
      put ??= (value) => figure.change({ [key]: value });
      group.addEventListener("keydown", (event) => {
        const way = ARROWS[event.key];
        if (!way || event.ctrlKey || event.altKey || event.metaKey) return;
        const step = event.repeat ? 4 : 1; // a key held down runs
        const act = event.shiftKey ? shift : move;
        put(act(get(), way[0] * step, way[1] * step));
        event.preventDefault();
        event.stopPropagation();
      });
      figure.syncs.push(() => {
        const value = get();
        set(group, { "aria-valuenow": Math.round(value[0]), "aria-valuetext": words(value) });
      });
      const grip = (element, how, more = {}) => {
        element.grip = { group, get, move: (...drag) => put(how(...drag)), ...more };
        this.grips.push(element.grip);
        return element;
      };
      return { group, get, grip };
    }

    box({ least = 8, name = "", ...options }) {
      const { width, height, figure } = this;
      const move = ([x1, y1, x2, y2], dx, dy) => {
        const left = clamp(Math.round(x1 + dx), 0, Math.max(0, width - (x2 - x1)));
        const top = clamp(Math.round(y1 + dy), 0, Math.max(0, height - (y2 - y1)));
        return [left, top, left + x2 - x1, top + y2 - y1];
      };
      const resize = (right, bottom) => ([x1, y1, x2, y2], dx, dy) => [
        right ? x1 : clamp(Math.round(x1 + dx), 0, x2 - least),
        bottom ? y1 : clamp(Math.round(y1 + dy), 0, y2 - least),
        right ? clamp(Math.round(x2 + dx), x1 + least, width) : x2,
        bottom ? clamp(Math.round(y2 + dy), y1 + least, height) : y2,
      ];
      const words = ([x1, y1, x2, y2]) => {
        const numbers = [x1, y1, x2 - x1, y2 - y1].map((value) => format(value));
        return ["left", "top", "width", "height"].map((w, i) => `${w} ${numbers[i]}`).join(", ");
      };
      const { group, get, grip } = this.movable({ ...options, words, move, shift: resize(1, 1) });
      const area = () => (get()[2] - get()[0]) * (get()[3] - get()[1]);
      const holds = ({ x, y }) => {
        const [x1, y1, x2, y2] = get();
        return x1 <= x && x <= x2 && y1 <= y && y <= y2;
      };
      const halo = add(group, "rect", { class: "halo" });
      const body = grip(add(group, "rect", { class: "shape" }), move, { area, holds });
      const text = add(group, "text", { text: name });
      const corners = [[0, 0], [1, 0], [0, 1], [1, 1]].map(([right, bottom]) => {
        const dot = add(group, "circle", { class: "dot" });
        const touch = grip(add(group, "circle", { class: "touch corner" }), resize(right, bottom));
        if (right === bottom) touch.classList.add("falling");
        return { right, bottom, dot, touch };
      });
      if (options.key) {
        const inside = ([x1, y1, x2, y2]) =>
          x1 >= 0 && y1 >= 0 && x2 <= width && y2 <= height && x2 - x1 >= least && y2 - y1 >= least;
        figure.check(options.key, inside);
      }
      figure.syncs.push(() => {
        const [x1, y1, x2, y2] = get();
        const sides = { width: x2 - x1, height: y2 - y1 };
        for (const rect of [halo, body]) set(rect, { x: x1, y: y1, ...sides });
        set(text, { x: x1 + 5 * this.px, y: y1 + 16 * this.px });
        // A small box has room for one corner only, and that a little outside.
        const small = Math.min(x2 - x1, y2 - y1) < 44 * this.px;
        const out = small ? 8 * this.px : 0;
        for (const { right, bottom, dot, touch } of corners) {
          const place = { cx: right ? x2 + out : x1, cy: bottom ? y2 + out : y1 };
          const style = small && !(right && bottom) ? "display: none" : null;
          for (const circle of [dot, touch]) set(circle, { ...place, style });
        }
      });
      return group;
    }

    point(options) {
      const { width, height, figure } = this;
      const move = ([x, y], dx, dy) => [
        clamp(Math.round(x + dx), 0, width),
        clamp(Math.round(y + dy), 0, height),
      ];
      const shift = (at, dx, dy) => move(at, 10 * dx, 10 * dy);
      const words = ([x, y]) => `x ${format(x)}, y ${format(y)}`;
      const { group, get, grip } = this.movable({ ...options, words, move, shift });
      const circles = ["halo", "dot", "touch"].map((name) => add(group, "circle", { class: name }));
      grip(circles[2], move);
      if (options.key) {
        figure.check(options.key, ([x, y]) => x >= 0 && y >= 0 && x <= width && y <= height);
      }
      figure.syncs.push(() => {
        const [cx, cy] = get();
        for (const circle of circles) set(circle, { cx, cy });
      });
      return group;
    }
  }

  class Plot extends Scene {
    constructor(figure, options) {
      super(figure, { width: 360, height: 220, pad: 0, ...options });
      const { svg, width, height } = this;
      const [left, right, top, bottom] = [50, width - 12, 10, height - 42];
      const scale = ([low, high], log, from, to) => {
        const f = log ? (value) => Math.log10(Math.max(value, Number.MIN_VALUE)) : Number;
        return (value) => from + ((f(value) - f(low)) / (f(high) - f(low))) * (to - from);
      };
      this.X = scale(options.x, options.xlog, left, right);
      this.Y = scale(options.y, options.ylog, bottom, top);
      const axes = add(svg, "g", { class: "axes" });
      // A tick is a number, or a pair of a number and how it is written.
      const written = (tick) => [tick].flat().concat(String(tick).replace("-", "−")).slice(0, 2);
      for (const [at, text] of (options.xticks ?? options.x).map(written)) {
        add(axes, "path", { d: `M${this.X(at)} ${top}V${bottom}` });
        const last = this.X(at) > right - 1 && text.length > 3; // a long word ends at the edge
        const place = { x: this.X(at), y: bottom + 15, "text-anchor": last ? "end" : "middle" };
        add(axes, "text", { ...place, text });
      }
      for (const [at, text] of (options.yticks ?? options.y).map(written)) {
        add(axes, "path", { d: `M${left} ${this.Y(at)}H${right}` });
        add(axes, "text", { x: left - 6, y: this.Y(at) + 4, "text-anchor": "end", text });
      }
      const middle = (top + bottom) / 2;
      const turned = { "text-anchor": "middle", transform: `rotate(-90 9 ${middle})` };
      add(axes, "text", { x: 9, y: middle, ...turned, text: options.ylabel });
      const below = { x: (left + right) / 2, y: height - 6, "text-anchor": "middle" };
      add(axes, "text", { ...below, text: options.xlabel });
      const id = `clip-${++plots}`; // lines end at the axes
      const hole = add(add(svg, "clipPath", { id }), "rect", { x: left, y: top });
      set(hole, { width: right - left, height: bottom - top });
      this.inner = add(svg, "g", { "clip-path": `url(#${id})` });
    }

    line(attributes) {
      const path = add(this.inner, "path", { fill: "none", ...attributes });
      const place = ([x, y]) => `${this.X(x).toFixed(2)} ${this.Y(y).toFixed(2)}`;
      return (points) => set(path, { d: points.length ? `M${points.map(place).join("L")}` : "" });
    }
  }

  return { Scene, Plot };
};
