"""topology.yaml as checked models, one module per section. :func:`load_topology` is the way in."""

from schemas.topology.agents import Agent
from schemas.topology.loader import TopologyError, default_path, load_topology, parse_topology
from schemas.topology.root import Clock, Topology
from schemas.topology.topics import Topic

__all__ = ["Agent", "Clock", "Topic", "Topology", "TopologyError", "default_path", "load_topology", "parse_topology"]
