"""Each module of the five packages has a unit test at the same path, or a reason why not.

`client/border/door.py` has `tests/unit/client/border/test_door.py`. A new module gets a test there;
a module that is tested elsewhere gets a line below, with the file that tests it.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "tests" / "unit"
ROOMS = ("keys", "protocols", "governance", "client", "server")
GENERATED = "_pb2"
ONLY_DECLARATIONS = {
    "client/border/admission.py": "frozen values that the gate returns",
    "client/border/failpoints.py": "names; tests/fault stops the process at each",
    "client/errors.py": "classes of errors without code",
    "client/records/source.py": "the port of record sources",
    "client/state/tables.py": "tables; the migrations' tests compare them with databases",
    "governance/cedar/texts.py": "reads two files that come with the package",
    "governance/errors.py": "classes of errors without code",
    "governance/officer/errors.py": "classes of errors without code",
    "protocols/wire/flower_frame.py": "constants",
    "server/state/tables.py": "tables; the migrations' tests compare them with databases",
}
TESTED_ELSEWHERE = {
    "client/border/cited_documents.py": "tests/unit/client/border/test_gate.py",
    "client/border/run_limit.py": "tests/attacks/test_log_floods.py",
    "client/startup.py": "tests/integration/test_node_daemon.py",
    "client/state/state_check.py": "tests/attacks/test_edited_state.py",
    "governance/audit/integrity.py": "tests/attacks/test_edited_state.py",
    "governance/audit/stored_tree.py": "tests/unit/governance/audit/test_log.py",
    "governance/records/binding.py": "tests/attacks/test_edited_state.py",
    "governance/runtime/schema_check.py": "tests/attacks/test_edited_state.py",
    "client/commands/calibration_permission.py": "tests/attacks/test_calibrate.py",
    "client/commands/opt_out_app.py": "tests/unit/client/test_cli.py",
    "client/commands/options.py": "tests/unit/client/test_cli.py",
    "client/tasks/registry.py": "tests/unit/client/tasks/test_assignment.py",
    "governance/cedar/worker.py": "tests/unit/governance/cedar/test_process.py",
    "governance/officer/exchange_link.py": "tests/unit/governance/officer/test_certificate.py",
    "governance/officer/folder_recovery.py": (
        "tests/unit/governance/officer/test_foreign_documents.py"
    ),
    "governance/officer/session.py": "tests/unit/governance/officer/test_commands_sign.py",
    "governance/officer/unlock.py": "tests/unit/governance/officer/test_cli.py",
    "governance/trust/client.py": "tests/unit/governance/trust/test_view.py",
    "governance/trust/state.py": "tests/unit/governance/trust/test_repository.py",
    "governance/trust/verification.py": "tests/unit/governance/trust/test_view.py",
    "protocols/private_sum/country_round.py": (
        "tests/unit/protocols/private_sum/test_country_run.py"
    ),
    "protocols/private_sum/country_setup.py": (
        "tests/unit/protocols/private_sum/test_country_run.py"
    ),
    "protocols/tasks/mlp.py": "tests/unit/protocols/tasks/test_networks.py",
    "protocols/tasks/module.py": "tests/unit/protocols/tasks/test_networks.py",
    "protocols/tasks/network.py": "tests/unit/protocols/tasks/test_networks.py",
    "server/answers.py": "tests/unit/server/services/test_dispatch.py",
    "server/cli.py": "tests/unit/server/test_commands.py",
    "server/commands/agreement.py": "tests/unit/server/test_commands.py",
    "server/commands/invitation.py": "tests/unit/server/test_commands.py",
    "server/commands/log.py": "tests/unit/server/test_commands.py",
    "server/commands/options.py": "tests/unit/server/test_commands.py",
    "server/commands/result.py": "tests/unit/server/test_commands.py",
    "server/commands/study.py": "tests/unit/server/test_commands.py",
    "server/exchange/fleet_requests.py": "tests/unit/server/exchange/test_relay.py",
    "server/exchange/relay_session.py": "tests/unit/server/exchange/test_relay.py",
    "server/exchange/service.py": "tests/integration/test_exchange.py",
    "server/exchange/serving.py": "tests/integration/test_exchange.py",
    "server/flower/message_queue.py": "tests/unit/server/flower/test_carrier.py",
    "server/runs/attempt.py": "tests/unit/server/runs/test_resumption.py",
    "server/services/agreements.py": "tests/unit/server/services/test_dispatch.py",
    "server/services/context.py": "tests/unit/server/services/test_dispatch.py",
    "server/services/release.py": "tests/unit/server/services/test_dispatch.py",
    "server/services/studies.py": "tests/unit/server/services/test_dispatch.py",
}
"""Modules whose tests drive them through their only caller."""


def modules() -> set[str]:
    """Return the modules of the five packages that are written by hand, by their path."""
    paths = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    return {
        path.relative_to(ROOT).as_posix()
        for path in paths
        if path.name != "__init__.py"
        and "migrations" not in path.parts
        and GENERATED not in path.name
    }


def has_test(module: str) -> bool:
    path = Path(module)
    return (UNIT / path.parent / f"test_{path.name}").is_file()


def test_every_module_has_a_unit_test_at_its_path() -> None:
    without = {module for module in modules() if not has_test(module)}
    assert sorted(without - set(ONLY_DECLARATIONS) - set(TESTED_ELSEWHERE)) == []


def test_each_exception_has_an_existing_module_without_its_own_test() -> None:
    excepted = [*ONLY_DECLARATIONS, *TESTED_ELSEWHERE]
    assert set(excepted) <= modules()
    assert [module for module in excepted if has_test(module)] == []
    assert len(excepted) == len(set(excepted))


def test_the_tests_named_instead_exist() -> None:
    for tested_by in TESTED_ELSEWHERE.values():
        assert (ROOT / tested_by).is_file(), tested_by


def test_modules_without_a_test_contain_no_logic() -> None:
    """A module that only declares has no loop, and no condition over more than one line."""
    for module in ONLY_DECLARATIONS:
        tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
        loops = [node for node in ast.walk(tree) if isinstance(node, ast.For | ast.While | ast.If)]
        assert not loops, module
