// Who pays the loss: a few objects, or a hundred thousand easy backgrounds (chapter 10).
//
// The package computes the same in retinanet_edu/losses.py, focal_loss, but from logits.
(window.explorables ??= []).push({
  name: "focal-loss",
  title: "Who pays the loss?",
  // At first half of the binary cross entropy. `object` and `background` are the p that the network
  // gives each of them: its belief that there is something.
  state: { gamma: 0, alpha: 0.5, background: 0.01, object: 0.1 },

  build(x, state) {
    const [OBJECTS, BACKGROUNDS] = [20, 100_000];
    const TOP = 3; // of the plot
    const plot = x.plot({
      x: [0, 1],
      y: [0, TOP],
      xticks: [0, 0.2, 0.4, 0.6, 0.8, 1],
      yticks: [0, 1, 2, 3],
      xlabel: "p, the predicted probability of “yes”",
      ylabel: "loss of one answer",
      label: "Loss against p, for objects and for background",
    });
    const thin = [plot.line({ class: "hatch" }), plot.line({ class: "hatch" })];
    const curves = {
      object: plot.line({ class: "positive" }),
      background: plot.line({ class: "background" }),
    };
    // A round dot and a square one, where the two sliders stand.
    const solid = "fill: var(--role); stroke-dasharray: none";
    const dots = {
      object: x.add(plot.svg, "circle", { class: "positive", r: 5, style: solid }),
      background: x.add(plot.svg, "rect", { class: "background", style: solid }),
    };
    x.set(dots.background, { width: 9, height: 9 });
    const notes = [["objects", 0.1, 2.7, "start"], ["background", 0.9, 2.7, "end"]];
    for (const [text, p, loss, anchor] of [...notes, ["thin: cross entropy", 0.5, 1.8, "middle"]]) {
      x.add(plot.svg, "text", { x: plot.X(p), y: plot.Y(loss), "text-anchor": anchor, text });
    }

    // Both totals as parts of one bar. Hatched is the background's, so that it is seen without
    // colours.
    const [width, height] = [360, 64];
    const bar = x.scene({ width, height, pad: 2, label: "Shares of the total loss" });
    const pattern = x.add(bar.svg, "pattern", { id: "focal-loss-hatch", width: 10, height: 10 });
    x.set(pattern, { patternUnits: "userSpaceOnUse" });
    x.add(pattern, "path", { class: "hatch", d: "M-2 2L2 -2M0 10L10 0M8 12L12 8" });
    const row = { y: 24, height: 38 };
    const full = "fill: var(--role); fill-opacity: 0.35; stroke-dasharray: none";
    const parts = {
      object: x.add(bar.svg, "rect", { ...row, x: 0, class: "positive", style: full }),
      background: x.add(bar.svg, "rect", { ...row, class: "background" }),
    };
    x.set(parts.background, { style: "fill: url(#focal-loss-hatch); stroke-dasharray: none" });
    const names = {
      object: x.add(bar.svg, "text", { x: 0, y: 16 }),
      background: x.add(bar.svg, "text", { x: width, y: 16, "text-anchor": "end" }),
    };

    const gamma = { min: 0, max: 5, step: 0.1, digits: 1 };
    x.slider("gamma", { ...gamma, label: "γ, how fast right answers fade" });
    x.slider("alpha", { label: "α, weight of objects", min: 0, max: 1, step: 0.05, digits: 2 });
    const easy = { min: 0.001, max: 0.2, step: 0.001, digits: 3 };
    x.slider("background", { ...easy, label: "p of each background" });
    const hard = { min: 0.01, max: 0.99, step: 0.01, digits: 2 };
    x.slider("object", { ...hard, label: "p of each object" });
    const three = { format: significant };
    const show = {
      object: x.reading("object", "Loss of one object", three),
      background: x.reading("background", "Loss of one background", three),
      objects: x.reading("objects", "Loss of 20 objects", three),
      backgrounds: x.reading("backgrounds", "Loss of 100,000 backgrounds", three),
      focal: x.reading("focal", "Focal loss, in all", three),
      cross: x.reading("cross", "Binary cross entropy, in all", three),
    };

    // Three digits that count, however small: 0.000000754.
    function significant(value) {
      const digits = value ? x.clamp(2 - Math.floor(Math.log10(value)), 0, 15) : 0;
      return x.format(value, digits);
    }

    const share = (part) => `${x.format(100 * part, 1)} %`;

    // −log pₜ. log1p(−p) is log(1 − p), but exact for the small p of an easy background.
    const cross = { object: (p) => -Math.log(p), background: (p) => -Math.log1p(-p) };

    // The factor (1 − pₜ)^γ: of a background 1 − pₜ is p itself.
    const fades = {
      object: (p) => (1 - p) ** state.gamma,
      background: (p) => p ** state.gamma,
    };

    function focal(kind, p) {
      const weight = kind === "object" ? state.alpha : 1 - state.alpha;
      return weight * fades[kind](p) * cross[kind](p);
    }

    // What γ = 0 leaves of the formula.
    function plain() {
      const { alpha } = state;
      if (alpha === 0.5) return "exactly half of the binary cross entropy";
      const none = alpha === 1 ? "the background" : alpha === 0 ? "the objects" : "";
      if (none) return `cross entropy, but α = ${alpha} leaves out ${none}`;
      const [yes, no] = [alpha, 1 - alpha].map((weight) => x.format(weight, 2));
      return `α-balanced cross entropy, ${yes} times that of objects and ${no} of background`;
    }

    return () => {
      const at = Array.from({ length: 399 }, (_, i) => (i + 1) / 400);
      ["object", "background"].forEach((kind, i) => {
        thin[i](at.map((p) => [p, cross[kind](p)]));
        curves[kind](at.map((p) => [p, focal(kind, p)]));
      });
      const one = { object: focal("object", state.object) };
      one.background = focal("background", state.background);
      // A loss beyond the plot's top stays at its edge.
      const y = (loss) => plot.Y(Math.min(loss, TOP));
      x.set(dots.object, { cx: plot.X(state.object), cy: y(one.object) });
      const half = 4.5; // of the square's side
      x.set(dots.background, { x: plot.X(state.background) - half, y: y(one.background) - half });

      const [objects, backgrounds] = [OBJECTS * one.object, BACKGROUNDS * one.background];
      const all = objects + backgrounds;
      const ofObjects = objects / all;
      x.set(parts.object, { width: width * ofObjects });
      x.set(parts.background, { x: width * ofObjects, width: width * (1 - ofObjects) });
      x.set(names.object, { text: `20 objects ${share(ofObjects)}` });
      x.set(names.background, { text: `100,000 backgrounds ${share(1 - ofObjects)}` });

      show.object(one.object);
      show.background(one.background);
      show.objects(objects);
      show.backgrounds(backgrounds);
      show.focal(all);
      const ofAll = (kind, count) => count * cross[kind](state[kind]);
      show.cross(ofAll("object", OBJECTS) + ofAll("background", BACKGROUNDS));

      const kept = (kind) => significant(fades[kind](state[kind]));
      const why =
        state.gamma === 0
          ? `γ = 0 fades nothing: this is ${plain()}.`
          : `γ leaves ${kept("background")} of a background's cross entropy and ` +
            `${kept("object")} of an object's.`;
      const weigh = one.object / one.background;
      const pair = Number.isFinite(weigh)
        ? ` One object weighs ${significant(Number(weigh.toPrecision(3)))} backgrounds.`
        : "";
      x.say(`The objects pay ${share(ofObjects)} of the loss.${pair} ${why}`);
    };
  },
});
