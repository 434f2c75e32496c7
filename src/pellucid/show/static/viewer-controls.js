// State, keys, pointer and the live region: one set for volumes and flat images.
const element = (id) => document.getElementById(id);
const view = {
  at: content.at, mapA: 0, mapB: Math.min(1, content.maps.length - 1), show: "image", opacity: 1, slab: 0, zoom: 1,
  centers: {}, main: 0, two: false, held: false, flick: false, anyway: false, crosshair: true, exact: false,
  inverted: content.image.inverted, low: 0, high: 255, maps: {}, regions: [], image: null, tool: "", drawing: null,
};
let panes = [];
let waiting = false;
let playing = 0;

const allowed = () => content.maps.length > 0 && (!content.withheld || view.anyway);

function shownMap(side) {
  if (!allowed() || view.held || view.show === "image") return null;
  const second = side === "B" || view.flick;
  return view.maps[second ? view.mapB : view.mapA] ?? null;
}

function layOut() {
  const host = element("panes");
  const numbers = grid.planes.map((_, k) => k);
  const wanted = view.two ? [[view.main, "A"], [view.main, "B"]] : [view.main, ...numbers.filter((k) => k !== view.main)]
    .map((k) => [k, "A"]);
  host.replaceChildren();
  host.className = `panes ${view.two ? "two" : rank === 3 ? "three" : "one"}`;
  panes = wanted.map(([number, side]) => {
    const canvas = document.createElement("canvas");
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    canvas.dataset.side = side;
    canvas.dataset.plane = grid.planes[number].name;
    canvas.setAttribute("aria-describedby", "readout");
    host.append(canvas);
    const pane = new Pane(canvas, number, side);
    listen(pane);
    return pane;
  });
  refresh();
}

function refresh(alsoSolid = true) {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    if (!view.image) return;
    for (const pane of panes) {
      const map = shownMap(pane.side);
      pane.canvas.setAttribute("aria-label", `${pane.plane.name}, ${map ? `map of ${map.about.title}` : "no map"}`);
      pane.draw();
    }
    tell();
    if (alsoSolid) toSolid();
  });
}

// The same in words; the numbers also stand as data, unrounded by the wording.
function tell() {
  const region = element("readout");
  element("place").textContent = `${placeWords(view.at)}.`;
  element("image-value").textContent = imageWords(view.image, view.at);
  if (!content.image.color) region.dataset.image = view.image.at(view.at);
  const layers = [...new Set(view.two ? [view.mapA, view.mapB] : [view.flick ? view.mapB : view.mapA])]
    .map((k) => view.maps[k]).filter(Boolean);
  const words = allowed() ? layers.map((layer) => mapWords(layer, view.at)).join(" ") : content.withheld;
  const hidden = allowed() && (view.show === "image" || view.held) && layers.length ? " The map is not drawn now." : "";
  element("map-value").textContent = words + hidden;
  region.dataset.map = allowed() && layers.length ? layers[0].at(view.at) : "";
  region.dataset.at = view.at.join(" ");
}

function describe() {
  const about = content.maps[view.mapA];
  element("about-map").hidden = !about || !allowed();
  if (!about || !allowed()) return;
  element("notes").replaceChildren(...about.notes.concat(about.scale).filter((w, k, all) => all.indexOf(w) === k)
    .map((words) => Object.assign(document.createElement("li"), { textContent: words })));
  element("native").textContent = `${about.cellWords}: the value at the crosshair speaks of an area that large.`;
  element("peak-words").textContent = about.place ? `The map peaks at: ${about.place}.` : "";
  element("caution").textContent = `Bad at: ${about.caution}`;
  element("ramp-low").textContent = `${number(about.low)}`;
  element("ramp-high").textContent = `${number(about.high)} ${about.unit}`;
  element("ramp-null").textContent = about.null === null ? "no null" : `null ${number(about.null)}: nothing is drawn up to it`;
  paintRamp(element("ramp"), about);
}

async function choose(side, k) {
  view[side] = k;
  element(side === "mapA" ? "map-a" : "map-b").value = String(k);
  view.maps[k] = await layerOf(content.maps[k]);
  const noLine = content.maps[view.mapA].null === null;
  element("show-contour").disabled = noLine;
  if (noLine && view.show === "contour") setShow("color");
  describe();
  refresh();
  drawSolid();
}

