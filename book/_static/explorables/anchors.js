// The anchors of a design, and the objects that they reach (chapter 7).
//
// The package computes the same in retinanet_edu/anchors.py, AnchorGenerator. The picture is drawn
// as a square of 512 units, whatever its side in pixels: objects grow with their picture, anchors
// do not.
(window.explorables ??= []).push({
  name: "anchors",
  title: "A few guesses a cell, and whom they reach",
  // The object is in units. The sizes are those of the paper, on a picture of 512 pixels.
  state: {
    object: [180, 120, 302, 410],
    scales: 3,
    ratios: 3,
    size: 32,
    stride: 8,
    offset: 0.5,
    side: 512,
  },

  build(x, state) {
    const UNITS = 512;
    const LEVELS = [0, 1, 2, 3, 4]; // each has twice the stride and the sizes of the one before
    const RATIOS = { 1: [1], 3: [1 / 2, 1, 2], 5: [1 / 3, 1 / 2, 1, 2, 3] }; // height / width
    const objects = window.explorableData.anchors.match(/.{8}/g).map((text) => {
      const [w, h, at, down] = text.match(/../g).map((digits) => parseInt(digits, 36));
      const place = (step) => ((step + 0.5) / 1296) * 128 + 384;
      return { w: w / 1000, h: h / 1000, x: place(at), y: place(down) };
    });

    // Width and height of a cell's anchors: ratio outer, scale inner. The area is that of a square
    // of `size · scale`, whatever the ratio.
    function cellAnchors({ size, scales, ratios }, level) {
      return RATIOS[ratios].flatMap((ratio) =>
        Array.from({ length: scales }, (_, i) => {
          const side = size * 2 ** (level + i / scales);
          return { w: side / Math.sqrt(ratio), h: side * Math.sqrt(ratio) };
        }),
      );
    }

    // IoU of two boxes whose centres are dx and dy apart.
    function iou(a, b, dx, dy) {
      const w = Math.max(0, Math.min(a.w, b.w, (a.w + b.w) / 2 - dx));
      const h = Math.max(0, Math.min(a.h, b.h, (a.h + b.h) / 2 - dy));
      return (w * h) / (a.w * a.h + b.w * b.h - w * h);
    }

    // On each level the nearest cell is the best one, so the other thousands need no look.
    function bestAnchor(box) {
      let best = { value: -1 };
      for (const level of LEVELS) {
        const stride = state.stride * 2 ** level;
        const last = Math.ceil(state.side / stride) - 1;
        const near = (c) =>
          (x.clamp(Math.round(c / stride - state.offset), 0, last) + state.offset) * stride;
        const cell = { x: near(box.x), y: near(box.y) };
        cellAnchors(state, level).forEach((anchor, index) => {
          const value = iou(box, anchor, Math.abs(cell.x - box.x), Math.abs(cell.y - box.y));
          if (value > best.value) best = { value, level, stride, cell, anchor, index };
        });
      }
      return best;
    }

    // The best IoU of every object of VOC, sorted. They lie at random places, as in the chapter.
    function reach(design) {
      const best = new Float64Array(objects.length);
      for (const level of LEVELS) {
        const stride = design.stride * 2 ** level;
        const anchors = cellAnchors(design, level);
        const away = (c) => {
          const cells = c / stride - design.offset;
          return Math.abs(cells - Math.round(cells)) * stride;
        };
        objects.forEach((object, i) => {
          const box = { w: object.w * design.side, h: object.h * design.side };
          const [dx, dy] = [away(object.x), away(object.y)];
          for (const anchor of anchors) best[i] = Math.max(best[i], iou(box, anchor, dx, dy));
        });
      }
      return best.sort();
    }

    const shareFrom = (sorted, least) => {
      const below = sorted.findIndex((value) => value >= least);
      return below < 0 ? 0 : 1 - below / sorted.length;
    };
    const curve = (sorted) =>
      Array.from({ length: 81 }, (_, i) => [0.2 + i / 100, shareFrom(sorted, 0.2 + i / 100)]);

    const [width, height] = [UNITS, UNITS];
    const label = "A picture, an object in it, and the anchors of one cell";
    const scene = x.scene({ width, height, pad: 44, label });
    const dots = x.add(scene.svg, "pattern", { id: "anchors-dots" });
    x.set(dots, { patternUnits: "userSpaceOnUse" });
    const dot = x.add(dots, "circle", { class: "hand" });
    x.add(scene.svg, "rect", { width, height, fill: "url(#anchors-dots)" });
    x.add(scene.svg, "rect", { class: "frame", width, height });
    const others = x.add(scene.svg, "g");
    const chosen = x.add(scene.svg, "rect");
    const levelName = x.add(scene.svg, "text");
    scene.box({ key: "object", label: "Object's box", name: "object", role: "ground-truth" });

    const octave = [1, 2, 3, 4].map((count) => [count, count]);
    x.choice("scales", { label: "Scales to an octave", options: octave });
    const ratios = [[1, "1"], [3, "½ 1 2"], [5, "⅓ ½ 1 2 3"]];
    x.choice("ratios", { label: "Ratios, height / width", options: ratios });
    const size = { label: "Base size of the finest level", min: 8, max: 128, unit: "px" };
    x.slider("size", { ...size, log: true, step: 0.25 });
    const strides = [4, 8, 16].map((stride) => [stride, `${stride} px`]);
    x.choice("stride", { label: "Stride of the finest level", options: strides });
    const offsets = [[0, "0, corner"], [0.5, "½, middle"]];
    x.choice("offset", { label: "Centre in its cell", options: offsets });
    const sides = [256, 384, 512, 800].map((side) => [side, side]);
    x.choice("side", { label: "Side of the picture, px", options: sides });

    const showCount = x.reading("count", "Anchors in all");
    const showBest = x.reading("iou", "Object and best anchor: IoU", { digits: 3 });
    const four = { format: (list) => list.map((value) => x.format(value)).join("\u2002") };
    const showAnchor = x.reading("anchor", "Best anchor (px)", four);
    const percent = { format: (value) => x.format(100 * value, 1, "%") };
    const showHalf = x.reading("half", "VOC's objects with IoU ≥ 0.5", percent);
    const showNear = x.reading("near", "VOC's objects with IoU ≥ 0.7", percent);
    const showMean = x.reading("mean", "Mean IoU", { digits: 3 });

    const plot = x.plot({
      ...{ x: [0.2, 1], xticks: [0.2, 0.4, 0.5, 0.7, 1], xlabel: "IoU with the best anchor" },
      ...{ y: [0, 1], yticks: [0, 0.25, 0.5, 0.75, 1], ylabel: "share of the objects" },
      height: 200,
      label: "Share of VOC's objects that have an anchor of at least this IoU",
    });
    const paper = plot.line({ class: "reference" });
    const line = plot.line({ class: "positive" });
    x.add(plot.svg, "path", { class: "reference", d: "M62 128h34" });
    x.add(plot.svg, "text", { x: 100, y: 132, text: "nine, at 512 px" });
    x.add(plot.svg, "path", { class: "positive", d: "M62 146h34" });
    x.add(plot.svg, "text", { x: 100, y: 150, text: "your design" });
    paper(curve(reach(x.defaults)));

    let [known, sorted] = ["", []];
    return () => {
      // The long loop runs only if the design has changed, not while the object is dragged.
      const { object, ...design } = state;
      if (known !== JSON.stringify(design)) {
        known = JSON.stringify(design);
        sorted = reach(design);
        line(curve(sorted));
      }

      const px = state.side / UNITS; // pixels of the picture in a unit
      const [x1, y1, x2, y2] = object.map((value) => value * px);
      const box = { x: (x1 + x2) / 2, y: (y1 + y2) / 2, w: x2 - x1, h: y2 - y1 };
      const best = bestAnchor(box);
      const corners = ({ w, h }) => [
        best.cell.x - w / 2,
        best.cell.y - h / 2,
        best.cell.x + w / 2,
        best.cell.y + h / 2,
      ];
      const rect = (anchor) => {
        const [left, top] = corners(anchor);
        const sides = { width: anchor.w / px, height: anchor.h / px };
        return { x: left / px, y: top / px, ...sides };
      };
      // A line says what shape it is: dashes lie, dots stand.
      const dashes = ({ w, h }) => (w > h * 1.01 ? "7 4" : h > w * 1.01 ? "1 4" : null);
      const guesses = cellAnchors(state, best.level);
      x.fill(others, "rect", guesses.map((anchor) => (
        { class: "guess", "stroke-dasharray": dashes(anchor), ...rect(anchor) })));
      const fate = best.value >= 0.5 ? "positive" : best.value >= 0.4 ? "ignored" : "background";
      x.set(chosen, { class: fate, ...rect(best.anchor) });

      // Each dot stands in the middle of a tile.
      const gap = best.stride / px;
      const start = (state.offset - 0.5) * gap;
      x.set(dots, { x: start, y: start, width: gap, height: gap });
      x.set(dot, { cx: gap / 2, cy: gap / 2, r: Math.min(1.6 * scene.px, gap / 5) });
      const name = `P${Math.log2(best.stride)}`;
      const title = `cells of ${name}, stride ${best.stride}`;
      x.set(levelName, { x: 0, y: -10 * scene.px, text: title });

      const cells = LEVELS.map((level) => Math.ceil(state.side / (state.stride * 2 ** level)) ** 2);
      const count = guesses.length * cells.reduce((sum, number) => sum + number);
      const [half, near] = [shareFrom(sorted, 0.5), shareFrom(sorted, 0.7)];
      showCount(count);
      showBest(best.value);
      showAnchor(corners(best.anchor));
      showHalf(half);
      showNear(near);
      showMean(sorted.reduce((sum, value) => sum + value, 0) / sorted.length);

      const meaning = {
        positive: "it must find the object",
        ignored: "it is ignored, and nobody learns the object",
        background: "nobody learns the object",
      };
      x.say(
        `The object of ${x.format(box.w)} × ${x.format(box.h)} px has its best anchor ` +
          `on ${name}, ${x.format(best.anchor.w)} × ${x.format(best.anchor.h)} px: IoU ` +
          `${x.format(best.value, 2)}, ${meaning[fate]}. Of VOC's objects ` +
          `${x.format(100 * half, 1)} % have an anchor of IoU 0.5 or more, ` +
          `${x.format(100 * near, 1)} % one of 0.7.`,
      );
    };
  },
});
