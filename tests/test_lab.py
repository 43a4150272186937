"""`make lab`: every verb runs from top to bottom by Run All Cells where it lies, and the panel of `generate.ipynb` answers to mouse and keyboard."""
import base64
import contextlib
import io
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from album_gan.studio.delivery import read_marker

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT/"tools"))
import docs_check  # noqa: E402  (a tool, not a package)

psutil, _ = (pytest.importorskip(name, reason='needs the extra "collect": pip install "album_gan[collect]"') for name in ("psutil", "selenium"))
pytestmark = [pytest.mark.skipif(not (find_spec("jupyterlab") and find_spec("ipywidgets")), reason='needs JupyterLab: pip install "album_gan[notebooks]"'),
              pytest.mark.skipif(not docs_check.find_browser(), reason="no Chromium with chromedriver on this machine (Debian: apt install chromium chromium-driver)")]
from selenium.common.exceptions import WebDriverException  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

LONG = pytest.mark.skipif(not os.environ.get("ALBUM_GAN_LAB"), reason="drives a real JupyterLab for minutes; run it with ALBUM_GAN_LAB=1")
VERBS = ["index", "collect", "analyze", "train", "experiment", "results", "generate"]
SHOTS = os.environ.get("ALBUM_GAN_SHOTS") # a folder for screenshots, to be looked at
QUIET = {"docmanager-extension/plugin": dict(autosave=False), "apputils-extension/notification": dict(fetchNews="false", checkForUpdates=False)} # nothing is stored, nothing is asked of others


