// From arrays to pixels: one slice (or a slab) of the image, of a map, and the line around what exceeds its null.
function* lines(plane) {
  const [height, width] = [grid.shape[plane.rows], grid.shape[plane.columns]];
  for (let r = 0; r < height; r += 1) {
    const row = plane.flip[0] ? height - 1 - r : r;
    const step = plane.flip[1] ? -strides[plane.columns] : strides[plane.columns];
    const first = row * strides[plane.rows] + (plane.flip[1] ? (width - 1) * strides[plane.columns] : 0);
    yield [r * width, first, step, width];
  }
}

function slabOf(plane, at, slabMm) {
  if (plane.normal === null) return [0, 0];
  const half = Math.floor(slabMm / grid.spacing[plane.normal] / 2);
  const last = grid.shape[plane.normal] - 1;
  return [Math.max(0, at[plane.normal] - half), Math.min(last, at[plane.normal] + half)];
}

// Values of a slice; of a slab the largest (of a map the one of largest magnitude).
function cut(layer, plane, at, slabMm, magnitude) {
  const values = new Float32Array(grid.shape[plane.rows] * grid.shape[plane.columns]);
  const [low, high] = slabOf(plane, at, slabMm);
  const { raw, slope, start } = layer;
  for (let n = low; n <= high; n += 1) {
    const base = plane.normal === null ? 0 : n * strides[plane.normal];
    for (const [to, first, step, width] of lines(plane)) {
      let from = base + first;
      for (let c = 0; c < width; c += 1, from += step) {
        const value = raw[from] * slope + start;
        const old = values[to + c];
        const more = magnitude ? Math.abs(value) > Math.abs(old) : value > old;
        if (n === low || more) values[to + c] = value;
      }
    }
  }
  return values;
}

function canvasOf(plane, fill) {
  const [height, width] = [grid.shape[plane.rows], grid.shape[plane.columns]];
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  fill(pixels.data);
  context.putImageData(pixels, 0, 0);
  return canvas;
}

function paintImage(layer, plane, at, view, under) {
  return canvasOf(plane, (data) => {
    if (content.image.color) {
      for (const [to, first, step, width] of lines(plane)) {
        for (let c = 0, from = first; c < width; c += 1, from += step) {
          const [red, green, blue] = [0, 1, 2].map((k) => layer.raw[3 * from + k]);
          const gray = 0.299 * red + 0.587 * green + 0.114 * blue; // ITU-R BT.601
          [red, green, blue].forEach((level, k) => {
            const shown = under ? gray : level; // a wash over color would lose its own hue
            data[4 * (to + c) + k] = view.inverted ? 255 - shown : shown;
          });
          data[4 * (to + c) + 3] = 255;
        }
      }
      return;
    }
    const values = cut(layer, plane, at, view.slab, false);
    const scale = 255 / (view.high - view.low || 1);
    for (let i = 0; i < values.length; i += 1) {
      const level = Math.max(0, Math.min(255, (values[i] - view.low) * scale));
      const shown = view.inverted ? 255 - level : level;
      data[4 * i] = shown;
      data[4 * i + 1] = shown;
      data[4 * i + 2] = shown;
      data[4 * i + 3] = 255;
    }
  });
}

// Nothing is painted up to the null; alone (beside the image) what is painted is opaque on a dark ground.
function paintMap(about, values, plane, alone) {
  const { low, high, signed } = about;
  const colors = alone ? about.alone : about.colors;
  const last = colors.length - 1;
  return canvasOf(plane, (data) => {
    for (let i = 0; i < values.length; i += 1) {
      const value = values[i];
      const strength = signed ? Math.abs(value) : value;
      const step = Math.max(0, Math.min(last, Math.round(((value - low) / (high - low)) * last)));
      const color = strength > (about.null ?? 0) ? colors[step] : null;
      for (let k = 0; k < 3; k += 1) data[4 * i + k] = color ? color[k] : 13;
      const alpha = color ? about.alpha[step] * 255 : 0;
      data[4 * i + 3] = alone ? 255 : alpha;
    }
  });
}

// Edges of pixels between inside and outside, as x0, y0, x1, y1 in pixels of the slice.
function outline(values, plane, level, sign) {
  const [height, width] = [grid.shape[plane.rows], grid.shape[plane.columns]];
  const isIn = (r, c) => r >= 0 && c >= 0 && r < height && c < width && sign * values[r * width + c] > level;
  const found = [];
  for (let r = 0; r < height; r += 1) {
    for (let c = 0; c < width; c += 1) {
      if (!(sign * values[r * width + c] > level)) continue;
      if (!isIn(r - 1, c)) found.push(c, r, c + 1, r);
      if (!isIn(r + 1, c)) found.push(c, r + 1, c + 1, r + 1);
      if (!isIn(r, c - 1)) found.push(c, r, c, r + 1);
      if (!isIn(r, c + 1)) found.push(c + 1, r, c + 1, r + 1);
    }
  }
  return found;
}

// The color scale: hatched where nothing is painted, with its ends and its null.
function paintRamp(canvas, about) {
  const context = canvas.getContext("2d");
  const { width, height } = canvas;
  const x = (value) => ((value - about.low) / (about.high - about.low)) * width;
  context.clearRect(0, 0, width, height);
  for (let i = 0; i < width; i += 1) {
    const [r, g, b] = about.colors[Math.floor((i / width) * about.colors.length)];
    context.fillStyle = `rgb(${r} ${g} ${b})`;
    context.fillRect(i, 0, 1, height);
  }
  if (about.null === null) return;
  const end = Math.min(Math.max(about.null, 0), about.high);
  const [left, right] = [x(about.signed ? -end : 0), x(end)];
  context.fillStyle = "#0d1117";
  context.fillRect(left, 0, right - left, height);
  context.strokeStyle = "#a3afba";
  context.beginPath();
  for (let i = left - height; i < right; i += 6) {
    context.moveTo(Math.max(left, i), height - Math.max(0, left - i));
    context.lineTo(Math.min(right, i + height), Math.max(0, i + height - right));
  }
  context.stroke();
  context.strokeRect(left, 0.5, right - left, height - 1);
}
