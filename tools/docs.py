"""The documentation as a site of plain files in `_docs/`: pages, notebooks as they are stored, the API and every number read from files.

    python tools/docs.py                   # build _docs/index.html
    python tools/docs.py --check           # build, then look at every page as a reader's browser would
    python tools/docs.py --check-only      # look at what is built
    python tools/docs.py --requirements    # what it needs: pip install $(python tools/docs.py --requirements)

Nothing is executed and the package is not imported: definitions and the comments on their parameters are read from the notebooks'
source, outputs are those that the notebooks store. A notebook that is new in `nbs/` has its page at the next build. Besides notebooks,
pages are written by hand in `docs/*.md`; where one of them says `<!-- insert: NAME -->`, a function of `tools/docs_inserts.py` puts what it
reads from `results/`, `benchmarks/` or the sources.
"""
import argparse
import ast
import base64
import copy
import inspect
import io
import json
import re
import shutil
import sys
import tokenize
from configparser import ConfigParser
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from readme import CODE, ROOT, text

# chapters in the order of reading; one that is not listed here comes after these, under its folder's name
CHAPTERS = {'data': ('Data', 'Album folders: where they come from, what they hold, how they are cleaned and divided.'),
            'audio': ('Audio', 'From a song to numbers: clips, codecs, and encoders that listen.'),
            'models': ('Models', 'Adapter, fusions, conditioner, backbone, and the pipeline that joins them.'),
            'experiments': ('Experiments', 'Preparing, training, measuring, comparing.'),
            'studio': ('Studio', 'From a picture to a cover: lettering, delivery, and the tools that musicians use.'),
            'pretrain': ('Recipes', 'How the small models that ship with the package were made.')}
VERBS = ['collect', 'analyze', 'train', 'experiment', 'results', 'generate']  # in the order of the pipeline; others after these
FRONT = re.compile(r'^- \w+: .*\n?', re.MULTILINE)  # what nbdev reads below a title
ESCAPES = re.compile(r'\x1B(?:[@-Z\\-_]|\[[0-?]*[ -/]*[@-~])')
LINK = re.compile(r'(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(\s*<?([^)\s>]+)>?(\s+"[^"]*")?\s*\)')
DEFS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
FILES = {'.csv', '.json', '.txt', '.png', '.jpg', '.jpeg', '.svg', '.gif', '.webp'}  # these the site carries along, other files it links to


def settings(root: Path = ROOT) -> dict:
    "settings.ini, which has the project's names."
    parsed = ConfigParser(delimiters=['='])
    parsed.read(root/'settings.ini', encoding='utf-8')
    return parsed['DEFAULT']


# ---- definitions, as their authors wrote them

def comments(source: str) -> dict[int, str]:
    "The comment of each line that has one; a `#` inside a string is none."
    found = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip('# ').strip() for t in found if t.type == tokenize.COMMENT}


@dataclass
class Parameter:
    name: str
    annotation: str
    default: str | None
    help: str


def starts(node: ast.AST) -> int:
    "The line, from 1, where a definition begins, decorators included."
    return min([node.lineno, *(d.lineno for d in node.decorator_list)])


def head(node: ast.AST, lines: list[str]) -> tuple[str, int]:
    "A definition up to its body – decorators, signature, comments – and the line of the colon that ends it."
    depth, begun = 0, False
    rest = '\n'.join(lines[node.lineno - 1:]) + '\n'
    for t in tokenize.generate_tokens(io.StringIO(rest).readline):
        if t.type == tokenize.NAME and t.string in ('def', 'class'): begun = True
        if t.type != tokenize.OP: continue
        depth += (t.string in '([{') - (t.string in ')]}')
        if begun and t.string == ':' and depth == 0: break
    last = node.lineno - 1 + t.start[0]
    above, line = lines[starts(node) - 1:last - 1], lines[last - 1]
    return '\n'.join([*above, line[:t.end[1]] if node.body[0].lineno == last else line]).rstrip(), last


