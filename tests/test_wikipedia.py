"""Album lists: recorded pages, random tables laid out as editors do, and quirks one by one."""
import random
import re
from html import escape

import pandas as pd
import pytest

from album_gan.data.core import AlbumGanError, shared_dir
from album_gan.data.wikipedia import page_path, page_titles, read_albums

CAPTURES = shared_dir() and shared_dir()/'captures'/'wikipedia'
HEAD = '<tr><th>Release date</th><th>Artist</th><th>Album</th><th>Genre</th><th>Label</th></tr>'
MONTHS = 'January February March April May June July August September October November December'.split()


def rows(html: str, year: int = 2010) -> list[list]:
    return read_albums(html, year)[['date', 'artist', 'album', 'genre']].values.tolist()


def page(body: str, head: str = HEAD, before: str = '<h3>March</h3>') -> str:
    return f'<div class="mw-parser-output">{before}<table class="wikitable">{head}{body}</table></div>'


@pytest.mark.skipif(not CAPTURES, reason='there is no folder of recorded answers')
def test_recorded_pages_come_out_exactly():
    expected = sorted(CAPTURES.glob('*.expected.csv'))
    assert len(expected) >= 5
    for file in expected:
        html = file.with_name(file.name.replace('.expected.csv', '.html'))
        found = read_albums(html.read_bytes(), int(re.search(r'\d{4}', file.name)[0]))
        assert found.to_csv(index=False) == file.read_text(encoding='utf-8').replace('\r\n', '\n'), file.name
        assert found.equals(read_albums(html.read_text(encoding='utf-8'), int(found.year[0]))), 'bytes and text give the same'


def spans(values: list, chance: random.Random) -> list[tuple | None]:
    "(value, rows down) where a cell starts, None where the one above reaches."
    out, i = [], 0
    while i < len(values):
        j = i + 1
        while j < len(values) and values[j] == values[i] and chance.random() < 0.7: j += 1
        out += [(values[i], j - i)] + [None]*(j - i - 1)
        i = j
    return out


@pytest.mark.parametrize('seed', range(40))
def test_random_tables(seed):
    "What was put into a table comes out, however its cells are merged, noted and dressed up."
    chance = random.Random(seed)
    pick = lambda *of: chance.choice(of)
    old, month = seed % 2 == 0, pick(*MONTHS)
    year, number = (1994, MONTHS.index(month) + 1) if old else (2010, MONTHS.index(month) + 1)
    n = chance.randint(2, 12)
    days = [pick(1, 7, 12, 28, "?") for _ in range(n)]
    artists = [pick('Fjord', 'Grove & Harbour', 'Ada K.', '', 'A, B and C') for _ in range(n)]
    albums = [pick('1984', '÷', 'AC/BC', 'Salt [live]', 'Low – Tide', f'Album {i}') for i in range(n)]
    genres = [pick([], ['Rock'], ['Hip hop', 'trap', 'drill'], ['R&B']) for _ in range(n)]
    note = lambda: pick('', '<sup class="reference"><a href="#n">[1]</a></sup>', '<sup class="noprint">[<i>citation needed</i>]</sup>', '<style>.x{display:none}</style>', '<s>gone</s>', '<!-- a remark -->')
    date = lambda d: (f'<b>{d}</b>' if old else pick(f'{month} {d}', f'{d} {month}', f'{month}<br />{d}', f'{month} {d}, {year}')) if d != '?' else ('?' if old else f'{month} ?')
    artist = lambda a: (pick('', '<span style="display:none;" class="sortkey">Zz</span>', '') + pick(f'<a href="/x">{escape(a)}</a>', f'<span data-sort-value="Q">{escape(a)}</span>')) if a else pick('', '—', '-', '\n')
    album = lambda a: f'<i>{escape(a)}</i>'
    genre = lambda g: pick(', '.join(map(escape, g)), '<br>'.join(map(escape, g)), '; '.join(map(escape, g)), '<ul>' + ''.join(f'<li>{escape(x)}</li>' for x in g) + '</ul>') if g else pick('', '—', 'N/A')
    columns = [[(f'<td rowspan="{k}">{date(v)}{note()}\n</td>') if s else '' for s in spans(days, chance) for v, k in [s or (None, 0)]],
               [(f'<td rowspan="{k}">{artist(v)}{note()}</td>') if s else '' for s in spans(artists, chance) for v, k in [s or (None, 0)]],
               [(f'<td rowspan="{k}">{album(v)}{note()}</td>') if s else '' for s in spans(albums, chance) for v, k in [s or (None, 0)]]]
    if old: columns[1], columns[2] = columns[2], columns[1]
    else: columns.append([(f'<td rowspan="{k}">{genre(v)}{note()}</td>') if s else '' for s in spans(genres, chance) for v, k in [s or (None, 0)]])
    lines = [''.join(cells) for cells in zip(*columns)]
    if old: lines[0] = f'<th rowspan="{n}">{"<br>".join(month.upper())}</th>' + lines[0]
    body = ''.join(f'<tr>{line}{pick("", "<td>Label</td>")}</tr>' for line in lines)
    head = '<tr><th colspan="2">Date</th><th>Album</th><th>Artist</th></tr>' if old else HEAD
    html = page(body, head, before='<h2>Albums released</h2>' if old else '<h2>Albums</h2>')
    expected = [[f'{year}-{number:02d}' + (f'-{d:02d}' if d != '?' else ''), a, t, '' if old else ', '.join(g)] for d, a, t, g in zip(days, artists, albums, genres)]
    assert rows(html, year) == expected


