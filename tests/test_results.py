"""The results: metrics against independent implementations, flat memory, a sweep that can be killed, and tables that tell good from bad."""
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from album_gan.data.core import AlbumGanError
from album_gan.experiments import controls
from album_gan.experiments.controls import copied, density_coverage, look_at_arm, song_rank
from album_gan.experiments.experiment import is_finished, run_folder, run_stamp
from album_gan.experiments.presets import PRESETS, SIZES, TABLE, settings
from album_gan.experiments.tables import Row, caption, claims, invented_rows, paper_table, read_rows, set_mean, tidy, unguided_table, write_tables
from drawn_world import DrawnWorld, Eyes

ROOT = Path(__file__).resolve().parent.parent
rng = np.random.default_rng(0)


# --- metrics (FID against scipy and KID against a double loop: test_metrics.py)

@pytest.mark.parametrize('k', [1, 5])
def test_density_and_coverage_equal_nearest_neighbours(k):
    real, fake = rng.standard_normal((80, 12)), rng.standard_normal((60, 12))*1.2
    radius = NearestNeighbors(n_neighbors=k + 1).fit(real).kneighbors(real)[0][:, k]
    inside = [NearestNeighbors().fit(fake).radius_neighbors(real[i:i + 1], radius[i], return_distance=False)[0] for i in range(80)]
    density, coverage = density_coverage(real, fake, k)
    assert density.mean() == pytest.approx(sum(map(len, inside))/(k*60), rel=1e-4)
    assert coverage.mean() == pytest.approx(np.mean([len(i) > 0 for i in inside]), rel=1e-4)


def test_copied_equals_nearest_neighbours():
    train = rng.standard_normal((50, 6))
    fake = np.concatenate([train[:10] + 1e-3, rng.standard_normal((20, 6))])
    near, at = NearestNeighbors(n_neighbors=1).fit(train).kneighbors(fake)
    fellow = NearestNeighbors(n_neighbors=2).fit(train).kneighbors(train)[0][:, 1]
    assert copied(train, fake).tolist() == (near[:, 0] < fellow[at[:, 0]]).astype(float).tolist() and copied(train, fake)[:10].all()


def test_song_rank_equals_counting():
    like, artists = rng.standard_normal((12, 12)), np.array([f'a{i//2}' for i in range(12)])
    table = song_rank(like, np.arange(12), artists)
    for i in range(12):
        others = [j for j in range(12) if artists[j] != artists[i]]
        better = sum(like[i, j] >= like[i, i] for j in others)
        assert table['rank'][i] == pytest.approx(1 - better/len(others)) and table['r@5'][i] == (better < 5)


# --- memory

def peak(n):
    "Bytes that looking at `n` albums takes at most, besides what is kept."
    world = DrawnWorld(n, test=1.0)
    world.factors = lambda rows: None  # real albums: nothing is known of their factors
    world.covers = lambda rows, size: np.zeros((len(rows), 64, 64, 3), np.uint8)
    tracemalloc.start()
    kept = look_at_arm(lambda rows, music: np.full((len(rows), 64, 64, 3), 99, np.uint8), 'true', world, world.pick('test'), Eyes())
    high = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(kept.features) == n
    return high, kept.features.nbytes + kept.values.memory_usage().sum() + kept.shown.nbytes


def test_memory_does_not_grow_with_the_albums():
    peak(64)  # imports and caches
    (few, kept_few), (many, kept_many) = peak(128), peak(1470)
    assert many - few < 2.5*(kept_many - kept_few) + 1e6  # pictures alone would be 66 MB as 8-bit, more as numbers
    assert many < 1470*64*64*3


# --- presets

def test_every_preset_of_the_table_can_be_set_up():
    paper = [p for p in PRESETS.values() if p.paper]
    assert [p.paper for p in paper] == [(0.2050, 170.07), (0.1995, 218.85), (0.2119, 528.74), (0.2475, 551.53), (0.2034, 740.922), (0.2896, 620.47)]
    for name in TABLE:
        config, painting = settings(PRESETS[name], 0, SIZES['full'])
        if name.startswith('paper-c'): assert (config.optimizer, config.lr, config.batch_size, config.residual, config.loss, config.num_tokens, config.sampler_steps) == ('sgd', 1e-4, 1, False, 'pixel', 77, 150)
    for p in PRESETS.values():
        if p.group == 'ablation': assert PRESETS[p.base].group == 'modern' and p.change
    stamps = {run_stamp(PRESETS[n], 0, SIZES['full']) for n in TABLE if PRESETS[n].backbone == 'tiny'}
    assert len(stamps) == sum(PRESETS[n].backbone == 'tiny' for n in TABLE)


