"""Contracts: what travels between the parts of the hub and to its neighbours. Imports nothing else of ours."""
