"""Answers that mean harm: each becomes a listed error, nothing is written where it does not belong, and memory stays flat."""
import dataclasses
import gzip
import json
import os
import struct
import sys
import time
import tracemalloc
import zlib
from pathlib import Path

import pytest

from album_gan.data.core import AlbumGanError
from album_gan.data.downloads import download_audio, download_cover
from album_gan.data.folder import read_albums, write_albums
from album_gan.data.http import SERVICES, Client
from album_gan.data.ledger import Ledger
from album_gan.data.politeness import ServiceError

sys.path.insert(0, str(Path(__file__).resolve().parent))
from service_server import ServiceServer, png, wav  # noqa: E402

OK = {'Content-Type': 'image/png'}


@pytest.fixture(scope='module')
def stand_in():
    with ServiceServer() as server: yield server


@pytest.fixture
def server(stand_in):
    stand_in.__init__()
    return stand_in


@pytest.fixture
def client(server, tmp_path):
    services = {name: dataclasses.replace(s, rate=(1000, 0.1), timeout=20.0, attempts=2, max_bytes=1_000_000) for name, s in SERVICES.items()}
    with Client(tmp_path/'cache', base_urls=server.base_urls, services=services, backoff=(0.01, 0.02)) as client: yield client


def kind_of(client, tmp_path, work):
    "How one unit of work ends in the ledger: (kind, message), or the row where it succeeded."
    with Ledger(tmp_path/'ledger.sqlite') as ledger:
        ledger.run('step', [('unit', None)], lambda _: work(), 'deezer_files')
        errors = ledger.errors()
        return (errors['kind'][0], errors['message'][0]) if len(errors) else ledger.result('step', 'unit')


def written(tmp_path):
    return sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob('*') if p.is_file() and p.parent.name in ('audio', 'covers') or 'escape' in p.name)


# ---- names

@pytest.mark.parametrize('name', ['../escape', '../../../../tmp/escape', '/tmp/escape', '..', '.', '', 'a/../../escape', 'a\\..\\escape', 'C:escape', 'escape\0.png', 'escape\n', '%2e%2e%2fescape',
                                  '~/escape', 'ééé', 'x'*300, 7, None, ['escape']])
def test_path_traversal_in_ids(name, client, server, tmp_path):
    "No file is written under a name that is no id, and the service is not even asked."
    for get in (download_cover, download_audio):
        kind, message = kind_of(client, tmp_path, lambda: get(client, 'deezer_files', 'https://cdn-images.dzcdn.net/1.png', tmp_path/'albums', name))
        assert kind == 'unusable' and 'cannot name a file' in message
    assert not server.counts and written(tmp_path) == []


@pytest.mark.parametrize('path', ['/../../etc/passwd', '/a/%2e%2e/%2e%2e/x', '..\\x', '/a/..%2f..%2fx'])
def test_path_traversal_in_addresses(path, client, server):
    with pytest.raises(ServiceError) as e: client.get('deezer', path)
    assert e.value.kind == 'bad_address' and not server.counts


# ---- addresses

PRIVATE = ['http://127.0.0.1/', 'http://localhost:22/', 'http://[::1]/', 'http://0.0.0.0/', 'http://10.0.0.1/', 'http://192.168.1.1/admin', 'http://169.254.169.254/latest/meta-data/', 'http://2130706433/',
           'http://0x7f.1/', 'https://metadata.google.internal/', 'file:///etc/passwd', 'ftp://archive.org/x', 'gopher://x/', 'javascript:alert(1)', 'data:text/html,x', '//evil.example/x',
           'https://coverartarchive.org@evil.example/', 'https://evil.example#coverartarchive.org', 'https://archive.org.evil.example/', 'https://notarchive.org/', 'https://archive.org:8443/',
           'http://[bad', 'https://coverartarchive.org\\@evil.example/', 'https://ａrchive.org.evil.example/', 'http://127.0.0.1:1/']


