"""The customers' portal: pages made by the hub, usable on a phone, without scripts from elsewhere."""
