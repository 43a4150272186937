"""A training that is killed or runs out of disk loses nothing; `python tests/kill_often.py` does the same a hundred times."""
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENV = {**os.environ, 'OMP_NUM_THREADS': '1', 'ALBUM_GAN_DATA': ''}


def run(*arguments):
    return subprocess.run([sys.executable, str(HERE/'kill_often.py'), *arguments], env=ENV, cwd=HERE.parent, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def test_kills_at_random_moments_change_nothing():
    done = run('--kills', '8')
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'killed 8 times' in done.stdout and 'same weights' in done.stdout


def test_a_full_disk_leaves_the_earlier_checkpoint():
    done = run('--disk-full')
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'the earlier checkpoints intact' in done.stdout
