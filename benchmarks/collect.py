"""64,000 songs' records from a stand-in for the services on the loopback: memory, repeats, faults, and `kill -9` on the way.

    python benchmarks/collect.py                  # 64,000 songs; writes benchmarks/collect.json and collect.md
    python benchmarks/collect.py --songs 400 --out /tmp/x   # the same in small, as the test does

Three steps through the same client and ledger as `nbs/collect.ipynb`: a Deezer record per song, a MusicBrainz record and a cover per album of ten songs. The services' limits are
scaled down (the table says to what), so that the machine is measured and not Deezer's patience.
"""
import argparse
import dataclasses
import hashlib
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
SERVER = HERE.parent/'tests'/'service_server.py'
os.environ['IN_TEST'] = '1'  # no progress bars

RATE = (2000, 1.0)      # of every service, instead of the documented one
BACKOFF = (0.05, 0.4)   # seconds, instead of 1 to 60
TIMEOUT = 3.0           # seconds; a slow answer takes 4
FAULTS, THREADS, SONGS_PER_ALBUM = 0.05, 16, 10


def collect(folder: Path, port: int, songs: int, retry_errors: bool) -> None:
    "What is measured: three steps, each resumable. Runs in a process of its own."
    from album_gan.data.downloads import download_cover
    from album_gan.data.http import SERVICES, Client
    from album_gan.data.ledger import Ledger
    services = {name: dataclasses.replace(s, rate=RATE, timeout=TIMEOUT) for name, s in SERVICES.items()}
    base_urls = {name: f'http://127.0.0.1:{port}/{name}' for name in SERVICES}
    with Client(folder/'cache', base_urls=base_urls, services=services, backoff=BACKOFF) as client, Ledger(folder/'ledger.sqlite') as ledger:
        def record(i):
            said = client.get('deezer', f'/track/{i}', expect='json').json()
            return dict(song_id=f's{said["id"]}', album_id=f'a{said["album"]["id"]}', artist=said['artist']['name'], album=said['album']['title'], song=said['title'],
                        isrc=said['isrc'], rank=said['rank'], preview=said['preview'], cover=said['album']['cover_xl'])

        def genre(i):
            found = client.get('musicbrainz', '/ws/2/release-group', {'query': f'releasegroup:{i}', 'fmt': 'json'}, expect='json').json()['release-groups'][0]
            return dict(title=found['title'], genre=found['genres'][0]['name'], year=found['first-release-date'])

        def cover(i): return download_cover(client, 'deezer_files', f'https://cdn-images.dzcdn.net/{i}.jpg', folder, f'a{i}')
        albums = range(songs//SONGS_PER_ALBUM)
        for step, work, units, service in (('songs', record, ((f's{i}', i) for i in range(songs)), 'deezer'),
                                           ('albums', genre, ((f'a{i}', i) for i in albums), 'musicbrainz'),
                                           ('covers', cover, ((f'a{i}', i) for i in albums), 'deezer_files')):
            print(ledger.run(step, units, work, service, threads=THREADS, retry_errors=retry_errors), flush=True)
    print(json.dumps({'peak_mb': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024}), flush=True)


def results(folder: Path) -> dict:
    "What is in a ledger, as hashes and counts; nothing in a row is a time."
    from album_gan.data.ledger import Ledger
    with Ledger(folder/'ledger.sqlite') as ledger:
        rows = hashlib.sha256()
        for step in ('songs', 'albums', 'covers'):
            for unit, row in ledger.results(step): rows.update(json.dumps([step, unit, row], ensure_ascii=False).encode() + b'\n')
        files = hashlib.sha256()
        for path in sorted((folder/'covers').glob('[!.]*')): files.update(path.name.encode() + path.read_bytes())
        table, errors = ledger.summary().set_index('step'), ledger.errors()
        return dict(rows_sha256=rows.hexdigest(), covers_sha256=files.hexdigest(), units={k: int(v) for k, v in table['units'].items()}, done={k: int(v) for k, v in table['done'].items()},
                    failed={k: int(v) for k, v in table['failed'].items()}, waiting=int(table['waiting'].sum()), errors={k: int(v) for k, v in errors['kind'].value_counts().sort_index().items()},
                    listed=sorted(map(list, errors[['step', 'unit', 'kind']].values.tolist())), history=len(ledger.errors(history=True)))


def run(songs: int, kills: int = 0) -> dict:
    "Collect against a fresh server; kill the collector some times on the way; then once more for what failed."
    say = lambda *a: print(time.strftime('%H:%M:%S'), *a, flush=True)
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        server = subprocess.Popen([sys.executable, SERVER, '--faults', str(FAULTS), '--lasting', '--storm', str(max(500, songs//4)), '--patience', str(TIMEOUT + 1)],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            port = int(server.stdout.readline())
            stats = lambda: json.load(urllib.request.urlopen(f'http://127.0.0.1:{port}/_stats', timeout=60))

            def worker(retry=False): return subprocess.Popen([sys.executable, __file__, '--worker', str(tmp/'albums'), '--port', str(port), '--songs', str(songs)] + ['--retry']*retry,
                                                             stdout=subprocess.PIPE, text=True)
            start, total = time.time(), int(songs*(1 + 2/SONGS_PER_ALBUM)*(1 + FAULTS))
            for kill in range(kills):
                process = worker()
                while stats()['requests'] < total*(kill + 1)/(kills + 1) and process.poll() is None: time.sleep(0.05)
                if process.poll() is not None: raise RuntimeError('the collector ended before it could be killed')
                os.kill(process.pid, signal.SIGKILL)
                process.communicate()
                say(f'killed at {stats()["requests"]} requests')
            out, _ = (process := worker()).communicate()
            if process.returncode: raise RuntimeError(f'the collector failed: {out}')
            seconds, peak = time.time() - start, json.loads(out.strip().splitlines()[-1])['peak_mb']
            first, seen = results(tmp/'albums'), stats()
            out, _ = (process := worker(retry=True)).communicate()
            if process.returncode: raise RuntimeError(f'the collector failed: {out}')
            say(f'{songs} songs, {kills} kills: {seconds:.0f} s, {seen["requests"]} requests, {peak:.0f} MB')
            return dict(songs=songs, kills=kills, seconds=round(seconds, 1), peak_mb=round(peak, 1), requests=seen['requests'], questions=seen['questions'], repeats=seen['repeats'],
                        faults=seen['faults'], first=first, after_retry=results(tmp/'albums'), requests_after_retry=stats()['requests'], faults_after_retry=stats()['faults'], repeats_after_retry=stats()['repeats'])
        finally:
            server.stdin.close()
            server.wait(30)


def verdicts(small: dict | None, plain: dict, killed: dict) -> list[tuple[str, str, bool]]:
    "(what is demanded, what was seen, whether it holds)"
    units = plain['first']['units']
    settled = lambda r: all(r['done'][s] + r['failed'][s] == r['units'][s] for s in r['units']) and not r['waiting'] and sum(r['failed'].values()) == len(r['listed'])
    asked = lambda r: r['requests_after_retry'] - r['faults_after_retry'].get('storm', 0) # how many meet a storm is a matter of its hour
    extra, in_flight = asked(killed) - asked(plain), THREADS*killed['kills']
    same = all(plain['after_retry'][k] == killed['after_retry'][k] for k in ('rows_sha256', 'covers_sha256', 'listed'))
    out = []
    if small:
        growth = plain['peak_mb']/small['peak_mb'] - 1
        out.append((f'peak memory at {plain["songs"]:,} songs within 20 % of that at {small["songs"]:,}', f'{small["peak_mb"]:.0f} MB → {plain["peak_mb"]:.0f} MB ({growth:+.1%})', abs(growth) <= 0.2))
    return out + [
        ('no request made twice after a good answer', f'{plain["repeats_after_retry"]} of {plain["requests_after_retry"]:,}', plain['repeats_after_retry'] == 0),
        (f'with {FAULTS:.0%} injected faults every unit ends as done or as a listed error', f'{sum(plain["first"]["done"].values()):,} + {len(plain["first"]["listed"]):,} of {sum(units.values()):,}', settled(plain['first'])),
        ('a second run mends what can be mended', f'{len(plain["first"]["listed"]):,} → {len(plain["after_retry"]["listed"]):,} errors ({3*plain["songs"]//1000} last, the others met a second fault)', settled(plain['after_retry'])),
        (f'`kill -9` {killed["kills"]} times: the same rows, covers and errors', 'same bytes' if same else 'DIFFERENT', same),
        (f'… and no more requests than were in flight ({THREADS} threads × {killed["kills"]})', f'{extra:+d}, storms not counted; {killed["repeats_after_retry"]} were answered twice', -in_flight <= extra <= in_flight)]


def report(found: dict) -> str:
    from album_gan.data.http import SERVICES
    plain, killed = found['plain'], found['killed']
    lines = ['# Collecting 64,000 songs', '', f"{plain['songs']:,} songs' records, {plain['first']['units']['albums']:,} albums' records and as many covers, asked by {THREADS} threads from a stand-in on the "
             f"loopback: {FAULTS:.0%} of all questions meet one of eleven faults, a tenth of those a second one; four times everybody meets a second of 429; three songs in a thousand fail for ever. "
             f"{found['machine']}, on a core shared with other work. Made by `benchmarks/collect.py`.", '',
             '| demanded | seen | |', '|---|---|---|', *(f'| {w} | {s} | {"yes" if ok else "**NO**"} |' for w, s, ok in found['verdicts']), '',
             f"Limits scaled down: {RATE[0]:,} requests in {RATE[1]:g} s instead of " + ', '.join(f'{SERVICES[s].rate[0]} in {SERVICES[s].rate[1]:g} s ({s})' for s in ('deezer', 'musicbrainz', 'deezer_files')) +
             f'; pauses {BACKOFF[0]:g} to {BACKOFF[1]:g} s instead of 1 to 60; time-out {TIMEOUT:g} s instead of 30. At the real limits the songs would take {plain["songs"]/50*5/3600:.1f} hours, their albums {plain["songs"]/SONGS_PER_ALBUM/3600:.1f}.', '',
             '| run | seconds | requests | peak memory, MB |', '|---|---|---|---|',
             *(f"| {r['songs']:,} songs{', killed ' + str(r['kills']) + ' times' if r['kills'] else ''} | {r['seconds']:,.0f} | {r['requests']:,} | {r['peak_mb']:.0f}{' (last process)' if r['kills'] else ''} |" for r in (found['small'], plain, killed) if r), '',
             'Faults served: ' + ', '.join(f'{k} {v:,}' for k, v in sorted(plain['faults'].items())) + '.',
             'Errors after the first run: ' + ', '.join(f'{k} {v:,}' for k, v in plain['first']['errors'].items()) + '; after the second: ' + ', '.join(f'{k} {v:,}' for k, v in plain['after_retry']['errors'].items()) + '.', '']
    return '\n'.join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--songs', type=int, default=64000)
    parser.add_argument('--out', type=Path, default=HERE)
    parser.add_argument('--kills', type=int, default=3)
    parser.add_argument('--worker', type=Path, help=argparse.SUPPRESS)
    parser.add_argument('--port', type=int, help=argparse.SUPPRESS)
    parser.add_argument('--retry', action='store_true', help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        collect(options.worker, options.port, options.songs, options.retry)
        return 0
    small = run(options.songs//10) if options.songs >= 10000 else None # memory is compared where there is enough of it
    plain, killed = run(options.songs), run(options.songs, options.kills)
    found = dict(machine=f'{platform.system()}, Python {platform.python_version()}', songs=options.songs, threads=THREADS, faults=FAULTS, rate=RATE, small=small, plain=plain, killed=killed,
                 verdicts=verdicts(small, plain, killed))
    for r in (small, plain, killed): # the lists are compared, not kept
        if r: r['first'].pop('listed'), r['after_retry'].pop('listed')
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out/'collect.json').write_text(json.dumps(found, indent=1) + '\n')
    (options.out/'collect.md').write_text(report(found))
    print((options.out/'collect.md').read_text())
    return 0 if all(ok for *_, ok in found['verdicts']) else 1


if __name__ == '__main__':
    sys.exit(main())
