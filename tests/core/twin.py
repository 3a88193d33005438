"""A partition that proves itself: every entry is applied twice, once to a decoded copy.

The law (I3): encode the state, decode it, apply the entry decoded from its own bytes, and both
states are equal again, and ask for the same effects. A handler that looks at anything but state
and entry, or keeps hold of something that does not survive encoding, breaks it.
"""

from __future__ import annotations

import msgspec

from shardrt.core import codec, entries as e, messages as m
from shardrt.core.effects import Effect, Reply
from shardrt.core.ids import partition_of
from shardrt.core.partition import Partition
from shardrt.core.state import Instance, PartitionState

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(PartitionState).decode


def copy_of(partition: Partition) -> Partition:
    """Return a partition of the same state that shares nothing with it."""
    twin = Partition(_decode(_encode(partition.state)))
    # Not of the state: which rows the store still has, and whose code is to be called.
    twin.ready = partition.ready.copy()
    twin.starting = partition.starting.copy()
    twin.entities_ready = partition.entities_ready.copy()
    twin.deleted = dict(partition.deleted)
    twin.tombstones = dict(partition.tombstones)
    return twin


def lasting(effects: list[Effect]) -> list[Effect]:
    """Return all but answers, which are not of the state."""
    return [effect for effect in effects if not isinstance(effect, Reply)]


class Twin(Partition):
    """A partition under proof."""

    def __init__(self, state: PartitionState) -> None:
        super().__init__(state)
        self.posted: list[tuple[int, m.Message]] = []
        """All messages ever posted by this object, with their destination."""
        self.rewinds: list[tuple[str, e.Rewound]] = []
        """Every rewind by this object, with the execution that it put an end to."""
        self.proved = 0

    def _post(self, message: m.Message) -> None:
        super()._post(message)
        self.posted.append((partition_of(message.instance_id, self.state.partitions), message))

    def _write(self, entry: e.Entry) -> None:
        twin = copy_of(self)
        asked, speculated = len(self.effects), len(self.speculative)
        if isinstance(entry, e.Rewound):
            old = self.instances[entry.instance_id].execution_id
            self.rewinds.append((old, entry))
        super()._write(entry)
        (decoded,) = codec.decode_record(codec.encode_record([entry]))
        assert decoded == entry
        twin.apply(decoded)
        assert_equal(twin.state, self.state)
        assert lasting(twin.effects) == lasting(self.effects[asked:])
        assert twin.speculative == self.speculative[speculated:]
        assert twin.ready == self.ready
        assert twin.starting == self.starting
        assert twin.entities_ready == self.entities_ready
        assert (twin.deleted, twin.tombstones) == (self.deleted, self.tombstones)
        self.proved += 1


def assert_equal(left: PartitionState, right: PartitionState) -> None:
    """Compare field by field, so that a failure names the smallest thing that differs."""
    if left == right:
        return
    assert left.instances.keys() == right.instances.keys()
    for instance_id, instance in left.instances.items():
        assert_instances_equal(instance, right.instances[instance_id])
    assert left.entities == right.entities
    assert without_instances(left) == without_instances(right)


def assert_instances_equal(left: Instance, right: Instance) -> None:
    """Compare two instances field by field."""
    for field in Instance.__struct_fields__:
        found, expected = getattr(left, field), getattr(right, field)
        assert found == expected, f"{left.instance_id}.{field}: {found} != {expected}"


def without_instances(state: PartitionState) -> dict[str, object]:
    """Return the fields that are neither of one instance nor of one entity."""
    fields = set(PartitionState.__struct_fields__) - {"instances", "entities"}
    return {field: getattr(state, field) for field in sorted(fields)}
