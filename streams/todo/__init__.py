"""The To-Do agent: exceptions and searches become work for people, and what they do with it is kept."""
