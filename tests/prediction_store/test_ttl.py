"""Time to live, to the second, with a clock that is passed in."""

from __future__ import annotations

import pytest

from prediction_store.ttl import Freshness, expires_at, freshness_of
from schemas.config import Store
from schemas.config_file import load_config
from schemas.errors import ConfigError

STORE = Store(record_ttl_hours=1.0, version_ttl_hours=2.0)
MADE_AT = 1_000_000


@pytest.mark.parametrize(
    ("now", "fresh"),
    [
        (MADE_AT, Freshness(0, False, False)),
        (MADE_AT + 3599.9, Freshness(3599, False, False)),
        (MADE_AT + 3600, Freshness(3600, True, False)),
        (MADE_AT - 0.5, Freshness(0, False, True)),
        (MADE_AT - 86_400, Freshness(0, False, True)),
    ],
)
def test_a_record_is_fresh_until_its_hour_is_over(now: float, fresh: Freshness) -> None:
    assert freshness_of(MADE_AT, MADE_AT + 7200, now, STORE) == fresh


def test_the_version_can_expire_before_the_record() -> None:
    assert freshness_of(MADE_AT, MADE_AT + 10, MADE_AT + 9.9, STORE).is_expired is False
    assert freshness_of(MADE_AT, MADE_AT + 10, MADE_AT + 10, STORE).is_expired is True


@pytest.mark.parametrize(("hours", "seconds"), [(18.1, 65160), (0.55, 1980), (17.44, 62784), (0.1, 360)])
def test_hours_that_a_float_cannot_hold_exactly_end_on_their_very_second(hours: float, seconds: int) -> None:
    """18.1 * 3600 is 65160.00000000001."""
    store = Store(record_ttl_hours=hours, version_ttl_hours=1e6)
    far = MADE_AT + 10**9
    assert [freshness_of(MADE_AT, far, MADE_AT + seconds + off, store).is_expired for off in (-1e-4, 0)] == [
        False,
        True,
    ]


def test_a_version_that_shall_live_for_ever_has_an_end_that_can_be_written() -> None:
    with pytest.raises(ConfigError, match=r"store.version_ttl_hours = 1e\+308 .*: wanted `float` <= 1000000000.0"):
        load_config(None, ["store.version_ttl_hours=1e308"], {})
    for_ever = load_config(None, ["store.version_ttl_hours=1e9"], {}).store
    assert MADE_AT < expires_at(MADE_AT, for_ever) < 2**63


def test_a_version_lives_as_long_as_the_settings_say() -> None:
    assert expires_at(MADE_AT, STORE) == MADE_AT + 7200
