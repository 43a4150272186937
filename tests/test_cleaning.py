"""Cleaning: whatever is in a table, either one sentence or a clean table, that a second pass leaves as it is."""
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st
from PIL import Image

from album_gan.data.card import dataset_card, genre_counts, summarise, write_card
from album_gan.data.cleaning import clean_albums, clean_folder, clean_text, find_albums, folder_from_published, main, parse_date, plain_title, read_published
from album_gan.data.core import AlbumGanError, shared_dir
from album_gan.data.folder import COLUMNS, check_albums, read_albums, read_provenance, write_albums
from album_gan.data.genres import MAIN_GENRES, UNKNOWN
from album_gan.data.sound import write_sound
from album_gan.data.splits import artist_keys

SAID = dict(source='a test', licence='CC0-1.0')
SEED = shared_dir() and shared_dir()/'metadata'/'albums_seed_train.csv'
NAMES = st.one_of(st.text(st.characters(exclude_categories=['Cs'], exclude_characters='\0'), max_size=10),
                  st.sampled_from(['1984', '÷', 'AC/DC', 'NA', 'nan', ' padded ', 'BjÃ¶rk', 'Björk', 'Bjo\u0308rk', 'Simon &amp; Garfunkel', '&amp;amp;lt;', 'Debut', 'debut (Deluxe Edition)', 'Debut [2011 Remaster]',
                                   'Debut - Remastered', '(Deluxe)', 'two\r\nlines', 'Donâ€™t', 'Ã', '\ufeff', '\u2028', 'ﬁ', '\u200b', 'Unknown Artist', '₿', 'A (Live)', 'क़']))
YEARS = st.one_of(st.none(), st.integers(-5, 10_000), st.sampled_from(['', '1999', '1999-05-01', 'May 5, 1999', '(P) 1999', '1998/1999', 'soon', '1999.0', 1999.0, float('nan'), '٣', '0', '99999999999999999999', 'Ⅷ', '²']), st.text(max_size=8))


@st.composite
def tables(draw):
    n = draw(st.integers(0, 6))
    column = lambda s: draw(st.lists(s, min_size=n, max_size=n))
    ids = column(st.sampled_from(['a', 'b', 'c']))
    artist, album = {i: draw(NAMES) for i in 'abc'}, {i: draw(NAMES) for i in 'abc'}
    extra = {'genres': column(st.sampled_from(['', 'pop', 'art rock, rock', 'ska'])), 'release_date': column(YEARS.map(lambda v: '' if v is None or v != v else str(v).replace('\0', ''))),
             'genres_itunes': column(st.sampled_from(['', 'Jazz'])), 'note': column(NAMES)}
    keep = draw(st.sets(st.sampled_from(sorted(extra))))
    return pd.DataFrame(dict(album_id=ids, song_id=[f's{i}' for i in range(n)], artist=[artist[i] for i in ids], album=[album[i] for i in ids], song=column(NAMES), genre=column(NAMES), year=column(YEARS),
                             audio='', cover='', **{k: extra[k] for k in sorted(keep)}), dtype=object)


ALIKE = pd.DataFrame(dict(album_id='a', song_id=['s0', 's1'], artist='', album='', song='', genre=['', '0'], year=None, audio='', cover='', genres_itunes='Jazz'), dtype=object) # once both have their main genre


