"""Every service that `data.http` knows, on the loopback: a made-up world of albums, with limits, faults and a memory of who asked what.

    with ServiceServer(faults=0.05) as server:
        client = Client(folder, base_urls=server.base_urls)

`https://api.deezer.com/track/7` is then `http://127.0.0.1:PORT/deezer/track/7`. Answers have the services' shapes and depend on the
question alone. Faults do too, and each is used up by being served: the n-th attempt at a question always meets the same thing, whatever happened
to others, so two runs can be compared request by request. As a program (`python tests/service_server.py`) it prints its port; `/_stats` tells what it saw.
"""
import argparse
import asyncio
import hashlib
import io
import json
import socket
import struct
import sys
import threading
import time
import zlib
from collections import Counter, defaultdict
from email.utils import formatdate
from functools import cache

from aiohttp import web

JSON, HTML = 'application/json; charset=utf-8', 'text/html; charset=utf-8'
WORDS = 'paper harbour northern glass winter radio silver tender hollow garden electric slow amber signal distant river'.split()
GENRES = 'Rock Pop Folk Jazz Electronic Country Blues Reggae'.split()
# a question meets each of these equally often; the last two cannot be mended by asking again at once
FAULTS = ('429_seconds', '429_date', '503', 'slow', 'cut', 'cut_body', 'wrong_type', 'html', 'empty', 'truncated', 'redirect')
SONGS_PER_ALBUM = 10


def number(*what) -> int:
    "A whole number that depends on what is asked alone."
    return int.from_bytes(hashlib.blake2b('|'.join(map(str, what)).encode(), digest_size=8).digest(), 'big')


def words(n: int, *of) -> str:
    return ' '.join(WORDS[number(*of, i) % len(WORDS)].title() for i in range(n))


@cache
def png(colour: int, side: int = 240) -> bytes:
    "A plain picture, made without a library."
    line = b'\0' + bytes([colour & 255, colour >> 8 & 255, colour >> 16 & 255])*side
    part = lambda kind, data: struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    return b'\x89PNG\r\n\x1a\n' + part(b'IHDR', struct.pack('>2I5B', side, side, 8, 2, 0, 0, 0)) + part(b'IDAT', zlib.compress(line*side)) + part(b'IEND', b'')


