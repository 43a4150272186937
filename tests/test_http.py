"""The client and the ledger against a stand-in for every service: limits, storms, faults, pauses, secrets, crashes."""
import base64
import dataclasses
import io
import json
import logging
import os
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
import zlib
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from email.utils import formatdate
from pathlib import Path

import pytest

from album_gan.data import politeness
from album_gan.data.core import AlbumGanError
from album_gan.data.downloads import download_cover
from album_gan.data.http import SERVICES, Client
from album_gan.data.ledger import Ledger
from album_gan.data.politeness import Pause, ServiceError, secret

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).resolve().parent))
from service_server import FAULTS, ServiceServer, answer  # noqa: E402


@pytest.fixture(scope='module')
def stand_in():
    with ServiceServer(patience=1.0) as server: yield server


@pytest.fixture
def server(stand_in):
    "One server for all tests, forgetful between them."
    stand_in.__init__(patience=1.0)
    return stand_in


def quick(rate=(1000, 0.1), timeout=20.0):
    return {name: dataclasses.replace(s, rate=rate, timeout=timeout) for name, s in SERVICES.items()}


def client_for(server, folder, services=None, **kwargs):
    return Client(folder, base_urls=server.base_urls, services=services or quick(), **{'backoff': (0.01, 0.05), 'max_wait': 5, **kwargs})


# ---- limits

def test_documented_limits():
    "The numbers that the services publish; a change here is a change of manners."
    assert {n: SERVICES[n].rate for n in ('wikipedia', 'musicbrainz', 'itunes', 'deezer')} == {
        'wikipedia': (1, 1.0), 'musicbrainz': (1, 1.0), 'itunes': (20, 60.0), 'deezer': (50, 5.0)}
    assert all(s.said and s.rate[0] >= 1 and s.rate[1] > 0 for s in SERVICES.values())


@pytest.mark.parametrize('service', SERVICES)
def test_limit(service, server, tmp_path):
    "The server counts arrivals on its own clock: never more than the service's number in a window (scaled to fit a test), with 40 threads."
    n, seconds = SERVICES[service].rate[0], 0.1 if SERVICES[service].rate[0] == 1 else 0.25
    server.slow = 0.05
    services = {service: dataclasses.replace(SERVICES[service], rate=(n, seconds))}
    with Client(tmp_path, base_urls={service: f'{server.url}/{service}'}, services=services) as client, ThreadPoolExecutor(40) as pool:
        list(pool.map(lambda i: client.get(service, f'/track/{i}', cache=False), range(max(2*n + 1, 5))))
    assert server.busiest(service, seconds) <= n
    assert (server.most_in_flight > 1) == (n > 1) # and nobody waits who need not


def test_limit_is_shared_between_processes_and_outlives_them(server, tmp_path):
    "Two clients on one cache are together within the limit; a client that starts after another ended begins where that stopped."
    services = quick(rate=(5, 0.4))
    def burst(client):
        with client, ThreadPoolExecutor(8) as pool: list(pool.map(lambda i: client.get('deezer', f'/track/{id(client)}/{i}'), range(6)))
    with ThreadPoolExecutor(2) as pool: list(pool.map(burst, [client_for(server, tmp_path, services) for _ in range(2)]))
    burst(client_for(server, tmp_path, services))
    assert len(server.log) == 18 and server.busiest('deezer', 0.4) <= 5


def test_series(server, tmp_path):
    "Wikipedia asks for requests in series: never two at once."
    server.slow = 0.05
    with client_for(server, tmp_path, {'wikipedia': dataclasses.replace(SERVICES['wikipedia'], rate=(1, 0.01))} | {n: s for n, s in SERVICES.items() if n != 'wikipedia'}) as client:
        with ThreadPoolExecutor(10) as pool: list(pool.map(lambda i: client.get('wikipedia', f'/wiki/{i}', expect='html'), range(10)))
    assert server.most_in_flight == 1


def test_contact(server, tmp_path):
    with client_for(server, tmp_path, contact='someone@example.org') as client: client.get('musicbrainz', '/ws/2/release', {'fmt': 'json'})
    agent = server.headers_seen[-1]['User-Agent']
    assert agent.startswith('album_gan/') and 'someone@example.org' in agent and 'https://' in agent
    with pytest.raises(AlbumGanError, match='plain letters'): Client(tmp_path, contact='evil\r\nX: y')


# ---- faults

LASTING = {'429_seconds': 'limited', '429_date': 'limited', '503': 'server', 'slow': 'timeout', 'cut': 'connection', 'cut_body': 'connection', 'wrong_type': 'bad_answer',
           'html': 'wrong_type', 'empty': 'empty', 'truncated': 'bad_answer', 'redirect': 'bad_redirect'}


