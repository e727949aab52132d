"""The site: `python -m sphinx -W --keep-going -b html docs <folder>`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_PACKAGE = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]

project = _PACKAGE["name"]
author = _PACKAGE["authors"][0]["name"]
release = version = _PACKAGE["version"]
html_title = f"sessionkeeper {release}"
html_theme = "furo"
html_copy_source = False
html_show_sphinx = False
# The page loads nothing from elsewhere.
html_theme_options: dict[str, object] = {"top_of_page_buttons": []}

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["attrs_block", "colon_fence"]
myst_heading_anchors = 4

napoleon_google_docstring = True
napoleon_numpy_docstring = False
# In docstrings a word in backquotes is code.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "exclude-members": "__init__"}
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

# What a page of the repository links to beside this folder, as pages of the site.
ELSEWHERE = {"../README.md#settings": "settings.md", "../README.md": "index.md"}
_LINK = re.compile("|".join(rf"(?<=\]\(){re.escape(target)}(?=\))" for target in ELSEWHERE))


def _stay_on_the_site(_app: Sphinx, _page: str, source: list[str]) -> None:
    source[0] = _LINK.sub(lambda link: ELSEWHERE[link[0]], source[0])


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.connect("source-read", _stay_on_the_site)
