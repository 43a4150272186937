"""Catalogs, matching, lyrics and emotions: odd answers, near misses, and words that must not travel."""
import csv
import json
import random

import pytest

from album_gan.data import catalogs, emotions, lyrics, recorded, spotify, youtube
from album_gan.data.core import AlbumGanError, shared_dir
from album_gan.data.http import Client
from album_gan.data.politeness import ServiceError

CAPTURES = shared_dir() and shared_dir()/'captures'
needs_captures = pytest.mark.skipif(not CAPTURES, reason='there is no folder of recorded answers')
PARSERS = [catalogs.musicbrainz_groups, catalogs.musicbrainz_group, catalogs.musicbrainz_release, catalogs.musicbrainz_releases, catalogs.cover_art, catalogs.itunes_albums, catalogs.deezer_album,
           catalogs.deezer_songs, catalogs.deezer_albums, spotify.spotify_album, spotify.spotify_albums, spotify.spotify_songs, lyrics.genius_hits, youtube.api_views, youtube.found_videos, emotions.hume_emotions]


@pytest.mark.parametrize('parse', PARSERS, ids=lambda f: f.__name__)
def test_an_answer_of_another_shape_is_an_error_and_not_a_crash(parse):
    for answer in ([], {}, None, 'x', 7, {'data': 3}, {'results': [3]}, {'items': [None]}, {'albums': None}, {'error': {'code': 4}}, {'images': 'x'}, [[]]):
        try: parse(answer)
        except ServiceError as e: assert e.kind == 'bad_answer' and parse.__name__ in str(e)


@needs_captures
@pytest.mark.parametrize('parse, file', [(catalogs.musicbrainz_release, 'musicbrainz/release_70130d47.json'), (catalogs.deezer_album, 'deezer/album_302127.json'), (catalogs.itunes_albums, 'itunes/lookup_1441458047.json'),
                                         (spotify.spotify_album, 'spotify/album_AM_5bU1XKYx.json'), (catalogs.musicbrainz_groups, 'musicbrainz/synthetic_search_release_group.json'), (lyrics.genius_hits, 'genius/derived_api_search_one_hit.json')], ids=lambda x: getattr(x, '__name__', ''))
def test_answers_with_holes(parse, file):
    "Real answers in which values were replaced by null, gone, or of another type: a record with less in it, or an error."
    whole, chance = json.loads((CAPTURES/file).read_text(encoding='utf-8')), random.Random(0)
    def damage(node):
        if isinstance(node, dict): return {k: damage(v) for k, v in node.items() if chance.random() > 0.03}
        if isinstance(node, list): return [damage(v) for v in node]
        return chance.choice([None, '', 7, [], {}]) if chance.random() < 0.03 else node
    for _ in range(30):
        try: parse(damage(whole))
        except ServiceError as e: assert e.kind == 'bad_answer'


@needs_captures
@pytest.mark.parametrize('file', ['picard_release_null', 'picard_release_no_type', 'picard_release_multidisc', 'picard_release', 'release_21a03203'])
def test_documents_of_musicbrainz(file):
    answer = json.loads((CAPTURES/'musicbrainz'/f'{file}.json').read_text(encoding='utf-8'))
    if file == 'picard_release_null': # nothing but null
        try: assert not catalogs.musicbrainz_release(answer).get('title')
        except ServiceError: pass
        return
    album = catalogs.musicbrainz_release(answer)
    assert album['title'] == answer['title'] and all(s['id'] for s in album.get('songs', [])) and None not in album.values()


@needs_captures
def test_xml_where_json_was_meant(tmp_path):
    "MusicBrainz sends XML to those who forget fmt=json; the client says so."
    url = 'https://musicbrainz.org/ws/2/release?query=x'
    with Client(tmp_path, offline=True, recorded={url: (200, {'Content-Type': 'application/xml'}, (CAPTURES/'musicbrainz'/'search_release.xml').read_bytes())}) as client:
        with pytest.raises(ServiceError) as e: client.get('musicbrainz', url, expect='json')
    assert e.value.kind == 'wrong_type'


def wanted(artist, album, **more): return dict(artist=artist, album=album, **more)
def found(artist, title, **more): return dict(source='x', id='1', artist=artist, title=title, **more)


