"""Let `papermill nbs/train.ipynb -p fusion cross` work as written, wherever it is typed.

    python tools/papermill_launcher.py        # puts the launcher before papermill in this Python's environment

`make setup` runs that line. From then on `.venv/bin/papermill` comes here first, and the real papermill does the work:

* No output path, and standard output is a terminal: papermill alone refuses. Here the executed notebook goes to
  `results/notebooks/<verb>-<parameters>.ipynb`, one line says so, and a progress bar is shown.
* No output path, and a pipe on standard input: papermill alone takes the notebook's path for the *output* and reads
  another notebook from the pipe. Here a path that exists is what is run; `papermill - out.ipynb` still reads the pipe.
* A notebook that stops with an `AlbumGanError` (a sentence written for the user) ends on that sentence.
* A kernel that is told to stop may find its sockets closed while it answers, and logs a traceback of its own. The
  notebook is done by then and nothing is lost, so that one traceback is left out; all else that a kernel writes is shown.

Everything else, exit codes included, is papermill's own: its options are parsed by its own command.
Where standard error is a terminal, `ALBUM_GAN_PROGRESS` names it, and long work in the notebook draws its bar there.
"""
import hashlib
import os
import re
import stat
import sys
import threading
import warnings
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve()
LONGEST = 120  # characters of a notebook's name, without its extension
# What ipykernel 7.4 logs when it loses the race of its own shutdown (its pull request 1518 covers one half of it).
FAREWELL = b'ERROR:tornado.general:Uncaught exception in ZMQStream callback\n', b'zmq.error.ZMQError: Socket operation on non-socket\n'

# A script that also starts where the environment's path has a space in it or is longer than a `#!` line may be.
SCRIPT = """#!/bin/sh
'''exec' "{python}" "$0" "$@"
' '''
# album_gan's launcher: {tool} (pip install --force-reinstall --no-deps papermill takes it out again)
import os, runpy, sys
tool = {tool!r}
if os.path.exists(tool):
    sys.exit(runpy.run_path(tool)['main'](sys.argv[1:]))
from papermill.__main__ import papermill
sys.exit(papermill())
"""


def install() -> Path:
    "Write the launcher over this environment's `papermill` script; returns where."
    script = Path(sys.executable).parent/'papermill'
    text = SCRIPT.format(python=sys.executable, tool=str(HERE))
    if not (script.is_file() and script.read_text(encoding='utf-8', errors='ignore') == text):
        part = script.with_name(f'.papermill.{os.getpid()}')
        part.write_text(text, encoding='utf-8')
        part.chmod(0o755)
        os.replace(part, script)  # in one step: somebody may be starting papermill right now
    return script


def parse(command, args: list[str]) -> dict:
    "What papermill's own parser makes of a command line, before any value is used; `{}` where papermill would refuse it."
    import click
    try:
        options, left, _ = command.make_parser(click.Context(command, info_name='papermill', **command.context_settings)).parse_args(list(args))
    except (click.UsageError, AttributeError):
        return {}
    return {} if left else {k: v for k, v in options.items() if isinstance(v, (str, bool, list, tuple))}


def parameters(options: dict) -> dict:
    "The parameters of a command line as text, in the order in which papermill lets a later one win."
    found = {}
    for kind in ('parameters_base64', 'parameters_file', 'parameters_yaml'):
        for text in options.get(kind) or ():
            if kind == 'parameters_file': found[Path(text).stem] = ''
            else: found.update(_yaml(text, kind == 'parameters_base64'))
    for kind in ('parameters', 'parameters_raw'):
        for name, value in options.get(kind) or (): found[name] = value
    return {str(k): str(v) for k, v in found.items()}


def _yaml(text: str, encoded: bool) -> dict:
    "A YAML parameter as a dict; its hash where it is none (papermill will complain about it)."
    import base64
    import yaml
    try:
        value = yaml.safe_load(base64.b64decode(text) if encoded else text)
        return value if isinstance(value, dict) else {}
    except (ValueError, yaml.YAMLError):
        return {hashlib.sha256(text.encode()).hexdigest()[:6]: ''}


