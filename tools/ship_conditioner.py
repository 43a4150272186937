"""Put a run's conditioner into the package, in half precision: what `album-cover` and `nbs/generate.ipynb` use by default.

    python tools/ship_conditioner.py demo-gated-ddpm-modern-s0
"""
import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch

from album_gan.data.core import folder_sha256, write_json
from album_gan.models.conditioner import MusicConditioner
from album_gan.studio.share import export_model

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT/'album_gan'/'weights'/'conditioner'


def main(name: str) -> int:
    "Copy weights, the index of training covers and what is known of them; returns the exit code."
    run = ROOT/'results'/'runs'/name
    MusicConditioner.from_pretrained(run/'weights').to(torch.float16).save_pretrained(OUT)
    (OUT/'__init__.py').touch()
    with tempfile.TemporaryDirectory() as exported:  # the index of training covers is this run's, not the one before's
        shutil.copyfile(export_model(run, exported)/'covers.safetensors', OUT/'covers.safetensors')
    about, metrics = (json.loads((run/f).read_text(encoding='utf-8')) for f in ('config.json', 'metrics.json'))
    write_json(OUT/'training.json', dict(
        made_by=f'nbs/train.ipynb, run {name}', albums=about['albums'], run=name, train=about['train'], painting=about['painting'], data=about['data'],
        seed=about['train']['seed'], metrics=f'results/runs/{name}/metrics.json', synthetic=metrics['synthetic'], torch=torch.__version__,
        sha256=folder_sha256(OUT, '**/*model*.safetensors')))
    print(f"{sum(f.stat().st_size for f in OUT.iterdir())/1e3:.0f} kB in {OUT.relative_to(ROOT)}")
    return 0


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