SAME = [('The Beatles', 'Abbey Road', 'Beatles', 'Abbey Road (Remastered)'), ('Sigur Rós', '( )', 'Sigur Ros', '( )'), ('Grove & Harbor featuring Indigo', '13', 'Grove and Harbor', '13'), ('Van Halen', '1984', 'Van Halen', '1984'),
        ('AC/DC', 'Back in Black', 'ACDC', 'Back In Black'), ('Ed Sheeran', '÷', 'Ed Sheeran', '÷ (Deluxe)'), ('Beyoncé', 'B’Day', 'Beyonce', "B'Day"), ('Various Artists', 'Hits', 'Various', 'Hits'), ('P!nk', 'Funhouse', 'P!nk', 'Funhouse - EP'),
        ('Mötley Crüe', 'Dr. Feelgood', 'MOTLEY CRUE', 'Dr Feelgood'), ('Queen', 'A Night at the Opera', 'Queen', 'A Night at the Opera (Deluxe Edition)'), ('Guns N’ Roses', 'Use Your Illusion I', "Guns N' Roses", 'Use Your Illusion I')]
OTHER = [('Ed Sheeran', '÷', 'Ed Sheeran', '×'), ('Ed Sheeran', '+', 'Ed Sheeran', '÷'), ('The Null Set', 'Paper Harbour', 'The Null Set', 'Paper Harbour (Live)'), ('Adele', '19', 'Adele', '21'), ('Adele', '25', 'Adele', '21'), ('Led Zeppelin', 'Led Zeppelin II', 'Led Zeppelin', 'Led Zeppelin III'),
         ('Queen', 'Greatest Hits', 'Queen Tribute Band', 'Greatest Hits'), ('Prince', '1999', 'Ariana Grande', '1999'), ('Metallica', 'Metallica', 'Metallica', 'Load'), ('Sade', 'Diamond Life', 'Karaoke Stars', 'Diamond Life (Karaoke Version)'), ('Guns N’ Roses', 'Use Your Illusion I', "Guns N' Roses", 'Use Your Illusion II'),
         ('Seal', 'Seal', 'Seal', 'Seal IV'), ('', 'Paper Harbour', 'The Null Set', 'Paper Harbour')]


@pytest.mark.parametrize('case', SAME, ids=lambda c: c[1])
def test_the_same_album(case): assert catalogs.best_match(wanted(*case[:2]), [found(*case[2:])])['status'] == 'sure', catalogs.match_score(wanted(*case[:2]), found(*case[2:]))


@pytest.mark.parametrize('case', OTHER, ids=lambda c: '-'.join(c[:4]))
def test_another_album(case):
    result = catalogs.best_match(wanted(*case[:2]), [found(*case[2:])])
    assert result['status'] != 'sure' and 'album' not in result, result['score']


def test_a_code_settles_it_and_a_year_breaks_ties():
    assert catalogs.match_score(wanted('x', 'y', upc='0724384960650'), found('a', 'b', upc='724384960650')) == 100
    two = [found('Seal', 'Seal', date='1994-05-23'), found('Seal', 'Seal', date='1991-05-20')]
    assert catalogs.best_match(wanted('Seal', 'Seal', year=1991), two)['album']['date'] == '1991-05-20'


@pytest.mark.skipif(not shared_dir(), reason='there is no folder of seed metadata')
def test_titles_of_real_albums():
    "400 of the reference's albums are themselves under other spellings, and not each other."
    rows = list(csv.DictReader(open(shared_dir()/'metadata'/'albums_seed_train.csv', encoding='utf-8')))
    chance = random.Random(0)
    rows = chance.sample(rows, 400)
    spell = [lambda a, t: (a, t), lambda a, t: (a.upper(), t.upper()), lambda a, t: (a, t + ' (Deluxe Edition)'), lambda a, t: (a, t + ' - 2011 Remaster'), lambda a, t: (a.removeprefix('The '), t)]
    sure = [catalogs.match_score(wanted(r['artist'], r['album_name']), found(*chance.choice(spell)(r['artist'], r['album_name']))) >= catalogs.SURE for r in rows]
    assert sum(sure) >= 398
    wrong = [(r, s) for r, s in zip(rows, chance.sample(rows, 400)) if r is not s and catalogs.normal(r['album_name']) != catalogs.normal(s['album_name'])
             and catalogs.match_score(wanted(r['artist'], r['album_name']), found(s['artist'], s['album_name'])) >= catalogs.SURE]
    assert wrong == []


