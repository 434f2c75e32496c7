// One pane: a plane of the image with what must stand on it. Pictures count from the upper left, in the grid's lengths.
const HALO = "rgb(0 0 0 / 85%)";

class Pane {
  constructor(canvas, plane, side) {
    this.canvas = canvas;
    this.plane = grid.planes[plane];
    this.number = plane;
    this.side = side;
    this.kept = new Map();
  }

  get size() {
    const { rows, columns } = this.plane;
    return [grid.shape[columns] * grid.spacing[columns], grid.shape[rows] * grid.spacing[rows]];
  }

  get scale() {
    const [across, down] = this.size;
    const { clientWidth, clientHeight } = this.canvas;
    return view.zoom * Math.min((clientWidth - 8) / across, (clientHeight - 8) / down);
  }

  get center() {
    return view.centers[this.number] ?? this.size.map((s) => s / 2);
  }

  // picture -> screen and back, in CSS pixels of the canvas
  screen([u, v]) {
    const [cu, cv] = this.center;
    const { clientWidth, clientHeight } = this.canvas;
    return [clientWidth / 2 + (u - cu) * this.scale, clientHeight / 2 + (v - cv) * this.scale];
  }

  picture([x, y]) {
    const [cu, cv] = this.center;
    const { clientWidth, clientHeight } = this.canvas;
    return [cu + (x - clientWidth / 2) / this.scale, cv + (y - clientHeight / 2) / this.scale];
  }

  // picture -> voxel and back
  pictureOf(index) {
    const axes = [this.plane.columns, this.plane.rows];
    return axes.map((axis, k) => {
      const i = this.plane.flip[1 - k] ? grid.shape[axis] - 1 - index[axis] : index[axis];
      return (i + 0.5) * grid.spacing[axis];
    });
  }

  voxelOf(point) {
    const index = [...view.at];
    [this.plane.columns, this.plane.rows].forEach((axis, k) => {
      const i = Math.floor(point[k] / grid.spacing[axis]);
      index[axis] = this.plane.flip[1 - k] ? grid.shape[axis] - 1 - i : i;
    });
    return inside(index);
  }

  // What was drawn last is kept as long as nothing it depends on has changed.
  remembered(kind, key, make) {
    const old = this.kept.get(kind);
    if (old && old.key === key) return old.made;
    const made = make();
    this.kept.set(kind, { key, made });
    return made;
  }

  get where() {
    return this.plane.normal === null ? "" : `${view.at[this.plane.normal]}/${view.slab}`;
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    const context = this.canvas.getContext("2d");
    context.scale(ratio, ratio);
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    const map = shownMap(this.side);
    const alone = map !== null && this.side === "B" && !content.washes;
    const under = map !== null && view.show === "color";
    if (!alone) this.drawLayer(context, this.image(under), view.zoom < 12 && !view.exact, 1);
    if (map) this.drawMap(context, map, alone);
    for (const region of view.regions) this.drawRegion(context, region);
    if (view.crosshair) this.drawCrosshair(context, width, height);
    this.drawWords(context, width, height, map);
    drawMeasures(context, this);
  }

  image(under) {
    const key = `${this.where}|${view.low}|${view.high}|${view.inverted}|${content.image.color && under}`;
    return this.remembered("image", key, () => paintImage(view.image, this.plane, view.at, view, under));
  }

  drawLayer(context, picture, smooth, opacity) {
    const [x, y] = this.screen([0, 0]);
    const [across, down] = this.size;
    context.imageSmoothingEnabled = smooth;
    context.imageSmoothingQuality = across * this.scale > picture.width ? "low" : "medium"; // "high" draws halos
    context.globalAlpha = opacity;
    context.drawImage(picture, x, y, across * this.scale, down * this.scale);
    context.globalAlpha = 1;
  }

  drawMap(context, layer, alone) {
    const about = layer.about;
    const key = `${about.title}|${about.target}|${this.where}`;
    const values = this.remembered("values", key, () => cut(layer, this.plane, view.at, view.slab, true));
    if (alone || (view.show === "color" && content.washes)) {
      const paint = () => paintMap(about, values, this.plane, alone);
      const opacity = alone ? 1 : Math.min(1, view.opacity);
      this.drawLayer(context, this.remembered("wash", `${key}|${alone}`, paint), false, opacity);
    }
    if (about.null === null) return;
    const lines = this.remembered("lines", key, () => [1, -1].slice(0, about.signed ? 2 : 1).map(
      (sign) => outline(values, this.plane, about.null, sign),
    ));
    lines.forEach((edges, k) => {
      const dash = k ? [5, 3] : [];
      this.stroke(context, edges, k ? content.colors.against : content.colors.for, dash);
    });
  }

  drawRegion(context, layer) {
    const edges = this.remembered(`region ${layer.about.label}`, this.where, () =>
      outline(cut(layer, this.plane, view.at, view.slab, false), this.plane, 0.5, 1));
    this.stroke(context, edges, content.colors.expert, [9, 3, 2, 3]);
  }

