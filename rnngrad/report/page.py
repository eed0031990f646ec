"""index.html and report.json from the numbers and the figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from .._results import plain
from ..analysis.words import factor, short
from .folder import INDEX, NUMBERS


def write(folder: Path, numbers: dict[str, Any], figures: list[dict[str, Any]]) -> None:
    """Write both files; ``numbers`` is all that the text is made of."""
    names = [name for figure in figures for name in figure["files"].values()]
    numbers = plain({**numbers, "figures": [_without_image(f) for f in figures]})
    numbers["files"] = sorted([INDEX, NUMBERS, *names])
    text = json.dumps(numbers, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / NUMBERS).write_text(text + "\n", encoding="utf-8")
    images = {figure["name"]: figure["image"] for figure in figures}
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"num": _number, "factor": _factor, "steps": _steps, "percent": _percent}
    page = environment.get_template("page.html.j2").render(r=numbers, images=images)
    (folder / INDEX).write_text(page, encoding="utf-8")


def _without_image(figure: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in figure.items() if key != "image"}


def _float(value: Any) -> float:
    """A number of report.json, where None is NaN and infinities are words."""
    return float("nan") if value is None else float(value)


def _number(value: Any) -> Markup:
    """A number in the text; report.json has it in full."""
    if isinstance(value, int):
        return Markup('<span class="n">{}</span>').format(value)
    value = _float(value)
    if value != value:
        return Markup("–")
    return Markup('<span class="n">{}</span>').format("∞" if value == float("inf") else short(value))


def _factor(value: Any) -> Markup:
    """A factor from its natural logarithm."""
    value = _float(value)
    return Markup("–") if value != value else Markup('<span class="n">{}</span>').format(factor(value))


def _percent(value: Any) -> Markup:
    return _number(100 * _float(value)) + " %"


def _steps(value: Any, longest: Any) -> Markup:
    """A number of steps that may be beyond the longest that was looked at."""
    value = _float(value)
    return "more than " + _number(longest) if value == float("inf") else _number(value)
