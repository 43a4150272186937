"""Keep finished runs after a change of code that moves their numbers by rounding only, and say so in each of them.

    python tools/renew_stamps.py ../other/results --why "guidance asks for all answers in one batch"   # compares and renews
    python tools/renew_stamps.py ../other/results                                                      # compares only

A run carries the fingerprint of the code that made it, and `make results` makes runs of older code again: an hour or more.
Where a change cannot matter beyond rounding, make a few runs again in another checkout and name its results folder here. If
everything measured on those agrees with the committed runs within the committed standard errors and intervals, the others
are taken as finished; `renewed` in each metrics.json then tells why, and which runs were made again. Any doubt: `make results`.
"""
import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def apart(old: dict, new: dict) -> dict[str, float]:
    "How far two measurements of one run lie from each other, in units of what the committed one allows: FID and KID in standard errors, music in half intervals."
    a, b, arm = old['metrics'], new['metrics'], old['metrics']['arms']['true']
    low, high = a['music_gain_ci']
    out = {'fid': (b['fid'] - a['fid'])/arm['fid_se'], 'kid': (b['kid'] - a['kid'])/a['kid_se'],
           'music': (b['music_true'] - b['music_shuffled'] - a['music_true'] + a['music_shuffled'])/((high - low)/2 or 1)}
    for name, f in (a['factors'] or {}).items():
        low, high = f['ci']['true']
        out[name] = (b['factors'][name]['true'] - f['true'])/((high - low)/2)
    return {k: abs(v) for k, v in out.items()}


def main(args: list[str]) -> int:
    "Compare, renew, tell; 1 where something lies too far apart."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('again', type=Path, help='results folder with runs that the present code has made')
    parser.add_argument('--why', help='what the change was; without it nothing is written')
    given = parser.parse_args(args)
    from album_gan.data.core import write_json
    from album_gan.experiments.experiment import run_stamp
    from album_gan.experiments.presets import PRESETS, SIZES
    read = lambda file: json.loads(file.read_text(encoding='utf-8'))
    runs = {f.parent.name: read(f) for f in sorted((ROOT/'results'/'runs').glob('*/metrics.json'))}
    runs = {n: r for n, r in runs.items() if 'preset' in r}
    stamp = lambda r, code: run_stamp(PRESETS[r['preset']], r['seed'], SIZES[r['size']], code=code)
    again = {n: read(given.again/'runs'/n/'metrics.json') for n in runs if (given.again/'runs'/n/'metrics.json').is_file()}
    again = {n: r for n, r in again.items() if r['stamp'] == stamp(r, True)}
    if not again: sys.exit(f'{given.again} has no run that the present code has made; make some there first.')
    far = {n: apart(runs[n], r) for n, r in again.items()}
    for n, f in far.items(): print(f'{n:24}', '  '.join(f'{k} {v:.3f}' for k, v in f.items()))
    if wrong := [f'{n} ({k})' for n, f in far.items() for k, v in f.items() if not v < 1]:
        print(f"Too far apart: {', '.join(wrong)}. This is more than rounding; make all runs again: make results."); return 1
    if not given.why: return 0
    done = 0
    for n, r in runs.items():
        if r['stamp'] == stamp(r, True) or r['stamp_any_code'] != stamp(r, False): continue
        r['renewed'] = [*r.get('renewed', []), {'why': given.why, 'code_before': r['stamp'], 'made_again': sorted(again), 'furthest': round(max(v for f in far.values() for v in f.values()), 3)}]
        write_json(ROOT/'results'/'runs'/n/'metrics.json', r | {'stamp': stamp(r, True)})
        done += 1
    print(f'{done} of {len(runs)} runs renewed.')
    return 0


if __name__ == '__main__': sys.exit(main(sys.argv[1:]))
