"""Over-generate and prune, by whole sets: draw several, then choose one or put one together.

Knows the pool on the state. Only sets that would pass the spec gate are chosen, as long as there are any. Does not
know gold: the composite ruler and the model's own comparison are guesses at quality.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field

from lib.agent import prompt
from lib.agent.likeness import closest, clusters, composite, dispersion, in_form, others, round_robin, top
from lib.agent.pipeline import Call, Run, State, Work, step
from lib.agent.prompt import BadReply, Draft
from lib.agent.steps.asking import Count, Grammar, Heat, read_set
from lib.models.embed import embedder

MOST_SETS = 16  # of a pool that a step looks at
UNSCORED = -1e9  # log-probability of a set that the model gave none: never the best
ANOTHER_TOPIC = 0.3  # similarity under which a question asks about something else altogether


# Published study, exp031, these temperatures beside greedy, then `best` by dispersion: 0.398 on full beside 0.409.
@step(
    "over-generate and prune",
    calls=lambda temps, **_: len(temps),
    needs=lambda grammar, **_: ["temperature"] + ["grammar"] * (grammar != "off"),
    uses=("demos", "draft", "pool"),
    gives=("pool",),
)
def sample(temps: list[Heat] = [0.4, 0.6, 0.8], n: Count = 7, advice: list[str] = [], grammar: Grammar = "off") -> Run:  # noqa: B006
    """Draw a set at each temperature into the pool, beside the draft that is there; choose with a step after it."""
    if not 1 <= len(temps) <= 16:
        raise ValueError(f"temps is {temps}, expected 1 to 16 temperatures")
    form: dict[str, Any] = {}
    if grammar != "off":
        form["grammar"] = prompt.set_grammar(n, "json", grammar == "questions")

    def run(state: State) -> Work:
        """A set that cannot be read is left out and noted. Raises BadReply where the pool stays empty."""
        demos = state.shown_demos()
        messages = prompt.ask(state.task, n, "json", advice, demos)
        replies = yield [Call(messages, {"temp": float(t), **form}) for t in temps]
        drafts, faults = prompt.parse_each(replies, read_set)
        state = state.left_out(faults, len(temps), "sets")
        # The draft that was there competes too, else sampling could only lose what greedy decoding had.
        pool = (*sets(state), *(draft for draft in drafts if draft is not None))
        if not pool:
            raise BadReply(f"no set could be read; the first: {faults[0]}")
        return replace(state, draft=state.draft or pool[0], pool=pool)

    return run


def sets(state: State) -> tuple[Draft, ...]:
    """What there is to choose from: the pool, or where there is none the draft."""
    if state.draft and not state.pool:
        return (state.draft,)
    return state.pool


@step(
    "over-generate and prune",
    calls=lambda by, most: most * (by == "logprob"),
    needs=lambda by, most: ["logprobs"] * (by == "logprob"),
    takes=("pool",),
)
def best(
    by: Literal["composite", "dispersion", "logprob"] = "composite",
    most: Annotated[int, Field(ge=1, le=16)] = 4,
) -> Run:
    """Choose one set of the pool: by a code ruler, by how far its questions stand apart, by likelihood."""

    def run(state: State) -> Work:
        """Chooses among the first `most` that pass the spec gate, or of all where none does; of equals the earlier."""
        drafts = in_form(state.pool)[:most]
        if by == "logprob":
            # All are scored as replies to the plain call, so that only the text differs.
            plain = prompt.ask(state.task, len(drafts[0].questions))
            replies = yield [Call(plain, reply=prompt.write_set(draft)) for draft in drafts]
            scores = [UNSCORED if reply.logprob is None else reply.logprob for reply in replies]
        elif by == "dispersion":
            scores = [dispersion(d, embedder()) for d in drafts]
        else:
            scores = [composite(d, state.task) for d in drafts]
        [won] = top(scores, 1)
        shown = ", ".join(f"{score:.3f}" for score in scores)
        return replace(state, draft=drafts[won]).note(f"set {won + 1} by {by}: {shown}")

    return run


# Published study, exp012, run twice: 0.290 and 0.298 on dev beside 0.308.
@step("over-generate and prune", calls=lambda most: 2 * (most - 1), takes=("pool",))
def tournament(most: Annotated[int, Field(ge=2, le=16)] = 4) -> Run:
    """Let the model compare the sets of the pool in pairs, each pair in both orders; where the two disagree the earlier stays."""

    def run(state: State) -> Work:
        """A reply that cannot be read is counted and decides nothing: the earlier set goes on."""
        drafts = in_form(state.pool)[:most]
        matches = unread = 0
        while len(drafts) > 1:
            pairs = list(zip(drafts[::2], drafts[1::2], strict=False))
            calls = []
            for a, b in pairs:
                calls.append(Call(prompt.compare(state.task, a.questions, b.questions)))
                calls.append(Call(prompt.compare(state.task, b.questions, a.questions)))
            replies = yield calls
            better, faults = prompt.parse_each(replies, lambda r: prompt.parse_better(r.text))
            matches, unread = matches + len(pairs), unread + len(faults)
            without_match = drafts[2 * len(pairs) :]
            drafts = []
            for (a, b), first, second in zip(pairs, better[::2], better[1::2], strict=True):
                # Small models prefer a place, not a set: only a verdict that survives the swap counts.
                drafts.append(b if (first, second) == ("B", "A") else a)
            # An odd one out goes on unbeaten, behind the winners: its place decides ties, never its quality.
            drafts += without_match
        return replace(state, draft=drafts[0]).note(f"won {matches} matches; {unread} of {2 * matches} replies unread")

    return run


# Self-consistency (Wang et al. 2022, arXiv 2203.11171), question by question. Published study, exp010: 0.223 on dev
# beside 0.308.
@step("over-generate and prune", takes=("pool",))
def consensus(to: Count = 7) -> Run:
    """Keep the questions that most sets of the pool ask in some wording, in the order of the first set that asks them."""

    def run(state: State) -> Work:
        """Questions that say the same stand as the first of them says it; of equal votes the earlier comes in."""
        drafts = in_form(state.pool)[:MOST_SETS]
        questions: list[str] = []
        asked_by: list[int] = []  # of each question, which set asks it
        for k, draft in enumerate(drafts):
            questions += draft.questions
            asked_by += [k] * len(draft.questions)
        groups = clusters(questions)
        # By how many sets ask it, not how often: one set that repeats itself has one vote.
        votes = [len({asked_by[i] for i in group}) for group in groups]
        kept = top(votes, to)
        chosen = Draft(drafts[0].title, tuple(questions[groups[g][0]] for g in kept))
        shown = ", ".join(str(votes[g]) for g in kept)
        return replace(state, draft=chosen).note(f"votes of {len(drafts)} sets: {shown}")
        yield  # makes this a generator, as every step is

    return run


@step("over-generate and prune", takes=("pool",))
def merge(to: Count = 7) -> Run:
    """Put one set together from the pool: first questions first, in turn, without repeats."""

    def run(state: State) -> Work:
        drafts = in_form(state.pool)[:MOST_SETS]
        return replace(state, draft=Draft(drafts[0].title, round_robin(drafts, to)))
        yield  # makes this a generator, as every step is

    return run


def transplanted(draft: Draft, donor: Draft, most: int) -> tuple[Draft, list[tuple[str, str]]]:
    """A draft with up to `most` questions that repeat others most replaced by what only the donor asks; (out, in) too."""
    questions = list(draft.questions)
    swaps: list[tuple[str, str]] = []
    own = list(range(len(questions)))
    for offer in donor.questions:
        if len(swaps) == most or not own:
            break
        if closest(offer, questions) < ANOTHER_TOPIC:
            repeated = {i: closest(questions[i], others(questions, i)) for i in own}
            at = max(own, key=lambda i: (repeated[i], i))
            swaps.append((questions[at], offer))
            questions[at] = offer
            # What was just put in stays: nothing here is like it, so it is the last that a later offer should replace.
            own.remove(at)
    return Draft(draft.title, tuple(questions)), swaps