def notebook_name(notebook: str, params: dict) -> str:
    "`train-fusion=cross-seed=1.ipynb`: readable, safe in every file system, never longer than `LONGEST` and the ending."
    local = lambda text: re.sub(r'^[./~]+', '', text)  # `../shared/library` is shared-library
    plain = lambda text: re.sub(r'[^\w.+=,@-]+', '-', local(text), flags=re.ASCII).rstrip('-.')
    raw = '-'.join([Path(notebook).stem, *(f'{k}={v}' for k, v in params.items())])
    name = '-'.join([plain(Path(notebook).stem), *(f'{plain(k)}={plain(v)}' if v else plain(k) for k, v in params.items())])
    same = all(v and local(v).replace('/', '-').rstrip('-.') == plain(v) for v in params.values())
    if len(name) > LONGEST or not same:  # something was lost: keep different commands apart
        name = f"{name[:LONGEST - 7].rstrip('-.=')}-{hashlib.sha256(raw.encode('utf-8', 'surrogateescape')).hexdigest()[:6]}"
    return name + '.ipynb'


def output_path(notebook: str, params: dict) -> Path:
    "Where the executed notebook goes when nobody said: into the project's `results/notebooks`, made if missing."
    try:
        from album_gan.data.core import project_root
        root = project_root()
    except ImportError:
        root = HERE.parent.parent
    folder = root/'results'/'notebooks'
    folder.mkdir(parents=True, exist_ok=True)
    path = folder/notebook_name(notebook, params)
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def complete(args: list[str], options: dict, piped: bool, terminal: bool) -> list[str]:
    "The command line with the output path that was left out; unchanged where papermill can do with it as it is."
    if options.get('help') or options.get('version') or options.get('help_notebook'): return args
    notebook, output = options.get('notebook_path'), options.get('output_path')
    if not notebook or output: return args
    if piped and not os.path.isfile(notebook): return args  # `… | papermill out.ipynb`
    if not terminal: return [*args, '-'] if piped else args
    path = output_path(notebook, parameters(options))
    print(f'papermill: the executed notebook goes to {path}', file=sys.stderr, flush=True)
    quiet = 'progress_bar' in options or options.get('log_output')
    return [*([] if quiet else ['--progress-bar']), *args, str(path)]


def name_terminal() -> None:
    "Tell the notebook which terminal its progress bars may be drawn on, if there is one."
    if os.environ.get('ALBUM_GAN_PROGRESS') is not None: return
    for stream in (2, 1):
        try:
            if os.isatty(stream):
                os.environ['ALBUM_GAN_PROGRESS'] = os.ttyname(stream)
                return
        except OSError: pass


def without_farewell(lines):
    "The lines that a kernel wrote, without the traceback of a kernel whose sockets were closed while it said goodbye."
    first, last = FAREWELL
    held = []
    for line in lines:
        if line == first or held and (line.startswith(b' ') or line == b'Traceback (most recent call last):\n'):
            if line == first:
                yield from held
                held = []
            held.append(line)
        else:
            if not (held and line == last): yield from [*held, line]
            held = []
    yield from held


@contextmanager
def kernels_stderr():
    "While it lasts, what child processes write to standard error comes past `without_farewell`; our own goes straight on."
    try: shown = os.dup(2)
    except OSError:  # closed: nobody reads it
        yield
        return
    source, sink = os.pipe()
    def copy():
        with open(source, 'rb') as lines:
            for line in without_farewell(lines): os.write(shown, line)
    reader, own = threading.Thread(target=copy, daemon=True), sys.stderr
    own.flush()
    os.dup2(sink, 2)
    os.close(sink)
    sys.stderr = os.fdopen(os.dup(shown), 'w', buffering=1, encoding=own.encoding, errors=own.errors)
    reader.start()
    try: yield
    finally:
        sys.stderr.flush()
        os.dup2(shown, 2)
        reader.join(2)  # a process that a notebook left behind may hold the pipe open
        sys.stderr = own


def main(args: list[str]) -> int:
    "Run papermill on a completed command line; returns the exit code where papermill does not exit by itself."
    try: piped = stat.S_ISFIFO(os.fstat(0).st_mode)
    except OSError:  # closed: papermill looks at it while it is imported
        piped = False
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    warnings.filterwarnings('ignore', message='.*not specified with any extension', category=UserWarning)
    from papermill.cli import papermill
    from papermill.exceptions import PapermillExecutionError
    name_terminal()
    args = complete(args, parse(papermill, args), piped, sys.stdout.isatty())
    try:
        with kernels_stderr(): papermill(args, prog_name='papermill')
    except PapermillExecutionError as e:
        if e.ename != 'AlbumGanError': raise
        sys.stdout.flush()
        print(f'\n{e.ename}: {e.evalue}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    print(f'papermill launcher: {os.path.relpath(install())}')