@cache
def wav(pitch: int, seconds: float = 12.0, rate: int = 4000) -> bytes:
    "A plain sound, likewise."
    period = max(8, rate//(100 + pitch))
    wave = b''.join(struct.pack('<h', 8000 if i % period < period//2 else -8000) for i in range(period))
    data = (wave*(int(seconds*rate)//period + 1))[:int(seconds*rate)*2]
    return b'RIFF' + struct.pack('<I', 36 + len(data)) + b'WAVEfmt ' + struct.pack('<IHHIIHH', 16, 1, 1, rate, rate*2, 2, 16) + b'data' + struct.pack('<I', len(data)) + data


def album(i: int) -> dict:
    return dict(id=i, title=words(2, 'album', i), artist=words(2, 'artist', i//3), genre=GENRES[number('genre', i) % len(GENRES)], year=1980 + i % 45, upc=f'{10**11 + i}')


def song(i: int) -> dict:
    return dict(id=i, title=words(3, 'song', i), album=album(i//SONGS_PER_ALBUM), isrc=f'XX-A00-{i:07d}')


def last_number(path: str) -> int:
    digits = ''.join(c if c.isdigit() else ' ' for c in path).split()
    return int(digits[-1][-15:]) if digits else number(path) % 10**6


def answer(service: str, path: str, query: dict) -> tuple[str, bytes]:
    "What a service in good health says: (content type, body)."
    asked = path + '?' + '&'.join(f'{k}={v}' for k, v in sorted(query.items()) if k not in ('key', 'access_token'))
    i = last_number(path) if last_number(path) < 10**9 else number(asked) % 10**6
    js = lambda what: (JSON, json.dumps(what).encode())
    if service.endswith('_files'): return ('audio/x-wav', wav(number(path) % 64)) if path.endswith(('.mp3', '.m4a', '.wav')) else ('image/png', png(number(path)))
    s, a = song(i), album(i)
    if service == 'deezer':
        if path.startswith('/track/'): return js({'id': i, 'title': s['title'], 'isrc': s['isrc'], 'rank': number('rank', i) % 10**6, 'preview': f'https://cdnt-preview.dzcdn.net/{i}.mp3',
            'artist': {'name': s['album']['artist']}, 'album': {'id': s['album']['id'], 'title': s['album']['title'], 'cover_xl': f"https://cdn-images.dzcdn.net/{s['album']['id']}.jpg"}})
        if path.startswith('/album/'): return js({'id': i, 'title': a['title'], 'upc': a['upc'], 'genres': {'data': [{'name': a['genre']}]}, 'release_date': f"{a['year']}-01-01", 'artist': {'name': a['artist']}})
        return js({'data': [{'id': i, 'title': s['title'], 'artist': {'name': s['album']['artist']}, 'album': {'title': s['album']['title']}}], 'total': 1})
    if service == 'itunes':
        return 'text/javascript; charset=utf-8', json.dumps({'resultCount': 1, 'results': [{'wrapperType': 'track', 'trackId': i, 'trackName': s['title'], 'artistName': s['album']['artist'],
            'collectionName': s['album']['title'], 'primaryGenreName': s['album']['genre'], 'previewUrl': f'https://audio-ssl.itunes.apple.com/{i}.m4a',
            'artworkUrl100': f'https://is1-ssl.mzstatic.com/image/{i}/100x100bb.jpg'}]}).encode()
    if service == 'musicbrainz':
        return js({'count': 1, 'release-groups': [{'id': f'{i:08x}-0000-4000-8000-000000000000', 'score': 100, 'title': a['title'], 'primary-type': 'Album', 'first-release-date': str(a['year']),
            'artist-credit': [{'name': a['artist']}], 'genres': [{'name': a['genre'].lower(), 'count': 3}]}]})
    if service == 'coverart':
        if path.endswith(('.jpg', '.png', '/front')): return 'image/png', png(number(path))
        return js({'release': f'https://musicbrainz.org{path}', 'images': [{'front': True, 'types': ['Front'], 'image': f'https://coverartarchive.org{path}/{i}.jpg', 'thumbnails': {}}]})
    if service == 'spotify':
        if 'token' in path: return js({'access_token': 'token-of-the-loopback', 'token_type': 'Bearer', 'expires_in': 3600})
        return js({'albums': {'items': [{'id': f'{i:022d}', 'name': a['title'], 'artists': [{'name': a['artist']}], 'release_date': f"{a['year']}-01-01",
            'images': [{'url': f'https://i.scdn.co/image/{i}', 'height': 640, 'width': 640}]}], 'total': 1}})
    if service == 'youtube': return js({'items': [{'id': query.get('id', 'x'), 'statistics': {'viewCount': str(number('views', asked) % 10**8)}}]})
    if service == 'genius':
        if path.startswith('/search'): return js({'response': {'hits': [{'type': 'song', 'result': {'id': i, 'title': s['title'], 'url': f'https://genius.com/song-{i}'}}]}})
        return HTML, f'<html><body><div data-lyrics-container="true">{words(8, "lyrics", i)}</div></body></html>'.encode()
    if service == 'hume': return js({'predictions': [{'name': 'Calmness', 'probability': 0.5}]})
    return HTML, f'<html><body><h1>{path}</h1><table class="wikitable"><tr><th>Artist</th><th>Album</th></tr><tr><td>{a["artist"]}</td><td><i>{a["title"]}</i></td></tr></table></body></html>'.encode()


class ServiceServer:
    "Serves in a thread of its own; everything it saw is in `log`, `counts` and `repeats`."

    def __init__(self, faults: float = 0.0, seed: int = 0, lasting: bool = False, limits: dict | None = None, slow: float = 0.0, storm: tuple | None = None,
                 patience: float = 1.0, keep_log: bool = True, world=answer):
        self.faults, self.seed, self.lasting, self.limits, self.slow, self.storm = faults, seed, lasting, limits or {}, slow, storm
        self.patience = patience    # seconds that a "slow" answer takes
        self.world = world          # (service, path, query) -> (content type, body)
        self.keep_log, self.log = keep_log, []  # (time, service, question)
        self.headers_seen = []      # of every request, where the log is kept
        self.script = defaultdict(list)  # {"deezer/track/7": [fault, or (status, headers, body), …]}, each served once
        self.counts, self.served = Counter(), Counter()  # requests by service; faults by kind
        self.repeats, self.broken_limits = 0, 0  # questions asked after a whole, good answer; requests above the limit
        self.attempts, self.good = Counter(), set()
        self.arrivals = defaultdict(list)
        self.storm_until = 0.0
        self.in_flight = self.most_in_flight = 0

    # -- starting and stopping

    def __enter__(self):
        ready = threading.Event()
        self.loop = asyncio.new_event_loop()

        def serve():
            asyncio.set_event_loop(self.loop)
            self.loop.run_until_complete(self.start())
            ready.set()
            self.loop.run_forever()
        self.thread = threading.Thread(target=serve, daemon=True)
        self.thread.start()
        ready.wait(20)
        return self

    def __exit__(self, *exc):
        asyncio.run_coroutine_threadsafe(self.runner.cleanup(), self.loop).result(20)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(20)
        self.loop.close()

    async def start(self, port: int = 0):
        app = web.Application(client_max_size=2**26)
        app.router.add_route('*', '/{tail:.*}', self.handle)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, '127.0.0.1', port, backlog=1024)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]

    @property
    def url(self): return f'http://127.0.0.1:{self.port}'

    @property
    def base_urls(self):
        from album_gan.data.http import SERVICES
        return {name: f'{self.url}/{name}' for name in SERVICES}

    # -- answering

    def stats(self) -> dict:
        return dict(requests=sum(self.counts.values()), by_service=dict(self.counts), questions=len(self.attempts), repeats=self.repeats,
                    faults=dict(self.served), broken_limits=self.broken_limits, most_in_flight=self.most_in_flight)

    def busiest(self, service: str, seconds: float) -> int:
        "The largest number of requests that arrived in any window of this length."
        times = sorted(t for t, s, _ in self.log if s == service)
        best = first = 0
        for last, t in enumerate(times):
            while t - times[first] >= seconds: first += 1
            best = max(best, last - first + 1)
        return best

    def planned(self, question: str) -> list[str]:
        "The faults that a question meets, in order: none for most, one for a share of `faults`, now and then two."
        if not self.faults: return []
        chance, kind = number(self.seed, 'chance', question)/2**64, number(self.seed, 'kind', question)
        if chance >= self.faults: return []
        return [FAULTS[kind % len(FAULTS)]] + ([FAULTS[kind//97 % len(FAULTS)]] if chance < self.faults/10 else [])

    def fault(self, service: str, path: str, question: str, n: int):
        if self.script.get(service + path): return self.script[service + path].pop(0)
        i = last_number(path)
        if self.lasting and service == 'deezer' and i % 1000 in (7, 13, 17): return {7: '404', 13: 'html', 17: 'redirect'}[i % 1000]
        if self.storm and sum(self.counts.values()) % self.storm[0] == 0: self.storm_until = time.time() + self.storm[1]
        if time.time() < self.storm_until: return 'storm'
        plan = self.planned(question)
        return plan[n] if n < len(plan) else None

    def over_limit(self, service: str, now: float) -> bool:
        if service not in self.limits: return False
        n, seconds = self.limits[service]
        times = self.arrivals[service]
        while times and now - times[0] >= seconds: times.pop(0)
        times.append(now)
        return len(times) > n

    async def handle(self, request: web.Request):
        now = time.time()
        if request.path == '/_stats': return web.json_response(self.stats())
        service, _, rest = request.path.lstrip('/').partition('/')
        path, query = '/' + rest, dict(request.query)
        question = f'{service} {path}?{request.query_string}'
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            self.counts[service] += 1
            if self.keep_log:
                self.log.append((now, service, question))
                self.headers_seen.append(dict(request.headers))
            if self.over_limit(service, now):
                self.broken_limits += 1
                return self.too_fast(service)
            if question in self.good: self.repeats += 1
            fault = self.fault(service, path, question, self.attempts[question])
            if fault != 'storm': self.attempts[question] += 1  # a storm uses nothing up
            if self.slow: await asyncio.sleep(self.slow)
            if fault:
                self.served[fault if isinstance(fault, str) else 'scripted'] += 1
                return await self.misbehave(request, fault, service, path, query)
            kind, body = self.world(service, path, query)
            self.good.add(question)
            return web.Response(body=body, headers={'Content-Type': kind})
        finally: self.in_flight -= 1

    def too_fast(self, service):
        if service == 'deezer': return web.json_response({'error': {'type': 'Exception', 'message': 'Quota limit exceeded', 'code': 4}})
        if service == 'itunes': return web.Response(status=403, content_type='text/html')
        if service == 'musicbrainz': return web.json_response({'error': 'Your requests are exceeding the allowable rate limit.'}, status=503, headers={'Retry-After': '1'})
        return web.json_response({'error': {'status': 429}}, status=429, headers={'Retry-After': '1'})

    async def misbehave(self, request, fault, service, path, query):
        if isinstance(fault, tuple):
            status, headers, body = fault
            if int(headers.get('Content-Length', 0)) > len(body): return await self.partly(request, headers, body)
            return web.Response(status=status, headers=headers, body=body)
        kind, body = self.world(service, path, query)
        match fault:
            case '429_seconds': return web.Response(status=429, headers={'Retry-After': '0'})
            case '429_date': return web.Response(status=429, headers={'Retry-After': formatdate(time.time() - 5, usegmt=True)})
            case 'storm': return web.Response(status=429, headers={'Retry-After': formatdate(self.storm_until + 1, usegmt=True)} if self.counts[service] % 2 else {'Retry-After': '1'})
            case '503': return web.Response(status=503, text='busy')
            case '404': return web.Response(status=404, text='nothing here')
            case 'slow': await asyncio.sleep(self.patience)
            case 'cut':
                self.cut(request)
                return web.Response()
            case 'cut_body': return await self.partly(request, {'Content-Type': kind, 'Content-Length': str(len(body))}, body[:len(body)//2])
            case 'wrong_type': return web.Response(body=b'%PDF-1.7 ' + bytes(range(256)), headers={'Content-Type': 'application/pdf'})
            case 'html': return web.Response(text='<!doctype html><title>Sign in</title>', content_type='text/html')
            case 'empty': return web.Response(body=b'', headers={'Content-Type': kind})
            case 'truncated': return web.Response(body=body[:len(body)//2] if 'json' in kind or 'javascript' in kind else b'', headers={'Content-Type': kind})
            case 'redirect': return web.Response(status=302, headers={'Location': 'http://169.254.169.254/latest/meta-data/'})
            case _: raise ValueError(fault)
        return web.Response(body=body, headers={'Content-Type': kind})

    def cut(self, request):
        "Reset the connection, as a broken network does."
        sock = request.transport.get_extra_info('socket')
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        request.transport.abort()

    async def partly(self, request, headers, body):
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        await response.write(body)
        request.transport.abort()
        return response


async def main(options):
    server = ServiceServer(faults=options.faults, seed=options.seed, lasting=options.lasting, keep_log=False, patience=options.patience,
                           storm=(options.storm, 1.0) if options.storm else None)
    await server.start(options.port)
    print(server.port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until whoever started it is gone


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--port', type=int, default=0)
    parser.add_argument('--faults', type=float, default=0.0)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--lasting', action='store_true', help='some songs fail for ever')
    parser.add_argument('--storm', type=int, default=0, help='every so many requests, one second of 429')
    parser.add_argument('--patience', type=float, default=1.0, help='seconds that a slow answer takes')
    asyncio.run(main(parser.parse_args()))
