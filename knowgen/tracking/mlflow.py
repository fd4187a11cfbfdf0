"""MLflow. `MLFLOW_TRACKING_URI` names the server or the folder, as for every program that uses MLflow."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from knowgen.core.errors import ConfigError, MissingDependencyError
from knowgen.core.text import error_message
from knowgen.tracking.contract import Ending, TrackedImage, TrackedRun, Tracker, flat_config

EXPERIMENT = "knowgen"
"""Experiment of runs whose user names none."""

PARAMETERS_AT_ONCE = 100
"""Maximum number of parameters in one call, see `mlflow.utils.validation`."""

LONGEST_PARAMETER = 500
"""Longest value of a parameter in characters that every version of the server takes."""

_NOT_ALLOWED = re.compile(r"[^\w\-. :/]", re.ASCII)
"""Characters that names of metrics and parameters may not have."""

_STATUS: dict[str, str] = {"done": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


class MlflowTracker(Tracker):
    """Logs to MLflow: `mlflow:EXPERIMENT`, or `mlflow:ADDRESS` for a tracking server or store."""

    def check(self) -> None:
        """Check that the library is installed, and that a store on this machine can be opened."""
        # a server that is down must be noticed within seconds, and not after the 7 tries of 2 minutes of the library
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
        try:
            import mlflow
            from mlflow import MlflowClient
        except ModuleNotFoundError as error:
            raise MissingDependencyError("mlflow is not installed", fix="pip install 'knowgen[trackers]'") from error
        is_address = "://" in self.target or self.target == "databricks"
        self._uri = self.target if is_address else mlflow.get_tracking_uri()
        self._experiment = EXPERIMENT if is_address or not self.target else self.target
        if self._uri.startswith(("http://", "https://")):
            return
        try:
            self._client: Any = MlflowClient(tracking_uri=self._uri)
        except Exception as error:
            raise ConfigError(
                f"the store cannot be opened ({error_message(error)})",
                where="--log mlflow",
                fix="set MLFLOW_TRACKING_URI to a server, or `pip install mlflow` for a database on this machine",
            ) from error

    def start(self, run: TrackedRun) -> Mapping[str, str]:
        """Begin a run, or go on with the one that an earlier call recorded."""
        from mlflow import MlflowClient

        client = self._client = MlflowClient(tracking_uri=self._uri)
        found = client.get_experiment_by_name(self._experiment)
        experiment = found.experiment_id if found is not None else client.create_experiment(self._experiment)
        if run.earlier.get("id") and run.earlier.get("experiment") == str(experiment):
            self._id = run.earlier["id"]
            client.update_run(self._id, status="RUNNING")
        else:
            self._id = client.create_run(experiment, run_name=run.name, tags={"knowgen.kind": run.kind}).info.run_id
        self._log_config(run.config)
        url = f"{self._uri.rstrip('/')}/#/experiments/{experiment}/runs/{self._id}"
        return {"id": self._id, "experiment": str(experiment), "url": url if self._uri.startswith("http") else ""}

    def _log_config(self, config: Mapping[str, Any]) -> None:
        """Log settings; one that an earlier call logged with another value is kept as it is, as MLflow demands."""
        from mlflow.entities import Param

        known = self._client.get_run(self._id).data.params
        new = [
            Param(_name(name), _text(value)) for name, value in flat_config(config).items() if _name(name) not in known
        ]
        for start in range(0, len(new), PARAMETERS_AT_ONCE):
            self._client.log_batch(self._id, params=new[start : start + PARAMETERS_AT_ONCE])

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add values to the curves."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(_name(name), float(value), now, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def figures(self, values: Mapping[str, float]) -> None:
        """Log the final figures as metrics with one value."""
        self.log(values, 0)

    def files(self, paths: Sequence[Path]) -> None:
        """Keep files as artefacts in `tables`."""
        for path in paths:
            self._client.log_artifact(self._id, str(path), "tables")

    def images(self, images: Sequence[TrackedImage]) -> None:
        """Keep images as artefacts in `images`, with their captions in one file."""
        for image in images:
            self._client.log_artifact(self._id, image.path, "images")
        captions = {Path(image.path).name: image.caption for image in images}
        self._client.log_dict(self._id, captions, "images/captions.json")

    def close(self, ending: Ending) -> None:
        """End the run."""
        self._client.set_terminated(self._id, status=_STATUS[ending])


def _name(name: str) -> str:
    return _NOT_ALLOWED.sub("_", name)[:250]


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_PARAMETER else text[: LONGEST_PARAMETER - 1] + "…"
