"""Hooks for schemathesis, which knows no model's name and would be refused for it every time.

    bitlens serve MODEL &
    SCHEMATHESIS_HOOKS=schemathesis_hooks MODEL=NAME PYTHONPATH=tests/support schemathesis run \\
        http://127.0.0.1:8000/openapi.json --checks not_a_server_error -n 300 \\
        --phases coverage,fuzzing

In an environment of its own: tests/model/serving/test_http_fuzz.py draws from the same schema
without it, and runs by day.
"""

from __future__ import annotations

import os
import zlib
from typing import Any

import schemathesis


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Nine in ten requests are for the model that is served."""
    if isinstance(body, dict) and "model" in body and zlib.crc32(repr(body).encode()) % 10:
        body["model"] = os.environ["MODEL"]
        body.pop("pool_fingerprint", None)
    return body
