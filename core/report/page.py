"""Render pages from templates: each page is one HTML file that loads nothing from the network."""

import json
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EISDIR
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from core.report.series import colour, points
from core.report.wording import interval, percent, significant
from core.system.files import written_aside

# The kinds of words in TOML; each kind has a different colour on the page.
TOML = re.compile(
    r"""(?P<comment>\#.*$) | (?P<section>^\s*\[.*\]\s*$) | (?P<key>^[^=\#"']+(?=\s=))
    | (?P<text>"(?:\\.|[^"\\])*" | '[^']*') | (?P<value>\b(?:true|false|[+-]?\d[\w.+-]*)\b)""",
    re.VERBOSE | re.MULTILINE,
)


@dataclass(frozen=True)
class Fact:
    """A number at the head of a page: its name, its value, and a note on how it was measured.

    interval: its 95 % interval as text; empty if it has none.
    """

    name: str
    value: str
    detail: str = ""
    interval: str = ""


def render(template: str, values: Mapping[str, Any]) -> str:
    """Fill in a template of core/report/templates; all text in `values` is escaped.

    The page's Content-Security-Policy forbids all requests. It also forbids all scripts except the
    page's own script, whose checksum it contains: player.js and tables.js, one after the other.
    """
    loader = PackageLoader("core.report")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "significant": significant,
        "interval": interval,
        "breakable": lambda name: Markup("<wbr>").join(words(name)).replace(" <wbr>", " "),
        "words": words,
        "colour": colour,
        "points": points,
        "highlight_toml": lambda text: Markup(highlight_toml(text)),
    }
    style, player, tables = (
        loader.get_source(environment, name)[0] for name in ("page.css", "player.js", "tables.js")
    )
    script = f"{player}\n{tables}"
    script_hash = b64encode(sha256(script.encode()).digest()).decode()
    page = {
        "style": Markup(style),
        "script": Markup(script),
        "allowed_script": f"'sha256-{script_hash}'",
    }
    return environment.get_template(template).render({**page, **values})


def write_page(path: Path, text: str) -> None:
    """Write a page in one step: if writing fails, an older page at `path` stays as it was."""
    with output_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def output_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; the file that the `with` block writes is then moved to `path`.

    Raises an OSError that names `path`. If `path` is a folder, or if no file can be written in the
    folder that contains `path`, the error is raised before the `with` block runs.
    """
    if path.is_dir():
        raise IsADirectoryError(EISDIR, "is a folder; name a file", str(path))
    temporary = None
    try:
        with written_aside(path) as temporary:
            temporary.touch()
            yield temporary
    except OSError as error:
        if error.errno and error.filename in (None, str(temporary)):
            raise type(error)(error.errno, error.strerror, str(path)) from error
        raise


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Turn nested mappings into {"section.key": value as text}."""
    texts: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            texts |= flatten(value, f"{name}.")
        elif isinstance(value, float):
            texts[name] = f"{value:.10g}"
        elif isinstance(value, str):
            texts[name] = value
        else:
            texts[name] = json.dumps(value, default=str)
    return texts


def words(name: str) -> list[str]:
    """Split a name after each of its words: "data.max_steps" -> "data.", "max_", "steps".

    Lines break between the words of a name, but not inside them.
    """
    return re.split(r"(?<=[_./ -])(?=.)", str(name))


def highlight_toml(text: str) -> str:
    """Turn TOML into HTML; the CSS class of each word says which kind of word it is."""
    pieces, end = [], 0
    for word in TOML.finditer(text):
        pieces.append(escape(text[end : word.start()]))
        pieces.append(f'<i class="{word.lastgroup}">{escape(word[0])}</i>')
        end = word.end()
    return "".join([*pieces, escape(text[end:])])
