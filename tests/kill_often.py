"""Kill a short training again and again, at random moments, and see whether it ends with the weights of one left in peace.

    python tests/kill_often.py            # 100 kills, then `killed 100 times: same weights`
    python tests/kill_often.py --disk-full --kills 8 --steps 16  # what tests/test_kills.py does

Every training is a fork of one process that has everything loaded, and saves at every step, so that many of the kills fall into
the middle of a save; the last one is killed once more, with a checkpoint saved, and goes on in a process of its own, as a user's
would. `--disk-full` lets the file system refuse to grow a file, in mid-save; alone it kills nothing.
"""
import argparse
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from tqdm import tqdm

def setting(folder: Path, steps: int):
    "Six albums and the function that trains on them."
    from album_gan.data.demo import demo_folder
    from album_gan.experiments.prepare import prepare
    from album_gan.experiments.training import TrainConfig, train
    from album_gan.models.backbone import load_backbone
    backbone = load_backbone('tiny')
    prepared = prepare(demo_folder(6, seed=5, seconds=6.0, out=folder/'albums', workers=1), backbone, 'tiny', out=folder)
    config = TrainConfig.make(fusion='gated', max_steps=steps, batch_size=2)
    return lambda run: train(prepared, backbone, config, run, checkpoint_every=1)


def child(work) -> int:
    "Run `work` in a fork; returns its process id."
    pid = os.fork()
    if pid: return pid
    try:
        sys.stderr = sys.stdout = open(os.devnull, 'w')
        work()
    except BaseException as e:
        os._exit(3 if 'could not be written' in str(e) else 1)
    os._exit(0)


def same(a: Path, b: Path) -> bool:
    "Whether two runs have the same weights and losses, bit for bit."
    return all((a/f).read_bytes() == (b/f).read_bytes() for f in ('weights/diffusion_pytorch_model.safetensors', 'loss.csv'))


def main() -> int:
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument('--kills', type=int, help='how many; 100, or none with --disk-full')
    parse.add_argument('--steps', type=int, default=30, help='of each training, with a checkpoint after each')
    parse.add_argument('--seed', type=int, default=0)
    parse.add_argument('--disk-full', action='store_true', help='a full disk')
    parse.add_argument('--go-on', type=Path, nargs=2, help=argparse.SUPPRESS)
    args = parse.parse_args()
    kills = args.kills if args.kills is not None else 0 if args.disk_full else 100
    os.environ['IN_TEST'] = '1'
    torch.set_num_threads(1)
    tqdm.monitor_interval = 0  # a fork must not inherit a lock that a thread holds
    if args.go_on: setting(args.go_on[0], args.steps)(args.go_on[1]); return 0
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        train = setting(folder, args.steps)
        begin = time.time()
        assert os.waitpid(child(lambda: train(folder/'whole')), 0)[1] == 0, 'the undisturbed training failed'
        usual = time.time() - begin
        if args.disk_full:
            def cramped():
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails with an error, as on a full disk
                from album_gan.experiments import training
                rate, room = training.learning_rate, 10_000
                def later(step, config):
                    if step == 9: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
                    return rate(step, config)
                training.learning_rate = later
                train(folder/'full')
            code = os.waitstatus_to_exitcode(os.waitpid(child(cramped), 0)[1])
            left = sorted(p.name for p in (folder/'full'/'checkpoints').glob('*/*'))
            assert code == 3 and left == ['step-000008', 'step-000009'], (code, left)
            assert os.waitpid(child(lambda: train(folder/'full')), 0)[1] == 0
            assert same(folder/'whole', folder/'full')
            print('disk full at step 9: one sentence, the earlier checkpoints intact, same weights after')
        killed = runs = 0
        while killed < kills:
            run = folder/f'run-{runs}'
            while killed < kills:
                pid = child(lambda: train(run))
                time.sleep(chance.uniform(0, 0.6*usual))
                os.kill(pid, signal.SIGKILL)
                if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0: break  # it had ended before the kill
                killed += 1
            runs += 1
            if killed < kills: assert os.waitpid(child(lambda: train(run)), 0)[1] == 0, f'{run.name} did not resume'
            else:
                pid, saved = child(lambda: train(run)), lambda: any((run/'checkpoints').glob('*/step-*'))
                while not saved() and not os.waitpid(pid, os.WNOHANG)[0]: time.sleep(0.01)
                os.kill(pid, signal.SIGKILL); os.waitpid(pid, 0)
                assert saved() and not (run/'weights').exists()
                subprocess.run([sys.executable, __file__, '--steps', str(args.steps), '--go-on', str(folder), str(run)], check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            assert same(folder/'whole', run), f'{run.name} ended with other weights'
        if kills: print(f'killed {killed} times in {runs} runs of {args.steps} steps: same weights')
    return 0


if __name__ == '__main__':
    sys.exit(main())
