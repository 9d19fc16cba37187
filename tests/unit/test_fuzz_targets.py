"""Each module that parses bytes or text from outside has a fuzz target, or a reason why not.

A module that calls a parser of a library is found by its syntax. A target's seeds execute code of
each module that the target names.
"""

import ast
import sys
from collections.abc import Iterator
from types import FrameType

from governance.cedar import engine
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS
from tests.unit.test_layout import ROOT, modules

PARSERS = {
    *("json.loads", "tomllib.loads", "model_validate", "model_validate_json"),
    *("FromString", "ParseFromString", "Metadata.from_bytes", "fromisoformat", "fromhex"),
    *("b64decode", "a2b_base64", "frombuffer", "unpack", "unpack_from", "reader", "ZipFile"),
    *("urlsplit", "ip_address", "ip_network", "yaml.parse", "load_pem_private_key"),
    *("load_pem_public_key", "load_ssh_public_key", "load_pem_x509_certificate"),
    *("load_pem_x509_certificates", "duckdb.connect", "getresponse"),
}
"""Calls of parsers, by their last name, or with the name before it if that is needed."""
OWN_DATABASE = "reads what this program stored in its own database; edits: test_edited_state.py"
OWN_FOLDER = "reads files that this program wrote into a folder of its user"
OWN_VALUES = "validates values that this program computed"
OWN_PROCESS = "reads what a process that this program started printed or answered"
RANDOM = "reads bytes of the random generator"
NOT_FROM_OUTSIDE = {
    "client/daemon.py": "reads base64 from commands of the same user",
    "client/startup.py": "reads a key of the key store",
    "client/documents/budget_periods.py": OWN_DATABASE,
    "client/documents/officer_key.py": OWN_DATABASE,
    "client/documents/store.py": OWN_DATABASE,
    "client/commands/calibration_file.py": "reads a file that its user asked to replace",
    "client/commands/rotate_keys.py": OWN_VALUES,
    "client/restore.py": OWN_DATABASE,
    "client/state/incarnation.py": OWN_DATABASE,
    "client/state/opt_out_confirmations.py": OWN_DATABASE,
    "client/state/pause.py": OWN_DATABASE,
    "client/state/restored.py": OWN_DATABASE,
    "client/state/runs.py": OWN_DATABASE,
    "governance/audit/signed_head.py": OWN_DATABASE,
    "governance/budget/accounting.py": OWN_VALUES,
    "governance/budget/ledger.py": OWN_DATABASE,
    "governance/documents/agreement.py": OWN_VALUES,
    "governance/officer/agreement_text.py": "reads digests of documents that were read before",
    "governance/officer/decision_rules.py": "reads a time that the officer typed; one function",
    "governance/officer/delivery.py": OWN_FOLDER,
    "governance/officer/foreign_documents.py": OWN_FOLDER,
    "governance/records/binding.py": OWN_DATABASE,
    "governance/trust/state.py": OWN_FOLDER,
    "protocols/numerics/discrete_gaussian.py": RANDOM,
    "protocols/numerics/keystream.py": RANDOM,
    "protocols/numerics/rounding.py": RANDOM,
    "protocols/private_sum/country_state.py": OWN_DATABASE,
    "protocols/tasks/local.py": OWN_VALUES,
    "protocols/tasks/mlp.py": OWN_VALUES,
    "protocols/tasks/tensors.py": RANDOM,
    "server/app.py": "reads answers of the coordinator's daemon, which started this process",
    "server/exchange/connection_limits.py": "reads addresses that the kernel gives",
    "server/exchange/service.py": "reads the messages that the targets of its calls read",
    "server/flower/guard_check.py": OWN_PROCESS,
    "server/flower/superlink.py": OWN_PROCESS,
    "server/runs/attempt.py": OWN_DATABASE,
    "server/runs/progress.py": OWN_DATABASE,
    "server/runs/store.py": OWN_DATABASE,
    "server/services/release.py": "reads what the coordinator's own server app computed",
    "server/services/studies.py": "reads base64 from the coordinator's own server app",
}
"""Modules that call a parser, and parse nothing that another party or a person wrote."""
FUZZED = {module for target in TARGETS.values() for module in target.modules}


def parses(module: str) -> bool:
    text = (ROOT / module).read_text(encoding="utf-8")
    if not any(name.rpartition(".")[2] in text for name in PARSERS):
        return False
    tree = ast.parse(text)
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return any(not PARSERS.isdisjoint(names(function)) for function in calls)


def names(function: ast.expr) -> Iterator[str]:
    """Yield the name of a called function, alone and with the name before it."""
    if isinstance(function, ast.Name):
        yield function.id
    if isinstance(function, ast.Attribute):
        before = (
            function.value.value if isinstance(function.value, ast.Subscript) else function.value
        )
        yield function.attr
        yield f"{getattr(before, 'id', '')}.{function.attr}"


def test_each_module_with_a_parser_has_a_target_or_a_reason() -> None:
    found = {module for module in modules() if parses(module)}
    assert sorted(found - FUZZED - set(NOT_FROM_OUTSIDE)) == []


def test_each_reason_belongs_to_a_module_with_a_parser_and_without_a_target() -> None:
    assert [module for module in NOT_FROM_OUTSIDE if not parses(module)] == []
    assert sorted(FUZZED & set(NOT_FROM_OUTSIDE)) == []
    assert modules() >= FUZZED


def test_the_seeds_of_a_target_execute_the_modules_that_it_names() -> None:
    unreached = {
        f"{name}: {module}" for name, target in TARGETS.items() for module in unexecuted(target)
    }
    assert sorted(unreached) == []


def unexecuted(target: Target) -> set[str]:
    """Return the target's modules of which its seeds execute no function."""
    expected = {str(ROOT / module) for module in target.modules}

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            expected.discard(frame.f_code.co_filename)

    seeds = target.seeds
    engine._checked.cache_clear()  # else Cedar's process is not asked again
    for seed in seeds:
        sys.setprofile(note if expected else None)
        try:
            target.check(seed)
        finally:
            sys.setprofile(None)
    return expected
