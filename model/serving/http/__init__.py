"""The engine over HTTP, in the dialects of OpenAI's and Anthropic's clients: the extra `serve`."""

try:
    import fastapi as _fastapi
    import prometheus_client as _prometheus_client
    import uvicorn as _uvicorn
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"bitlens.model.serving.http needs {error.name}: pip install 'bitlens[serve]'",
        name=error.name,
    ) from error

from .app import create_app
from .listening import listen
from .service import Service

__all__ = ["Service", "create_app", "listen"]

del _fastapi, _prometheus_client, _uvicorn