def parameters(node: ast.FunctionDef, source: str) -> tuple[list[Parameter], str]:
    "A function's parameters without `self` and `cls`, each with the comment behind it, and the comment on what it returns."
    a, notes, last = node.args, comments(source), head(node, source.split('\n'))[1]
    plain = [*a.posonlyargs, *a.args]
    rows = [*zip(plain, [None]*(len(plain) - len(a.defaults)) + a.defaults), *([(a.vararg, None)] if a.vararg else []),
            *zip(a.kwonlyargs, a.kw_defaults), *([(a.kwarg, None)] if a.kwarg else [])]
    line = {arg.arg: (default or arg).end_lineno for arg, default in rows}
    def note(arg):  # a comment belongs to the one parameter on its line; on the last line it is about what comes back
        shared = sum(n == line[arg] for n in line.values()) > 1
        return '' if shared or (node.returns and line[arg] == last) else notes.get(line[arg], '')
    star = lambda arg: '*' if arg is a.vararg else '**' if arg is a.kwarg else ''
    found = [Parameter(star(arg) + arg.arg, ast.unparse(arg.annotation) if arg.annotation else '', ast.unparse(default) if default else None, note(arg.arg))
             for arg, default in rows if arg.arg not in ('self', 'cls')]
    return found, notes.get(last, '') if node.returns else ''


def label(module: str, node: ast.AST) -> str:
    "The name under which other pages link to a definition; labels do not tell `Secret` from `secret`."
    return f"def-{module}.{node.name}{'-class' if isinstance(node, ast.ClassDef) else ''}"


def public(node: ast.ClassDef) -> list[ast.FunctionDef]:
    "Methods that a user calls."
    return [n for n in node.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)) and (n.name[0] != '_' or n.name == '__call__')]


def fields(node: ast.ClassDef) -> list[ast.AnnAssign]:
    "What a data class holds."
    return [n for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name) and n.target.id[0] != '_']


def outline(node: ast.AST, lines: list[str]) -> str:
    "A function's head, or a class's with its fields and the heads of its methods."
    if not isinstance(node, ast.ClassDef): return head(node, lines)[0]
    parts = [head(node, lines)[0]]
    parts += ['\n'.join(lines[f.lineno - 1:f.end_lineno]).rstrip() for f in fields(node)]
    for method in [*(n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == '__init__'), *public(node)]:
        said = (ast.get_docstring(method) or '').split('\n')[0]
        pad = ' '*(method.col_offset + 4)
        parts += ['', head(method, lines)[0], *([f'{pad}"{said}"'] if said else [])]
    return '\n'.join(parts)


def prose(said: str) -> str:
    "A docstring as Markdown: what would be a tag, a formula or emphasis by accident is none."
    pieces = re.split(r'(`[^`\n]+`|https?://\S+)', inspect.cleandoc(said))
    return ''.join(p if i % 2 else re.sub(r'([<*$])', r'\\\1', p) for i, p in enumerate(pieces))


# ---- pages

@dataclass
class Page:
    "A page of the site and the file it is made from."
    path: Path  # the file
    name: str  # its address without the ending: data/folder
    kind: str  # hand, verb, noun or recipe
    root: Path = ROOT

    @cached_property
    def notebook(self) -> dict: return json.loads(self.path.read_text(encoding='utf-8'))

    @property
    def file(self) -> str:  # beside the other sources
        return self.name + self.path.suffix

    @cached_property
    def opening(self) -> str:
        first = text(self.notebook['cells'][0]['source']) if self.path.suffix == '.ipynb' else self.path.read_text(encoding='utf-8')
        return re.sub(r'<!--.*?-->', '', first, flags=re.DOTALL)

    @property
    def title(self) -> str:
        found = re.search(r'^# (.+)$', self.opening, re.MULTILINE)
        if not found: raise SystemExit(f'{self.path.relative_to(self.root)} has no title; begin it with "# Title".')
        return found[1].strip()

    @property
    def subtitle(self) -> str:
        found = re.search(r'^((?:> ?.+\n?)+)', self.opening, re.MULTILINE)
        return ' '.join(line.lstrip('> ').strip() for line in found[1].strip().split('\n')) if found else ''

    @cached_property
    def module(self) -> str:
        "The module that a noun exports, without the package's name: data.folder."
        sources = (text(c['source']) for c in self.notebook['cells'] if c['cell_type'] == 'code')
        return next((m[1] for s in sources if (m := re.search(r'^#\|\s*default_exp\s+(\S+)', s, re.MULTILINE))), '')


