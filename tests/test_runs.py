"""The promises that a whole run makes: it resumes to the same weights, refuses wrong names, and the committed results say what the README says."""
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent
ENV = {**os.environ, 'OMP_NUM_THREADS': '1', 'IN_TEST': '1'}
SEEDS = (0, 1, 2)

TRAIN = '''
import sys
from album_gan.experiments.prepare import prepare
from album_gan.experiments.training import TrainConfig, train
from album_gan.models.backbone import load_backbone
albums, cache, run = sys.argv[1:4]
backbone = load_backbone("tiny")
prepared = prepare(albums, backbone, "tiny", out=cache)
train(prepared, backbone, TrainConfig.make(fusion="gated", max_steps=16, batch_size=8), run, checkpoint_every=3)
'''


@pytest.fixture(scope='module')
def albums(tmp_path_factory):
    "Sixteen demo albums with short songs."
    from album_gan.data.demo import demo_folder
    return demo_folder(16, seed=5, seconds=6.0, out=tmp_path_factory.mktemp('albums')/'demo', workers=1)


def test_killed_training_ends_with_the_same_weights(albums, tmp_path):
    command = lambda run: [sys.executable, '-c', TRAIN, str(albums), str(tmp_path/'cache'), str(tmp_path/run)]
    subprocess.run(command('whole'), env=ENV, cwd=ROOT, check=True, stdin=subprocess.DEVNULL)
    process = subprocess.Popen(command('killed'), env=ENV, cwd=ROOT, stdin=subprocess.DEVNULL)
    deadline = time.time() + 120
    while not list((tmp_path/'killed'/'checkpoints').glob('*/step-*')) and time.time() < deadline: time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list((tmp_path/'killed'/'checkpoints').glob('*/step-*')) and not (tmp_path/'killed'/'weights').exists()
    subprocess.run(command('killed'), env=ENV, cwd=ROOT, check=True, stdin=subprocess.DEVNULL)
    whole, killed = (load_file(tmp_path/run/'weights'/'diffusion_pytorch_model.safetensors') for run in ('whole', 'killed'))
    assert whole.keys() == killed.keys() and all(torch.equal(whole[k], killed[k]) for k in whole)
    assert (tmp_path/'whole'/'loss.csv').read_bytes() == (tmp_path/'killed'/'loss.csv').read_bytes()


def papermill(*arguments):
    return subprocess.run([sys.executable, '-m', 'papermill', str(ROOT/'nbs'/'train.ipynb'), os.devnull, '--no-progress-bar', *arguments],
                          env=ENV, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def test_wrong_value_is_refused_with_the_choices():
    done = papermill('-p', 'fusion', 'crosss')
    assert done.returncode and "no fusion called 'crosss'; choose one of: none, concat, cross, gated" in done.stderr


def test_wrong_name_is_refused_with_the_names():
    done = papermill('-p', 'fusoin', 'cross')
    assert done.returncode and 'Unknown parameter fusoin; this notebook has: ' in done.stderr and 'fusion' in done.stderr


def test_shipped_weights_are_small_and_safe():
    files = [f for f in (ROOT/'album_gan'/'weights').rglob('*') if f.is_file()]
    assert sum(f.stat().st_size for f in files if f.name != 'covers.safetensors') <= 30e6  # which holds thumbnails of training covers
    assert {f.suffix for f in files} <= {'.safetensors', '.json', '.txt', '.py', '.pyc', '.md'}
    for name in ('encoder', 'backbone', 'backbone-sd', 'conditioner'):
        record = json.loads((ROOT/'album_gan'/'weights'/name/'training.json').read_text(encoding='utf-8'))
        assert record['seed'] >= 0 and record['data']


@pytest.mark.parametrize('name', ('backbone', 'backbone-sd', 'conditioner'))
def test_recorded_hash_is_that_of_the_weights(name):
    from album_gan.data.core import folder_sha256, package_weights
    record = json.loads((package_weights(name)/'training.json').read_text(encoding='utf-8'))
    assert record['sha256'] == folder_sha256(package_weights(name), '**/*model*.safetensors')


@pytest.fixture(scope='module')
def committed():
    "metrics.json of the committed gated runs, by seed."
    found = {s: ROOT/'results'/'runs'/f'demo-gated-ddpm-modern-s{s}'/'metrics.json' for s in SEEDS}
    assert all(f.exists() for f in found.values())
    return {s: json.loads(f.read_text(encoding='utf-8')) for s, f in found.items()}


@pytest.mark.parametrize('seed', SEEDS)
def test_committed_runs_hear_the_music(committed, seed):
    run = committed[seed]
    metrics, factors = run['metrics'], run['metrics']['factors']
    assert run['synthetic'] is True and metrics['n'] >= 100
    assert factors['hue']['true'] <= factors['hue']['shuffled']/3
    assert sum(f['gain_ci'][0] > 0 for name, f in factors.items() if name != 'hue') >= 2
    assert metrics['music_gain_ci'][0] > 0
    assert metrics['prompt_only']['kid_worse_ci'][0] <= 0  # KID, unbiased at this size: not significantly worse than prompt-only's


@pytest.mark.parametrize('seed', SEEDS)
def test_runs_on_an_untouched_world_hear_the_music_at_no_cost(seed):
    "A demo world on which nothing was tuned: the same claims, and FID is not worse than prompt-only's either."
    file = ROOT/'results'/'runs'/f'modern-gated-s{seed}'/'metrics.json'
    metrics = json.loads(file.read_text(encoding='utf-8'))['metrics']
    assert metrics['n'] >= 100 and metrics['music_gain_ci'][0] > 0
    assert metrics['factors']['hue']['true'] <= metrics['factors']['hue']['shuffled']/3
    assert sum(f['gain_ci'][0] > 0 for name, f in metrics['factors'].items() if name != 'hue') >= 2
    assert metrics['fid'] <= metrics['prompt_only']['fid']
    assert metrics['prompt_only']['kid_worse_ci'][0] <= 0


def test_readme_numbers_are_those_of_the_results(committed):
    page = (ROOT/'README.md').read_text(encoding='utf-8')
    for run in committed.values():
        hue = run['metrics']['factors']['hue']
        assert f"{hue['true']:.2f} / {hue['shuffled']:.2f} / {hue['off']:.2f}" in page


def test_readme_picture_comes_from_a_committed_run():
    page = (ROOT/'README.md').read_text(encoding='utf-8')
    picture = page.split('](')[1].split(')')[0]
    assert picture.startswith('results/runs/demo-gated-') and (ROOT/picture).stat().st_size > 10_000
