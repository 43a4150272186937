"""Run `nbdev_test` on every noun notebook, and say how many passed.

    python tools/test_notebooks.py                        # what `make test` does first
    python tools/test_notebooks.py --flags "slow network" # also the cells that are marked so
    python tools/test_notebooks.py --path nbs/audio       # one chapter or one notebook

`nbdev_test` prints just `Success.`, and prints it too where it found nothing to run; here that is a failure. The verbs at
the top of `nbs/` are what people run with papermill; pytest runs them that way, so they are left out here.
All other arguments are `nbdev_test`'s.
"""
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def verbs() -> list[str]:
    "The names of the notebooks that people run: all at the top of `nbs/` but the front page."
    return sorted(p.name for p in (ROOT/'nbs').glob('*.ipynb') if p.name != 'index.ipynb')


def main(args: list[str]) -> int:
    "Stream what `nbdev_test` says, then count; returns its exit code, or 1 where nothing ran."
    command = [sys.executable, '-c', 'import sys; from nbdev.test import nbdev_test; sys.exit(nbdev_test())', '--do_print']
    if '--n_workers' not in args: command += ['--n_workers', '2']
    if '--path' not in args: command += ['--skip_file_re', '^[_.]' + ''.join(f'|^{re.escape(v)}$' for v in verbs())]
    env = {**os.environ, 'PYTHONUNBUFFERED': '1'}
    for threads in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS'): env.setdefault(threads, '1')
    ran, bad, failing = 0, 0, False
    with subprocess.Popen([*command, *args], cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors='replace') as run:
        for line in run.stdout:
            failing |= line.startswith('nbdev Tests Failed')
            ran += line.startswith('- Completed ')
            bad += failing and line.startswith('\t')
            if not line.startswith('Starting '): print(line.replace(f'{ROOT}{os.sep}', ''), end='', flush=True)
    print(f'notebooks: {ran - bad} passed, {bad} failed', flush=True)
    return run.returncode or int(ran == 0)


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