def find_pages(root: Path = ROOT) -> list[Page]:
    "All pages: those in docs/, then verbs, then nouns and recipes in the order of reading."
    nbs, found = root/'nbs', [Page(p, p.stem, 'hand', root) for p in sorted((root/'docs').glob('*.md'))]
    found += [Page(root/f'{stem}.md', stem.lower(), 'hand', root) for stem in ('CONTRIBUTING', 'CHANGELOG') if (root/f'{stem}.md').is_file()]
    place = lambda names, x: (list(names).index(x) if x in names else len(list(names)), x)
    notebooks = [p for p in nbs.rglob('*.ipynb') if not any(part[0] in '._' for part in p.relative_to(nbs).parts)]
    found += [Page(p, p.stem, 'verb', root) for p in sorted(notebooks, key=lambda p: place(VERBS, p.stem)) if p.parent == nbs and p.stem != 'index']
    for p in sorted((p for p in notebooks if p.parent != nbs), key=lambda p: (place(CHAPTERS, p.relative_to(nbs).parts[0]), p.name)):
        name = re.sub(r'(^|/)[0-9]+_', r'\1', p.relative_to(nbs).with_suffix('').as_posix())
        found.append(Page(p, name, 'recipe' if p.relative_to(nbs).parts[0] == 'pretrain' else 'noun', root))
    names = [p.name for p in found]
    if twice := {n for n in names if names.count(n) > 1}:
        raise SystemExit('Two files would become one page; rename one of: ' + ', '.join(p.path.relative_to(root).as_posix() for p in found if p.name in twice))
    return found


