"""`papermill nbs/train.ipynb -p fusion cross` works as written: in a terminal, into a file, and whatever standard input is."""
import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT/'tools'))
import papermill_launcher as launcher  # noqa: E402  (a tool, not a package)

NOTEBOOK = {
    'nbformat': 4, 'nbformat_minor': 5, 'metadata': {'kernelspec': {'name': 'python3', 'language': 'python', 'display_name': 'python3'}},
    'cells': [
        {'cell_type': 'code', 'id': 'a', 'metadata': {'tags': ['parameters']}, 'execution_count': None, 'outputs': [], 'source': 'fusion: str = "gated" # how\nfail: str = ""'},
        {'cell_type': 'code', 'id': 'b', 'metadata': {}, 'execution_count': None, 'outputs': [], 'source': (
            'class AlbumGanError(Exception): pass\n'
            'if fail == "user": raise AlbumGanError("There is no fusion called \'crosss\'; choose one of: none, cross.")\n'
            'if fail == "goodbye":\n    import logging, zmq\n    try: raise zmq.error.ZMQError(88)\n'
            '    except zmq.error.ZMQError: logging.getLogger("tornado.general").error("Uncaught exception in ZMQStream callback", exc_info=True)\n'
            'elif fail: raise ValueError(fail)\n'
            'import os\nprint(f"{fusion} {os.environ.get(\'ALBUM_GAN_PROGRESS\')}")')}]}
