"""Usage of subscriptions from outside: requests, acknowledgements of bills, critical-peak events."""
