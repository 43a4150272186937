"""How Sphinx makes the site. Its sources are written to `_proc/` by `tools/docs.py`; names and versions are settings.ini's."""
from configparser import ConfigParser
from pathlib import Path

from docutils.nodes import SkipNode
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

HERE = Path(__file__).parent
_parsed = ConfigParser(delimiters=['='])
_parsed.read(HERE.parent/'settings.ini', encoding='utf-8')
cfg = _parsed['DEFAULT']

project, author, version, language = cfg['title'], cfg['author'], cfg['version'], 'en'
release, copyright = version, cfg['copyright']  # noqa: A001  (Sphinx's name)
extensions = ['myst_nb', 'sphinx.ext.githubpages']
exclude_patterns = ['files/**']

templates_path = ['_templates']

html_theme, html_title, html_static_path, html_css_files = 'furo', cfg['title'], ['_static'], ['style.css']
html_favicon, html_logo = '_static/mark.svg', '_static/mark.svg'
html_baseurl = f"{cfg['doc_host']}{cfg['doc_baseurl']}/"
html_show_sourcelink = html_copy_source = html_show_sphinx = False
html_theme_options = {'footer_icons': [], 'top_of_page_buttons': []}
python_maximum_signature_line_length, add_module_names, toc_object_entries_show_parents = 72, False, 'hide'

# what notebooks store is shown, nothing is executed; no widget, no script from elsewhere
nb_execution_mode, nb_ipywidgets_js, nb_merge_streams = 'off', {}, True
nb_code_prompt_show, nb_code_prompt_hide = 'Show the source', 'Hide the source'
myst_enable_extensions = ['attrs_block', 'attrs_inline', 'colon_fence', 'dollarmath', 'fieldlist']
myst_heading_anchors = 4
myst_links_external_new_tab = False
suppress_warnings = ['myst.header', 'ref.python', 'misc.highlighting_failure']

html_math_renderer = 'mathml'
_log = logging.getLogger(__name__)


def _formula(block):
    "Formulas become MathML, which browsers and screen readers read by themselves: no script, no font to fetch."
    def visit(writer, node):
        try: writer.body.append(tex2mathml(node.astext(), as_block=block))
        except (MathError, SyntaxError) as e: _log.warning('formula: %s', e, location=node)
        raise SkipNode
    return visit, None


def setup(app):
    app.add_html_math_renderer('mathml', inline_renderers=_formula(False), block_renderers=_formula(True))
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
