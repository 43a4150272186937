"""A real browser against pages on the loopback: several tabs, crashes, and nothing left behind."""
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from album_gan.data.core import AlbumGanError
from album_gan.data.ledger import Ledger
from album_gan.data.politeness import ServiceError
from album_gan.data.youtube import Browser, find_browser, found_videos, initial_data, views_source
from results_pages import serve

try: find_browser()
except AlbumGanError as e: pytestmark = pytest.mark.skip(reason=str(e))


def processes(profile: str) -> list[psutil.Process]:
    """Running processes that name a profile folder."""
    found = []
    for p in psutil.process_iter():
        try:
            if p.status() != psutil.STATUS_ZOMBIE and any(profile in a for a in p.cmdline()): found.append(p)
        except psutil.Error: pass
    return found


def first_video(html: str) -> str: return found_videos(initial_data(html))[0]['id']


def test_tabs_crashes_and_a_dead_browser():
    with serve(0.15) as server, Browser(tabs=4) as browser, ThreadPoolExecutor(4) as pool:
        load = lambda names: [first_video(h) for h in pool.map(lambda n: browser.page(server.address + n), names)]
        names = [f'song{i}' for i in range(12)]
        assert load(names) == names
        assert server.most == 4, 'four tabs wait at once'

        with pytest.raises(ServiceError, match='crashes'): browser.page('chrome://crash')
        assert browser.replaced == 3 and browser.restarts == 0 # the page was tried again in fresh tabs
        assert load(names[:4]) == names[:4]

        def shoot(kind):
            time.sleep(0.3)
            for p in processes(browser._profile):
                try:
                    if f'--type={kind}' in p.cmdline() if kind else not any(a.startswith('--type=') for a in p.cmdline()): p.kill()
                except psutil.Error: pass
        for kind, words in (('renderer', 'tab'), ('', 'browser')):
            threading.Thread(target=shoot, args=(kind,)).start()
            names = [f'{words}{i}' for i in range(8)]
            assert load(names) == names, f'pages are right although every {words} was killed on the way'
        assert browser.restarts >= 1
        profile, driver = browser._profile, browser._service.process.pid
    assert processes(profile) == [] and not psutil.pid_exists(driver) and not Path(profile).exists()


def test_nothing_is_left_after_a_failure():
    with serve() as server:
        with pytest.raises(RuntimeError, match='ours'):
            with Browser(tabs=2) as browser:
                browser.page(server.address + 'song')
                profile, driver = browser._profile, browser._service.process.pid
                raise RuntimeError('ours')
    assert processes(profile) == [] and not psutil.pid_exists(driver)


SCRIPT = """
import sys
from concurrent.futures import ThreadPoolExecutor
from album_gan.data.ledger import Ledger
from album_gan.data.youtube import Browser, views_by_browser
with Browser(tabs=2, timeout=120) as browser, Ledger(sys.argv[2]) as ledger:
    browser.page(sys.argv[1] + 'first')
    print(browser._profile, flush=True)
    units = [(w, dict(artist='x', song=w)) for w in ('fast', 'slow1', 'slow2', 'slow3')]
    ledger.run('youtube', units, lambda w: views_by_browser(browser.page, w, sys.argv[1]), threads=2)
"""


def test_ctrl_c_leaves_nothing_and_loses_nothing(tmp_path):
    with serve(never=tuple(f'x slow{i}' for i in (1, 2, 3))) as server:
        run = subprocess.Popen([sys.executable, '-c', SCRIPT, server.address, str(tmp_path/'ledger.sqlite')], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env={**os.environ, 'PYTHONPATH': str(Path(__file__).parents[1])})
        profile = run.stdout.readline().strip()
        assert profile and processes(profile)
        until = time.monotonic() + 120
        with Ledger(tmp_path/'ledger.sqlite') as ledger:
            while not (any('slow' in w for w in server.seen) and ledger.result('youtube', 'fast')) and time.monotonic() < until: time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=20)
        assert run.returncode != 0 and 'KeyboardInterrupt' in err
        assert processes(profile) == []
        with Ledger(tmp_path/'ledger.sqlite') as ledger: # what was done is done, and is not asked again
            assert (ledger.result('youtube', 'fast') or {}).get('video_id') == 'x fast', list(ledger.errors())
            asked = len(server.seen)
            ledger.run('youtube', [('fast', dict(artist='x', song='fast'))], lambda w: pytest.fail('asked again'))
            assert len(server.seen) == asked


def test_a_page_that_never_comes_is_an_error():
    with serve(never=('slow',)) as server, Browser(tabs=1, timeout=1.0) as browser:
        with pytest.raises(ServiceError, match='within 1 s') as e: browser.page(server.address + 'slow')
        assert e.value.kind == 'timeout'
        assert first_video(browser.page(server.address + 'song')) == 'song'
        with pytest.raises(ServiceError) as e: browser.page('http://127.0.0.1:1/results?search_query=x')
        assert e.value.kind == 'connection'


def test_a_machine_without_chromium_says_so(monkeypatch):
    monkeypatch.setenv('ALBUM_GAN_CHROMIUM', '/nowhere/chromium')
    monkeypatch.delenv('YOUTUBE_API_KEY', raising=False)
    with pytest.raises(AlbumGanError, match='install them .* or set YOUTUBE_API_KEY'):
        with views_source(None): pass