@pytest.mark.parametrize('place', PRIVATE)
def test_redirect_to_where_we_must_not_go(place, client, server, tmp_path):
    "A redirect is followed only to the service's own hosts."
    server.script['coverart/release/1/front'] = [(307, {'Location': place.encode('ascii', 'backslashreplace').decode()}, b'')]
    kind, message = kind_of(client, tmp_path, lambda: download_cover(client, 'coverart', 'https://coverartarchive.org/release/1/front', tmp_path/'albums', 'a1'))
    assert kind == 'bad_redirect' and sum(server.counts.values()) == 1 and written(tmp_path) == []


@pytest.mark.parametrize('place', [p for p in PRIVATE if not p.startswith('//')])
def test_link_to_where_we_must_not_go(place, client, server, tmp_path):
    "A link in somebody's JSON is asked only where it belongs to the service."
    kind, _ = kind_of(client, tmp_path, lambda: download_cover(client, 'coverart', place, tmp_path/'albums', 'a1'))
    assert kind == 'bad_address' and not server.counts


def test_redirects_end(client, server, tmp_path):
    "Neither a circle nor a chain without end is followed for long."
    server.script['coverart/a'] = [(302, {'Location': '/coverart/a'}, b'')]*50
    with pytest.raises(ServiceError) as e: client.get('coverart', '/a')
    assert e.value.kind == 'bad_redirect' and server.counts['coverart'] <= 6


# ---- size

def test_two_gigabytes_announced(client, server, tmp_path):
    "The announcement is enough: nothing is read, nothing is tried again."
    server.script['deezer_files/1.png'] = [(200, {**OK, 'Content-Length': str(2*10**9)}, b'\x89PNG')]*9
    start = time.time()
    kind, message = kind_of(client, tmp_path, lambda: download_cover(client, 'deezer_files', 'https://cdn-images.dzcdn.net/1.png', tmp_path/'albums', 'a1'))
    assert kind == 'too_large' and '2000 MB' in message and server.counts['deezer_files'] == 1 and time.time() - start < 60


def test_more_than_announced_or_nothing_announced(client, server, tmp_path):
    "A body without an announcement is read up to the limit and no further."
    server.world = lambda *_: ('application/json', b'"' + b'x'*3_000_000 + b'"')
    with pytest.raises(ServiceError) as e: client.get('deezer', '/track/1', expect='json')
    assert e.value.kind == 'too_large'


def test_compression_bomb(client, server):
    "A hundred kilobytes that unpack to a hundred megabytes are given up on the way."
    bomb = gzip.compress(bytes(100_000_000))
    server.script['deezer/track/1'] = [(200, {'Content-Type': 'application/json', 'Content-Encoding': 'gzip'}, bomb)]
    tracemalloc.start()
    with pytest.raises(ServiceError) as e: client.get('deezer', '/track/1', expect='json')
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert e.value.kind == 'too_large' and len(bomb) < 200_000 and peak < 250_000_000


def test_a_body_that_drips_for_ever(server, tmp_path):
    "A byte now and then keeps a time-out between bytes from striking; the limit on the whole does not wait."
    from aiohttp import web

    async def drip(request, *_):
        import asyncio
        response = web.StreamResponse(headers={'Content-Type': 'application/json'})
        await response.prepare(request)
        try:
            for _ in range(600):
                await response.write(b' ')
                await asyncio.sleep(0.05)
        except (ConnectionError, asyncio.CancelledError): pass
        return response
    server.misbehave = lambda request, *rest: drip(request)
    server.script['deezer/track/1'] = ['drip']*9
    services = {'deezer': dataclasses.replace(SERVICES['deezer'], timeout=0.1, attempts=1)}
    try:
        with Client(tmp_path, base_urls={'deezer': f'{server.url}/deezer'}, services=services) as client:
            start = time.time()
            with pytest.raises(ServiceError) as e: client.get('deezer', '/track/1')
        assert e.value.kind == 'timeout' and time.time() - start < 25
    finally: del server.misbehave


