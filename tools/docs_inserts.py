"""What the site reads from files instead of having it typed: `<!-- insert: NAME -->` in `docs/*.md` is replaced by what `NAME` below makes.

Each function gets the words behind its name and the `docs.Site`, and answers Markdown. Where there is nothing to read yet,
it says so and how it is made; a file that cannot be read stops the build.
"""
import ast
import json
import re
from pathlib import Path

from PIL import Image

import docs


def make(name: str, words: list[str], site) -> str:
    "The Markdown for one insert."
    if name not in INSERTS: raise SystemExit(f'docs/ asks for <!-- insert: {name} -->; there are: {", ".join(sorted(INSERTS))}')
    return INSERTS[name](site, *words)


def row(*cells) -> str: return '| ' + ' | '.join(str(c).replace('|', r'\|').replace('\n', ' ') for c in cells) + ' |'
def table(head: list, rows: list) -> str: return '\n'.join([row(*head), row(*['---']*len(head)), *(row(*r) for r in rows)])
def demoted(markdown: str) -> str: return re.sub(r'^(#+ )', r'#\1', markdown, flags=re.MULTILINE)


def run_folders(site) -> list[tuple[Path, dict, dict]]:
    "Every run that was kept: its folder, its configuration, its metrics."
    found = []
    for path in sorted((site.root/'results'/'runs').glob('*/metrics.json')):
        if (path.parent/'config.json').is_file():
            found.append((path.parent, json.loads((path.parent/'config.json').read_text()), json.loads(path.read_text())))
    return found


def description(path: Path, otherwise: str) -> str:
    "What a picture says of itself, for those who cannot see it."
    return ' '.join((Image.open(path).info.get('Description') or otherwise).split()).replace('[', '(').replace(']', ')')


def figure(site, path: Path, alt: str, caption: str = '') -> str:
    return f':::{{figure}} {site.carry(path)}\n:figclass: show\n:alt: {alt}\n\n{caption}\n:::'


def showcase(site) -> str:
    "The picture of the first run, by seed, that lets the gated fusion listen; not the best one."
    kept = [(f, c, m) for f, c, m in run_folders(site) if c['train'].get('fusion') == 'gated' and (f/'samples'/'music.png').is_file()]
    if not kept: return '*No run has been kept yet: `make demo` trains one and ends on the path of a picture.*'
    folder, config, metrics = min(kept, key=lambda r: (not r[1]['data'].get('synthetic'), r[1]['train']['seed'], r[0].name))
    factors, hue = metrics['metrics'].get('factors', {}), ''
    if 'hue' in factors:
        hue = (f" Over {metrics['metrics']['n']} held-out albums the painted hue is off by {factors['hue']['true']:.2f} of the colour circle with the "
               f"album's own music, by {factors['hue']['shuffled']:.2f} with another artist's, by {factors['hue']['off']:.2f} with none.")
    name = folder.relative_to(site.root).as_posix()
    cfg = docs.settings(site.root)
    caption = (f"Each column is one song, each row one title and genre: along a row only the music changes.{hue} "
               f"{'Synthetic albums; ' if config['data'].get('synthetic') else ''}run [`{folder.name}`]({cfg['git_url']}/tree/{cfg['branch']}/{name}).")
    return figure(site, folder/'samples'/'music.png', description(folder/'samples'/'music.png', 'A grid of painted album covers. Along a row, where the title stays, '
                  'emblem and pattern stay and the colours change with the song; down a column, where the song stays, the colours stay'), caption)


def scores(site) -> str:
    "results/table.md, as nbs/results.ipynb writes it, with its figures."
    path = site.root/'results'/'table.md'
    if not path.is_file():
        return ':::{note}\nThe table has not been made in this checkout. `papermill nbs/results.ipynb` runs what is missing and writes `results/table.md`; build the pages again afterwards.\n:::'
    text = re.sub(r'^# .*\n', '', site.words(path.read_text(encoding='utf-8'), path), count=1)
    parts = [demoted(text)]
    if (data := path.with_suffix('.csv')).is_file(): parts.append(f'Every number with its interval: [`results/table.csv`]({site.carry(data)}).')
    return '\n\n'.join(parts)