@dataclass
class Site:
    "The site as a set of source files, by path."
    pages: list[Page]
    root: Path = ROOT
    files: dict[str, bytes] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)  # links that lead nowhere

    def __post_init__(self):
        self.by_path = {p.path.resolve(): p for p in self.pages}
        self.by_path[(self.root/'nbs'/'index.ipynb').resolve()] = self.by_path.get((self.root/'docs'/'index.md').resolve())
        self.by_path[(self.root/'README.md').resolve()] = self.by_path.get((self.root/'docs'/'index.md').resolve())
        self.names = {}  # a definition's name -> its labels; data.folder.check_albums -> its label
        self.drawn = {}  # (module, name) of a function that draws -> what it says of itself
        for page in self.pages:
            if page.path.suffix != '.ipynb' or not page.module: continue
            for node in self.definitions(page):
                self.names.setdefault(node.name, []).append(label(page.module, node))
                if draws(node): self.drawn[page.module, node.name] = (ast.get_docstring(node) or '').split('\n')[0]
                for full in (f'{page.module}.{node.name}', f'album_gan.{page.module}.{node.name}'): self.names[full] = [label(page.module, node)]

    def definitions(self, page: Page) -> list[ast.AST]:
        "What a notebook exports for others."
        found = []
        for cell in page.notebook['cells']:
            source = text(cell['source'])
            if cell['cell_type'] == 'code' and 'export' in directives(source) and 'hide' not in directives(source):
                found += [n for n in parsed(source).body if isinstance(n, DEFS) and n.name[0] != '_']
        return found

    def carry(self, path: Path) -> str:
        "Take a file into the site; its address there."
        name = 'files/' + path.resolve().relative_to(self.root.resolve()).as_posix()
        self.files[name] = path.read_bytes()
        return '/' + name

    def link(self, target: str, at: Path, picture: bool = False) -> str | None:
        "Where a link of a file leads on the site; None where there is nothing. `/data/index.md` names a page of the site itself."
        if re.match(r'[a-z][a-z0-9+.-]*:|#|/', target, re.IGNORECASE): return target
        name, mark, anchor = target.partition('#')
        path = (at.parent/name).resolve()
        if page := self.by_path.get(path): return f'/{page.file}{mark}{anchor}'
        if not path.is_relative_to(self.root.resolve()) or not path.exists(): return None
        if path.is_file() and (picture or path.suffix in FILES): return self.carry(path)
        cfg = settings(self.root)
        return f"{cfg['git_url']}/{'tree' if path.is_dir() else 'blob'}/{cfg['branch']}/{path.relative_to(self.root.resolve()).as_posix()}{mark}{anchor}"

    def words(self, source: str, at: Path, module: str = '') -> str:
        "Markdown with its links leading to pages of the site, and names of the library to where they are explained."
        def moved(m):
            to = self.link(m[3], at, bool(m[1]))
            if to is None:
                self.problems.append(f'{at.relative_to(self.root)}: the link {m[3]!r} leads nowhere; mend or remove it.')
                return m[2]
            return f'{m[1]}[{m[2]}]({to}{m[4] or ""})'

        def named(m):
            name = m[1].removesuffix('()')
            if '/' in name:  # a file of the project
                page = self.by_path.get((self.root/name).resolve())
                return f'[{m[0]}](/{page.file})' if page and m[2] != ']' else m[0]
            # a plain word is a word, unless the page's own module has it or it is called: `run` is not everybody's `run()`
            plain = re.fullmatch('[a-z]+', m[1])
            labels = self.names.get(f'{module}.{name}') or (not plain and self.names.get(name)) or []
            return f'[{m[0]}](#{labels[0]})' if len(labels) == 1 and m[2] != ']' else m[0]

        pieces, last = [], 0
        for block in [*re.finditer(r'^(`{3,}|~{3,})[^\n]*\n.*?^\1[^\n]*$', source, re.MULTILINE | re.DOTALL), None]:
            said = source[last:block.start() if block else None]
            code = [range(*c.span()) for c in re.finditer(r'`[^`\n]+`', said)]
            said = LINK.sub(lambda m: m[0] if any(m.start() in c for c in code) else moved(m), said)
            # names inside a link or a heading stay as they are
            said = '\n'.join(line if line.startswith('#') else re.sub(r'(?<![`\[\w])`([A-Za-z_][\w.]*(?:\(\))?|nbs/[\w/]+\.ipynb)`(?!`)(?=(.?))', named, line) for line in said.split('\n'))
            pieces.append(callouts(said))
            if block:  # what has no language is not highlighted as if it were Python
                pieces.append(re.sub(r'^(`{3,}|~{3,})[ \t]*\n', r'\1text\n', block[0]))
                last = block.end()
        return ''.join(pieces)


def callouts(source: str) -> str:
    "`:::{.callout-tip}` as MyST's `:::{tip}`, with its heading as a title."
    def box(m):
        kind, body = m[1], m[2].strip('\n')
        title = re.match(r'#+ (.+)\n', body)
        if title: return f':::{{admonition}} {title[1]}\n:class: {kind}\n{body[title.end():]}\n:::'
        return f':::{{{kind}}}\n{body}\n:::'
    return re.sub(r'^:::\s*\{\.callout-(\w+)[^}]*\}\n(.*?)^:::\s*$', box, source, flags=re.MULTILINE | re.DOTALL)


# ---- notebooks

def directives(source: str) -> dict[str, str]:
    "nbdev's and Quarto's: `#| echo: false` is {'echo': 'false'}."
    return {m[1]: (m[2] or '').strip() for m in re.finditer(r'^#\|\s*([\w-]+)\s*:?[ \t]*(.*)$', source, re.MULTILINE)}


def parsed(source: str) -> ast.Module:
    "A cell's syntax; magics are blank lines."
    return ast.parse(re.sub(r'^\s*[%!].*$', '', source, flags=re.MULTILINE))


def without_directives(source: str) -> str: return re.sub(r'^#\|.*\n?', '', source, flags=re.MULTILINE).strip('\n')