def ticks(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end: yield; time.sleep(0.2)


@contextlib.contextmanager
def lab(notebook, cwd, home, **settings):
    "JupyterLab as `make lab` starts it, with settings of its own; its address, with `{}` for a notebook's name."
    for name, setting in QUIET.items():
        (file := home/"settings"/"@jupyterlab"/f"{name}.jupyterlab-settings").parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(setting))
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port, token = s.getsockname()[1], secrets.token_hex(16)
    own = {f"JUPYTER_{n}_DIR": home/n.lower() for n in ("CONFIG", "DATA", "RUNTIME")} | {f"JUPYTERLAB_{n}_DIR": home/n.lower() for n in ("SETTINGS", "WORKSPACES")} | {"IPYTHONDIR": home/"ipython"}
    env = {k: v for k, v in os.environ.items() if k not in ("IN_TEST", "MPLBACKEND")} | {k: str(v) for k, v in {**own, **settings}.items()}
    base = f"http://127.0.0.1:{port}"
    def ask(path, method="GET"):
        with urllib.request.urlopen(urllib.request.Request(f"{base}/api/{path}?token={token}", method=method), timeout=30) as answer: return json.loads(answer.read() or "null")
    with open(home/"log.txt", "w") as log:
        server = psutil.Popen([sys.executable, "-m", "jupyterlab", notebook, "--allow-root", "--no-browser", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}"],
                              cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        try:
            for _ in ticks(60):
                assert server.poll() is None, (home/"log.txt").read_text()
                with contextlib.suppress(OSError): ask("status"); break
            else: raise AssertionError((home/"log.txt").read_text())
            yield f"{base}/lab/tree/{{}}.ipynb?token={token}", ask
        finally:
            with contextlib.suppress(OSError): [ask(f"kernels/{k['id']}", "DELETE") for k in ask("kernels")]
            family = [server, *server.children(recursive=True)] if server.is_running() else []
            server.terminate()
            for p in psutil.wait_procs(family, 10)[1]: p.kill()


class Notebook:
    "A notebook in a tab of its own."
    def __init__(self, browser, url):
        self.browser = browser
        browser.switch_to.new_window("tab")
        browser.get(url)
        self.until(lambda: self.prompts() and self.all(".jp-Notebook-ExecutionIndicator[data-status=idle]"))
    def script(self, code, *args): return self.browser.execute_script(code, *args)
    def all(self, css): return self.browser.find_elements("css selector", css)
    def prompts(self): return self.script("return [...document.querySelectorAll('.jp-NotebookPanel .jp-CodeCell .jp-InputArea-prompt')].map(e => e.textContent.trim())")
    def errors(self): return [e.text for e in self.all("[data-mime-type='application/vnd.jupyter.error']")]
    def until(self, what, seconds=60):
        for _ in ticks(seconds):
            with contextlib.suppress(WebDriverException): # what was found may be drawn anew meanwhile
                if found := what(): return found
        self.shot("lab-failed")
        raise AssertionError(f"waited {seconds} s in vain; cells: {self.prompts()}, errors: {self.errors()}")
    def run_all(self, seconds):
        "Run > Run All Cells, by mouse; returns when each code cell has its number."
        self.until(lambda: [e.click() or True for e in self.all(".lm-MenuBar-itemLabel") if e.text == "Run"])
        self.until(lambda: [e.click() or True for e in self.all(".lm-Menu li[data-command='runmenu:run-all']")])
        self.until(lambda: self.errors() or all(re.fullmatch(r"\[\d+\]:", p) for p in self.prompts()), seconds)
        assert not self.errors()
    def shot(self, name):
        if SHOTS: self.browser.save_screenshot(str(Path(SHOTS)/f"{name}.png"))


@pytest.fixture(scope="module")
def browser():
    with docs_check.chromium(1400, 5000) as driver: yield driver # so tall that every cell is in view


def test_make_lab_is_this():
    line = re.search(r"^lab: .*\n\t(.*)", (ROOT/"Makefile").read_text(), re.MULTILINE)[1]
    assert "-m jupyterlab nbs/index.ipynb" in line and "--allow-root" in line


@pytest.fixture(scope="module")
def verbs(tmp_path_factory):
    with lab("nbs/index.ipynb", ROOT, tmp_path_factory.mktemp("lab"), IN_TEST="1", OMP_NUM_THREADS="1") as found: yield found


@LONG
@pytest.mark.parametrize("verb", VERBS)
def test_verbs_run_all(browser, verbs, verb):
    "In the folder they lie in, as miniatures; the file stays as it was."
    address, ask = verbs
    before = (ROOT/"nbs"/f"{verb}.ipynb").read_bytes()
    book = Notebook(browser, address.format(verb))
    book.run_all(300)
    assert (ROOT/"nbs"/f"{verb}.ipynb").read_bytes() == before
    for kernel in ask("kernels"): ask(f"kernels/{kernel['id']}", "DELETE")


def test_every_verb_is_run(): assert {p.stem for p in (ROOT/"nbs").glob("*.ipynb")} == set(VERBS)


def pictures(book):
    "What the panel shows, as files."
    return [base64.b64decode(p) for p in book.browser.execute_async_script("""const done = arguments[arguments.length - 1];
        Promise.all([...document.querySelectorAll('img.widget-image')].map(async i => { const b = new Uint8Array(await (await fetch(i.src)).arrayBuffer()); return btoa(Array.from(b, c => String.fromCharCode(c)).join('')) })).then(done)""")]


@LONG
def test_panel(browser, tmp_path):
    "Sliders by keyboard, keep, paint again, finish, save: each does what it says, and what was set is in the file."
    shutil.copy(ROOT/"nbs"/"generate.ipynb", tmp_path)
    book = json.loads((tmp_path/"generate.ipynb").read_text(encoding="utf-8"))
    cell = next(c for c in book["cells"] if "parameters" in c["metadata"].get("tags", []))
    cell["source"] = "".join(cell["source"])
    for name, value in dict(n=2, steps=2, size=300).items(): cell["source"], _ = re.subn(rf"^({name}: int =) \d+", rf"\1 {value}", cell["source"], flags=re.MULTILINE)
    (tmp_path/"generate.ipynb").write_text(json.dumps(book), encoding="utf-8")
    (home := tmp_path/"home").mkdir()
    with lab("generate.ipynb", tmp_path, home, ALBUM_GAN_DATA=tmp_path/"data") as (address, _):
        book = Notebook(browser, address.format("generate"))
        book.run_all(60)
        sliders = {s.find_element("css selector", ".widget-label").text: s for s in book.until(lambda: book.all(".widget-hslider"))}
        assert set(sliders) == {"text guidance", "music guidance"}
        first = book.until(lambda: [p for p in pictures(book)[:2] if p.startswith(b"\x89PNG")][1:] and pictures(book)[:2])
        readout, handle = (sliders["music guidance"].find_element("css selector", css) for css in (".widget-readout", "[role=slider]"))
        set_to = float(readout.text)
        handle.send_keys(*[Keys.ARROW_RIGHT]*4)
        book.until(lambda: float(readout.text) > set_to)
        button = lambda text, nth=0: [b for b in book.all("button.jupyter-button") if b.text.strip() == text][nth]
        book.all(".widget-checkbox input")[0].click()
        button("paint again").click()
        second = book.until(lambda: (p := pictures(book)[:2])[1] != first[1] and p)
        assert second[0] == first[0] # kept
        assert all(Image.open(io.BytesIO(p)).size == (160, 160) for p in second)
        button("finish", 1).click()
        book.until(lambda: [e for e in book.all("img.widget-image") if e.is_displayed() and e.get_property("naturalWidth") == 420])
        button("save").click()
        book.until((tmp_path/"cover.png").is_file)
        book.until(lambda: "saved:" in book.script("return document.querySelector('.jp-NotebookPanel').innerText"))
        book.shot("lab-panel")
        marker = read_marker(tmp_path/"cover.png")
        assert marker["guidance_music"] == float(readout.text) != set_to and marker["seed"] == 2
        button("save").click() # a file that is there is not replaced
        book.until(lambda: "is there already" in book.script("return document.querySelector('.jp-NotebookPanel').innerText"))
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(home) in " ".join(p.info["cmdline"] or [])]
