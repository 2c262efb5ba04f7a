// Offsets from an anchor to a box, there and back (chapter 9).
//
// The package computes the same in retinanet_edu/coding.py, encode_boxes and decode_boxes.
(window.explorables ??= []).push({
  name: "box-coding",
  title: "Four numbers that turn an anchor into a box",
  state: { dx: 0.5, dy: -0.25, dw: 0.69, dh: 0, size: 64, ratio: 1 },

  build(x, state) {
    const MAX_LOG_STRETCH = Math.log(1000 / 16); // dw and dh count at most as this
    const [width, height] = [360, 240];
    const shift = { min: -3, max: 3, step: 0.01, digits: 2 };
    const stretch = { min: -3, max: 5, step: 0.01, digits: 2 };
    const limits = { dx: shift, dy: shift, dw: stretch, dh: stretch };
    const pad = 12; // room for handles around the picture
    const scene = x.scene({ width, height, pad, label: "An anchor and the box it becomes" });
    x.add(scene.svg, "rect", { class: "frame", width, height });
    const zoomed = x.add(scene.svg, "text");
    const anchorShape = x.add(scene.svg, "rect", { class: "positive" });
    const anchorName = x.add(scene.svg, "text", { text: "anchor" });
    const arrow = x.add(scene.svg, "path", { class: "arrow" }); // from centre to centre

    // The anchor stands in the middle. Its ratio is height / width; its area is size².
    function anchor() {
      const w = state.size / Math.sqrt(state.ratio);
      const h = state.size * Math.sqrt(state.ratio);
      return { x: width / 2, y: height / 2, w, h };
    }

    function decode() {
      const a = anchor();
      const [cx, cy] = [a.x + state.dx * a.w, a.y + state.dy * a.h];
      const w = a.w * Math.exp(Math.min(state.dw, MAX_LOG_STRETCH));
      const h = a.h * Math.exp(Math.min(state.dh, MAX_LOG_STRETCH));
      return [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2];
    }

    function encode([x1, y1, x2, y2]) {
      const a = anchor();
      const offsets = {
        dx: ((x1 + x2) / 2 - a.x) / a.w,
        dy: ((y1 + y2) / 2 - a.y) / a.h,
        dw: Math.log((x2 - x1) / a.w),
        dh: Math.log((y2 - y1) / a.h),
      };
      // Three digits make a short address; the limits are the sliders'.
      for (const [key, value] of Object.entries(offsets)) {
        const { min, max } = limits[key];
        offsets[key] = x.clamp(Math.round(1000 * value) / 1000, min, max);
      }
      x.change(offsets);
    }

    const name = "prediction";
    scene.box({ get: decode, set: encode, label: "Predicted box", name, role: name });

    x.slider("dx", { ...limits.dx, label: "dx, in anchor widths" });
    x.slider("dy", { ...limits.dy, label: "dy, in anchor heights" });
    x.slider("dw", { ...limits.dw, label: "dw, log of a factor" });
    x.slider("dh", { ...limits.dh, label: "dh, log of a factor" });
    const sizes = [32, 64, 128].map((size) => [size, `${size} px`]);
    x.choice("size", { label: "Anchor's size, √area", options: sizes });
    const ratios = [[0.5, "½"], [1, "1"], [2, "2"]];
    x.choice("ratio", { label: "Anchor's height / width", options: ratios });
    const four = { format: (list) => list.map((value) => x.format(value)).join("\u2002") };
    const two = { format: (list) => list.map((value) => x.format(value, 2)).join(" × ") };
    const showAnchor = x.reading("anchor", "Anchor (px)", four);
    const showBox = x.reading("box", "Box (px)", four);
    const showFactors = x.reading("factors", "Box / anchor", two);

    return () => {
      const a = anchor();
      const box = decode();
      const [left, top] = [a.x - a.w / 2, a.y - a.h / 2];
      x.set(anchorShape, { x: left, y: top, width: a.w, height: a.h });
      const centre = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2];
      x.set(arrow, { d: `M${a.x} ${a.y}L${centre}` });

      // A box that leaves the picture is looked at from further away, but not while it is held.
      if (!scene.busy) {
        const reach = Math.max(
          Math.max(width / 2 - box[0], box[2] - width / 2) / (width / 2),
          Math.max(height / 2 - box[1], box[3] - height / 2) / (height / 2),
        );
        const zoom = 2 ** Math.max(0, Math.ceil(Math.log2(reach - 0.001)));
        const [w, h] = [(width + 2 * pad) * zoom, (height + 2 * pad) * zoom];
        scene.look([(width - w) / 2, (height - h) / 2, w, h]);
        const small = `picture of ${width} × ${height} px, shown ${zoom} times smaller`;
        const text = zoom > 1 ? small : "";
        x.set(zoomed, { x: (width - w) / 2 + 8 * scene.px, y: (height - h) / 2 + 18 * scene.px });
        x.set(zoomed, { text });
      }

      x.set(anchorName, { x: left, y: top + a.h + 15 * scene.px });

      const size = [box[2] - box[0], box[3] - box[1]];
      showAnchor([left, top, left + a.w, top + a.h]);
      showBox(box);
      showFactors([size[0] / a.w, size[1] / a.h]);

      const pixels = (value) => `${x.format(Math.abs(value))} px`;
      const [right, down] = [centre[0] - a.x, centre[1] - a.y];
      const held = ["dw", "dh"].filter((key) => state[key] > MAX_LOG_STRETCH);
      x.say(
        `The centre moves ${pixels(right)} to the ${right < 0 ? "left" : "right"} and ` +
          `${pixels(down)} ${down < 0 ? "up" : "down"}. The box is ${x.format(size[0])} × ` +
          `${x.format(size[1])} px.` +
          (held.length ? ` ${held.join(" and ")} counted as ln(1000/16) = 4.135, no more.` : ""),
      );
    };
  },
});
