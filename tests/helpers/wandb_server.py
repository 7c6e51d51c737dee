"""The part of W&B's server that sweeps and their runs talk to, on a free port of the loopback interface.

`wandb sweep` creates a sweep, `wandb agent` asks for trials, and each trial's run sends its configuration, metrics,
files and, at its end, its exit code. What the real server's scheduler would choose, `trials` chooses here: the grid in
order, or independent draws from the parameters' values.
"""

from __future__ import annotations

import base64
import itertools
import json
import random
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import yaml

ENTITY = "team"
_HISTORY = "wandb-history.jsonl"


@dataclass
class Run:
    """What the server knows of a run.

    Attributes:
        id: chosen by the server for a trial, otherwise by the run.
        sweep: the sweep that it says it belongs to.
        config: its configuration.
        started: how often a process has begun it (a resume is one more).
        exit_code: what its end was reported with; None while it is running.
        history: rows of metrics.
        files: content of the files and of the artifacts' files that were uploaded, by name.
        artifacts: names of the artifacts that were committed.
    """

    id: str
    sweep: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    started: int = 0
    exit_code: int | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    artifacts: list[str] = field(default_factory=list)

    @property
    def state(self) -> str:
        """As the web page shows it."""
        return "running" if self.exit_code is None else "failed" if self.exit_code else "finished"


def trials(config: dict[str, Any], seed: int = 0) -> Iterator[dict[str, Any]]:
    """Parameter values of a sweep's trials, in the order in which they are given out."""
    choices = {name: _choices(entry) for name, entry in config["parameters"].items()}
    if config["method"] == "grid":
        for values in itertools.product(*choices.values()):
            yield dict(zip(choices, values, strict=True))
        return
    assert config["method"] == "random"
    generator = random.Random(seed)
    while True:
        yield {name: generator.choice(values) for name, values in choices.items()}


def _choices(entry: dict[str, Any]) -> Sequence[Any]:
    if "values" in entry:
        return entry["values"]
    assert entry["distribution"] == "int_uniform"  # `wandb sweep` has filled it in
    return range(entry["min"], entry["max"] + 1)


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # clients that were killed
            super().handle_error(request, client_address)