def picture_that_claims(width, height):
    raw = bytearray(png(1))
    raw[16:24] = struct.pack('>2I', width, height)
    raw[29:33] = struct.pack('>I', zlib.crc32(raw[12:29]))
    return bytes(raw)


@pytest.mark.parametrize('body', [picture_that_claims(60000, 60000), picture_that_claims(2**31 - 1, 1), picture_that_claims(0, 0)])
def test_picture_bomb(body, client, server, tmp_path):
    "A few hundred bytes that would unpack to ten gigabytes are refused by what they claim."
    server.script['deezer_files/1.png'] = [(200, OK, body)]
    tracemalloc.start()
    kind, _ = kind_of(client, tmp_path, lambda: download_cover(client, 'deezer_files', 'https://cdn-images.dzcdn.net/1.png', tmp_path/'albums', 'a1'))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kind == 'broken cover' and peak < 20_000_000 and written(tmp_path) == []


# ---- what it is not

@pytest.mark.parametrize('type_, body, kind', [
    ('text/html', b'<script>alert(1)</script>', 'wrong_type'), ('image/svg+xml', b'<svg onload="alert(1)"/>', 'wrong_type'), ('image/png', b'<svg onload="alert(1)"/>', 'wrong_type'),
    ('image/png', b'MZ\x90\0this is a program', 'wrong_type'), ('image/png', b'#!/bin/sh\nrm -rf ~', 'wrong_type'), ('image/jpeg', b'\xff\xd8\xff' + bytes(500), 'broken cover'),
    ('image/png', png(3)[:-30], 'broken cover'), ('image/png', b'', 'empty'), ('image/png', png(3, side=8), 'broken cover'), ('image/png', png(3, side=64), 'tiny cover')])
def test_covers_that_are_none(type_, body, kind, client, server, tmp_path):
    server.script['deezer_files/1.png'] = [(200, {'Content-Type': type_}, body)]*9
    seen, _ = kind_of(client, tmp_path, lambda: download_cover(client, 'deezer_files', 'https://cdn-images.dzcdn.net/1.png', tmp_path/'albums', 'a1'))
    assert seen == kind or (kind, seen) == ('broken cover', 'tiny cover') and len(body) < 600
    assert written(tmp_path) == []


@pytest.mark.parametrize('type_, body, kind', [
    ('text/html', b'<html>', 'wrong_type'), ('audio/mpeg', b'<html>Sorry, this preview has expired', 'wrong_type'), ('audio/mpeg', b'ID3\4' + bytes(range(256))*8, 'broken'), ('audio/mpeg', b'', 'empty'),
    ('audio/x-wav', wav(1, seconds=2), 'too short'), ('audio/x-wav', wav(1)[:44], 'broken'), ('audio/x-wav', wav(1)[:4000], 'too short'), ('audio/x-wav', wav(1)[:44] + bytes(96000), 'silent')])
def test_previews_that_are_none(type_, body, kind, client, server, tmp_path):
    server.script['deezer_files/1.wav'] = [(200, {'Content-Type': type_}, body)]*9
    seen, _ = kind_of(client, tmp_path, lambda: download_audio(client, 'deezer_files', 'https://cdnt-preview.dzcdn.net/1.wav', tmp_path/'albums', 's1'))
    assert seen == kind and written(tmp_path) == []


def test_a_program_s_file_type_comes_from_its_bytes(client, server, tmp_path):
    "Whatever address and header say, a picture is stored as the picture it is."
    server.script['deezer_files/cover.exe'] = [(200, {'Content-Type': 'application/octet-stream', 'Content-Disposition': 'attachment; filename="../../escape.sh"'}, png(9))]
    row = kind_of(client, tmp_path, lambda: download_cover(client, 'deezer_files', 'https://cdn-images.dzcdn.net/cover.exe', tmp_path/'albums', 'a1'))
    assert row['file'] == 'covers/a1.png' and written(tmp_path) == ['albums/covers/a1.png']
    assert not os.stat(tmp_path/'albums/covers/a1.png').st_mode & 0o111


