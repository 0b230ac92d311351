"""Simulators of CIS: whole meter-to-cash conversations with real messages against a running hub, for tests and demonstrations."""
