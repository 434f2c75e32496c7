// The case as the page holds it: JSON with compressed NIfTI, unpacked when first needed.
const content = JSON.parse(document.getElementById("content").textContent);
const grid = content.grid;
const rank = grid.shape.length;
const strides = grid.shape.map((_, axis) => grid.shape.slice(axis + 1).reduce((a, b) => a * b, 1));

const KINDS = { 2: Uint8Array, 4: Int16Array, 128: Uint8Array, 256: Int8Array };

async function unpacked(text) {
  const plain = atob(text);
  const bytes = new Uint8Array(plain.length);
  for (let i = 0; i < plain.length; i += 1) bytes[i] = plain.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

// An array on the page's grid. NIfTI's first axis runs fastest and is the grid's last.
class Layer {
  constructor(about, buffer) {
    const view = new DataView(buffer);
    this.about = about;
    this.buffer = buffer;
    this.slope = view.getFloat32(112, true);
    this.start = view.getFloat32(116, true);
    this.raw = new KINDS[view.getInt16(70, true)](buffer, 352);
  }

  at(index) {
    return this.raw[offsetOf(index)] * this.slope + this.start;
  }

  colorAt(index) {
    const first = 3 * offsetOf(index);
    return [this.raw[first], this.raw[first + 1], this.raw[first + 2]];
  }
}

function offsetOf(index) {
  return index.reduce((sum, i, axis) => sum + i * strides[axis], 0);
}

const loaded = new Map();

function layerOf(about) {
  if (!loaded.has(about)) loaded.set(about, unpacked(about.nifti).then((buffer) => new Layer(about, buffer)));
  return loaded.get(about);
}

// Millimeters (left, back, head) of a voxel; null where the image is not in the patient.
function worldOf(index) {
  if (!grid.affine) return null;
  return [0, 1, 2].map((row) => {
    const line = grid.affine[row];
    return index.reduce((sum, i, axis) => sum + i * line[axis], line[3]);
  });
}

function inside(index) {
  return index.map((i, axis) => Math.max(0, Math.min(grid.shape[axis] - 1, Math.round(i))));
}
