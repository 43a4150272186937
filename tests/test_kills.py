"""A training that is killed or runs out of disk loses nothing; `python tests/kill_often.py` does the same a hundred times."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ENV = {**os.environ, 'OMP_NUM_THREADS': '1', 'ALBUM_GAN_DATA': ''}


@pytest.fixture(scope='module')
def said():
    "What a full disk and eight kills led to, all beside one undisturbed training."
    done = subprocess.run([sys.executable, str(HERE/'kill_often.py'), '--disk-full', '--kills', '8', '--steps', '16'], env=ENV, cwd=HERE.parent, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_kills_at_random_moments_change_nothing(said): assert 'killed 8 times' in said and 'same weights' in said
def test_a_full_disk_leaves_the_earlier_checkpoint(said): assert 'the earlier checkpoints intact' in said
