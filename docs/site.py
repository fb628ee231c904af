"""What mkdocs asks of this project: the order of the pages, and those that are made while it builds.

The README is the first page. The reference is made from the command line, `lethe.py` and the registries, so
it is stored nowhere.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
FIRST = "index.md"
Entry = tuple[str, str]
"""The title of a page and its path below docs/."""

NAV: Mapping[str, str | Sequence[Entry]] = {
    "Start": FIRST,
    "Five minutes": "five-minutes.md",
    "Your own work": [
        ("A project of your own", "own-work.md"),
        ("Your own data", "data.md"),
        ("Your own model", "models.md"),
        ("Tasks and their figures", "tasks.md"),
        ("Whole examples", "examples/README.md"),
    ],
    "Forgetting explained": [
        ("What each method does", "forgetting.md"),
        ("Was it really forgotten?", "audit.md"),
        ("Methods, audits, certificates", "methods.md"),
        ("What goes with what", "matrix.md"),
    ],
    "Deployment": "deploy.md",
    "Privacy and threats": [
        ("Differential privacy", "privacy.md"),
        ("Secure aggregation", "secure-aggregation.md"),
        ("Encrypted updates", "encryption.md"),
        ("Who may be curious, who may lie", "threats.md"),
    ],
    "How do I …?": [
        ("How do I start, resume and look at runs?", "using.md"),
        ("How do I train and forget with flwr run?", "flwr-run.md"),
        ("How do I choose schedules and optimisers?", "training.md"),
        ("How do I keep the best round, stop early or go on?", "runs.md"),
        ("How do I find a good learning rate?", "sweep.md"),
        ("How do I watch a run?", "watch.md"),
        ("How do I read a report?", "report.md"),
        ("How do I use a trained model?", "use.md"),
        ("Which strategy do I choose?", "strategies.md"),
        ("Are my clients too unlike? Is one bad?", "diagnose.md"),
        ("How do I train over slow links?", "compression.md"),
        ("What if some clients are slow?", "async.md"),
        ("Who takes part in a round?", "selection.md"),
        ("How does each client get a model of its own?", "personalisation.md"),
        ("What if clients' models differ?", "fedmd.md"),
        ("How do I train without a server's model?", "gossip.md"),
        ("How do I train in a single round?", "one-shot.md"),
        ("How do I survive stragglers exactly?", "coding.md"),
        ("How do I ask for statistics only?", "analytics.md"),
    ],
    "Reference": [
        ("Command line", "reference/command-line.md"),
        ("Python", "reference/python.md"),
        ("Run config", "config.md"),
        ("Methods", "reference/methods.md"),
        ("Strategies", "reference/strategies.md"),
        ("Tasks", "reference/tasks.md"),
    ],
    "Evidence and benchmarks": [
        ("What the papers say, and what is measured here", "evidence.md"),
        ("Benchmarks, the lab book", "benchmarks.md"),
    ],
    "How it is built": "design.md",
}
"""The sections in their order: one page, or several with their titles."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Set the order of the pages; those that do not exist are left out."""
    made = {FIRST, *generated()}
    there = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")} | made
    config.nav = [item for title, pages in NAV.items() if (item := _item(title, pages, there))]
    return config


def _item(title: str, pages: str | Sequence[Entry], there: set[str]) -> dict[str, Any] | None:
    if isinstance(pages, str):
        return {title: pages} if pages in there else None
    return {title: [{name: path} for name, path in pages if path in there]}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made here."""
    for path, text in {FIRST: first_page(), **generated()}.items():
        files.append(File.generated(config, path, content=text))
    return files


def first_page() -> str:
    """Return the README with its links as the site has them."""
    return re.sub(r"\]\(docs/", "](", (ROOT / "README.md").read_text(encoding="utf-8"))


def generated() -> dict[str, str]:
    """Return the pages of the reference, by path below docs/."""
    if str(ROOT) not in sys.path:  # mkdocs imports this file by its path
        sys.path.insert(0, str(ROOT))
    from docs.reference import pages

    return {f"reference/{name}.md": text for name, text in pages().items()}