def described(outputs: list) -> str:
    "The description that comes with a picture: in its output's metadata, as IPython and JupyterLab keep it, or inside the PNG, as `experiments.plots.save_figure` writes it."
    from PIL import Image
    for out in outputs:
        if said := out.get('metadata', {}).get('image/png', {}).get('alt', ''): return said
        if 'image/png' in out.get('data', {}):
            said = Image.open(io.BytesIO(base64.b64decode(text(out['data']['image/png'])))).info.get('Description', '')
            if said: return said
    return ''


def draws(node: ast.AST) -> bool:
    "Whether a function makes a figure, by what it returns or what it is called."
    return isinstance(node, ast.FunctionDef) and ('Figure' in ast.unparse(node.returns or ast.Constant('')) or node.name.endswith(('_grid', '_sheet', '_plot')))


def drawn_by(page: Page, site: Site) -> dict[str, str]:
    "What the functions that draw say of themselves, by the names under which a notebook has them: its own and those that it imports."
    sources = {page.module}
    for cell in page.notebook['cells']:
        if cell['cell_type'] != 'code': continue
        for node in ast.walk(parsed(text(cell['source']))):
            if isinstance(node, ast.ImportFrom): sources |= {f'{node.module}.{a.name}'.removeprefix('album_gan.') for a in node.names}
    return {name: said for (module, name), said in site.drawn.items() if {module, f'{module}.{name}'} & sources}


def leads_up(before: str, most: int = 300) -> str:
    "The last paragraph that is one, as plain words; whole sentences of it where it is long."
    paragraph = next((p for p in reversed(re.split(r'\n\s*\n', before.strip())) if not re.match(r'[#|>$]|```|[-*] |\d+\. ', p)), '')
    plain = re.sub(r'`|\*+|(?<!\w)_+|_+(?!\w)|!?\[([^\]]*)\]\([^)]*\)', lambda m: m[1] or '', ' '.join(paragraph.split()))
    if len(plain) <= most: return plain
    whole = re.match(rf'.{{1,{most}}}(?<!e\.g)(?<!i\.e)[.!?:;](?= )', plain)
    return whole[0] if whole else plain[:most].rsplit(' ', 1)[0] + ' …'


def alt(source: str, outputs: list, section: str, before: str, drawn: dict[str, str] | None = None) -> str:
    """What a picture shows, for those who cannot see it: `#| fig-alt: …` or the picture's own description; else what the function that
    draws it says of itself (`drawn`, by name), the titles and labels that the code gives it, and the words that lead up to it."""
    if said := directives(source).get('fig-alt', '').strip('"\'') or described(outputs): return said
    titles = []
    for node in ast.walk(parsed(source)):
        if not isinstance(node, ast.Call): continue
        named = {k.arg: k.value for k in node.keywords}
        called = getattr(node.func, 'attr', getattr(node.func, 'id', ''))
        taken = [*(node.args[:1] if called in ('suptitle', 'set_title', 'title') else []), *([named['title']] if 'title' in named else [])]
        titles += [(drawn or {}).get(called, ''), *(n.value.strip() for n in taken if isinstance(n, ast.Constant) and isinstance(n.value, str))]
        titles += [f'{a} axis: {named[k].value}' for a, k in (('horizontal', 'xlabel'), ('vertical', 'ylabel')) if isinstance(named.get(k), ast.Constant) and named[k].value]
    parts = [p.rstrip('.: ') for p in dict.fromkeys([*titles, leads_up(before)]) if p.strip('.: ')]
    return f'Figure in “{section}”: {". ".join(parts)}.' if parts else f'Figure made by the code above, in “{section}”.' # which the check does not let pass


