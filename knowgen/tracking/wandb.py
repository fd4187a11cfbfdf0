"""Weights & Biases. `WANDB_MODE=offline` writes a file that `wandb sync` sends later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from knowgen.core.errors import ConfigError, MissingDependencyError
from knowgen.tracking.contract import Ending, TrackedImage, TrackedRun, Tracker

PROJECT = "knowgen"
"""Project of runs whose user names none."""

INIT_SECONDS = 60
"""Time in which the server must take a new run; the run of knowgen does not wait for it."""


class WandbTracker(Tracker):
    """Logs to a project of Weights & Biases: `wandb:PROJECT` or `wandb:ENTITY/PROJECT`."""

    def check(self) -> None:
        """Check that the library is installed, and that a key is stored unless the mode is offline."""
        try:
            import wandb
        except ModuleNotFoundError as error:
            raise MissingDependencyError("wandb is not installed", fix="pip install 'knowgen[trackers]'") from error
        settings: Any = wandb.setup().settings
        if settings.mode not in ("online", "run", "shared"):
            return
        if _knows_no_login(settings):
            fix = "run `wandb login`, set WANDB_API_KEY, or set WANDB_MODE=offline"
            raise ConfigError("no login", where="--log wandb", fix=fix)

    def start(self, run: TrackedRun) -> Mapping[str, str]:
        """Begin a run, or go on with the one that an earlier call recorded."""
        import wandb

        entity, _, project = self.target.rpartition("/")
        self._run: Any = wandb.init(
            project=project or PROJECT,
            entity=entity or None,
            id=run.earlier.get("id"),
            resume="allow" if run.earlier.get("id") else None,
            name=run.name,
            job_type=run.kind,
            config=dict(run.config),
            settings=wandb.Settings(
                init_timeout=INIT_SECONDS,
                silent=True, console="off", save_code=False, disable_git=True, disable_code=True,
                disable_job_creation=True, x_disable_stats=True, x_disable_meta=True,
            ),
        )  # fmt: skip
        self._axis = run.axis
        self._run.define_metric(run.axis)
        self._run.define_metric("*", step_metric=run.axis)
        reference = {"id": str(self._run.id), "project": str(self._run.project)}
        if self._run.offline:
            return {**reference, "offline": Path(self._run.dir).parent.name}  # what `wandb sync` takes
        return {**reference, "url": str(self._run.url or "")}

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add values to the curves; the axis is a value like any other, so that a continued run can go back."""
        self._run.log({**values, self._axis: step})

    def figures(self, values: Mapping[str, float]) -> None:
        """Set the summary of the run."""
        self._run.summary.update(dict(values))

    def files(self, paths: Sequence[Path]) -> None:
        """Keep files as one artefact of the run."""
        import wandb

        artifact = wandb.Artifact(f"tables-{self._run.id}", type="tables")
        for path in paths:
            artifact.add_file(str(path), name=path.name)
        self._run.log_artifact(artifact)

    def images(self, images: Sequence[TrackedImage]) -> None:
        """Show images as one panel."""
        import wandb

        self._run.log({"images": [wandb.Image(each.path, caption=each.caption) for each in images]})

    def close(self, ending: Ending) -> None:
        """End the run, which counts as failed unless it is done, and the process that sends its data."""
        import wandb

        self._run.finish(exit_code={"done": 0, "interrupted": 255}.get(ending, 1))
        wandb.teardown()


def _knows_no_login(settings: Any) -> bool:
    """Return whether the library finds no key anywhere. It asks no server, unlike `wandb.login`.

    A release of the library without this function says nothing: a missing login then ends the tracker, not the run.
    """
    try:
        from wandb.sdk.lib import wbauth

        host = wbauth.HostUrl(settings.base_url, app_url=settings.app_url)
        return wbauth.authenticate_session(host=host, source="knowgen", prompt=False) is None
    except (ImportError, AttributeError, TypeError):
        return False
