// Pointer and keys, and the start of the page.
function listen(pane) {
  const { canvas } = pane;
  const point = (event) => [event.offsetX, event.offsetY];
  let drag = null;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.focus();
    canvas.setPointerCapture(event.pointerId);
    const at = point(event);
    drag = { at, from: at, center: pane.center, low: view.low, high: view.high };
    drag.kind = event.button === 2 ? "window" : view.tool ? "measure" : event.shiftKey || event.button === 1 ? "pan" : "point";
    if (drag.kind === "measure") view.drawing = startMeasure(pane, pane.picture(at));
    if (drag.kind === "point" && rank === 3) follow(pane, at);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const at = point(event);
    const [dx, dy] = [at[0] - drag.from[0], at[1] - drag.from[1]];
    drag.moved = drag.moved || Math.hypot(dx, dy) > 3;
    if (drag.kind === "measure") {
      view.drawing.to = pane.picture(at);
      refresh();
    } else if (drag.kind === "window") {
      const width = drag.high - drag.low;
      const [wide, middle] = [width * 2 ** (dx / 150), (drag.low + drag.high) / 2 + (dy / 300) * width];
      [view.low, view.high] = [middle - wide / 2, middle + wide / 2];
      describeWindow();
    } else if (drag.kind === "pan" || (rank === 2 && drag.moved)) {
      view.centers[pane.number] = [drag.center[0] - dx / pane.scale, drag.center[1] - dy / pane.scale];
      refresh();
    } else if (rank === 3) follow(pane, at);
  });
  canvas.addEventListener("pointerup", (event) => {
    if (drag && drag.kind === "measure") finish(pane);
    else if (drag && drag.kind === "point" && !drag.moved) follow(pane, point(event));
    drag = null;
  });
  canvas.addEventListener("pointercancel", () => { drag = null; view.drawing = null; });
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("dblclick", () => {
    if (rank === 3 && !view.two) { view.main = pane.number; layOut(); }
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (rank === 2 || event.ctrlKey) zoomAbout(pane, event.deltaY < 0 ? 1.2 : 1 / 1.2, point(event));
    else move(pane, 0, 0, event.deltaY > 0 ? 1 : -1);
  }, { passive: false });
}

function follow(pane, at) {
  view.at = pane.voxelOf(pane.picture(at));
  refresh();
}

function finish(pane) {
  const one = view.drawing;
  view.drawing = null;
  if (Math.hypot(one.to[0] - one.from[0], one.to[1] - one.from[1]) * pane.scale > 3) {
    one.words = measured(one, pane);
    measures.push(one);
  }
  listMeasures();
}

function nextMap() {
  if (content.maps.length > 1) choose("mapA", (view.mapA + 1) % content.maps.length);
}

const SHOWS = ["image", "contour", "color"];

function nextShow() {
  const open = SHOWS.filter((how) => !element(`show-${how}`).disabled);
  setShow(open[(open.indexOf(view.show) + 1) % open.length]);
}

const KEYS = {
  m: nextMap, o: nextShow, g: toPeak, r: reset, c: play, a: () => toggle("two"), x: () => toggle("exact"),
  h: () => toggle("crosshair"), l: () => pickTool("length"), e: () => pickTool("ellipse"),
  i: () => element("inverted").click(), d: () => rank === 3 && openSolid(),
  "+": () => zoomAbout(active(), 1.25, middle()), "-": () => zoomAbout(active(), 0.8, middle()),
};

const active = () => panes.find((pane) => pane.canvas === document.activeElement) ?? panes[0];
const middle = () => [active().canvas.clientWidth / 2, active().canvas.clientHeight / 2];

function arrow(event) {
  const [down, right] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  if (rank === 3 && !event.shiftKey) return move(active(), 0, 0, down + right);
  const step = rank === 2 && event.shiftKey ? 10 : 1;
  return move(active(), step * down, step * right, 0);
}

