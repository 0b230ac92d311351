"""The prepaid agent: a ledger, what consumption costs, and when supply is cut and comes back."""
