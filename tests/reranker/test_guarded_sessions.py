"""Session state that fails: requests go on without it, and it is told once."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import structlog
from redis_process import redis_process
from session_state import LIMITS, NOW, event, items

from reranker.errors import SessionsError
from reranker.sessions.embedded import EmbeddedSessions
from reranker.sessions.guarded import PAUSE_SECONDS, GuardedSessions
from reranker.sessions.redis_server import RedisSessions
from reranker.sessions.stored import NOTHING


def test_what_is_full_is_read_all_the_same(tmp_path: Path) -> None:
    guarded = GuardedSessions(
        lambda: EmbeddedSessions(tmp_path, LIMITS, max_bytes=1 << 20, first_map_bytes=1 << 20), lambda: None
    )
    guarded.add([event("ann", "a")], NOW)
    with pytest.raises(SessionsError, match="fill all"):
        guarded.add([event(f"u{number}", "x" * 500) for number in range(3000)], NOW)
    assert items(guarded, "ann") == ["a"]
    guarded.close()


def test_without_redis_requests_go_on_without_a_session_and_writing_fails() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        redis_process(Path(folder)) as server,
        structlog.testing.capture_logs() as logged,
    ):
        failures: list[int] = []
        clock = [0.0]
        guarded = GuardedSessions(
            lambda: RedisSessions(server.url, LIMITS, seconds=30.0), lambda: failures.append(1), lambda: clock[0]
        )
        guarded.add([event("u", "a")], NOW)
        assert items(guarded, "u") == ["a"]
        server.kill()
        assert items(guarded, "u") == []
        assert guarded.of("u", NOW) == NOTHING
        assert len(failures) == 1, "for a while nobody tries again"
        for _ in range(3):
            with pytest.raises(SessionsError):
                guarded.add([event("u", "b")], NOW)
            clock[0] += PAUSE_SECONDS
            assert items(guarded, "u") == []
        assert [str(line["reason"]).split()[0] for line in logged] == ["reading", "writing"], "each reason once"
        server.start()
        clock[0] += PAUSE_SECONDS
        guarded.add([event("u", "c")], NOW)
        assert items(guarded, "u") == ["c"]
        guarded.close()
