// What stands in the pictures as words: the page's live region says the same as the panes show.
const MINUS = "\u2212";

function number(value, digits = 3) {
  if (!Number.isFinite(value)) return "\u2014";
  if (value === 0) return "0";
  const places = digits - 1 - Math.floor(Math.log10(Math.abs(value)));
  let text = places > 0 ? value.toFixed(Math.min(12, places)) : String(Number(value.toPrecision(digits)));
  if (text.includes(".") && !text.includes("e")) text = text.replace(/0+$/, "").replace(/\.$/, "");
  return text.replace("-", MINUS);
}

function imageNumber(value) {
  return number(value, Number.isInteger(value) && Math.abs(value) < 1e7 ? 8 : 4);
}

function within(about) {
  return about.rounding ? ` (rounded by at most ${about.roundingWords})` : "";
}

function sliceNumber(axis, index) {
  const block = grid.blocks[axis];
  const first = index[axis] * block + 1;
  return block === 1 ? `${first}` : `${first} to ${Math.min(grid.full[axis], first + block - 1)}`;
}

function patientWords(index) {
  const point = worldOf(index);
  if (!point) return "";
  const parts = point.map((mm, axis) => `${grid.letters[axis][mm >= 0 ? 0 : 1]} ${Math.abs(mm).toFixed(1)}`);
  return `${parts.join(", ")} mm`;
}

function placeWords(index) {
  if (rank === 2) {
    const [row, column] = [sliceNumber(0, index), sliceNumber(1, index)];
    return `row ${row} of ${grid.full[0]}, column ${column} of ${grid.full[1]}`;
  }
  const slices = grid.planes.map((p) => `${p.name} slice ${sliceNumber(p.normal, index)} of ${grid.full[p.normal]}`);
  const point = patientWords(index);
  return slices.join(", ") + (point ? `; ${point}` : "");
}

function imageWords(image, index) {
  if (content.image.color) {
    const [red, green, blue] = image.colorAt(index);
    return `Image: red ${red}, green ${green}, blue ${blue} ${content.image.unit}.`;
  }
  return `Image: ${imageNumber(image.at(index))}${content.image.unit ? ` ${content.image.unit}` : ""}${within(content.image)}.`;
}

function mapWords(layer, index) {
  const about = layer.about;
  const value = layer.at(index);
  let said = "how high this map rises in normal cases was not measured";
  if (about.null !== null) {
    const above = about.signed ? Math.abs(value) > about.null : value > about.null;
    said = `${above ? "beyond" : "not beyond"} the null ${number(about.null)}, ${above ? "drawn" : "not drawn"}`;
  }
  return `Attribution by ${about.title} for ${about.target}: ${number(value)} ${about.unit}${within(about)}; ${said}.`;
}

// A round length of about a fifth of the pane, as in the report's pictures.
function barLength(span) {
  const wanted = span / 4;
  const scale = wanted < 1 ? 10 ** Math.floor(Math.log10(wanted)) : 1;
  const fitting = [1, 2, 5, 10, 20, 50, 100, 200].map((b) => b * scale).filter((b) => b <= wanted * 1.02);
  return fitting[fitting.length - 1];
}
