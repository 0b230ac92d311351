"""Who may do what: principals, policy, login, and the audit of what they did."""