QUIRKS = {
    'a header row repeated in mid table': (page('<tr><td rowspan="9">March 3</td><td>A</td><td>B</td></tr>' + HEAD + '<tr><td>C</td><td>D</td><td>rock</td></tr>'), [['2010-03-03', 'A', 'B', ''], ['2010-03-03', 'C', 'D', 'rock']]),
    'a band with the month': (page('<tr><th colspan="5">April</th></tr><tr><td>4</td><td>C</td><td>D</td></tr>'), [['2010-04-04', 'C', 'D', '']]),
    'a cell over album and artist': (page('<tr><td>March 5–7</td><td colspan="2"><i>Various</i></td><td>rock</td></tr>'), [['2010-03-05', '', 'Various', 'rock']]),
    'nothing but dashes': (page('<tr><td>March 5</td><td>-</td><td>–</td></tr><tr><td>March 6</td><td>—</td><td></td></tr><tr><td>March 6</td><td>A</td><td>B</td></tr>'), [['2010-03-06', 'A', 'B', '']]),
    'an album called like a dash': (page('<tr><td>March 5</td><td>Ed</td><td>-</td></tr>'), [['2010-03-05', 'Ed', '-', '']]),
    'to be announced': (page('<tr><td>TBA</td><td>A</td><td>B</td></tr>'), [['2010', 'A', 'B', '']]),
    'a list without dates': (page('<tr><td>A</td><td>B</td><td>pop</td></tr>', '<tr><th>Artist</th><th>Album</th><th>Genre</th></tr>', '<h2>TBA</h2>'), [['2010', 'A', 'B', 'pop']]),
    'a header in two rows': (page('<tr><td>January</td><td>3</td><td>A</td><td>B</td></tr>', '<tr><th colspan="2">Date</th><th rowspan="2">Artist</th><th rowspan="2">Album</th></tr><tr><th>Month</th><th>Day</th></tr>', ''), [['2010-01-03', 'A', 'B', '']]),
    'a header of plain cells': (page('<tr><td>3 January</td><td>A</td><td>B</td></tr>', '<tr><td><b>Date</b></td><td><b>Artist(s)</b></td><td><b>Album title</b></td></tr>', ''), [['2010-01-03', 'A', 'B', '']]),
    'impossible days': (page('<tr><td>June 31</td><td>A</td><td>B</td></tr><tr><td>0 June</td><td>A</td><td>B</td></tr><tr><td>February 29</td><td>A</td><td>B</td></tr>'), [['2010-06', 'A', 'B', '']]*2 + [['2010-02', 'A', 'B', '']]),
    'a range over two months': (page('<tr><td>30 January – 2 February</td><td>A</td><td>B</td></tr>'), [['2010-01-30', 'A', 'B', '']]),
    'a table of ranks': ('<table><tr><th>Rank</th><th>Artist</th><th>Album</th><th>Sales</th></tr><tr><td>1</td><td>A</td><td>NO</td></tr></table>' + page('<tr><td>May 1</td><td>A</td><td>B</td></tr>'), [['2010-05-01', 'A', 'B', '']]),
    'an info box': ('<table class="infobox"><tr><th>Artist</th><th>Album</th></tr><tr><td>A</td><td>NO</td></tr></table>' + page('<tr><td>May 1</td><td>A</td><td>B</td></tr>'), [['2010-05-01', 'A', 'B', '']]),
    'hidden rows and empty rows': (page('<tr></tr><tr style="display:none"><td>May 1</td><td>A</td><td>NO</td></tr><tr><td>May 1</td><td>A</td><td>B</td></tr>'), [['2010-05-01', 'A', 'B', '']]),
    'white space of all kinds': (page('<tr><td>May&nbsp;1</td><td>\n A\u2009\n<br/>B </td><td><i>C\u200bD</i>\n</td></tr>'), [['2010-05-01', 'A B', 'CD', '']]),
    'odd spans': (page('<tr><td rowspan="2;">May 1</td><td>A</td><td>B</td></tr><tr><td>C</td><td rowspan="0">D</td></tr><tr><td rowspan="x">May 2</td><td>E</td></tr>'), [['2010-05-01', 'A', 'B', ''], ['2010-05-01', 'C', 'D', ''], ['2010-05-02', 'E', 'D', '']]),
}


