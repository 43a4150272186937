"""Run `nbdev_test` on every notebook, and say how many passed.

    python tools/test_notebooks.py                        # what `make test` does first
    python tools/test_notebooks.py --flags "slow network" # also the cells that are marked so
    python tools/test_notebooks.py --path nbs/audio       # one chapter or one notebook

`nbdev_test` prints just `Success.`, and ends well too where it found nothing to run; here that is a failure. The verbs at
the top of `nbs/` make a miniature of themselves when `IN_TEST` is set, as it is here. All arguments are `nbdev_test`'s.
"""
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(args: list[str]) -> int:
    "Stream what `nbdev_test` says, then count; returns its exit code, or 1 where nothing ran."
    command = [sys.executable, str(Path(sys.executable).parent/'nbdev_test'), '--do_print']  # a function called from `-c` parses no arguments
    if '--n_workers' not in args: command += ['--n_workers', '2']
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
