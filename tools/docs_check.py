"""Look at a built site as its readers do: the files first, then every page in headless Chromium.

Files: each page has a title, one first heading and a language; each link, anchor and picture inside the site leads somewhere, each
picture has a text that says something, nothing is to be loaded from elsewhere. Browser: no error in the console, no request leaves the loopback, every picture
is painted, and the search finds what is there. `python tools/docs.py --check` does both.
"""
import contextlib
import functools
import http.server
import json
import os
import re
import shutil
import sys
import tempfile
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

HOME = 'http://site'  # stands for the site's root while files are looked at
NOTHING = re.compile(r'\s*((figure|picture|image|plot|output)s?\W*\d*|\S+\.(png|jpe?g|svg|gif|webp)|Figure made by the code above.*)\s*', re.IGNORECASE | re.DOTALL)  # texts that say nothing
LOADS = {'img': 'src', 'script': 'src', 'iframe': 'src', 'audio': 'src', 'video': 'src', 'source': 'src', 'embed': 'src', 'object': 'data'}


class Reader(HTMLParser):
    "What a page says of itself, where it leads and what it loads."
    def __init__(self, page: str):
        super().__init__()
        self.page, self.title, self.headings, self.ids, self.links, self.loads, self.problems = page, '', [], set(), [], [], []
        self.lang, self._in = '', ''

    def handle_starttag(self, tag, attributes):
        a = dict(attributes)
        for key in ('id', 'name'):
            if a.get(key) and (key == 'id' or tag == 'a'): self.ids.add(a[key])
        if tag == 'html': self.lang = a.get('lang', '')
        if tag in ('title', 'h1', 'h2', 'h3', 'h4', 'h5', 'h6'):
            if tag != 'title': self.headings.append([int(tag[1]), ''])
            self._in = tag if not (tag == 'title' and self.title) else ''  # an <svg> has a title, too
        if tag == 'a' and a.get('href') is not None: self.links.append(a['href'])
        if tag in LOADS and a.get(LOADS[tag]): self.loads.append(a[LOADS[tag]])
        if tag == 'link' and {'stylesheet', 'icon', 'preload', 'prefetch', 'manifest'} & set((a.get('rel') or '').split()): self.loads.append(a.get('href', ''))
        if tag == 'img' and not (a.get('alt') or '').strip() and a.get('aria-hidden') != 'true' and a.get('role') != 'presentation' and 'sidebar-logo' not in (a.get('class') or ''):
            self.problems.append(f"the picture {a.get('src', '')[:80]} has no text")
        if tag == 'img' and NOTHING.fullmatch(a.get('alt') or ''): self.problems.append(f"the text of the picture {a.get('src', '')[:80]} says nothing: {a['alt']!r}; give its cell a line #| fig-alt: \"…\"")
        if 'style' in a: self.loads += re.findall(r'url\(\s*[\'"]?([^\'")]+)', a['style'] or '')

    def handle_endtag(self, tag):
        if tag == self._in: self._in = ''

    def handle_data(self, data):
        if self._in == 'title': self.title += data
        elif self._in: self.headings[-1][1] += data


def read(site: Path) -> dict[str, Reader]:
    "Every page of a built site, by address."
    pages = {}
    for path in sorted(site.rglob('*.html')):
        name = path.relative_to(site).as_posix()
        if name.startswith('_static/'): continue
        pages[name] = reader = Reader(name)
        reader.feed(path.read_text(encoding='utf-8'))
    return pages


def problems_in_files(site: Path) -> list[str]:
    "Everything that can be seen without a browser, one sentence each."
    pages, found = read(site), []
    if not pages: return [f'{site} holds no page; build it with `make docs`.']
    for name, page in pages.items():
        found += [f'{name}: {p}' for p in page.problems]
        if not page.title.strip(): found.append(f'{name}: no title')
        if not page.lang: found.append(f'{name}: no language')
        first = [h for h in page.headings if h[0] == 1]
        if len(first) != 1: found.append(f'{name}: {len(first)} first headings')
        for before, after in zip(page.headings, page.headings[1:]):
            if after[0] > before[0] + 1: found.append(f'{name}: a heading of level {after[0]} ({after[1].strip()[:40]!r}) below one of level {before[0]}')
        for target in page.loads:
            if re.match(r'(data|blob):', target): continue
            if re.match(r'[a-z][a-z0-9+.-]*:|//', target, re.IGNORECASE): found.append(f'{name}: loads {target[:90]} from elsewhere')
            elif not local(site, name, target).is_file(): found.append(f'{name}: loads {target[:90]}, which is not there')
        for target in page.links:
            where = urljoin(f'{HOME}/{name}', target)
            if not where.startswith(HOME):
                if not re.match(r'https?://|mailto:', where): found.append(f'{name}: links to {target[:90]}')
                continue
            path, anchor = urldefrag(where)
            file = local(site, name, target)
            if file.is_dir(): file = file/'index.html'
            if not file.is_file():
                found.append(f'{name}: links to {target[:90]}, which is not there')
                continue
            there = pages.get(file.relative_to(site).as_posix())
            if anchor and there and unquote(anchor) not in there.ids and anchor not in there.ids: found.append(f'{name}: {target[:90]} names a place that is not there')
    for css in site.rglob('*.css'):
        style = css.read_text(encoding='utf-8', errors='replace')
        found += [f'{css.relative_to(site)}: loads {u} from elsewhere' for u in re.findall(r'url\(\s*[\'"]?((?:https?:)?//[^\'")]+)|@import\s+[\'"]((?:https?:)?//[^\'"]+)', style)]
    return sorted(set(found))


