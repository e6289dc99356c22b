"""Pages: templates filled in with autoescape, as one file that asks for nothing else."""

import json
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from errno import EISDIR
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any
from uuid import uuid4

TOML = re.compile(
    r"""(?P<comment>\#.*$) | (?P<section>^\s*\[.*\]\s*$) | (?P<key>^[^=\#"']+(?=\s=))
    | (?P<text>"(?:\\.|[^"\\])*" | '[^']*') | (?P<value>\b(?:true|false|[+-]?\d[\w.+-]*)\b)""",
    re.VERBOSE | re.MULTILINE,
)


def render(template: str, values: Mapping[str, Any]) -> str:
    """Fill a template in: whatever comes from files is escaped, and the page forbids itself every
    request.

    Its Content-Security-Policy names the one script that may run, by its checksum.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

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
        "flat": flat,
        "breakable": lambda name: Markup("_<wbr>").join(str(name).split("_")),
        "highlighted": lambda text: Markup(highlighted(text)),
        "drawn": Markup,  # the SVG of figures.py, which escapes what it is given
    }
    style, script = (loader.get_source(environment, name)[0] for name in ("page.css", "player.js"))
    allowed = f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'"
    page = {"style": Markup(style), "script": Markup(script), "allowed_script": allowed}
    return environment.get_template(template).render({**page, **values})


def write_page(path: Path, text: str) -> None:
    """Replace a file by a page, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Where to write what takes the place of `path` when all went well; an OSError names `path`,
    and comes at once.
    """
    if path.is_dir():
        raise IsADirectoryError(EISDIR, "is a folder; name a file", str(path))
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        temporary.touch()
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.errno and error.filename in (None, str(temporary)):
            raise type(error)(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        with suppress(OSError):
            temporary.unlink()


def percent(share: float) -> str:
    """0.875 -> 87.5%, 0.9 -> 90%."""
    return f"{100 * share:.1f}".removesuffix(".0") + "%"


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mappings as {"section.key": value as text}."""
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, float):
            found[f"{prefix}{key}"] = f"{value:.10g}"
        else:
            found[f"{prefix}{key}"] = (
                value if isinstance(value, str) else json.dumps(value, default=str)
            )
    return found


def highlighted(toml: str) -> str:
    """TOML as HTML, with a class around each kind of word."""
    pieces, end = [], 0
    for word in TOML.finditer(toml):
        pieces += [
            escape(toml[end : word.start()]),
            f'<i class="{word.lastgroup}">{escape(word[0])}</i>',
        ]
        end = word.end()
    return "".join([*pieces, escape(toml[end:])])
