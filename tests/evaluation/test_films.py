"""The film of an evaluation: it shows what the models write, at one number of calls, and moves no number."""

from __future__ import annotations

import pytest

from didi_core.evaluation.contenders import Contender, Measuring
from didi_core.evaluation.evaluate import evaluate_models, sweep
from didi_core.evaluation.films import LONGEST, chosen, film_models
from didi_core.run import Run
from didi_core.sampling.generate import SamplerSettings, generate
from didi_toy import ToyDomain

DOMAIN = ToyDomain()
EXACT = DOMAIN.teacher("exact")
BASE = SamplerSettings(law="stratified")


def contenders(*steps: int) -> dict[str, Contender]:
    return {name: Contender(EXACT, sweep(BASE, steps, (0.7, 1.0))) for name in ("teacher", "student")}


def test_a_film_is_the_sample_that_generate_writes() -> None:
    films = film_models(Run(DOMAIN), contenders(2, 4, 8), Measuring(10, seeds=(3,)))
    assert films is not None and films.calls == 4
    assert [film.model for film in films.films] == ["teacher", "student"]
    film = films.films[0]
    rows = DOMAIN.template([32]).tolist()
    made = generate(DOMAIN, EXACT, settings=SamplerSettings(steps=4, law="stratified"), num=1, templates=rows, seed=3)
    assert film.text == made.samples[0].text
    assert [sum(text is None for text in state) for state in film.states()] == [32, 24, 16, 8, 0]
    assert films.films[1].changes == film.changes, "one template and one stream: equal networks write the same"
    assert {letter for letters in films.groups.values() for letter in letters} == set(DOMAIN.alphabet)


@pytest.mark.parametrize(
    ("steps", "calls"), [((1, 2, 4, 8), 4), ((8, 32), 8), ((1, 2), 2), ((3, 5, 6), 5)]
)  # the next number of calls from four on, else the largest
def test_it_has_four_calls_or_the_next_number(steps: tuple[int, ...], calls: int) -> None:
    found = chosen(sweep(BASE, steps, (0.5, 1.1)))
    assert found is not None and (found.calls, found.temperature) == (calls, 1.1)


@pytest.mark.parametrize(
    "how", [SamplerSettings("dplm"), SamplerSettings("first_hitting"), SamplerSettings(law="threshold")]
)
def test_without_a_number_of_calls_that_can_be_watched_there_is_none(how: SamplerSettings) -> None:
    models = {"student": Contender(EXACT, [how])}
    assert film_models(Run(DOMAIN), models, Measuring(4)) is None


def test_a_sample_that_would_be_larger_than_its_page_has_none() -> None:
    assert film_models(Run(DOMAIN), contenders(4), Measuring(4, length=LONGEST + 1)) is None


def test_an_evaluation_has_a_film_and_the_same_numbers() -> None:
    models = {"student": Contender(EXACT, [SamplerSettings(steps=2)])}
    made = evaluate_models(Run(DOMAIN), models, Measuring(12, length=6, resamples=10))
    again = evaluate_models(Run(DOMAIN), models, Measuring(12, length=6, resamples=10))
    assert made.films is not None and made.films == again.films and len(made.films.films[0].start) == 6
    assert made.rows[-1].values == again.rows[-1].values
