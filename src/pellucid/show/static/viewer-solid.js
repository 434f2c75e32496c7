// NiiVue on request: the three planes and the volume in 3-D, radiological, with the same window and map.
let solid = null;
const FAINT = 0.2; // of the scale, below which a map without a null is not painted here
const OVER = 0.6; // opacity of what is painted

function loadNiivue() {
  return new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = content.niivue;
    script.onload = done;
    script.onerror = () => failed(new Error(`the file ${content.niivue} is not beside this page`));
    document.head.append(script);
  });
}

async function openSolid() {
  const host = element("solid");
  host.hidden = !host.hidden;
  element("open-solid").setAttribute("aria-pressed", !host.hidden);
  if (host.hidden || solid) return drawSolid();
  element("solid-words").textContent = "Loading\u2026 (without a graphics card this takes a while)";
  try {
    if (!window.niivue) await loadNiivue();
    const viewer = new niivue.Niivue({
      isRadiologicalConvention: Boolean(grid.letters), showAllOrientationMarkers: true, logLevel: "error",
      isOrientationTextVisible: Boolean(grid.letters), dragAndDropEnabled: false, isNearestInterpolation: false,
      viewModeHotKey: "", clipPlaneHotKey: "", cycleClipPlaneHotKey: "", multiplanarShowRender: 1, multiplanarLayout: 2,
      backColor: [0, 0, 0, 1], crosshairColor: [1, 0.85, 0.3, 0.8], textHeight: 0.05, fontColor: [1, 1, 1, 1],
      show3Dcrosshair: true, crosshairWidth: 0.4, crosshairWidthUnit: "percent", sagittalNoseLeft: true,
    });
    await viewer.attachToCanvas(element("solid-canvas"));
    viewer.setSliceType(viewer.sliceTypeMultiplanar);
    viewer.addVolume(await volume(view.image, "image.nii", "gray", 1, view.low, view.high));
    viewer.onLocationChange = (place) => fromSolid(place.mm);
    solid = viewer;
    await updateSolid();
  } catch (error) {
    element("solid-words").textContent = `3-D is not shown: ${error.message}`;
  }
}

// Without a graphics card a drawing takes seconds: several wishes become one, and a hidden volume is not drawn.
let wished = 0;

function drawSolid() {
  clearTimeout(wished);
  if (solid && !element("solid").hidden) wished = setTimeout(updateSolid, 250);
}

let drawnMap = null;

async function updateSolid() {
  const map = content.washes ? shownMap("A") : null;
  if (map !== drawnMap) {
    if (solid.volumes.length > 1) solid.removeVolumeByIndex(1);
    if (map) {
      solid.addColormap("attribution", mapColors(map.about));
      solid.addVolume(await volume(map, "map.nii", "attribution", OVER, map.about.low, map.about.high));
    }
    drawnMap = map;
  }
  const [image, overlay] = solid.volumes;
  [image.cal_min, image.cal_max, image.colormapInvert] = [view.low, view.high, view.inverted];
  if (overlay) overlay.opacity = OVER * view.opacity;
  solid.updateGLVolume();
  moveSolid();
  const where = map && (map.about.null === null ? "a fifth of its scale (its null was not measured)" : "its null");
  const said = map ? `${map.about.title}, painted beyond ${where}` : "the image alone";
  element("solid-words").textContent =
    `NiiVue: ${said}. S is H (head), I is F (feet). Drag in 3-D to turn. Values between voxels are interpolated here.`;
}

function volume(layer, name, colors, opacity, low, high) {
  const rest = [true, 0, false, false, "", 0];
  return niivue.NVImage.new(layer.buffer.slice(0), name, colors, opacity, null, low, high, ...rest);
}

// NiiVue's overlay knows no graded transparency: a step of the ramp is painted or not. One step is kept back on the
// weak side, because NiiVue paints every step that borders on a painted one.
function mapColors(about) {
  const colors = { R: [], G: [], B: [], A: [], I: [] };
  const step = (about.high - about.low) / (about.colors.length - 1);
  about.colors.forEach(([r, g, b], k) => {
    const value = about.low + step * k;
    const strength = (about.signed ? Math.abs(value) : value) - step;
    colors.R.push(r);
    colors.G.push(g);
    colors.B.push(b);
    colors.A.push(strength > threshold(about) ? 255 : 0);
    colors.I.push(k);
  });
  return colors;
}

const threshold = (about) => about.null ?? FAINT * about.high;

let moving = 0;

function toSolid() {
  clearTimeout(moving);
  if (solid && !element("solid").hidden) moving = setTimeout(moveSolid, 150);
}

function moveSolid() {
  const point = worldOf(view.at);
  if (point) solid.scene.crosshairPos = solid.mm2frac([-point[0], -point[1], point[2]]);
  solid.drawScene();
}

function fromSolid(mm) {
  if (!grid.affine) return;
  const [m, t] = [grid.affine.map((row) => row.slice(0, 3)), grid.affine.map((row) => row[3])];
  const point = [-mm[0] - t[0], -mm[1] - t[1], mm[2] - t[2]];
  const det = (a, b, c) =>
    a[0] * (b[1] * c[2] - b[2] * c[1]) - b[0] * (a[1] * c[2] - a[2] * c[1]) + c[0] * (a[1] * b[2] - a[2] * b[1]);
  const column = (k) => [m[0][k], m[1][k], m[2][k]];
  const whole = det(column(0), column(1), column(2));
  view.at = inside([0, 1, 2].map((k) => det(...[0, 1, 2].map((n) => (n === k ? point : column(n)))) / whole));
  refresh(false);
}
