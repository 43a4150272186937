"""The site is made of what is stored, leads nowhere wrong, and can be read without the network.

A few notebooks and all pages that are written by hand are built and walked through; of the other notebooks the sources are made and looked
at. The whole site: `python tools/docs.py --check`.
"""
import ast
import builtins
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT/'tools'))
pytest.importorskip('sphinx', reason='the site needs the extra "docs": pip install "album_gan[docs]"')
import docs  # noqa: E402  (tools, not packages)
import docs_check  # noqa: E402
import docs_inserts  # noqa: E402

FEW = ('models/fusion', 'data/core', 'train')  # built here: formulas and definitions, one of the lightest, a verb with pictures
pytestmark = pytest.mark.filterwarnings('ignore:.*Check CHANGES for Sphinx API modifications')  # myst's, not ours
chromium = pytest.mark.skipif(not docs_check.find_browser(), reason='no Chromium with chromedriver on this machine (Debian: apt install chromium chromium-driver)')


@pytest.fixture(scope='module')
def site():
    return docs.make_site()


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    "A small site; a warning of Sphinx's would fail here."
    folder = tmp_path_factory.mktemp('site')
    assert docs.build(sources=folder/'sources', out=folder/'html', keep=lambda p: p.name in FEW) == 0
    return folder/'html'


# ---- the sources of all pages

def test_every_notebook_has_its_page(site):
    "Found by themselves, reachable from the sidebar, titled, and without a link that leads nowhere."
    notebooks = {p for p in (ROOT/'nbs').rglob('*.ipynb') if not any(part[0] in '._' for part in p.relative_to(ROOT/'nbs').parts)}
    assert {p.path for p in site.pages if p.path.suffix == '.ipynb'} == notebooks - {ROOT/'nbs'/'index.ipynb'}
    assert not site.problems
    trees = {n: re.findall(r'```\{toctree\}(.*?)```', d.decode(), re.DOTALL) for n, d in site.files.items() if n.endswith('.md')}
    reached = {(Path(n).parent/line).as_posix() for n, blocks in trees.items() for b in blocks for line in b.split('\n') if line and line[0] != ':'}
    assert {Path(n).with_suffix('').as_posix() for n in site.files if not n.startswith('files/')} - reached == {'index'}


def test_every_picture_has_a_text_and_nothing_is_executed(site):
    for name, data in site.files.items():
        if not name.endswith('.ipynb'): continue
        for cell in json.loads(data)['cells']:
            pictures = [o for o in cell.get('outputs', []) if any(k.startswith('image/') for k in o.get('data', {}))]
            if pictures:
                said = cell['metadata']['mystnb']['image']['alt']
                assert len(pictures) == 1 and len(said) > 20 and not docs_check.NOTHING.fullmatch(said), f'{name}: {said}'
            assert not (cell['cell_type'] == 'code' and cell['source'].startswith('#|')), name
    assert "nb_execution_mode, nb_ipywidgets_js, nb_merge_streams = 'off'" in (ROOT/'docs'/'conf.py').read_text()


def test_all_exported_definitions_are_in_the_api(site):
    from album_gan import _modidx
    listed = {(m[2], m[1]) for n, d in site.files.items() if n.startswith('api/') for m in re.finditer(r'^`+\{py:(?:function|class)\} (\w+).*\n:module: (\S+)$', d.decode(), re.MULTILINE)}
    public = {(module, name.rsplit('.', 1)[-1]) for module, names in _modidx.d['syms'].items() for name in names
              if name.count('.') == module.count('.') and name.rsplit('.', 1)[-1][0] != '_'}
    present = {f'album_gan.{p.module}' for p in site.pages if p.path.suffix == '.ipynb' and p.module}
    assert len(listed) > 200 and not {(m, n) for m, n in public if m in present and (ROOT/f"{m.replace('.', '/')}.py").is_file()} - listed


