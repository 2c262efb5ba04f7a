// Precision, recall and average precision of a ledger of detections (chapter 14).
//
// The package computes the same in retinanet_edu/evaluation/voc.py, precision_recall and
// average_precision; ap.data.js was made with match_detections of the same module.
(window.explorables ??= []).push({
  name: "ap",
  title: "Average precision, from a ledger",
  state: { ledger: "disc", iou: 0.5, cut: 0.5, draw: "area" },

  build(x, state) {
    const LOWEST = 0.05; // the detector says nothing below it
    const tenths = Array.from({ length: 11 }, (_, k) => k / 10);
    const fates = { T: "✓ true", F: "✗ false", I: "difficult" };
    const last = (list) => list[list.length - 1];

    const label = "Precision against recall. The curve grows as the score threshold falls";
    const ticks = [0, 0.2, 0.4, 0.6, 0.8, 1];
    const axes = { x: [-0.02, 1.02], y: [-0.02, 1.05], xticks: ticks, yticks: ticks };
    const plot = x.plot({ ...axes, xlabel: "recall", ylabel: "precision", height: 320, label });
    const rest = { class: "hatch", "stroke-dasharray": "2 3" };
    const showArea = plot.line({ class: "area" });
    const showRest = plot.line(rest); // what would come below the threshold
    const stems = x.add(plot.inner, "g");
    const showSaw = plot.line({ class: "arrow" });
    const showBest = plot.line({ class: "positive" });
    const dots = x.add(plot.inner, "g");
    const here = x.add(plot.inner, "circle", { class: "hand" });
    const legend = x.add(x.stage, "p", { class: "legend" });
    for (const [style, text] of [
      [{ class: "arrow" }, "so far"],
      [rest, "below the threshold"],
      [{ class: "positive" }, "best precision there or beyond"],
    ]) {
      const item = x.add(legend, "span");
      const line = x.add(item, "svg", { viewBox: "0 0 32 8", "aria-hidden": "true" });
      x.add(line, "path", { ...style, d: "M0 4H32" });
      item.append(text);
    }

    const ledgers = [["hand", "A to D"], ["disc", "discs"], ["crescent", "crescents"]];
    x.choice("ledger", { label: "Ledger", options: ledgers });
    const asked = [0.5, 0.75, 0.9].map((iou) => [iou, String(iou)]);
    x.choice("iou", { label: "True from an IoU of", options: asked });
    x.slider("cut", { label: "Scores above", min: LOWEST, max: 1, step: 0.01, digits: 3 });
    const steps = x.add(x.panel, "div", { class: "slider" });
    const ways = [["area", "area (2010)"], ["11-point", "11 points (2007)"]];
    x.choice("draw", { label: "Average precision by VOC, as", options: ways });
    const showAp = { area: x.reading("area", "AP, area", { digits: 3 }) };
    showAp["11-point"] = x.reading("11-point", "AP, 11 points", { digits: 3 });
    const showObjects = x.reading("objects", "Objects to find");
    const showTrue = x.reading("true", "True detections");
    const showCounted = x.reading("counted", "Detections that count");
    const share = { digits: 3, format: (v) => (v === null ? "0/0" : x.format(v, 3)) };
    const showPrecision = x.reading("precision", "Precision", share);
    const showRecall = x.reading("recall", "Recall", share);
    const head = ["", "score", "fate", "precision", "recall"];
    const showRows = x.table({ caption: "The ledger, best score first", head });

    // Down the whole ledger: what is difficult neither counts nor moves the curve.
    function walk() {
      const { objects, scores, fates: by } = window.explorableData.ap[state.ledger];
      let [found, counted] = [0, 0];
      const rows = scores.map((score, i) => {
        const fate = by[state.iou][i];
        found += fate === "T";
        counted += fate !== "I";
        return { score, fate, found, counted, recall: found / objects, precision: found / counted };
      });
      return { objects, rows };
    }

    // From the end of the curve to its start: what can still be reached at this recall or beyond.
    function envelope(points) {
      const best = points.map((point) => point.precision);
      for (let i = best.length - 2; i >= 0; i--) best[i] = Math.max(best[i], best[i + 1]);
      return best;
    }

    const before = (points, i) => (i ? points[i - 1].recall : 0);

    function area(points, best) {
      const width = (i) => points[i].recall - before(points, i);
      return best.reduce((sum, height, i) => sum + width(i) * height, 0);
    }

    // Tenths as quotients: 3 found of 10 objects give the very number 3 / 10.
    function elevenHeights(points, best) {
      return tenths.map((tenth) => best[points.findIndex((p) => p.recall >= tenth)] ?? 0);
    }

    const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;

    // A threshold that keeps the detections before the first one which is below a score.
    function stopAt(score) {
      const below = walk().rows.find((row) => row.score < score);
      x.change({ cut: below ? below.score : LOWEST });
    }
    const isKept = (row) => row.score > state.cut; // as in postprocess: greater, not equal
    x.button("▲ one fewer", () => {
      const kept = walk().rows.filter(isKept);
      if (kept.length) x.change({ cut: last(kept).score });
    }, steps);
    x.button("▼ one more", () => {
      const next = walk().rows.find((row) => !isKept(row));
      if (next) stopAt(next.score);
    }, steps);
    plot.pick((left, top) => {
      const away = (p) => Math.hypot(plot.X(p.recall) - left, plot.Y(p.precision) - top);
      const points = walk().rows.filter((row) => row.fate !== "I");
      stopAt(points.reduce((a, b) => (away(b) < away(a) ? b : a)).score);
    });

    let shown; // how many rows were kept when the table was last scrolled
    return () => {
      const { objects, rows } = walk();
      const kept = rows.filter(isKept);
      const points = kept.filter((row) => row.fate !== "I");
      const best = envelope(points);
      const heights = elevenHeights(points, best);
      const ap = { area: area(points, best), "11-point": mean(heights) };
      const end = last(points);

      const onCurve = (row) => [row.recall, row.precision];
      const counts = rows.filter((row) => row.fate !== "I");
      showRest(counts.slice(Math.max(points.length - 1, 0)).map(onCurve));
      showSaw(points.map(onCurve));
      // Between two recalls counts what is reached at the next one.
      const sides = (i) => [before(points, i), points[i].recall];
      const stairs = best.flatMap((height, i) => sides(i).map((at) => [at, height]));
      const isArea = state.draw === "area";
      showBest(stairs);
      showArea(isArea && end ? [[0, 0], ...stairs, [end.recall, 0]] : []);
      const eleven = isArea ? [] : tenths.map((t, k) => [plot.X(t), plot.Y(heights[k])]);
      const [left, bottom] = [plot.X(0), plot.Y(0)];
      const style = { class: "prediction" };
      x.fill(stems, "path", eleven.map(([at, y]) => ({ ...style, d: `M${at} ${bottom}V${y}` })));
      const r = 4.5 * plot.px;
      x.fill(dots, "circle", eleven.map(([cx, cy]) => ({ ...style, cx, cy, r })));
      const [cx, cy] = end ? [plot.X(end.recall), plot.Y(end.precision)] : [left, bottom];
      x.set(here, { cx, cy, r: end ? r : 0 });

      showObjects(objects);
      showTrue(end?.found ?? 0);
      showCounted(points.length);
      showPrecision(end?.precision ?? null);
      showRecall(end?.recall ?? 0);
      for (const [name, value] of Object.entries(ap)) showAp[name](value);

      const digits = state.ledger === "hand" ? 1 : 3;
      showRows(rows.map((row, i) => {
        const inside = isKept(row);
        const name = state.ledger === "hand" ? "ABCD"[i] : i + 1;
        const texts = [name, x.format(row.score, digits), fates[row.fate]];
        const isOnCurve = inside && row.fate !== "I";
        texts.push(...[row.precision, row.recall].map((v) => (isOnCurve ? x.format(v, 3) : "–")));
        const look = `${inside ? "" : "out"} ${row.fate === "I" ? "crossed" : ""}`.trim();
        return texts.map((text) => ({ text, class: look || null }));
      }));
      // The table follows the threshold; the page stays where it is.
      const box = x.below.querySelector(".scroll");
      const row = box.querySelectorAll("tbody tr")[Math.max(kept.length - 1, 0)];
      if (shown !== undefined && shown !== kept.length) {
        const away = row.getBoundingClientRect().top - box.getBoundingClientRect().top;
        box.scrollTop += away - box.clientHeight / 2;
      }
      shown = kept.length;

      const all = envelope(counts);
      const whole = { area: area(counts, all), "11-point": mean(elevenHeights(counts, all)) };
      const method = isArea ? "as the area" : "in 11 points";
      const crossed = kept.length - points.length;
      x.say(
        `Above ${x.format(state.cut, 3)}: ${end?.found ?? 0} true, ` +
          `${points.length - (end?.found ?? 0)} false` +
          (crossed ? `, ${crossed} crossed out as difficult. ` : ". ") +
          `AP ${method} is ${x.format(ap[state.draw], 3)}; ` +
          `with the whole ledger, ${x.format(whole[state.draw], 3)}.`,
      );
    };
  },
});
