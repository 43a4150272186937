"""The promises that a whole run makes: it refuses wrong names, and the committed results say what the README says."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ENV = {**os.environ, 'OMP_NUM_THREADS': '1', 'IN_TEST': '1'}
SEEDS = (0, 1, 2)


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
@pytest.mark.parametrize('preset', ('gated-long', 'modern-gated'))
def test_runs_on_an_untouched_world_hear_the_music_at_no_cost(preset, seed):
    "A demo world on which nothing was tuned: the same claims, and with as many steps as by default FID is not worse than prompt-only's either."
    file = ROOT/'results'/'runs'/f'{preset}-s{seed}'/'metrics.json'
    metrics = json.loads(file.read_text(encoding='utf-8'))['metrics']
    assert metrics['n'] >= 100 and metrics['music_gain_ci'][0] > 0
    assert metrics['factors']['hue']['true'] <= metrics['factors']['hue']['shuffled']/3
    assert sum(f['gain_ci'][0] > 0 for name, f in metrics['factors'].items() if name != 'hue') >= 2
    if preset == 'gated-long': assert metrics['fid'] <= metrics['prompt_only']['fid']
    assert metrics['prompt_only']['kid_worse_ci'][0] <= 0


def test_readme_numbers_are_those_of_the_results(committed):
    page = (ROOT/'README.md').read_text(encoding='utf-8')
    for run in committed.values():
        hue = run['metrics']['factors']['hue']
        assert f"{hue['true']:.2f} / {hue['shuffled']:.2f} / {hue['off']:.2f}" in page


def test_the_stored_notebook_shows_the_committed_run(committed):
    metrics, page = committed[0]['metrics'], (ROOT/'nbs'/'train.ipynb').read_text(encoding='utf-8')
    assert f"{1e3*metrics['kid']:.1f} ± {1e3*metrics['kid_se']:.1f}" in page and f"{metrics['music_true']:.3f}" in page


def test_readme_picture_comes_from_a_committed_run():
    page = (ROOT/'README.md').read_text(encoding='utf-8')
    picture = page.split('](')[1].split(')')[0]
    assert picture.startswith('results/runs/demo-gated-') and (ROOT/picture).stat().st_size > 10_000
