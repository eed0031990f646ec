"""Settings shared by all tests; the networks and oracles they use are in ``cases``, ``reference`` and ``oracles``."""

import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

HERE = str(Path(__file__).parent)
if HERE not in sys.path:  # reference.py, oracles.py and cases.py are imported by name
    sys.path.insert(0, HERE)

from cases import make_case  # noqa: E402

from rnngrad import _cuda  # noqa: E402

# The first example may compile kernels for minutes: no deadline. Derandomised: a failure today fails tomorrow.
settings.register_profile(
    "rnngrad",
    derandomize=True,
    deadline=None,
    max_examples=60,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("rnngrad")


def pytest_collection_modifyitems(config, items):
    """What only the simulator can run is run by a test that starts it, and counted there."""
    if not _cuda.simulated():
        away = [item for item in items if item.get_closest_marker("simulated")]
        items[:] = [item for item in items if item not in away]
        config.hook.pytest_deselected(items=away)


@pytest.fixture(name="case")
def case_fixture():
    """``case(cell, ...)``: a random network with inputs, see :func:`cases.make_case`."""
    return make_case


@pytest.fixture(name="quick")
def quick_fixture(monkeypatch):
    """No figures, where they are not the point: drawing takes most of a report's time."""
    from rnngrad.report import drawing

    monkeypatch.setattr(drawing, "pictures", lambda *arguments: [])


@pytest.fixture(autouse=True)
def _figures_closed():
    """Figures of a test end with it: once a module has imported pyplot, results draw there, and it keeps them."""
    yield
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close("all")
