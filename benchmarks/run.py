"""Speed and memory as ratios: ours beside a named reference, on this machine, turn and turn about.

    python benchmarks/run.py                    # all but those at real size, an hour; writes benchmarks/results.json and results.md
    python benchmarks/run.py pipeline solvers   # only these; what was measured before stays
    python benchmarks/run.py real_memory        # builds random weights in miniSD's layout (4 GB on disk), takes 17 GB of memory
    python benchmarks/run.py --miniature        # everything very small, to see that it works; writes nothing

Where PyTorch finds a CUDA GPU the networks are there, and the page is results/gpu/benchmarks.md; what needs several processors is left out.

Milliseconds of one machine say little about another; the ratio of two things measured side by side does. The median of the rounds
counts, with half the interquartile range beside it. Memory is the peak of a process of its own. Run it on a quiet machine.
"""
import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, redirect_stderr
from functools import cache
from itertools import count, pairwise
from pathlib import Path

os.environ['IN_TEST'] = '1' # no progress bars, but where they are measured
os.environ['HF_HUB_OFFLINE'] = '1'

import numpy as np
import psutil
import torch
from torch.nn import functional as F

HERE = Path(__file__).resolve().parent
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
PAGE = HERE.parent/'results'/'gpu'/'benchmarks.md' if DEVICE == 'cuda' else HERE/'results.md'
SMALL = '--miniature' in sys.argv
NUMBERS = count()


def size(full, small):
    "What is measured, or its miniature."
    return small if SMALL else full


# %% measuring
def clock() -> float:
    "Now, in seconds, once the GPU has done what it was told to do."
    if DEVICE == 'cuda': torch.cuda.synchronize()
    return time.perf_counter()


def there(batch: dict) -> dict:
    "A batch on the device."
    return {k: v.to(DEVICE) for k, v in batch.items()}


def turns(rounds: int, **functions) -> dict[str, list[float]]:
    "Seconds of functions that run turn and turn about, each round beginning with the next of them; one call of each comes first and does not count."
    for f in functions.values(): f()
    seconds, names = {n: [] for n in functions}, list(functions)
    for i in range(rounds):
        for n in names[i % len(names):] + names[:i % len(names)]:
            start = clock()
            functions[n]()
            seconds[n].append(clock() - start)
    return seconds


def row(what: str, above: list[float], below: list[float], bound: str = '', scale: float = 1.0, **more) -> dict:
    "The ratio above / below of paired rounds (times `scale`), and whether it keeps its bound: ≤ or ≥ and a number."
    ratios = [scale*a/b for a, b in zip(above, below)]
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios*3
    sign, _, limit = bound.partition(' ')
    ratio = statistics.median(ratios)
    kept = None if not bound else ratio <= float(limit) if sign == '≤' else ratio >= float(limit)
    return dict(what=what, ratio=ratio, spread=(high - low)/2 if len(ratios) > 1 else None, rounds=len(ratios), bound=bound, kept=kept,
                above=statistics.median(above), below=statistics.median(below), **more)


def child(name: str, threads: int | None = None, **given) -> dict:
    "What one of the functions in CHILDREN says, in a process of its own."
    done = subprocess.run(_command(name, given), env=_environment(threads), capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode: raise RuntimeError(f'{name} {given}: {done.stderr[-2000:]}')
    return json.loads(done.stdout.splitlines()[-1])


def _command(name, given): return [sys.executable, __file__, '--child', name, json.dumps(given)]
def _environment(threads): return os.environ | (dict(OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads)) if threads else {})


class Memory:
    "Peak memory of this process in MiB: `all`, `own`, without the pages of files that are only looked into, and `gpu`, what tensors on it took."
    def __enter__(self):
        self.own, self.over = 0, threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True); self.thread.start()
        return self
    def __exit__(self, *_):
        self.over.set(); self.thread.join()
        self.all, self.gpu = self._status('VmHWM'), torch.cuda.max_memory_allocated()/2**20 if DEVICE == 'cuda' else None
    def _look(self):
        while not self.over.wait(0.02): self.own = max(self.own, self._status('RssAnon'))
    @staticmethod
    def _status(key): # not getrusage: its peak begins with the parent's
        return next(int(line.split()[1]) for line in Path('/proc/self/status').read_text().splitlines() if line.startswith(key))/1024
    def said(self): return dict(peak_mib=round(self.all, 1), own_mib=round(self.own, 1), **({} if self.gpu is None else dict(gpu_mib=round(self.gpu, 1))))


@contextmanager
def with_bars():
    "Progress bars as users have them, written to nowhere."
    was = os.environ.pop('IN_TEST')
    with open(os.devnull, 'w') as nowhere, redirect_stderr(nowhere):
        try: yield
        finally: os.environ['IN_TEST'] = was


# %% data
@cache
def _scratch(): return tempfile.TemporaryDirectory(prefix='benchmarks-')
def scratch() -> Path: return Path(_scratch().name)


@cache
def world(n: int, seconds: float = 2.0) -> Path:
    "Demo albums with short songs; an encoder hears 25 seconds whatever the song."
    from album_gan.data.demo import demo_folder
    return demo_folder(n, seed=11, seconds=seconds, out=scratch()/f'albums-{n}')


def tiny(n: int):
    "A tiny backbone of its own, and n prepared albums, none held out."
    from album_gan.experiments.prepare import prepare
    from album_gan.models.backbone import load_backbone
    backbone = load_backbone('tiny', device=DEVICE)
    return backbone, prepare(world(n), backbone, 'tiny', test=0, out=scratch()/'prepared')


def noised(batch: dict, seed: int = 0) -> dict:
    "A batch with noise and timesteps."
    chance = torch.Generator().manual_seed(seed)
    return dict(batch, noise=torch.randn(batch['latents'].shape, generator=chance), timesteps=torch.randint(300, 1000, (len(batch['latents']),), generator=chance))


