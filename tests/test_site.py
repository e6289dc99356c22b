"""How the documentation's site reads links and docstrings; .ci/run builds the whole of it."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("sphinx", reason="needs pip install -e '.[docs]'")
DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def site() -> Iterator[ModuleType]:
    sys.path.insert(0, str(DOCS / "_extensions"))
    import joinery_docs

    yield joinery_docs
    sys.path.remove(str(DOCS / "_extensions"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[how](contracts.md#batch)", "[how](contracts.md#batch)"),
        ("[plugin](../README.md#a-plugin-whole)", "[plugin](index.md#a-plugin-whole)"),
        ("[log](../CHANGELOG.md)", "[log](project/changelog.md)"),
        ("[data](../recipes/data/README.md)", "[data](path:../recipes/data/README.md)"),
        ("[recipes.md](recipes.md)", "[](recipes.md)"),
        (
            "[Rerun](https://rerun.io), [above](#batch)",
            "[Rerun](https://rerun.io), [above](#batch)",
        ),
    ],
)
def test_links_of_a_page_lead_to_pages_of_the_site(
    site: ModuleType, text: str, expected: str
) -> None:
    assert site.move_links(text, DOCS, DOCS) == expected


def test_links_of_an_included_file_start_from_the_page_that_includes_it(site: ModuleType) -> None:
    text = "[keys](docs/recipes.md) and ![policy](docs/policy.webp)"
    moved = site.move_links(text, DOCS.parent, DOCS / "project")
    assert moved == "[keys](../recipes.md) and ![policy](../policy.webp)"


def test_a_docstring_becomes_a_list_of_parameters_and_a_block(site: ModuleType) -> None:
    docstring = """Take `x` * y_.

x: an input,
continued. Raises: nothing.
Note: no parameter.

As in:

    f(x)  # *

The end."""
    assert site.as_rst(docstring.splitlines(), {"x", "y_"}) == [
        r"Take ``x`` \* y\_.",
        "",
        "",
        "- **x**: an input,",
        "  continued. Raises: nothing.",
        "  Note: no parameter.",
        "",
        "As in:",
        "",
        "::",
        "",
        "    f(x)  # *",
        "",
        "",
        "The end.",
        "",
    ]
