"""Configuration of the site, which `make docs` builds from the whole repository, so that links
between its files lead to the same places as on a code host."""

import json
import re
import sys
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

project = "The RHEL for Edge workbook"
author = "the authors of the workbook"
copyright = "the authors of the workbook, Apache License 2.0"
try:
    release = version_of("rfe-workbook")
except PackageNotFoundError:
    release = ""

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "sphinx_click",
    "faces",
    "recordings",
]
root_doc = "README"
include_patterns = ["*.md", "docs/**.md", "docs/**.rst", "notebooks/*.ipynb"]
exclude_patterns = [
    ".*",
    "docs/package.md",
    "build",
    "artefacts",
    "rfe_helpers",
    "tests",
    "benchmarks",
    "container",
]
smartquotes = False  # they would change what people paste
suppress_warnings = ["mystnb.unknown_mime_type"]

# Executions come from recorded/, see recordings.py.
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
# Single backticks are code in docstrings, as in the rest of what people read here.
default_role = "code"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
add_module_names = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = project
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_copy_source = False
html_show_sourcelink = False
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
html_last_updated_fmt = ""


def setup(app):
    app.connect("source-read", _add_contents)
    app.connect("build-finished", _add_index)
    app.connect("html-page-context", _add_levels, priority=900)  # after the theme


CONTENTS = """
```{{toctree}}
:hidden:
:caption: {caption}
:maxdepth: 1

{pages}
```
"""


def _add_contents(app, name, source):
    """The contents of the site, below the README, which has none on a code host."""
    if name == root_doc:
        pages = (HERE / "contents.txt").read_text()
        for block in re.split(r"\n{2,}", pages.strip()):
            caption, *names = block.splitlines()
            source[0] += CONTENTS.format(caption=caption, pages="\n".join(_expanded(names)))


def _expanded(names):
    """Names of pages; `notebooks` stands for all notebooks in order."""
    from rfe_helpers.workbook.notebooks import all_notebooks

    for name in names:
        if name == "notebooks":
            for path in all_notebooks():
                title = json.loads(path.read_text())["cells"][0]["source"][0].strip("# \n")
                yield f"{path.stem.partition('-')[0]} {title} <notebooks/{path.stem}>"
        else:
            yield name


def _add_index(app, exception):
    """A web server looks for index.html."""
    if exception is None and app.builder.name == "html":
        page = Path(app.outdir) / f"{root_doc}.html"
        page.with_name("index.html").write_bytes(page.read_bytes())


def _add_levels(app, name, template, context, doctree):
    """Captions of the contents are headings, for which ARIA wants a level."""
    tree = context.get("furo_navigation_tree", "")
    context["furo_navigation_tree"] = tree.replace(
        'role="heading"', 'role="heading" aria-level="2"'
    )