def figures(site) -> str:
    "All pictures of results/figures, each with the description it carries."
    found = sorted((site.root/'results'/'figures').glob('*.png'))
    if not found: return '*No figures yet: `papermill nbs/results.ipynb` draws them.*'
    silent = [p.name for p in found if not Image.open(p).info.get('Description')]
    if silent: raise SystemExit(f'results/figures: {", ".join(silent)} without a description; write figures with experiments.plots.save_figure.')
    return '\n\n'.join(figure(site, p, description(p, ''), description(p, '')) for p in found)


def runs(site) -> str:
    "Every run folder that was kept, real albums and synthetic ones apart."
    parts = []
    for synthetic, title in ((False, 'Real albums'), (True, 'Synthetic albums of the demo world')):
        rows = []
        for folder, config, kept in run_folders(site):
            if bool(config['data'].get('synthetic')) != synthetic: continue
            m, t = kept['metrics'], config['train']
            number = lambda key, form='{:.3f}', scale=1: form.format(m[key]*scale) if isinstance(m.get(key), (int, float)) else '–'
            rows.append((f"[`{folder.name}`]({site.carry(folder/'metrics.json')})", t.get('fusion'), t.get('recipe'), config.get('painting', {}).get('scheduler', '–'), t.get('backbone'),
                         t.get('encoder'), t.get('seed'), m.get('n', '–'), number('music_true'), number('music_shuffled'), number('music_off'), number('kid', '{:.1f}', 1e3), number('fid', '{:.0f}')))
        if rows:
            parts.append(f'### {title}\n\n' + table(['run', 'fusion', 'recipe', 'sampler', 'backbone', 'encoder', 'seed', 'N', 'music: own', "another's", 'off', 'KID × 1000', 'FID'], rows))
    if not parts: return '*No run has been kept yet: `make demo` makes the first.*'
    notes = next((k['metrics']['notes'] for _, _, k in run_folders(site) if k['metrics'].get('notes')), {})
    said = [f'- **{key.replace("_", " ")}**: {notes[key]}' for key in ('music', 'kid', 'fid_floor') if key in notes]
    return '\n\n'.join([*parts, '\n'.join(said)])


def benchmarks(site) -> str:
    "Every report in benchmarks/, and what was measured on a GPU, in results/gpu/; one section each."
    parts = []
    for path in [*sorted((site.root/'benchmarks').glob('*.md')), *sorted((site.root/'results'/'gpu').glob('*.md'))]:
        text = demoted(site.words(path.read_text(encoding='utf-8'), path))
        if not text.startswith('## '): text = f'## {path.stem}\n\n{text}'
        data = path.with_suffix('.json')
        parts.append(text.rstrip() + (f'\n\nAll of it: [`{data.name}`]({site.carry(data)}).' if data.is_file() else ''))
    for path in sorted((site.root/'benchmarks').glob('*.json')):
        if path.with_suffix('.md').is_file(): continue
        flat = [(k, v) for k, v in flattened(json.loads(path.read_text())) if not isinstance(v, str) or len(v) < 120]
        parts.append(f'## {path.stem}\n\n{table(["", ""], flat[:60])}\n\nAll of it: [`{path.name}`]({site.carry(path)}).')
    return '\n\n'.join(parts) or '*No benchmark has been run yet.*'


def flattened(value, name: str = '') -> list[tuple[str, object]]:
    "The leaves of a JSON value with their paths."
    if isinstance(value, dict): return [leaf for k, v in value.items() for leaf in flattened(v, f'{name} · {k}' if name else str(k))]
    if isinstance(value, list): return [leaf for i, v in enumerate(value[:20]) for leaf in flattened(v, f'{name}[{i}]')]
    return [(name, f'{value:.4g}' if isinstance(value, float) else value)]