@pytest.mark.parametrize('fault', FAULTS)
def test_fault(fault, server, tmp_path):
    "One fault is mended by asking again, where that can help; one that lasts ends as an error of its kind, or a pause."
    with client_for(server, tmp_path, quick(timeout=0.5 if fault == 'slow' else 20.0), max_wait=0.3) as client:
        server.script['deezer/track/1'] = [fault]
        if fault == 'redirect':
            with pytest.raises(ServiceError) as e: client.get('deezer', '/track/1', expect='json')
            assert e.value.kind == 'bad_redirect' and server.counts['deezer'] == 1
            return
        assert client.get('deezer', '/track/1', expect='json').json()['id'] == 1
        assert server.counts['deezer'] == 2
        server.script['deezer/track/2'] = [fault]*100
        with pytest.raises(Pause if LASTING[fault] == 'limited' else ServiceError) as e: client.get('deezer', '/track/2', expect='json')
        if LASTING[fault] != 'limited':
            assert (e.value.kind, e.value.attempts) == (LASTING[fault], min(SERVICES['deezer'].attempts, server.counts['deezer'] - 2))
        assert client.cache.db.rows('SELECT count(*) FROM answers') == [(1,)] # nothing bad is kept


@pytest.mark.parametrize('spelling', ['seconds', 'date'])
def test_retry_after(spelling, server, tmp_path):
    "Whoever says when is not asked before, by anybody."
    wait = '2' if spelling == 'seconds' else formatdate(int(time.time()) + 3, usegmt=True)
    server.script['spotify/v1/search'] = [(429, {'Retry-After': wait}, b'')]
    with client_for(server, tmp_path) as client, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: time.sleep(0.05*bool(i)) or client.get('spotify', '/v1/search' if not i else f'/v1/albums/{i}', expect='json'), range(4)))
    times = [t for t, *_ in server.log]
    assert server.counts['spotify'] == 5 and times[1] - times[0] >= (2 if spelling == 'seconds' else 1.9)


def test_storm(server, tmp_path):
    "A second of 429 for everybody: all wait, all get through, and nobody hammers."
    server.storm_until = time.time() + 1
    with client_for(server, tmp_path) as client, ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(lambda i: client.get('deezer', f'/track/{i}', expect='json').json()['id'], range(30)))) == 30
    assert server.served['storm'] <= 3*8 and server.repeats == 0


@pytest.mark.parametrize('service, fault', [
    ('deezer', (200, {'Content-Type': 'application/json'}, b'{"error":{"type":"Exception","message":"Quota limit exceeded","code":4}}')),
    ('itunes', (403, {'Content-Type': 'text/html'}, b'')),
    ('musicbrainz', (503, {'Content-Type': 'application/json', 'Retry-After': '1'}, b'{"error": "exceeding the allowable rate limit"}')),
    ('wikipedia', (200, {'Content-Type': 'application/json', 'Retry-After': '5', 'MediaWiki-API-Error': 'maxlag'}, b'{"error": {"code": "maxlag"}}')),
    ('spotify', (429, {'Retry-After': '86400'}, b'{"error": {"status": 429}}')),
    ('youtube', (403, {'Content-Type': 'application/json'}, b'{"error": {"code": 403, "errors": [{"domain": "youtube.quota", "reason": "quotaExceeded"}]}}'))])
def test_too_fast_in_every_dialect(service, fault, server, tmp_path):
    "Each service's own way of saying 'not now' is a pause, kept across a restart, and never an answer."
    server.script[f'{service}/x'] = [fault]
    with client_for(server, tmp_path, max_wait=0.5) as client:
        with pytest.raises(Pause, match='run the same command again after') as e: client.get(service, '/x', expect='json')
    assert e.value.service == service and e.value.until > datetime.now(timezone.utc)
    with client_for(server, tmp_path, max_wait=0.5) as client:
        with pytest.raises(Pause): client.get(service, '/y', expect='json')
    assert server.counts[service] == 1


def test_pause_says_when(server, tmp_path):
    with client_for(server, tmp_path) as client:
        server.script['spotify/a'] = [(429, {'Retry-After': '40000'}, b'')]
        start = time.time()
        with pytest.raises(Pause) as e: client.get('spotify', '/a')
        assert time.time() - start < 60 and abs((e.value.until - datetime.now(timezone.utc)).total_seconds() - 40000) < 120


