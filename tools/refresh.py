"""Execute noun notebooks as `nbdev_test` would, keep what they show, then clean and export them.

    python tools/refresh.py nbs/data/10_folder.ipynb …      # or no argument: every noun notebook

`jupyter nbconvert --execute` and papermill know nothing of nbdev's flags: a cell marked `#| network` would run. Here a
skipped cell keeps the output it has, every other cell gets a fresh one, and a notebook that fails is left as it was.
"""
import base64
import io
import os
import sys
from pathlib import Path

os.environ.setdefault('IN_TEST', '1')
os.environ.setdefault('MPLBACKEND', 'module://matplotlib_inline.backend_inline')

from execnb.nbio import read_nb, write_nb
from execnb.shell import CaptureShell
from fastcore.all import str2bool, working_directory
from nbdev.clean import clean_nb
from nbdev.config import get_config
from nbdev.doclinks import nbdev_export, nbglob
from nbdev.frontmatter import FrontmatterProc
from nbdev.process import NBProcessor

WIDEST = 1100  # pixels of a stored figure
KERNEL = {'display_name': 'python3', 'language': 'python', 'name': 'python3'}


def slim(outputs: list) -> list:
    """Store figures as a reader needs them: at most WIDEST pixels wide and 256 colours, a quarter of the bytes."""
    from PIL import Image
    for output in outputs:
        if 'image/png' in output.get('data', {}):
            picture = Image.open(io.BytesIO(base64.b64decode(''.join(output['data']['image/png'])))).convert('RGB')
            if picture.width > WIDEST:
                picture = picture.resize((WIDEST, round(picture.height*WIDEST/picture.width)), Image.Resampling.LANCZOS)
            small = io.BytesIO()
            picture.quantize(256, dither=Image.Dither.NONE).save(small, format='PNG', optimize=True)
            output['data']['image/png'] = base64.b64encode(small.getvalue()).decode()
    return outputs


def refresh(path: Path) -> bool:
    """Run one notebook and store its outputs; False (and the traceback on stderr) where a cell fails."""
    flags = set((get_config().get('tst_flags', "") or "").split())
    nb = NBProcessor(path, procs=FrontmatterProc, process=True).nb
    if str2bool(getattr(nb, 'frontmatter_', {}).get('skip_exec', False)):
        return True

    def skip(cell):
        if cell.cell_type != 'code': return True
        directives = getattr(cell, 'directives_', None) or {}
        if directives.get('eval:', [''])[0].lower() == 'false': return True
        return bool(flags & directives.keys())

    for cell in nb.cells:  # a cell that prints nothing now must not keep what it printed once
        if not skip(cell): cell['outputs'] = []
    shell = CaptureShell(path)
    try:
        with working_directory(path.parent):
            shell.run_all(nb, exc_stop=True, preproc=skip)
    except Exception:
        sys.stderr.write(shell.prettytb(fname=path) + '\n')
        return False
    fresh = {c.id: slim(c.get('outputs', [])) for c in nb.cells if c.cell_type == 'code' and 'id' in c and not skip(c)}
    raw = read_nb(path)
    raw.metadata['kernelspec'] = KERNEL
    for cell in raw.cells:
        if cell.get('id') in fresh: cell['outputs'] = fresh[cell['id']]
    clean_nb(raw, allowed_cell_metadata_keys=(get_config().get('allowed_cell_metadata_keys', "") or "").split())
    write_nb(raw, path)
    os.environ.pop('IN_TEST')  # nbdev_export does nothing while a test runs
    nbdev_export(path=str(path))
    os.environ['IN_TEST'] = '1'
    return True


if __name__ == '__main__':
    root = Path(get_config().config_path)
    sys.path.insert(0, str(root))
    paths = [Path(p).resolve() for p in sys.argv[1:]] or [Path(p) for p in nbglob() if Path(p).parent != root/'nbs']
    failed = [p.relative_to(root) for p in paths if not refresh(p)]
    print(f'{len(paths) - len(failed)} refreshed, {len(failed)} failed', *failed, sep='\n  ')
    sys.exit(bool(failed))