def cards(site, kind: str) -> str:
    "Model cards, or data cards: every README.md and *card*.md that lies beside weights or results, YAML on top left out."
    places = {'model': ['album_gan/weights/README.md', 'album_gan/weights/**/README.md', 'results/runs/*/README.md', 'docs/cards/model*.md', 'docs/cards/*-model.md'],
              'data': ['docs/cards/data*.md', 'docs/cards/*-data.md', 'results/cards/*.md', 'results/data*.md']}[kind]
    found = [p for p in dict.fromkeys(p for pattern in places for p in sorted(site.root.glob(pattern)))]
    parts = []
    for path in found:
        text = re.sub(r'\A---\n.*?\n---\n', '', path.read_text(encoding='utf-8'), flags=re.DOTALL).strip()
        text = demoted(site.words(text, path))
        name = path.relative_to(site.root).as_posix()
        if not text.startswith('#'): text = f'## {name}\n\n{text}'
        cfg = docs.settings(site.root)
        parts.append(re.sub(r'^(##+ .*)\n', rf"\1\n\nFrom [`{name}`]({cfg['git_url']}/blob/{cfg['branch']}/{name}).\n", text, count=1))
    return '\n\n'.join(parts)


def facts(site) -> str:
    "What was written down when each packaged model was made, from its training.json, and what its run measured."
    parts = []
    for path in sorted((site.root/'album_gan'/'weights').glob('*/training.json')):
        about = json.loads(path.read_text(encoding='utf-8'))
        metrics = site.root/about['metrics'] if isinstance(about.get('metrics'), str) else None
        rows = [(docs.prose(k), docs.prose(str(v))) for k, v in flattened(about) if isinstance(v, (int, float, str)) and not re.search(r'sha256|loss|curve|\[|fingerprint', k)]
        said = [f'### `{path.parent.name}`', table(['', ''], rows)]
        if metrics and metrics.is_file():
            m = json.loads(metrics.read_text(encoding='utf-8'))
            f = m['metrics'].get('factors') or {}
            number = lambda v: f'{v:.2f}' if isinstance(v, (int, float)) else '–'
            if f: said += [f"Measured on {m['metrics']['n']} held-out {'synthetic ' if m.get('synthetic', about.get('synthetic')) else ''}albums, from the same prompts and noise ([`metrics.json`]({site.carry(metrics)})):",
                           table(['error of', 'own music', "another's", 'no music', 'chance'], [(k, *(number(v.get(a)) for a in ('true', 'shuffled', 'off', 'chance'))) for k, v in f.items()])]
        parts.append('\n\n'.join([*said, f'All of it, with the hashes of the files: [`training.json`]({site.carry(path)}).']))
    return '\n\n'.join(parts) or '*No weights are in this checkout.*'


def services(site) -> str:
    "Who is asked, how often at most, and who says so: from the registry in data/http."
    page = next((p for p in site.pages if p.name == 'data/http'), None)
    if page is None: return ''
    rows = []
    for cell in page.notebook['cells']:
        if cell['cell_type'] != 'code': continue
        source = docs.text(cell['source'])
        if not re.search(r'\bService\("', source) or 'export' not in docs.directives(source): continue
        for node in ast.walk(docs.parsed(source)):
            if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'Service' and len(node.args) >= 5:
                name, _, hosts, (n, seconds), said = map(ast.literal_eval, node.args[:5])
                rows.append((f'`{name}`', ', '.join(f'`{h}`' for h in hosts), f"{n} in {seconds:g} s", said))
    if not rows: raise SystemExit('tools/docs_inserts.py: data/http has no Service(...) any more; read its limits from where they are now.')
    return table(['service', 'hosts', 'requests at most, per host', 'where that comes from'], rows)


