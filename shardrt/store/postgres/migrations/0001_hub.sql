-- One hub = one schema.
--
--   hub          one row: what is fixed when the hub is created
--   hosts        who takes part, and until when (its lease)
--   partitions   who owns what. This is the hot row: every commit updates it, and its epoch
--                fences every other write. Hence narrow, unindexed but for its key, and on
--                pages with room, so that an update stays on its page (HOT).
--     barrier      connections opened before this moment may not append: raised when a
--                  connection was lost with an append in flight, so that the append, should
--                  it still lie in some buffer, cannot take effect after we looked
--   checkpoints  partition-wide state as of partitions.checkpoint_lsn
--   journal      committed records that no checkpoint covers yet (and a few that one does)
--   instances    the read model, and each instance's state as of its last checkpoint
--   history      its history events, a chunk per checkpoint
--
-- Times are microseconds since 1970 UTC. Text compares by bytes, as it does everywhere else.
-- Lock order: instances and history by instance id, then checkpoints, then the partition.

CREATE TABLE {schema}.hub (
    singleton   boolean  PRIMARY KEY DEFAULT true CHECK (singleton),
    partitions  integer  NOT NULL CHECK (partitions > 0),
    format      integer  NOT NULL
);

CREATE TABLE {schema}.hosts (
    host_id      text COLLATE "C"  PRIMARY KEY,
    incarnation  text COLLATE "C"  NOT NULL,
    address      text              NOT NULL,
    shards       integer           NOT NULL,
    expires_at   bigint            NOT NULL,
    draining     boolean           NOT NULL,
    version      text              NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE {schema}.partitions (
    partition       integer           PRIMARY KEY,
    owner           text COLLATE "C",
    epoch           bigint            NOT NULL DEFAULT 0,
    commit_lsn      bigint            NOT NULL DEFAULT 0,
    checkpoint_lsn  bigint            NOT NULL DEFAULT 0,
    barrier         bigint            NOT NULL DEFAULT 0
) WITH (
    fillfactor = 10,
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0
);

CREATE TABLE {schema}.checkpoints (
    partition  integer  PRIMARY KEY,
    state      bytea    NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE {schema}.journal (
    partition  integer  NOT NULL,
    lsn        bigint   NOT NULL,
    record     bytea    NOT NULL,
    PRIMARY KEY (partition, lsn)
) WITH (
    -- Rows live for a second or two, so dead ones are most of the table.
    autovacuum_vacuum_scale_factor = 0.1,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_threshold = -1,
    autovacuum_vacuum_cost_delay = 0,
    -- Giving the end of the file back would lock out every commit for a moment.
    vacuum_truncate = false,
    toast.autovacuum_vacuum_scale_factor = 0.1,
    toast.autovacuum_vacuum_threshold = 5000,
    toast.autovacuum_vacuum_cost_delay = 0,
    toast.vacuum_truncate = false
);

CREATE TABLE {schema}.instances (
    partition     integer           NOT NULL,
    instance_id   text COLLATE "C"  NOT NULL,
    execution_id  text COLLATE "C"  NOT NULL,
    name          text COLLATE "C"  NOT NULL,
    version       text COLLATE "C",
    status        text COLLATE "C"  NOT NULL,
    created_at    bigint            NOT NULL,
    updated_at    bigint            NOT NULL,
    completed_at  bigint,
    parent_id     text COLLATE "C",
    tags          jsonb,
    next_due      bigint,
    active        boolean           NOT NULL,
    state         bytea             NOT NULL,
    PRIMARY KEY (partition, instance_id)
) WITH (fillfactor = 85);

CREATE INDEX instances_listed ON {schema}.instances (created_at, instance_id);

CREATE INDEX instances_active ON {schema}.instances (partition, instance_id) WHERE active;

CREATE INDEX instances_due ON {schema}.instances (partition, next_due, instance_id)
    WHERE next_due IS NOT NULL;

CREATE TABLE {schema}.history (
    partition     integer           NOT NULL,
    instance_id   text COLLATE "C"  NOT NULL,
    execution_id  text COLLATE "C"  NOT NULL,
    seq           integer           NOT NULL,
    events        bytea             NOT NULL,
    PRIMARY KEY (partition, instance_id, execution_id, seq)
);