@pytest.mark.parametrize('quirk', QUIRKS)
def test_quirk(quirk):
    html, expected = QUIRKS[quirk]
    assert rows(html) == expected


def test_only_the_section_counts_on_older_pages():
    table = '<table><tr><th>Day</th><th>Album</th><th>Artist</th></tr><tr><td>{}</td><td>{}</td><td>K</td></tr></table>'
    html = ('<div class="mw-parser-output"><h2>Top albums</h2>' + table.format(1, 'NO') + '<div class="mw-heading"><h2 id="Albums_released">Albums released</h2><span class="mw-editsection">[edit]</span></div>'
            '<h3>May</h3>' + table.format(2, 'yes') + '<h3>Unknown</h3><ul><li><i>A – B</i> – K – Z<sup class="reference">[2]</sup></li><li>See the list</li><li><i>Alone</i></li></ul>'
            '<h2>Awards</h2>' + table.format(3, 'NO') + '<ul><li><i>No</i> – K</li></ul></div>')
    assert rows(html, 1994) == [['1994-05-02', 'K', 'yes', ''], ['1994', 'K – Z', 'A – B', ''], ['1994', '', 'Alone', '']]


@pytest.mark.parametrize('html', ['', '<html>', '<h1>404</h1><p>Wikipedia does not have an article with this exact name.</p>', '{"error": {"code": "missingtitle"}}', b'\xff\xfe\x00', '<table><tr>'*50])
def test_what_is_no_list_is_said(html):
    for year in (1994, 2010):
        with pytest.raises(AlbumGanError, match='holds no album list'): read_albums(html, year)


def test_years_and_names():
    assert [len(page_titles(y)) for y in (1980, 2004, 2005, 2020, 2021, 2024)] == [1, 1, 1, 1, 2, 1]
    assert page_titles(2022, cut=True)[1] == 'List of 2022 albums (July–December)'
    assert page_path('1994 in music') == '/wiki/1994_in_music'
    for year in (0, '1994', None, True):
        with pytest.raises(AlbumGanError): page_titles(year)


def test_types_and_columns():
    table = read_albums(QUIRKS['to be announced'][0], 2010)
    assert list(table.columns[:5]) == ['year', 'date', 'artist', 'album', 'genre']
    assert pd.api.types.is_integer_dtype(table.year) and not table.isna().any().any()
