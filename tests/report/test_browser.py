"""Pages of every topic in a browser: no error, no request, no overflow at three widths, light and dark; tables sort."""

import importlib.util
import json
import os
import queue
import re
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

from pulvinar.report import page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt install chromium)"),
]
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom")
AXE = Path(os.environ.get("AXE_CORE", "node_modules/axe-core/axe.min.js"))  # npm install axe-core, anywhere
SPY = """<script>
const said = [];
addEventListener("error", (event) => said.push(String(event.message)));
new PerformanceObserver((list) => list.getEntries().forEach((one) => {
  if (!one.name.startsWith("data:")) said.push("asked for " + one.name);
})).observe({type: "resource", buffered: true});
addEventListener("load", () => setTimeout(() => {
  const table = document.querySelector("table.scores");
  const column = [...table.tHead.rows[0].cells].findIndex((cell) => cell.classList.contains("number"));
  const values = () => [...table.tBodies[0].rows].map((row) => parseFloat((row.cells[column]?.firstChild?.textContent ?? "")
    .replaceAll(",", ""))).filter((value) => !Number.isNaN(value));
  const before = values();
  table.tHead.rows[0].cells[column].querySelector(".sort").click();
  const links = [...document.querySelectorAll("a[href^='#']")].map((link) => link.getAttribute("href"));
  const heads = [...table.tHead.rows[0].cells].slice(1);
  parent.postMessage({said, before, after: values(), width: document.documentElement.scrollWidth,
    ground: getComputedStyle(document.body).backgroundColor,
    contents: getComputedStyle(document.querySelector(".contents")).position,
    undefined: heads.filter((cell) => !cell.querySelector("a")).map((cell) => cell.textContent),
    open: document.querySelectorAll("details[open]").length, foot: document.querySelector("footer").textContent,
    unsorted: [...document.querySelectorAll("table.scores thead th")].filter((cell) => !cell.querySelector(".sort")).length,
    scales: [...document.querySelectorAll("figure img")].map((image) => image.clientWidth / image.getAttribute("width")),
    lost: links.filter((link) => !document.getElementById(link.slice(1))), n_links: links.length}, "*");
}, 500));
</script>"""


RULES = """<script>
addEventListener("load", () => setTimeout(() => axe.run(document).then((found) => parent.postMessage(
  {broken: found.violations.map((one) => one.id + ": " + one.nodes.map((node) => node.target.join(" ")).slice(0, 5).join(", ")),
   passed: found.passes.length}, "*")), 300));
</script>"""


def looked_at(html: Path, folder: Path, width: int, *, dark: bool = False, spy: str = SPY) -> dict:
    """What the page says of itself in a window of this width (a frame, since a window of Chromium is not so narrow)."""
    spied = folder / "spied.html"
    spied.write_text(html.read_text().replace("</head>", f"{spy}</head>"))
    frame = f'<iframe src="spied.html" style="width:{width}px;height:900px;border:0"></iframe>'
    listen = "<script>onmessage = (event) => document.title = JSON.stringify(event.data);</script>"
    (folder / "frame.html").write_text(f"<!doctype html><title>none</title>{listen}{frame}")
    flags = [
        *FLAGS,
        f"--window-size={max(width, 500) + 40},1000",
        *(["--blink-settings=preferredColorScheme=0"] if dark else []),
    ]
    ran = subprocess.run(
        [CHROMIUM, *flags, f"file://{folder / 'frame.html'}"], capture_output=True, text=True, timeout=120, check=False
    )
    title = re.search(r"<title>(.*?)</title>", ran.stdout, re.DOTALL)
    assert title is not None
    assert title[1] != "none", ran.stderr[-2000:]
    return json.loads(title[1].replace("&quot;", '"').replace("&amp;", "&"))


OTHERS = {  # topic -> where a run of it is made up
    "encoding": ("test_encoding_page", "make"),
    "rsa": ("test_rsa_page", "make"),
    "gating": ("test_headlines", "make"),
    "pictures": ("test_headlines", "make_pictures"),
    "sweep": ("test_gating_report", "make"),
}


@pytest.fixture(scope="module", params=["decoding", *OTHERS])
def built(request, make_run, tmp_path_factory, interactive) -> Path:
    """The page of a run of every topic, built once."""
    folder = tmp_path_factory.mktemp(request.param) / "run"
    if request.param == "decoding":
        return page.build(make_run(folder))
    name, maker = OTHERS[request.param]
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return page.build(getattr(module, maker)(folder))


