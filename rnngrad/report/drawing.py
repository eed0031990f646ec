"""The figures of a report: each as PNG and SVG, with the numbers it shows as .npz."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._results import Result
from ..figures import style
from ..figures.files import write
from . import fixed_points
from .measure import Measured


@dataclass(frozen=True)
class Picture:
    """A figure of the page: its file name, the results side by side in it, what the text under it says, and where."""

    name: str
    parts: tuple[Result, ...]
    heading: str
    caption: str
    size: tuple[float, float] = style.SIZE
    section: str = "network"

    def write(self, folder: Path) -> dict[str, Any]:
        """Write name.png, name.svg and name.npz; return what the page needs."""
        files, titles = write(folder, self.name, self.parts, self.size)
        image = base64.b64encode((folder / files["png"]).read_bytes()).decode("ascii")
        return {
            "name": self.name,
            "heading": self.heading,
            "caption": self.caption,
            "section": self.section,
            "titles": titles,
            "files": files,
            "image": f"data:image/png;base64,{image}",
        }


_LAG = """
How much of the gradient of one step's loss is left some steps earlier (blue: median and the middle 80 % of the
reference steps), how much the strongest direction keeps (dots: 2-norm of the Jacobian chain Φ), and what theory
says of it. A bound lies above the dots at every lag; a rate need not."""
_MAP = """
Each row is the loss of one step t, each column an earlier state k; the diagonal is the present. Bright bands that
run far to the left of the diagonal are long memories; dark columns are states that later losses cannot teach."""
_LAYERS = """
The same gradient, taken apart by layer: what of it arrives at the states of each layer. The output is made of the
top layer only, so the layers below receive their part one step earlier, through it."""
_VERDICT = """
The rules at work: each decade of lags is judged by itself. Between the two lines a gradient teaches; the dashed curve
is what one reference step in ten exceeds."""
_TRUNCATION = """
What truncated backpropagation through time would lose: distance of the truncated gradient g_w of all recurrent
parameters from the full gradient g, against the window w; thin lines are single parameters."""
_SPECTRA = """
Eigenvalues of the recurrent matrices and of local Jacobians J_t = ds_t/ds_{t−1}. Eigenvalues inside the unit circle
say that a product of equal matrices fades in the end; the largest singular value σ_max says how much one step can
stretch before."""
_CHAIN = """
All singular values of Φ(t, t−lag) at t = {t}: how many directions still carry a gradient. Values that the rounding
of the product has swallowed are left out."""
_LYAPUNOV = """
The leading Lyapunov exponents along the input of the first sample: the mean rates at which a small change of the state
grows in its fastest directions. λ₁ is what ‖Φ‖ changes by for each step in the long run."""
_PORTRAIT = """
Trajectories under the held input, from states of the record and from states with noise, in the plane of their two
leading principal components; with the points they come to rest at, the saddles between them, and along each saddle's
unstable modes the ways out of it."""
_POINT_SPECTRUM = """
Eigenvalues μ of J = df/ds at each point. A point is stable if all of them lie inside the unit circle; the largest |μ|
is the factor by which gradients change per step along a trajectory that has come to rest there, in the long run."""
_SATURATION = """
A gate below {s.low_level:g} is closed, one above {s.high_level:g} open; a tanh beyond ±{s.value_level:g} is flat.
A saturated value passes next to no gradient; a forget or update gate that is open keeps it whole."""


def pictures(measured: Measured, name: str, suffix: str = "") -> list[Picture]:
    """The figures of one network; ``suffix`` keeps the file names of several networks apart."""
    spectra = tuple(part for part in (measured.weights, measured.jacobians) if part is not None)
    chain, flat = measured.singular_values, measured.saturation
    rows: list[tuple[str, tuple[Result, ...], str, str, tuple[float, float]]] = [
        ("gradient_by_lag", (measured.growth,), "Gradient against lag", _LAG, (6.8, 4.9)),
        ("gradient_map", (measured.map,), "From which step to which", _MAP, (6.2, 5.0)),
    ]
    rows.insert(1, ("verdict", (measured.verdict,), "Verdict by lag", _VERDICT, (6.8, 4.7)))
    if measured.truncation is not None:
        rows.append(("truncation", (measured.truncation,), "Truncation", _TRUNCATION, (6.8, 4.4)))
    if measured.layers is not None:
        rows.insert(1, ("layers", (measured.layers,), "Gradient by layer", _LAYERS, (6.8, 4.7)))
    if spectra:
        rows.append(("spectrum", spectra, "Spectra", _SPECTRA, (4.9 * len(spectra), 5.2)))
    caption = _CHAIN.format(t=chain.times[-1])
    rows.append(("singular_values", (chain,), "Singular values of the chain", caption, (6.8, 4.5)))
    if measured.lyapunov is not None:
        rows.append(("lyapunov", (measured.lyapunov,), "Lyapunov exponents", _LYAPUNOV, (6.8, 4.2)))
    if flat is not None and flat.names:
        caption, height = _SATURATION.format(s=flat), 1.9 + 0.5 * len(flat.names)
        rows.append(("saturation", (flat,), "Saturation of units and gates", caption, (6.8, height)))
    drawn = [
        Picture(file + suffix, parts, f"{heading} — {name}", " ".join(caption.split()), size)
        for file, parts, heading, caption, size in rows
    ]
    return drawn + _of_fixed_points(measured, name, suffix)


def _of_fixed_points(measured: Measured, name: str, suffix: str) -> list[Picture]:
    """The portrait and the eigenvalues under each held input, where there are any."""
    drawn = []
    for i, one in enumerate(measured.settled):
        which = fixed_points.name_of(measured, i)
        about = f"{name}, {which}" if which else name
        number = f"_{i + 1}" if which else ""
        for file, part, heading, caption, size in (
            ("fixed_points", one.portrait, "Fixed points", _PORTRAIT, (7.4, 5.8)),
            ("fixed_point_spectrum", one.spectrum, "Eigenvalues at the fixed points", _POINT_SPECTRUM, (6.0, 6.4)),
        ):
            if part is not None:
                text = " ".join(caption.split())
                drawn.append(
                    Picture(
                        f"{file}{number}{suffix}", (part,), f"{heading} — {about}", text, size, fixed_points.place(i)
                    )
                )
    return drawn
