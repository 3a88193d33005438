"""Everything that shardrt raises, in one tree.

ShardrtError
├── ConfigInvalid              settings that do not make sense; lists every problem at once
├── OrchestratorNotRegistered  nobody here has an orchestrator of that name
├── ActivityNotRegistered      nobody here has an activity of that name
├── EntityNotRegistered        nobody here has an entity of that name
├── InputInvalid               a value does not fit the annotation; says where and why
├── InstanceNotFound           no instance has that id
├── InstanceExists             an instance with that id is there already
├── InstanceFinished           the operation needs an instance that is still open
├── InstanceNotFinished        the operation needs an instance that has ended
├── InstanceNotFailed          the operation needs an instance that has failed
├── InstanceQuarantined        what is stored of the instance cannot be read; others go on
├── PayloadTooLarge            an input, result or event is over the limit
├── Overloaded                 a bounded resource is full; try again after ``retry_after_s``
├── PartitionUnavailable       the partition has no serving owner right now; safe to retry
│   └── PartitionUnreachable   it has one, which cannot be reached from here, and that will last
├── Unauthorized               the token is missing or wrong
├── Forbidden                  the token does not allow this: it may only read
├── Untrusted                  the host's certificate is not one that we trust
├── ProtocolViolation          a peer sent something that is not of the protocol
├── ConnectionLost             the link to the host broke and could not be restored
├── OrchestrationFailed        what ``handle.result()`` raises for a failed instance
├── OrchestrationTerminated    what ``handle.result()`` raises for a terminated one
├── OrchestrationCanceled      what ``handle.result()`` raises for a canceled one
├── ActivityFailed             what an orchestrator sees of a failed activity
├── CircuitOpen                an activity that keeps failing is left alone for a while
├── SubOrchestrationFailed     what an orchestrator sees of a failed child
├── EntityFailed               what a caller sees of a failed operation of an entity
├── OperationSuspended         an operation of an entity waited for something
├── AnswerForgotten            an operation was done, but how it went is not known any more
├── LockViolation              what a critical section does not allow
├── SchedulingVetoed           middleware of the app did not let it be scheduled
├── NonDeterminism             replayed code asked for something else than history says
├── RecordCorrupt              stored bytes fail their checksum or cannot be decoded
└── StoreError
    ├── StoreUnavailable       the store cannot be reached or refuses work; nothing was changed
    ├── CommitUnknown          the connection broke while a write was in flight
    ├── EpochFenced            somebody else owns the partition by now
    ├── OutcomeExists          another attempt of the activity has committed
    ├── HubMismatch            the hub in the store has other fixed settings (partition count)
    ├── SchemaTooNew           the store was written by a newer release
    └── StoreUnsafe            the database is configured so that acknowledged data can be lost

Names say what happened. Messages carry the ids and the number that was exceeded. An
exception never carries a password or token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shardrt.core.history import Failure


class ShardrtError(Exception):
    """Root of all errors of this package."""

    code = "Internal"
    """Stable name on the wire and in ``--json`` output."""


class ConfigInvalid(ShardrtError):
    """Settings are wrong; ``problems`` names each key and reason."""

    code = "ConfigInvalid"

    def __init__(self, problems: list[str] | str) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("; ".join(self.problems))


class OrchestratorNotRegistered(ShardrtError):
    """No orchestrator of that name is registered."""

    code = "OrchestratorNotRegistered"


class ActivityNotRegistered(ShardrtError):
    """No activity of that name is registered."""

    code = "ActivityNotRegistered"


class EntityNotRegistered(ShardrtError):
    """No entity of that name is registered."""

    code = "EntityNotRegistered"


class InputInvalid(ShardrtError):
    """A value does not fit the annotation it is meant for."""

    code = "InputInvalid"


class InstanceNotFound(ShardrtError):
    """No instance has that id."""

    code = "InstanceNotFound"


class InstanceExists(ShardrtError):
    """An instance with that id exists and the conflict policy says to fail."""

    code = "InstanceExists"


class InstanceFinished(ShardrtError):
    """The instance has ended, so that the operation makes no sense any more."""

    code = "InstanceFinished"


class InstanceNotFinished(ShardrtError):
    """The instance is still open; the operation needs it to have ended."""

    code = "InstanceNotFinished"


class InstanceNotFailed(ShardrtError):
    """The operation needs an instance that has failed."""

    code = "InstanceNotFailed"


class InstanceQuarantined(ShardrtError):
    """What is stored of the instance cannot be read; `purge` with force removes it.

    Trying again does not help before somebody has repaired the store, or a release serves that
    can read it.
    """

    code = "InstanceQuarantined"


class PayloadTooLarge(ShardrtError):
    """An input, result or event is larger than the limit."""

    code = "PayloadTooLarge"


class Overloaded(ShardrtError):
    """A bounded resource is full. Nothing was changed; retry after ``retry_after_s``."""

    code = "Overloaded"

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class PartitionUnavailable(ShardrtError):
    """The partition has no serving owner right now. Retrying with the same id is safe."""

    code = "PartitionUnavailable"


class PartitionUnreachable(PartitionUnavailable):
    """The partition's owner runs, but has no address to be reached at.

    That lasts until somebody changes it, so clients do not try again by themselves.
    """

    code = "PartitionUnreachable"


class Unauthorized(ShardrtError):
    """The token is missing or wrong."""

    code = "Unauthorized"


class Forbidden(ShardrtError):
    """The token does not allow this."""

    code = "Forbidden"


class Untrusted(ShardrtError):
    """The certificate that a host shows is not one that we trust."""

    code = "Untrusted"


class ProtocolViolation(ShardrtError):
    """A peer sent something that is not of the protocol."""

    code = "ProtocolViolation"


class ConnectionLost(ShardrtError):
    """The link to the host broke and could not be restored in time."""

    code = "ConnectionLost"


class _Failed(ShardrtError):
    """A failure recorded in history, as an exception.

    ``error_type`` is the class name of the original exception, ``message`` its text,
    ``details`` its traceback as text, ``cause`` the failure that led to it, if any.
    """

    def __init__(self, failure: Failure, where: str = "") -> None:
        self.failure = failure
        self.error_type = failure.type
        self.message = failure.message
        self.details = failure.details
        self.cause = failure.cause
        super().__init__(f"{where}{failure.type}: {failure.message}")


class OrchestrationFailed(_Failed):
    """The orchestration ended with an unhandled exception."""

    code = "OrchestrationFailed"


class ActivityFailed(_Failed):
    """An activity failed for good: its retry policy is exhausted or forbids another try."""

    code = "ActivityFailed"


class CircuitOpen(ShardrtError):
    """An attempt of an activity was not made, for too many before it have failed."""

    code = "CircuitOpen"


class SubOrchestrationFailed(_Failed):
    """A sub-orchestration failed, or was terminated or canceled."""

    code = "SubOrchestrationFailed"


class EntityFailed(_Failed):
    """An operation of an entity raised; the entity is as it was before."""

    code = "EntityFailed"


class OperationSuspended(ShardrtError):
    """An operation of an entity waited for something, but it must end within its turn."""

    code = "OperationSuspended"


class AnswerForgotten(ShardrtError):
    """An operation was carried out, once, but how it went is not known any more.

    Only a call that was repeated, because its answer was lost, can end like this.
    """

    code = "AnswerForgotten"


class LockViolation(ShardrtError):
    """Inside a critical section over entities this is not allowed."""

    code = "LockViolation"


class OrchestrationTerminated(ShardrtError):
    """The orchestration was terminated from outside."""

    code = "OrchestrationTerminated"

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        super().__init__(reason or "terminated")


class OrchestrationCanceled(ShardrtError):
    """The orchestration was canceled from outside, and has cleaned up."""

    code = "OrchestrationCanceled"

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        super().__init__(reason or "canceled")


class SchedulingVetoed(ShardrtError):
    """Middleware of the app did not let something be scheduled; nothing was recorded of it."""

    code = "SchedulingVetoed"


class NonDeterminism(ShardrtError):
    """Replayed code asked for something else than its history says."""

    code = "NonDeterminism"


class RecordCorrupt(ShardrtError):
    """Stored bytes fail their checksum or cannot be decoded."""

    code = "RecordCorrupt"


class StoreError(ShardrtError):
    """Root of what a store raises."""

    code = "StoreError"


class StoreUnavailable(StoreError):
    """The store cannot be reached or refuses work; nothing was changed."""

    code = "StoreUnavailable"


class CommitUnknown(StoreError):
    """The connection broke while a write was in flight: it may or may not have happened."""

    code = "CommitUnknown"


class EpochFenced(StoreError):
    """Somebody else owns the partition by now; discard what you hold of it."""

    code = "EpochFenced"


class OutcomeExists(StoreError):
    """Another attempt of the same call of a transactional activity has committed."""

    code = "OutcomeExists"


class HubMismatch(StoreError):
    """The hub in the store has other fixed settings than asked for."""

    code = "HubMismatch"


class SchemaTooNew(StoreError):
    """The store was written by a newer release than this one."""

    code = "SchemaTooNew"


class StoreUnsafe(StoreError):
    """The database is configured so that acknowledged data can be lost."""

    code = "StoreUnsafe"