@settings(max_examples=40, deadline=None)
@given(tables())
@example(ALIKE)
def test_clean_or_one_sentence(df):
    try: clean, changes = clean_albums(df)
    except AlbumGanError as e: assert str(e).endswith('.') and '\n' not in str(e); return
    again, nothing = clean_albums(clean)
    pd.testing.assert_frame_equal(again, clean)
    assert not len(nothing), nothing
    assert len(clean) <= len(df) and set(clean.song_id) <= set(df.song_id) and set(clean.genre) <= {*MAIN_GENRES, UNKNOWN}
    assert set(df.song_id) - set(clean.song_id) == set(changes.before[changes.field == '(row)']), 'a row that went is in the log'
    before = df.set_index('song_id')
    for _, row in clean.iterrows(): # a cell that differs is in the log, and its story ends with what is there
        for c in ('artist', 'album', 'song', 'genre', 'year', 'album_id'):
            was, now = before.loc[row.song_id, c], row[c]
            story = changes[(changes.song_id == row.song_id) & (changes.field == c)]
            shown = '' if pd.isna(now) else str(int(now) if c == 'year' else now)
            if len(story): assert story.after.iloc[-1] == shown
            else: assert shown == ('' if was is None or was != was else str(was))
    assert pd.Series(clean.split.to_numpy()).groupby(artist_keys(clean).to_numpy()).nunique().le(1).all()


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(df=tables())
def test_csv_json_and_table_are_one(tmp_path, df):
    try: clean, _ = clean_albums(df)
    except AlbumGanError: return
    write_albums(tmp_path, clean, SAID)
    pd.testing.assert_frame_equal(read_albums(tmp_path), clean) # compares csv and json
    from_json = pd.DataFrame(json.loads((tmp_path/'albums.json').read_text(encoding='utf-8')), columns=clean.columns, dtype=object)
    pd.testing.assert_frame_equal(check_albums(from_json), clean)
    (tmp_path/'albums.json').unlink()
    pd.testing.assert_frame_equal(read_albums(tmp_path), clean)


@given(st.text(max_size=30))
@settings(max_examples=150, deadline=None)
def test_text(text):
    clean = clean_text(text)
    assert clean_text(clean) == clean and '  ' not in clean and clean == clean.strip() and '\n' not in clean
    clean.encode('utf-8')
    assert plain_title(plain_title(clean)) == plain_title(clean)


@given(st.one_of(YEARS, st.dates(), st.datetimes()))
@settings(max_examples=150, deadline=None)
def test_dates(text):
    found = parse_date(text)
    assert parse_date(found) == found and len(found) in (0, 4, 7, 10)
    assert not found or found[:4].isascii()


def test_dates_survive():
    for d in pd.date_range('1899-12-25', '2026-01-05', freq='997D'):
        iso = d.strftime('%Y-%m-%d')
        assert {parse_date(d.strftime(f)) for f in ('%Y-%m-%d', '%Y/%m/%d', '%Y%m%d', '%B %d, %Y', '%d %b %Y')} == {iso}


@pytest.mark.parametrize('column, value, says', [
    ('song_id', 'two words', 'column song_id, row 2'), ('audio', '/etc/passwd', 'column audio, row 2'), ('artist', 5.5, 'column artist, row 2'), ('popularity', 'high', 'column popularity, row 2.*number from 0 to 100'),
    ('emotion_status', 'fine', 'column emotion_status, row 2'), ('split', 'dev', 'column split, row 2'), ('album', None, None)])
def test_errors_name_column_row_and_remedy(column, value, says):
    df = pd.DataFrame(dict(album_id=['a', 'b'], song_id=['s', 't'], artist='X', album='Y', song='', genre='', year='', audio='', cover='', popularity='', emotion_status='', split='')).astype(object)
    df.loc[1, column] = value
    if says is None: assert clean_albums(df)[0].album[1] == ''; return
    with pytest.raises(AlbumGanError, match=says): clean_albums(df)
    with pytest.raises(AlbumGanError, match='no column year'): clean_albums(df.drop(columns='year'))


def test_editions():
    rows = [('a', 'Weezer', 'Weezer', 1994), ('b', 'Weezer', 'Weezer', 2001), ('c', 'WEEZER', 'Weezer (Deluxe Edition)', 2004), ('d', 'Weezer', 'Weezer (Live)', 1995), ('e', 'Other', 'Weezer', 1994), ('f', '', 'Weezer', 1994)]
    assert find_albums(pd.DataFrame(rows, columns=['album_id', 'artist', 'album', 'year'])) == {'c': 'b'}


