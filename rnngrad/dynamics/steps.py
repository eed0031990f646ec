"""What every trajectory has: its length, its batch, and whether it is finite."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Steps:
    """What every trajectory has."""

    x: Any
    diverged: NDArray

    @property
    def T(self) -> int:
        """Steps."""
        return self.x.shape[0]

    @property
    def B(self) -> int:
        """Samples in the batch."""
        return self.x.shape[1]

    def require_finite(self) -> None:
        """Raise ``ValueError`` if the rollout diverged: no gradient of it means anything."""
        if (self.diverged >= 0).any():
            b = int(np.argmax(self.diverged >= 0))
            raise ValueError(
                f"the trajectory is not finite from step {int(self.diverged[b])} on (sample {b}); "
                "shorten it, or scale the recurrent weights down"
            )