def test_numbers_are_read(tmp_path, site):
    "Pages hold no number of results/; what is not there yet is said to be missing, and what is there is what they show."
    empty = docs.Site([], tmp_path)
    for make in (docs_inserts.showcase, docs_inserts.scores, docs_inserts.figures, docs_inserts.runs, docs_inserts.benchmarks, docs_inserts.prices):
        assert re.search(r'\b(no|not)\b', make(empty), re.IGNORECASE), make.__name__
    shown = docs_inserts.runs(site)
    for folder, config, kept in docs_inserts.run_folders(site):
        line = next(x for x in shown.split('\n') if f'`{folder.name}`' in x)
        if kept['metrics'].get('music_true') is not None: assert f"{kept['metrics']['music_true']:.3f}" in line
    (tmp_path/'benchmarks').mkdir()
    (tmp_path/'benchmarks'/'speed.json').write_text('{"a": {"ours_s": 0.12345}, "n": [1, 2]}')
    (tmp_path/'benchmarks'/'told.md').write_text('# Told\n\n0.777 s\n')
    assert '| a · ours_s | 0.1235 |' in docs_inserts.benchmarks(empty) and '## Told\n\n0.777 s' in docs_inserts.benchmarks(empty)
    (tmp_path/'results').mkdir()
    (tmp_path/'results'/'table.md').write_text('# Results\n\n## Part\n\n| a |\n| --- |\n| 0.4321 |\n')
    assert docs_inserts.scores(empty).strip().startswith('### Part') and '0.4321' in docs_inserts.scores(empty)
    with pytest.raises(SystemExit, match='there are'): docs_inserts.make('nonsense', [], site)


def fences(*languages):
    for path in sorted((ROOT/'docs').glob('*.md')):
        for m in re.finditer(r'^```(\w+)\n(.*?)^```', path.read_text(encoding='utf-8'), re.MULTILINE | re.DOTALL):
            if m[1] in languages: yield path.name, m[2]


def test_what_pages_tell_to_import_is_there(site):
    "Names, and the parameters that functions are called with."
    known = {f'{p.module}.{n.name}': n for p in site.pages if p.path.suffix == '.ipynb' and p.module for n in site.definitions(p)}
    methods = [m for n in known.values() if isinstance(n, ast.ClassDef) for m in docs.public(n)]
    count = 0
    for page, code in fences('python'):
        tree, imported = ast.parse(code), {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module.startswith('album_gan.'):
                for alias in node.names: imported[alias.name] = known[f"{node.module.removeprefix('album_gan.')}.{alias.name}"]
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call): continue
            name = getattr(node.func, 'id', getattr(node.func, 'attr', ''))
            called = [m for m in methods if m.name == name] if isinstance(node.func, ast.Attribute) else [imported[name]] if name in imported else []
            if called or name not in dir(builtins):
                assert any({k.arg for k in node.keywords} <= {a.arg for a in [*c.args.args, *c.args.kwonlyargs]} for c in called if not isinstance(c, ast.ClassDef)), f'{page}: {ast.unparse(node)}'
            count += 1
    assert count >= 5


def test_what_pages_tell_to_type_is_there(site):
    "Notebooks and their parameters, make's targets, the command's options, tools."
    verbs = {p.path.relative_to(ROOT).as_posix(): {n.target.id for c in p.notebook['cells'] if 'parameters' in c['metadata'].get('tags', [])
             for n in ast.parse(docs.text(c['source'])).body if isinstance(n, ast.AnnAssign)} for p in site.pages if p.kind == 'verb'}
    options = set(re.findall(r'add_argument\("(--[\w-]+)"', (ROOT/'album_gan'/'studio'/'cli.py').read_text())) | {'--help'}
    targets = set(re.findall(r'^([a-z-]+):', (ROOT/'Makefile').read_text(), re.MULTILINE))
    seen = 0
    for page, code in fences('bash'):
        for line in re.sub(r'\\\n', ' ', code).split('\n'):
            words = re.sub(r'\s#.*', '', line).split()
            for i, word in enumerate(words):
                if word.startswith('nbs/'): assert word in verbs, f'{page}: {line}'
                if word == '-p': assert words[i + 1] in verbs[next((w for w in words if w.startswith('nbs/')), 'nbs/train.ipynb')], f'{page}: {line}'  # several processes take train's
                if word.startswith('tools/'): assert (ROOT/word.rstrip('.;')).is_file(), f'{page}: {line}'
                if word.startswith('--') and words[0] == 'album-cover': assert word in options, f'{page}: {line}'
                if words[0] == 'make' and i and '=' not in word: assert word in targets, f'{page}: {line}'
            seen += words[:1] in (['papermill'], ['make'], ['album-cover'])
    assert seen >= 10


