"""Speed as ratios: ours against a named reference, measured in the same process, turn and turn about.

    python benchmarks/run.py                # writes benchmarks/results.json and results.md
    python benchmarks/run.py clips pipeline # only these

Milliseconds of one machine say little about another; the ratio of two things measured side by side does. Each pair is run
alternately (A B, B A, A B …) and the median of the rounds counts, with half the interquartile range beside it.
"""
import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

HERE = Path(__file__).resolve().parent
os.environ['IN_TEST'] = '1'  # no progress bars


def versus(ours, reference, rounds: int = 7) -> dict:
    "Median seconds of two functions, run turn and turn about, and the ratio reference / ours of the rounds."
    ours(), reference()  # warm-up
    seconds = {ours: [], reference: []}
    for i in range(rounds):
        for f in ((ours, reference), (reference, ours))[i % 2]:
            start = time.perf_counter()
            f()
            seconds[f].append(time.perf_counter() - start)
    ratios = [r/o for o, r in zip(seconds[ours], seconds[reference])]
    low, _, high = statistics.quantiles(ratios, n=4)
    return {'ours_s': statistics.median(seconds[ours]), 'reference_s': statistics.median(seconds[reference]),
            'reference_per_ours': statistics.median(ratios), 'spread': (high - low)/2, 'rounds': rounds}


def clips() -> dict:
    "25 s out of a four-minute song: `load_clip` against `librosa.load` of the whole file, then cutting."
    import librosa

    from album_gan.audio.clips import load_clip
    from album_gan.data.sound import write_sound
    from album_gan.data.synth import MusicFactors, render_song
    song = np.tile(render_song(MusicFactors(key=2), 1, 30.0, 44100), 8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)/'song.ogg'
        write_sound(path, np.stack([song, song], 1), 44100)

        def whole():
            y, _ = librosa.load(path, sr=22050, mono=True)
            start = (len(y) - 25*22050)//2
            return y[start:start + 25*22050]
        return versus(lambda: load_clip(path), whole, rounds=3)


def _dataset(folder: Path):
    from album_gan.data.demo import demo_folder
    from album_gan.experiments.prepare import prepare
    from album_gan.models.backbone import load_backbone
    backbone = load_backbone('tiny')
    return backbone, prepare(demo_folder(64, seed=11, seconds=6.0, out=folder/'albums'), backbone, 'tiny', test=0, out=folder)


def _trainer(backbone, prepared, batch_size=16):
    from album_gan.experiments.training import DenoisingLoss, TrainConfig, new_conditioner
    config = TrainConfig.make(fusion='gated', batch_size=batch_size)
    loss_of = DenoisingLoss(backbone, new_conditioner(config, backbone, prepared).train())
    return config, loss_of, torch.optim.AdamW(loss_of.conditioner.parameter_groups(config.lr))


def _step(loss_of, optimizer, batch, clip=1.0):
    loss_of(**batch).backward()
    torch.nn.utils.clip_grad_norm_(loss_of.conditioner.parameters(), clip)
    optimizer.step(), optimizer.zero_grad()


def _noised(batch):
    n = len(batch['latents'])
    return dict(batch, noise=torch.randn_like(batch['latents']), timesteps=torch.randint(1000, (n,)))


def training() -> dict:
    "Ten steps of `train`'s loop (read the Arrow rows, noise, loss, clip, AdamW) against the bare loss and gradient on tensors in memory."
    from album_gan.experiments.training import step_indices
    with tempfile.TemporaryDirectory() as folder:
        backbone, prepared = _dataset(Path(folder))
        config, loss_of, optimizer = _trainer(backbone, prepared)
        rows, held = prepared.pick(), _noised(prepared.batch(range(config.batch_size)))

        def ours():
            for step in range(10): _step(loss_of, optimizer, _noised(prepared.batch(rows[step_indices(step, config.batch_size, len(rows))])))

        def bare():
            for _ in range(10):
                loss_of(**held).backward()
                loss_of.conditioner.zero_grad()
        return versus(ours, bare)


