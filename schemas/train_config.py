"""The settings of what is learned: the towers, and the weights of the re-ranker's signals."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from schemas.section import Section

Positive = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Weight = Annotated[float, Meta(ge=0.0)]
Hours = Annotated[float, Meta(gt=0.0)]


class Train(Section, frozen=True):
    """The two towers."""

    seed: Count = 7
    keep_days: Annotated[int, Meta(ge=0, le=36_500)] = 0
    """Days for which a trained model is kept: while one of so many days or fewer ago is in the workspace, made with the
    same settings, it is taken in place of a new one. What does not change keeps its vector then, which is what
    `retrieve.changed_only` builds on; what is new is known by content and history alone. Not with
    `split.strategy = per_user`, where it could have learned what it is judged by. 0: trained every day."""
    dimensions: Annotated[int, Meta(ge=4, le=1024)] = 64
    max_epochs: Count = 4
    """The learning rate falls to 0 over as many epochs. 0: the towers stay as `initialise` made them."""
    similarity: Literal["cosine", "dot"] = "cosine"
    """`cosine`: vectors of length 1. `dot`: free vectors, which start from a factorisation that has been taught to
    rank; better where users are known by many interactions. `shortlist tune` tells which."""
    factor_epochs: Count = 20
    """Epochs in which the factorisation is taught, with `dot`; the validation slice chooses among them."""
    teachers: Annotated[int, Meta(ge=1, le=16)] = 1
    """Times that it is taught, with other random numbers; what all of them and the factorisations say together is
    distilled into `dimensions`. A second one brings half a percent of recall for half as much time again."""
    patience: Positive = 2
    """Epochs without a better candidate recall on the validation slice after which training stops."""
    refit: bool = True
    """Train anew on train and validation split together, for as many epochs as the validation split chose."""
    examples_per_epoch: Count = 300_000
    """Examples drawn for an epoch: bounds its time on large data. 0: all there are."""
    memory_mb: Annotated[int, Meta(ge=1)] = 1024
    """Megabytes that the interactions being trained on, and those read ahead, may take. More than fit are trained on
    a few files of `prepared` at a time, and examples are shuffled among those only. One file (up to half a million
    interactions, about 250 MB) is the least there is at a time. What is kept of each user and item comes on top."""
    example_half_life_days: Hours = 30.0
    """An example this much older than the newest counts half, where the split is by time."""
    batch_size: Annotated[int, Meta(ge=8)] = 4096
    negatives: Positive = 512
    """Items drawn per batch and shared by all of its examples."""
    learning_rate: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.003
    weight_decay: Weight = 0.0
    temperature: Annotated[float, Meta(gt=0.0)] = 0.1
    """Divides the cosine between user and item before the softmax."""
    popularity_debias: Share = 0.0
    """Share of an item's (logarithmic) popularity that the towers are kept from learning. Lists then hold more of the
    long tail, and fewer hits; `evaluate` shows both. 0: popular items are as likely as they were in the data. More: all
    epochs are trained, since recall, which popular items rule, cannot choose among them."""
    initialise: Literal["factors", "random"] = "factors"
    """Where the id embeddings start: a matrix factorisation, far better on small data, or small random numbers."""
    user_id_share: Share = 0.3
    """Length of a user's id embedding at the start, against an item's, with `factors`. Lower on small data."""
    id_dropout: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.1
    """Share of ids hidden in training, so that content and history learn to carry new items and users."""
    history_length: Positive = 50
    """Most recent interactions of a user that the user tower pools."""
    title_buckets: Positive = 4096
    """Hash buckets of title words."""
    text: Literal["words", "sentences"] = "words"
    """What the item tower reads of an item's text: hashed words of the title, or beside them the vector that a frozen
    sentence encoder makes of title and category. It needs the extra `text`, and finds items that nobody has met."""
    validation_users: Positive = 4000
    """Users of the validation slice that early stopping looks at."""
    recall_at: Positive = 100
    """Length of the candidate list whose recall chooses the epoch."""
    workers: Annotated[int, Meta(ge=1, le=256)] = 1
    """Processes that train together, as tasks of one Spark stage: each on its share of the users, `batch_size` in all.
    1: in this process, without Spark."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Count = 0
    """Of torch on a CPU; 0: as many as there are cores, and as Spark gives a task where several workers train. The same
    number gives the same weights to the last bit; another one may change the last digits."""


class Ranker(Section, frozen=True):
    """The weights of the re-ranker's signals."""

    learn: bool = True
    """Learn them from the sessions since a version that was served before; false: a version gets the usual weights."""
    fewest_lists: Positive = 500
    """With fewer moments to learn from, the weights of the version before stay."""
    most_lists: Positive = 20_000
    """Moments that are learned from, at random where there are more: bounds time and memory (10 KB each). To draw them
    takes some 150 bytes for each interaction since that version."""
    penalty: Weight = 1e-4
    """On the squares of the weights, the signals being of one scale."""
    fewest_clicks: Count = 1000
    """With as many clicks on answers in `data.interactions.serving_log`, these are learned from, and no sessions are
    replayed. 0: never."""
    log_days: Annotated[float, Meta(gt=0.0, le=3650.0)] = 14.0
    """Clicks and answers of so many days, the run's own the last, are learned from."""
    position_eta: Annotated[float, Meta(ge=0.0, le=3.0)] = 1.0
    """A click at position k counts k to this power, where places left to chance tell no better one. 0: all alike."""
    most_weight: Annotated[float, Meta(ge=1.0)] = 20.0
    """No click counts more than as many on top."""