# ---- definitions, links and pictures

SOURCE = '''@FUSIONS.register("x")
def paint(prompt: str, # what to paint, "#1"
          n: int = 4, # covers
          *, seed=0, # of the noise
         ) -> dict[str, int]: # by title
    "Paint."
    return {}
'''


def test_definition():
    node = ast.parse(SOURCE).body[0]
    told, back = docs.parameters(node, SOURCE)
    assert [(p.name, p.annotation, p.default, p.help) for p in told] == [('prompt', 'str', None, 'what to paint, "#1"'), ('n', 'int', '4', 'covers'), ('seed', '', '0', 'of the noise')]
    assert back == 'by title' and docs.outline(node, SOURCE.split('\n')) == SOURCE[:SOURCE.index('\n    "Paint')]
    assert docs.signature(node) == 'paint(prompt: str, n: int=4, *, seed=0) -> dict[str, int]'
    short = 'class A:\n    def name(self) -> str: return "a:b" # what it is called\n    def f(self, x: dict = {1: 2}): # twice\n        return x'
    a, f = ast.parse(short).body[0].body
    assert docs.parameters(a, short) == ([], 'what it is called') and docs.head(a, short.split('\n'))[0].strip() == 'def name(self) -> str:'
    assert docs.head(f, short.split('\n'))[0].strip() == 'def f(self, x: dict = {1: 2}): # twice' and docs.signature(f) == 'f(x: dict={1: 2})'
    assert docs.prose('a < b, `a < b`, $5 * 2') == r'a \< b, `a < b`, \$5 \* 2'


def test_words_lead_to_pages(site):
    at = ROOT/'nbs'/'train.ipynb'
    assert site.words('[f](models/20_fusion.ipynb#none) and [l](../LICENSE)', at) == '[f](/models/fusion.ipynb#none) and [l](https://github.com/album-gan/album_gan/blob/main/LICENSE)'
    assert site.words('`check_albums`, `x`, [`check_albums`](https://a.b)', at) == '[`check_albums`](#def-data.folder.check_albums), `x`, [`check_albums`](https://a.b)'
    assert site.words('`run` and `parse_views`', at) == '`run` and [`parse_views`](#def-data.youtube.parse_views)' and site.words('`known`', at, 'data.catalogs') == '[`known`](#def-data.catalogs.known)'
    fenced = '```\n[a](nowhere) `check_albums`\n```'
    assert site.words(fenced, at) == fenced.replace('```', '```text', 1) and site.words('`[a](nowhere)`', at) == '`[a](nowhere)`'
    assert site.words(':::{.callout-tip}\n## T\nb\n:::', at) == ':::{admonition} T\n:class: tip\nb\n:::'
    fresh = docs.Site([])
    assert fresh.words('[a](nowhere.md)', at) == 'a' and 'nowhere.md' in fresh.problems[0]