@pytest.mark.parametrize("width", [360, 1024, 1920])
def test_the_page_fits_asks_for_nothing_and_sorts(built, tmp_path, width):
    found = looked_at(built, tmp_path, width)
    assert found["said"] == []
    assert found["width"] <= width
    assert found["lost"] == []
    assert found["n_links"] >= 4
    assert found["after"] == sorted(found["before"], reverse=True) != []
    assert found["ground"] == "rgb(255, 255, 255)"
    assert found["contents"] == "sticky"
    assert found["open"] == found["unsorted"] == 0
    assert set(found["undefined"]) <= {"ROI↕", "side↕"}  # what a row is of, not a score
    assert re.match(r"Made by pulvinar [\w.]+ on \d{4}-\d\d-\d\d with pulvinar report \S+\.$", found["foot"])
    assert found["scales"]  # text of figures is of one size, and legible: on a telephone they are moved sidewards
    assert all(0.7 < scale < 1.01 for scale in found["scales"])


def test_the_page_is_dark_where_that_is_wanted(built, tmp_path):
    found = looked_at(built, tmp_path, 1024, dark=True)
    assert found["ground"] != "rgb(255, 255, 255)"


VIEWER = """<script>
const heights = [];
addEventListener("message", (event) => {
  const frame = document.querySelector(".viewer iframe");
  if (!(event.data?.viewerHeight > 160)) return; // a canvas is of 150 pixels before anything is drawn
  heights.push(event.data.viewerHeight);
  if (heights.length === 1) return frame.style.width = "560px"; // wider on a telephone, narrower elsewhere
  if (heights.at(-1) !== heights[0]) setTimeout(() => fetch("ADDRESS" + encodeURIComponent(JSON.stringify({
    viewer: event.data.viewerHeight, before: heights[0], title: frame.title, width: document.documentElement.scrollWidth,
    height: frame.getBoundingClientRect().height,
    keys: [...document.querySelectorAll(".key-of-layer:not([hidden])")].map((key) => key.textContent),
  })), {mode: "no-cors"}), 200);
});
addEventListener("load", () => setTimeout(() => document.querySelector(".viewer").scrollIntoView(), 100));
</script>"""


def told(html: Path, folder: Path, width: int, spy: str) -> dict:
    """What the page sends to an address here, in a browser whose time runs: nothing is unpacked in a virtual one."""
    sent: queue.Queue[str] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(204)
            self.end_headers()
            sent.put(unquote(self.path[2:]))

        def log_message(self, *_said: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    spied = folder / "spied.html"
    spied.write_text(
        html.read_text().replace("</head>", spy.replace("ADDRESS", f"http://127.0.0.1:{server.server_port}/?") + "</head>")
    )
    (folder / "frame.html").write_text(
        f'<!doctype html><iframe src="spied.html" style="width:{width}px;height:900px"></iframe>'
    )
    flags = (*FLAGS[:3], f"--user-data-dir={folder / 'profile'}", "--remote-debugging-port=0", "--window-size=1100,1000")
    browser = subprocess.Popen([CHROMIUM, *flags, f"file://{folder / 'frame.html'}"], stderr=subprocess.DEVNULL)
    try:
        return json.loads(sent.get(timeout=100))
    finally:
        browser.kill()
        browser.wait()
        server.shutdown()


@pytest.mark.usefixtures("interactive")
@pytest.mark.parametrize("width", [360, 1024])
def test_the_slices_are_drawn_in_their_frame(make_run, tmp_path, width):
    """And the frame's height follows its width."""
    found = told(page.build(make_run(tmp_path / "run")), tmp_path, width, VIEWER)
    assert (found["viewer"] > found["before"]) == (width == 360)
    assert found["viewer"] == pytest.approx(found["height"], abs=3)
    assert found["width"] <= width
    assert found["title"] == "Interactive view: TROI"
    assert len(found["keys"]) == 1
    assert re.match(r"found \d+missed \d+false alarm \d+$", found["keys"][0])


@pytest.mark.skipif(not AXE.is_file(), reason="no axe-core here (npm install axe-core; AXE_CORE=.../axe.min.js)")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1024])
def test_axe_finds_nothing(built, tmp_path, width, dark):
    spy = f"<script>{AXE.read_text(encoding='utf-8')}</script>{RULES}"
    found = looked_at(built, tmp_path, width, dark=dark, spy=spy)
    assert found["broken"] == []
    assert found["passed"] > 15
