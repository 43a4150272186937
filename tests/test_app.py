"""The web app, driven as a visitor would: in a browser, by two at once, with files that are no songs, by keyboard and on a phone."""
import base64
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pytest
from app_stand_in import StandIn
from PIL import Image, ImageCms

from album_gan.data.core import AlbumGanError, package_weights, shared_dir
from album_gan.data.music import read_tags
from album_gan.studio.app import Desk, Workshop, captions, example_songs, heard, main, open_app
from album_gan.studio.delivery import MAX_JPEG, read_marker

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
CHROMIUM, DRIVER = (shutil.which(n) for n in ("chromium", "chromedriver"))
pytestmark = [pytest.mark.skipif(not find_spec("gradio"), reason='needs Gradio: pip install "album_gan[studio]"'),
              pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver")]
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

LIMIT = 20_000_000 # bytes; a song of the library fits, and the test of the limit is quick
SHOTS = os.environ.get("ALBUM_GAN_SHOTS") # a folder for screenshots, to be looked at


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    "Two songs that differ: real ones where there are some."
    made = list(example_songs(tmp_path_factory.mktemp("songs"), (1, 2), 8.0).values())
    real = shared_dir() and shared_dir()/"library"/"frozen-bubble"/"frozen-bubble-frozen-mainzik-1p.ogg"
    return ([str(real)] if real and real.is_file() else []) + made


@pytest.fixture(scope="module")
def app():
    with open_app(StandIn(), port=0, max_bytes=LIMIT) as url: yield url


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking", "disable-component-update", "disable-sync", "disable-dev-shm-usage",
                 f"user-data-dir={tmp_path_factory.mktemp('profile')}", "window-size=1280,1400"): options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(60)
    yield driver
    driver.quit()


class Page:
    "What a visitor does on the page, in a tab of their own."
    def __init__(self, browser, url, downloads):
        self.browser, self.downloads = browser, Path(downloads)
        browser.switch_to.new_window("tab")
        self.tab = browser.current_window_handle
        browser.get(url)
        self.until(lambda: self.find("#paint") and "Drop a song" in self.said())
    def here(self): self.browser.switch_to.window(self.tab); return self
    def find(self, css): return next(iter(self.browser.find_elements(By.CSS_SELECTOR, css)), None)
    def all(self, css): return self.browser.find_elements(By.CSS_SELECTOR, css)
    def said(self): return self.browser.execute_script("return document.querySelector('#said .said')?.innerText ?? ''")
    def until(self, what, seconds=120):
        try: return WebDriverWait(self.browser, seconds, 0.1, ignored_exceptions=[Exception]).until(lambda _: what())
        except Exception:
            self.shot("failed")
            raise AssertionError(f"waited {seconds} s in vain; the page says {self.said()!r}") from None
    def text(self, css): return self.find(css).get_attribute("value")
    def write(self, css, text):
        field = self.find(css)
        field.send_keys(Keys.CONTROL, "a"); field.send_keys(text, Keys.TAB)
    def drop(self, path): self.until(lambda: self.find("#song input[type=file]")).send_keys(str(path))
    def set_number(self, css, value):
        field = self.find(f"{css} input[type=number]")
        field.send_keys(Keys.CONTROL, "a"); field.send_keys(str(value), Keys.TAB)
    def click(self, css): self.browser.execute_script("arguments[0].click()", self.find(css))
    def files(self): return {a.get_attribute("download") or Path(a.get_attribute("href")).name: a.get_attribute("href") for a in self.all("#files a[href]")}
    def shot(self, name):
        if SHOTS:
            png = self.browser.execute_cdp_cmd("Page.captureScreenshot", dict(captureBeyondViewport=True))["data"]
            (Path(SHOTS)/f"{name}.png").write_bytes(base64.b64decode(png))
    def fetch(self, name):
        "Click a file's link and wait for the download."
        self.browser.execute_cdp_cmd("Browser.setDownloadBehavior", dict(behavior="allow", downloadPath=str(self.downloads)))
        next(a for a in self.all("#files a[href]") if name in (a.get_attribute("download"), Path(a.get_attribute("href")).name)).click()
        self.until(lambda: (self.downloads/name).is_file() and not list(self.downloads.glob("*.crdownload")))
        return self.downloads/name