def options(site, verb: str) -> str:
    "A verb's parameters, from its tagged cell."
    page = next((p for p in site.pages if p.kind == 'verb' and p.name == verb), None)
    if page is None: return f'*`nbs/{verb}.ipynb` is not in this checkout.*'
    cell = next(c for c in page.notebook['cells'] if 'parameters' in c['metadata'].get('tags', []))
    source = docs.text(cell['source'])
    notes = docs.comments(source)
    rows = [(f'`{n.target.id}`', f'`{ast.unparse(n.value)}`', docs.prose(notes.get(n.end_lineno, ''))) for n in ast.parse(source).body if isinstance(n, ast.AnnAssign)]
    return table(['parameter', 'default', 'what it does'], rows)


def verbs(site) -> str:
    return '\n'.join(f'- [{p.title}](/{p.file}): {p.subtitle}' for p in site.pages if p.kind == 'verb')


def chapters(site) -> str:
    return '\n'.join(f"- [{docs.CHAPTERS.get(c, (c.capitalize(), ''))[0]}](/{c}/index.md): {docs.CHAPTERS.get(c, ('', ''))[1]} {len(pages)} notebooks." for c, pages in docs.chapters(site.pages).items())


def contents(site) -> str:
    "The sidebar: what is written by hand is named here, notebooks are found."
    hand = {p.name for p in site.pages if p.kind == 'hand'} - {'index'}
    groups = {'Start': ['tutorial', 'your-music', 'real-weights'], 'Run': [p.name for p in site.pages if p.kind == 'verb'],
              'Read': [f'{c}/index' for c in docs.chapters(site.pages)], 'Numbers': ['scores', 'benchmarks', 'cards'],
              'Fair play': ['collecting', 'legal'], 'Look up': ['api/index', 'settings', 'contributing', 'changelog']}
    known = {n for names in groups.values() for n in names}
    groups['Look up'] += sorted(hand - known)
    made = {f'{c}/index' for c in docs.chapters(site.pages)} | {'api/index'} | {p.name for p in site.pages}
    site.files['api/index.md'] = api_index(site).encode()
    return '\n\n'.join('\n'.join(['```{toctree}', ':hidden:', f':caption: {title}', '', *(n for n in names if n in made), '```']) for title, names in groups.items())


def api_index(site) -> str:
    "The reference's first page: each module in a line."
    parts = ['# API', 'All that the library exports, from the same notebooks that explain it. Chapters import downwards only: studio, experiments, models, audio, data.']
    found = {c: [p for p in pages if p.module] for c, pages in docs.chapters(site.pages).items()}
    for chapter, pages in found.items():
        if pages: parts.append(f"## {docs.CHAPTERS.get(chapter, (chapter.capitalize(),))[0]}\n\n" + '\n'.join(f'- [`album_gan.{p.module}`](#api-{p.module}): {p.subtitle}' for p in pages))
    parts.append('\n'.join(['```{toctree}', ':hidden:', '', *(c for c, pages in found.items() if pages), '```']))
    return '\n\n'.join(parts) + '\n'


def environment(site) -> str:
    "`.env.example`, which names every setting."
    return f"```bash\n{(site.root/'.env.example').read_text(encoding='utf-8').strip()}\n```"


def weights(site) -> str:
    "What ships with the package, in bytes that are counted here."
    rows = [(f'`{p.name}`', f"{sum(f.stat().st_size for f in p.rglob('*') if f.is_file())/1e6:.1f} MB") for p in sorted((site.root/'album_gan'/'weights').iterdir()) if p.is_dir() and p.name[0] not in '_.']
    return table(['folder of `album_gan/weights`', 'size'], rows)


def prices(site) -> str:
    "What real-size models take, on a processor and on a GPU."
    found = [*sorted((site.root/'benchmarks').glob('real_size*.md')), *(site.root/'results'/'gpu').glob('real_size.md')]
    if not found: return '*Not measured in this checkout yet: `python benchmarks/real_size.py` does.*'
    return '\n\n'.join(demoted(demoted(site.words(p.read_text(encoding='utf-8'), p))).rstrip() for p in found)


INSERTS = {f.__name__: f for f in (showcase, scores, figures, runs, benchmarks, cards, facts, services, options, verbs, chapters, contents, environment, weights, prices)}
