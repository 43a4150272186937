"""A demo world without sound files, models or a disk: albums whose covers are drawn when asked for, and painters who cheat."""
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from torch import nn

from album_gan.data import covers as drawn
from album_gan.data.core import AlbumGanError
from album_gan.experiments.prepare import Prepared

FACTORS = list(drawn.FACTORS)


class Eyes(nn.Module):
    "A stand-in for the packaged network: average colours of an 8 x 8 grid."
    num_features, name = 192, 'average colours of an 8 x 8 grid'

    def forward(self, x): return nn.functional.adaptive_avg_pool2d(x.float()/255, 8).flatten(1)


def draw(genre, motif, factors, seed):
    sleeve = drawn.Sleeve(genre, motif, **{f: float(factors[f]) for f in FACTORS}, seed=int(seed))
    return np.asarray(drawn.cover_image(sleeve))


class DrawnWorld(Prepared):
    "`Prepared`, with everything made up; the guard before the test split is the real one."

    def __init__(self, n=120, test=0.5, seed=0):
        rng = np.random.default_rng(seed)
        self.table = pd.DataFrame({f: rng.random(n) for f in FACTORS}).assign(genre=rng.choice(drawn.GENRES, n), motif=rng.choice(drawn.MOTIFS, n))
        self.rows = pd.DataFrame(dict(album_id=[f'demo0-{i:06d}' for i in range(n)], song_id=[f's{i}' for i in range(n)], artist=[f'artist {i//2}' for i in range(n)],
                                      genre=self.table.genre, prompt='', has_cover=True, split=np.where(np.arange(n) < n*(1 - test), 'train', 'test')))
        self.embedding = torch.tensor(np.stack([np.cos(2*np.pi*self.table.hue), np.sin(2*np.pi*self.table.hue), *(self.table[f] for f in FACTORS[1:])], 1)).float()
        self.info, self.shapes = dict(seconds=25.0, position=.5, synthetic=True), dict(music=(2, self.embedding.shape[1]))

    def batch(self, indices, columns=('music',)):
        self._allow(indices)
        return {'music': self.embedding[torch.as_tensor(np.asarray(indices, dtype=int))][:, None].repeat(1, 2, 1)}

    def factors(self, indices):
        self._allow(indices)
        return self.table.iloc[np.asarray(indices, dtype=int)]

    def covers(self, indices, size=64):
        self._allow(indices)
        return np.stack([draw(r.genre, r.motif, r._asdict(), i) for i, r in zip(indices, self.table.iloc[np.asarray(indices, dtype=int)].itertuples())])

    def sounds(self):
        "What signal processing would find: the factors, mixed, with noise."
        rng = np.random.default_rng(5)
        mixed = self.embedding.numpy() @ rng.standard_normal((self.embedding.shape[1], 22))
        return (mixed + .1*rng.standard_normal(mixed.shape)).astype(np.float32)


def heard(world, music):
    "The factors that a song asks for, read off its embedding."
    x = music.mean(1).numpy()
    return pd.DataFrame({'hue': np.arctan2(x[:, 1], x[:, 0])/(2*np.pi) % 1, **{f: x[:, 2 + i] for i, f in enumerate(FACTORS[1:])}}).clip(0, 1)


def honest(world):
    "Emblem and pattern from the text, colours from the song, with a shaky hand."
    rng = np.random.default_rng(1)

    def paint(rows, music):
        asked = pd.DataFrame(rng.random((len(rows), 4)), columns=FACTORS) if music is None else (heard(world, music) + .05*rng.standard_normal((len(rows), 4))).clip(0, 1)
        return np.stack([draw(t.genre, t.motif, asked.iloc[i], 10_000 + r) for i, (r, t) in enumerate(zip(rows, world.table.iloc[rows].itertuples()))])
    return paint


def deaf(world):
    "Ignores the music."
    paint = honest(world)
    return lambda rows, music: paint(rows, None)


def memoriser(world):
    "Knows the training covers by heart and hands out the one whose song is nearest."
    train = world.pick('train')
    known, covers = world.batch(train)['music'].flatten(1), world.covers(train)
    return lambda rows, music: covers[torch.cdist(music.flatten(1), known).argmin(1).numpy() if music is not None else np.arange(len(rows)) % len(train)]


def text_copier(world):
    "Makes colours out of the text's factors: each emblem has its own."
    def paint(rows, music):
        return np.stack([draw(t.genre, t.motif, dict(hue=drawn.MOTIFS.index(t.motif)/len(drawn.MOTIFS), lightness=drawn.GENRES.index(t.genre)/len(drawn.GENRES), density=.5, saturation=.8), 20_000 + r)
                         for r, t in zip(rows, world.table.iloc[rows].itertuples())])
    return paint