def test_alt():
    assert docs.alt('#| fig-alt: "Two lines that cross"\nplot()', [], 'S', 'w') == 'Two lines that cross'
    assert docs.alt('show()', [{'output_type': 'display_data', 'data': {}, 'metadata': {'image/png': {'alt': 'Eight covers'}}}], 'S', 'w') == 'Eight covers'
    said = docs.alt('ax.set(title="Loss", xlabel="step"); fig.suptitle("Two runs")', [], 'Training', 'It falls:\n\nAnd `rises`:')
    assert said.startswith('Figure in “Training”: ') and all(w in said for w in ('Two runs', 'Loss', 'horizontal axis: step', 'And rises')) and 'falls' not in said
    assert docs.alt('display(loss_curves(t))', [], 'Training', '', {'loss_curves': 'Loss against steps.'}) == 'Figure in “Training”: Loss against steps.'
    assert docs.alt('plot()', [], 'Training', '') == 'Figure made by the code above, in “Training”.'
    assert docs.leads_up('One *two* `low_confidence` [three](x.md).\n\n- a list') == 'One two low_confidence three.'
    assert docs.leads_up('It ends here. ' + 'word '*80) == 'It ends here.' and docs.leads_up('| a |\n\n## b') == ''


def test_what_draws_is_told_apart(site):
    "Two modules have a `contact_sheet`; a notebook's picture is told by the one that it imports, also through an alias."
    told = {p.name: docs.drawn_by(p, site) for p in site.pages if p.name in ('collect', 'analyze', 'train', 'experiments/album_plots')}
    assert told['collect']['contact_sheet'] != told['analyze']['contact_sheet'] == told['experiments/album_plots']['contact_sheet']
    assert 'loss_curves' in told['train'] and 'loss_curves' not in told['collect']


def test_each_picture_of_a_cell_has_its_own_text(tmp_path):
    picture = lambda said: {'output_type': 'display_data', 'data': {'image/png': '', 'text/plain': ''}, 'metadata': {'image/png': {'alt': said}}}
    words = {'output_type': 'stream', 'name': 'stdout', 'text': 'w'}
    cell = {'cell_type': 'code', 'metadata': {}, 'source': 'draw()', 'outputs': [words, picture('First'), words, picture('Second'), words]}
    (tmp_path/'settings.ini').write_text((ROOT/'settings.ini').read_text())
    (tmp_path/'nbs').mkdir()
    (tmp_path/'nbs'/'a.ipynb').write_text(json.dumps({'cells': [{'cell_type': 'markdown', 'metadata': {}, 'source': '# A'}, cell]}))
    page = docs.Page(tmp_path/'nbs'/'a.ipynb', 'a', 'verb', tmp_path)
    _, one, two = docs.convert(page, docs.Site([page], tmp_path))['cells']
    assert [c['metadata']['mystnb']['image']['alt'] for c in (one, two)] == ['First', 'Second'] and [len(c['outputs']) for c in (one, two)] == [3, 2]
    assert one['source'] == 'draw()' and one['metadata']['tags'] == [] and two['metadata']['tags'] == ['remove-input']


def test_two_files_one_page(tmp_path):
    for name in ('nbs/data/10_x.ipynb', 'nbs/data/20_x.ipynb'):
        (tmp_path/name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path/name).write_text('{"cells": []}')
    with pytest.raises(SystemExit, match='10_x.ipynb, nbs/data/20_x.ipynb'): docs.find_pages(tmp_path)


def test_sources_are_touched_only_where_they_change(tmp_path):
    docs.write_sources({'a.md': b'1', 'd/b.md': b'2'}, tmp_path)
    before = (tmp_path/'a.md').stat().st_mtime_ns
    docs.write_sources({'a.md': b'1', 'c.md': b'3'}, tmp_path)
    assert (tmp_path/'a.md').stat().st_mtime_ns == before and sorted(p.name for p in tmp_path.rglob('*')) == ['a.md', 'c.md']


# ---- the pages

def test_pages(built):
    "Titles, headings, links, anchors, pictures and their texts, nothing from elsewhere."
    assert not docs_check.problems_in_files(built)
    names = {'index', 'tutorial', 'your-music', 'real-weights', 'collecting', 'legal', 'scores', 'benchmarks', 'cards', 'settings', 'api/index', 'api/models', 'search', 'genindex', *FEW}
    assert names <= {p.removesuffix('.html') for p in docs_check.read(built)}
    fusion = (built/'models'/'fusion.html').read_text()
    assert '<math' in fusion and 'MathJax' not in fusion and 'id="def-models-fusion-crossfusion-class"' in fusion.lower()


