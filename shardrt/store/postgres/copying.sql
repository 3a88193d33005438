-- Writing a whole hub into one that was never used, in one transaction. {schema} is quoted.

-- lock --
-- A host that comes meanwhile waits, and then finds other epochs than it has seen.
LOCK TABLE {schema}.hosts, {schema}.partitions, {schema}.instances IN ACCESS EXCLUSIVE MODE;

-- used --
-- Whether anybody has ever been here.
SELECT EXISTS (SELECT FROM {schema}.hosts)
    OR EXISTS (SELECT FROM {schema}.instances)
    OR EXISTS (SELECT FROM {schema}.partitions WHERE epoch % 1000000000 > 0);

-- checkpoints --
COPY {schema}.checkpoints (partition, state) FROM STDIN;

-- journal --
COPY {schema}.journal (partition, lsn, record) FROM STDIN;

-- instances --
COPY {schema}.instances (partition, instance_id, execution_id, name, version, status, created_at,
                         updated_at, completed_at, parent_id, tags, next_due, active, state)
FROM STDIN;

-- history --
COPY {schema}.history (partition, instance_id, execution_id, seq, events) FROM STDIN;

-- partition --
-- Epochs go on in the era of this server (see `store.base.ERA`).
UPDATE {schema}.partitions
   SET epoch = %(epoch)s %% 1000000000 + (SELECT era FROM {schema}.hub) * 1000000000::bigint,
       commit_lsn = %(commit_lsn)s,
       checkpoint_lsn = %(checkpoint_lsn)s
 WHERE partition = %(partition)s;

-- sizes --
-- Rows and bytes of each table.
SELECT 'checkpoints', count(*), coalesce(sum(length(state)), 0)::bigint FROM {schema}.checkpoints
 UNION ALL SELECT 'journal', count(*), coalesce(sum(length(record)), 0)::bigint
             FROM {schema}.journal
 UNION ALL SELECT 'instances', count(*), coalesce(sum(length(state)), 0)::bigint
             FROM {schema}.instances
 UNION ALL SELECT 'history', count(*), coalesce(sum(length(events)), 0)::bigint
             FROM {schema}.history;