  stroke(context, edges, color, dash) {
    const [sx, sy] = [this.plane.columns, this.plane.rows].map((axis) => grid.spacing[axis] * this.scale);
    const [x, y] = this.screen([0, 0]);
    context.beginPath();
    for (let i = 0; i < edges.length; i += 4) {
      context.moveTo(x + edges[i] * sx, y + edges[i + 1] * sy);
      context.lineTo(x + edges[i + 2] * sx, y + edges[i + 3] * sy);
    }
    context.setLineDash([]);
    context.lineCap = "square";
    context.lineWidth = 3.2;
    context.strokeStyle = HALO;
    context.stroke();
    context.setLineDash(Math.min(sx, sy) > 8 ? dash : []);
    context.lineCap = "butt";
    context.lineWidth = 1.5;
    context.strokeStyle = color;
    context.stroke();
    context.setLineDash([]);
  }

  drawCrosshair(context, width, height) {
    const [x, y] = this.screen(this.pictureOf(view.at));
    const gap = 14;
    for (const [thick, color] of [[3, "rgb(0 0 0 / 55%)"], [1, "#ffd84d"]]) {
      context.lineWidth = thick;
      context.strokeStyle = color;
      context.beginPath();
      for (const [x0, y0, x1, y1] of [
        [0, y, x - gap, y], [x + gap, y, width, y], [x, 0, x, y - gap], [x, y + gap, x, height],
      ]) {
        context.moveTo(x0, y0);
        context.lineTo(x1, y1);
      }
      context.stroke();
    }
  }

  drawWords(context, width, height, layer) {
    this.drawLetters(context, width, height);
    this.drawRuler(context, height);
    if (layer) this.drawCell(context, width, height, layer.about);
    text(context, this.title(layer), 8, 8, "left", "top", "13px");
    if (layer && layer.about.null !== null && !layer.about.above) {
      text(context, "no region: nothing above the null", width / 2, 0.8 * height, "center", "middle", "14px");
    }
    content.marks.forEach((mark, k) => text(context, mark, 8, 28 + 20 * k, "left", "top", "bold 14px", "#ffb224"));
  }

  title(layer) {
    const { name, normal } = this.plane;
    const words = normal === null ? "" : `${name} ${sliceNumber(normal, view.at)}/${grid.full[normal]}`;
    const [low, high] = slabOf(this.plane, view.at, view.slab);
    const slab = high > low ? `largest of ${high - low + 1} slices` : "";
    return [words, slab, layer ? layer.about.title : ""].filter(Boolean).join(" \u00b7 ");
  }

  drawLetters(context, width, height) {
    const { sides } = this.plane;
    const font = "bold 17px";
    if (sides) {
      text(context, sides.top, width / 2, 6, "center", "top", font);
      text(context, sides.bottom, width / 2, height - 6, "center", "bottom", font);
      text(context, sides.left, 7, height / 2, "left", "middle", font);
      text(context, sides.right, width - 7, height / 2, "right", "middle", font);
      return;
    }
    text(context, "image left", 7, height / 2, "left", "middle", "12px");
  }

  drawRuler(context, height) {
    if (!grid.lengths) return;
    const [across, down] = this.size;
    const shown = Math.min(across, down, this.canvas.clientWidth / this.scale, this.canvas.clientHeight / this.scale);
    const length = barLength(shown);
    const drawn = length * this.scale;
    for (const [color, thick] of [["#000", 5], ["#fff", 2]]) {
      context.strokeStyle = color;
      context.lineWidth = thick;
      context.beginPath();
      context.moveTo(9, height - 11);
      context.lineTo(9 + drawn, height - 11);
      context.stroke();
    }
    text(context, `${number(length)} ${grid.lengths}`, 9, height - 17, "left", "bottom", "12px");
  }

  // The smallest statement the map can make, as a box of true size in the lower right corner.
  drawCell(context, width, height, about) {
    if (!about.cell.length) return;
    const [wide, tall] = [this.plane.columns, this.plane.rows].map((a) => about.cell[a] * grid.spacing[a] * this.scale);
    if (wide < 4 && tall < 4) return;
    const [w, h] = [Math.min(wide, width - 16), Math.min(tall, height - 16)];
    for (const [color, thick] of [["#000", 3], ["#fff", 1.2]]) {
      context.strokeStyle = color;
      context.lineWidth = thick;
      context.strokeRect(width - 8 - w, height - 8 - h, w, h);
    }
    if (h < height / 2) text(context, "native cell", width - 8, height - 12 - h, "right", "bottom", "11px");
  }
}

// On a dark ground of its own: white letters on a white film are none.
function text(context, words, x, y, align, baseline, font, color = "#fff") {
  if (!words) return;
  context.font = `${font} system-ui, sans-serif`;
  context.textAlign = align;
  context.textBaseline = baseline;
  const size = context.measureText(words);
  context.fillStyle = "rgb(0 0 0 / 60%)";
  context.fillRect(
    x - size.actualBoundingBoxLeft - 3, y - size.actualBoundingBoxAscent - 3,
    size.actualBoundingBoxLeft + size.actualBoundingBoxRight + 6,
    size.actualBoundingBoxAscent + size.actualBoundingBoxDescent + 6,
  );
  context.fillStyle = color;
  context.fillText(words, x, y);
}
