"""Oracle CC&B and MDM: sync requests and usage requests."""