# %% training
def beside_training(backbone, prepared, batch_size: int, every: int, turn, rounds: int, warm: int = 2, torch_compile: str = '') -> tuple[list[float], list[float]]:
    """Seconds of `every` steps of `album_gan.experiments.training.train` itself, and of `turn(loss_of)`, which has its turn between them.

    At the beginning of its forward pass, with the batch in hand, the clock stops and the reference runs. A round of ours is compared
    with the mean of the reference's turns before and after it."""
    from album_gan.experiments.training import LOSSES, DenoisingLoss, TrainConfig, train
    ours, theirs = [], []

    class Beside(DenoisingLoss):
        done, start = 0, None
        def forward(self, **batch):
            if self.done % every == 0:
                now = clock()
                if self.start: ours.append(now - self.start)
                turn(super().forward)
                theirs.append(clock() - now)
                for p in self.conditioner.parameters(): p.grad = None
                self.start = clock()
            self.done += 1
            return super().forward(**batch)

    LOSSES['beside'] = Beside
    config = TrainConfig.make(loss='beside', batch_size=batch_size, max_steps=every*(rounds + warm) + 1)
    with with_bars(): train(prepared, backbone, config, scratch()/f'run-{next(NUMBERS)}', torch_compile=torch_compile)
    return ours[warm:], [(a + b)/2 for a, b in pairwise(theirs[warm:])]


