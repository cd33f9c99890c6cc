"""One teaching: its examples, its training, and what the model says before and after."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from models.errors import DataError
from models.network import Network
from models.recognizer import Recognizer
from models.teaching import deep, head
from models.teaching.contract import LeftOut, Scores, TeachingExample, TeachProgress, TeachSettings
from models.teaching.course import Course, StateFile
from models.teaching.examination import Examination, examine_with
from models.teaching.extension import extend_recognizer, head_parameters
from models.teaching.favour import favoured, least_favour, leave_out, most_favour, rounds_of
from models.teaching.listening import changed, embed, no_picture
from models.teaching.memory import load_memory
from models.teaching.objective import opinion_as_targets
from models.teaching.rehearsal import Rehearsal, answers, prepare_rehearsal
from models.teaching.scoring import score_hidden, scores_of, targets_of, widened
from models.teaching.split import held_out_examples
from models.teaching.ways import chosen_way

_SCENE_VIEWS = 2


def default_views(n_examples: int) -> int:
    """Changed copies of every example: fewer, the more there are."""
    return max(1, min(8, 400 // max(1, n_examples)))


class Lesson:
    """One run of `teach`, step by step."""

    def __init__(
        self, base: Recognizer, examples: Sequence[TeachingExample], settings: TeachSettings, course: Course
    ) -> None:
        self.base, self.examples, self.course = base, list(examples), course
        self.task = settings.task or base.card.task
        course.tell("listening", 0, len(self.examples))
        self.examination: Examination = examine_with(
            base, self.examples, settings, lambda done, total: course.tell("listening", done, total)
        )
        self.examination.check()
        usable, same = self.examination.usable, self.examination.same
        held = held_out_examples(self.examples, [e.index for e in usable], same, settings.held_out_share, settings.seed)
        self.learned = [row for row, e in enumerate(usable) if e.index not in held]
        self.tested = [row for row, e in enumerate(usable) if e.index in held]
        learned_labels = {label for row in self.learned for label in self.labels_of(row)}
        if not learned_labels:
            raise DataError("There is no example to learn from.", "Not all examples can be held out.")
        self.new_labels = tuple(
            label
            for label in dict.fromkeys(label for row in self.learned for label in self.labels_of(row))
            if label not in base.labels
        )
        self.labels = (*base.labels, *self.new_labels)
        # What is only tested and never learned has no place in the new model.
        self.tested = [row for row in self.tested if set(self.labels_of(row)) <= set(self.labels)]
        self.taught, self.rows = extend_recognizer(base, self.new_labels)
        self.taught.card = self.taught.card.model_copy(update={"task": self.task})
        self.head = head_parameters(self.taught.network, self.examination.hidden[0][:1].to(base.device))
        memory = load_memory(base)
        # One made of windows of another length does not go together with these examples.
        if memory is not None and memory.hidden.shape[1:] != self.examination.hidden[0].shape[1:]:
            memory = None
        if self.task != base.card.task and base.card.task == "multi-label":
            memory = None
        self.memory = memory
        self.way = chosen_way(base, settings, len(self.learned), len(learned_labels), remembers=memory is not None)
        self.settings, self._open_rate = self._filled(settings), settings.learning_rate is None
        self.rounds = self._rounds()
        self.rehearsal: Rehearsal = prepare_rehearsal(
            base, memory, self.new_labels, usable=self.way == "head", whole=self.rounds is not None
        )
        self.trained_parameters = 0
        self.copies: list[Tensor] = []
        self.left_out: LeftOut | None = None
        # Scores of remembered clips while they were left out, one row a clip of the memory's `first_copies`.
        self.remembered: Tensor | None = None

    def labels_of(self, row: int) -> tuple[str, ...]:
        """Classes of a usable example."""
        return self.examples[self.examination.usable[row].index].labels

    def _filled(self, settings: TeachSettings) -> TeachSettings:
        """Settings with everything chosen that was left open."""
        n = len(self.learned)
        views = settings.views if settings.views is not None else default_views(n)
        if self.way == "head":
            epochs, rate = settings.epochs or head.STEPS, settings.learning_rate or head.LEARNING_RATE
        else:
            epochs = settings.epochs or deep.default_epochs(n)
            rate = settings.learning_rate or deep.LEARNING_RATES[self.way]
        return settings.model_copy(
            update={
                "train": self.way, "views": views if settings.augment else 0, "epochs": epochs, "learning_rate": rate,
                "task": self.task,
            }
        )  # fmt: skip

    @property
    def fingerprint(self) -> str:
        """Of everything that the result depends on."""
        heard = {e.index: e.content_hash for e in self.examination.usable}
        values: list[Any] = [
            self.base.card.content_hash, self.settings.model_dump(mode="json"), list(self.labels),
            [[heard.get(i), list(e.labels), e.held_out] for i, e in enumerate(self.examples)],
            None if self.memory is None else hashlib.sha256(self.memory.hidden.numpy().tobytes()).hexdigest(),
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(values).encode()).hexdigest()

    # --- training --------------------------------------------------------------------------------------------------

    def train(self, state: StateFile, resume: bool) -> None:
        """Train what is to be trained."""
        if self.way == "head":
            self._train_head(state, resume)
        else:
            self._train_deeper(state, resume)

    def learned_targets(self) -> Tensor:
        """Targets ``[n, n_classes]`` of the examples that are learned."""
        return targets_of([self.labels_of(row) for row in self.learned], self.labels)

    def windows(self, rows: Sequence[int]) -> tuple[list[Tensor], list[Tensor | None], list[int]]:
        """Waveforms and pictures of all windows of examples, and the place of each one's example in `rows`."""
        waveforms: list[Tensor] = []
        pictures: list[Tensor | None] = []
        places: list[int] = []
        for place, row in enumerate(rows):
            example = self.examination.usable[row]
            waveforms += example.windows
            pictures += example.pictures
            places += [place] * len(example.windows)
        return waveforms, pictures, places

    def _head_data(self) -> head.HeadData:
        """Embeddings of the examples and their changed copies, of what is remembered, and of generated sounds."""
        base, seed, n_classes = self.base, self.settings.seed, len(self.labels)
        waveforms, pictures, places = self.windows(self.learned)
        hidden = [torch.cat([self.examination.hidden[row] for row in self.learned])]
        targets = [self.learned_targets()[places]]
        views = self.settings.views or 0
        self.copies = list(hidden)
        # Every second copy is a sound alone: what is learned from videos is to be heard, too.
        alone = [no_picture(base)] * len(waveforms)
        for view in range(views):
            copies = [changed(w, seed, row, view) for row, w in enumerate(waveforms)]
            parts = []
            for part in embed(base, copies, pictures if view % 2 else alone):
                parts.append(part.cpu())
                self.course.tell("embedding", view * len(copies) + sum(map(len, parts)), views * len(copies))
            hidden.append(torch.cat(parts))
            self.copies.append(hidden[-1])
            targets.append(targets[0])
        n_examples = sum(len(part) for part in hidden)
        scenes, memory = self.rehearsal.scenes, self.rehearsal.memory
        if scenes is not None:
            for view in range(1 + _SCENE_VIEWS):
                sounds = [
                    w if view == 0 else changed(w, seed, 10**6 + row, view) for row, w in enumerate(scenes.waveforms)
                ]
                part = torch.cat(list(embed(base, sounds, [None] * len(sounds)))).cpu()
                hidden.append(part)
                logits = base.network.forward_head(part.to(base.device)).cpu()
                targets.append(answers(base, logits, n_classes))
        n_before_memory = sum(len(part) for part in hidden)
        if memory is not None:
            hidden.append(memory.values())
            targets.append(widened(memory.targets.float(), n_classes))
        device = base.device
        everything, wanted = torch.cat(hidden).to(device), torch.cat(targets).to(device)
        first = 0 if self.rehearsal.distil else n_before_memory
        converted = self.task != base.card.task
        kept = torch.arange(0 if converted else first, 0 if converted else len(everything))
        with torch.no_grad():
            before = base.network.forward_head(everything)
        if not converted:
            wanted[:n_examples] = opinion_as_targets(wanted[:n_examples], before[:n_examples], self.task)
        return head.HeadData(everything, wanted, kept, before[kept.to(device)])

    def _train_head(self, state: StateFile, resume: bool) -> None:
        data = self._head_data()
        untaught = {name: value.detach().clone() for name, value in self.head.items()}
        head.prototype_rows(self.taught.network, self.rows, data)
        self.trained_parameters = sum(value.numel() for value in self.head.values())
        if self._open_rate:
            rate = head.suited_rate(self.taught.network, self.head, data)
            self.settings = self.settings.model_copy(update={"learning_rate": rate})
        n_new = len(self.new_labels)
        favour = most_favour(len(self.labels), n_new) if self._weighed else 0.0
        if self.rounds is not None:
            favour = self._leave_out(data, untaught, self.rounds)
        self._train_on(data, self.course, n_new, favour, state_file=state, validate=self._accuracy, resume=resume)

    def _train_on(self, data: head.HeadData, course: Course, n_new: int, favour: float, **options: Any) -> None:
        assert self.settings.epochs is not None and self.settings.learning_rate is not None
        head.train_head(
            self.taught.network, self.head, data, self.task, course, steps=self.settings.epochs,
            learning_rate=self.settings.learning_rate, seed=self.settings.seed, n_new=n_new, favour=favour, **options,
        )  # fmt: skip

    @property
    def _weighed(self) -> bool:
        """Whether new classes are weighed against old ones.

        Only where the old classes are rehearsed on real sounds and not taught themselves; scores of multi-label classes do not
        compete.
        """
        old_taught = bool(self.learned_targets()[:, : len(self.base.labels)].any())
        rehearsed = self.memory is not None and self.way == "head"
        return bool(self.new_labels) and rehearsed and self.task == "single-label" and not old_taught

    def _rounds(self) -> list[int] | None:
        """When every learned example is left out; None if that is not done."""
        if not self._weighed:
            return None
        return rounds_of(
            [self.examination.same[row] for row in self.learned], self.learned_targets().argmax(dim=1).tolist()
        )

    def _leave_out(self, data: head.HeadData, untaught: dict[str, Tensor], rounds: list[int]) -> float:
        """By how much the new classes are favoured; the head is left as it was found."""
        begin = {name: value.detach().clone() for name, value in self.head.items()}
        n_new, n_rounds, places = len(self.new_labels), max(rounds) + 1, self.windows(self.learned)[2]
        memory = self.rehearsal.memory
        assert memory is not None
        turns = torch.full((len(data.targets),), -1)
        own = torch.tensor(rounds)[places].repeat(len(self.copies))
        turns[: len(own)] = own
        turns[len(turns) - len(memory) :] = memory.turns(n_rounds)

        def set_head(values: dict[str, Tensor]) -> None:
            with torch.no_grad():
                for name, value in self.head.items():
                    value.copy_(values[name])

        def train(part: head.HeadData, number: int) -> Network:
            def report(point: TeachProgress) -> None:
                self.course.tell("checking", number * point.steps + point.step, n_rounds * point.steps)

            set_head(untaught)
            head.prototype_rows(self.taught.network, self.rows, part)
            self._train_on(part, Course(report), 0, 0.0)
            return self.taught.network

        logits = leave_out(data, turns, train)
        set_head(begin)
        n = len(places)
        self.left_out = least_favour(logits[:n], data.targets[:n].cpu(), places, n_new)
        remembered = logits[len(logits) - len(memory) :][memory.first_copies()]
        self.remembered = favoured(remembered, n_new, self.left_out.favour)
        return self.left_out.favour

    def _train_deeper(self, state: StateFile, resume: bool) -> None:
        waveforms, pictures, places = self.windows(self.learned)
        targets = [self.learned_targets()[places]]
        n_examples = len(waveforms)
        scenes = self.rehearsal.scenes
        if scenes is not None:
            sounds = list(scenes.waveforms)
            part = torch.cat(list(embed(self.base, sounds, [None] * len(sounds))))
            targets.append(answers(self.base, self.base.network.forward_head(part), len(self.labels)).cpu())
            waveforms, pictures = waveforms + sounds, pictures + [None] * len(sounds)
        deeper = deep.opened(self.taught, self.head, self.way, self.settings)
        self.trained_parameters = sum(value.numel() for value in (*self.head.values(), *deeper.values()))
        assert self.settings.epochs is not None and self.settings.learning_rate is not None
        deep.train_deep(
            self.base, self.taught, self.head, deeper,
            deep.DeepData(waveforms, pictures, torch.cat(targets), n_examples), self.course,
            epochs=self.settings.epochs, learning_rate=self.settings.learning_rate,
            head_learning_rate=deep.HEAD_LEARNING_RATE, settings=self.settings, state_file=state,
            validate=self._accuracy, resume=resume,
        )  # fmt: skip

    # --- testing ---------------------------------------------------------------------------------------------------

    def hidden(self, recognizer: Recognizer, rows: Sequence[int]) -> list[Tensor]:
        """Embeddings of examples; those of the base are there already."""
        if self.way == "head" or recognizer is self.base:
            return [self.examination.hidden[row] for row in rows]
        waveforms, pictures, _ = self.windows(rows)
        return list(embed(recognizer, waveforms, pictures))

    def scores(self, recognizer: Recognizer, rows: Sequence[int]) -> Tensor:
        """What a model says of examples, ``[n, n_classes]``."""
        places = self.windows(rows)[2]
        return widened(score_hidden(recognizer, self.hidden(recognizer, rows), places, len(rows)), len(self.labels))

    def scored(self, scores: Tensor, rows: Sequence[int]) -> Scores | None:
        """How good that is."""
        return scores_of(scores, targets_of([self.labels_of(row) for row in rows], self.labels), self.labels, self.task)

    def _accuracy(self) -> float | None:
        found = self.scored(self.scores(self.taught, self.tested), self.tested)
        return found.accuracy if found else None
