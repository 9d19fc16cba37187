"""The child process that runs Cedar's native code; `governance.cedar.process` starts it by path.

It reads requests from standard input and writes an answer to each, both as lines of JSON, and ends
with its input. It imports nothing of the project. Its memory is limited, so a text that makes Cedar
use too much of memory or stack ends this process, and not the daemon that asked.
"""

import json
import os
import resource
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import cedarpy

MAX_MEMORY = 1 << 30
"""Bytes of address space."""
MAX_TEXTS = 64
"""How many parsed texts are kept."""


def limit_resources() -> None:
    """Limit the memory of this process; a crash leaves no core file."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def read(text: str) -> dict[str, Any]:
    """Return effect and annotations of each policy, by Cedar's name for it (`policy0`, ...)."""
    try:
        parsed = json.loads(cedarpy.policies_to_json_str(text))
    except ValueError as error:
        return {"fault": f"Cedar cannot read it: {error}"}
    except RecursionError:
        return {"fault": "it is nested too deeply"}
    if parsed["templates"]:
        return {"fault": "templates (?principal, ?resource) are not supported"}
    return {
        "policies": {
            name: {"effect": policy["effect"], "annotations": policy.get("annotations", {})}
            for name, policy in parsed["staticPolicies"].items()
        }
    }


class Engine:
    """Cedar with one schema."""

    def __init__(self, schema: str) -> None:
        self._text = schema
        self._schema = cedarpy.Schema.from_str(schema)
        self._parsed = lru_cache(maxsize=MAX_TEXTS)(cedarpy.PolicySet.from_str)

    def check(self, text: str) -> dict[str, Any]:
        """Return the policies of a text and what the schema does not allow in them."""
        answer = read(text)
        if "fault" not in answer:
            errors = cedarpy.validate_policies(text, self._text).errors
            answer["errors"] = [[error.policy_id, error.error] for error in errors]
        return answer

    def decide(self, text: str, request: dict[str, Any]) -> dict[str, Any]:
        """Return Cedar's decision, the policies that determined it, and the errors on the way."""
        result = cedarpy.is_authorized(request, self._parsed(text), "[]", self._schema)
        return {
            "decision": result.decision.value,
            "reasons": list(result.diagnostics.reasons),
            "errors": list(result.diagnostics.errors),
        }


def answer_with(value: dict[str, Any]) -> None:
    """Write one answer."""
    sys.stdout.write(json.dumps(value) + os.linesep)
    sys.stdout.flush()


def main() -> None:
    """Answer the schema with an empty object, and then requests until the input ends."""
    limit_resources()
    engine = Engine(json.loads(sys.stdin.readline()))
    answer_with({})
    methods: dict[str, Callable[..., dict[str, Any]]] = {
        "check": engine.check,
        "decide": engine.decide,
    }
    for line in sys.stdin:
        request = json.loads(line)
        answer_with(methods[request.pop("method")](**request))


if __name__ == "__main__":
    main()