@pytest.fixture
def visit(browser, app, tmp_path):
    opened = []
    def new(url=app):
        there = tmp_path/f"visitor{len(opened)}"; there.mkdir()
        opened.append(Page(browser, url, there)); return opened[-1]
    first = browser.current_window_handle
    yield new
    for p in opened: p.here(); browser.close()
    browser.switch_to.window(first)


def test_song_to_files(visit, songs):
    "Drop, listen, change the title, paint, pick, choose a layout, download."
    page, tags = visit(), read_tags(songs[0])
    page.drop(songs[0])
    page.until(lambda: "Listened" in page.said())
    assert page.text("#artist :is(input, textarea)") == tags["artist"]
    page.shot("listened")
    page.until(lambda: page.find("#player audio").get_attribute("src").startswith("http://127.0.0.1"))
    page.write("#title :is(input, textarea)", "The Quiet Engines")
    page.find("#how > button").click()
    page.set_number("#number", 3)
    page.set_number("#steps", 100)
    page.click("#paint")
    page.until(lambda: page.find("#stop").is_displayed())
    page.click("#stop")
    page.until(lambda: page.said() == "Stopped.")
    page.set_number("#steps", 3)
    page.until(lambda: not page.find("#stop"))
    page.click("#paint")
    page.until(lambda: "Painted 3 covers" in page.said())
    page.until(lambda: len(page.all("#covers button img")) == 3)
    page.until(lambda: page.find("#preview img"))
    before = page.find("#preview img").get_attribute("src")
    page.all("#covers button:has(img)")[1].click()
    page.until(lambda: page.find("#preview img").get_attribute("src") != before)
    assert page.all("#pick input")[1].is_selected()
    page.shot("desktop")
    page.click("#make")
    page.until(lambda: len(page.files()) == 5)
    assert sorted(page.files()) == ["cover-1-without-type.jpg", "cover-1-without-type.png", "cover-1.jpg", "cover-1.md", "cover-1.png"]
    for name in ("cover-1.png", "cover-1.jpg"):
        path = page.fetch(name)
        assert path.stat().st_size <= MAX_JPEG or path.suffix == ".png"
        with Image.open(path) as im:
            assert (im.size, im.mode) == ((3000, 3000), "RGB")
            assert "sRGB" in ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(im.info["icc_profile"])))
        assert read_marker(path)["title"] == "The Quiet Engines"


def test_refusals(visit, songs, tmp_path):
    "One sentence for what is no song, and the song before stays."
    page = visit()
    page.drop(songs[-1])
    page.until(lambda: "Listened" in page.said())
    title = page.text("#title :is(input, textarea)")
    text, path_like, huge = tmp_path/"song.mp3", tmp_path/"..\\..\\evil.ogg", tmp_path/"huge.mp3"
    text.write_text("These are only words.\n"*100)
    shutil.copy(songs[-1], path_like)
    with open(huge, "wb") as f: f.truncate(200_000_000)
    def again():
        clear = page.find("#song button[aria-label*='lear' i], #song button[aria-label*='emove' i]")
        if clear: clear.click()
    again(); page.drop(text)
    page.until(lambda: "song.mp3 is text" in page.said())
    assert "still here" in page.said() and page.find("#said [role=alert]") and page.text("#title :is(input, textarea)") == title
    page.shot("refused")
    page.drop(path_like)
    page.until(lambda: "is a path and not the name of a song" in page.said())
    page.drop(huge)
    page.until(lambda: "maximum" in page.find("body").text.lower() or "too large" in page.find("body").text.lower(), 30)
    page.shot("too-large")
    page.click("#paint") # after all that, the song is still there
    page.until(lambda: "Painted" in page.said())


