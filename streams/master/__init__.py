"""Master data: all objects of the hub in one place, what they mean for channels and subscriptions, told to the agents that need it."""
