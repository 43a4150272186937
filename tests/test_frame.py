"""The project keeps its own rules: what notebooks look like, what they export, and who may import whom."""
import ast
import configparser
import dataclasses
import importlib
import inspect
import json
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
from fastcore.docments import docments

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT/'tools'))
import readme  # noqa: E402  (a tool, not a package)

NBS, LIB = ROOT/'nbs', ROOT/'album_gan'
CHAPTERS = ['data', 'audio', 'models', 'experiments', 'studio']  # each may import itself and those before it
NOTEBOOKS = sorted(p for p in NBS.rglob('*.ipynb') if not any(part[0] in '._' for part in p.relative_to(NBS).parts))
VERBS = [p for p in NOTEBOOKS if p.parent == NBS and p.name != 'index.ipynb']
RECIPES = [p for p in NOTEBOOKS if p.parent == NBS/'pretrain']
NOUNS = [p for p in NOTEBOOKS if p.parent != NBS and p not in RECIPES]
MODULES = sorted(p for p in LIB.rglob('*.py') if p.name != '__init__.py' and p.parent != LIB)

def name(path): return path.relative_to(ROOT).as_posix()
def each(paths): return pytest.mark.parametrize('path', paths, ids=name)
@cache
def cells(path): return json.loads(path.read_text(encoding='utf-8'))['cells']
def source(cell): return readme.text(cell['source'])
def directives(cell): return re.findall(r'^#\|\s*(\w+)', source(cell), re.MULTILINE) if cell['cell_type'] == 'code' else []
def tags(cell): return cell['metadata'].get('tags', [])
def module(path): return '.'.join(path.relative_to(ROOT).with_suffix('').parts)
def python(*args): return subprocess.run([sys.executable, *args], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)


# ---- notebooks

@each(NOTEBOOKS)
def test_kernel(path):
    "papermill wants name and language; a kernel named after somebody's environment fails everywhere else."
    kernel = json.loads(path.read_text(encoding='utf-8'))['metadata'].get('kernelspec', {})
    assert (kernel.get('name'), kernel.get('language')) == ('python3', 'python')


@each(NOTEBOOKS)
def test_opening(path):
    "A title and one line that says what the reader will be able to do; cells keep their ids, so exports are repeatable."
    first = cells(path)[0]
    assert first['cell_type'] == 'markdown' and re.match(r'# \S[^\n]*\n+> \S', source(first)), 'begin with `# Title` and `> subtitle`'
    ids = [c.get('id') for c in cells(path)]
    assert all(ids) and len(set(ids)) == len(ids)


@each(NOUNS)
def test_noun(path):
    "A noun exports one module, named after its chapter and file."
    exports = [m[1] for c in cells(path) if c['cell_type'] == 'code' and (m := re.search(r'^#\|\s*default_exp\s+(\S+)', source(c), re.MULTILINE))]
    want = f"{path.parent.name}.{re.sub(r'^[0-9]+_', '', path.stem)}"
    assert exports == [want] and 'default_exp' in directives(cells(path)[1]), f'`#| default_exp {want}` belongs in the second cell'
    assert (LIB/f"{want.replace('.', '/')}.py").is_file(), f'{want} was not exported; run `make export`'
    assert not any('parameters' in tags(c) for c in cells(path))


@each(NOUNS)
def test_exported_cells(path):
    "Imports and definitions do not share an exported cell, and a cell defines one thing (the site executes and shows them so)."
    for cell in cells(path):
        if not {'export', 'exporti'} & set(directives(cell)): continue
        body = ast.parse(re.sub(r'^\s*[%!].*$', '', source(cell), flags=re.MULTILINE)).body
        imports = sum(isinstance(node, (ast.Import, ast.ImportFrom)) for node in body)
        things = [node.name for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)) and node.name[0] != '_']
        assert not (imports and things), f'imports in a cell of their own, away from {things}'
        assert len(things) <= 1, f'one definition a cell, not {things}'


