"""RESULTS.md: one section per benchmark, each written anew by its own benchmark and by nothing else."""

from __future__ import annotations

import os
import platform
import re
from datetime import date
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
TITLE = "# Results\n"


def write_section(title: str, body: str) -> None:
    """Put ``body`` under ``## title``, in the place of what stood there, or at the end."""
    RESULTS.write_text(with_section(RESULTS.read_text(encoding="utf-8"), title, body), encoding="utf-8")


def with_section(text: str, title: str, body: str) -> str:
    before, *sections = re.split(r"^(?=## )", text or TITLE, flags=re.M)
    fresh = f"## {title}\n\n{body.strip()}\n"
    names = [section.partition("\n")[0] for section in sections]
    if f"## {title}" in names:
        sections[names.index(f"## {title}")] = fresh
    else:
        sections.append(fresh)
    return "\n".join(part.strip() + "\n" for part in (before, *sections))


def measured_on(command: str, packages: tuple[str, ...]) -> str:
    """The line above a table: the command, the day, the machine and the versions."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    machine = f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}"
    return f"`{command}`, {date.today()}, {machine}, {versions}."
