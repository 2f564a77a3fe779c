"""
``lahja graph``: who is connected to whom, who sends what, and who wants it.

It is drawn from statistics alone: endpoints that do not serve are known from those that they are
connected to. Nothing that an endpoint says of itself can break out of its label.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..stats import EndpointStats
from .observer import Observer
from .places import Lookout
from .running import print_line

__all__ = ["Topology", "as_dot", "as_mermaid", "draw_graph", "topology_of"]

_LONGEST_LABEL = 80


@dataclass
class Topology:
    """Be a bus, as it was seen."""

    endpoints: dict[str, str] = field(default_factory=dict)  # by name, what is known of it
    gone: set[str] = field(default_factory=set)  # names of those that are not alive
    connections: set[tuple[str, str]] = field(default_factory=set)  # each once, names in order
    senders: dict[tuple[str, str], int] = field(default_factory=dict)  # (endpoint, type): events
    subscribers: set[tuple[str, str]] = field(default_factory=set)  # (endpoint, type)

    @property
    def types(self) -> list[str]:
        """The names of the types that anybody sends or wants, sorted."""
        return sorted({name for _, name in (*self.senders, *self.subscribers)})


async def draw_graph(directory: Path, as_dot_file: bool, seconds: float) -> int:
    """Print the graph of the endpoints in a directory; return the exit code."""
    lookout = Lookout(directory, "graph", seconds)
    try:
        await lookout.look()
        await lookout.ask()
        topology = topology_of(lookout.observers)
    finally:
        lookout.close()
    print_line(as_dot(topology) if as_dot_file else as_mermaid(topology))
    return 0


def topology_of(observers: Iterable[Observer]) -> Topology:
    """Return what the statistics of the endpoints say together."""
    topology = Topology()
    for observer in observers:
        stats = observer.stats
        if stats is None:
            topology.endpoints[observer.name] = observer.sight.value
            topology.gone.add(observer.name)
        else:
            topology.endpoints[stats.name] = f"{stats.backend}, pid {stats.pid}"
            _add(topology, stats)
    return topology


def _add(topology: Topology, stats: EndpointStats) -> None:
    topology.subscribers |= {(stats.name, each.type) for each in stats.subscriptions}
    for each in stats.types:
        if each.broadcasts:
            topology.senders[stats.name, each.name] = each.broadcasts
    for peer in stats.peers:
        if peer.name not in topology.endpoints and peer.path is None:
            pid = "" if peer.pid is None else f", pid {peer.pid}"
            topology.endpoints[peer.name] = f"does not serve{pid}"
        elif peer.name not in topology.endpoints:
            topology.endpoints[peer.name] = f"serves elsewhere, pid {peer.pid}"
        topology.subscribers |= {(peer.name, name) for name in peer.subscriptions}
        first, second = sorted((stats.name, peer.name))
        topology.connections.add((first, second))


def _short(name: str) -> str:
    """Return the name of a type without its module, and of anything not too much."""
    short = name.rpartition(":")[2].rpartition("<locals>.")[2] or name
    return short if len(short) <= _LONGEST_LABEL else f"{short[: _LONGEST_LABEL - 1]}…"


# -- Mermaid -------------------------------------------------------------------------------------


def as_mermaid(topology: Topology) -> str:
    """Return the graph as Mermaid has it."""
    nodes = {name: f"e{number}" for number, name in enumerate(sorted(topology.endpoints))}
    types = {name: f"t{number}" for number, name in enumerate(topology.types)}
    lines = ["graph LR"]
    for name, node in nodes.items():
        label = f"{_entities(_short(name))}<br/>{_entities(topology.endpoints[name])}"
        lines.append(f'    {node}(["{label}"])')
    lines += [f'    {node}{{{{"{_entities(_short(name))}"}}}}' for name, node in types.items()]
    for (endpoint, name), count in sorted(topology.senders.items()):
        lines.append(f'    {nodes[endpoint]} -->|"{count:,}"| {types[name]}')
    lines += [f"    {types[name]} --> {nodes[who]}" for who, name in sorted(topology.subscribers)]
    lines += [f"    {nodes[a]} -.- {nodes[b]}" for a, b in sorted(topology.connections)]
    if topology.gone:
        lines.append("    classDef gone stroke-dasharray: 4 4,color: #999999,stroke: #999999")
        lines.append(f"    class {','.join(nodes[name] for name in sorted(topology.gone))} gone")
    return "\n".join(lines)


def _entities(text: str) -> str:
    """Return a text as it may stand within quotes."""
    return re.sub(r"[^\w .,:/()-]", lambda match: f"#{ord(match[0])};", text)


# -- DOT -----------------------------------------------------------------------------------------


def as_dot(topology: Topology) -> str:
    """Return the graph as Graphviz has it."""
    nodes = {name: f"e{number}" for number, name in enumerate(sorted(topology.endpoints))}
    types = {name: f"t{number}" for number, name in enumerate(topology.types)}
    lines = ["digraph bus {", "    rankdir=LR;", '    node [fontname="sans-serif"];']
    for name, node in nodes.items():
        label = f"{_quoted(_short(name))}\\n{_quoted(topology.endpoints[name])}"
        style = "rounded,dashed" if name in topology.gone else "rounded"
        lines.append(f'    {node} [shape=box, style="{style}", label="{label}"];')
    for name, node in types.items():
        lines.append(f'    {node} [shape=hexagon, label="{_quoted(_short(name))}"];')
    for (endpoint, name), count in sorted(topology.senders.items()):
        lines.append(f'    {nodes[endpoint]} -> {types[name]} [label="{count:,}"];')
    lines += [f"    {types[name]} -> {nodes[who]};" for who, name in sorted(topology.subscribers)]
    for a, b in sorted(topology.connections):
        lines.append(f"    {nodes[a]} -> {nodes[b]} [dir=none, style=dotted, constraint=false];")
    return "\n".join([*lines, "}"])


def _quoted(text: str) -> str:
    return "".join(f"\\{c}" if c in '"\\' else c if c.isprintable() else "�" for c in text)