def convert(page: Page, site: Site) -> dict:
    "A notebook as the site shows it: stored outputs, definitions with their documentation, imports and hidden cells left out."
    cells, section, before, level = [], page.title, '', 2
    nb, drawn = page.notebook, drawn_by(page, site)
    markdown = lambda source: cells.append({'cell_type': 'markdown', 'metadata': {}, 'source': source})
    for number, cell in enumerate(nb['cells']):
        source = text(cell['source'])
        if cell['cell_type'] == 'markdown':
            if number == 0:
                source = FRONT.sub('', source)
                source = leading(source)
            elif re.search(r'^# ', CODE.sub('', source), re.MULTILINE): source = re.sub(r'^(#+ )', r'#\1', source, flags=re.MULTILINE)
            if number == 0: markdown(site.words(source, page.path, page.module) + '\n\n' + where(page, site))
            elif source.strip(): markdown(site.words(source, page.path, page.module))
            headings = re.findall(r'^(#{2,4}) (.+)$', CODE.sub('', source), re.MULTILINE)
            if headings: section, level = re.sub(r'[`*]', '', headings[-1][1]), min(len(headings[-1][0]) + 1, 4)
            before = re.sub(r'^#+ .*$', '', source, flags=re.MULTILINE)
            continue
        if cell['cell_type'] != 'code': continue
        said, body = directives(source), without_directives(source)
        if {'hide', 'default_exp'} & said.keys() or said.get('include') == 'false' or not body.strip(): continue
        tags, outputs = list(cell['metadata'].get('tags', [])), [shown_output(o) for o in cell.get('outputs', [])]
        if {'export', 'exporti', 'exports'} & said.keys():
            nodes = parsed(body).body
            if all(isinstance(n, (ast.Import, ast.ImportFrom)) for n in nodes): continue
            open_ = [n for n in nodes if isinstance(n, DEFS) and n.name[0] != '_'] if 'exporti' not in said else []
            for node in open_: markdown(documented(node, body, page, level, site))
            if open_ or all(isinstance(n, DEFS) for n in nodes): tags.append('hide-input')
        if said.get('echo') == 'false': tags.append('remove-input')
        if 'code-fold' in said: tags.append('hide-input')
        if said.get('output') == 'false': outputs = []
        outputs = [o for o in outputs if o]
        pictures = [i for i, o in enumerate(outputs) if any(k.startswith('image/') for k in o.get('data', {}))]
        for first, end in zip([0, *pictures[1:]], [*pictures[1:], len(outputs)]):  # a text belongs to a cell, so each picture after the first has one of its own
            metadata = {'tags': tags if first == 0 else ['remove-input']}
            if pictures: metadata['mystnb'] = {'image': {'alt': alt(source, outputs[first:end], section, before, drawn)}}
            cells.append({'cell_type': 'code', 'execution_count': None, 'metadata': metadata, 'source': body if first == 0 else 'pass', 'outputs': outputs[first:end]})
    kernel = {'display_name': 'Python 3', 'language': 'python', 'name': 'python3'}
    for i, c in enumerate(cells): c['id'] = f'c{i}'
    return {'cells': cells, 'metadata': {'kernelspec': kernel, 'language_info': {'name': 'python'}}, 'nbformat': 4, 'nbformat_minor': 5}


def leading(source: str) -> str:
    "The line below a title, which says what a reader will be able to do, set as such."
    return re.sub(r'\A((?:<!--.*?-->\s*)?# .+\n+)(?=> )', r'\1{.lead}\n', source)


def where(page: Page, site: Site) -> str:
    "Where a page comes from: the notebook, the module it exports."
    path = page.path.relative_to(site.root).as_posix()
    cfg = settings(site.root)
    parts = [f"[`{path}`]({cfg['git_url']}/blob/{cfg['branch']}/{path})"]
    if page.module: parts.append(f"exports [`album_gan.{page.module}`](#api-{page.module})")
    return '{.where}\n' + ' · '.join(parts)


def shown_output(out: dict) -> dict | None:
    "An output as the site shows it; warnings and widgets are left out."
    out = dict(out)
    if out['output_type'] == 'stream':
        if out['name'] != 'stdout': return None
        out = {'output_type': 'stream', 'name': 'stdout', 'text': ESCAPES.sub('', text(out['text']))}
    data = out.get('data', {})
    if 'application/vnd.jupyter.widget-view+json' in data: return None
    if 'image/png' in data and 'image/jpeg' in data: out['data'] = {k: v for k, v in data.items() if k != 'image/jpeg'}
    return out


