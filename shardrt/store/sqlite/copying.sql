-- Reading a whole hub, table by table, while nobody else may write to the file.

-- live --
-- Hosts that still hold their lease.
SELECT host_id FROM hosts WHERE expires_at > :now ORDER BY host_id;

-- partitions --
SELECT partition, epoch, commit_lsn, checkpoint_lsn FROM partitions ORDER BY partition;

-- fence --
-- As a claim does: who owned a partition can write no more.
UPDATE partitions SET epoch = epoch + 1, owner = NULL;

-- checkpoints --
SELECT partition, state FROM checkpoints;

-- journal --
SELECT partition, lsn, record FROM journal;

-- instances --
SELECT partition, instance_id, execution_id, name, version, status, created_at, updated_at,
       completed_at, parent_id, tags, next_due, active, state
  FROM instances;

-- history --
SELECT partition, instance_id, execution_id, seq, events FROM history;

-- sizes --
-- Rows and bytes of each table: what must be there afterwards.
SELECT 'checkpoints', count(*), coalesce(sum(length(state)), 0) FROM checkpoints
 UNION ALL SELECT 'journal', count(*), coalesce(sum(length(record)), 0) FROM journal
 UNION ALL SELECT 'instances', count(*), coalesce(sum(length(state)), 0) FROM instances
 UNION ALL SELECT 'history', count(*), coalesce(sum(length(events)), 0) FROM history;
