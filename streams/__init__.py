"""The agents, one folder per step in the order data flows. Rules are pure functions over arrays; agents only move messages."""