@pytest.mark.parametrize('wait', ['Fri, 31 Dec 9999 23:59:59 GMT', '9'*400])
def test_nobody_is_believed_for_longer_than_a_week(wait, server, tmp_path):
    "Neither in a header nor in a hold that an earlier version kept."
    server.script['deezer/track/1'] = [(429, {'Retry-After': wait}, b'')]
    with client_for(server, tmp_path, max_wait=0.5) as client:
        for _ in range(2):
            with pytest.raises(Pause) as e: client.get('deezer', '/track/1')
            assert 6.9 < (e.value.until - datetime.now(timezone.utc)).total_seconds()/86400 < 7.1
        with client.cache.db.transaction() as c: c.execute('UPDATE holds SET until=253402300799') # the last second of 9999
        assert client.get('deezer', '/track/1', expect='json').json()['id'] == 1


def test_cap_on_the_total_wait(server, tmp_path):
    "Many short waits add up to the cap as one long wait does."
    server.script['spotify/a'] = [(429, {'Retry-After': '0'}, b'')]*1000
    with client_for(server, tmp_path, max_wait=0.5, backoff=(0.05, 0.1)) as client:
        start = time.time()
        with pytest.raises(Pause): client.get('spotify', '/a')
    assert 0.3 < time.time() - start < 60 and server.counts['spotify'] < 20


def test_a_service_that_is_down(server, tmp_path):
    "Ten failures in a row end the step; the units that were not tried wait, and are no errors."
    for i in range(100): server.script[f'genius/song-{i}'] = ['503']*9
    with client_for(server, tmp_path) as client, Ledger(tmp_path/'ledger.sqlite') as ledger:
        found = ledger.run('lyrics', [(i, i) for i in range(100)], lambda i: {'n': len(client.get('genius', f'/song-{i}').text)}, 'genius')
        assert (found.failed, found.waiting, found.pause.service) == (9, 91, 'genius') and 'times in a row' in str(found)
        assert list(ledger.errors()['attempts'].unique()) == [5]


def test_backoff_grows_and_varies(server, tmp_path):
    server.script['deezer/track/1'] = ['503']*4
    with client_for(server, tmp_path, backoff=(0.1, 0.5)) as client: client.get('deezer', '/track/1', expect='json')
    times = [t for t, *_ in server.log]
    waits = [b - a for a, b in zip(times, times[1:])]
    assert len(waits) == 4 and all(w >= least for w, least in zip(waits, (0.1, 0.2, 0.4, 0.5)))


def test_closing_ends_a_long_wait(server, tmp_path):
    server.script['deezer/track/1'] = [(429, {'Retry-After': '60'}, b'')]
    client, caught = client_for(server, tmp_path, max_wait=900), []
    def ask():
        try: client.get('deezer', '/track/1')
        except AlbumGanError as e: caught.append(str(e))
    t = threading.Thread(target=ask)
    t.start(); time.sleep(0.3); client.close(); t.join(30)
    assert not t.is_alive() and 'closed' in caught[0]


# ---- the cache

def test_never_twice(server, tmp_path):
    "Not in one run, not by eight threads at once, not after a restart, not when a key was renewed; 404 is an answer too."
    server.script['deezer/album/5'] = ['404']
    for key in ('k-11111111', 'k-22222222'):
        with client_for(server, tmp_path) as client, ThreadPoolExecutor(8) as pool:
            said = list(pool.map(lambda _: client.get('deezer', '/track/3', {'a': 'ü & 1'}, secret_params={'key': key}, expect='json').json()['id'], range(8)))
            assert said == [3]*8
            with pytest.raises(ServiceError, match='has nothing at'): client.get('deezer', '/album/5', expect='json')
    assert server.counts['deezer'] == 2
    with client_for(server, tmp_path, offline=True) as client:
        assert client.get('deezer', 'https://api.deezer.com/track/3?a=%C3%BC+%26+1', expect='json').from_cache
        with pytest.raises(ServiceError) as e: client.get('deezer', '/track/4')
        assert e.value.kind == 'offline'
    assert server.counts['deezer'] == 2


def test_damaged_cache(tmp_path):
    (tmp_path/'answers.sqlite').write_bytes(b'not a database'*1000)
    with pytest.raises(AlbumGanError, match='move it away'): Client(tmp_path)


# ---- secrets

KEYS = {'SPOTIFY_CLIENT_SECRET': 'fake/spotify+secret=0001', 'GENIUS_TOKEN': 'fake-genius-token-0002', 'YOUTUBE_API_KEY': 'AIza-fake-youtube-key-0003', 'HUME_API_KEY': 'fake-hume-key-0004'}


def spellings(key):
    from urllib.parse import quote, quote_plus
    return {key, quote(key, safe=''), quote_plus(key)}


