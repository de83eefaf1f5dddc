"""What the README shows works, at sizes fit for a test."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SMALLER = {
    "subtasks=3)": "subtasks=3, sub_episodes=2, length=6)",
    'size="small"': 'size="debug"',
    "num_tasks=1000": "num_tasks=6",
}


def example(number: int) -> str:
    """The README's example programs in their order."""
    return re.findall(r"```python\n(.*?)```", README, re.DOTALL)[number]


def test_the_examples_run():
    """The second, on several devices, goes on from the first."""
    code = example(0)
    for shown, used in SMALLER.items():
        assert shown in code
        code = code.replace(shown, used)
    names: dict = {}
    exec(code, names)
    assert names["score"].returns.shape == (6, 2)
    assert all(np.shape(value) == (8,) for value in names["metrics"].values())
    assert names["states"].updates.shape == (8,)
    rounds = int(names["state"].rounds)
    exec(example(1), names)
    assert int(names["state"].rounds) == rounds + 1


def test_the_environment_of_a_user_trains():
    names: dict = {}
    exec(example(2), names)
    assert all(np.isfinite(value) for value in names["metrics"].values())
    assert int(names["state"].env_steps) == 2 * 2 * 10  # prefill and one round of two lanes


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub names them in links."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page", ["README.md", "CHANGELOG.md", *(f"docs/{x.name}" for x in sorted((ROOT / "docs").glob("*.md")))]
)
def test_links_lead_somewhere(page):
    """To files that there are and, where they name one, to a heading of theirs."""
    page = ROOT / page
    for target, heading in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
        if target.startswith("http"):
            continue
        file = page.parent / target if target else page
        assert file.exists(), target
        assert not heading or heading in anchors(file), f"{target}#{heading}"


@pytest.mark.parametrize("words", re.findall(r"^\.venv/bin/python (.*--dry-run)$", README, re.MULTILINE))
def test_plans_agree_with_the_recorded_runs(words):
    """A recorded run of another configuration in the folder of a plan would be refused."""
    done = subprocess.run([sys.executable, *words.split()], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ": done" in done.stdout