def local(site: Path, page: str, target: str) -> Path:
    "The file behind an address on a page."
    return site/unquote(urlsplit(urljoin(f'{HOME}/{page}', target)).path).lstrip('/')


# ---- the browser

def find_browser() -> tuple[str, str] | None:
    "Chromium and its driver, as `data.youtube` looks for them; None where one is missing."
    browser = os.environ.get('ALBUM_GAN_CHROMIUM') or next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome', 'chrome'))), None)
    driver = os.environ.get('ALBUM_GAN_CHROMEDRIVER') or shutil.which('chromedriver')
    return (browser, driver) if browser and driver and Path(browser).exists() and Path(driver).exists() else None


@contextlib.contextmanager
def served(site: Path):
    "The site on a port of the loopback."
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_): pass
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try: yield f'http://127.0.0.1:{server.server_port}'
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def chromium(width: int = 1280, height: int = 900):
    "A headless browser that keeps a record of its requests and its console."
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    found = find_browser()
    if not found: raise SystemExit('Looking at the pages needs Chromium and chromedriver (Debian: apt install chromium chromium-driver); the files alone: python tools/docs.py.')
    with tempfile.TemporaryDirectory(prefix='album_gan-docs-') as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = found[0]
        for a in ('--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--disable-background-networking', '--disable-component-update',
                  '--disable-sync', '--disable-extensions', '--disable-default-apps', f'--window-size={width},{height}', f'--user-data-dir={profile}'): options.add_argument(a)
        options.set_capability('goog:loggingPrefs', {'performance': 'ALL', 'browser': 'ALL'})
        driver = webdriver.Chrome(options=options, service=Service(found[1]))
        driver.set_page_load_timeout(120)
        try: yield driver
        finally: driver.quit()


def look(driver, base: str, name: str) -> list[str]:
    "Open one page; what is wrong with it, and every request that it made to somebody else."
    driver.get(f'{base}/{name}')
    # pictures below the fold are loaded, too
    driver.execute_script('for (const i of document.images) i.loading = "eager"')
    pictures = driver.execute_async_script('''const done = arguments[arguments.length - 1];
        Promise.all([...document.images].map(i => i.decode().then(() => null, () => i.getAttribute("src").slice(0, 80)))).then(x => done(x.filter(Boolean)))''')
    found = [f'{name}: the picture {p} is not painted' for p in pictures]
    if not driver.title.strip(): found.append(f'{name}: no title')
    return found + heard(driver, base, name)


def heard(driver, base: str, name: str) -> list[str]:
    "Errors of the console and requests that left, since one last listened."
    found = [f'{name}: console: {e["message"][:200]}' for e in driver.get_log('browser') if e['level'] in ('SEVERE', 'WARNING')]
    for entry in driver.get_log('performance'):
        message = json.loads(entry['message'])['message']
        if message['method'] == 'Network.requestWillBeSent':
            url = message['params']['request']['url']
            if not url.startswith((base + '/', 'data:', 'blob:', 'chrome:', 'chrome-untrusted:', 'about:')): found.append(f'{name}: asks for {url[:120]}')
    return found


def search(driver, base: str, words: str, wait: float = 60) -> list[tuple[str, str]]:
    "Type words into the search box of the front page as a reader would; titles and addresses of what is found."
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait
    driver.get(f'{base}/index.html')
    box = driver.find_element(By.CSS_SELECTOR, 'input[name=q]')
    box.send_keys(words, Keys.ENTER)
    WebDriverWait(driver, wait).until(lambda d: d.find_elements(By.CSS_SELECTOR, '#search-results .search-summary') and 'earching' not in d.find_element(By.CSS_SELECTOR, '#search-results h2').text)
    return [(a.text, a.get_attribute('href')) for a in driver.find_elements(By.CSS_SELECTOR, '#search-results li > a')]


def problems_in_browser(site: Path, names: list[str] | None = None, words: str = 'cross attention', progress=None) -> tuple[list[str], list[tuple[str, str]]]:
    "Walk through pages (all, if none are named) and search once; problems, and what the search found."
    found = []
    with served(site) as base, chromium() as driver:
        for i, name in enumerate(names or sorted(read(site))):
            found += look(driver, base, name)
            if progress: progress(i + 1, name)
        hits = search(driver, base, words)
        found += heard(driver, base, f'search for {words!r}')
        if not hits: found.append(f'the search finds nothing for {words!r}')
        elif hits:
            driver.get(hits[0][1])
            if words.split()[0] not in driver.find_element('tag name', 'body').text.lower(): found.append(f'{hits[0][1]} was found for {words!r} and does not have the words')
            found += heard(driver, base, hits[0][1])
    return found, hits


def main(site: Path) -> int:
    found = problems_in_files(site)
    pages = sorted(read(site))
    print(f'{len(pages)} pages, {sum(len(p.links) for p in read(site).values())} links; problems in files: {len(found)}')
    if pages:
        step = lambda n, name: print(f'\r{n}/{len(pages)} {name:60.60}', end='', flush=True) if sys.stdout.isatty() else None
        more, hits = problems_in_browser(site, pages, progress=step)
        found += more
        print(f"\rChromium: {len(pages)} pages, problems: {len(more)}; 'cross attention' is found in {len(hits)} pages: {', '.join(t for t, _ in hits[:5])}")
    print(*found, sep='\n')
    return int(bool(found))


if __name__ == '__main__':
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else '_docs')))
