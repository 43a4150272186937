"""A whole run of nbs/train.ipynb on a backbone of Stable Diffusion's real size: minutes and memory.

    python benchmarks/real_size.py                     # builds random weights in miniSD's layout (4 GB on disk), runs, writes real_size.json and .md
    python benchmarks/real_size.py --folder my/miniSD  # the same with weights that are there already
    python benchmarks/real_size.py -p fusion cross -p recipe paper -p max_steps 1 -p albums demo-8 -p n_eval 2 -p num_inference_steps 1  # other parameters of the notebook; writes real_size-cross-paper

Random weights take the same time and memory as real ones; the pictures are noise.
"""
import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent


def build(folder: Path) -> dict:
    "Random weights in 32 bits, in miniSD's layout and sizes."
    from album_gan.models.backbone import save_backbone
    from album_gan.models.real_backbones import untrained_backbone
    start = time.perf_counter()
    backbone = untrained_backbone('sd1', 256)
    sizes = {n: sum(p.numel() for p in m.parameters()) for n, m in backbone.modules.items()}
    save_backbone(backbone, folder, torch.float32)
    return {'weights': sizes, 'gigabytes': round(sum(f.stat().st_size for f in folder.rglob('*.safetensors'))/1e9, 2), 'build_s': round(time.perf_counter() - start, 1)}


def run(folder: Path, parameters: list[list[str]]) -> dict:
    "papermill in a process of its own; its largest child is the notebook's kernel."
    with tempfile.TemporaryDirectory() as d:
        named = dict([('backbone', str(folder)), ('fusion', 'gated'), ('max_steps', '2'), *parameters])
        command = [sys.executable, '-m', 'papermill', str(HERE.parent/'nbs'/'train.ipynb'), f'{d}/out.ipynb', '-p', 'results', f'{d}/results', '-p', 'run', 'real']
        for name, value in named.items(): command += ['-p', name, value]
        start = time.perf_counter()
        with open(f'{d}/err', 'w+') as err:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=err, env=os.environ | {'ALBUM_GAN_DATA': f'{d}/data', 'ALBUM_GAN_ROOT': str(HERE.parent)})
            _, status, usage = os.wait4(process.pid, 0)  # of this process and those it waited for
            seconds = time.perf_counter() - start
            if status: err.seek(0); sys.exit(err.read()[-3000:])
        cells = [(c['metadata'].get('papermill', {}).get('duration') or 0, next(line for line in ''.join(c['source']).strip().splitlines() if not line.startswith('#|'))) for c in json.loads(Path(f'{d}/out.ipynb').read_text())['cells'] if c['cell_type'] == 'code' and c['source']]
        about = json.loads((Path(d)/'results'/'runs'/'real'/'config.json').read_text())
    return {'parameters': {k: v for k, v in named.items() if k != 'backbone'}, 'minutes': round(seconds/60, 2), 'peak_gib': round(usage.ru_maxrss/2**20, 2), 'cpu_s': round(usage.ru_utime + usage.ru_stime),
            'albums': about['data']['albums'], 'n_eval': about['painting']['n_eval'], 'steps': about['painting']['num_inference_steps'],
            'cells': [{'seconds': round(s, 1), 'cell': first} for s, first in cells if s > 1]}


if __name__ == '__main__':
    from album_gan.audio.devices import fast_dtype
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--folder', type=Path, help='a backbone; made with random weights when left out')
    parser.add_argument('--build', type=Path, help=argparse.SUPPRESS)
    parser.add_argument('-p', nargs=2, action='append', default=[], metavar=('NAME', 'VALUE'), help="a parameter of the notebook")
    args = parser.parse_args()
    if args.build: print(json.dumps(build(args.build))); sys.exit()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as d:
        made = {} # built in a process of its own: a child's peak begins with its parent's
        if not args.folder: made = json.loads(subprocess.run([sys.executable, __file__, '--build', f'{d}/miniSD'], check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout.splitlines()[-1])
        result = run(args.folder or Path(d)/'miniSD', args.p)
    name = 'real_size' + ''.join(f'-{v}' for k, v in args.p if k in ('fusion', 'recipe'))
    result |= {'backbone': made, 'precision': str(fast_dtype('cpu')).removeprefix('torch.'), 'cores': len(os.sched_getaffinity(0)), 'threads': torch.get_num_threads(), 'load_before': round(load, 2), 'torch': torch.__version__, 'capability': torch.backends.cpu.get_cpu_capability(), 'processor': platform.processor() or platform.machine()}
    (HERE/f'{name}.json').write_text(json.dumps(result, indent=1) + '\n', encoding='utf-8')
    lines = [f"# A run at real size: {', recipe '.join(result['parameters'][k] for k in ('fusion', 'recipe') if k in result['parameters'])}", '', f"`papermill nbs/train.ipynb` with {', '.join(f'`-p {k} {v}`' for k, v in result['parameters'].items())} and a backbone of miniSD's sizes with random weights: "
             f"**{result['minutes']} minutes ({result['cpu_s']:,} CPU-seconds), {result['peak_gib']} GiB** at the peak, in {result['precision']}, {result['cores']} cores with {result['capability']} ({result['threads']} threads; load before the start {result['load_before']}).",
             f"{result['albums']} synthetic albums, {result['n_eval']} songs measured, {result['steps']} steps a cover. Made by `benchmarks/real_size.py`.", '', '| seconds | cell |', '|--:|---|']
    lines += [f"| {c['seconds']} | `{c['cell'][:90]}` |" for c in result['cells']]
    (HERE/f'{name}.md').write_text('\n'.join(lines) + '\n', encoding='utf-8')
    print('\n'.join(lines))
