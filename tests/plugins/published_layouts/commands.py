"""Runs the commands of docs/importing.md, word for word, in the folder that holds the dataset."""

import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from core import cli, run

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "importing.md"
RECIPE = "recipes/metaworld_offline.toml"
# what makes the recipe of the page small enough for a test
SMALL = (
    *("train.steps=20", "train.batch_size=4", "train.warmup_steps=2", "train.accelerator=cpu"),
    *("data.window=2", "data.threads=1", "action.horizon=3"),
    *("vision_encoder.model=test_vit", "vision_encoder.depth=1", "vision_encoder.image_size=32"),
    *("text_encoder.width=24", "backbone.width=24", "backbone.depth=1", "backbone.heads=2"),
    *("policy_head.hidden_size=24", "policy_head.mlp=[24]"),
)


@dataclass(frozen=True)
class Documented:
    """The commands below a heading of the page, as words, and the files that they need.

    files: {name: content} of the mapping files; the first line of each is a comment with its name.
    """

    commands: list[list[str]]
    files: dict[str, str]


def documented(heading: str) -> Documented:
    """Read the commands and mapping files below a heading of the page's third level."""
    text = PAGE.read_text(encoding="utf-8").partition(f"\n### {heading}\n")[2]
    section = re.split(r"^##", text, maxsplit=1, flags=re.MULTILINE)[0]
    commands, files = [], {}
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```$", section, re.DOTALL | re.MULTILINE):
        if language == "sh":
            lines = block.replace("\\\n", " ").splitlines()
            commands += [shlex.split(line, comments=True) for line in lines]
        else:
            files[block.splitlines()[0].removeprefix("# ")] = block
    return Documented(commands, files)


def run_commands(heading: str, *, train: bool = True) -> None:
    """Import and train in the present folder, as the page says, but with a small policy."""
    page = documented(heading)
    for name, content in page.files.items():
        Path(name).write_text(content, encoding="utf-8")
    importing, training = page.commands
    assert importing[:2] == ["joinery", "import"]
    assert cli.main([*importing[1:], "--jobs", "1"]) == 0
    assert training[:4] == ["python", "-m", "core.run", RECIPE]
    if train:
        train_small(*training[4:])


def train_small(*words: str) -> None:
    """Train a small policy in the present folder by the page's recipe."""
    Path(RECIPE).parent.mkdir()
    shutil.copy(ROOT / RECIPE, RECIPE)
    assert run.main([RECIPE, *words, *SMALL]) == 0
