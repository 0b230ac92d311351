"""The same ledger as an SQL wallet with a lock on the account's row: how most prepaid engines keep their money.

One transaction for each cause: lock the account, leave out what was posted before, chain and insert the postings, move the balance,
commit. The amounts come ready made, so the wallet pays for its ledger only, not for tariffs, notices, states or messages.
"""
