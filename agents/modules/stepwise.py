"""Generation by transformers' own preparation of each step, for networks of any kind.

`generate` of transformers prepares a text (positions, masks, picture tokens, cache) and hands over before the first
token; each step is prepared by the network's own `prepare_inputs_for_generation`. So positions in three dimensions,
sliding windows, linear attention and encoders are no concern of this code. Such texts keep their own cache and
positions and are written one after another: what one says cannot depend on those beside it.

Behind its prompt, a text of a network whose layers keep keys and values of all tokens, and whose positions just count
on, needs none of this: it joins the others in a batch (agents/modules/decoding.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from s2m3.agents.modules.decoding import DecodedSequence, Decoding, Start, Stop, TokenChooser, keeps_all
from s2m3.agents.modules.padding import honours_padding
from s2m3.agents.modules.token_rules import NO_RULES, TokenRules
from s2m3.schemas.wire.generation import Options

__all__ = ["StepwiseDecoding"]

#: What a network of transformers keeps of its last text, beside the cache: the shift of positions behind a picture.
_KEPT = "rope_deltas"


@dataclass(eq=False, slots=True)
class _State:
    """What transformers keeps of one text between steps."""

    given: dict[str, Any] = field(default_factory=dict)
    kept: Any = None


class StepwiseDecoding:
    """The texts that one network is saying, each by itself.

    Args:
        network: Of transformers, one that has `generate`.
        writer: The network inside to which its `generate` hands over; None if that is the network itself.
        stop: When texts end.
        rules: Further settings of the checkpoint.
    """

    def __init__(self, network: Any, stop: Stop, rules: TokenRules = NO_RULES, writer: Any = None) -> None:
        self._starter, self._network = network, writer or network
        self._chooser = TokenChooser(stop, rules)
        self._crosses = bool(self._network.config.is_encoder_decoder)
        self._states: dict[DecodedSequence, _State] = {}
        self._batched = Decoding(self._forward, stop, pads=honours_padding(self._network), rules=rules)

    @torch.inference_mode()
    def begin(
        self, given: Mapping[str, Any], options: Options, limit: int = 1, rules: Sequence[Any] = ()
    ) -> DecodedSequence:
        """Reads a prompt and says the first token.

        Args:
            given: Arguments of the network's `generate`.
            options: Those of the request.
            limit: Most tokens of the text.
            rules: Logits processors that are applied behind those of the checkpoint's settings.
        """
        ids, ready = self._prepared(given, limit)
        row = self._chooser.row(options, ids[0].tolist(), limit, Start(rules=rules))
        state = _State(ready, self._kept())
        self._states[row] = state
        try:
            inputs = self._network.prepare_inputs_for_generation(ids, is_first_iteration=True, **ready)
            self._say(row, state, inputs, first=True)
        except BaseException:
            del self._states[row]  # it lies in the device's memory, and nobody gets the row to drop it
            raise
        if state.kept is None and not self._crosses and keeps_all(cache := state.given.get("past_key_values")):
            del self._states[row]
            self._batched.adopt(row, cache)
        return row

    def _prepared(self, given: Mapping[str, Any], limit: int) -> tuple[torch.Tensor, dict[str, Any]]:
        """Returns the prompt's tokens, (1, tokens), and the arguments of the first step."""
        found: dict[str, Any] = {}

        def hand_over(_model: Any, input_ids: torch.Tensor, *_: Any, **ready: Any) -> torch.Tensor:
            found.update(ready, ids=input_ids)
            return input_ids

        how = {"max_new_tokens": limit, "min_length": 0, "do_sample": False, "num_beams": 1}
        self._starter.generate(**given, **how, custom_generate=hand_over)
        ids: torch.Tensor = found.pop("ids")
        for name in ("logits_processor", "stopping_criteria", "generation_config"):
            found.pop(name, None)
        return ids, found

    @torch.inference_mode()
    def advance(self, rows: Sequence[DecodedSequence]) -> None:
        """Says one more token of each of these: all that began, have not ended and were not dropped."""
        self._batched.advance([row for row in rows if row not in self._states])
        for row in rows:
            if (state := self._states.get(row)) is None:
                continue
            if state.kept is not None:
                setattr(self._network.base_model, _KEPT, state.kept)
            ids = torch.tensor([[*row.prompt, *row.tokens]])
            inputs = self._network.prepare_inputs_for_generation(ids, next_sequence_length=1, **state.given)
            self._say(row, state, inputs)

    def drop(self, rows: Sequence[DecodedSequence]) -> None:
        """Forgets texts and what was kept for them."""
        self._batched.drop(rows)
        for row in rows:
            self._states.pop(row, None)

    def _say(self, row: DecodedSequence, state: _State, inputs: Mapping[str, Any], *, first: bool = False) -> None:
        outputs = self._network(**inputs, return_dict=True)
        state.given = self._network._update_model_kwargs_for_generation(  # noqa: SLF001  # the step between two steps
            outputs, state.given, is_encoder_decoder=self._crosses
        )
        state.kept = self._kept()
        self._chooser.say([row], outputs.logits[:, -1], first=first)

    def _forward(self, **given: Any) -> torch.Tensor:
        logits: torch.Tensor = self._network(**given, use_cache=True).logits[:, -1]
        return logits

    def _kept(self) -> Any:
        return getattr(self._network.base_model, _KEPT, None)
