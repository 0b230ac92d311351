"""Whether blocks carry accounts at all."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc


def is_anonymous(accounts: pa.StringArray) -> bool:
    """Whether no row has an account: true of most hubs without master data, and then nothing is to be done."""
    return not pc.max(pc.binary_length(accounts)).as_py()
