"""A studio without a model, for tests of the page: it refuses what a studio refuses, and paints sleeves of the demo world by seed and title."""
import dataclasses
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from album_gan.data.covers import cover_image, random_sleeve
from album_gan.data.music import read_tags
from album_gan.data.sound import read_window
from album_gan.studio.delivery import enlarge, save_picture
from album_gan.studio.typography import set_type


@dataclass(frozen=True)
class Song:
    path: str
    title: str
    artist: str
    genre: str
    heard: object = None
    notes: tuple = ()
    def replace(self, **new): return dataclasses.replace(self, **new)


@dataclass(frozen=True)
class Candidate:
    number: int
    seed: int
    art: Image.Image
    nearest: object = None
    warning: str = ""


@dataclass(frozen=True)
class Generation:
    song: Song
    candidates: list
    off: list
    settings: dict


@dataclass(frozen=True)
class Cover:
    plain: Image.Image
    typed: Image.Image
    layout: str
    style: str
    contrast: float
    about: dict
    notes: list = field(default_factory=list)
    def save(self, path, typed=True): return save_picture(self.typed if typed else self.plain, path, self.about)
    def report(self): return f"Seed {self.about['seed']}, for “{self.about['title']}”."


@dataclass
class StandIn:
    pause: float = 0.05 # seconds a step
    name, model_hash, resolution, synthetic = "stand-in", "0"*12, 64, True
    defaults = SimpleNamespace(guidance_text=2.0, guidance_music=2.0, num_inference_steps=4) # as a `Painting` has them, without torch

    def listen(self, path, title="", artist="", genre="", report=True):
        window, tags = read_window(path, least=3.0), read_tags(path)
        return Song(str(path), title or tags["title"] or Path(path).stem, artist or tags["artist"], genre or tags["genre"], notes=window.notes)

    def generate(self, song, n=4, seed=0, guidance_text=None, guidance_music=None, steps=None, music_off=True, progress=None):
        for i in range(steps or 4):
            time.sleep(self.pause)
            if progress: progress(i + 1, steps or 4)
        def draw(s): return cover_image(random_sleeve(np.random.default_rng([s, zlib.crc32(song.title.encode())])))
        arts = [Candidate(i + 1, seed + i, draw(seed + i)) for i in range(n)]
        return Generation(song, arts, [c.art.convert("L").convert("RGB") for c in arts] if music_off else [], dict(seed=seed))

    def finish(self, candidate, song, layout="auto", style="auto", size=3000, title=None, artist=None, settings=None):
        plain, note = enlarge(candidate.art, style, size)
        done = set_type(plain, title, artist, layout)
        return Cover(plain, done.image, done.layout, style, done.contrast, dict(title=title, artist=artist, seed=candidate.seed), [note, *done.notes])
