"""How far outside everything seen so far a feature must lie to score 1, in the order of :data:`streams.insights.kernel.FEATURES`.

Chosen on real loads (``mdh bench anomaly`` tells which) so that all of them together raise less than one exception per meter and year.
"""

from __future__ import annotations

from typing import Final

import numpy as np

LIMITS: Final = np.array(
    [
        [5.66, 10.17, 1.30, 2.08, 3.34, 6.61, 22.0, 5.0, 5.25, 2.34, 4.08, 1.20],  # of a day, in spreads of the day
        [7.39, 4.05, 0.92, 3.93, 2.90, 1.65, 9.94, 5.0, 1.90, 0.79, 5.78, 1.94],  # of the mean of the last days, in its ranges
    ]
)
