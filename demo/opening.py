"""The start of the federation: coordinator, officers, signed agreement, nodes."""

import socket
import time
from pathlib import Path

from demo.federation import Federation
from demo.party import CommandFailed
from demo.world import Site, write_documents
from keys.clock import utc_now

COORDINATOR_SECONDS = 90.0
NODE_SECONDS = 60.0
IN_FORCE_SECONDS = 10.0


def start_coordinator(federation: Federation) -> None:
    """Create the coordinator and start its daemon."""
    story, coordinator = federation.story, federation.coordinator
    story.section("The coordinator starts")
    story.say(
        "It can launch studies and add up sums. It has no records, and it cannot sign in a "
        "country's name. Behind its only public port runs a stock Flower SuperLink, on loopback."
    )
    name = federation.world.terms.federation
    arguments = ("init", "--federation", name, "--listen", f"127.0.0.1:{_free_port()}")
    story.command("coordinator", coordinator.as_typed(arguments))
    story.quote(_without_folder(federation, coordinator.run(*arguments, unlock=True)))
    story.command("coordinator", "pratique-coordinator up")
    coordinator.start(
        "up", ready=lambda: coordinator.log_says("ready"), seconds=COORDINATOR_SECONDS
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _without_folder(federation: Federation, text: str) -> str:
    return text.replace(f"{federation.world.folder}/", "")


def admit_officers(federation: Federation) -> None:
    """Have four officers create keys, and admit them by the fingerprints that they read out."""
    story = federation.story
    story.section("Four privacy officers create their keys and are admitted")
    story.command("each officer", "pratique-officer keygen --country … --authority …")
    outputs = federation.everywhere(lambda site: _keygen(federation, site))
    story.quote(_without_folder(federation, outputs[federation.first]))
    story.command("coordinator", "pratique-coordinator invite … --role officer --out …")
    story.command("each officer", f"pratique-officer enrol {federation.first}-officer.json")
    story.command("coordinator", "pratique-coordinator admit …")
    fingerprints = federation.everywhere(
        lambda site: federation.enrol(federation.officers[site.country], site.country, "officer")
    )
    story.say(
        "Each officer reads its fingerprint out over the telephone; the coordinator admits it:"
    )
    lines = [f"{country}  {fingerprint}" for country, fingerprint in fingerprints.items()]
    story.quote("\n".join(lines))


def _keygen(federation: Federation, site: Site) -> str:
    officer = federation.officers[site.country]
    arguments = ("keygen", "--country", site.country, "--authority", site.authority)
    return officer.run(*arguments, unlock=True)


def sign_agreement(federation: Federation) -> Path:
    """Propose the agreement and have it read and signed; return the folder of documents."""
    story, coordinator = federation.story, federation.coordinator
    documents = write_documents(federation.world, utc_now())
    story.section("The agreement is proposed, read and signed")
    arguments = ("agreement", "propose", documents / "agreement.yaml")
    story.command("coordinator", coordinator.as_typed(arguments))
    coordinator.run(*arguments)
    story.command("each officer", "pratique-officer sign")
    outputs = federation.everywhere(lambda site: _sign_draft(federation, site.country))
    story.say(f"{federation.first}'s officer read this before signing:")
    story.quote(outputs[federation.first], most=45)
    story.command("coordinator", "pratique-coordinator agreement status")
    _wait_until_in_force(federation)
    story.quote(coordinator.run("agreement", "status"))
    return documents


def _sign_draft(federation: Federation, country: str) -> str:
    return federation.officers[country].run("sign", "--yes", unlock=True)


def _wait_until_in_force(federation: Federation) -> None:
    deadline = time.monotonic() + IN_FORCE_SECONDS
    while federation.coordinator.ask("agreement", "status")["state"] != "in force":
        if time.monotonic() > deadline:
            raise CommandFailed("All officers have signed, but the agreement is not in force.")


def start_nodes(federation: Federation) -> None:
    """In each country, create the node, have the officer sign its keys, and start it."""
    story, first = federation.story, federation.first
    story.section("Four nodes start, each beside its country's records")
    story.command(
        "each node",
        "pratique-node init --data records.csv --dictionary dictionary.yaml …",
    )
    reports = federation.everywhere(lambda site: _init_node(federation, site))
    story.say(
        f"{first}'s operator sees how the node reads its file; none of this leaves the country:"
    )
    story.quote(_without_folder(federation, reports[first]), most=25)
    story.command("each node", f"pratique-node enrol {first}-node.json")
    federation.everywhere(
        lambda site: federation.enrol(federation.nodes[site.country], site.country, "node")
    )
    story.command("each officer", "pratique-officer sign node-keys.json --node …")
    federation.everywhere(lambda site: _sign_node_keys(federation, site.country))
    story.command("each node", "pratique-node up")
    federation.everywhere(lambda site: _start_node(federation, site.country))
    story.command(f"node {first}", "pratique-node status")
    story.quote(_without_folder(federation, federation.nodes[first].run("status")))


def _init_node(federation: Federation, site: Site) -> str:
    key = federation.officers[site.country].home / "country.pub"
    arguments: list[str | Path] = ["init", "--country", site.country, "--officer-key", key]
    arguments += ["--data", site.records, "--dictionary", site.dictionary]
    arguments += ["--opt-out", site.opted_out] if site.opted_out else []
    return federation.nodes[site.country].run(*arguments, unlock=True)


def _sign_node_keys(federation: Federation, country: str) -> None:
    officer, node = federation.officers[country], federation.nodes[country]
    officer.run("sign", node.home / "node-keys.json", "--node", node.home, "--yes", unlock=True)


def _start_node(federation: Federation, country: str) -> None:
    node, coordinator = federation.nodes[country], federation.coordinator
    node.start(
        "up",
        ready=lambda: bool(coordinator.ask("status")["nodes"].get(country)),
        seconds=NODE_SECONDS,
    )
