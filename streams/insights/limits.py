"""How far outside everything seen so far a feature must lie to score 1, in the order of :data:`streams.insights.kernel.FEATURES`.

Chosen on real loads (``mdh bench anomaly`` tells which) so that all of them together raise about one exception per meter and year.
"""

from __future__ import annotations

from typing import Final

import numpy as np

LIMITS: Final = np.array(
    [
        [5.7, 10.2, 3.0, 2.1, 5.0, 10.0, 30.0, 5.0, 9.0, 3.0, 4.1, 1.2],  # of a day, in spreads of the day
        [7.4, 1.7, 0.95, 2.0, 3.3, 3.0, 12.0, 5.0, 2.0, 1.0, 2.0, 1.9],  # of the mean of the last days, in its ranges
    ]
)