function pressed(event) {
  const { target, key } = event;
  if (event.ctrlKey || event.altKey || event.metaKey || target.tagName === "SELECT") return;
  if (target.type === "range" && /^(Arrow|Page)/.test(key)) return;
  const own = ["BUTTON", "A", "SUMMARY", "INPUT"].includes(target.tagName);
  if (key === " " && !own) view.held = true;
  else if (key === "b" || key === "B") view.flick = content.maps.length > 1;
  else if (key.startsWith("Arrow") && target.type !== "radio") arrow(event);
  else if (key === "PageUp" || key === "PageDown") move(active(), 0, 0, key === "PageUp" ? -10 : 10);
  else if (/^[1-9]$/.test(key)) setWindow(Number(key) - 1);
  else if (KEYS[key.toLowerCase()] && !event.repeat) KEYS[key.toLowerCase()]();
  else return;
  event.preventDefault();
  refresh();
}

function released(event) {
  if (event.key === " ") view.held = false;
  if (event.key === "b" || event.key === "B") view.flick = false;
  refresh();
}

function fill(select, names) {
  select.replaceChildren(...names.map((name, k) => new Option(name, String(k))));
}

function wire() {
  const clicks = { peak: toPeak, reset, cine: play, layout: () => toggle("two"), exact: () => toggle("exact"), copy,
    crosshair: () => toggle("crosshair"), length: () => pickTool("length"), ellipse: () => pickTool("ellipse"),
    "open-solid": openSolid, clear: () => { measures.length = 0; listMeasures(); },
    anyway: () => { view.anyway = true; element("held").hidden = true; describe(); refresh(); } };
  for (const [id, act] of Object.entries(clicks)) element(id)?.addEventListener("click", act);
  for (const how of SHOWS) element(`show-${how}`).addEventListener("change", () => setShow(how));
  element("map-a").addEventListener("change", (event) => choose("mapA", Number(event.target.value)));
  element("map-b").addEventListener("change", (event) => choose("mapB", Number(event.target.value)));
  element("window").addEventListener("change", (event) => setWindow(Number(event.target.value)));
  element("opacity").addEventListener("input", (event) => { view.opacity = event.target.value / 100; refresh(); });
  element("opacity").addEventListener("change", drawSolid);
  element("slab").addEventListener("change", (event) => { view.slab = Number(event.target.value); refresh(); });
  element("main").addEventListener("change", (event) => { view.main = Number(event.target.value); layOut(); });
  element("inverted").addEventListener("change", (event) => { view.inverted = event.target.checked; describeWindow(); });
  // whoever chose from a list by pointer wants the keys of the pictures next; by keys, those of the list
  let pointed = false;
  document.addEventListener("pointerdown", () => { pointed = true; }, true);
  document.addEventListener("keydown", () => { pointed = false; }, true);
  document.addEventListener("change", (event) => { if (pointed && event.target.tagName === "SELECT") panes[0].canvas.focus(); });
  document.addEventListener("keydown", pressed);
  document.addEventListener("keyup", released);
  window.addEventListener("blur", () => { view.held = false; view.flick = false; refresh(); });
  new ResizeObserver(() => refresh()).observe(element("panes"));
}

async function start() {
  const titles = content.maps.map((m) => content.maps.some((o) => o.target !== m.target) ? `${m.title}: ${m.target}` : m.title);
  fill(element("map-a"), titles);
  fill(element("map-b"), titles);
  element("map-b").value = String(view.mapB);
  fill(element("window"), content.windows.map((one, k) => `${k + 1} ${one.name}`));
  fill(element("main"), grid.planes.map((plane) => plane.name));
  element("window-choice").hidden = !content.windows.length;
  element("inverted").checked = view.inverted;
  element("map-controls").hidden = !content.maps.length;
  element("held").hidden = !content.withheld;
  element("reduced").textContent = grid.reduced;
  element("b").hidden = content.maps.length < 2;
  wire();
  view.image = await layerOf(content.image);
  view.regions = await Promise.all(content.regions.map(layerOf));
  layOut();
  if (content.windows.length) setWindow(0);
  else describeWindow();
  if (content.maps.length) {
    await choose("mapB", view.mapB);
    await choose("mapA", 0);
  }
  document.body.dataset.ready = "yes";
}

start().catch((error) => {
  element("readout").textContent = `The viewer cannot start: ${error.message}. The pictures of the report show the same.`;
});
