"""One run on disk: its recipe, its prompts, and which stages are done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from presafe.config.engine import stored_engine
from presafe.config.recipe import Recipe
from presafe.config.stored import parse_stored_recipe
from presafe.errors import RunError
from presafe.runs.folder import add_session, check_same_recipe, create_folder, describe_changes, read_timings, timed
from presafe.runs.io import disk_error, read_json, write_text
from presafe.runs.manifest import RESTORE, read_manifest
from presafe.stages.workload import Workload

if TYPE_CHECKING:  # it loads Inspect
    from presafe.models.place import Place

Stage = Literal["respond", "signal", "align", "evaluate", "report"]
STAGES: tuple[Stage, ...] = ("respond", "signal", "align", "evaluate", "report")


class RunFolder:
    """One run on disk.

    Args:
        path: The folder. `open_for` creates or resumes one, `existing` reads one.
        recipe: Its settings.
        workload: Its prompts; None loads them from the recipe.
    """

    def __init__(self, path: Path, recipe: Recipe, workload: Workload | None = None) -> None:
        self.path, self.recipe, self.workload = path, recipe, workload or Workload(recipe)
        self.place: Place | None = None
        """Where the stage that runs now samples, if not in this process."""

    @classmethod
    def open_for(cls, path: Path, recipe: Recipe, workload: Workload | None = None) -> RunFolder:
        """Create the folder of a recipe and its prompts, or resume one that was made with the same.

        Args:
            path: The folder.
            recipe: The recipe.
            workload: Its prompts; None loads them from the recipe.

        Raises:
            PromptError: the prompts cannot be read, or may not be used together (`Workload.check`).
            RunError: the folder was made with other settings or prompts, holds something else, or cannot be written.
        """
        run = cls(path, recipe, workload)
        prompts_sha256, origins = run.workload.sha256, run.workload.origins
        engine = stored_engine(recipe.engine)
        if not run.recipe_path.exists():
            create_folder(path, run.recipe_path, recipe.model_dump(mode="json"), prompts_sha256, origins, engine)
        else:
            check_same_recipe(path, cls.existing(path).recipe, recipe)
            add_session(path, prompts_sha256, engine)
        return run

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """Read a run folder.

        Raises:
            RunError: there is no run in it, or its settings were changed after it was made.
            RecipeError: its settings are not those of a run.
        """
        file = path / "recipe.json"
        if not file.exists():
            raise RunError(f"{path} holds no run (no recipe.json).", "Name a folder that `presafe run` wrote.")
        settings = read_json(file)
        recipe = parse_stored_recipe(settings, str(file))
        manifest = read_manifest(path, settings)
        # Read by today's presafe, as in `check_same_recipe`: a setting that is new since then has its default in both.
        made_with = parse_stored_recipe(manifest.get("settings", settings), str(path / "manifest.json"))
        if changed := describe_changes(made_with.model_dump(mode="json"), recipe.model_dump(mode="json")):
            raise RunError(f"{file} was changed after the run was made ({changed}).", RESTORE)
        return cls(path, recipe)

    @property
    def recipe_path(self) -> Path:
        """Return the path of the settings."""
        return self.path / "recipe.json"

    @property
    def manifest_path(self) -> Path:
        """Return the path of the manifest."""
        return self.path / "manifest.json"

    def manifest(self) -> dict[str, Any]:
        """Return the manifest: what made this run.

        Raises:
            RunError: as `read_manifest`.
        """
        return read_manifest(self.path)

    def timings(self) -> dict[str, float]:
        """Return the seconds spent in each stage, over all sessions that ended in order."""
        return read_timings(self.path)

    def is_done(self, stage: Stage) -> bool:
        """Return whether a stage has its mark."""
        return (self.path / "stages" / stage).exists()

    def not_done(self) -> list[Stage]:
        """Return the stages without a mark, in order."""
        return [stage for stage in STAGES if not self.is_done(stage)]

    def hint_to_redo(self, stage: Stage) -> str:
        """Return the hint for a damaged file of a finished stage."""
        return f"Delete {self.path / 'stages' / stage} and resume with `presafe run`: undamaged files are kept."

    def make_due(self, stage: Stage) -> None:
        """Remove the marks of a stage and of the later stages, which read its files.

        A mark that is a link belongs to the store of a study (`study/sharing.py`), whose key decides what it holds.

        Raises:
            RunError: the folder cannot be written.
        """
        for later in STAGES[STAGES.index(stage) :]:
            mark = self.path / "stages" / later
            try:
                if not mark.is_symlink():
                    mark.unlink(missing_ok=True)
            except OSError as error:
                raise disk_error(mark, error) from error

    @contextmanager
    def working_on(self, stage: Stage) -> Iterator[None]:
        """Time a stage and, unless it fails, mark it as done; the later stages are due again."""
        self.make_due(stage)
        with timed(self.path, stage):
            yield
        write_text(self.path / "stages" / stage, "done\n")
