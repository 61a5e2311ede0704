"""What breaks ties inside a segment? The order of its document ids."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class IdOrder(NamedTuple):
    """The documents of a segment by id: what breaks ties.

    Attributes:
        ordinals: shape (documents,), int32, ordinals in ascending order of document id.
        ranks: shape (documents,), int32, the inverse: place of each ordinal in that order.
    """

    ordinals: NDArray[np.int32]
    ranks: NDArray[np.int32]
