"""Delivery to subscribers: their registry, what they may want, and how it gets to them."""