@pytest.mark.parametrize('body, kind', [(b'['*100_000, 'bad_answer'), (b'{"a": ' + b'9'*5000 + b'}', 'bad_answer'), (b'\xff\xfe{\x00', 'bad_answer'), (b'\xef\xbb\xbf<!doctype html>', 'wrong_type'),
                                        (b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "b">]><x/>', 'wrong_type'), (b'   ', 'empty')])
def test_json_that_is_none(body, kind, client, server):
    server.script['deezer/track/1'] = [(200, {'Content-Type': 'application/json'}, body)]*9
    with pytest.raises(ServiceError) as e: client.get('deezer', '/track/1', expect='json').json()
    assert e.value.kind == kind


# ---- words

TITLES = ['<script>alert(1)</script>', '"><img src=x onerror=alert(1)>', '../../escape', '=cmd|calc', 'a\nb\tc', '\x1b[31mred\x1b[0m', '‮evil', "'; DROP TABLE units; --", '{{7*7}}', 'x'*5000, 'NaN', '1984', '😀']


def test_script_in_titles(client, server, tmp_path):
    "A title is text: kept letter for letter, and the name of no file."
    server.world = lambda service, path, query: ('application/json', json.dumps({'title': TITLES[int(path.rsplit('/', 1)[1])]}).encode()) if service == 'deezer' else ('image/png', png(1))
    with Ledger(tmp_path/'ledger.sqlite') as ledger:
        def work(i):
            title = client.get('deezer', f'/album/{i}', expect='json').json()['title']
            return {'title': title, **download_cover(client, 'deezer_files', f'https://cdn-images.dzcdn.net/{i}.png', tmp_path/'albums', f'a{i}')}
        found = ledger.run('albums', [(f'a{i}', i) for i in range(len(TITLES))], work, 'deezer')
        rows = [row for _, row in ledger.results('albums')]
    assert found.failed == 0 and [r['title'] for r in rows] == TITLES
    assert written(tmp_path) == sorted(f'albums/covers/a{i}.png' for i in range(len(TITLES)))
    import pandas as pd
    write_albums(tmp_path/'albums', pd.DataFrame([dict(album_id=f'a{i}', song_id=f's{i}', artist='', album=r['title'], song='', genre='', year=None, audio='', cover=r['file']) for i, r in enumerate(rows)]),
                 {'source': 'a test', 'licence': 'none'})
    assert read_albums(tmp_path/'albums')['album'].tolist() == TITLES


def test_an_error_message_stays_short(client, server):
    "What a service says is quoted at a length a person can read, and on one line."
    server.script['deezer/track/1'] = [(302, {'Location': 'http://10.0.0.1/' + 'x'*3000}, b'')]
    with pytest.raises(ServiceError) as e: client.get('deezer', '/track/1')
    assert len(str(e.value)) < 500 and '\n' not in str(e.value)
    server.script['deezer/track/2'] = [(200, {'Content-Type': 'application/json'}, json.dumps({'error': {'code': 1, 'message': 'a\n\x1b[31m' + 'b'*9999}}).encode())]*9
    with pytest.raises(ServiceError) as e: client.get('deezer', '/track/2')
    assert len(str(e.value)) < 500 and '\n' not in str(e.value) and '\x1b' not in str(e.value)


def test_cookies_are_not_kept(client, server):
    server.script['deezer/track/1'] = [(200, {'Content-Type': 'application/json', 'Set-Cookie': 'track=me; Path=/'}, b'{}')]
    client.get('deezer', '/track/1', expect='json'); client.get('deezer', '/track/2', expect='json')
    assert 'Cookie' not in server.headers_seen[-1]
