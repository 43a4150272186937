"""Remove what training left in `results/`: weights, checkpoints, executed notebooks and runs that were never committed.

    python tools/clean_runs.py            # lists it and asks, where there is a terminal to ask
    python tools/clean_runs.py --dry-run  # lists it and removes nothing
    python tools/clean_runs.py --yes      # does not ask

What git knows stays: the metrics and samples that the results table is made from. Without git nothing can be told
apart, and nothing is removed. It needs no environment, only Python.
"""
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WHERE = ('results/runs', 'results/notebooks')


def leftovers(root: Path = ROOT) -> list[Path]:
    "Everything below the run folders that git does not track; a folder stands for all it holds."
    git = ['git', '-c', f'safe.directory={root}', '-C', str(root)]
    found = []
    for more in ([], ['--ignored']):
        listed = subprocess.run([*git, 'ls-files', '-z', '--others', '--exclude-standard', '--directory', *more, '--', *WHERE],
                                capture_output=True, text=True)
        if listed.returncode: raise SystemExit('clean-runs: this is no git checkout, so what to keep is unknown; remove results/runs by hand.')
        found += [root/name for name in listed.stdout.split('\0') if name]
    found = [child for p in found for child in (p.iterdir() if p == root/WHERE[0] else [p])]  # one line a run
    return sorted(p for p in set(found) if not any(q in p.parents for q in found))


def size(path: Path) -> int:
    "Bytes in a file or a folder."
    return sum(p.lstat().st_size for p in (path.rglob('*') if path.is_dir() else [path]) if not p.is_dir())


def main(args: list[str]) -> int:
    "List, ask where somebody can answer, remove; returns the exit code."
    found = leftovers()
    if not found:
        print('Nothing to clean: results/ holds only what git knows.')
        return 0
    for path in found: print(f'{size(path) / 1e6:9.1f} MB  {path.relative_to(ROOT)}')
    if '--dry-run' in args: return 0
    if sys.stdin.isatty() and '--yes' not in args and input(f'Remove these {len(found)}? [y/N] ').strip().lower() not in ('y', 'yes'):
        print('Nothing was removed.')
        return 0
    for path in found: shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    print(f'{len(found)} removed.')
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
