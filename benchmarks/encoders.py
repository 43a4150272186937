"""Music encoders at their real size, with random weights: shape, rate, seconds a song and peak memory, on one real or synthetic song.

    python benchmarks/encoders.py                     # musicnn encodec musicgen clap jukebox-1b; writes encoders.json and encoders.md
    python benchmarks/encoders.py jukebox             # the 5 billion prior, first 36 layers: 5 GB
    python benchmarks/encoders.py --song my.mp3

Each encoder runs in a process of its own, so that its peak memory is its own. Time and memory do not depend on what the weights are.
"""
import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
DEFAULT = ['musicnn', 'musicnn-mtt-vgg', 'encodec', 'musicgen', 'clap', 'jukebox-1b']


def make(name: str, dtype: str):
    "The encoder, and how many million weights compute."
    from album_gan.audio.encoders import load_encoder
    from album_gan.audio.hub_encoders import ClapEncoder, EncodecEncoder, MusicgenEncoder
    from album_gan.audio.jukebox import JukeboxEncoder
    match name:
        case 'encodec': e = EncodecEncoder.untrained(); nets = [e.model]
        case 'musicgen': e = MusicgenEncoder.untrained(dtype=dtype); nets = [e.codec, e.lm]
        case 'clap': e = ClapEncoder.untrained(); nets = [e.model.audio_model, e.model.audio_projection]
        case 'jukebox' | 'jukebox-1b': e = JukeboxEncoder.untrained('1b' if name.endswith('1b') else '5b', dtype=dtype); nets = [e.net]
        case _: e = load_encoder(name); nets = [e.net] if hasattr(e, 'net') else []
    return e, sum(p.numel() for n in nets for p in n.parameters())/1e6


def measure(name: str, song: str, dtype: str) -> dict:
    "One encoder in this process."
    from album_gan.audio.clips import load_clip
    start = time.perf_counter()
    encoder, millions = make(name, dtype)
    built, clip = time.perf_counter() - start, load_clip(song, encoder.seconds, sample_rate=encoder.sample_rate)
    before = time.perf_counter(), time.process_time()
    e = encoder.encode([clip.samples])
    wall, cpu = time.perf_counter() - before[0], time.process_time() - before[1]
    return {'encoder': name, 'shape': list(e.shape[1:]), 'hz': round(e.shape[1]/encoder.seconds, 2), 'seconds_heard': round(encoder.seconds, 2), 'sample_rate': encoder.sample_rate, 'million_weights': round(millions, 1),
            'precision': dtype if name in ('musicgen', 'jukebox', 'jukebox-1b') else 'float32', 'build_s': round(built, 1), 'song_s': round(wall, 2), 'song_cpu_s': round(cpu, 2),
            'peak_gib': round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/2**20, 2), 'finite': bool(torch.isfinite(e).all())}


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('encoders', nargs='*', default=DEFAULT)
    parser.add_argument('--song', default='')
    parser.add_argument('--dtype', default='auto')
    parser.add_argument('--one', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    from album_gan.audio.devices import as_dtype
    dtype = str(as_dtype(args.dtype)).removeprefix('torch.')
    if args.one: print(json.dumps(measure(args.encoders[0], args.song, dtype))); sys.exit()
    with tempfile.TemporaryDirectory() as d:
        song = args.song
        if not song:
            from album_gan.data.sound import write_sound
            from album_gan.data.synth import MusicFactors, render_song
            song = f'{d}/song.ogg'
            write_sound(song, render_song(MusicFactors(key=3), 1, 30.0, 44100), 44100)
        file = HERE/'encoders.json'
        known = {r['encoder']: r for r in json.loads(file.read_text())['encoders']} if file.exists() else {}
        for name in args.encoders:
            done = subprocess.run([sys.executable, __file__, name, '--one', '--song', song, '--dtype', dtype], capture_output=True, text=True, stdin=subprocess.DEVNULL)
            if done.returncode: sys.exit(f'{name}: {done.stderr[-1500:]}')
            known[name] = json.loads(done.stdout.splitlines()[-1]) | {'threads': torch.get_num_threads(), 'song': 'real' if args.song else 'synthetic'}
            print(known[name], flush=True)
    file.write_text(json.dumps({'encoders': list(known.values()), 'torch': torch.__version__, 'processor': platform.processor() or platform.machine()}, indent=1) + '\n', encoding='utf-8')
    lines = ['# Music encoders at real size', '', 'Random weights of the real architecture (musicnn: its own weights); one clip, one process each; made by `benchmarks/encoders.py`. Seconds of a shared machine are rough: the processor\'s own seconds stand beside them.', '',
             '| encoder | hears | embedding | rate | weights that compute | precision | threads | seconds a song (of the processor) | peak memory |', '|---|---|---|---|--:|---|--:|---|--:|']
    for r in known.values():
        lines.append(f"| `{r['encoder']}` | {r['seconds_heard']} s at {r['sample_rate']/1000:g} kHz | {r['shape'][0]} × {r['shape'][1]} | {r['hz']} Hz | {r['million_weights']} M | {r['precision']} | {r['threads']} | {r['song_s']} ({r['song_cpu_s']}) | {r['peak_gib']} GiB |")
    (HERE/'encoders.md').write_text('\n'.join(lines) + '\n', encoding='utf-8')
    print('\n'.join(lines))
