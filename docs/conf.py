"""The documentation as a site: python -m sphinx -W --keep-going -b html docs build/site."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent / "_extensions")]

project = "Joinery"
author = "The authors of Joinery"
copyright = author
language = "en"

extensions = ["myst_nb", "sphinx.ext.autodoc", "joinery_docs"]
exclude_patterns = ["_*", "tabletop_full"]
templates_path: list[str] = []

myst_heading_anchors = 4
nb_execution_mode = "off"  # notebooks are shown as they were saved

html_theme = "furo"
html_title = "Joinery"
html_static_path = ["_static"]
html_css_files = ["joinery.css"]
html_copy_source = html_show_sourcelink = html_show_copyright = False
highlight_language = "none"  # blocks without a language are drawings and output

add_module_names = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
maximum_signature_line_length = 80
python_use_unqualified_type_names = True