def echo(service, path, query):
    "A service that tells everybody what it was told."
    return 'application/json', json.dumps({'you said': [path, query], **json.loads(answer('deezer', '/track/1', {})[1])}).encode()


@pytest.mark.parametrize('service', SERVICES)
@pytest.mark.parametrize('fault', [None, '503', '404', 'refused', 'html', 'cut', 'redirect', 'limited', 'echo_redirect'])
def test_secrets_stay_secret(service, fault, server, tmp_path, monkeypatch):
    "With keys in address and header, and a service that repeats them, no key is in a log, an exception, the cache or the ledger."
    for name, key in KEYS.items(): monkeypatch.setenv(name, key)
    server.world = echo
    loud = {'refused': (401, {}, ' '.join(KEYS.values()).encode()), 'limited': (429, {'Retry-After': '999'}, b''),
            'echo_redirect': (302, {'Location': f'http://10.0.0.1/?key={KEYS["YOUTUBE_API_KEY"]}'}, b'')}
    if fault: server.script[f'{service}/item/1'] = [loud.get(fault, fault)]*9
    log, handler = io.StringIO(), None
    handler = logging.StreamHandler(log)
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler); root.setLevel(logging.DEBUG)
    told = []
    def work(i):
        try:
            said = client.get(service, f'/item/{i}', {'q': 'x'}, secret_params={'key': secret('YOUTUBE_API_KEY'), 'token': secret('GENIUS_TOKEN')}, expect='json',
                              secret_headers={'Authorization': f'Bearer {secret("SPOTIFY_CLIENT_SECRET").value}', 'X-Hume-Api-Key': secret('HUME_API_KEY')})
            return said.json()
        except AlbumGanError:
            told.append(traceback.format_exc())
            raise
    try:
        with client_for(server, tmp_path/'cache', max_wait=0.2) as client, Ledger(tmp_path/'ledger.sqlite') as ledger:
            client.get(service, '/item/0', {'q': 'x'}, secret_params={'key': secret('YOUTUBE_API_KEY')}, expect='json') # what it said is in the cache
            summary = ledger.run('step', [('unit', 1)], work, service)
            told += [str(summary), repr(summary), ledger.errors(history=True).to_string(), str(list(ledger.results('step'))), repr(client), repr(secret('GENIUS_TOKEN'))]
    finally: root.removeHandler(handler); root.setLevel(level)
    assert any(KEYS['YOUTUBE_API_KEY'] in question for _, _, question in server.log) and server.headers_seen[-1]['Authorization'].endswith(KEYS['SPOTIFY_CLIENT_SECRET']) # they were sent
    kept = [p.read_bytes() for p in tmp_path.rglob('*') if p.is_file()]
    c = sqlite3.connect(tmp_path/'cache'/'answers.sqlite')
    kept += [zlib.decompress(b) for b, in c.execute('SELECT body FROM answers')] + [str(row).encode() for row in c.execute('SELECT * FROM answers')]
    c.close()
    everything = b'\n'.join([*kept, log.getvalue().encode(), *(t.encode() for t in told)])
    assert log.getvalue() and len(kept) >= 3
    for name, key in KEYS.items():
        for spelling in spellings(key): assert spelling.encode() not in everything, name


def test_secrets_do_not_travel(server, tmp_path):
    "A redirect to another host of the same service gets no key."
    server.script['coverart/release/1/front'] = [(307, {'Location': 'http://archive.org/download/1.png'}, b'')]
    with client_for(server, tmp_path) as client:
        client.get('coverart', '/release/1/front', secret_headers={'Authorization': 'Bearer abcdefgh1234'}, secret_params={'key': 'abcdefgh5678'}, expect='image')
    assert 'Authorization' in server.headers_seen[0] and 'Authorization' not in server.headers_seen[1] and 'abcdefgh5678' not in server.log[1][2]


def test_post(server, tmp_path):
    "A token is fetched with a secret, and kept nowhere."
    with client_for(server, tmp_path) as client:
        basic = base64.b64encode(b'id:hush-hush-hush').decode()
        said = client.post('spotify', 'https://accounts.spotify.com/api/token', {'grant_type': 'client_credentials'}, secret_headers={'Authorization': f'Basic {basic}'})
        assert said.json()['access_token'] == 'token-of-the-loopback'
        server.script['spotify/api/token'] = [(302, {'Location': '/elsewhere'}, b'')]
        with pytest.raises(ServiceError) as e: client.post('spotify', 'https://accounts.spotify.com/api/token', {'grant_type': 'client_credentials'}, secret_data={'s': 'hush-hush-hush'})
        assert e.value.kind == 'bad_redirect'
    assert server.counts['spotify'] == 2 and basic.encode() not in b''.join(p.read_bytes() for p in tmp_path.iterdir())


