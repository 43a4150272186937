"""A million rows: written, read, cleaned, split, summarised, and written again, beside `pandas.read_csv` of the same file.

    python benchmarks/cleaning.py             # 1,000,000 rows; writes benchmarks/cleaning.json and cleaning.md
    python benchmarks/cleaning.py 100000

The rows are made up, and as untidy as real ones: stray blanks, entities, wrong encodings, dates in words, missing genres, albums that
are there twice under two ids, once as an edition. Seconds of one machine say little about another, so every step
is also given as a multiple of the reference.
"""
import json
import os
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).resolve().parent
os.environ['IN_TEST'] = '1'  # no progress bars
LIMIT_GB = 4.0


def untidy(n: int, seed: int = 0) -> pd.DataFrame:
    "n made-up rows: two songs an album, four albums an artist, one album in twenty there twice."
    rng = np.random.default_rng(seed)
    song = np.arange(n)
    album = song//2
    double = (album % 20 == 19)  # the album before it, once more, as an edition
    shown = np.where(double, album - 1, album)
    pick = lambda words: np.array(words, dtype=object)[rng.integers(len(words), size=n)]
    text = lambda values: pd.Series(values, dtype='str')
    title = text([f'Album number {a}' for a in shown]).where(~pd.Series(double), text([f'Album number {a} (Deluxe Edition)' for a in shown]))
    odd = rng.random(n)
    words = text([f'Song {s % 2} of {a}' for s, a in zip(song, shown)])
    words = words.where(odd > .05, words + '  ').where(odd > .03, words + ' &amp; more').where(odd > .01, 'BjÃ¶rk ' + words)
    year = rng.integers(1980, 2025, n//8 + 1)[song//8]
    return pd.DataFrame(dict(
        album_id=text([f'a{a:07d}' for a in album]), song_id=text([f's{s:07d}' for s in song]), artist=text([f'Artist {a//4}' for a in album]), album=title, song=words,
        genre='', year=text(np.where(odd < .1, np.char.add('5 May ', year.astype(str)), year.astype(str))), audio='', cover='',
        genres=text(pick(['dance pop, pop', 'album rock, rock, classic rock', 'hip hop, rap', 'art pop, electropop', '', 'indie rock, indie pop', 'death metal', 'jazz funk', 'country road, country'])),
        genres_itunes=text(pick(['', 'Pop', 'Hip-Hop/Rap', 'Alternative'])), popularity=text(rng.integers(0, 101, n).astype(str)))).astype({c: 'str' for c in ('genre', 'audio', 'cover')})


def run(n: int) -> dict:
    "Seconds of every step, and the most memory that was held."
    from album_gan.data.card import summarise
    from album_gan.data.cleaning import clean_albums, clean_folder, mend_years
    from album_gan.data.folder import read_albums
    from album_gan.data.splits import leakage_report, stratified_split
    steps, used = {}, lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e6  # kilobytes on Linux

    def timed(name, what):
        start, cpu = time.perf_counter(), time.process_time()
        out = what()
        steps[name] = dict(seconds=time.perf_counter() - start, cpu_seconds=time.process_time() - cpu, peak_gb=used())
        print(f"{name}: {steps[name]['seconds']:.1f} s ({steps[name]['cpu_seconds']:.1f} s of processor), {n/steps[name]['cpu_seconds']:,.0f} rows per second of processor, peak {used():.2f} GB", flush=True)
        return out

    with tempfile.TemporaryDirectory() as tmp:
        raw = Path(tmp)/'raw'
        raw.mkdir()
        untidy(n).to_csv(raw/'albums.csv', index=False)
        timed('reference: pandas.read_csv', lambda: pd.read_csv(raw/'albums.csv'))
        timed('whole: clean_folder, raw folder to clean folder with CSV, JSON, changes and card', lambda: clean_folder(raw, Path(tmp)/'clean', media='none') and None)
        table = timed('read the raw folder', lambda: read_albums(raw, mend_years))
        clean, changes = timed('clean (names, dates, doubles, genres, split)', lambda: clean_albums(table))
        del table
        split = timed('split by artist and genre', lambda: stratified_split(clean))
        leaks = timed('report what leaks', lambda: leakage_report(clean, split))
        summary = timed('summarise', lambda: summarise(clean))
        assert leaks.shared['artist'] == 0 and len(clean) < n and summary['rows'] == len(clean)
        kept, changed = len(clean), len(changes)
    return dict(rows=n, kept=kept, changes=changed, peak_gb=used(), limit_gb=LIMIT_GB, steps=steps)


def markdown(r: dict) -> str:
    "The result as a page."
    base = r['steps']['reference: pandas.read_csv']['cpu_seconds']
    lines = [f"# Cleaning {r['rows']:,} rows", '', f"Made by `python benchmarks/cleaning.py` on {r['machine']}. {r['rows']:,} made-up rows, {r['kept']:,} kept, {r['changes']:,} changes logged; "
             f"the most memory held was {r['peak_gb']:.2f} GB (limit {r['limit_gb']:g} GB). Rows per second count processor time, because the machine was shared.", '', '| step | rows per second | times `read_csv` |', '|---|---|---|']
    lines += [f"| {name} | {r['rows']/s['cpu_seconds']:,.0f} | {s['cpu_seconds']/base:.1f} |" for name, s in r['steps'].items()]
    return '\n'.join(lines) + '\n'


if __name__ == '__main__':
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    result = run(n)
    result['machine'] = f'{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, pandas {pd.__version__}'
    print(f"peak {result['peak_gb']:.2f} GB")
    if n == 1_000_000:
        (HERE/'cleaning.json').write_text(json.dumps(result, indent=1) + '\n')
        (HERE/'cleaning.md').write_text(markdown(result))
    sys.exit(result['peak_gb'] >= LIMIT_GB)
