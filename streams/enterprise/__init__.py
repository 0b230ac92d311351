"""Conversations with customer information systems: what they asked, what became of it, and what they are told."""
