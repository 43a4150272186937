"""Write `README.md` from the front page, `nbs/index.ipynb` (no Quarto needed).

    python tools/readme.py            # writes README.md and docs/readme/ (what `make readme` does)
    python tools/readme.py --check    # writes nothing; exit code 1 and a diff where they are not up to date

Only what the notebook stores is used, nothing is executed, so the same notebook always gives the same bytes. Cells marked
`#| hide`, `#| export`, `#| default_exp` or `#| include: false` stay out; `#| echo: false` shows a cell's output alone and
`#| output: false` its source alone. Pictures in outputs become files in `docs/readme/`; links, relative to the notebook in
`nbs/`, are made relative to the project's root; a callout becomes GitHub's.
"""
import base64
import difflib
import json
import posixpath
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FRONT_PAGE, README, PICTURES = 'nbs/index.ipynb', 'README.md', 'docs/readme'
HEAD = f'<!-- Made from {FRONT_PAGE} by `make readme`; edit the notebook, not this file. -->\n\n'
OUT = re.compile(r'^#\|\s*(hide|export|exporti|exports|default_exp)\b|^#\|\s*include:\s*false', re.MULTILINE)
CODE = re.compile(r'(^(`{3,}|~{3,})[^\n]*\n.*?^\2[^\n]*$|`[^`\n]+`)', re.MULTILINE | re.DOTALL)
LINK = re.compile(r'''(\]\(\s*<?|\b(?:src|href)=["'])([^)\s>"']+)''')


def text(value) -> str:
    "A notebook's text, which is one string or a list of lines."
    return value if isinstance(value, str) else ''.join(value)


def rooted(link: str) -> str:
    "A link of a notebook in `nbs/` as seen from the project's root; addresses and anchors stay as they are."
    if re.match(r'[a-z][a-z0-9+.-]*:|#|/', link, re.IGNORECASE): return link
    path, mark, anchor = link.partition('#')
    return posixpath.normpath(posixpath.join(posixpath.dirname(FRONT_PAGE), path)) + mark + anchor


def prose(source: str) -> str:
    "A markdown cell with its links and callouts made GitHub's; code in it is left alone."
    pieces, at = [], 0
    for code in [*CODE.finditer(source), None]:
        words = source[at:code.start() if code else None]
        pieces.append(LINK.sub(lambda m: m[1] + rooted(m[2]), words))
        if code:
            pieces.append(code[0])
            at = code.end()
    return re.sub(r'^:::\s*\{\.callout-(\w+)[^}]*\}\n(.*?)^:::\s*$', callout, ''.join(pieces), flags=re.MULTILINE | re.DOTALL).strip()


def callout(match: re.Match) -> str:
    "`:::{.callout-tip}` … `:::` as `> [!TIP]` …"
    lines = match[2].strip().split('\n')
    return '\n'.join([f'> [!{match[1].upper()}]', *(f'> {line}'.rstrip() for line in lines)])


def fence(body: str, language: str) -> str:
    "A code block, fenced by more backticks than the text itself holds."
    marks = '`' * max(3, 1 + max(map(len, re.findall(r'`+', body)), default=0))
    return f'{marks}{language}\n{body.strip(chr(10))}\n{marks}'


def output(out: dict, pictures: dict) -> str:
    "One stored output; a picture's bytes are put into `pictures` under the name that the text links to."
    if out['output_type'] == 'stream': return fence(text(out['text']), 'text') if out['name'] == 'stdout' else ''
    data = out.get('data', {})
    for kind, ending in (('image/png', 'png'), ('image/jpeg', 'jpg')):
        if kind in data:
            name = f'{PICTURES}/index-{len(pictures) + 1}.{ending}'
            pictures[name] = base64.b64decode(text(data[kind]))
            return f'![]({name})'
    if 'text/markdown' in data: return prose(text(data['text/markdown']))
    if 'text/html' in data: return prose(text(data['text/html']))
    return fence(text(data['text/plain']), 'text') if 'text/plain' in data else ''


def readme(notebook: dict) -> dict[str, bytes]:
    "All files that a front page makes: the README and its pictures, by path."
    parts, pictures = [], {}
    for cell in notebook['cells']:
        source = text(cell['source'])
        if cell['cell_type'] == 'markdown':
            parts.append(prose(source))
        elif cell['cell_type'] == 'code' and not OUT.search(source):
            options = dict(re.findall(r'^#\|\s*(\w+):\s*(\w+)', source, re.MULTILINE))
            code = re.sub(r'^#\|.*\n?', '', source, flags=re.MULTILINE).strip()
            if code and options.get('echo') != 'false': parts.append(fence(code, 'python'))
            if options.get('output') != 'false': parts += [output(o, pictures) for o in cell.get('outputs', ())]
    page = HEAD + '\n\n'.join(p for p in parts if p) + '\n'
    return {README: page.encode(), **pictures}


def main(check: bool = False, root: Path = ROOT) -> int:
    "Write the files, or say how they differ; returns the exit code."
    made = readme(json.loads((root/FRONT_PAGE).read_text(encoding='utf-8')))
    left = [p for p in (root/PICTURES).glob('index-*') if p.relative_to(root).as_posix() not in made]
    stale = [name for name, data in made.items() if not (root/name).is_file() or (root/name).read_bytes() != data]
    if not check:
        for name in stale:
            (root/name).parent.mkdir(parents=True, exist_ok=True)
            (root/name).write_bytes(made[name])
        for path in left: path.unlink()
        return 0
    if README in stale:
        old = (root/README).read_text(encoding='utf-8') if (root/README).is_file() else ''
        sys.stdout.writelines(difflib.unified_diff(old.splitlines(True), made[README].decode().splitlines(True), README, FRONT_PAGE))
    for name in [*stale, *(p.relative_to(root).as_posix() for p in left)]:
        print(f'{name} is not what {FRONT_PAGE} makes; run `make readme` and commit the result.', file=sys.stderr)
    return int(bool(stale or left))


if __name__ == '__main__':
    sys.exit(main('--check' in sys.argv[1:]))
