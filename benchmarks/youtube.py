"""How much faster four tabs are than one, on a server that takes 300 ms to answer each page.

    python benchmarks/youtube.py            # 200 pages over one tab, then over four; a few minutes
    python benchmarks/youtube.py --pages 40

Chromium and chromedriver are needed. The pages are in the form of YouTube's results pages and come from the loopback.
Writes benchmarks/youtube.json and benchmarks/youtube.md.
"""
import argparse
import json
import platform
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]/'tests'))

from album_gan.data.youtube import Browser, find_browser, found_videos, initial_data
from results_pages import serve

LATENCY, TABS = 0.3, 4


def seconds(address: str, pages: int, tabs: int) -> tuple[float, int]:
    """Wall time of `pages` pages over some tabs, without the browser's start, and how many were right."""
    with Browser(tabs=tabs) as browser, ThreadPoolExecutor(tabs) as pool:
        list(pool.map(lambda i: browser.page(f'{address}warm{i}'), range(2*tabs)))
        start = time.perf_counter()
        html = list(pool.map(lambda i: browser.page(f'{address}song{i}'), range(pages)))
        took = time.perf_counter() - start
    right = sum(found_videos(initial_data(h))[0]['id'] == f'song{i}' for i, h in enumerate(html))
    return took, right


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument('--pages', type=int, default=200)
    pages = options.parse_args().pages
    find_browser()
    with serve(LATENCY) as server:
        one, right_one = seconds(server.address, pages, 1)
        four, right_four = seconds(server.address, pages, TABS)
    result = dict(pages=pages, latency_s=LATENCY, one_tab_s=round(one, 1), four_tabs_s=round(four, 1), speed_up=round(one/four, 2), right=right_one + right_four, asked=2*pages,
                  most_at_once=server.most, machine=f'{platform.machine()}, {platform.python_version()}', time=datetime.now(timezone.utc).isoformat(timespec='seconds'))
    here = Path(__file__).parent
    (here/'youtube.json').write_text(json.dumps(result, indent=1) + '\n', encoding='utf-8')
    lines = ['# Reading view counts with several tabs', '', f'{pages} results pages from a server on the loopback that takes {LATENCY*1000:.0f} ms for each. Made by `python benchmarks/youtube.py`.', '',
             '| tabs | seconds | pages a second |', '|---|---|---|', f'| 1 | {one:.1f} | {pages/one:.2f} |', f'| {TABS} | {four:.1f} | {pages/four:.2f} |', '', f'{TABS} tabs are {one/four:.2f} times as fast as one; {right_one + right_four} of {2*pages} pages were read right.']
    (here/'youtube.md').write_text('\n'.join(lines) + '\n', encoding='utf-8')
    print('\n'.join(lines[4:]))


if __name__ == '__main__': main()