def step_overhead() -> dict:
    "Training: a step of `train` (read the Arrow rows, noise, dropped prompts, loss, gradient, clip, AdamW) / forward and backward alone of the same module on tensors in memory, step by step"
    rows, notes = [], []
    for batch_size, rounds in ((size(16, 4), size(120, 3)), (size(64, 16), size(110, 3))):
        backbone, prepared = tiny(size(256, 16))
        held = there(noised(prepared.batch(range(batch_size))))
        held['music'] = held['music'][:, :held['music'].shape[1]*3//4] # as much as training hears on average
        every = 1 if DEVICE == 'cpu' else size(10, 1) # on a GPU one batch is made ahead, during the reference's turn: a tenth of them
        def bare_steps(loss_of):
            for _ in range(every): loss_of(**held).backward()
        ours, bare = beside_training(backbone, prepared, batch_size, every, bare_steps, rounds//every)
        rows.append(row(f'batch {batch_size}', ours, bare, '≤ 1.10', of_totals=sum(ours)/sum(bare)))
        notes.append(f'`step_overhead`, batch {batch_size}: the sum of all steps, those with a checkpoint (every 100) among them, is {sum(ours)/sum(bare):.3f} times the sum of the bare ones.')
    return dict(rows=rows, notes=notes)


def pictures(prepared, side: int) -> Path:
    "The albums' covers as PNG files in diffusers' imagefolder, with captions and the music embeddings as .npy."
    from PIL import Image

    from album_gan.data.covers import cover_image
    from album_gan.data.demo import demo_album
    folder = scratch()/f'pictures-{side}-{len(prepared.rows)}'
    folder.mkdir()
    lines = []
    for i, r in enumerate(prepared.rows.itertuples()):
        if side <= 256: picture = Image.open(prepared.albums/r.cover).resize((side, side))
        else: picture = cover_image(demo_album(int(r.album_id.split('-')[1]), 11).sleeve, 256).resize((side, side), Image.Resampling.LANCZOS)
        picture.save(folder/f'{i}.png')
        np.save(folder/f'{i}.npy', prepared.batch([i], ('music',))['music'][0].numpy().astype(np.float16))
        lines.append(json.dumps(dict(file_name=f'{i}.png', text=r.prompt, music=str(folder/f'{i}.npy'))))
    (folder/'metadata.jsonl').write_text('\n'.join(lines) + '\n')
    return folder


def diffusers_loop(backbone, prepared, folder: Path, batch_size: int, whole: bool = False, mixed: str = 'no'):
    """The loop of diffusers' examples/text_to_image/train_text_to_image.py as its README runs it (centre crop, random flip, no worker processes), as a function that trains one epoch.

    torchvision's transforms are written out; `mixed` is its --mixed_precision. The script trains the whole U-Net on prompts alone, and with `whole` so does this (a copy).
    Without it what is trained is our conditioner in front of the frozen U-Net, so that both loops compute the same gradient."""
    import copy

    import datasets
    from accelerate import Accelerator
    from diffusers import DDPMScheduler
    from diffusers.optimization import get_scheduler
    from PIL import Image, ImageOps
    from tqdm.auto import tqdm

    from album_gan.experiments.training import TrainConfig, new_conditioner
    datasets.disable_progress_bars()
    accelerator = Accelerator(gradient_accumulation_steps=1, mixed_precision=mixed)
    noise_scheduler = DDPMScheduler.from_config(backbone.scheduler.config)
    vae, text_encoder, tokenizer, unet = backbone.vae, backbone.text_encoder, backbone.tokenizer, backbone.unet
    config = TrainConfig.make()
    if whole: trained = unet = copy.deepcopy(unet).train().requires_grad_(True)
    else: trained = new_conditioner(config, backbone, prepared).install(unet).train()
    optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-4, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8)
    lr_scheduler = get_scheduler('constant', optimizer=optimizer, num_warmup_steps=0, num_training_steps=10000)

    def transform(image):
        side = backbone.resolution
        image = ImageOps.fit(image.convert('RGB'), (side, side), Image.Resampling.BILINEAR) # Resize, CenterCrop
        if np.random.rand() < 0.5: image = ImageOps.mirror(image) # RandomHorizontalFlip
        return (torch.from_numpy(np.array(image)).permute(2, 0, 1).float()/255 - 0.5)/0.5 # ToTensor, Normalize

    def preprocess_train(examples):
        examples['pixel_values'] = [transform(image) for image in examples['image']]
        examples['input_ids'] = tokenizer(examples['text'], max_length=backbone.length, padding='max_length', truncation=True, return_tensors='pt').input_ids
        if not whole: examples['embedding'] = [torch.from_numpy(np.load(path)).float() for path in examples['music']]
        return examples

    def collate_fn(examples):
        return dict(pixel_values=torch.stack([e['pixel_values'] for e in examples]).to(memory_format=torch.contiguous_format).float(),
                    input_ids=torch.stack([e['input_ids'] for e in examples]), **({} if whole else dict(embedding=torch.stack([e['embedding'] for e in examples]))))

    train_dataset = datasets.load_dataset('imagefolder', data_dir=str(folder), split='train', cache_dir=str(scratch()/'datasets')).with_transform(preprocess_train)
    loader = torch.utils.data.DataLoader(train_dataset, shuffle=True, collate_fn=collate_fn, batch_size=batch_size, num_workers=0)
    trained, optimizer, loader, lr_scheduler = accelerator.prepare(trained, optimizer, loader, lr_scheduler)
    progress_bar = tqdm(range(100000), desc='Steps', file=open(os.devnull, 'w'), disable=not accelerator.is_local_main_process)

    def epoch():
        train_loss = 0.0
        for step, batch in enumerate(loader):
            with accelerator.accumulate(trained):
                with torch.no_grad():
                    latents = vae.encode(batch['pixel_values'].to(vae.dtype)).latent_dist.sample()*vae.config.scaling_factor
                    encoder_hidden_states = text_encoder(batch['input_ids'], return_dict=False)[0]
                noise = torch.randn_like(latents)
                timesteps = torch.randint(0, noise_scheduler.config.num_train_timesteps, (latents.shape[0],), device=latents.device).long()
                noisy_latents = noise_scheduler.add_noise(latents, noise, timesteps)
                target = noise if noise_scheduler.config.prediction_type == 'epsilon' else noise_scheduler.get_velocity(latents, noise, timesteps)
                states, kwargs = (encoder_hidden_states, None) if whole else trained(encoder_hidden_states, batch['embedding'])
                model_pred = unet(noisy_latents, timesteps, states, cross_attention_kwargs=kwargs, return_dict=False)[0]
                loss = F.mse_loss(model_pred.float(), target.float(), reduction='mean')
                avg_loss = accelerator.gather(loss.repeat(batch_size)).mean()
                train_loss += avg_loss.item()
                accelerator.backward(loss)
                if accelerator.sync_gradients: accelerator.clip_grad_norm_(trained.parameters(), 1.0)
                optimizer.step(); lr_scheduler.step(); optimizer.zero_grad()
            if accelerator.sync_gradients:
                progress_bar.update(1)
                accelerator.log({'train_loss': train_loss}, step=step)
                train_loss = 0.0
            progress_bar.set_postfix(step_loss=loss.detach().item(), lr=lr_scheduler.get_last_lr()[0])
    return epoch


def epoch() -> dict:
    "Training: an epoch of `train` / an epoch of a loop after diffusers' train_text_to_image.py, which decodes covers and encodes picture and prompt in every step; same backbone and albums, batch 64"
    from album_gan.experiments.prepare import _cover_tensor
    from album_gan.models.backbone import encode_covers, encode_prompts
    rows, notes, batch = [], [], size(64, 16)
    for side, bound in ((64, '≤ 0.55'), (300, '≤ 0.38')):
        backbone, prepared = tiny(size(256, 16))
        folder, n = pictures(prepared, side), len(prepared.rows)
        kinds = [(False, '', 'theirs trains our conditioner'), (True, '', 'theirs trains the whole U-Net, as the script does'),
                 (False, 'inductor', 'theirs trains our conditioner, ours with `torch_compile=inductor`, its first steps not counted')]
        for whole, compiler, name in kinds[:3 if DEVICE == 'cpu' else 2]: # minutes of compiling for each size of picture
            theirs = diffusers_loop(tiny(size(256, 16))[0] if compiler else backbone, prepared, folder, batch, whole) # a U-Net is compiled in place
            ours, usual = beside_training(backbone, prepared, batch, n//batch, lambda _: theirs(), size(9, 2), torch_compile=compiler)
            rows.append(row(f'{side}-pixel PNG files, {name}', ours, usual, bound, albums=n))
            if whole or compiler: continue
            start = clock()
            for first in range(0, n, 64):
                part = range(first, min(n, first + 64))
                encode_covers(backbone, torch.stack([_cover_tensor(folder/f'{i}.png', backbone.resolution) for i in part])), encode_prompts(backbone, list(prepared.rows.prompt.iloc[first:first + 64]))
            once = clock() - start
            saved = statistics.median(usual) - statistics.median(ours)
            notes.append(f'`epoch`, {side} pixels: encoding covers and prompts once, which `prepare` does, takes {once/statistics.median(usual):.2f} of their epochs; it pays after {once/saved:.1f} epochs. Both loops find music embeddings on the disk.')
    return dict(rows=rows, notes=notes)


def compiling() -> dict:
    "Training, forward and backward of one step, the frozen U-Net compiled (`torch_compile=inductor`) / not, songs of another length in each pair"
    from album_gan.experiments.training import DenoisingLoss, TrainConfig, compiled, new_conditioner
    rows, notes = [], []
    os.environ['TORCHINDUCTOR_CACHE_DIR'] = str(scratch()/'inductor') # what earlier runs compiled must not help
    for batch in size((16,), (4,)):
        (plain, prepared), (other, _) = tiny(size(256, 16)), tiny(size(256, 16))
        conditioner, held = new_conditioner(TrainConfig.make(), plain, prepared).to(DEVICE), there(noised(prepared.batch(range(batch))))
        lengths = torch.Generator().manual_seed(0)
        ours, theirs = (DenoisingLoss(b, conditioner) for b in (other, plain))
        with compiled(other.unet):
            start = clock()
            ours(**held).backward()
            warm, taken = clock() - start, ([], [])
            for i in range(size(40, 2)):
                length = held['music'].shape[1]
                cut = dict(held, music=held['music'][:, :int(torch.randint(length//2, length + 1, (1,), generator=lengths))])
                for which in (0, 1) if i % 2 else (1, 0):
                    start = clock()
                    (ours, theirs)[which](**cut).backward()
                    taken[which].append(clock() - start)
        rows.append(row(f'batch {batch}', *taken, warm_s=warm))
        notes.append(f'`compiling`, batch {batch}: the first step waits {warm:.0f} s for the compiler; it pays after {warm/max(1e-9, statistics.median(taken[1]) - statistics.median(taken[0])):,.0f} steps.')
    return dict(rows=rows, notes=notes)


def stepper(backbone, prepared, loss_class, config, times: int, walked: int):
    "A function that takes `times` optimizer steps on one album, walking through `walked` steps of the sampler where the loss does."
    from album_gan.experiments.training import OPTIMIZERS, new_conditioner
    conditioner = new_conditioner(config, backbone, prepared).to(DEVICE).train()
    loss_of, optimizer = loss_class(backbone, conditioner, config), OPTIMIZERS[config.optimizer](conditioner.parameter_groups(config.lr, config.gate_lr_scale, config.weight_decay))
    batch = there(noised(prepared.batch([0])) | loss_of.more(prepared, [0], torch.Generator().manual_seed(0)))
    if 'steps' in batch: batch['steps'] = torch.tensor([walked])

    def steps():
        conditioner.install(backbone.unet) # another may have been there in between
        for _ in range(times):
            loss_of(**batch).backward()
            if config.clip: torch.nn.utils.clip_grad_norm_(conditioner.parameters(), config.clip)
            optimizer.step(); optimizer.zero_grad()
    return steps


def paper_step() -> dict:
    "Training: one step of the paper's recipe (one album through 75 steps of DDPM with gradients, decoded, compared in pixels) / one denoising step of ours, both at batch 1 with their optimizer"
    from album_gan.experiments.paper import PixelLoss
    from album_gan.experiments.training import DenoisingLoss, TrainConfig
    make = lambda loss_class, config, times: stepper(*tiny(size(256, 16)), loss_class, config, times, size(75, 5))
    paper = lambda backprop: make(PixelLoss, TrainConfig.make('paper', fusion='cross', backprop=backprop), 1)
    times = size(20, 2)
    seconds = turns(size(7, 2), ours=make(DenoisingLoss, TrainConfig.make(batch_size=1), times), full=paper('full'), checkpoint=paper('checkpoint'))
    return dict(rows=[row('all activations kept', seconds['full'], seconds['ours'], '≥ 60', times), row('activations computed twice, as the recipe `paper` says', seconds['checkpoint'], seconds['ours'], '≥ 60', times)],
                notes=['`paper_step`: the recipe draws 1 to 150 steps an album; 75 is their mean.'])


# %% listening
def songs(n: int, seconds: int) -> list[Path]:
    "Synthetic songs in stereo at 44.1 kHz, mp3 and ogg by turns."
    from album_gan.data.sound import write_sound
    from album_gan.data.synth import MusicFactors, render_song
    out = []
    for i in range(n):
        part = render_song(MusicFactors(key=(2 + i) % 12), i, min(seconds, 30), 44100)
        song = np.tile(part, -(-seconds//30))[:seconds*44100]
        out.append(scratch()/f'song-{seconds}-{i}.{("mp3", "ogg")[i % 2]}')
        write_sound(out[-1], np.stack([song, 0.8*np.roll(song, 400)], 1), 44100)
    return out


def embedding() -> dict:
    "Listening: songs a second of our clip reading and the tiny encoder / of a plain loop (`librosa.load` of the whole file, cut 25 s, the same encoder)"
    import librosa

    from album_gan.audio.clips import clip_batches
    from album_gan.audio.encoders import encode_files, load_encoder
    encoder, rows, notes = load_encoder('tiny', device=DEVICE), [], []

    def cut(path):
        y, _ = librosa.load(path, sr=22050, mono=True)
        start = (len(y) - 25*22050)//2
        return y[start:start + 25*22050]
    for what, n, seconds, bound in (('full-length songs of 4 minutes', size(6, 2), size(240, 60), '≥ 6'), ('30 s previews', size(12, 2), 30, '≥ 1')):
        paths = songs(n, seconds)
        taken = turns(size(5, 2), ours=lambda: list(encode_files(encoder, paths)), plain=lambda: [encoder.encode([cut(p)]) for p in paths],
                      ours_read=lambda: list(clip_batches(paths, 8)), plain_read=lambda: [cut(p) for p in paths])
        rows += [row(f'{what}, reading and embedding', taken['plain'], taken['ours'], bound, songs=n), row(f'{what}, reading alone', taken['plain_read'], taken['ours_read'], '', songs=n)]
        def share(whole, read):
            part = 1 - statistics.median(taken[read])/statistics.median(taken[whole])
            return f'{part:.0%}' if part > 0 else 'too small a part to tell'
        notes.append(f"`embedding`, {what}: the encoder is {share('ours', 'ours_read')} of our time and {share('plain', 'plain_read')} of the plain loop's.")
    return dict(rows=rows, notes=notes + ['`embedding`: half of the songs are mp3, half ogg, from a warm cache of the disk; ours reads ahead in two threads, the plain loop does one thing after the other, as such loops do.'])


# %% painting
def pipeline() -> dict:
    "Painting: `AlbumCoverPipeline` / diffusers' `StableDiffusionPipeline` on the same backbone and scheduler (DDPM, 30 steps, guidance); seconds per U-Net row, which is what one cover costs in one call"
    from diffusers import StableDiffusionPipeline

    from album_gan.data.core import package_weights
    from album_gan.models.backbone import load_backbone, make_scheduler
    from album_gan.models.conditioner import MusicConditioner
    from album_gan.models.pipeline import AlbumCoverPipeline
    plain, backbone = load_backbone('tiny', device=DEVICE), load_backbone('tiny', device=DEVICE)
    scheduler = lambda name: make_scheduler(name, plain.scheduler.config)
    usual = StableDiffusionPipeline(**plain.components | dict(scheduler=scheduler('ddpm')), safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    conditioner = MusicConditioner.from_pretrained(package_weights('conditioner')).to(DEVICE).eval().requires_grad_(False)
    pipe = AlbumCoverPipeline.from_backbone(backbone, conditioner, scheduler='ddpm')
    for p in (usual, pipe): p.set_progress_bar_config(disable=True)
    steps, rows = size(30, 3), []
    for n in (1, 16):
        prompts = ['Create an album cover for the album Silver Moon. The genre is Jazz.']*n
        latents, music = torch.randn(n, *backbone.latent_shape, device=DEVICE), torch.randn(n, 134, conditioner.config.embed_dim, device=DEVICE)
        given = dict(num_inference_steps=steps, latents=latents, output_type='pt')
        ours = lambda text, heard: pipe(prompts, audio=music if heard else None, guidance_text=text, guidance_music=heard, generator=torch.Generator().manual_seed(0), **given).images
        theirs = lambda: usual(prompts, guidance_scale=2.0, generator=torch.Generator().manual_seed(0), **given).images
        apart = float((ours(2.0, 0) - theirs()).abs().max())
        assert apart < 0.02, f'the two pipelines paint different pictures without music: {apart}'
        taken = turns(size(9, 2), music=lambda: ours(2.0, 2.0), deaf=lambda: ours(2.0, 0), usual=theirs, three=lambda: ours(2.0, 3.0))
        s = 's' if n > 1 else ''
        rows += [row(f'{n} cover{s}, with music, both weights of guidance alike (2 rows a step, like theirs)', taken['music'], taken['usual'], '≤ 1.10', largest_difference_without_music=apart),
                 row(f'{n} cover{s}, with music, two weights of guidance (3 rows a step, theirs 2; per row)', taken['three'], taken['usual'], '≤ 1.10', 2/3),
                 row(f'{n} cover{s}, without music (2 rows a step)', taken['deaf'], taken['usual']),
                 row(f'{n} cover{s}: ours with music / ours without, 2 rows a step each', taken['music'], taken['deaf'], '≤ 1.10')]
    return dict(rows=rows, notes=['`pipeline`: music is handed over as an embedding; listening to a file comes on top and is what `embedding` measures. Both ask the U-Net once a step, for all rows together.'])


def solvers() -> dict:
    "Painting: DPM-Solver++ at 15 and 20 steps beside PNDM at 50, prompts only (table below)"
    import warnings

    from album_gan.data.covers import cover_image
    from album_gan.data.demo import demo_album
    from album_gan.experiments.metrics import CoverFeatures, features_of, fid_floor, fid_kid, kid_difference
    from album_gan.experiments.runs import Painting, paint
    from album_gan.models.backbone import load_backbone
    from album_gan.models.pipeline import AlbumCoverPipeline
    n, extractor, backbone = size(256, 8), CoverFeatures(), load_backbone('tiny', device=DEVICE)
    albums = [demo_album(i, 13) for i in range(2*n)] # a world that nothing was trained on
    drawn = features_of([cover_image(a.sleeve, backbone.resolution) for a in albums], extractor)
    albums, real, spare = albums[:n], drawn[:n], drawn[n:]
    found = {}
    for name, steps in (('dpm++', 15), ('dpm++', 20), ('pndm', 50), ('ddpm', 30)):
        pipe = AlbumCoverPipeline.from_backbone(backbone, scheduler=name)
        pipe.set_progress_bar_config(disable=True)
        start = clock()
        painted = paint(pipe, [a.prompt for a in albums], None, [a.album_id for a in albums], Painting(name, size(steps, 2)))
        seconds = clock() - start
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            found[f'{name} {steps}'] = fid_kid(real, features_of(painted, extractor)) | dict(scheduler=name, steps=steps, seconds=seconds)
    best = found['pndm 50']
    table = ['| solver | steps | FID | KID ± standard error | KID − that of PNDM at 50 (95 %) | time / PNDM at 50 |', '|---|--:|--:|---|---|--:|']
    for f in found.values():
        apart = '–' if f is best else '{:+.4f} ({:+.4f} to {:+.4f})'.format(*kid_difference(f, best))
        table.append(f"| {f['scheduler']} | {f['steps']} | {f['fid']:.1f} | {f['kid']:.4f} ± {f['kid_se']:.4f} | {apart} | {f['seconds']/best['seconds']:.2f} |")
    floor, compared = fid_floor(real, spare)
    title = f'## Solvers\n\n{n} covers painted from prompts alone against the drawn covers of the same synthetic albums, same starting noise, guidance 2. The floor, {compared}: {floor:.1f}. `ddpm` at 30 is what `train.ipynb` paints with. Times are of one run.'
    rows = [row(f"FID of {f['steps']} steps of DPM-Solver++ / of PNDM's 50", [f['fid']], [best['fid']]) for f in found.values() if f['scheduler'] == 'dpm++']
    return dict(rows=rows, notes=[], table=[title, '', *table], floor=floor, solvers=[{k: v for k, v in f.items() if k != 'kid_without'} for f in found.values()])


# %% many albums, many processes
def growth() -> dict:
    "Ten times as many albums, prepared and trained for one epoch in a process of its own: 2,000 / 200"
    few, many = size((200, 2000), (4, 12))
    said = {few: [], many: []}
    folders = {n: str(world(n)) for n in said}
    for n in (few, many, few): said[n].append(child('grow', folder=folders[n], out=str(scratch()/f'grow-{next(NUMBERS)}')))
    of = lambda n, key: [s[key] for s in said[n]]*(2 if n == many else 1)
    usual, shards = statistics.median(x for s in said[few] for x in s['album_s']), said[many][0]['album_s']
    rows = [row('peak memory', of(many, 'peak_mib'), of(few, 'peak_mib'), '≤ 1.10', said={str(n): s for n, s in said.items()}),
            row('peak memory without pages of the memory-mapped dataset, which the system takes back when it needs them', of(many, 'own_mib'), of(few, 'own_mib'), '≤ 1.10'),
            row('seconds an album to prepare, each shard of 64 / the median of the small runs', shards, [usual]*len(shards), '≤ 1.10'),
            row('seconds a step to train', of(many, 'step_s'), of(few, 'step_s'), '≤ 1.10')]
    return dict(rows=rows, notes=[f"`growth`: {few} albums take {statistics.median(of(few, 'peak_mib')):,.0f} MiB, {many:,} take {statistics.median(of(many, 'peak_mib')):,.0f} MiB, libraries and models included; {statistics.median(of(many, 'peak_mib')) - statistics.median(of(few, 'peak_mib')):,.0f} MiB more for a dataset of {said[many][0]['dataset_mib']:,.0f} MiB."
                                  " The large run lies between two small ones; songs last 2 s, but the encoder hears 25."])


def grow(folder: str, out: str) -> dict:
    "Prepare an album folder and train for an epoch."
    from album_gan.experiments.prepare import prepare
    from album_gan.experiments.training import TrainConfig, train
    from album_gan.models.backbone import load_backbone
    with Memory() as memory:
        backbone = load_backbone('tiny', device=DEVICE)
        start = clock()
        prepared = prepare(folder, backbone, 'tiny', test=0, out=out)
        ready, steps = clock(), -(-len(prepared.rows)//16)
        train(prepared, backbone, TrainConfig.make(max_steps=steps), Path(out)/'run', checkpoint_every=10**6)
        done = clock()
    written = sorted(f.stat().st_mtime for f in prepared.folder.glob('shard-*.json'))[:len(prepared.rows)//64]
    return dict(album_s=[(b - a)/64 for a, b in pairwise(written)] or [(ready - start)/len(prepared.rows)], step_s=(done - ready)/steps, albums=len(prepared.rows), dataset_mib=sum(f.stat().st_size for f in prepared.folder.glob('*.arrow'))/2**20, **memory.said())


class Workers:
    "Training processes that wait, without computing, until they are told to go on for some steps."
    def __init__(self, prepared, steps: int, threads: int, n: int = 1):
        given = dict(folder=str(prepared.albums), out=str(prepared.folder.parent), steps=steps)
        self.all = [subprocess.Popen(_command('steps', given), env=_environment(threads), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1) for _ in range(n)]
    def __enter__(self):
        try: self._ready()
        except BaseException: self.__exit__(); raise
        return self
    def __exit__(self, *_):
        for w in self.all: w.stdin.close() # at its next turn it ends, and takes its scratch folder with it
        for w in self.all: w.wait()
    def __call__(self):
        for w in self.all: w.stdin.write('go\n'); w.stdin.flush()
        self._ready()
    def _ready(self):
        for w in self.all:
            while (line := w.stdout.readline()) != 'ready\n':
                if not line: raise RuntimeError('a training process ended early')


def processes() -> dict:
    "Training steps a second, batch 16: two processes with one thread each / one process with two threads"
    _, prepared = tiny(size(256, 16))
    with Workers(prepared, size(20, 2), 2) as one, Workers(prepared, size(20, 2), 1, 2) as two:
        taken = turns(size(9, 2), one=one, two=two)
    return dict(rows=[row('', taken['one'], taken['two'], '≥ 1.2', 2)], notes=['`processes`: idle processes wait for their turn without computing.'])


def steps(folder: str, out: str, steps: int) -> None:
    "Train, `steps` steps each time a line comes in."
    from album_gan.experiments.prepare import prepare
    from album_gan.models.backbone import load_backbone
    backbone = load_backbone('tiny')
    prepared = prepare(folder, backbone, 'tiny', test=0, out=out)

    def wait(_):
        print('ready', flush=True)
        if not sys.stdin.readline(): sys.exit()
    beside_training(backbone, prepared, 16, steps, wait, 10**4)


def synthesis() -> dict:
    "Demo world: 200 songs of 30 s on one core / on all cores, the start of the processes included"
    from album_gan.data.demo import demo_folder
    def make(workers): shutil.rmtree(demo_folder(size(200, 4), seed=3, seconds=size(30.0, 2.0), out=scratch()/f'made-{next(NUMBERS)}', workers=workers))
    taken = turns(size(3, 2), one=lambda: make(1), all=lambda: make(None))
    return dict(rows=[row('', taken['one'], taken['all'])], notes=[])


# %% real size
@cache
def real_size(pixels: int, narrow: int, albums: int) -> tuple[Path, Path]:
    "Random weights in miniSD's layout, and demo albums."
    from album_gan.data.demo import demo_folder
    folder = scratch()/f'miniSD-{pixels}-{narrow}'
    child('build', folder=str(folder), pixels=pixels, narrow=narrow)
    return folder, demo_folder(albums, seed=11, seconds=2.0, size=min(pixels, 256), out=scratch()/f'real-{albums}')


def real_memory(narrow: int = 1, pixels: int = 256, albums: int = 8, batch: int = 4) -> dict:
    "Peak memory at real size (miniSD's layout, random weights): preparing and training ours / fine-tuning the whole U-Net in 32 bits (AdamW, activations computed twice), batch 4, two steps"
    from album_gan.audio.devices import fast_dtype
    (folder, demo), fast = real_size(pixels, narrow, albums), str(fast_dtype(DEVICE)).removeprefix('torch.')
    given = dict(backbone=str(folder), albums=str(demo), batch=batch)
    whole = child('tune_all', **given)
    said = {dtype: child('tune_ours', dtype=dtype, out=str(scratch()/f'real-{dtype}'), **given) for dtype in dict.fromkeys(('float32', fast))}
    key, besides, rest = ('gpu_mib', 'peak_mib', "of the processor's memory") if DEVICE == 'cuda' else ('peak_mib', 'own_mib', 'without pages of files')
    gib = lambda s: f'{s[key]/1024:.2f} GiB'
    rows = [row(f'ours in {dtype}' + (', the default on this hardware' if dtype == fast else ''), [s[key]], [whole[key]], '≤ 0.40', said=s, whole=whole) for dtype, s in said.items()]
    each = [f"{gib(s)} in {dtype} ({s[besides]/1024:.2f} {rest})" for dtype, s in said.items()]
    return dict(rows=rows, notes=[f"`real_memory`: {'; '.join(each)}; the whole U-Net of {whole['millions']:.0f} M weights {gib(whole)} ({whole[besides]/1024:.2f}). One run each."])


def real_training(narrow: int = 1, pixels: int = 256, albums: int = 64, batch: int = 16) -> dict:
    "Training at real size (miniSD's layout, random weights): a step of ours / a step of a loop after diffusers' train_text_to_image.py, which tunes the whole U-Net and encodes picture and prompt in every step; batch 16, each in a process of its own"
    folder, demo = real_size(pixels, narrow, albums)
    given = dict(backbone=str(folder), albums=str(demo), batch=batch, rounds=size(12, 2))
    theirs = {mixed: child('real_steps', mixed=mixed, **given) for mixed in ('no', 'bf16')}
    rows, notes = [], []
    for dtype, checkpointing, mixed in (('float32', False, 'no'), ('bfloat16', False, 'bf16'), ('bfloat16', True, 'bf16')):
        ours = child('real_steps', dtype=dtype, checkpointing=checkpointing, **given)
        usual = theirs[mixed]
        rows.append(row(f"ours in {dtype}{', activations computed twice' if checkpointing else ''}; theirs with --mixed_precision {mixed}", ours['seconds'], usual['seconds'], said=ours, theirs=usual))
        key = 'gpu_mib' if DEVICE == 'cuda' else 'peak_mib'
        notes.append(f"`real_training`, {rows[-1]['what']}: {1000*rows[-1]['above']:,.0f} ms a step and {ours[key]/1024:.1f} GiB; theirs {1000*rows[-1]['below']:,.0f} ms and {usual[key]/1024:.1f} GiB.")
    return dict(rows=rows, notes=notes)


def real_paper(narrow: int = 1, pixels: int = 256, albums: int = 8, walked: int = 75) -> dict:
    "The paper's recipe at real size (miniSD's layout, random weights): one step (an album through 75 steps of DDPM with gradients, activations computed twice) / one denoising step of ours, both at batch 1 and 32 bits"
    folder, demo = real_size(pixels, narrow, albums)
    rows, notes = [], []
    for fusion in ('cross', 'concat'):
        said = child('paper_steps', fusion=fusion, backbone=str(folder), albums=str(demo), walked=size(walked, 3))
        rows.append(row(fusion, [said['paper']], [said['ours']], said=said))
        notes.append(f"`real_paper`, {fusion}: {said['paper']:.1f} s a step, {said.get('gpu_mib', said['peak_mib'])/1024:.1f} GiB at the peak.")
    return dict(rows=rows, notes=notes)


def build(folder: str, pixels: int, narrow: int) -> dict:
    "Random weights of the real shape."
    from album_gan.models.backbone import save_backbone
    from album_gan.models.real_backbones import untrained_backbone
    save_backbone(untrained_backbone('sd1', pixels, narrow), folder, torch.float32)
    return {}


def tune_ours(backbone: str, albums: str, batch: int, dtype: str, out: str) -> dict:
    "Prepare and train, as train.ipynb does."
    from album_gan.experiments.prepare import prepare
    from album_gan.experiments.training import TrainConfig, train
    from album_gan.models.backbone import load_backbone
    with Memory() as memory:
        loaded = load_backbone(backbone, dtype=dtype, device=DEVICE)
        prepared = prepare(albums, loaded, 'tiny', test=0, out=out)
        train(prepared, loaded, TrainConfig.make(batch_size=batch, max_steps=2), Path(out)/'run')
    return memory.said()


def tune_all(backbone: str, albums: str, batch: int) -> dict:
    "Two steps of fine-tuning the U-Net itself: gradients and two moments for every weight."
    from album_gan.data.folder import read_albums
    from album_gan.experiments.prepare import _cover_tensor
    from album_gan.models.backbone import encode_covers, encode_prompts, load_backbone, make_scheduler
    with Memory() as memory:
        loaded = load_backbone(backbone, dtype='float32', device=DEVICE, checkpointing=True)
        table, schedule = read_albums(albums).iloc[:batch], make_scheduler('ddpm', loaded.scheduler.config)
        unet = loaded.unet.train().requires_grad_(True)
        optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-5)
        for _ in range(2):
            latents = encode_covers(loaded, torch.stack([_cover_tensor(Path(albums)/c, loaded.resolution) for c in table.cover]))
            text = encode_prompts(loaded, [f'Create an album cover for the album {a}. The genre is {g}.' for a, g in zip(table.album, table.genre)])
            batch_of = there(noised(dict(latents=latents.cpu())))
            predicted = unet(schedule.add_noise(latents, batch_of['noise'], batch_of['timesteps']), batch_of['timesteps'], encoder_hidden_states=text).sample
            F.mse_loss(predicted, batch_of['noise']).backward()
            torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
            optimizer.step(); optimizer.zero_grad()
    return dict(memory.said(), millions=sum(p.numel() for p in unet.parameters())/1e6)


def real_steps(backbone: str, albums: str, batch: int, rounds: int, dtype: str = '', checkpointing: bool = False, mixed: str = '') -> dict:
    "Seconds of steps: of `train` in `dtype`, or of the script with `mixed` precision."
    from album_gan.experiments.prepare import prepare
    from album_gan.models.backbone import load_backbone
    with Memory() as memory:
        loaded = load_backbone(backbone, dtype=dtype or 'float32', device=DEVICE, checkpointing=checkpointing)
        prepared = prepare(albums, loaded, 'tiny', test=0, out=scratch()/'real')
        if dtype: seconds, _ = beside_training(loaded, prepared, batch, 1, lambda _: None, rounds)
        else:
            epoch, n = diffusers_loop(loaded, prepared, pictures(prepared, loaded.resolution), batch, True, mixed), len(prepared.rows)//batch
            for part in (loaded.vae, loaded.text_encoder): part.to(torch.bfloat16 if mixed == 'bf16' else torch.float32)
            seconds = [s/n for s in turns(max(2, rounds//n), theirs=epoch)['theirs'] for _ in range(n)][:rounds]
    return dict(memory.said(), seconds=seconds)


def paper_steps(fusion: str, backbone: str, albums: str, walked: int) -> dict:
    "Seconds of one step of the paper's recipe, and of one of ours with the same fusion."
    from album_gan.experiments.paper import PixelLoss
    from album_gan.experiments.prepare import prepare
    from album_gan.experiments.training import DenoisingLoss, TrainConfig
    from album_gan.models.backbone import load_backbone
    with Memory() as memory:
        loaded = load_backbone(backbone, dtype='float32', device=DEVICE, checkpointing=False)
        prepared = prepare(albums, loaded, 'tiny', test=0, out=scratch()/'real')
        ours = stepper(loaded, prepared, DenoisingLoss, TrainConfig.make(fusion=fusion, batch_size=1), 1, 1)
        paper = stepper(loaded, prepared, PixelLoss, TrainConfig.make('paper', fusion=fusion), 1, walked)
        seconds = {}
        for name, step in (('ours', ours), ('paper', paper)):
            if name == 'ours': step()
            start = clock()
            step()
            seconds[name] = clock() - start
    return dict(memory.said(), **seconds)


# %% the page
BENCHMARKS = {f.__name__: f for f in (step_overhead, epoch, compiling, paper_step, real_memory, real_training, real_paper, embedding, pipeline, solvers, growth, processes, synthesis)}
REAL = {'real_memory', 'real_training', 'real_paper'} # minutes and many gigabytes
WHEN_ASKED = REAL | ({'growth', 'processes', 'synthesis'} if DEVICE == 'cuda' else set())
CHILDREN = {f.__name__: f for f in (grow, steps, build, tune_ours, tune_all, real_steps, paper_steps)}


def line(what: str, r: dict | None = None) -> str:
    "A row of the table; without numbers the heading of those below it."
    if r is None: return f'| {what} | | | | |'
    number = lambda x: f'{x:.3g}' if x >= 10 else f'{x:.2f}'
    spread = f' ± {number(r["spread"])}' if r['spread'] is not None else ''
    if r['bound'] and number(r['ratio']) == number(float(r['bound'].split()[1])): number = lambda x: f'{x:.3f}' # which side of its bound it is on
    return f"| {what} | {number(r['ratio'])}{spread} | {r['rounds']} | {r['bound'] or '–'} | {'–' if r['kept'] is None else 'yes' if r['kept'] else '**no**'} |"


def markdown(results: dict) -> str:
    "The results as a page."
    found = {n: results['benchmarks'][n] for n in BENCHMARKS if n in results['benchmarks']}
    machines = sorted({r['machine'] for r in found.values()})
    busy = {n: r['busy_elsewhere'] for n, r in found.items()}
    noisy = [f'`{n}` ({b:.0%})' for n, b in busy.items() if b > 0.1]
    lines = ['# Speed and memory' + (' on a GPU' if DEVICE == 'cuda' else ''), '', f"Made by `python benchmarks/run.py` on {'; '.join(machines)}. Every ratio is what stands before the stroke / what stands behind it: the median of the rounds, run turn and turn about, ± half the "
             "interquartile range. *Kept* compares that median with the bound. Albums and songs are synthetic.", '', '| what | ratio ± | rounds | bound | kept? |', '|---|---|--:|---|---|']
    for n, r in found.items():
        doc, rows = f'**{BENCHMARKS[n].__doc__.strip()}**', r['rows']
        lines += [line(doc, rows[0])] if len(rows) == 1 and not rows[0]['what'] else [line(doc), *(line(x['what'], x) for x in rows)]
    for r in found.values(): lines += ['', *r['table']] if r.get('table') else []
    lines += ['', '## Remarks', '', *(f'- {note}' for r in found.values() for note in r['notes']),
              f"- Noise: before each benchmark other work kept {min(busy.values()):.0%} to {max(busy.values()):.0%} of the processors busy" + (f"; more than a tenth before {', '.join(noisy)}, whose numbers are rough." if noisy else '.'),
              '- The same ratio moves by up to 5 % from one run to the next, more than the spread within a run tells.' if DEVICE == 'cpu' else
              '- The small networks wait for the processor to start their kernels: the same ratio moved by up to a quarter from one machine with this card to the next.',
              '- Not measured: several GPUs, networks in 16 bits other than the large frozen one, other operating systems.' if DEVICE == 'cuda' else
              '- A GPU has a page of its own, `results/gpu/benchmarks.md`, made by the same script. Not measured: other processors than those named above, a cold cache of the disk, other operating systems.']
    if missing := [f'`{n}`' for n in BENCHMARKS if n not in found]: lines.append(f"- Not run yet: {', '.join(missing)}.")
    return '\n'.join(lines) + '\n'


def main() -> None:
    "Run what is asked for and write it down."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('names', nargs='*', metavar='name', help=f"which: {', '.join(BENCHMARKS)}; without names all but {', '.join(sorted(WHEN_ASKED))}")
    parser.add_argument('--miniature', action='store_true', help='everything very small; writes nothing')
    parser.add_argument('--child', nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child: return print(json.dumps(CHILDREN[args.child[0]](**json.loads(args.child[1]))))
    if unknown := set(args.names) - set(BENCHMARKS): sys.exit(f"There is no benchmark called {', '.join(sorted(unknown))}; choose from: {', '.join(BENCHMARKS)}.")
    file = PAGE.with_suffix('.json')
    results = json.loads(file.read_text(encoding='utf-8')) if file.exists() else {'benchmarks': {}}
    machine = f"{torch.cuda.get_device_name() + ', ' if DEVICE == 'cuda' else ''}{len(os.sched_getaffinity(0))} cores of {processor()} with {torch.backends.cpu.get_cpu_capability()} ({torch.get_num_threads()} threads), Python {platform.python_version()}, torch {torch.__version__}"
    for name in args.names or [n for n in BENCHMARKS if n not in WHEN_ASKED]:
        busy, start = psutil.cpu_percent(2.0)/100, clock()
        made = BENCHMARKS[name](**dict(narrow=8, pixels=64, albums=2, **({} if name == 'real_paper' else dict(batch=2))) if SMALL and name in REAL else {})
        results['benchmarks'][name] = made | dict(machine=machine, busy_elsewhere=busy, took_s=round(clock() - start, 1))
        for r in made['rows']: print(line(f"{name} {r['what']}", r), flush=True)
        print('\n'.join(made.get('table', []) + [f'- {n}' for n in made['notes']] + [f"  {name} took {clock() - start:.0f} s; before, other work kept {busy:.0%} of the processors busy"]), flush=True)
        if SMALL: continue
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(results, indent=1, default=float) + '\n', encoding='utf-8')
        PAGE.write_text(markdown(results), encoding='utf-8')
    if SMALL: print(markdown(results))


def processor() -> str:
    "The processor's name."
    try: return next(s.split(':')[1].strip() for s in Path('/proc/cpuinfo').read_text().splitlines() if s.startswith('model name'))
    except (OSError, StopIteration): return platform.processor() or platform.machine()


if __name__ == '__main__':
    try: main()
    finally:
        if _scratch.cache_info().currsize: _scratch().cleanup()
