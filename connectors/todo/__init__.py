"""To-Dos as people and programs handle them: the queue, acts on it, resolving what is behind one, and searches that raise them."""