@each([*VERBS, *RECIPES])
def test_parameters(path):
    "One cell tagged `parameters`, each typed and commented: `papermill --help-notebook` shows no other."
    tagged = [c for c in cells(path) if 'parameters' in tags(c)]
    assert len(tagged) == 1, 'exactly one cell tagged `parameters` (nbdev_clean keeps tags, see settings.ini)'
    lines = source(tagged[0]).split('\n')
    for node in ast.parse(source(tagged[0])).body:
        if isinstance(node, ast.Assign) and all(isinstance(t, ast.Name) and t.id.startswith('_') for t in node.targets): continue
        assert isinstance(node, ast.AnnAssign), f'write `name: type = value  # help`, not {lines[node.lineno - 1]!r}'
        assert re.search(r'#\s*\S', lines[node.end_lineno - 1]), f'a comment is missing: {lines[node.lineno - 1]!r}'


@each([*VERBS, *RECIPES])
def test_exports_nothing(path):
    assert not {'default_exp', 'export', 'exporti', 'exports'} & {d for c in cells(path) for d in directives(c)}


@each(RECIPES)
def test_recipe_is_not_a_test(path):
    "Recipes take an hour: nbdev_test leaves out what says `- skip_exec: true` under its title."
    assert re.search(r'^- skip_exec: true$', source(cells(path)[0]), re.MULTILINE)


PATHS = re.compile(r'(?<![\w.:/~<-])/(?:home|root|Users|tmp|private|var|opt|mnt|work|workspace|srv|media|usr|content|data|proc|dev)/[\w.-]+|[A-Z]:\\\\?Users')
SECRETS = re.compile(r'\b(?:AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|hf_[A-Za-z0-9]{30,}|sk-[A-Za-z0-9_-]{20,}|'
                     r'xox[abp]-[\w-]{10,}|AIza[\w-]{30,}|glpat-[\w-]{15,}|eyJ[\w-]{15,}\.eyJ[\w-]{15,})|-----BEGIN [A-Z ]*PRIVATE KEY|'
                     r'(?i:bearer\s+[a-z0-9._-]{25,})|(?i:(?:api_?key|client_secret|password|token)["\']?\s*[:=]\s*["\'][a-z0-9_-]{20,}["\'])')


def said(outputs):
    "What outputs say in words; pictures are left out."
    for out in outputs:
        yield readme.text(out.get('text', ''))
        for kind, data in out.get('data', {}).items():
            if kind.startswith(('text/', 'application/')):
                yield re.sub(r'data:[\w/+.-]+;base64,[A-Za-z0-9+/=\s\\]+', '', json.dumps(data) if isinstance(data, dict) else readme.text(data))


@each(NOTEBOOKS)
def test_outputs(path):
    "Stored outputs hold no error, no warning, no widget, no machine's paths and no address in memory."
    for cell in cells(path):
        outputs = cell.get('outputs', [])
        assert not [o['ename'] for o in outputs if o['output_type'] == 'error']
        assert not [readme.text(o['text']) for o in outputs if o.get('name') == 'stderr']
        assert not [o for o in outputs if 'application/vnd.jupyter.widget-view+json' in o.get('data', {})]
        for words in said(outputs):
            assert not PATHS.findall(words)
            assert not re.findall(r' at 0x[0-9a-f]{6,}', words)
    assert 'widgets' not in json.loads(path.read_text(encoding='utf-8'))['metadata']


