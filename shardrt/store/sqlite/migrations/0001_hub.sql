-- One hub = one file. The tables are those of the PostgreSQL store (see its first migration
-- for what they hold), without `barrier`: a write is over when its call is, since there is no
-- network in between.
--
-- Times are microseconds since 1970 UTC. Text compares by bytes. Every writing transaction
-- is BEGIN IMMEDIATE, so there is one writer at a time and no lock order to keep.

CREATE TABLE hub (
    singleton   INTEGER  PRIMARY KEY CHECK (singleton = 1),
    partitions  INTEGER  NOT NULL CHECK (partitions > 0),
    format      INTEGER  NOT NULL
);

CREATE TABLE hosts (
    host_id      TEXT     PRIMARY KEY,
    incarnation  TEXT     NOT NULL,
    address      TEXT     NOT NULL,
    shards       INTEGER  NOT NULL,
    expires_at   INTEGER  NOT NULL,
    draining     INTEGER  NOT NULL,
    version      TEXT     NOT NULL
) WITHOUT ROWID;

CREATE TABLE partitions (
    partition       INTEGER  PRIMARY KEY,
    owner           TEXT,
    epoch           INTEGER  NOT NULL DEFAULT 0,
    commit_lsn      INTEGER  NOT NULL DEFAULT 0,
    checkpoint_lsn  INTEGER  NOT NULL DEFAULT 0
);

CREATE TABLE checkpoints (
    partition  INTEGER  PRIMARY KEY,
    state      BLOB     NOT NULL
);

CREATE TABLE journal (
    partition  INTEGER  NOT NULL,
    lsn        INTEGER  NOT NULL,
    record     BLOB     NOT NULL,
    PRIMARY KEY (partition, lsn)
);

CREATE TABLE instances (
    partition     INTEGER  NOT NULL,
    instance_id   TEXT     NOT NULL,
    execution_id  TEXT     NOT NULL,
    name          TEXT     NOT NULL,
    version       TEXT,
    status        TEXT     NOT NULL,
    created_at    INTEGER  NOT NULL,
    updated_at    INTEGER  NOT NULL,
    completed_at  INTEGER,
    parent_id     TEXT,
    tags          TEXT,
    next_due      INTEGER,
    active        INTEGER  NOT NULL,
    state         BLOB     NOT NULL,
    PRIMARY KEY (partition, instance_id)
);

CREATE INDEX instances_listed ON instances (created_at, instance_id);

CREATE INDEX instances_active ON instances (partition, instance_id) WHERE active;

CREATE INDEX instances_due ON instances (partition, next_due, instance_id)
    WHERE next_due IS NOT NULL;

CREATE TABLE history (
    partition     INTEGER  NOT NULL,
    instance_id   TEXT     NOT NULL,
    execution_id  TEXT     NOT NULL,
    seq           INTEGER  NOT NULL,
    events        BLOB     NOT NULL,
    PRIMARY KEY (partition, instance_id, execution_id, seq)
);