@pytest.fixture
def raw(tmp_path):
    (tmp_path/'raw/audio').mkdir(parents=True); (tmp_path/'raw/covers').mkdir()
    for i in range(3): write_sound(tmp_path/f'raw/audio/s{i}.ogg', (.3*np.sin(np.arange(4*22050)*(i + 1)/30)).astype(np.float32), 22050)
    (tmp_path/'raw/audio/s3.ogg').write_bytes((tmp_path/'raw/audio/s0.ogg').read_bytes())
    (tmp_path/'raw/audio/s4.ogg').write_bytes(b'no sound at all')
    Image.new('RGB', (80, 80), 'teal').save(tmp_path/'raw/covers/b.jpg')
    df = pd.DataFrame(dict(album_id=['a', 'b', 'c', 'a', 'd'], song_id=[f's{i}' for i in range(5)], artist=['X', 'X', 'Y', 'X', 'Z'], album=['One', 'One (Deluxe)', '1984', 'One', 'NA'], song=['1', '2', '3', '4', '5'],
                           genre=['synthpop', '', 'Metal', '', ''], year=[1999, 2009, None, 1999, 1800], audio=[f'audio/s{i}.ogg' for i in range(5)], cover=['', 'covers/b.jpg', 'covers/none.jpg', '', '']))
    return write_albums(tmp_path/'raw', df, SAID)


def test_folder(raw, tmp_path):
    before = {p.name: p.read_bytes() for p in raw.glob('*.*')}
    done = clean_folder(raw, tmp_path/'clean')
    t = done.table.set_index('song_id')
    assert list(t.index) == ['s0', 's1', 's2', 's4'], 's3 is s0, byte for byte'
    assert t.album_id.tolist() == ['a', 'a', 'c', 'd'] and t.album.tolist() == ['One', 'One', '1984', 'NA'] and t.cover.tolist() == ['covers/a.jpg', 'covers/a.jpg', '', '']
    assert t.audio.tolist() == ['audio/s0.ogg', 'audio/s1.ogg', 'audio/s2.ogg', ''] and pd.isna(t.year['s4'])
    assert (tmp_path/'clean/covers/a.jpg').is_file() and (tmp_path/'clean/audio/s1.ogg').is_file()
    assert {p.name: p.read_bytes() for p in raw.glob('*.*')} == before, 'the raw folder is not touched'
    log = pd.read_csv(tmp_path/'clean/changes.csv', dtype=str, keep_default_na=False)
    assert list(log.columns) == ['row', 'song_id', 'field', 'before', 'after', 'rule'] and (log.rule != '').all() and set(done.by_rule().index) == {'double', 'media', 'genre', 'date'}
    twice = clean_folder(tmp_path/'clean', tmp_path/'twice')
    pd.testing.assert_frame_equal(twice.table, done.table)
    assert not len(twice.changes)
    assert read_provenance(tmp_path/'clean')['licence'] == 'CC0-1.0'
    with pytest.raises(AlbumGanError, match='raw folder itself'): clean_folder(raw, raw)
    with pytest.raises(AlbumGanError, match='did not make'): clean_folder(tmp_path/'clean', raw)


def test_growing_keeps_the_split(tmp_path):
    rows = lambda n: pd.DataFrame(dict(album_id=[f'a{i}' for i in range(n)], song_id=[f's{i}' for i in range(n)], artist=[f'Artist {i % 40}' for i in range(n)], album=[f'T{i}' for i in range(n)], song='', genre='pop', year='', audio='', cover=''))
    write_albums(tmp_path/'raw', rows(30), SAID)
    first = clean_folder(tmp_path/'raw', tmp_path/'clean').table.set_index('song_id').split
    write_albums(tmp_path/'raw', rows(90)[::-1], SAID)
    second = clean_folder(tmp_path/'raw', tmp_path/'clean').table.set_index('song_id').split
    assert len(second) == 90 and second[first.index].equals(first)


def test_command(raw, tmp_path):
    done = subprocess.run([sys.executable, '-m', 'album_gan.data.cleaning', str(raw), str(tmp_path/'clean'), '--media', 'quick'], capture_output=True, text=True, stdin=subprocess.DEVNULL, env={**os.environ, 'IN_TEST': '1'})
    assert done.returncode == 0 and '5 rows read, 4 kept' in done.stdout, done.stderr
    assert 'Traceback' not in done.stderr
    read_albums(tmp_path/'clean')


