"""The viewer in a real browser: values, keys, sides of the patient; and the report on paper."""

import base64
import io
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from pellucid.core.case import Case
from pellucid.core.errors import MissingExtra
from pellucid.core.explanation import Attribution, Explanation, Prediction, Provenance, Reference
from pellucid.core.grid import Calibration, Grid, as_affine
from pellucid.core.image import Image, Modality
from pellucid.core.prepare import Prepared
from pellucid.show.report import render_report
from pellucid.show.sections import CaseReport, Check, MapPanel
from pellucid.show.words import MINUS
from pellucid.workbench.printing import print_pdf
from pellucid.workbench.viewing import write_viewer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]
FLAGS = ("--headless", "--no-sandbox", "--hide-scrollbars", "--no-first-run", "--disable-sync",
         "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-background-networking",
         "--disable-component-update", "--disable-quic", "--remote-debugging-pipe")  # fmt: skip
OK = Check("applicability", "pass", "the image is of the kind that the model card names")
LETTERS = """window.written = []; const old = CanvasRenderingContext2D.prototype.fillText;
CanvasRenderingContext2D.prototype.fillText = function (words, x, y) {
  window.written.push([this.canvas.dataset.plane, words, x / this.canvas.clientWidth]);
  old.call(this, words, x, y); };"""