def test_dotenv(tmp_path, monkeypatch):
    (tmp_path/'settings.ini').write_text('[DEFAULT]\nlib_name = album_gan\n')
    (tmp_path/'.env').write_text('# keys\nGENIUS_TOKEN="from the file"\n')
    monkeypatch.setenv('ALBUM_GAN_ROOT', str(tmp_path))
    monkeypatch.delenv('GENIUS_TOKEN', raising=False)
    assert secret('GENIUS_TOKEN').value == 'from the file' and 'GENIUS_TOKEN' not in os.environ
    monkeypatch.setenv('GENIUS_TOKEN', 'from the environment')
    assert secret('GENIUS_TOKEN').value == 'from the environment'


# ---- the ledger

def test_ledger_is_lazy(tmp_path):
    "Units are taken as they are needed: a generator without end is no problem."
    taken = []
    def endless():
        for i in range(10**9): taken.append(i); yield i, i
    with Ledger(tmp_path/'l.sqlite') as ledger:
        def work(i):
            if i == 500: raise KeyboardInterrupt
            return {}
        with pytest.raises(KeyboardInterrupt): ledger.run('step', endless(), work)
        assert len(taken) <= 500 + ledger.AHEAD and ledger.run('step', ((i, i) for i in range(500)), work, threads=4).skipped == 500


def test_ledger_order_is_that_of_the_units(tmp_path):
    import random
    with Ledger(tmp_path/'l.sqlite') as ledger:
        units = [(f'{n}', n) for n in random.Random(0).sample(range(1000), 50)]
        ledger.run('step', units, lambda n: time.sleep(n % 5/1000) or {'n': n}, threads=8)
        assert [int(u) for u, _ in ledger.results('step')] == [n for _, n in units]


def test_ledger_keeps_odd_things(tmp_path):
    with Ledger(tmp_path/'l.sqlite') as ledger:
        odd = {"'; DROP TABLE units; --": '÷', '../../x': '<script>alert(1)</script>', '1984': None, '日本': '\u0000'}
        ledger.run('step', list(odd.items()), lambda p: {'p': p})
        assert {u: r['p'] for u, r in ledger.results('step')} == odd
        ledger.run('bad', [('a', 1)], lambda p: {'p': object()})
        assert list(ledger.errors()['kind']) == ['bug']


def test_ctrl_c_does_not_wait_for_threads(tmp_path):
    "A terminal's Ctrl-C ends a run at once, though threads are in the middle of a minute's pause."
    code = ("import sys, time; sys.path.insert(0, '.'); from album_gan.data.ledger import Ledger\n"
            "l = Ledger(sys.argv[1]); print('ready', flush=True)\nl.run('step', [(i, i) for i in range(9)], lambda i: time.sleep(60*(i > 2)) or {}, threads=4)")
    process = subprocess.Popen([sys.executable, '-c', code, str(tmp_path/'l.sqlite')], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, 'IN_TEST': '1'})
    process.stdout.readline(); time.sleep(1)
    process.send_signal(2)
    _, err = process.communicate(timeout=50)
    assert 'KeyboardInterrupt' in err and process.returncode != 0
    with Ledger(tmp_path/'l.sqlite') as ledger: assert [u for u, _ in ledger.results('step')] == ['0', '1', '2']


# ---- all together

@pytest.mark.slow
def test_collecting_survives_kill_9(tmp_path):
    "The benchmark in small: 5 % faults, `kill -9` three times, and neither rows nor requests differ."
    done = subprocess.run([sys.executable, ROOT/'benchmarks'/'collect.py', '--songs', '200', '--out', tmp_path], cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path/'collect.json').read_text())
    assert len(found['verdicts']) == 5 and all(ok for *_, ok in found['verdicts'])
    assert found['plain']['first']['units'] == {'songs': 200, 'albums': 20, 'covers': 20} and found['plain']['repeats_after_retry'] == 0


def test_benchmark_was_run():
    "The committed figures are of the full size, and hold."
    found = json.loads((ROOT/'benchmarks'/'collect.json').read_text())
    assert found['songs'] == 64000 and found['killed']['kills'] == 3 and len(found['verdicts']) == 6 and all(ok for *_, ok in found['verdicts'])


def test_forms_of_secrets_are_removed_after_tests():
    "Short words are never taken for secrets: they would tear texts apart."
    politeness.hide('abc')
    assert politeness.redact('abcdef') == 'abcdef'