def documented(node: ast.AST, source: str, page: Page, level: int, site: Site) -> str:
    "What a reader wants to know of a definition before its source: heading, docstring, and the signature with its comments."
    said = ast.get_docstring(node) or ''
    marks = '`'*3
    return '\n\n'.join(filter(None, [f"({label(page.module, node)})=\n{'#'*level} `{node.name}`", site.words(prose(said), page.path, page.module),
                                     f"{marks}python\n{outline(node, source.split(chr(10)))}\n{marks}"]))


# ---- the API, by chapter

def signature(node: ast.FunctionDef) -> str:
    "As Sphinx wants it: on one line, without self."
    args = copy.deepcopy(node.args)
    first = args.posonlyargs or args.args
    if first and first[0].arg in ('self', 'cls'): del first[0]
    return f'{node.name}({ast.unparse(args)})' + (f' -> {ast.unparse(node.returns)}' if node.returns else '')


def listed(params: list[Parameter]) -> list[str]:
    star = lambda name: name.replace('*', r'\*')
    return [f':param {star(p.name)}: {prose(p.help)}' for p in params if p.help]


def described_by(node: ast.AST, source: str, module: str, kind: str, depth: int, more: str = '') -> str:
    "One entry of the API: what it is called with, what it does, what each parameter is, what it returns."
    notes, fence = comments(source), '`'*(8 - depth)
    name = node.name
    if isinstance(node, ast.ClassDef):
        init = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == '__init__'), None)
        held = fields(node)
        data = any('dataclass' in ast.unparse(d) for d in node.decorator_list)
        if init: call, params = signature(init).replace('__init__', name, 1).split(' -> ')[0], parameters(init, source)[0]
        elif held and data:
            kept = [f for f in held if not re.search(r'init\s*=\s*False', ast.unparse(f.value) if f.value else '')]
            plain = lambda f: f'{f.target.id}: {ast.unparse(f.annotation)}' + (f' = {ast.unparse(f.value)}' if f.value else '')
            call, params = f"{name}({', '.join(map(plain, kept))})", []
        else: call, params = name, []
        inside = listed(params) or ([f':param {f.target.id}: {prose(notes.get(f.end_lineno, ""))}' for f in held if notes.get(f.end_lineno)] if held else [])
        methods = [described_by(m, source, module, 'property' if any('property' in ast.unparse(d) for d in m.decorator_list) else 'method', depth + 1) for m in public(node)]
    else:
        call = signature(node) if kind != 'property' else node.name
        (params, back), methods = parameters(node, source), []
        inside = listed(params) + ([f':returns: {prose(back)}'] if back else [])
    options = f':module: album_gan.{module}' if kind in ('function', 'class') else ':no-contents-entry:'
    body = '\n\n'.join(filter(None, [options, prose(ast.get_docstring(node) or ''), '\n'.join(inside), more, *methods]))
    return f'{fence}{{py:{kind}}} {call}\n{body}\n{fence}'


def api(chapter: str, pages: list[Page], site: Site) -> str:
    "A chapter's reference, a section for each module."
    title = CHAPTERS.get(chapter, (chapter.capitalize(), ''))[0]
    parts = [f'# API: {title.lower()}']
    for page in pages:
        parts.append(f"(api-{page.module})=\n## `album_gan.{page.module}`\n\n{page.subtitle}\n\nExplained, with examples, in [{page.title}](/{page.file}).")
        for cell in page.notebook['cells']:
            source = text(cell['source'])
            said = directives(source)
            if cell['cell_type'] != 'code' or 'export' not in said or 'hide' in said: continue
            body = without_directives(source)
            for node in parsed(body).body:
                if isinstance(node, DEFS) and node.name[0] != '_':
                    parts.append(described_by(node, body, page.module, 'class' if isinstance(node, ast.ClassDef) else 'function', 0, f'[Example](#{label(page.module, node)})'))
    return '\n\n'.join(parts) + '\n'