START = [sys.executable, '-c', f"import sys; sys.path.insert(0, {str(ROOT/'tools')!r}); import papermill_launcher as p; sys.exit(p.main(sys.argv[1:]))"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    "A project with one notebook to run, in a folder with a space in its name."
    root = tmp_path/'a project'
    (root/'nbs').mkdir(parents=True)
    (root/'settings.ini').write_text('[DEFAULT]\nlib_name = album_gan\n')
    (root/'nbs'/'train.ipynb').write_text(json.dumps(NOTEBOOK))
    for variable in ('ALBUM_GAN_PROGRESS', 'ALBUM_GAN_ROOT'): monkeypatch.delenv(variable, raising=False)
    return root


def said(notebook):
    "What the second code cell printed."
    cell = [c for c in json.loads(notebook)['cells'] if c['id'] == 'b'][0]
    return ''.join(''.join(o.get('text', '')) for o in cell['outputs'])


def in_terminal(root, *args, start=START, stdin=None):
    "Run in a pseudo-terminal; returns the exit code and all that the terminal showed."
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 100, 0, 0))
    run = subprocess.Popen([*start, *args], cwd=root, stdin=theirs if stdin is None else stdin, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    shown = b''
    while True:
        if select.select([ours], [], [], 90)[0]:
            try: piece = os.read(ours, 65536)
            except OSError: break  # Linux's way to say that the other side is closed
            if not piece: break
            shown += piece
        else:
            run.kill()
            pytest.fail(f'nothing was shown for 90 s: {shown.decode()}')
    os.close(ours)
    return run.wait(30), shown.decode()


def redirected(root, *args, **kwargs):
    "Run with standard output in a pipe, like `> out.ipynb`."
    return subprocess.run([*START, *args], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=90, **kwargs)


def test_terminal(project):
    "The line as typed: the notebook finds a place, one line says where, a bar is shown, and the library knows the terminal."
    code, shown = in_terminal(project, 'nbs/train.ipynb', '-p', 'fusion', 'cross')
    assert code == 0, shown
    assert 'papermill: the executed notebook goes to results/notebooks/train-fusion=cross.ipynb' in shown
    assert 'Executing' in shown and '100%' in shown
    fusion, terminal = said((project/'results/notebooks/train-fusion=cross.ipynb').read_text()).split()
    assert fusion == 'cross' and terminal.startswith('/dev/')


def test_terminal_error(project):
    "A sentence for the user is the last thing in the terminal, with papermill's exit code and no traceback."
    code, shown = in_terminal(project, 'nbs/train.ipynb', '-p', 'fail', 'user')
    assert code == 1 and 'Traceback' not in shown
    assert shown.strip().splitlines()[-1] == "AlbumGanError: There is no fusion called 'crosss'; choose one of: none, cross."
    code, shown = in_terminal(project, 'nbs/train.ipynb', '-p', 'fail', 'disk')
    assert code == 1 and 'Traceback' in shown and 'ValueError: disk' in shown


def test_goodbye(project):
    "The traceback that a kernel may log while it stops is not the user's business, in a terminal or a pipe; any other is."
    code, shown = in_terminal(project, 'nbs/train.ipynb', '-p', 'fail', 'goodbye')
    assert code == 0 and 'Executing' in shown and 'Traceback' not in shown and 'ZMQError' not in shown
    done = redirected(project, 'nbs/train.ipynb', '-p', 'fail', 'goodbye', stdin=subprocess.DEVNULL)
    assert done.returncode == 0 and 'Traceback' not in done.stderr and said(done.stdout).startswith('gated')
    first, last = launcher.FAREWELL
    block = [first, b'Traceback (most recent call last):\n', b'  File "x.py", line 1, in f\n', b'    f()\n']
    for lines, left in [([b'a\n', *block, last, b'b\n'], [b'a\n', b'b\n']), ([*block, *block, last], block), ([*block, b'zmq.error.ZMQError: other\n', last], [*block, b'zmq.error.ZMQError: other\n', last]),
                        (block, block), ([last, b' c\n', b'no newline'], [last, b' c\n', b'no newline']), ([], [])]:
        assert list(launcher.without_farewell(lines)) == left


@pytest.mark.parametrize('stdin', ['null', 'empty pipe', 'open pipe', 'closed'])
def test_redirected(project, stdin):
    "Into a file it is the executed notebook, also where a pipe on standard input makes plain papermill wait, or worse."
    before = (project/'nbs/train.ipynb').read_bytes()
    kwargs, ends = {'stdin': subprocess.DEVNULL}, []
    if stdin.endswith('pipe'):
        ends = list(os.pipe())
        kwargs = {'stdin': ends[0]}
        if stdin == 'empty pipe': os.close(ends.pop())
    elif stdin == 'closed': kwargs = {'preexec_fn': lambda: os.close(0)}
    try: done = redirected(project, 'nbs/train.ipynb', '-p', 'fusion', 'cross', **kwargs)
    finally: [os.close(end) for end in ends]
    assert done.returncode == 0, done.stderr
    assert said(done.stdout).split() == ['cross', 'None']
    assert (project/'nbs/train.ipynb').read_bytes() == before and not (project/'results').exists()
    assert 'extension' not in done.stderr


def test_piped_notebook(project):
    "papermill's own pipes still work: a notebook on standard input, to a path that is new or named after `-`."
    for args in (['-', 'out.ipynb'], ['out2.ipynb']):
        done = redirected(project, *args, '-p', 'fusion', 'none', input=json.dumps(NOTEBOOK))
        assert done.returncode == 0, done.stderr
        assert said((project/args[-1]).read_text()).startswith('none')


def test_explicit_output_and_failure(project):
    done = redirected(project, 'nbs/train.ipynb', 'out.ipynb', '-p', 'fail', 'user', stdin=subprocess.DEVNULL)
    assert done.returncode == 1 and done.stderr.strip().splitlines()[-1].startswith('AlbumGanError: There is no fusion')
    assert 'AlbumGanError' in (project/'out.ipynb').read_text()


def test_other_lines_are_papermills(project):
    "Help, version and mistakes are handed over: same words, same exit code, no folder made."
    for args, code, words in [(['--version'], 0, '2.'), (['-h'], 0, 'Usage: papermill'), (['nbs/train.ipynb', '--no-such'], 2, 'No such option'),
                              (['--help-notebook', 'nbs/train.ipynb'], 0, 'how')]:
        got, shown = in_terminal(project, *args)
        assert got == code and words in shown, shown
    assert not (project/'results').exists()


def test_complete(project, monkeypatch):
    "Options with values are no paths, wherever they stand, because papermill's own parser says so."
    from papermill.cli import papermill
    monkeypatch.chdir(project)
    complete = lambda *args, piped=False, terminal=True: launcher.complete(list(args), launcher.parse(papermill, list(args)), piped, terminal)
    place = lambda *args: complete(*args)[-1]
    assert complete('-p', 'a', '-1', 'nbs/train.ipynb', '--cwd', 'nbs', '-k', 'python3')[0] == '--progress-bar'
    assert place('-p', 'a', '-1', 'nbs/train.ipynb', '--cwd', 'nbs', '-k', 'python3') == 'results/notebooks/train-a=-1.ipynb'
    assert place('nbs/train.ipynb', '-p', 'fusion', 'cross', '-p', 'seed', '1') == 'results/notebooks/train-fusion=cross-seed=1.ipynb'
    assert place('nbs/train.ipynb', '-y', '{fusion: cross, seed: 1}') == 'results/notebooks/train-fusion=cross-seed=1.ipynb'
    assert place('nbs/train.ipynb', '-y', 'seed: 1', '-r', 'seed', '007') == 'results/notebooks/train-seed=007.ipynb'
    assert place('nbs/train.ipynb') == 'results/notebooks/train.ipynb'
    for args in (['nbs/train.ipynb', 'out.ipynb'], ['nbs/train.ipynb', '-'], ['--help-notebook', 'nbs/train.ipynb'], ['nbs/train.ipynb', '-p', 'a'], []):
        assert complete(*args) == args
    assert '--progress-bar' not in complete('nbs/train.ipynb', '--no-progress-bar') + complete('nbs/train.ipynb', '--log-output')
    assert complete('nbs/train.ipynb', piped=True, terminal=False) == ['nbs/train.ipynb', '-']
    assert complete('new.ipynb', piped=True, terminal=True) == ['new.ipynb']
    assert complete('nbs/train.ipynb', terminal=False) == ['nbs/train.ipynb']


def test_names():
    "Names of executed notebooks are readable, safe and short; where that loses something, commands stay apart."
    name = launcher.notebook_name
    assert name('nbs/train.ipynb', {'albums': '../shared/library'}) == 'train-albums=shared-library.ipynb'
    assert name('nbs/train.ipynb', {'lr': '1e-4'}) == 'train-lr=1e-4.ipynb'
    odd = [name('nbs/train.ipynb', {'title': t}) for t in ('÷', '√', '?', '', 'x' * 300, 'x' * 301, 'a b', '../../etc')]
    assert len(set(odd)) == len(odd)
    for n in odd: assert len(n) <= launcher.LONGEST + 6 and '/' not in n and ' ' not in n and n.isascii() and not n.startswith('.')


def test_installed_script(project, tmp_path, monkeypatch):
    "What `make setup` writes starts from a folder with a space, hands on exit codes, and is papermill itself without the tool."
    home = tmp_path/'an environment'/'bin'
    home.mkdir(parents=True)
    python = home/'python'
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, 'executable', str(python))
    script = launcher.install()
    assert script == home/'papermill' and launcher.install() == script and os.access(script, os.X_OK)
    code, shown = in_terminal(project, 'nbs/train.ipynb', '-p', 'fail', 'user', start=[str(script)])
    assert code == 1 and 'AlbumGanError: There is no fusion' in shown and (project/'results/notebooks/train-fail=user.ipynb').is_file()
    script.write_text(script.read_text().replace(str(launcher.HERE), str(tmp_path/'gone.py')))
    done = subprocess.run([str(script), '--version'], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0 and done.stdout.startswith('2.')
