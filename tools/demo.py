"""Train the demo model with the one notebook that trains, and end on the path of a picture.

    python tools/demo.py            # what `make demo` does; more papermill parameters may follow: -p fusion cross

The run is called `demo` and lies in `results/runs/demo/`; the executed notebook beside it in `results/notebooks/`.
"""
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUN = 'demo'


def picture(run: Path) -> Path:
    "The picture that shows a run best: what its `metrics.json` calls `picture`."
    return run/json.loads((run/'metrics.json').read_text(encoding='utf-8'))['picture']


def main(args: list[str]) -> int:
    "Run the notebook where a terminal can watch it; returns the exit code."
    started = time.time()
    executed = Path('results/notebooks')/f'train-{RUN}.ipynb'
    (ROOT/executed).parent.mkdir(parents=True, exist_ok=True)
    command = [str(Path(sys.executable).parent/'papermill'), 'nbs/train.ipynb', str(executed), '-p', 'run', RUN, *args]
    stream = [] if os.isatty(2) else ['--log-output']  # no terminal to draw a bar on: what the notebook prints instead
    done = subprocess.run([*command, *stream], cwd=ROOT, stdin=subprocess.DEVNULL)
    if done.returncode: return done.returncode
    shown = picture(ROOT/'results'/'runs'/RUN)
    if not shown.is_file():
        print(f'The run left no picture in results/runs/{RUN}; look at {executed}.', file=sys.stderr)
        return 1
    print(f'\nAll of it, with explanations: {executed} ({time.time() - started:.0f} s)\nCovers that follow the music:')
    print(shown.relative_to(ROOT))
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
