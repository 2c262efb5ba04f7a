// What a cell of the pyramid sees, and which level takes an object (chapter 5).
//
// The package computes the same: the windows with ResNet(18) and build_neck("ssd" or "fpn"), the
// anchors with AnchorGenerator, who takes the object with match_anchors.
(window.explorables ??= []).push({
  name: "pyramid",
  title: "A picture at five levels",
  // The place in pixels; the cell below it is looked at, and a square object has its centre there.
  state: { at: [228, 108], level: 3, down: false, size: 2 ** 7.4 },

  build(x, state) {
    const SIDE = 512; // of the picture, in pixels
    const LEVELS = [3, 4, 5, 6, 7];
    const RATIOS = [1 / 2, 1, 2]; // height / width
    const [POSITIVE, NEGATIVE] = [0.5, 0.4]; // IoU
    const strideOf = (level) => 2 ** level;
    const cellOf = (value, level) => Math.min(Math.floor(value / strideOf(level)), lastOf(level));
    const lastOf = (level) => SIDE / strideOf(level) - 1;

    // The side of the window that a cell of C3, C4 or C5 of a ResNet-18 sees, layer by layer: each
    // adds (kernel − 1) times the distance of its neighbours, each stride multiplies the distance.
    function receptiveField(level) {
      const layers = [[7, 2], [3, 2]]; // the stem: kernel and stride
      for (let stage = 2; stage <= level; stage++) {
        layers.push([3, stage > 2 ? 2 : 1], [3, 1], [3, 1], [3, 1]); // two blocks
      }
      let [side, apart] = [1, 1];
      for (const [kernel, stride] of layers) {
        side += (kernel - 1) * apart;
        apart *= stride;
      }
      return side;
    }

    const half = {}; // without the pixel in the middle
    for (const level of [3, 4, 5]) half[level] = (receptiveField(level) - 1) / 2;

    // The pixels of one axis that can change cell i of a level, from and to.
    function seenBy(i, level) {
      let [low, high, at] = [i, i, level]; // cells low to high of the map `at`
      // P7 is made of P6, and P6 of C5, by 3 × 3 convolutions with stride 2.
      for (; at > 5; at--) {
        low = Math.max(2 * low - 1, 0);
        high = Math.min(2 * high + 1, lastOf(at - 1));
      }
      // With the way down: the 3 × 3 that smooths, and the maps above, where two cells are one.
      if (state.down && level <= 5) {
        [low, high] = [Math.max(low - 1, 0), Math.min(high + 1, lastOf(at))];
      }
      const top = state.down ? 5 : at;
      let [from, to] = [SIDE, 0];
      for (; at <= top; at++) {
        const stride = strideOf(at);
        from = Math.min(from, low * stride - half[at]);
        to = Math.max(to, high * stride + half[at] + 1);
        [low, high] = [Math.floor(low / 2), Math.floor(high / 2)];
      }
      return [Math.max(from, 0), Math.min(to, SIDE)];
    }

    // Corners of what the cell below the place sees.
    function windowOf(level) {
      const [column, row] = state.at.map((value) => cellOf(value, level));
      const [[x1, x2], [y1, y2]] = [seenBy(column, level), seenBy(row, level)];
      return [x1, y1, x2, y2];
    }

    // The nine anchors of a cell: three ratios times three scales.
    function anchorsOf(column, row, level) {
      const stride = strideOf(level);
      const [cx, cy] = [(column + 0.5) * stride, (row + 0.5) * stride];
      return RATIOS.flatMap((ratio) =>
        [0, 1, 2].map((third) => {
          const side = 4 * stride * 2 ** (third / 3);
          const [w, h] = [side / Math.sqrt(ratio), side * Math.sqrt(ratio)];
          return [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2];
        }),
      );
    }

    const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);

    function shared(a, b) {
      const w = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
      const h = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
      return Math.max(w, 0) * Math.max(h, 0);
    }

    function iou(a, b) {
      const both = shared(a, b);
      return both / (area(a) + area(b) - both);
    }

    // A square around the place, or as near to it as the picture allows.
    function objectBox() {
      const [x1, y1] = state.at.map((v) => x.clamp(v - state.size / 2, 0, SIDE - state.size));
      return [x1, y1, x1 + state.size, y1 + state.size];
    }

    // All anchors of a level: the best IoU, and how many are positive. None reaches further than
    // 4.5 strides, half of 4 · 2^(2/3) · √2, so cells further from the object are left out.
    function match(object, level) {
      const near = (value, way) =>
        x.clamp(Math.floor(value / strideOf(level) + way), 0, lastOf(level));
      const [left, top] = object.map((value) => near(value, -5));
      const [, , right, bottom] = object.map((value) => near(value, 5));
      let [best, positives] = [0, 0];
      for (let row = top; row <= bottom; row++) {
        for (let column = left; column <= right; column++) {
          for (const anchor of anchorsOf(column, row, level)) {
            const value = iou(anchor, object);
            best = Math.max(best, value);
            positives += value >= POSITIVE;
          }
        }
      }
      return { best, positives };
    }

    const [width, height] = [SIDE, SIDE];
    const scene = x.scene({ width, height, label: "A photograph, a cell, its window and anchors" });
    const picture = { href: window.explorableData.pyramid, width, height };
    x.add(scene.svg, "image", { ...picture, class: "faint" });
    const hole = x.add(x.add(scene.svg, "clipPath", { id: "pyramid-window" }), "rect");
    x.add(scene.svg, "image", { ...picture, "clip-path": "url(#pyramid-window)" });
    const grid = x.add(scene.svg, "path", { class: "cells" });
    x.add(scene.svg, "rect", { class: "frame", width, height });
    const onPhoto = x.add(scene.svg, "g", { class: "on-photo" });
    const sight = x.add(onPhoto, "rect", { class: "prediction" });
    const nine = x.add(onPhoto, "g");
    const cellShape = x.add(onPhoto, "rect", { class: "cell" });
    const objectShape = x.add(onPhoto, "rect", { class: "ground-truth" });
    const objectName = x.add(scene.svg, "text", { text: "object" });
    const sightName = x.add(scene.svg, "text", { text: "seen" });
    scene.point({ key: "at", label: "Place", role: "ground-truth" });
    scene.pick((...at) => x.change({ at: at.map((v) => x.clamp(Math.round(v), 0, SIDE)) }));

    const levels = LEVELS.map((level) => [level, `P${level}`]);
    x.choice("level", { label: "Level", options: levels });
    x.checkbox("down", { label: "With the way down of the FPN" });
    const size = { label: "Object's side", min: 8, max: SIDE, unit: "px" };
    x.slider("size", { ...size, log: true, step: 0.2 });
    const pair = { format: (list) => list.map((value) => x.format(value)).join(" × ") };
    const four = { format: (list) => list.map((value) => x.format(value)).join("\u2002") };
    const showStride = x.reading("stride", "Stride", { unit: "px" });
    const showCells = x.reading("cells", "Cells", pair);
    const showWindow = x.reading("window", "Its cell sees (px)", four);
    const showSeen = x.reading("seen", "Share of the object seen", {
      format: (value) => x.format(100 * value, 0, "%"),
    });
    const showMine = x.reading("mine", "Positive anchors of the cell");
    const showTakers = x.reading("takers", "Who takes the object", {
      format: (list) => list.map((level) => `P${level}`).join(", ") || "nobody",
    });
    const showLevels = x.table({
      caption: "The cell below the place, and the anchors of all cells",
      head: ["level", "sees, px", "best IoU", "positives"],
    });
    const hidden = { into: x.add(x.below, "div", { hidden: "" }), format: String }; // for tests
    const showBest = x.reading("best", "Best IoU of each level", hidden);
    const showPositives = x.reading("positives", "Positive anchors of each level", hidden);

    return () => {
      const { level } = state;
      const stride = strideOf(level);
      const [column, row] = state.at.map((value) => cellOf(value, level));
      const object = objectBox();
      const seen = windowOf(level);
      const anchors = anchorsOf(column, row, level);

      // The anchors of a coarse level need more room than the picture.
      if (!scene.busy) {
        const pad = Math.max(36, 4 * stride);
        scene.look([-pad, -pad, SIDE + 2 * pad, SIDE + 2 * pad]);
      }
      const lines = [];
      for (let at = stride; at < SIDE; at += stride) lines.push(`M${at} 0V${SIDE}M0 ${at}H${SIDE}`);
      x.set(grid, { d: lines.join("") });
      const rect = ([x1, y1, x2, y2]) => ({ x: x1, y: y1, width: x2 - x1, height: y2 - y1 });
      x.set(hole, rect(seen));
      x.set(sight, rect(seen));
      x.set(sightName, { x: seen[0] + 4 * scene.px, y: seen[3] - 5 * scene.px });
      x.set(cellShape, { x: column * stride, y: row * stride, width: stride, height: stride });
      x.set(objectShape, rect(object));
      x.set(objectName, { x: object[0] + 4 * scene.px, y: object[1] + 15 * scene.px });
      const values = anchors.map((anchor) => iou(anchor, object));
      const fate = (value) =>
        value >= POSITIVE ? "positive" : value >= NEGATIVE ? "ignored" : "background";
      x.fill(nine, "rect", anchors.map((anchor, i) => (
        { class: `anchor ${fate(values[i])}`, ...rect(anchor) })));

      const matches = LEVELS.map((one) => match(object, one));
      const takers = LEVELS.filter((_, i) => matches[i].positives);
      const share = shared(seen, object) / area(object);
      const mine = values.filter((value) => value >= POSITIVE).length;
      showStride(stride);
      showCells([SIDE / stride, SIDE / stride]);
      showWindow(seen);
      showSeen(share);
      showMine(mine);
      showTakers(takers);
      showBest(matches.map(({ best }) => best));
      showPositives(matches.map(({ positives }) => positives));
      showLevels(LEVELS.map((one, i) => {
        const [x1, y1, x2, y2] = windowOf(one);
        const { best, positives } = matches[i];
        return [
          `P${one}${one === level ? " ◀" : ""}`,
          `${x2 - x1}\u00a0×\u00a0${y2 - y1}`,
          x.format(best, 2),
          x.format(positives),
        ].map((text) => ({ text, class: positives ? "taken" : null }));
      }));

      const names = takers.map((one) => `P${one}`).join(" and ");
      const side = x.format(state.size);
      x.say(
        `This cell of P${level} sees ${seen[2] - seen[0]} × ${seen[3] - seen[1]} px, ` +
          `${x.format(100 * share, 0, "%")} of the object. The object of ${side} × ${side} px is ` +
          (takers.length ? `taken by ${names}.` : "taken by nobody: no anchor has an IoU of 0.5."),
      );
    };
  },
});