def diffusers_loop() -> dict:
    "The same steps in the shape of diffusers' train_text_to_image.py: every step decodes the covers and encodes picture and prompt."
    from album_gan.data.folder import load_cover
    from album_gan.experiments.training import step_indices
    from album_gan.models.backbone import encode_covers, encode_prompts
    with tempfile.TemporaryDirectory() as folder:
        backbone, prepared = _dataset(Path(folder))
        config, loss_of, optimizer = _trainer(backbone, prepared)
        rows = prepared.pick()

        def ours():
            for step in range(10): _step(loss_of, optimizer, _noised(prepared.batch(rows[step_indices(step, config.batch_size, len(rows))])))

        def usual():
            for step in range(10):
                picked = rows[step_indices(step, config.batch_size, len(rows))]
                pixels = torch.stack([torch.from_numpy(np.array(load_cover(prepared.albums/prepared.rows.cover[i], 64))).permute(2, 0, 1)/127.5 - 1 for i in picked])
                batch = dict(latents=encode_covers(backbone, pixels), text=encode_prompts(backbone, list(prepared.rows.prompt.iloc[picked])), music=prepared.batch(picked, ('music',))['music'])
                _step(loss_of, optimizer, _noised(batch))
        return versus(ours, usual, rounds=5)


def pipeline() -> dict:
    "Sixteen covers, 15 steps of DDIM with guidance: `AlbumCoverPipeline` against nothing but its U-Net calls."
    from album_gan.models.backbone import encode_prompts, load_backbone
    from album_gan.models.pipeline import AlbumCoverPipeline
    backbone = load_backbone('tiny')
    pipe = AlbumCoverPipeline.from_backbone(backbone, scheduler='ddim')
    pipe.set_progress_bar_config(disable=True)
    prompts = ['Create an album cover for the album Silver Moon. The genre is Jazz.']*16
    latents, states = torch.randn(16, *backbone.latent_shape), encode_prompts(backbone, prompts)

    @torch.no_grad()
    def calls():
        for t in range(15):
            for _ in range(2): backbone.unet(latents, t, encoder_hidden_states=states)
    return versus(lambda: pipe(prompts, num_inference_steps=15, guidance_text=2.0, output_type='pt'), calls)


def synthesis() -> dict:
    "Eight demo songs on all cores against one core."
    from album_gan.data.demo import demo_folder

    def make(workers):
        with tempfile.TemporaryDirectory() as folder: demo_folder(16, seed=3, out=folder, workers=workers)
    return versus(lambda: make(None), lambda: make(1), rounds=3)


BENCHMARKS = {f.__name__: f for f in (clips, training, diffusers_loop, pipeline, synthesis)}


def markdown(results: dict) -> str:
    "The results as a page."
    lines = ['# Benchmarks', '', f"Made by `python benchmarks/run.py` on {results['machine']}. A ratio above 1 means that ours is faster than the reference.", '',
             '| what | reference / ours | ± |', '|---|---|---|']
    for name, r in results['benchmarks'].items():
        lines.append(f"| {BENCHMARKS[name].__doc__.strip()} | {r['reference_per_ours']:.2f} | {r['spread']:.2f} |")
    return '\n'.join(lines) + '\n'


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('names', nargs='*', metavar='name', help=f"which: {', '.join(BENCHMARKS)}; all by default")
    names = parser.parse_args().names or list(BENCHMARKS)
    if unknown := set(names) - set(BENCHMARKS): sys.exit(f"There is no benchmark called {', '.join(sorted(unknown))}; choose from: {', '.join(BENCHMARKS)}.")
    file = HERE/'results.json'
    results = json.loads(file.read_text()) if file.exists() else {'benchmarks': {}}
    results['machine'] = f'{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, torch {torch.__version__}'
    for name in names:
        results['benchmarks'][name] = r = BENCHMARKS[name]()
        print(f"{name}: reference / ours = {r['reference_per_ours']:.2f} ± {r['spread']:.2f}", flush=True)
    file.write_text(json.dumps(results, indent=1) + '\n')
    (HERE/'results.md').write_text(markdown(results))
