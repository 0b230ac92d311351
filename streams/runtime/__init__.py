"""How an agent runs: one fold over one inbox, its state as arrays, its checkpoint. Knows nothing of meters."""
