// Which anchor answers for which object (chapter 8).
//
// The package computes the same in retinanet_edu/matching.py, match_anchors.
(window.explorables ??= []).push({
  name: "matching",
  title: "Who is responsible for which object?",
  // Objects as x1 y1 x2 y2 in pixels. B is as small as the glint in the spoon.
  state: {
    a: [36, 30, 104, 90],
    b: [144, 98, 160, 108],
    positive: 0.5,
    negative: 0.4,
    force: false,
  },

  build(x, state) {
    const [BACKGROUND, IGNORED] = [-1, -2];
    const picture = [192, 144];
    // One square anchor a cell, so that each can be seen. The centres of no two levels coincide.
    const levels = [
      { name: "P3", stride: 8, size: 32 },
      { name: "P4", stride: 16, size: 64 },
      { name: "P5", stride: 32, size: 128 },
    ];
    const anchors = levels.flatMap(({ stride, size }, level) => {
      const [columns, rows] = picture.map((side) => Math.ceil(side / stride));
      return Array.from({ length: rows * columns }, (_, i) => {
        const cx = ((i % columns) + 0.5) * stride;
        const cy = (Math.floor(i / columns) + 0.5) * stride;
        const half = size / 2;
        return { level, cx, cy, box: [cx - half, cy - half, cx + half, cy + half] };
      });
    });

    // Right of the picture is room for an object that overlaps no anchor. P5's reach to x = 240.
    const [width, height] = [280, 176];
    const scene = x.scene({ width, height, label: "Objects over the anchors of three levels" });
    x.add(scene.svg, "rect", { class: "frame", width, height });
    const edge = { width: picture[0], height: picture[1], fill: "none", class: "tick" };
    x.add(scene.svg, "rect", edge);
    const names = ["picture", "outside"].map((text) => x.add(scene.svg, "text", { text }));
    // All marks of a kind are one path. A kind is a form as well as a colour.
    const plain = "stroke-dasharray: none; stroke-width: 1.5px;";
    const filled = `${plain} fill: var(--role)`;
    const mark = (role, style) => x.add(scene.svg, "path", { class: role, style });
    const marks = {
      background: mark("background", `${filled}; stroke: none`),
      ignored: mark("ignored", `${plain} fill: none`),
      a: mark("positive", filled),
      b: mark("positive", filled),
    };
    const disc = (r) => `m${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`;
    const forms = {
      background: (r) => disc(0.35 * r),
      ignored: (r) => `m0 ${-r}l${r} ${r}l${-r} ${r}l${-r} ${-r}z`,
      a: disc,
      b: (r) => `m0 ${-r}l${r} ${1.8 * r}h${-2 * r}z`,
    };
    const shown = ["a", "b"].map(() => x.add(scene.svg, "rect"));
    scene.box({ key: "a", label: "Object A", name: "A", role: "ground-truth" });
    scene.box({ key: "b", label: "Object B", name: "B", role: "ground-truth" });

    // negative ≤ positive: one slider pushes the other. This runs before they are drawn.
    let held = {};
    x.syncs.push(() => {
      const { positive, negative } = state;
      if (negative > positive) {
        if (positive === held.positive) state.positive = negative;
        else state.negative = positive;
      }
      held = { positive: state.positive };
    });
    const range = { min: 0.05, max: 1, step: 0.05, digits: 2 };
    x.slider("positive", { ...range, label: "Positive from IoU" });
    x.slider("negative", { ...range, label: "Background below IoU" });
    x.checkbox("force", { label: "Force-match: each object claims its best anchors" });
    const show = {
      a: x.reading("a", "● positive, for A"),
      b: x.reading("b", "▲ positive, for B"),
      ignored: x.reading("ignored", "◇ ignored"),
      background: x.reading("background", "· background"),
      match: x.reading("match", "All anchors", { format: (list) => x.format(list.length) }),
      best: x.reading("best", "Best IoU (thin boxes)", {
        format: (list) => list.map((value) => x.format(value, 3)).join("\u2002"),
      }),
    };
    const table = x.table({
      caption: "Squares of 32, 64 and 128 px: the larger, the larger the mark",
      head: ["level", "A", "B", "ignored", "background"],
    });

    function iou(a, b) {
      const w = Math.max(Math.min(a[2], b[2]) - Math.max(a[0], b[0]), 0);
      const h = Math.max(Math.min(a[3], b[3]) - Math.max(a[1], b[1]), 0);
      const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);
      return (w * h) / (area(a) + area(b) - w * h);
    }

    // An anchor's answer: 0 for A, 1 for B, or one of the two others.
    function answer(ious, most) {
      const best = Math.max(...ious);
      // A claim needs an overlap. Else an object outside would claim every anchor.
      const isClaimed = state.force && ious.some((v, i) => v === most[i] && v > 0);
      // Of equal objects the first. A claimed anchor, too, answers for its own best object.
      if (best >= state.positive || isClaimed) return ious.indexOf(best);
      return best < state.negative ? BACKGROUND : IGNORED;
    }

    const kinds = { [BACKGROUND]: "background", [IGNORED]: "ignored", 0: "a", 1: "b" };

    function tell(name, count, most) {
      const best = `its best IoU is ${x.format(most, 2)}`;
      const forced = state.force && most < state.positive;
      if (count) {
        const anchors = `${name} has ${count} anchor${count > 1 ? "s" : ""}`;
        return forced ? `${anchors}, by force: ${best}.` : `${anchors}.`;
      }
      if (most === 0) {
        const trap = "If a claim needed no overlap, it would make all anchors positive.";
        return `${name} overlaps no anchor and gets none. ${state.force ? trap : ""}`;
      }
      if (most < state.positive && !state.force) return `Nobody claims ${name}: ${best}.`;
      return `${name} has none: its best anchors overlap the other more, and answer for that.`;
    }

    return () => {
      const objects = [state.a, state.b];
      const ious = anchors.map(({ box }) => objects.map((object) => iou(box, object)));
      const most = objects.map((_, i) => Math.max(...ious.map((row) => row[i])));
      const match = ious.map((row) => answer(row, most));

      const counts = {};
      for (const kind of Object.keys(marks)) {
        const own = anchors.filter((_, i) => kinds[match[i]] === kind);
        const d = own.map(({ level, cx, cy }) => {
          return `M${cx} ${cy}${forms[kind]([3, 4.2, 6][level] * scene.px)}`;
        });
        x.set(marks[kind], { d: d.join("") });
        show[kind](own.length);
        counts[kind] = levels.map((_, level) => own.filter((a) => a.level === level).length);
      }
      show.match(match);
      show.best(most);
      const columns = ["a", "b", "ignored", "background"];
      table(levels.map(({ name }, level) => [name, ...columns.map((kind) => counts[kind][level])]));

      // The best anchor of each object, in the line of its role; none for an object outside.
      shown.forEach((rect, i) => {
        const best = ious.findIndex((row) => row[i] === most[i]);
        const [x1, y1, x2, y2] = anchors[best].box;
        const role = match[best] >= 0 ? "positive" : kinds[match[best]];
        const style = `stroke-width: 1.5px; ${most[i] ? "" : "display: none"}`;
        x.set(rect, { x: x1, y: y1, width: x2 - x1, height: y2 - y1, class: role, style });
      });
      x.set(names[0], { x: 4 * scene.px, y: picture[1] + 16 * scene.px });
      x.set(names[1], { x: picture[0] + 6 * scene.px, y: 16 * scene.px });

      const own = (object) => match.filter((one) => one === object).length;
      const [a, b] = ["A", "B"].map((name, i) => tell(name, own(i), most[i]));
      x.say(`${a} ${b}`);
    };
  },
});
