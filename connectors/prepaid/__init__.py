"""The doors of the prepaid engine: its API, and what tells customers."""
