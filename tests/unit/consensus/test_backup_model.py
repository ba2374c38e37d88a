"""Random histories with backups in them: nothing that a backup refers to goes before it is dropped, and then all of it does."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from consensus.core.commands import DeleteVersion, DropBackup, EndSession, KeepBackup, OpenBackup
from consensus.core.ids import digest
from consensus.core.results import Done, NoBackup
from tests.unit.consensus.test_model import Histories

NAMES = st.sampled_from(["one", "two", "three"])


class WithBackups(Histories):
    """`pins`: by backup, the chunks that were live at the entry where its copy ends, that entry, and its session if it is
    still open."""

    pins: dict[str, tuple[set[bytes], int, int | None]]

    def __init__(self) -> None:
        super().__init__()
        self.pins = {}

    def teardown(self) -> None:
        for name in list(self.pins):
            self.run(DropBackup(name=name))
        super().teardown()                       # drains, and compares the chunks that are left with the model

    def replay(self) -> None:
        assert self.cluster.rows("held") == 0
        super().replay()

    @precondition(lambda self: hasattr(self, "cluster"))
    @rule(name=NAMES)
    def open(self, name: str) -> None:
        if name not in self.pins and self.run(OpenBackup(name=name)) == Done():
            self.pins[name] = self.seen(), self.cluster.index, self.cluster.session

    @precondition(lambda self: any(session for _, _, session in self.pins.values()))
    @rule(data=st.data(), now=st.booleans())
    def keep(self, data: st.DataObject, now: bool) -> None:
        """The copy was taken at the opening, or is taken now."""
        name = data.draw(st.sampled_from(sorted(name for name, pin in self.pins.items() if pin[2])))
        chunks, index, session = self.pins[name]
        if now:
            chunks, index = self.seen(), self.cluster.index
        result = self.run(KeepBackup(name=name, index=index))
        if session != self.cluster.session:
            assert result == NoBackup()          # it went with its session
            del self.pins[name]
        else:
            assert result == Done()
            self.pins[name] = chunks, index, None

    @precondition(lambda self: self.pins)
    @rule(data=st.data(), really=st.integers(0, 3).map(lambda number: number == 3))
    def drop(self, data: st.DataObject, really: bool) -> None:
        if really:
            name = data.draw(st.sampled_from(sorted(self.pins)))
            session = self.pins.pop(name)[2]
            gone = session not in (None, self.cluster.session)
            assert self.run(DropBackup(name=name)) == (NoBackup() if gone else Done())

    @precondition(lambda self: self.pins)
    @rule(session=st.integers(0, 3).map(lambda number: number == 3))
    def clear(self, session: bool) -> None:
        """All objects and uploads go, and whatever may go after them; perhaps a session before."""
        if session:
            self.cluster.run(EndSession(session=self.cluster.session), 0)
            self.cluster.session = self.cluster.open_session()
            self.lows[self.cluster.session] = 0
        for bucket in self.buckets.values():
            for key, id in list(bucket.uploads):
                self.abort(bucket, key, id)
            for key, versions in bucket.keys.items():
                for version in versions:
                    self.run(DeleteVersion(bucket=bucket.id, key=key, version_id=version.id))  # type: ignore[arg-type]
                bucket.keys[key] = []
        self.cluster.drain()

    def seen(self) -> set[bytes]:
        """Chunks that versions and parts refer to."""
        found = set()
        for bucket in self.buckets.values():
            for versions in bucket.keys.values():
                found.update(digest(piece) for version in versions for piece in version.pieces)
            for upload in bucket.uploads.values():
                found.update(digest(piece) for pieces, _ in upload.parts.values() for piece in pieces)
        return found

    @invariant()
    def what_backups_refer_to_is_there(self) -> None:
        if hasattr(self, "cluster"):
            there = {row[0] for row in self.cluster.db.execute("SELECT digest FROM chunk")}
            for chunks, _, session in self.pins.values():
                assert session not in (None, self.cluster.session) or chunks <= there


TestBackups = WithBackups.TestCase
TestBackups.settings = settings(max_examples=30, stateful_step_count=50, deadline=None,
                                suppress_health_check=list(HealthCheck))