function setShow(how) {
  view.show = how;
  element(`show-${how}`).checked = true;
  if (how === "color" && !content.washes && !view.two) {
    toggle("two"); // where no wash may lie over the image, the map stands beside it
    choose("mapB", view.mapA);
  }
  refresh();
  drawSolid();
}

function setWindow(k) {
  const one = content.windows[k];
  if (!one) return;
  [view.low, view.high] = [one.low, one.high];
  element("window").value = String(k);
  describeWindow();
}

function describeWindow() {
  const unit = content.image.unit ? ` ${content.image.unit}` : "";
  element("window-words").textContent = content.image.color
    ? content.image.words
    : `${view.inverted ? "white" : "black"} ${number(view.low)}, ${view.inverted ? "black" : "white"} ${number(view.high)}${unit}`;
  refresh();
  drawSolid();
}

const BUTTONS = { two: "layout", exact: "exact", crosshair: "crosshair" };

function toggle(name) {
  view[name] = !view[name];
  element(BUTTONS[name]).setAttribute("aria-pressed", view[name]);
  element("b").hidden = !view.two && content.maps.length < 2;
  if (name === "exact") oneToOne();
  if (name === "two") layOut();
  refresh();
}

function oneToOne() {
  const pane = panes[0];
  const fit = pane.scale / view.zoom;
  const finest = Math.min(grid.spacing[pane.plane.rows], grid.spacing[pane.plane.columns]);
  view.zoom = view.exact ? 1 / (finest * fit * (window.devicePixelRatio || 1)) : 1;
  view.centers = view.exact ? { [pane.number]: pane.pictureOf(view.at) } : {};
}

function pickTool(tool) {
  view.tool = view.tool === tool ? "" : tool;
  for (const name of ["length", "ellipse"]) element(name).setAttribute("aria-pressed", view.tool === name);
}

function toPeak() {
  if (!allowed()) return;
  view.at = [...content.maps[view.flick ? view.mapB : view.mapA].peak];
  refresh();
}

function reset() {
  Object.assign(view, { at: [...content.at], zoom: 1, centers: {}, slab: 0, exact: false, opacity: 1, flick: false });
  element("opacity").value = "100";
  element("slab").value = "0";
  element("exact").setAttribute("aria-pressed", false);
  view.inverted = content.image.inverted;
  element("inverted").checked = view.inverted;
  measures.length = 0;
  listMeasures();
  setShow("image");
  if (content.windows.length) setWindow(0);
}

function play() {
  clearInterval(playing);
  const on = !playing;
  const { normal } = panes[0].plane;
  playing = on && normal !== null ? setInterval(() => {
    view.at[normal] = (view.at[normal] + 1) % grid.shape[normal];
    refresh();
  }, 120) : 0;
  element("cine").setAttribute("aria-pressed", Boolean(playing));
}

function move(pane, rows, columns, slices) {
  const { plane } = pane;
  const index = [...view.at];
  index[plane.rows] += plane.flip[0] ? -rows : rows;
  index[plane.columns] += plane.flip[1] ? -columns : columns;
  if (plane.normal !== null) index[plane.normal] += slices;
  view.at = inside(index);
  refresh();
}

function zoomAbout(pane, factor, point) {
  const before = pane.picture(point);
  view.zoom = Math.max(0.5, Math.min(64, view.zoom * factor));
  const after = pane.picture(point);
  view.centers[pane.number] = pane.center.map((c, k) => c + before[k] - after[k]);
  refresh();
}

function listMeasures() {
  element("measures").replaceChildren(...measures.map((one) =>
    Object.assign(document.createElement("li"), { textContent: one.words })));
  refresh();
}

function copy() {
  const words = [element("place"), element("image-value"), element("map-value")].map((one) => one.textContent);
  const all = [content.case, ...words, ...measures.map((one, k) => `${k + 1}: ${one.words}`), content.research].join("\n");
  const done = (said) => { element("said").textContent = said; };
  if (!navigator.clipboard) return done("This browser does not let a file copy: select the text.");
  return navigator.clipboard.writeText(all).then(() => done("Copied."), () => done("Not copied: select the text."));
}
