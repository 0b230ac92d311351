"""The same work written in other ways, as a competent author would write it there."""
