"""Splits: artists on one side, stable when rows are added, and a report that finds what leaks."""
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from album_gan.data.core import AlbumGanError
from album_gan.data.splits import artist_keys, leakage_report, read_ids, reference_split, stratified_split

ROWS = st.lists(st.tuples(st.sampled_from(['', 'Björk', ' BJÖRK', 'Björk feat. X', 'Y', 'AC/DC', '1984', '÷', 'Various Artists']), st.sampled_from(['', 'Rock', 'Pop', 'Jazz']), st.integers(0, 5)), max_size=20)


def table(rows, start=0):
    return pd.DataFrame([(f'a{start + i if n else n}', f's{start + i}', artist, 'T', '', genre) for i, (artist, genre, n) in enumerate(rows)],
                        columns=['album_id', 'song_id', 'artist', 'album', 'song', 'genre']).astype('str')


@given(ROWS, ROWS, st.floats(0, 1), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_disjoint_and_stable(rows, more, share, seed):
    df = table(rows)
    split = stratified_split(df, share, seed)
    assert set(split) <= {'train', 'test'} and split.index.equals(df.index)
    assert pd.Series(split.to_numpy()).groupby(artist_keys(df).to_numpy()).nunique().le(1).all()
    shuffled = df.sample(frac=1, random_state=seed)
    assert stratified_split(shuffled, share, seed).sort_index().equals(split), 'the order of rows does not matter'
    grown = pd.concat([df, table(more, 100)], ignore_index=True)
    later = stratified_split(grown, share, seed, known=split)
    assert later[:len(df)].tolist() == split.tolist(), 'rows that come later move nobody'
    assert pd.Series(later.to_numpy()).groupby(artist_keys(grown).to_numpy()).nunique().le(1).all()
    if len(df) and 0 < share < 1: assert not leakage_report(df, split).shared[['artist', 'artist and album', 'artist and song']].any()


def test_genres_are_held_out_alike():
    rng = np.random.default_rng(0)
    df = table([(f'Artist {a}', g, 1) for a, g in zip(rng.integers(0, 700, 2000), rng.choice(['Rock', 'Pop', 'Jazz', 'Blues'], 2000, p=[.6, .3, .07, .03]))])
    df['genre'] = df.groupby('artist').genre.transform('first')
    shares = [stratified_split(df, .25, seed).eq('test').groupby(df.genre).mean() for seed in range(5)]
    assert (pd.concat(shares, axis=1) - .25).abs().max().max() < .06
    lone = [stratified_split(table([('A', 'Jazz', 1)] + [(f'B{i}', 'Rock', 1) for i in range(8)]), .25, seed)[0] for seed in range(100)]
    assert .12 < np.mean([s == 'test' for s in lone]) < .4, 'a genre with one artist is held out as often as the others'


def test_reference_split(tmp_path):
    df = table([('X', '', 1), ('X', '', 1), ('Y', '', 1)])
    (tmp_path/'train.csv').write_text('album_id,album\na0,"with, comma"\na1,b\n')
    (tmp_path/'test.txt').write_text('a2\n')
    assert reference_split(df, tmp_path/'train.csv', tmp_path/'test.txt').tolist() == ['train', 'train', 'test']
    for train, test, what in ((['a0'], ['a0'], 'both lists'), (['zz'], ['yy'], 'No row'), (['a0'], ['s0'], 'Song s0')):
        with pytest.raises(AlbumGanError, match=what): reference_split(df, train, test)
    (tmp_path/'bad.csv').write_text('x,y\n1,2\n')
    with pytest.raises(AlbumGanError, match='bad.csv'): read_ids(tmp_path/'bad.csv')


def test_leaks_are_found(tmp_path):
    rng = np.random.default_rng(0)
    for d in ('audio', 'covers'): (tmp_path/d).mkdir()
    picture = Image.fromarray(np.kron(rng.integers(0, 255, (8, 8, 3)), np.ones((16, 16, 1))).astype(np.uint8))
    other = Image.fromarray(np.kron(rng.integers(0, 255, (8, 8, 3)), np.ones((16, 16, 1))).astype(np.uint8))
    picture.save(tmp_path/'covers/a.png'); picture.resize((90, 90)).save(tmp_path/'covers/b.jpg'); other.save(tmp_path/'covers/c.png')
    for name, data in (('a', b'same'), ('b', b'other'), ('c', b'same')): (tmp_path/f'audio/{name}.ogg').write_bytes(data)
    df = table([('X', '', 1), ('Y', '', 1), ('x ', '', 1)]).assign(audio=['audio/a.ogg', 'audio/b.ogg', 'audio/c.ogg'], cover=['covers/a.png', 'covers/b.jpg', 'covers/c.png'], song='S')
    report = leakage_report(df, pd.Series(['train', 'test', 'test']), tmp_path)
    assert report.test_rows.to_dict() == {'artist': 1, 'album id': 0, 'artist and album': 1, 'artist and song': 1, 'sound file': 1, 'cover file': 0, 'cover, to the eye': 1}
    with pytest.raises(AlbumGanError, match='no row'): leakage_report(df, pd.Series(['', '', '']))
