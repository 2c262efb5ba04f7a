// Non-maximum suppression of a detector's candidates, step by step (chapter 12).
//
// The package computes the same in retinanet_edu/suppression.py, nms and nms_per_class; the
// candidates in nms.data.js are those of data/voc_model with a score above 0.3.
(window.explorables ??= []).push({
  name: "nms",
  title: "Suppression, step by step",
  // A step chooses one candidate. A step beyond the last one is the last one.
  state: { step: 0, iou: 0.5, cut: 0.3, within: true, order: "paper", draw: "boxes" },

  build(x, state) {
    const data = window.explorableData.nms;
    const all = data.scores.map((_, i) => i); // best score first
    const pad = 8;
    const label = "The candidates on a photograph of an astronaut";
    const scene = x.scene({ width: data.width, height: data.height, pad, label });
    const size = { width: data.width, height: data.height };
    x.add(scene.svg, "image", { ...size, href: data.photograph });
    const rects = x.add(scene.svg, "g");
    const names = x.add(scene.svg, "g");

    const steps = x.add(x.panel, "div", { class: "slider" });
    const showStep = x.reading("step", "Step", { format: ([now, end]) => `${now} of ${end}` });
    const limits = { min: 0.1, max: 0.9, step: 0.05, digits: 2 };
    x.slider("iou", { ...limits, label: "Dropped above an IoU of" });
    x.slider("cut", { label: "Scores above", min: 0.3, max: 0.6, step: 0.01, digits: 2 });
    x.checkbox("within", { label: "Only within a class" });
    const orders = [["paper", "decode first (paper)"], ["article", "suppress first (article)"]];
    x.choice("order", { label: "Order", options: orders });
    const drawn = [["boxes", "decoded boxes"], ["anchors", "their anchors"]];
    x.choice("draw", { label: "Drawn are the", options: drawn });
    const length = { format: (list) => x.format(list.length) };
    const showCandidates = x.reading("candidates", "Candidates");
    const showGone = x.reading("gone", "Dropped so far", length);
    const showKept = x.reading("kept", "Kept in the end", length);
    const showTwins = x.reading("twins", "Pairs of these above that IoU", length);
    const head = ["", "class", "score", "fate", "IoU"];
    const showRows = x.table({ caption: "The candidates, best score first", head });

    function iou(a, b) {
      const w = Math.max(Math.min(a[2], b[2]) - Math.max(a[0], b[0]), 0);
      const h = Math.max(Math.min(a[3], b[3]) - Math.max(a[1], b[1]), 0);
      const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);
      return (w * h) / (area(a) + area(b) - w * h);
    }
    const compete = (i, j) => !state.within || data.classes[i] === data.classes[j];

    // Choose the best that is left, drop what overlaps it by more, go on. `by[j]` is who dropped j.
    function suppress() {
      const candidates = all.filter((i) => data.scores[i] > state.cut);
      const compared = state.order === "paper" ? data.boxes : data.anchors;
      const [kept, by, overlap] = [[], {}, {}];
      for (const i of candidates) {
        if (i in by) continue; // who is gone drops nobody
        kept.push(i);
        for (const j of candidates) {
          if (j <= i || j in by || !compete(i, j)) continue;
          const shared = iou(compared[i], compared[j]);
          if (shared > state.iou) [by[j], overlap[j]] = [i, shared];
        }
      }
      return { candidates, kept, by, overlap };
    }

    const go = (way) => {
      const end = suppress().kept.length;
      x.change({ step: x.clamp(Math.min(state.step, end) + way, 0, end) });
    };
    x.check("step", (step) => Number.isInteger(step) && step >= 0 && step <= all.length);
    x.button("◀ back", () => go(-1), steps);
    x.button("next ▶", () => go(1), steps);
    x.button("to end", () => x.change({ step: all.length }), steps);

    // Anchors reach beyond the photograph: then one looks from further away.
    const edge = (k, most) => most(...data.anchors.map((anchor) => anchor[k]));
    const [left, top] = [edge(0, Math.min), edge(1, Math.min)];
    const around = [left, top, edge(2, Math.max) - left, edge(3, Math.max) - top];
    const views = { boxes: scene.view, anchors: around };

    let shown = 0; // the step to which the table was last scrolled
    return () => {
      const { candidates, kept, by, overlap } = suppress();
      const step = Math.min(state.step, kept.length);
      const chosen = kept.slice(0, step);
      const now = chosen[step - 1];
      const isGone = (i) => i in by && chosen.includes(by[i]);
      const gone = candidates.filter(isGone);

      if (scene.view !== views[state.draw]) scene.look(views[state.draw]);
      const boxes = data[state.draw];
      const shape = (i, style) => {
        const [x1, y1, x2, y2] = boxes[i];
        return { x: x1, y: y1, width: x2 - x1, height: y2 - y1, class: style };
      };
      const waiting = candidates.filter((i) => !chosen.includes(i) && !isGone(i));
      const dropped = gone.filter((i) => by[i] === now);
      x.fill(rects, "rect", [
        ...waiting.map((i) => shape(i, "prediction waiting")),
        ...dropped.map((i) => shape(i, "background dropped")),
        ...chosen.map((i) => shape(i, i === now ? "prediction chosen" : "prediction")),
      ]);
      // Inside of the picture, and one below the other where corners meet.
      const places = [];
      const line = 16 * scene.px;
      x.fill(names, "text", chosen.map((i) => {
        const at = { x: boxes[i][0] + 4 * scene.px, y: boxes[i][1] + line };
        while (places.some((p) => Math.abs(p.x - at.x) < 3 * line && Math.abs(p.y - at.y) < line)) {
          at.y += line / 2;
        }
        places.push(at);
        return { ...at, text: i === now ? `${i + 1} ${data.classes[i]}` : i + 1 };
      }));

      const twins = [];
      for (const i of kept) {
        for (const j of kept) {
          const meet = i < j && compete(i, j) && iou(data.boxes[i], data.boxes[j]) > state.iou;
          if (meet) twins.push([i, j]);
        }
      }
      showStep([step, kept.length]);
      showCandidates(candidates.length);
      showGone(gone.map((i) => [i, by[i], overlap[i]]));
      showKept(kept);
      showTwins(twins);

      showRows(candidates.map((i) => {
        const fate = chosen.includes(i) ? "✓ kept" : isGone(i) ? `✗ by ${by[i] + 1}` : "waits";
        const texts = [i + 1, data.classes[i], x.format(data.scores[i], 3), fate];
        texts.push(isGone(i) ? x.format(overlap[i], 2) : "–");
        return texts.map((text) => ({ text, class: isGone(i) ? "out" : null }));
      }));
      // The table follows the step; the page stays where it is.
      if (step !== shown && step) {
        const box = x.below.querySelector(".scroll");
        const row = box.querySelectorAll("tbody tr")[candidates.indexOf(now)];
        const away = row.getBoundingClientRect().top - box.getBoundingClientRect().top;
        box.scrollTop += away - box.clientHeight / 3;
      }
      shown = step;

      const compared = state.order === "paper" ? "boxes" : "anchors";
      const best = `${now + 1}, ${data.classes[now]} ${x.format(data.scores[now] ?? 0, 2)}`;
      const pairs = ["no pair of them overlaps", "1 pair of them overlaps"][twins.length];
      const many = `${twins.length} pairs of them overlap`;
      x.say(
        (step
          ? `Step ${step}: the best that is left is ${best}. It drops ${dropped.length}, ` +
            `by an IoU of ${compared} above ${x.format(state.iou, 2)}. `
          : `${candidates.length} candidates. ◀ and ▶ choose one after another. `) +
          (step === kept.length
            ? `Nothing is left to choose: ${kept.length} are kept, and ${pairs ?? many} by more ` +
              `than ${x.format(state.iou, 2)} once they are decoded.`
            : `${waiting.length} are left.`),
      );
    };
  },
});