def test_command_says_what_is_wrong(tmp_path, capsys):
    (tmp_path/'raw').mkdir()
    (tmp_path/'raw/albums.csv').write_text('album_id,song_id\n1,2\n')
    assert main([str(tmp_path/'raw'), str(tmp_path/'clean')]) == 1
    assert 'no column artist' in capsys.readouterr().err and not (tmp_path/'clean').exists()


@pytest.mark.skipif(not SEED or not SEED.is_file(), reason='../shared/metadata is not here')
def test_published_counts_come_back(tmp_path):
    "The pie counts what was published, row by row, by the path that every album folder takes; as few as no row goes missing."
    published = pd.read_csv(SEED, dtype=str, keep_default_na=False)
    halves = {'train': tmp_path/'train.csv', 'test': tmp_path/'test.csv'}
    for side, rows in zip(halves, (published[::2], published[1::2])): rows.to_csv(halves[side], index=False)
    raw = folder_from_published(halves, tmp_path/'raw')
    done = clean_folder(raw, tmp_path/'clean', media='none')
    assert genre_counts(done.table).to_dict() == published.singular_genre.value_counts().to_dict()
    assert done.table.split.value_counts().to_dict() == {'train': len(published[::2]), 'test': len(published[1::2])}
    assert set(published.album_name[published.album_name.str.fullmatch(r'\d+')]) <= set(done.table.album), 'numeric titles stay text'
    assert (read_published(SEED).emotion_status == 'undetermined').sum() == (published.top_emotions.str.startswith('Emotions unable')).sum()


FIGURE_1 = {'Rock': 2086, 'Pop': 1309, 'Alternative': 358, 'Hip-Hop': 351, 'Electronic': 199, 'Country': 194, 'Folk': 152, 'R&B': 111, 'Jazz': 52, 'Blues': 27, 'Reggae': 24, 'Classical': 12, 'World': 8,
            'Funk': 6, 'Gospel': 4, 'Musical': 3, 'Ambient': 2, 'Metal': 1} # the reference's own figure


def test_figure_1_of_the_reference(tmp_path):
    "All 4,899 rows, made up but for their labels, with doubles among them and fine genres that say otherwise: the 18 counts come back."
    label = np.repeat(list(FIGURE_1), list(FIGURE_1.values()))
    n = np.random.default_rng(0).permutation(len(label))
    pd.DataFrame(dict(album_id=[f'a{i}' for i in n], album_name=[['1984', 'One', 'One (Deluxe Edition)'][i % 3] for i in n], artist=[f'Artist {i % 300}' for i in n], song_id=[f's{i}' for i in n], song_name='Same',
                      genres=[['pop, rock, dance pop', '', 'polka'][i % 3] for i in n], singular_genre=label[n], top_emotions='')).to_csv(tmp_path/'all.csv', index=False)
    done = clean_folder(folder_from_published(tmp_path/'all.csv', tmp_path/'raw'), tmp_path/'clean', media='none')
    assert sum(FIGURE_1.values()) == 4899 and genre_counts(done.table).to_dict() == FIGURE_1


def test_card(raw, tmp_path):
    from huggingface_hub import DatasetCard
    done = clean_folder(raw, tmp_path/'clean')
    card, s = DatasetCard.load(tmp_path/'clean/README.md'), summarise(done.table)
    assert card.data.license == 'cc0-1.0' and card.data.size_categories == ['n<1K']
    for line in (f"{s['rows']} songs of {s['albums']} albums by {s['artists']} artists", '| Pop | ', 'changes.csv', '## Intended use', '| artist | 0 |', 'a test'): assert line in card.text, line
    assert str(tmp_path) not in card.content
    write_albums(tmp_path/'bare', pd.DataFrame({c: [] for c in COLUMNS}), SAID)
    assert '0 songs' in dataset_card(tmp_path/'bare')
    (tmp_path/'bare/README.md').write_text('mine')
    with pytest.raises(AlbumGanError, match='somebody else'): write_card(tmp_path/'bare')