def test_lucene_is_not_fooled():
    for title in ('AC/DC', '"Heroes"', 'a OR b', 'x:y', '\\', '(', '*'):
        query = catalogs.lucene(releasegroup=title)
        assert query.startswith('releasegroup:"') and query.endswith('"') and '"' not in query[14:-1].replace('\\\\', '').replace('\\"', '')


@needs_captures
def test_lyrics_stay_in_the_cache(tmp_path):
    "What `find_lyrics` returns holds no line of the page."
    tapes = recorded.Recorded()
    with Client(tmp_path, offline=True, recorded=tapes) as client:
        row = lyrics.find_lyrics(client, dict(artist='The Null Set', song='Paper Harbour'))
        text = lyrics.lyrics_of(client, row['url'])['text']
    assert row['status'] == 'ok' and row['lines'] == 9 and 'Placeholder' in text and 'Placeholder' not in json.dumps(row)


@needs_captures
@pytest.mark.parametrize('file, status', [('song_four_containers_2024', 'ok'), ('synthetic_song_2025_header_inside', 'ok'), ('synthetic_song_instrumental', 'instrumental'), ('synthetic_song_old_layout', 'ok'), ('song_old_layout_2020', 'ok')])
def test_pages_of_lyrics(file, status):
    got = lyrics.read_lyrics((CAPTURES/'genius'/f'{file}.html').read_bytes())
    assert got['status'] == status
    for word in ('Contributors', 'Translations', 'Advertisement', 'Read More', 'Embed', 'You might also like'): assert word not in got.get('text', '')
    if (expected := CAPTURES/'genius'/f'{file}.expected.txt').exists(): assert got['text'] == expected.read_text(encoding='utf-8').strip()


def test_every_emotion_has_a_status():
    for features in ({}, dict(tempo=120), dict(mode='minor'), dict(tempo=60, loudness=-30, brightness=800, mode='minor'), dict(tempo=0, loudness=None)):
        row = emotions.estimate_emotions(features, k=2)
        assert row['status'] in ('ok', 'low_confidence', 'error') and len(row['emotions']) == (0 if row['status'] == 'error' else 2)
    with pytest.raises(ServiceError): emotions.hume_emotions({'utterances': None, 'measurements': 3} | {'utterances': [1]})


def test_hume_without_package_or_key_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv('HUME_API_KEY', raising=False)
    with Client(tmp_path) as client, pytest.raises(AlbumGanError, match='HUME_API_KEY'): emotions.ask_hume(client, tmp_path/'x.wav')


def test_hume_through_its_package(tmp_path, monkeypatch):
    "The vendor's package is used as it is; an error of it names a code and no key."
    package = pytest.importorskip('hume_expression_measurement', reason='the extra "hume" is not installed')
    from album_gan.data.demo import demo_album
    from album_gan.data.recorded import demo_song
    (tmp_path/'s.flac').write_bytes(demo_song(demo_album(1), seconds=4))
    monkeypatch.setenv('HUME_API_KEY', 'hush-hush-hume-key')
    from hume_expression_measurement.audio.client import AudioClient
    sent = []
    monkeypatch.setattr(AudioClient, 'measure', lambda self, file: sent.append(file) or dict(utterances=[], measurements=[]))
    with Client(tmp_path/'cache') as client:
        assert emotions.ask_hume(client, tmp_path/'s.flac')['status'] == 'no_speech'
        assert sent[0][1][:4] == b'RIFF' and int.from_bytes(sent[0][1][24:28], 'little') == 16000 and sent[0][1][22] == 1
        def refuse(self, file): raise package.core.api_error.ApiError(status_code=401, headers={'x': 'hush-hush-hume-key'}, body='hush-hush-hume-key')
        monkeypatch.setattr(AudioClient, 'measure', refuse)
        with pytest.raises(ServiceError) as e: emotions.ask_hume(client, tmp_path/'s.flac')
    assert e.value.kind == 'refused' and 'hush' not in str(e.value) and e.value.__cause__ is None