def test_two_visitors(visit, songs):
    "At the same time, with different songs: each gets their own and nothing of the other's."
    pages, names, urls = [visit(), visit()], ["Northern Lights", "Southern Cross"], []
    for page, song, name in zip(pages, songs, names):
        page.here().drop(song)
        page.until(lambda: "Listened" in page.said())
        page.write("#title :is(input, textarea)", name)
    for page in pages: page.here().click("#paint")
    for page in pages: page.here().until(lambda: "Painted 4 covers" in page.said())
    for page in pages: page.here().click("#make")
    for page, name in zip(pages, names):
        page.here().until(lambda: len(page.files()) == 5)
        assert read_marker(page.fetch("cover-0.jpg"))["title"] == name
        urls.append(set(page.files().values()))
    assert not urls[0] & urls[1]


def contrasts(browser):
    "Elements with text, and how it stands out from the nearest opaque ground."
    return browser.execute_script("""
      const rgb = c => { const m = c.match(/[\\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m };
      const lum = c => { const f = c.slice(0, 3).map(v => { v /= 255; return v <= .03928 ? v/12.92 : ((v + .055)/1.055)**2.4 }); return .2126*f[0] + .7152*f[1] + .0722*f[2] };
      const ground = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] > .99) return c } return [255, 255, 255, 1] };
      const out = [];
      for (const e of document.querySelectorAll('.gradio-container *')) {
        const own = [...e.childNodes].some(n => n.nodeType == 3 && n.textContent.trim());
        if (!own || !e.offsetParent || e.closest('style, script, .sr-only') || e.disabled || getComputedStyle(e).visibility != 'visible') continue;
        const a = lum(rgb(getComputedStyle(e).color)), b = lum(ground(e));
        out.push([(Math.max(a, b) + .05)/(Math.min(a, b) + .05), e.tagName + '.' + e.className, e.textContent.trim().slice(0, 40)]);
      }
      return out""")


def test_for_everybody(visit, songs, browser):
    "Labels, contrast by day and night, the keyboard, a phone's width – and nothing fetched from elsewhere."
    page = visit()
    def severe(): return [e["message"] for e in browser.get_log("browser") if e["level"] == "SEVERE"]
    severe() # of other tests
    page.find(".try").send_keys(Keys.ENTER) # an example
    page.until(lambda: "Listened" in page.said())
    assert page.text("#title :is(input, textarea)") and page.text("#genre input")
    page.find("#how > button").click()
    page.find("#paint").send_keys(Keys.ENTER) # by keyboard
    page.until(lambda: page.find("#preview img"))
    page.all("#pick input")[1].send_keys(Keys.SPACE)
    page.until(lambda: page.all("#pick input")[1].is_selected())
    nameless = browser.execute_script("""
      return [...document.querySelectorAll('input:not([type=hidden]), textarea, select, button, audio')].filter(e => e.offsetParent && !(e.labels?.length || e.ariaLabel || e.getAttribute('aria-labelledby')
        || e.title || e.innerText?.trim() || e.querySelector('img[alt]:not([alt=""])'))).map(e => e.outerHTML.slice(0, 160))""")
    assert not nameless
    assert not severe()
    assert browser.execute_script("return document.documentElement.lang") == "en" and browser.title == "Album cover studio"
    page.shot("painted")
    for scheme in ("light", "dark"):
        browser.get(browser.current_url.split("?")[0] + f"?__theme={scheme}")
        page.until(lambda: page.find("#paint") and "Drop a song" in page.said())
        page.find("#how > button").click()
        time.sleep(0.5)
        pale = [c for c in contrasts(browser) if c[0] < 4.5]
        assert not pale, pale
        page.shot(f"start-{scheme}")
    severe() # leaving a page breaks off what it was waiting for
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", dict(width=375, height=800, deviceScaleFactor=2, mobile=True))
    try:
        page.drop(songs[-1])
        page.until(lambda: "Listened" in page.said())
        page.click("#paint")
        page.until(lambda: page.find("#preview img"))
        browser.execute_script("document.querySelector('#preview').scrollIntoView()")
        page.until(lambda: browser.execute_script("return [...document.querySelectorAll('#preview img, #covers img')].every(i => i.complete && i.naturalWidth)"))
        wide = browser.execute_script("return document.scrollingElement.scrollWidth")
        assert wide <= 375
        page.shot("phone")
    finally: browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    calls = [json.loads(e["message"])["message"] for e in browser.get_log("performance")]
    asked = [c["params"]["request"]["url"] for c in calls if c["method"] == "Network.requestWillBeSent"]
    assert asked and not [u for u in asked if not u.startswith(("http://127.0.0.1", "data:", "blob:", "chrome"))]
    assert not severe()


