"""Genres: rules, not exceptions; nothing but the documented error, whatever stands in a cell."""
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from album_gan.data.core import AlbumGanError, shared_dir
from album_gan.data.genres import MAIN_GENRES, RULES, UNKNOWN, agreement, explain_genre, fill_genres, fine_genres, main_genre, read_rules, save_rules

SEED = shared_dir() and shared_dir()/'metadata'/'albums_seed_train.csv'
needs_rows = pytest.mark.skipif(not SEED or not SEED.is_file(), reason='../shared/metadata is not here')
WORDS = st.sampled_from(['pop', 'Hip-Hop/Rap', 'R & B', 'unknown', 'album rock', 'dnb', "['a', 'b']", '[', ',', 'Metal', 'shoegaze', 'ska', '½', '音楽', '\ud800', '\0', 'N/A', 'rap '])
CELLS = st.one_of(st.none(), st.text(max_size=20), st.lists(WORDS, max_size=4).map(', '.join), st.lists(st.one_of(WORDS, st.text(max_size=8), st.none(), st.floats()), max_size=4), st.just(float('nan')))
ANYTHING = st.one_of(CELLS, st.integers(), st.binary(max_size=4), st.dictionaries(st.text(max_size=2), st.integers(), max_size=2), st.booleans(), st.datetimes())


@needs_rows
def test_agreement_is_no_memory():
    "At least 96 % of the published labels, on every fifth of the rows, and on albums with a fine genre that no other has."
    rows = pd.read_csv(SEED, dtype=str, keep_default_na=False)
    assert agreement(rows.genres, rows.singular_genre).share['all'] >= 0.96
    for k in range(5):
        part = rows[rows.index % 5 == k]
        assert agreement(part.genres, part.singular_genre).share['all'] >= 0.96, k
    assert (rows.genres.map(main_genre) == rows.genres_list.map(main_genre)).all(), 'both spellings of the list are one'


@needs_rows
def test_rules_name_no_album():
    "Fewer rules than a tenth of the fine genres they decide, none longer than three words."
    rows = pd.read_csv(SEED, dtype=str, keep_default_na=False)
    distinct = {f.casefold() for g in rows.genres for f in fine_genres(g)}
    rules = read_rules().rows
    assert len(rules) < len(distinct)/8 and max(len(c.split()) for _, c, _, _ in rules) <= 3


@given(ANYTHING)
@settings(max_examples=150, deadline=None)
def test_any_cell(cell):
    try: genre = main_genre(cell)
    except AlbumGanError as e: assert str(e).endswith('.') and '\n' not in str(e); return
    assert genre in (*MAIN_GENRES, UNKNOWN)
    assert main_genre(genre) == genre, 'what is consolidated stays'
    assert len(explain_genre(cell)) == len(fine_genres(cell))
    assert fine_genres(fine_genres(cell)) == fine_genres(cell)


@given(st.lists(st.sampled_from(['dance pop', 'art rock', 'rap', 'shoegaze', 'polka', 'delta blues', 'metal']), max_size=6))
def test_order_does_not_matter(fine):
    assert main_genre(fine) == main_genre(list(reversed(fine)))


def test_compilations_lend_each_other_no_genre():
    rows = pd.DataFrame(dict(album_id=list('abc'), artist='Various Artists', genre=['Jazz', 'Jazz', '']))
    assert fill_genres(rows).genre.tolist() == ['Jazz', 'Jazz', UNKNOWN]
    assert fill_genres(rows.assign(artist='Ada Abernathy')).genre.tolist() == ['Jazz']*3



@given(st.lists(st.tuples(st.sampled_from('abc'), st.sampled_from(['X', 'Y', '']), st.sampled_from(['', 'pop', 'rock', 'unknown', 'Soundtrack', 'Metal']), st.sampled_from(['', 'art pop, pop', 'game']),
                          st.sampled_from(['', 'Jazz', 'Rock/Pop']), st.sampled_from(['', 'published', 'own'])), max_size=6))
@settings(max_examples=60, deadline=None)
def test_filling_twice_changes_nothing(rows):
    df = pd.DataFrame(rows, columns=['album_id', 'artist', 'genre', 'genres', 'genres_itunes', 'genre_source']).astype('str')
    once = fill_genres(df)
    pd.testing.assert_frame_equal(fill_genres(once), once)
    assert set(once.genre) <= {*MAIN_GENRES, UNKNOWN}
    assert ((once.genre == UNKNOWN) | (once.genre_source != '')).all(), 'what is known has a source'


@given(st.text(max_size=60))
@settings(max_examples=80, deadline=None)
def test_any_rule_file(tmp_path_factory, text):
    file = tmp_path_factory.getbasetemp()/'rules.csv'
    file.write_text('main,contains,as,when\n' + text, encoding='utf-8', errors='replace')
    try: rules = read_rules(file)
    except AlbumGanError as e: assert 'rules.csv' in str(e); return
    assert main_genre('pop', rules) in (*rules.order, UNKNOWN)


def test_rule_file_replaces(tmp_path):
    file = save_rules(tmp_path/'mine.csv')
    assert file.read_text(encoding='utf-8') == RULES
    file.write_text('main,contains,as,when\nDance,techno,part,always\n')
    assert main_genre('minimal techno', file) == 'Dance' and main_genre('pop', file) == UNKNOWN
    for line, what in {'A,b,part': 'line 2', 'A,b,piece,always': 'part or word', ',b,part,always': 'main genre'}.items():
        file.write_text(f'main,contains,as,when\n{line}\n')
        with pytest.raises(AlbumGanError, match=what): read_rules(file)
    with pytest.raises(AlbumGanError, match='cannot be read'): read_rules(tmp_path/'none.csv')
