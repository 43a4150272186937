"""What the studio takes and how well type can be read: `python benchmarks/studio.py` (minutes; needs the shared folder of real music for its first table).

Writes benchmarks/studio.json and studio.md: seconds a song for the first song of each album, and the contrast of set type on 200 painted covers."""
import json, platform, re, sys, time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

HERE = Path(__file__).parent
TITLES = ["M", "1984", "Moon", "Paper Engines", "The Silver Moon of Lisbon", "Ünïcode 🎵 ÷ AC∕DC – 音楽", "夜の音楽、東京でひとり", "أغاني الليل (1984)", "שירים ללילה", "Ночной город в огнях", "Łódź & Đà Nẵng", "❤️ 🎵",
          "रात के गीत", "밤의 노래", "Songs for a long drive home that nobody has asked for, with strings and regrets!", "W"*80]

def songs():
    import pandas as pd
    from album_gan.data.core import shared_dir
    if shared_dir() is None: return []
    table = pd.read_csv(shared_dir()/"library"/"tracks.csv", dtype=str, keep_default_na=False)
    return [(r.title, r.artist, shared_dir()/"library"/r.path) for r in table.groupby("album_id", sort=False).head(1).itertuples()]

def main():
    from album_gan.studio.delivery import STYLES, enlarge
    from album_gan.studio.generate import load_studio
    from album_gan.studio.typography import LAYOUTS, NEEDED, set_type
    start = time.perf_counter()
    studio = load_studio()
    loaded, rows, size = time.perf_counter() - start, [], int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    with TemporaryDirectory() as folder:
        for i, (title, artist, path) in enumerate(songs()):
            start, cpu = time.perf_counter(), time.process_time()
            song = studio.listen(path)
            cover = studio.finish(studio.generate(song, n=1, music_off=False).candidates[0], song, size=size)
            file = cover.save(Path(folder)/f"{i}.png")
            rows.append(dict(song=path.stem, title=song.title, layout=cover.layout, contrast=round(cover.contrast, 2), seconds=round(time.perf_counter() - start, 1), cpu_seconds=round(time.process_time() - cpu, 1), mb=round(file.stat().st_size/1e6, 2)))
            print(rows[-1], flush=True)
            file.unlink()
    from album_gan.data.demo import demo_album
    from album_gan.data.sound import write_sound
    from album_gan.data.synth import render_song
    seen, arts = [], []
    with TemporaryDirectory() as folder:
        for k in range(10):
            album = demo_album(5000 + k)
            write_sound(Path(folder)/"s.flac", render_song(album.music, album.song_seed, 25.0, 22050), 22050)
            song = studio.listen(Path(folder)/"s.flac", album.title, album.artist, album.sleeve.genre, report=False)
            arts += [c for c in studio.generate(song, n=20, seed=100*k, steps=10, music_off=False).candidates]
    for i, c in enumerate(arts):
        layout, style, title = ["auto", *LAYOUTS][i % (len(LAYOUTS) + 1)], list(STYLES)[(i//3) % len(STYLES)], TITLES[i % len(TITLES)]
        done = set_type(enlarge(c.art, style, 480)[0], title, "The Hollow Tides", layout)
        seen.append(dict(layout=done.layout, style=style, title=title, contrast=round(done.contrast, 2), nearest=c.nearest.similarity, copied=c.nearest.copied))
    contrast = np.array([s["contrast"] for s in seen])
    out = dict(model=studio.name, model_hash=studio.model_hash, cpu=platform.processor() or platform.machine(), load_seconds=round(loaded, 1), size=size, songs=rows, contrast=dict(covers=len(seen), needed=NEEDED, least=float(contrast.min()), median=float(np.median(contrast)), below=int((contrast < NEEDED).sum())),
               copies=dict(threshold=studio.index.threshold, most=max(s["nearest"] for s in seen), warned=sum(s["copied"] for s in seen), caught=studio.index.caught, alarms=studio.index.alarms))
    (HERE/"studio.json").write_text(json.dumps(out | {"set": seen}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    seconds, cpu = np.array([r["seconds"] for r in rows] or [np.nan]), np.array([r["cpu_seconds"] for r in rows] or [np.nan])
    lines = ["# The studio", "", f"Made by `benchmarks/studio.py`. Model: {out['model']} ({out['model_hash']}).", "",
             "| what | measured |", "|---|---|",
             f"| songs of the shared library, first of each album | {len(rows)} |",
             f"| seconds a song once loaded, {size} x {size}, with type, saved as PNG: median / most | {np.median(seconds):.1f} / {seconds.max():.1f} |",
             f"| of which this process computed: median / most | {np.median(cpu):.1f} / {cpu.max():.1f} |",
             f"| type set on painted covers | {len(seen)}, in {len(LAYOUTS)} layouts, titles of 1 to 80 characters |",
             f"| contrast: least / median | {contrast.min():.2f} / {np.median(contrast):.2f} |",
             f"| below {NEEDED} | {int((contrast < NEEDED).sum())} |",
             f"| most similar training cover of any of them | {out['copies']['most']:.2f}, a copy from {studio.index.threshold:.2f} on; {out['copies']['warned']} warnings |",
             f"| planted copies found / other covers taken for copies | {studio.index.caught:.0%} / {studio.index.alarms:.1%} |", ""]
    (HERE/"studio.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))

if __name__ == "__main__": main()
