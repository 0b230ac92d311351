"""Usage of a subscription: all its channels together, as rules over curves, readings and quantities (docs/usage.md)."""