class WandbServer:
    """The server, running inside a `with` block.

    Attributes:
        url: its address, for `WANDB_BASE_URL`.
        sweeps: the sweeps' configurations, by id.
        given: the trials that agents were given, in order: parameter values by run id.
        heard: what agents said of their running trials at each heartbeat.
        runs: by id.
        unknown: requests that nothing here answers.
    """

    def __init__(self) -> None:
        self.sweeps: dict[str, dict[str, Any]] = {}
        self.given: dict[str, dict[str, Any]] = {}
        self.heard: list[dict[str, bool]] = []
        self.runs: dict[str, Run] = {}
        self.unknown: list[str] = []
        self._waiting: dict[str, Iterator[dict[str, Any]]] = {}
        self._artifacts: dict[str, tuple[str, str]] = {}  # id -> run, name
        self._lock = threading.Lock()
        self._http = _Http(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05})
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    # ------------------------------------------------------------------ HTTP
    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self._answer(server._post)

            def do_PUT(self) -> None:
                self._answer(server._put)

            def _answer(self, method: Any) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with server._lock:
                    answer = json.dumps(method(self.path, body)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *args: object) -> None:
                """Nothing: the tests read what the server has heard."""

        return Handler

    def _post(self, path: str, body: bytes) -> dict[str, Any]:
        if path == "/graphql":
            request = json.loads(body)
            match = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])
            name = match[1] if match else request["query"]
            method = getattr(self, f"_{_snake(name)}", None)
            if method is None:
                self.unknown.append(name)
                return {"data": None, "errors": [{"message": f"no {name} here"}]}
            return {"data": method(request.get("variables") or {})}
        if match := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", path):
            self._stream(self.runs[match[1]], json.loads(body))
        else:
            self.unknown.append(path)
        return {}

    def _put(self, path: str, body: bytes) -> dict[str, Any]:
        _, _, run, name = path.split("/", 3)  # /storage/<run>/<name>
        self.runs[run].files[name] = body
        return {}

    def _stream(self, run: Run, message: dict[str, Any]) -> None:
        for line in message.get("files", {}).get(_HISTORY, {}).get("content", []):
            run.history.append(json.loads(line))
        if message.get("complete"):
            run.exit_code = message["exitcode"]

    # ------------------------------------------------------------------ sweeps and agents
    def _upsert_sweep(self, given: dict[str, Any]) -> dict[str, Any]:
        name = f"sweep{len(self.sweeps)}"
        config = self.sweeps[name] = yaml.safe_load(given["config"])
        self._waiting[name] = trials(config)
        project = {"id": "1", "name": given["projectName"], "entity": {"id": "1", "name": ENTITY}}
        return {"upsertSweep": {"sweep": {"name": name, "project": project}, "configValidationWarnings": []}}

    def _sweep_with_runs(self, given: dict[str, Any]) -> dict[str, Any]:
        config = yaml.safe_dump(self.sweeps[given["sweep"]], sort_keys=False)
        return {"project": {"sweep": {"id": "1", "name": given["sweep"], "config": config, "runs": {"edges": []}}}}

    def _create_agent(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"createAgent": {"agent": {"id": given["sweep"]}}}  # so that a heartbeat names its sweep

    def _heartbeat(self, given: dict[str, Any]) -> dict[str, Any]:
        running = json.loads(given["runState"])
        self.heard.append(running)
        commands = []
        if not running:
            values = next(self._waiting[given["id"]], None)
            if values is None:
                commands = [{"type": "exit"}]
            else:
                run_id = f"trial{len(self.given)}"
                self.given[run_id] = values
                args = {name: {"value": value} for name, value in values.items()}
                program = self.sweeps[given["id"]]["program"]
                commands = [{"type": "run", "run_id": run_id, "program": program, "args": args}]
        return {"agentHeartbeat": {"agent": {"id": given["id"]}, "commands": json.dumps(commands)}}

    # ------------------------------------------------------------------ runs
    def _upsert_bucket(self, given: dict[str, Any]) -> dict[str, Any]:
        inserted = given["name"] not in self.runs
        run = self.runs.setdefault(given["name"], Run(given["name"]))
        run.sweep = given.get("sweep") or run.sweep
        config = json.loads(given.get("config") or "{}")
        run.config |= {name: entry["value"] for name, entry in config.items()}
        if given.get("host"):  # not a later change of the configuration
            run.started, run.exit_code = run.started + 1, None
        project = {"id": "1", "name": given["project"], "entity": {"id": "1", "name": ENTITY}}
        bucket = {"id": run.id, "name": run.id, "displayName": run.id, "sweepName": run.sweep, "project": project}
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def _run_resume_status(self, given: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(given["name"])
        if run is None:
            return {"model": None}
        bucket = {
            "id": run.id,
            "name": run.id,
            "displayName": run.id,
            "summaryMetrics": "{}",
            "logLineCount": 0,
            "historyLineCount": len(run.history),
            "eventsLineCount": 0,
            "historyTail": json.dumps([json.dumps(row) for row in run.history[-1:]]),
            "eventsTail": "[]",
            "config": json.dumps({name: {"value": value} for name, value in run.config.items()}),
            "tags": [],
            "wandbConfig": json.dumps({"t": {}}),  # a run that a process has begun
        }
        return {"model": {"id": "1", "name": given["project"], "entity": {"id": "1", "name": ENTITY}, "bucket": bucket}}

    def _create_run_files(self, given: dict[str, Any]) -> dict[str, Any]:
        files = [{"name": name, "uploadUrl": self._storage(given["run"], name)} for name in given["files"]]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}

    # ------------------------------------------------------------------ artifacts
    def _artifact_type(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"artifact": None}}  # none of that name yet

    def _create_artifact(self, given: dict[str, Any]) -> dict[str, Any]:
        given = given["input"]
        artifact = str(len(self._artifacts))
        self._artifacts[artifact] = (given["runName"], given["artifactCollectionName"])
        return {
            "createArtifact": {
                "artifact": {"id": artifact, "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
            }
        }

    def _create_artifact_manifest(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"createArtifactManifest": {"artifactManifest": self._manifest(given["artifactID"])}}

    def _update_artifact_manifest(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"updateArtifactManifest": {"artifactManifest": self._manifest(given["artifactManifestID"])}}

    def _manifest(self, artifact: str) -> dict[str, Any]:
        run, name = self._artifacts[artifact]
        file = {"id": artifact, "uploadUrl": self._storage(run, f"{name}/manifest.json"), "uploadHeaders": []}
        return {"id": artifact, "file": file}

    def _create_artifact_files(self, given: dict[str, Any]) -> dict[str, Any]:
        edges = []
        for spec in given["input"]["artifactFiles"]:
            run, name = self._artifacts[spec["artifactID"]]
            url = self._storage(run, f"{name}/{spec['name']}")
            edges.append(
                {
                    "node": {
                        "storagePath": spec["name"],
                        "uploadUrl": url,
                        "uploadHeaders": [],
                        "artifact": {"id": spec["artifactID"]},
                    }
                }
            )
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _commit_artifact(self, given: dict[str, Any]) -> dict[str, Any]:
        run, name = self._artifacts[given["artifactID"]]
        self.runs[run].artifacts.append(name)
        digest = base64.b64encode(name.encode()).decode()
        return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": digest}}}

    def _storage(self, run: str, name: str) -> str:
        return f"{self.url}/storage/{run}/{name}"

    # ------------------------------------------------------------------ who and what
    def _viewer(self, given: dict[str, Any]) -> dict[str, Any]:
        viewer = {"id": "1", "entity": ENTITY, "username": "me", "email": "", "flags": "{}", "teams": {"edges": []}}
        return {"viewer": viewer}

    def _server_features_query(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def _organization_core_weave_organization_i_d(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"organization": None}


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