def test_wrong_names_are_refused_with_the_choices():
    with pytest.raises(AlbumGanError, match='no preset called .gatd.; choose one of: '): PRESETS['gatd']
    with pytest.raises(AlbumGanError, match='no size called .huge.; choose one of: full, quick, test'): SIZES['huge']


# --- the sweep

PRETEND = '''
import fcntl, json, sys, time
from pathlib import Path
folder, stamp = Path(sys.argv[1]), sys.argv[2]
lock = open(folder/"lock", "w"); fcntl.flock(lock, fcntl.LOCK_EX)  # as run_preset does: what a killed sweep had started may still be at it
part = folder/"part"
done = int(part.read_text()) if part.exists() else 0
for i in range(done, 4):  # a run of four steps that remembers where it was
    time.sleep(.1); part.write_text(str(i + 1)); open(folder.parent/"steps", "a").write(folder.name + "\\n")
(folder/"metrics.json").write_text(json.dumps({"stamp": stamp}))
'''
SWEEP = f'''
import sys
sys.path.insert(0, {str(ROOT/'tests')!r})
from test_results import pretended
pretended(sys.argv[1])
'''


def pretended(results):
    "A sweep over runs that only count to four; returns their states."
    from album_gan.experiments.sweep import sweep
    command = lambda row, size, albums, results: [sys.executable, '-S', '-c', PRETEND, str(run_folder(row['preset'], row['seed'], results)), run_stamp(PRESETS[row['preset']], row['seed'], SIZES[size])]
    return list(sweep(['modern-concat', 'modern-cross', 'modern-gated'], 'quick', results=results, workers=2, make_command=command, prepare_data=lambda *a: None).state)


def test_killed_sweep_goes_on_and_a_deleted_run_runs_again(tmp_path):
    steps = tmp_path/'runs'/'steps'
    process = subprocess.Popen([sys.executable, '-c', SWEEP, str(tmp_path)], cwd=ROOT, env={**os.environ, 'IN_TEST': '1'}, stdin=subprocess.DEVNULL)
    deadline = time.time() + 90
    while not steps.exists() and time.time() < deadline: time.sleep(.01)
    process.send_signal(signal.SIGKILL); process.wait()
    assert 0 < len(steps.read_text().split()) < 12
    assert pretended(tmp_path) == ['finished']*3
    assert len(steps.read_text().split()) == 12  # no step was done twice
    assert pretended(tmp_path) == ['finished']*3 and len(steps.read_text().split()) == 12  # nothing is left to do
    for f in ('metrics.json', 'part'): (tmp_path/'runs'/'modern-cross-s0'/f).unlink()
    pretended(tmp_path)
    assert steps.read_text().split()[12:] == ['modern-cross-s0']*4


def test_stamps_are_renewed_only_where_runs_made_again_agree(tmp_path, monkeypatch, capsys):
    sys.path.insert(0, str(ROOT/'tools'))
    import renew_stamps
    monkeypatch.setattr(renew_stamps, 'ROOT', tmp_path/'mine'); monkeypatch.setenv('ALBUM_GAN_ROOT', str(tmp_path/'mine'))
    def keep(folder, name, seed, code, **changed):
        stamp = run_stamp(PRESETS[name], seed, SIZES['full'])
        metrics = {'fid': 400.0, 'kid': .3, 'kid_se': .02, 'music_true': .4, 'music_shuffled': 0, 'music_gain_ci': [.3, .5], 'factors': {'hue': {'true': .1, 'ci': {'true': [.08, .12]}}}, 'arms': {'true': {'fid_se': 5}}} | changed
        file = tmp_path/folder/'results'/'runs'/f'{name}-s{seed}'/'metrics.json'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({'preset': name, 'seed': seed, 'size': 'full', 'metrics': metrics, 'stamp': stamp if code else 'older', 'stamp_any_code': run_stamp(PRESETS[name], seed, SIZES['full'], code=False)}))
        return file
    mine = [keep('mine', 'modern-gated', s, False) for s in (0, 1)]
    renew = lambda *more: renew_stamps.main([str(tmp_path/'again'/'results'), *more])
    with pytest.raises(SystemExit, match='has no run that the present code has made'): renew('--why', 'x')
    keep('again', 'modern-gated', 0, True, fid=406.0) # more than a standard error
    assert renew('--why', 'x') == 1 and 'modern-gated-s0 (fid)' in capsys.readouterr().out
    assert all(json.loads(f.read_text())['stamp'] == 'older' for f in mine)
    keep('again', 'modern-gated', 0, True, fid=400.5)
    assert renew() == 0 and json.loads(mine[0].read_text())['stamp'] == 'older' # compares only
    assert renew('--why', 'a batch instead of two calls') == 0 and '2 of 2 runs renewed' in capsys.readouterr().out
    for f in mine:
        told = json.loads(f.read_text())
        assert is_finished('modern-gated', told['seed']) and told['renewed'] == [{'why': 'a batch instead of two calls', 'code_before': 'older', 'made_again': ['modern-gated-s0'], 'furthest': .1}]