@cache
def committed():
    "Text files of the project: what git knows or would take, else what lies in the folders that it knows."
    git = subprocess.run(['git', '-c', f'safe.directory={ROOT}', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
                         cwd=ROOT, capture_output=True, text=True)
    paths = [ROOT/p for p in git.stdout.split('\0') if p] if git.returncode == 0 else [p for d in (NBS, LIB, ROOT/'tools', ROOT/'tests') for p in d.rglob('*')]
    return [p for p in paths if p.is_file() and p.suffix in ('.py', '.ipynb', '.md', '.ini', '.toml', '.yml', '.yaml', '.json', '.csv', '.txt', '.example', '')]


def test_no_secrets():
    found = {}
    for path in committed():
        words = path.read_text(encoding='utf-8', errors='ignore')
        if path.suffix == '.ipynb': words = '\n'.join(t for c in cells(path) for t in (source(c), *said(c.get('outputs', [])))) if path in NOTEBOOKS else ''
        hits = [h for h in SECRETS.findall(words) if not re.search('fake|loopback', h)]  # what tests hand out says so
        if hits: found[name(path)] = hits
    assert not found


# ---- the library

@each(MODULES)
def test_module_has_its_notebook(path):
    "Every module is exported from a notebook that exists: a renamed notebook leaves its old module behind."
    edit = re.search(r'^# AUTOGENERATED! DO NOT EDIT! File to edit: (\S+\.ipynb)', path.read_text(encoding='utf-8'), re.MULTILINE)
    assert edit, 'only notebooks make modules'
    assert (path.parent/edit[1]).is_file(), edit[1]


def imports(path):
    "All modules that a module of the library imports anywhere, with full names."
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import): yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*(package[:len(package) - node.level + 1] if node.level else ()), *([node.module] if node.module else ())]
            yield '.'.join(base)
            if '.'.join(base) == 'album_gan': yield from (f'album_gan.{alias.name}' for alias in node.names)


@each(MODULES)
def test_import_direction(path):
    "studio → experiments → models → audio → data; nothing lower imports something higher, and data.core nothing at all."
    chapter = path.relative_to(LIB).parts[0]
    used = {m for m in imports(path) if m.startswith('album_gan.') and m.split('.')[1] in CHAPTERS}
    assert not [m for m in used if CHAPTERS.index(m.split('.')[1]) > CHAPTERS.index(chapter)]
    if module(path) == 'album_gan.data.core': assert not used


def test_package_is_light():
    "`import album_gan` brings no torch and takes under half a second."
    code = 'import sys, album_gan; print(*[m for m in ("torch", "diffusers", "transformers", "numpy", "pandas") if m in sys.modules])'
    done = python('-X', 'importtime', '-c', code)
    assert done.returncode == 0 and done.stdout.strip() == '', done.stdout + done.stderr
    took = [int(m[1]) for m in re.finditer(r'\|\s*(\d+) \|\s*album_gan$', done.stderr, re.MULTILINE)]
    assert took and took[-1] < 500_000, took


def test_data_needs_no_torch():
    "The whole data chapter, its checks and its pictures, works without torch being loaded."
    names = [module(p) for p in MODULES if p.parent == LIB/'data']
    done = python('-c', f'import sys, importlib; [importlib.import_module(m) for m in {names}]; sys.exit("torch" in sys.modules)')
    assert done.returncode == 0, done.stderr or 'a data module imports torch at its top'


def config():
    parsed = configparser.ConfigParser(delimiters=['='])
    parsed.read(ROOT/'settings.ini', encoding='utf-8')
    return parsed['DEFAULT']


def distribution(requirement): return re.split(r'[<>=!~\[; ]', requirement)[0].lower().replace('_', '-')


def test_requirements():
    "What the library imports is what it requires, and constraints.txt pins each of these inside its range, without a build of torch."
    from packaging.requirements import Requirement
    cfg = config()
    required = {distribution(r) for r in cfg['requirements'].split()}
    provided = metadata.packages_distributions()
    extras = {distribution(r) for key in cfg if key.endswith('_requirements') for r in cfg[key].split()} | {'ipython'}
    at_once = lambda path: [m for n in ast.parse(path.read_text(encoding='utf-8')).body for m in ([a.name for a in n.names] if isinstance(n, ast.Import) else [n.module] if isinstance(n, ast.ImportFrom) and not n.level else [])]
    for found, have, where in ((at_once, required, 'requirements'), (imports, required | extras, 'requirements or an extra')):  # an extra may be imported where it is needed
        used = {m.split('.')[0] for path in MODULES for m in found(path)} - set(sys.stdlib_module_names) - {'album_gan'}
        assert not {m for m in used if not have & {distribution(d) for d in provided.get(m, [m])}}, f'add it to {where} in settings.ini'
    for path in NOTEBOOKS:  # a fresh environment must have what notebooks use, too
        code = '\n'.join(re.sub(r'^\s*[%!].*$', '', source(c), flags=re.MULTILINE) for c in cells(path) if c['cell_type'] == 'code')
        nodes = [n for n in ast.walk(ast.parse(code)) if isinstance(n, (ast.Import, ast.ImportFrom))]
        used = {m.split('.')[0] for n in nodes for m in ([a.name for a in n.names] if isinstance(n, ast.Import) else [n.module])} - set(sys.stdlib_module_names) - {'album_gan'}
        known = required | extras
        assert not {m for m in used if not known & {distribution(d) for d in provided.get(m, [m])}}, f'{name(path)}: add it to settings.ini'
    pins = dict(line.split('==') for line in (ROOT/'constraints.txt').read_text().split('\n') if line and line[0] != '#')
    assert not [v for v in pins.values() if '+' in v] and not [p for p in pins if re.match(r'torchvision|torchaudio|nvidia|triton', p)]
    pins = {distribution(k): v for k, v in pins.items()}
    for text in ' '.join(cfg[key] for key in cfg if key.endswith('requirements') and not key.startswith('jukebox')).split():
        wanted = Requirement(text)
        assert wanted.specifier.contains(pins[distribution(text)]), f'{text} does not admit {pins[distribution(text)]}'


