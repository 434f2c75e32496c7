// Lengths and regions drawn by hand: shown on the slice they were drawn on, told as text that can be copied.
const measures = [];

function startMeasure(pane, point) {
  return { kind: view.tool, number: pane.number, where: sliceOf(pane), from: point, to: point, words: "" };
}

function sliceOf(pane) {
  return pane.plane.normal === null ? 0 : view.at[pane.plane.normal];
}

function drawMeasures(context, pane) {
  const some = [...measures, ...(view.drawing ? [view.drawing] : [])];
  some.forEach((one, k) => {
    if (one.number !== pane.number || one.where !== sliceOf(pane)) return;
    const [[x0, y0], [x1, y1]] = [pane.screen(one.from), pane.screen(one.to)];
    context.beginPath();
    if (one.kind === "length") {
      context.moveTo(x0, y0);
      context.lineTo(x1, y1);
    } else {
      context.ellipse((x0 + x1) / 2, (y0 + y1) / 2, Math.abs(x1 - x0) / 2, Math.abs(y1 - y0) / 2, 0, 0, 2 * Math.PI);
    }
    for (const [color, thick] of [[HALO, 4], ["#ff9de2", 1.6]]) {
      context.strokeStyle = color;
      context.lineWidth = thick;
      context.stroke();
    }
    text(context, `${k + 1}`, Math.max(x0, x1) + 5, Math.max(y0, y1), "left", "top", "bold 12px", "#ff9de2");
  });
}

function measured(one, pane) {
  const words = one.kind === "length" ? lengthWords(one) : regionWords(one, pane);
  const { normal, name } = pane.plane;
  return normal === null ? words : `${words}; ${name} slice ${sliceNumber(normal, view.at)}`;
}

function lengthWords(one) {
  const length = Math.hypot(one.to[0] - one.from[0], one.to[1] - one.from[1]);
  return `length ${number(length)} ${grid.lengths || "px"}`;
}

function regionWords(one, pane) {
  const { rows, columns } = pane.plane;
  const [cu, cv] = [(one.from[0] + one.to[0]) / 2, (one.from[1] + one.to[1]) / 2];
  const [ru, rv] = [Math.abs(one.to[0] - one.from[0]) / 2, Math.abs(one.to[1] - one.from[1]) / 2];
  const map = view.maps[view.mapA] && allowed() ? view.maps[view.mapA] : null;
  const sums = content.image.color ? [[], [], []] : [[]];
  let attribution = 0;
  for (let r = 0; r < grid.shape[rows]; r += 1) {
    for (let c = 0; c < grid.shape[columns]; c += 1) {
      const [u, v] = [(c + 0.5) * grid.spacing[columns], (r + 0.5) * grid.spacing[rows]];
      if (((u - cu) / ru) ** 2 + ((v - cv) / rv) ** 2 > 1) continue;
      const index = pane.voxelOf([u, v]);
      const values = content.image.color ? view.image.colorAt(index) : [view.image.at(index)];
      values.forEach((value, k) => sums[k].push(value));
      if (map) attribution += map.at(index);
    }
  }
  const count = sums[0].length;
  const spread = sums.map((all) => {
    const mean = all.reduce((a, b) => a + b, 0) / count;
    const sd = Math.sqrt(all.reduce((a, b) => a + (b - mean) ** 2, 0) / Math.max(1, count - 1));
    return `${number(mean, 4)} \u00b1 ${number(sd)}`;
  });
  const unit = content.image.unit ? ` ${content.image.unit}` : "";
  const sum = map ? `; attribution sum ${number(attribution)} ${map.about.unit} (${map.about.title})` : "";
  const kind = rank === 2 ? "pixels" : "voxels";
  return count
    ? `ellipse of ${count} ${kind}: image ${spread.join(", ")}${unit} (mean \u00b1 SD)${sum}`
    : "ellipse without a voxel";
}
