// Intersection over union of two boxes (chapter 2).
//
// The package computes the same in retinanet_edu/boxes.py, pairwise_iou.
(window.explorables ??= []).push({
  name: "iou",
  title: "Intersection over union",
  // x1 y1 x2 y2 in pixels. Both are 180 × 120, so that halves are easy to see.
  state: { truth: [60, 60, 240, 180], guess: [210, 120, 390, 240] },

  build(x, state) {
    const [width, height] = [480, 300];
    const scene = x.scene({ width, height, label: "Two boxes on squares of 30 px" });
    const lines = [];
    for (let at = 0; at <= width; at += 30) {
      lines.push(`M${at} 0V${height}`);
      if (at <= height) lines.push(`M0 ${at}H${width}`);
    }
    x.add(scene.svg, "path", { class: "grid", d: lines.join("") });
    // Hatched, so that it is seen without colours.
    const pattern = x.add(scene.svg, "pattern", { id: "iou-hatch", width: 10, height: 10 });
    x.set(pattern, { patternUnits: "userSpaceOnUse" });
    x.add(pattern, "path", { class: "hatch", d: "M-2 2L2 -2M0 10L10 0M8 12L12 8" });
    const shared = x.add(scene.svg, "rect", { fill: "url(#iou-hatch)" });
    scene.box({ key: "truth", label: "Object's box", name: "object", role: "ground-truth" });
    scene.box({ key: "guess", label: "Predicted box", name: "prediction", role: "prediction" });

    const intersection = x.reading("intersection", "Intersection", { unit: "px²" });
    const union = x.reading("union", "Union", { unit: "px²" });
    const iou = x.reading("iou", "IoU", { digits: 3 });

    // A ruler from 0 to 1 with the two thresholds of matching.
    const ruler = x.scene({ width: 240, height: 80, label: "IoU on a ruler", into: x.panel });
    const [from, to] = [8, 232];
    const place = (value) => from + value * (to - from);
    for (const [low, high, role, at, anchor] of [
      [0, 0.4, "background", 0, "start"],
      [0.4, 0.5, "ignored", 0.4, "start"],
      [0.5, 1, "positive", 1, "end"],
    ]) {
      x.add(ruler.svg, "path", { class: `ruler ${role}`, d: `M${place(low)} 30H${place(high)}` });
      x.add(ruler.svg, "text", { x: place(at), y: 74, "text-anchor": anchor, text: role });
    }
    for (const [value, anchor] of [[0, "start"], [0.4, "end"], [0.5, "start"], [1, "end"]]) {
      x.add(ruler.svg, "path", { class: "tick", d: `M${place(value)} 22V38` });
      const text = { x: place(value), y: 54, "text-anchor": anchor, text: value };
      x.add(ruler.svg, "text", text);
    }
    const hand = x.add(ruler.svg, "path", { class: "hand" });

    return () => {
      const [a, b] = [state.truth, state.guess];
      const left = Math.max(a[0], b[0]);
      const top = Math.max(a[1], b[1]);
      // Strangers have negative sides here. Both are stopped at 0 before they are multiplied.
      const w = Math.max(Math.min(a[2], b[2]) - left, 0);
      const h = Math.max(Math.min(a[3], b[3]) - top, 0);
      const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);
      const both = w * h;
      const any = area(a) + area(b) - both; // the sum counts the shared part twice
      const value = both / any;

      x.set(shared, { x: left, y: top, width: w, height: h });
      intersection(both);
      union(any);
      iou(value);
      x.set(hand, { d: `M${place(value)} 26l-7 -16h14z` });

      const share = (part) => `${x.format(100 * part)} %`;
      const meaning =
        value >= 0.5
          ? "0.5 or more: an anchor like this would be positive, a detection like this correct."
          : value >= 0.4
            ? "from 0.4 to below 0.5: an anchor like this would be ignored."
            : "below 0.4: an anchor like this would be background.";
      x.say(
        `IoU ${x.format(value, 3)}. ${share(both / area(a))} of the object and ` +
          `${share(both / area(b))} of the prediction are shared. This is ${meaning}`,
      );
    };
  },
});
