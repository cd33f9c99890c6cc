"""What a run leaves behind while it trains: the lines of ``NAME.jsonl``, TensorBoard, and Weights & Biases when asked."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Any

from accelerate.tracking import GeneralTracker, TensorBoardTracker, WandBTracker
from accelerate.utils import is_wandb_available

from models.errors import SettingsError
from models.training.config import TrainConfig
from models.training.provenance import recipe_for_card
from models.training.run_state import written

if TYPE_CHECKING:
    from models.training.trainer import EpochReport


def check_tracking(config: TrainConfig) -> None:
    """Refuse a recipe that asks for a tracker that is not there.

    Raises
    ------
    SettingsError
        If Weights & Biases is asked for and not installed.
    """
    if config.tracking == "wandb" and not is_wandb_available():
        raise SettingsError(
            "The recipe asks for Weights & Biases (tracking: wandb), which is not installed.",
            "Install it with: pip install 'earwitness[wandb]', or leave out tracking; TensorBoard is always written.",
        )


class RunLog:
    """The records of a run; a context manager, so that they are closed however the run ends.

    Parameters
    ----------
    config
        The recipe. Records lie in ``output/NAME.jsonl`` and ``output/NAME.tensorboard``.
    done
        Entries that an interrupted run has already made; later ones are dropped, as they are made again.
    step
        Step after which the run goes on.
    main
        Whether this process writes; of several only one does.

    Raises
    ------
    EarwitnessError
        If Weights & Biases is asked for and not installed, or nothing can be written.
    """

    def __init__(self, config: TrainConfig, done: int = 0, step: int = 0, *, main: bool = True) -> None:
        check_tracking(config)
        self.main, self.config = main, config
        self.path = config.output / f"{config.name}.jsonl"
        self.trackers: list[GeneralTracker] = []
        if not main:
            return
        board = config.output / f"{config.name}.tensorboard"
        with written(f"The history of {config.name}"):
            config.output.mkdir(parents=True, exist_ok=True)
            lines = self.path.read_text(encoding="utf-8").splitlines()[:done] if done and self.path.is_file() else []
            self.path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            if not done and not step and board.is_dir():
                shutil.rmtree(board)
            # What a killed run logged after the state that is gone on from is hidden.
            options = {"purge_step": step + 1} if step else {}
            self.trackers.append(TensorBoardTracker(board.name, config.output, **options))
            if config.tracking == "wandb":
                self.trackers.append(
                    WandBTracker("earwitness", name=config.name, dir=str(config.output), config=recipe_for_card(config))
                )
            for tracker in self.trackers:
                tracker.start()

    def write(self, entry: EpochReport, step: int | None = None, **more: Any) -> None:
        """An epoch (or evaluation) is over, after `step` optimizer steps; `more` goes into its line only.

        Raises
        ------
        CheckpointError
            If the disk is full.
        """
        if not self.main:
            return
        values = {
            "loss": entry.loss, "learning_rate": entry.learning_rate, "epoch": entry.epoch,
            "validation": entry.validation_accuracy,
        }  # fmt: skip
        with written(f"The history of {self.config.name}"), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(entry) | more) + "\n")
        self.track({key: value for key, value in values.items() if value is not None}, step or entry.epoch)

    def track(self, values: dict[str, float], step: int) -> None:
        """Figures of a step, for TensorBoard and Weights & Biases only.

        Raises
        ------
        CheckpointError
            If the disk is full.
        """
        with written(f"The history of {self.config.name}"):
            for tracker in self.trackers:
                tracker.log(values, step=step)

    def close(self) -> None:
        """Flush and close everything."""
        for tracker in self.trackers:
            tracker.finish()
        self.trackers = []

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        # An error while closing must not hide the one that ended the run.
        with contextlib.suppress(OSError) if kind is not None else contextlib.nullcontext():
            self.close()