# --- tables

def test_claims_follow_the_numbers():
    rows = invented_rows()
    assert claims(rows).holds.all()
    swapped = rows | {'modern-gated': Row('modern-gated', rows['paper-concat-ddpm'].runs, rows['gated-sgd'].values, [])}
    failed = claims(swapped)[~claims(swapped).holds.astype(bool)].claim
    assert any('three factors' in c for c in failed) and any('quality is kept' in c for c in failed)


def test_tables_hold_an_interval_and_n_for_every_number(tmp_path):
    rows = invented_rows()
    text = write_tables(rows, tmp_path)
    assert 'Synthetic albums' in text and 'floor' in text and 'Backbone tiny' in text
    table = pd.read_csv(tmp_path/'table.csv')
    assert {'mse', 'published', 'fid', 'fid_published', 'kid', 'density', 'coverage', 'copied', 'agreement', 'judge'} <= set(table.metric)
    assert table[['mean', 'low', 'high', 'n']].notna().all().all() and (table.low <= table['mean']).all() and (table['mean'] <= table.high).all()
    paper = paper_table(rows)
    assert list(paper.columns[:2]) == ['paper: MSE', 'paper: FID'] and paper.loc['concatenation, DDPM', 'paper: FID'] == '528.74'


def test_runs_that_do_not_belong_together_are_refused(tmp_path):
    for name, n in (('modern-prompt', 40), ('modern-gated', 41)):
        row = invented_rows(n)[name]
        folder = run_folder(name, 0, tmp_path); folder.mkdir(parents=True)
        (folder/'metrics.json').write_text(json.dumps(row.runs[0])); row.values.to_csv(folder/'values.csv', index=False)
    with pytest.raises(AlbumGanError, match='different numbers of albums'): read_rows(tmp_path)


def test_seeds_widen_the_interval():
    row = invented_rows()['modern-gated']
    for run, fid in zip(row.runs, (80., 100., 120.)): run['metrics']['arms']['true']['fid'] = fid
    one = Row(row.preset, row.runs[1:2], row.values, [])
    assert set_mean(row, 'fid').mean == pytest.approx(100) and set_mean(row, 'fid').high > set_mean(one, 'fid').high


@pytest.fixture(scope='module')
def committed():
    "The committed table, where there is one."
    if not (ROOT/'results'/'table.csv').exists(): pytest.skip('results/table.csv has not been made yet; run make results')
    return read_rows('results', list(PRESETS)), pd.read_csv(ROOT/'results'/'table.csv')  # rows that were named, too


def test_committed_table_is_that_of_the_committed_runs(committed):
    rows, table = committed
    fresh = tidy(rows)
    assert list(fresh.preset) == list(table.preset)
    np.testing.assert_allclose(fresh['mean'], table['mean'], rtol=1e-4, atol=1e-6)


def test_committed_table_has_the_papers_six_rows_and_ours(committed):
    rows, _ = committed
    assert len(paper_table(rows)) == 6 and {'modern-prompt', 'modern-concat', 'modern-cross', 'modern-gated'} <= set(rows)
    assert all(rows[f'modern-{f}'].seeds >= 3 for f in ('concat', 'cross', 'gated'))
    assert list(unguided_table(rows).index) == ['prompt only, unguided, DDPM', 'prompt only, unguided, PNDM']
    assert f"The modern recipe: {SIZES['full'].steps} steps of 16" in caption(rows) # not those of the row that has nothing to train
