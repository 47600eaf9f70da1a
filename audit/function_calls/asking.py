"""Questions asked of a model, many at a time, on the engine."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from ...model.serving import Engine, Request
from ...model.serving.intake import ServedModel
from ...model.text.tools import ToolCall, ToolChoice, prepare
from ...model.text.tools.conversation import SYSTEM_PROMPT
from ..evaluations.items import digest
from .answer import Answer, Choice, judged
from .answer_file import AnswerFile
from .questions import UNANSWERABLE, Question
from .schemas import as_tool

Progress = Callable[[int, int], None]


def ask(
    model: ServedModel,
    questions: Sequence[Question],
    *,
    choice: Choice | None = None,
    max_new_tokens: int = 256,
    max_running: int = 32,
    output: str | Path | None = None,
    progress: Progress | None = None,
) -> list[Answer]:
    """Returns an answer to each question, greedy ones.

    Args:
        choice: Whether an answer may be text ("auto"), or must be a call ("required"). By default
            it must, except where no function fits.
        max_new_tokens: The longest answer.
        max_running: Questions that are answered at a time; no answer depends on it.
        output: JSONL of answers as they come. Those that it has already are not asked again.
        progress: Called with how many are answered, and how many there are.

    Raises:
        ValueError: a model whose template writes calls in a way that is not known, or a question
            that does not fit its context.
        EvaluationError: an output file of another run.
        ModuleNotFoundError: without the extra `tools`.
    """
    with Engine(model, max_running=max_running) as engine:
        file = None
        if output is not None:
            file = AnswerFile(Path(output), _run(engine, choice, max_new_tokens))
        found: dict[str, Answer] = {} if file is None else dict(file.answers)
        missing = [each for each in questions if each.id not in found]
        done = len(questions) - len(missing)
        for question, answer in _answers(engine, missing, choice, max_new_tokens, 2 * max_running):
            if file is not None:
                file.add(question, answer)
            found[question.id] = answer
            if progress is not None:
                done += 1
                progress(done, len(questions))
    return [found[question.id] for question in questions]


def _run(engine: Engine, choice: Choice | None, max_new_tokens: int) -> str:
    """The digest of all that decides an answer beside its question."""
    tokenizer = engine.model.tokenizer
    text = None if tokenizer is None else (tokenizer.definition, tokenizer.chat_template)
    return digest(engine.fingerprint, text, SYSTEM_PROMPT, choice, max_new_tokens)


def _answers(
    engine: Engine,
    questions: Iterable[Question],
    choice: Choice | None,
    max_new_tokens: int,
    most: int,
) -> Iterator[tuple[Question, Answer]]:
    """Yields answers as they end; at most so many questions are under way."""
    waiting, asked = deque(questions), list[_Asked]()
    while waiting or asked:
        while waiting and len(asked) < most:
            asked.append(_Asked(engine, waiting.popleft(), choice, max_new_tokens))
        engine.step()
        for each in [each for each in asked if each.handle.is_done]:
            asked.remove(each)
            yield each.question, each.answer()


class _Asked:
    """One question under way."""

    def __init__(
        self, engine: Engine, question: Question, choice: Choice | None, max_new_tokens: int
    ) -> None:
        self.question = question
        usual: Choice = "auto" if question.category == UNANSWERABLE else "required"
        self._choice = choice or usual
        tools = [as_tool(each) for each in question.functions]
        wanted = ToolChoice(self._choice, parallel=False)
        self._prepared = prepare(engine.model.tokenizer, question.messages, tools, wanted)
        self.handle = engine.submit(
            Request(
                self._prepared.messages,
                template_variables=self._prepared.variables,
                grammar=self._prepared.grammar,
                max_new_tokens=max_new_tokens,
            )
        )

    def answer(self) -> Answer:
        """Returns the answer, which has ended. Raises what ended it by an error."""
        parser = self._prepared.parser()
        assert parser is not None  # every question offers functions
        parts: list[str | ToolCall] = []
        for piece in self.handle.take():
            parts += parser.push(piece.text, piece.id)
        parts += parser.finish()
        (completion,) = self.handle.results()
        n_tokens = completion.usage.prompt, completion.usage.output
        form, reason = self._prepared.form, completion.finish_reason
        return judged(self.question, self._choice, form, parts, reason, n_tokens)