# ---- all of it

def chapters(pages: list[Page]) -> dict[str, list[Page]]:
    "Nouns and recipes by folder, in the order of reading."
    found = {}
    for p in pages:
        if p.kind in ('noun', 'recipe'): found.setdefault(p.name.split('/')[0], []).append(p)
    return found


def make_site(root: Path = ROOT, keep=None) -> Site:
    "A site with every file that Sphinx reads; `keep(page)` chooses notebooks, for a quick look at a few."
    import docs_inserts
    site = Site([p for p in find_pages(root) if keep is None or p.kind == 'hand' or keep(p)], root)
    pages = site.pages
    for page in pages:
        if page.kind != 'hand':
            site.files[page.file] = json.dumps(convert(page, site), ensure_ascii=False, indent=1).encode()
            continue
        source = leading(page.path.read_text(encoding='utf-8'))
        filled = lambda m: docs_inserts.make(m[1], m[2].split(), site)
        source = re.sub(r'^<!-- insert: (\w+)((?: +[\w./-]+)*) -->$', filled, site.words(source, page.path), flags=re.MULTILINE)
        site.files[page.file] = source.encode()
    for chapter, members in chapters(pages).items():
        title, about = CHAPTERS.get(chapter, (chapter.capitalize(), ''))
        entries = '\n'.join(f'- [{p.title}](/{p.file}): {p.subtitle}' for p in members)
        tree = '\n'.join(['```{toctree}', ':hidden:', '', *(p.name.split('/', 1)[1] for p in members), '```'])
        site.files[f'{chapter}/index.md'] = f'# {title}\n\n{about}\n\n{entries}\n\n{tree}\n'.encode()
        if any(p.module for p in members): site.files[f'api/{chapter}.md'] = api(chapter, [p for p in members if p.module], site).encode()
    return site


def write_sources(files: dict[str, bytes], out: Path) -> None:
    "Write what changed, remove what is no longer made; what stayed is not touched, so that Sphinx need not read it again."
    for path in sorted(out.rglob('*'), reverse=True) if out.exists() else []:
        if path.is_file() and path.relative_to(out).as_posix() not in files: path.unlink()
        elif path.is_dir() and not any(path.iterdir()): path.rmdir()
    for name, data in files.items():
        path = out/name
        if path.is_file() and path.read_bytes() == data: continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def build(root: Path = ROOT, sources: Path | None = None, out: Path | None = None, keep=None, quiet: bool = True) -> int:
    "Make the site; the exit code is not 0 where Sphinx has anything to complain of."
    from sphinx.cmd.build import build_main
    sources, out = sources or root/'_proc'/'site', out or root/'_docs'
    site = make_site(root, keep)
    write_sources(site.files, sources)
    status = build_main(['-b', 'html', '-c', str(root/'docs'), '-d', str(sources.with_name(f'{sources.name}-doctrees')), '-W', '--keep-going', *(['-q'] if quiet else []), str(sources), str(out)])
    shutil.rmtree(out/'_sources', ignore_errors=True)
    for problem in site.problems: print(problem, file=sys.stderr)
    return status or int(bool(site.problems))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0], epilog='The site lies in _docs/; python -m http.server -d _docs shows it.')
    parser.add_argument('--check', action='store_true', help='look at every page in headless Chromium afterwards')
    parser.add_argument('--check-only', action='store_true', help='look at what is built, without building')
    parser.add_argument('--requirements', action='store_true', help='print what pip has to install')
    chosen = parser.parse_args(argv)
    if chosen.requirements:
        print(*(r for extra in ('docs', 'collect') for r in settings()[f'{extra}_requirements'].split()))  # the check needs what drives a browser
        return 0
    if not chosen.check_only:
        status = build()
        if status: return status
        print('_docs/index.html')
    if chosen.check or chosen.check_only:
        import docs_check
        return docs_check.main(ROOT/'_docs')
    return 0


if __name__ == '__main__':
    sys.exit(main())