FAULTS = {'<img src="gone.png" alt="x">': 'not there', '<img src="a.png">': 'has no text', '<img src="a.png" alt="a.png">': 'says nothing',
          '<img src="a.png" alt="Figure made by the code above, in “T”.">': 'says nothing', '<script src="https://cdn.example.org/x.js"></script>': 'from elsewhere', '<a href="gone.html">x</a>': 'not there',
          '<a href="#gone">x</a>': 'names a place', '<h3>x</h3>': 'level 3', '<h1>x</h1>': '2 first headings', '<a href="file:///x">x</a>': 'links to'}


@pytest.mark.parametrize('fault', FAULTS)
def test_the_check_of_files_finds(fault, tmp_path):
    page = '<!doctype html><html lang="en"><title>T</title><body><h1>T</h1>{}</body></html>'
    (tmp_path/'a.png').write_bytes(b'')
    (tmp_path/'index.html').write_text(page.format(''))
    assert docs_check.problems_in_files(tmp_path) == []
    (tmp_path/'index.html').write_text(page.format(fault))
    assert any(FAULTS[fault] in p for p in docs_check.problems_in_files(tmp_path))


@chromium
def test_walk(built):
    "Every page of the small site in Chromium: no error in the console, no request leaves, pictures are painted, search finds."
    found, hits = docs_check.problems_in_browser(built, ['index.html', 'tutorial.html', 'scores.html', 'models/fusion.html', 'train.html', 'api/models.html'])
    assert not found and any(re.search('fusion', title, re.IGNORECASE) for title, _ in hits), hits
    assert all(href.startswith('http://127.0.0.1:') for _, href in hits)


@chromium
def test_the_walk_finds(tmp_path):
    "Planted: an error of a script, a picture that is none, a request to another host."
    (tmp_path/'a.png').write_text('no picture')
    (tmp_path/'bad.html').write_text('<!doctype html><html lang="en"><link rel="icon" href="data:,"><title>T</title><img src="a.png" alt="a"><script>fetch("http://127.0.0.2:9/x").catch(() => 0); console.error("ouch")</script></html>')
    with docs_check.served(tmp_path) as base, docs_check.chromium() as driver:
        found = docs_check.look(driver, base, 'bad.html')
    assert all(any(word in f for f in found) for word in ('a.png is not painted', 'ouch', 'asks for http://127.0.0.2:9/x')), found


@chromium
def test_phone(built):
    "At a phone's width nothing makes a page scroll sideways, and the sidebar folds away."
    with docs_check.served(built) as base, docs_check.chromium(500, 900) as driver:
        driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', dict(width=390, height=844, deviceScaleFactor=1, mobile=True))
        for name in ('index', 'train', 'models/fusion', 'scores', 'collecting', 'api/models'):
            driver.get(f'{base}/{name}.html')
            assert driver.execute_script('return document.documentElement.scrollWidth') <= 391, name


# ---- publishing

def test_workflow_builds_what_is_checked_here():
    import yaml
    flow = yaml.safe_load((ROOT/'.github'/'workflows'/'docs.yml').read_text())
    runs = [step.get('run', '') for step in flow['jobs']['build']['steps']]
    assert 'python tools/docs.py --check' in runs and any('--requirements' in r for r in runs)
    assert flow['jobs']['publish']['permissions'] == {'pages': 'write', 'id-token': 'write'} and flow['permissions'] == {'contents': 'read'}


def test_requirements(capsys):
    "What the workflow installs is all that the tools import, and is pinned."
    assert docs.main(['--requirements']) == 0
    names = {re.split(r'[<>=]', r)[0] for r in capsys.readouterr().out.split()}
    assert {'sphinx', 'myst-nb', 'furo', 'pillow', 'selenium'} <= names
    pins = {line.split('==')[0].lower().replace('_', '-') for line in (ROOT/'constraints.txt').read_text().split('\n')}
    assert names <= pins
