"""The pictures of a data set: they count what is there, describe themselves, and say what they lack."""
import subprocess
import sys
from pathlib import Path

import matplotlib
matplotlib.use('Agg')
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from album_gan.data.card import genre_counts
from album_gan.data.core import AlbumGanError
from album_gan.data.folder import write_albums
from album_gan.experiments import album_plots as plots
from album_gan.experiments.plots import save_figure

ROOT = Path(__file__).resolve().parent.parent
SAID = dict(source='a test', licence='CC0-1.0')


def albums(n=60, **more):
    rng = np.random.default_rng(0)
    return pd.DataFrame({**dict(album_id=[f'a{i}' for i in range(n)], song_id=[f's{i}' for i in range(n)], artist=[f'Artist {i//3} $' for i in range(n)], album=[f'T{i}' for i in range(n)], song='',
                                genre=rng.choice(['dance pop', 'art rock', 'cool jazz', ''], n), year=rng.integers(1980, 2020, n), audio='', cover='', popularity=rng.integers(0, 101, n).astype(str),
                                emotions=rng.choice(['Joy, Calm', 'Anger', ''], n), emotion_status=''), **more})


@pytest.fixture
def done(tmp_path, monkeypatch):
    monkeypatch.setenv('ALBUM_GAN_DATA', str(tmp_path/'data'))
    (tmp_path/'raw/covers').mkdir(parents=True)
    for i in range(6): Image.new('RGB', (40, 40), ['red', 'teal', 'black', 'white', 'gold', 'navy'][i]).save(tmp_path/f'raw/covers/a{i}.jpg')
    write_albums(tmp_path/'raw', albums(cover=[f'covers/a{i}.jpg' if i < 7 else '' for i in range(60)]), SAID) # a6 is not there
    return plots.open_clean(tmp_path/'raw')[1]


def test_every_figure_says_what_it_shows(done, tmp_path):
    t = done.table
    features = pd.DataFrame(dict(tempo=np.linspace(80, 160, len(t)), brightness=np.linspace(500, 4000, len(t)), loudness=-20.0))
    palettes = plots.cover_palettes(done.out, t)
    figures = dict(genres=plots.genre_overview(genre_counts(t)), years=plots.genres_by_year(t), popularity=plots.popularity_distribution(t), emotions=plots.emotions_by_genre(t), colours=plots.palette_strips(palettes),
                   sheet=plots.contact_sheet(done.out, t, next(iter(palettes))), sound=plots.features_by_genre(t, features), missing=plots.missingness(t), artists=plots.artist_concentration(t))
    for name, figure in figures.items():
        assert len(figure.alt) > 40 and '\n' not in figure.alt, name
        save_figure(figure, tmp_path/f'{name}.png', figure.alt)
        with Image.open(tmp_path/f'{name}.png') as im: im.load(); assert im.info['Description'] == figure.alt
    assert all(f'{g} {n}' in figures['genres'].alt for g, n in genre_counts(t).items())
    assert sum(n for _, _, n in palettes.values()) == ((t.cover != '') & (t.genre != 'unknown')).sum() and (t.cover != '').sum() == 6


def test_pie_and_bars_count_the_same():
    counts = pd.Series(dict(Rock=2086, Pop=1309, Jazz=52, Metal=1))
    figure = plots.genre_overview(counts)
    pie, bars = figure.axes
    assert [round((w.theta2 - w.theta1)/360*counts.sum()) % counts.sum() for w in pie.patches] in ([2086, 1309, 52, 1], [-2086 % 3448, -1309 % 3448, -52 % 3448, -1 % 3448])
    assert [int(b.get_width()) for b in bars.patches] == counts.tolist() and [t.get_text() for t in bars.get_yticklabels()] == list(counts.index)


def test_what_is_not_there_is_said():
    bare = albums(genre='', emotions='', popularity='', year=None).astype({'year': 'Int64'})
    for draw in (plots.genres_by_year, plots.popularity_distribution, plots.emotions_by_genre, lambda t: plots.features_by_genre(t, pd.DataFrame(dict(tempo=[np.nan]*60, brightness=np.nan, loudness=np.nan))),
                 lambda t: plots.palette_strips(plots.cover_palettes('.', t)), lambda t: plots.contact_sheet('.', t, 'Rock'), lambda t: plots.artist_concentration(t.assign(artist='')), lambda t: plots.genre_overview(genre_counts(t[:0]))):
        with pytest.raises(AlbumGanError) as e: draw(bare)
        assert str(e.value).endswith('.')
    assert 'all missing' not in plots.missingness(bare).alt


def test_published_tables_are_albums(tmp_path, monkeypatch):
    monkeypatch.setenv('ALBUM_GAN_DATA', str(tmp_path/'data'))
    head = 'album_id,album_name,artist,song_id,song_name,genres,genres_list,singular_genre,top_emotions\n'
    (tmp_path/'train.csv').write_text(head + 'a,1984,X,s,Y,"rock","[\'rock\']",Metal,Joy\nb,1984,X,t,Y,"rock","[\'rock\']",Rock,Emotions unable to be determined\n')
    (tmp_path/'test.csv').write_text(head + 'c,÷,Z,u,W,"pop","[\'pop\']",Folk,"Joy, Awe"\n')
    done = plots.open_clean(f"{tmp_path/'train.csv'},{tmp_path/'test.csv'}")[1]
    assert genre_counts(done.table).to_dict() == {'Folk': 1, 'Metal': 1, 'Rock': 1} and done.table.split.tolist() == ['train', 'train', 'test']
    with pytest.raises(AlbumGanError, match='name one, or two'): plots.open_clean('a.csv,b.csv,c.csv')