def post(url, name, data):
    "Upload as a program would, under any name."
    body = b"--x\r\nContent-Disposition: form-data; name=\"files\"; filename=\"" + name.encode() + b"\"\r\nContent-Type: audio/mpeg\r\n\r\n" + data + b"\r\n--x--\r\n"
    request = urllib.request.Request(f"{url}gradio_api/upload", body, {"Content-Type": "multipart/form-data; boundary=x"})
    with urllib.request.urlopen(request, timeout=30) as answer: return json.load(answer)


def test_behind_the_page(app):
    "What does not come from a browser meets the same limits."
    [path] = post(app, "../../../evil.mp3", b"words")
    assert ".." not in path and Path(path).name == "evil.mp3" and "album-cover-" in path
    with pytest.raises(urllib.error.HTTPError) as e: post(app, "huge.mp3", bytes(LIMIT + 1))
    assert e.value.code == 413
    for secret in ("/etc/passwd", str(Path(__file__))):
        with pytest.raises(urllib.error.HTTPError) as e: urllib.request.urlopen(f"{app}gradio_api/file={secret}", timeout=30)
        assert e.value.code == 403


def test_with_the_model(songs, tmp_path):
    "The page's work with the packaged model in place of the stand-in."
    try: weights = package_weights("conditioner")
    except AlbumGanError as e: pytest.skip(str(e))
    from album_gan.studio.generate import load_studio
    shop, desk, steps = Workshop(load_studio(weights, index=False), tmp_path), Desk(), []
    song = shop.listen(desk, songs[0])
    assert song.title and heard(song) and "--title" not in heard(song) and str(Path(songs[0]).parent) not in heard(song)
    shop.paint(desk, "The Quiet Engines", "Nobody", "Folk", progress=lambda done, total: steps.append((done, total)), n=2, seed=5, steps=2, guidance_text=2.0, guidance_music=2.0, music_off=False)
    assert steps == [(1, 2), (2, 2)] and len(captions(desk.made)) == 2
    files = shop.files(desk, 2, "The Quiet Engines", "Nobody", size=300)
    marker = read_marker(files[0])
    assert (marker["title"], marker["seed"], marker["steps"]) == ("The Quiet Engines", 6, 2)
    desk.clear()
    assert not list(tmp_path.iterdir())


def test_nothing_stays(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with open_app(StandIn(), port=0, examples=False) as url:
        assert url.startswith("http://127.0.0.1:")
        [path] = post(url, "a.mp3", b"words")
        assert Path(path).is_file() and Path(path).is_relative_to(tmp_path)
    assert not list(tmp_path.glob("album-cover-*"))


def test_port_taken(capsys, monkeypatch):
    monkeypatch.setattr("album_gan.studio.generate.load_studio", lambda run, device: StandIn())
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0)); s.listen()
        assert main(["--port", str(s.getsockname()[1]), "--no-examples"]) == 3
    assert "choose another --port" in capsys.readouterr().err


def test_module_is_a_command():
    done = subprocess.run([sys.executable, "-m", "album_gan.studio.app", "--help"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "127.0.0.1" in done.stdout