def test_python_version():
    assert tomllib.loads((ROOT/'pyproject.toml').read_text())['project']['requires-python'] == f">={config()['min_python']}"


def test_package_data():
    "Whatever lies in album_gan/weights is shipped, and the weights together take at most 30 MB."
    files = [p for p in (LIB/'weights').rglob('*') if p.is_file() and p.suffix not in ('.py', '.pyc')]
    shipped = {p for pattern in config()['package_data'].split() for p in LIB.glob(pattern)}
    assert not [name(p) for p in files if p not in shipped], 'add it to package_data in settings.ini'
    size = sum(p.stat().st_size for p in files if p.name != 'covers.safetensors')  # thumbnails of training covers
    assert size <= 30e6, f'{size / 1e6:.1f} MB'


# ---- every exported name explains itself

def exported(path):
    "Public functions and classes that a module defines and exports."
    mod = importlib.import_module(module(path))
    for key in getattr(mod, '__all__', ()):
        thing = inspect.unwrap(getattr(mod, key)) if not key.startswith('_') else None
        if (inspect.isclass(thing) or inspect.isfunction(thing)) and thing.__module__ == mod.__name__: yield key, thing


def unexplained(thing):
    "Parameters without a one-line comment; `*args` and `**kwargs` need none."
    signature = inspect.signature(thing).parameters.values()
    skip = {p.name for p in signature if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    try: notes = docments(thing, full=True, returns=False)
    except (OSError, TypeError): return []
    return [k for k, v in notes.items() if k not in ('self', 'cls', 'return', *skip) and not (getattr(v, 'docment', None) or (v.get('docment') if isinstance(v, dict) else None))]


def says(method):
    "Whether a method has a docstring, its own or inherited, or, being one line long, a comment where it returns."
    return bool((inspect.getdoc(method) or '').strip() or re.search(r'\) -> .*:\s*# \S', inspect.getsource(method)))


@each(MODULES)
def test_explained(path):
    "A docstring and a comment on every parameter, for all that a module exports; methods at least say what they do."
    missing = []
    for key, thing in exported(path):
        if not (thing.__doc__ or '').strip(): missing.append(f'{key}: docstring')
        if inspect.isfunction(thing): missing += [f'{key}: {p}' for p in unexplained(thing)]
        elif dataclasses.is_dataclass(thing) or '__init__' in vars(thing):
            if thing.__doc__ and thing.__doc__.startswith(f'{thing.__name__}('): missing.append(f'{key}: docstring')  # dataclass's own
            init = thing if dataclasses.is_dataclass(thing) else inspect.unwrap(vars(thing)['__init__'])
            missing += [f'{key}: {p}' for p in unexplained(init)]
        if inspect.isclass(thing):
            for method, f in vars(thing).items():
                f = getattr(f, '__func__', getattr(f, 'fget', getattr(f, 'func', f)))
                if method[0] != '_' and inspect.isfunction(f) and f.__module__ == thing.__module__ and not says(f): missing.append(f'{key}.{method}: docstring')
    assert not missing


# ---- the front page

def test_readme_is_up_to_date(capsys):
    assert readme.main(check=True) == 0, capsys.readouterr()


def test_readme_links_exist():
    "Every relative link and picture of README, CONTRIBUTING and CHANGELOG leads somewhere."
    for page in ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md'):
        text = re.sub(r'<!--.*?-->', '', (ROOT/page).read_text(encoding='utf-8'), flags=re.DOTALL)
        links = [m[2].partition('#')[0] for m in readme.LINK.finditer(readme.CODE.sub('', text))]
        assert not [link for link in links if link and not re.match(r'[a-z]+:', link) and not (ROOT/link).exists()], page


def test_readme_tool():
    "Hidden cells stay out, pictures become files, links and callouts become GitHub's, code keeps its brackets."
    code = lambda text, *outputs: {'cell_type': 'code', 'source': text, 'outputs': list(outputs)}
    shows = lambda kind, data: {'output_type': 'display_data', 'data': {kind: data}}
    made = readme.readme({'cells': [
        {'cell_type': 'markdown', 'source': ['# T\n', '\n', 'See [a](data/10_x.ipynb#y), [b](../LICENSE), [c](https://d.e/f), `[g](h)`.']},
        code('#| hide\nimport secret'),
        code('#| echo: false\nshow()', shows('image/png', 'iVBORw=='), shows('text/markdown', '![p](../results/p.png)')),
        code('1 + 1', shows('text/plain', '2')),
        {'cell_type': 'markdown', 'source': '```bash\nx [y](z)\n```\n\n:::{.callout-tip}\nDo `this`.\n:::'}]})
    page = made['README.md'].decode().removeprefix(readme.HEAD)
    assert page == ('# T\n\nSee [a](nbs/data/10_x.ipynb#y), [b](LICENSE), [c](https://d.e/f), `[g](h)`.\n\n![](docs/readme/index-1.png)\n\n'
                    '![p](results/p.png)\n\n```python\n1 + 1\n```\n\n```text\n2\n```\n\n```bash\nx [y](z)\n```\n\n> [!TIP]\n> Do `this`.\n')
    assert made['docs/readme/index-1.png'] == b'\x89PNG'


# ---- tools

def test_clean_runs_keeps_what_git_knows(tmp_path):
    "Weights, executed notebooks and runs that were never committed go; committed metrics and samples stay."
    import clean_runs
    for file in ('runs/kept/metrics.json', 'runs/kept/weights/model.safetensors', 'runs/new/metrics.json', 'notebooks/train.ipynb', 'table.csv'):
        (tmp_path/'results'/file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path/'results'/file).write_text('1')
    (tmp_path/'.gitignore').write_text((ROOT/'.gitignore').read_text())
    with pytest.raises(SystemExit, match='no git checkout'): clean_runs.leftovers(tmp_path)
    for command in (['init', '-q'], ['add', 'results/runs/kept', 'results/table.csv']): subprocess.run(['git', '-C', tmp_path, *command], check=True)
    found = [p.relative_to(tmp_path/'results').as_posix() for p in clean_runs.leftovers(tmp_path)]
    assert found == ['notebooks', 'runs/kept/weights', 'runs/new']
    subprocess.run(['git', '-C', tmp_path, 'rm', '-rq', '--cached', '.'], check=True)
    assert [p.name for p in clean_runs.leftovers(tmp_path)] == ['notebooks', 'kept', 'new']


def test_numbers_of_the_readme_are_those_of_the_results():
    "The index's table, computed again from results/, is the stored one and the one of the README."
    code = [c for c in json.loads((ROOT/'nbs'/'index.ipynb').read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'code']
    names = {}
    for cell in code: exec(''.join(cell['source']).rsplit('\nMarkdown(', 1)[0], names)
    table = names['to_markdown'](names['table'])
    assert len(names['runs']) == 6 and table in (ROOT/'README.md').read_text(encoding='utf-8')
    assert table in ''.join(code[-1]['outputs'][0]['data']['text/markdown'])
