"One process or two: the same model, the same numbers; and what happens when one of the two dies."
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

SMALL = dict(fusion='cross', albums='demo-24', n_eval=6, num_inference_steps=2, batch_size=4)


def words(folder, **more): return [w for k, v in {**SMALL, 'results': folder, **more}.items() for w in ('-p', k, str(v))]


def command(processes, folder, **more):
    start = [sys.executable, '-m', 'accelerate.commands.launch', '--num_processes', str(processes), '--num_machines', '1', '--mixed_precision', 'no', '--dynamo_backend', 'no', '--main_process_port', '0']
    return [*start, *['--multi_gpu']*(processes > 1), '-m', 'album_gan.experiments.launch', *words(folder, **more)]


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    "The same training, once in this process and once shared by two others."
    from album_gan.experiments.launch import main
    folder = tmp_path_factory.mktemp('processes')
    main(words(folder, run='by-1', max_steps=6))
    done = subprocess.run(command(2, folder, run='by-2', max_steps=6), env=os.environ | {'OMP_NUM_THREADS': '1', 'IN_TEST': '1'}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return {n: folder/'runs'/f'by-{n}' for n in (1, 2)}


def test_two_processes_train_the_same_model(runs):
    one, two = (load_file(runs[n]/'weights/diffusion_pytorch_model.safetensors') for n in (1, 2))
    assert one.keys() == two.keys()
    assert max((one[k] - two[k]).abs().max().item() for k in one) < 1e-4
    one, two = ((runs[n]/'loss.csv').read_text().split() for n in (1, 2))
    assert len(one) == len(two) == 7  # a row for each step, not for each step and process
    assert all(abs(float(a.split(',')[1]) - float(b.split(',')[1])) < 1e-5 for a, b in zip(one[1:], two[1:]))


def test_two_processes_measure_the_same(runs):
    one, two = (json.loads((runs[n]/'metrics.json').read_text())['metrics'] for n in (1, 2))
    assert one['n'] == two['n'] == 6  # gathered once each
    assert abs(one['mse'] - two['mse']) < 1e-5
    assert one['prompt_only']['fid'] == pytest.approx(two['prompt_only']['fid'], rel=1e-5)  # no trained number is in these
    assert one['fid'] == pytest.approx(two['fid'], rel=1e-3) and one['music_true'] == pytest.approx(two['music_true'], abs=1e-3)


def test_uneven_batches_are_refused_before_anything_starts(tmp_path, monkeypatch):
    from album_gan.data.core import AlbumGanError
    from album_gan.experiments import training
    from album_gan.experiments.launch import launch
    from album_gan.experiments.runs import Painting
    config, said = training.TrainConfig.make(fusion='cross', max_steps=2, batch_size=3), '2 processes cannot share batches of 3 songs evenly; take a multiple of 2'
    monkeypatch.setattr(subprocess, 'run', lambda *a, **k: pytest.fail('processes were started'))
    with pytest.raises(AlbumGanError, match=said): launch(2, 'demo-24', config, Painting(n_eval=6, num_inference_steps=2), tmp_path)
    monkeypatch.setattr(training, 'this_process', lambda: SimpleNamespace(num_processes=2)) # accelerate's command line comes past launch
    with pytest.raises(AlbumGanError, match=said): training.train(None, None, config, tmp_path)


def children(pid):
    out = subprocess.run(['ps', '-o', 'pid=,args=', '--ppid', str(pid)], capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in out.splitlines() if 'album_gan.experiments.launch' in line]


def test_killing_one_of_two_ends_both_and_leaves_a_checkpoint(tmp_path):
    job = subprocess.Popen(command(2, tmp_path, run='killed', max_steps=400, batch_size=2), env=os.environ | {'OMP_NUM_THREADS': '1', 'IN_TEST': '1'}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    checkpoints = tmp_path/'runs/killed/checkpoints'
    try:
        until = time.time() + 200
        while not any(checkpoints.glob('*/step-*')) and time.time() < until and job.poll() is None: time.sleep(0.2)
        workers = children(job.pid)
        assert len(workers) == 2, 'two processes should be training'
        os.kill(workers[1], signal.SIGKILL)
        said, _ = job.communicate(timeout=60)
    finally: job.kill()
    assert job.returncode and 'SIGKILL' in said  # torch says which of them was killed, and by what
    assert not any(Path(f'/proc/{w}').exists() for w in workers)
    from album_gan.experiments.training import load_checkpoint
    tensors, history = load_checkpoint(next(checkpoints.iterdir()))
    assert len(history) >= 100 and tensors['conditioner']


def test_a_single_process_where_two_were_asked_for_says_so():
    start = [sys.executable, '-m', 'accelerate.commands.launch', '--cpu', '--num_processes', '2', '-m', 'album_gan.experiments.launch']
    done = subprocess.run(start, env=os.environ | {'IN_TEST': '1'}, capture_output=True, text=True, timeout=120)
    assert done.returncode and 'add --multi_gpu' in done.stderr