class Browser:
    """Chromium spoken to in the DevTools protocol over two pipes: no driver, no port."""

    def __init__(self, program: str, profile: Path) -> None:
        command_in, self.into = os.pipe()
        self.out, command_out = os.pipe()
        words = f'exec "$0" "$@" 3<&{command_in} 4>&{command_out}'
        command = ["bash", "-c", words, program, *FLAGS, f"--user-data-dir={profile}"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, pass_fds=(command_in, command_out), **quiet)
        os.close(command_in)
        os.close(command_out)
        self.count, self.read, self.session, self.events = 0, b"", "", []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.size(1280, 1000)

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.into, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.read:
                assert select.select([self.out], [], [], 60)[0], f"no answer to {method}"
                self.read += os.read(self.out, 1 << 20)
            one, self.read = self.read.split(b"\0", 1)
            answer = json.loads(one)
            if answer.get("id") == self.count:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def js(self, text: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=text, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, condition: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not self.js(condition):
            assert time.monotonic() < end, condition
            time.sleep(0.05)

    def size(self, width: int, height: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def open(self, page: Path) -> None:
        self.call("Page.navigate", url=page.as_uri())
        self.wait("document.body && document.body.dataset.ready === 'yes'")
        self.settle()

    def settle(self) -> None:
        self.js("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def key(self, key: str, kinds: tuple[str, ...] = ("keyDown", "keyUp"), shift: bool = False) -> None:
        for kind in kinds:
            text = key if len(key) == 1 and kind == "keyDown" else ""
            self.call("Input.dispatchKeyEvent", type=kind, key=key, text=text, modifiers=8 if shift else 0)
        self.settle()

    def mouse(self, kind: str, x: float, y: float, **more: object) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)
        self.settle()

    def pixels(self, selector: str) -> np.ndarray:
        self.settle()
        box = self.js(f"JSON.stringify(document.querySelector({selector!r}).getBoundingClientRect())")
        box = json.loads(box)
        clip = {k: box[k] for k in ("x", "y", "width", "height")} | {"scale": 1}
        shot = self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)["data"]
        return np.asarray(Picture.open(io.BytesIO(base64.b64decode(shot))).convert("RGB"), float)

    def problems(self) -> list[object]:
        kinds = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        return [e["params"] for e in self.events if e.get("method") in kinds]

    def asked(self) -> list[str]:
        return [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.into)
        os.close(self.out)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    """One for each test: a second heavy page in the same software-drawn browser is slow."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium: `apt-get install chromium`, or run `make integration` as root")
    one = Browser(program, tmp_path / "profile")
    yield one
    one.close()


def explained(image: Image, values: torch.Tensor, method: str = "HiResCAM", signed: bool = True, score: float = 2.0,
              null: float | None = 1.0) -> Explanation:  # fmt: skip
    made = Provenance(
        "case-1", "a" * 64, "toy 1", "b" * 64, "", "lesion", method, {}, None, None, 0, "float32", "cpu", (1, 1),
        (0, 0), 1.0, {"pellucid": "0"}, "2026-01-01T00:00:00+00:00", "applies",
    )  # fmt: skip
    said = Prediction("lesion", score, "logit", 0.88, 0.5, "lesion", {"lesion": 0.88})
    answer = Attribution({"image": values[None, None]}, "logit", signed, cell=(4.0,) * values.ndim)
    prepared = Prepared(image.data, image.grid, image.grid, (0.0,), (1.0,))
    return Explanation(answer, made, said, image, prepared, Reference(4.0, null, 0.05, 200, 100, "normals"))


def report_of(*explanations: Explanation, notes: tuple[str, ...] = ()) -> CaseReport:
    image = explanations[0].image
    assert image is not None
    maps = tuple(MapPanel(e, e.provenance.method, "shows", "caution") for e in explanations)
    case = Case("case-1", {"image": image}, notes=notes)
    return CaseReport(case, image, OK, OK, explanations[0].prediction, maps)


@pytest.fixture
def volume() -> Image:
    """Axial slices toward the head, rows toward the back, columns toward the left; bright on the patient's left."""
    matrix = np.asarray([[0, 0, 2, -40], [0, 2, 0, -40], [5, 0, 0, -30], [0, 0, 0, 1]], float)
    grid = Grid((12, 40, 40), as_affine(matrix), Calibration.PATIENT)
    data = torch.randint(-1000, -900, grid.shape, generator=torch.Generator().manual_seed(0)).float()
    data[4:9, 14:26, 28:36] = 900  # columns of high index: x to the left of the patient
    return Image(data[None], grid, Modality.CT, "HU", (-1000, 400))


def test_a_volume_is_read_by_keys(browser: Browser, volume: Image, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    first, second = (torch.randn(volume.grid.shape, generator=generator) for _ in range(2))
    first[7, 20, 31] = 6
    both = report_of(explained(volume, first), explained(volume, second, "LRP"), notes=("PLANTED by a formula",))
    browser.open(write_viewer(both, tmp_path / "case-1"))
    told = "document.getElementById('readout')"

    def read() -> tuple[tuple[int, ...], float, float]:
        at, image, value = json.loads(
            browser.js(f"JSON.stringify([{told}.dataset.at, {told}.dataset.image, {told}.dataset.map])")
        )
        return tuple(int(i) for i in at.split()), float(image), float(value)

    at, image, value = read()
    assert at == (7, 20, 31)  # the peak of the first map
    assert image == volume.data[0][at]
    assert value == pytest.approx(6, abs=1e-3)
    words = browser.js(f"{told}.innerText")
    assert "axial slice 8 of 12" in words
    assert "L 22.0, P 0.0, H 5.0 mm" in words
    assert "Image: 900 HU." in words
    assert (
        "Attribution by HiResCAM for lesion: 6 logit (rounded by at most 0.0000916); beyond the null 1, drawn." in words
    )
    assert "The map is not drawn now" in words
    main = "#panes canvas"
    bare = browser.pixels(main)
    browser.key("o")
    line = browser.pixels(main)
    browser.key("o")
    wash = browser.pixels(main)
    assert np.abs(line - bare).max() > 100
    assert np.abs(wash - line).sum() > np.abs(line - bare).sum() / 10
    browser.key(" ", ("keyDown",))
    np.testing.assert_allclose(browser.pixels(main), bare, atol=2)  # drawn again
    browser.key(" ", ("keyUp",))
    np.testing.assert_allclose(browser.pixels(main), wash, atol=2)
    browser.js("const s = document.getElementById('opacity'); s.value = 20; s.dispatchEvent(new Event('input'))")
    assert 0 < np.abs(browser.pixels(main) - line).sum() < np.abs(wash - line).sum()
    browser.key("m")
    browser.wait(f"{told}.innerText.includes('LRP')")
    assert read()[2] == pytest.approx(float(second[7, 20, 31]), abs=1e-3)
    browser.key("g")
    at, image, value = read()
    assert at == tuple(int(i) for i in np.unravel_index(int(second.argmax()), second.shape))
    assert value == pytest.approx(float(second.max()), abs=1e-3)
    browser.js("document.querySelector('#panes canvas').focus()")
    browser.key("ArrowDown")
    assert read()[0][0] == at[0] + 1 if at[0] < 11 else 11
    browser.key("ArrowRight", shift=True)
    assert read()[0][2] == min(39, at[2] + 1)
    browser.key("2")
    assert f"black {MINUS}1350, white 150 HU" in browser.js("document.getElementById('window-words').textContent")
    browser.key("r")
    assert read()[0] == (7, 20, 31)
    browser.key("a")
    assert browser.js("document.querySelectorAll('#panes canvas').length") == 2
    assert browser.problems() == []
    assert browser.asked()
    assert all(url.startswith(("file:", "data:", "blob:")) for url in browser.asked())


def test_the_left_of_the_patient_is_right_on_the_screen(browser: Browser, volume: Image, tmp_path: Path) -> None:
    browser.call("Page.addScriptToEvaluateOnNewDocument", source=LETTERS)
    browser.open(write_viewer(report_of(explained(volume, torch.zeros(volume.grid.shape))), tmp_path / "case-1"))
    browser.key("h")  # without the crosshair
    for plane in ("axial", "coronal"):
        shot = browser.pixels(f"#panes canvas[data-plane={plane}]").mean(-1)
        height, width = shot.shape
        middle = shot[height // 4 : 3 * height // 4, width // 8 : 7 * width // 8]
        bright = np.argwhere(middle > 230)[:, 1].mean() + width // 8
        assert bright > 0.55 * width, plane
        places = {
            words: share for name, words, share in browser.js("window.written") if name == plane and len(words) == 1
        }
        assert places["L"] > 0.9, plane
        assert places["R"] < 0.1, plane
    browser.key("d")
    browser.wait("document.getElementById('solid-words').textContent.startsWith('NiiVue')")
    time.sleep(1)
    shot = browser.pixels("#solid-canvas").mean(-1)
    height, width = shot.shape
    first = int(np.nonzero(shot[: height // 4].mean(0) > 3)[0][0])
    left = shot[:, first : width // 2]  # NiiVue draws the coronal plane over the axial one there
    for part in (left[: height // 3], left[height // 2 :]):
        bright = np.argwhere(part > 230)
        assert len(bright) > 1000
        assert 0.6 < bright[:, 1].mean() / left.shape[1] < 0.95
    assert "S is H (head)" in browser.js("document.getElementById('solid-words').textContent")
    assert browser.problems() == []


def test_a_flat_image_is_zoomed_and_a_withheld_map_stays_away(browser: Browser, tmp_path: Path) -> None:
    data = (torch.arange(60 * 80).view(1, 60, 80) % 251).float() / 255
    film = Image(data, Grid.regular((60, 80), (0.5, 0.5), Calibration.DETECTOR), Modality.XRAY, "[0,1]")
    values = torch.zeros(60, 80)
    values[10:20, 50:70] = 3
    browser.open(write_viewer(report_of(explained(film, values, score=-1.0)), tmp_path / "case-1"))
    text = "document.getElementById('readout').innerText"
    assert f"score below threshold ({MINUS}1 < 0.5 logit): no map is shown" in browser.js(text)
    bare = browser.pixels("#panes canvas")
    browser.key("o")
    np.testing.assert_allclose(browser.pixels("#panes canvas"), bare, atol=2)
    browser.js("document.getElementById('anyway').click()")
    contour = browser.pixels("#panes canvas")
    assert np.abs(contour - bare).max() > 100
    box = json.loads(browser.js("JSON.stringify(document.querySelector('#panes canvas').getBoundingClientRect())"))
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    scale = min((box["width"] - 8) / 40, (box["height"] - 8) / 30)
    # the middle of pixel (row 15, column 60), which lies in the block
    u, v = x + (60.5 * 0.5 - 20) * scale, y + (15.5 * 0.5 - 15) * scale
    for kind in ("mousePressed", "mouseReleased"):
        browser.mouse(kind, u, v, button="left", buttons=1, clickCount=1)
    words = browser.js(text)
    assert "row 16 of 60, column 61 of 80" in words
    assert f"Image: {float(data[0, 15, 60]):.4f}".rstrip("0") in words
    assert "3 logit" in words
    browser.mouse("mouseWheel", u, v, deltaX=0, deltaY=-100)
    browser.key("o")
    zoomed = browser.pixels("#panes canvas")
    assert np.abs(zoomed - contour).mean() > 1
    for kind in ("mousePressed", "mouseReleased"):
        browser.mouse(kind, u, v, button="left", buttons=1, clickCount=1)
    assert "row 16 of 60, column 61 of 80" in browser.js(text)  # zoomed about the pointer
    browser.key("l")
    browser.mouse("mousePressed", u, v, button="left", buttons=1, clickCount=1)
    browser.mouse("mouseMoved", u + 12 * scale, v, button="left", buttons=1)
    browser.mouse("mouseReleased", u + 12 * scale, v, button="left", buttons=0)
    assert "length 10 mm at the detector" in browser.js("document.getElementById('measures').textContent")  # zoom 1.2
    browser.size(390, 844)
    browser.settle()
    assert browser.js("document.documentElement.scrollWidth <= 390")
    assert browser.problems() == []


def test_the_report_is_printed(volume: Image, tmp_path: Path) -> None:
    if shutil.which("pdftotext") is None:
        pytest.skip("no pdftotext: `apt-get install poppler-utils`, or run `make integration` as root")
    page = render_report(report_of(explained(volume, torch.randn(volume.grid.shape))))
    path = print_pdf(page, tmp_path / "report.pdf")
    assert path.read_bytes()[:5] == b"%PDF-"
    text = subprocess.run(["pdftotext", "-layout", str(path), "-"], capture_output=True, text=True, check=True).stdout
    sheets = [sheet for sheet in text.split("\f") if sheet.strip()]
    assert len(sheets) >= 3
    assert all("RESEARCH - NOT FOR DIAGNOSIS" in sheet for sheet in sheets)
    assert f"{len(sheets)} / {len(sheets)}" in sheets[-1].replace("/", " / ").replace("  ", " ")
    assert "HiResCAM" in text
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_browser_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtra, match="apt-get install chromium"):
        print_pdf("<p>", tmp_path / "x.pdf")
    assert not list(tmp_path.iterdir())


def test_the_report_shows_the_viewer_in_a_frame(browser: Browser, volume: Image, tmp_path: Path) -> None:
    one = report_of(explained(volume, torch.randn(volume.grid.shape)))
    page = write_viewer(one, tmp_path / "case-1", back="report.html")
    report = page.with_name("report.html")
    report.write_text(render_report(one, viewer=page.name), encoding="utf-8")
    browser.call("Page.navigate", url=report.as_uri())
    browser.wait("document.readyState === 'complete'")
    browser.js("document.querySelector('iframe').scrollIntoView()")
    frame = browser.call("Page.getFrameTree")["frameTree"]["childFrames"][0]["frame"]
    assert Path(frame["url"]).name == "viewer.html"
    ready, end = None, time.monotonic() + 30
    while ready != "yes":
        assert time.monotonic() < end, "the viewer in the frame does not start"
        made = [e["params"]["context"] for e in browser.events if e["method"] == "Runtime.executionContextCreated"]
        inside = [c["id"] for c in made if c["auxData"]["frameId"] == frame["id"]]
        asked = {"expression": "document.body?.dataset.ready", "contextId": inside[-1]}
        ready = browser.call("Runtime.evaluate", **asked)["result"].get("value") if inside else None
        browser.settle()
    assert browser.pixels("iframe").std() > 25
    assert browser.problems() == []
