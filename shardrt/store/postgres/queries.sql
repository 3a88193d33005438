-- All statements of the PostgreSQL store. {schema} is the hub's schema, quoted.
--
-- One statement per operation: one round trip, one implicit transaction, so that no lock is
-- ever held while a client is away. Fencing is a condition of the same statement.
--
-- Statements of the commit connection (append, position, renew) number their parameters and
-- declare their types, since they are prepared by name; all others name theirs.
-- Database time is clock_timestamp() in microseconds.

-- session --
-- What every connection is set to, as far as this server knows the setting; and its moment
-- of birth. The server ends whatever a frozen client of ours would leave open.
SELECT set_config(wanted.name, wanted.setting, false),
       (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
  FROM (VALUES ('statement_timeout', '30s'),
               ('lock_timeout', '3s'),
               ('idle_in_transaction_session_timeout', '5s'),
               ('jit', 'off'),
               -- Half the server's CPU for a large record, compared with pglz or none.
               ('default_toast_compression', 'lz4'),
               ('default_transaction_isolation', 'read committed')
       ) AS wanted (name, setting)
  JOIN pg_catalog.pg_settings AS known
    ON known.name = wanted.name
   AND (known.enumvals IS NULL OR wanted.setting = ANY (known.enumvals));

-- prepare --
-- The commit connection's statements, planned once.
SET plan_cache_mode = force_generic_plan;
PREPARE shardrt_append (integer[], bigint[], bigint[], bytea[], bigint) AS {append};
PREPARE shardrt_position (integer, bigint, bigint) AS {position};
PREPARE shardrt_renew (text, text, text, integer, boolean, text, bigint) AS {renew};

-- append --
-- $1..$4 partitions, epochs, LSNs, records; $5 birth of this connection. The UPDATE locks the
-- partition's row: a claim waits for an append in flight, and an append for a claim, after
-- which it finds another epoch. (FOR KEY SHARE would not do: it lets them pass each other.)
WITH batch AS (
    SELECT *
      FROM unnest($1, $2, $3, $4) AS batch (partition, epoch, lsn, record)
), fenced AS (
    UPDATE {schema}.partitions AS p
       SET commit_lsn = batch.lsn
      FROM batch
     WHERE p.partition = batch.partition
       AND p.epoch = batch.epoch
       AND p.commit_lsn = batch.lsn - 1
       AND p.barrier <= $5
    RETURNING p.partition
)
INSERT INTO {schema}.journal (partition, lsn, record)
SELECT batch.partition, batch.lsn, batch.record
  FROM batch
  JOIN fenced ON fenced.partition = batch.partition
RETURNING partition;

-- position --
-- $1 partition; $2, $3 epoch and birth of this connection if an append under that epoch was
-- in flight on a lost one, else 0: no connection older than this may append any more. The
-- UPDATE waits for an append that the server is still at.
UPDATE {schema}.partitions
   SET barrier = CASE WHEN epoch = $2 THEN GREATEST(barrier, $3) ELSE barrier END
 WHERE partition = $1
RETURNING epoch, commit_lsn;

-- renew --
-- $1..$6 host_id, incarnation, address, shards, draining, version; $7 how long. Replaces an
-- expired incarnation, not a live one. A statement does not see its own writes: the answer
-- takes our row from `mine`, the others as they were. Null: we were replaced.
WITH clock AS MATERIALIZED (
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now
), mine AS (
    INSERT INTO {schema}.hosts AS h
           (host_id, incarnation, address, shards, expires_at, draining, version)
    SELECT $1, $2, $3, $4, clock.now + $7, $5, $6
      FROM clock
        ON CONFLICT (host_id) DO UPDATE
       SET incarnation = EXCLUDED.incarnation, address = EXCLUDED.address,
           shards = EXCLUDED.shards, expires_at = EXCLUDED.expires_at,
           draining = EXCLUDED.draining, version = EXCLUDED.version
     WHERE h.incarnation = EXCLUDED.incarnation
        OR h.expires_at <= EXCLUDED.expires_at - $7
    RETURNING h.*
), swept AS (
    DELETE FROM {schema}.hosts AS h
     USING clock
     WHERE h.host_id <> $1 AND h.expires_at < clock.now - 3600000000
    RETURNING h.host_id
)
SELECT json_build_object(
           'now', clock.now,
           'hosts', (
               SELECT json_agg(host ORDER BY host.host_id)
                 FROM (SELECT mine.* FROM mine
                       UNION ALL
                       SELECT h.*
                         FROM {schema}.hosts AS h
                        WHERE h.host_id <> $1 AND h.host_id NOT IN (SELECT host_id FROM swept)
                      ) AS host),
           'partitions', (
               SELECT json_agg(p ORDER BY p.partition) FROM {schema}.partitions AS p)
       )::text
  FROM clock
 WHERE EXISTS (SELECT FROM mine);

-- view --
-- Hosts, partitions and database time, without renewing.
SELECT json_build_object(
           'now', (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
           'hosts', COALESCE(
               (SELECT json_agg(h ORDER BY h.host_id) FROM {schema}.hosts AS h), '[]'),
           'partitions', COALESCE(
               (SELECT json_agg(p ORDER BY p.partition) FROM {schema}.partitions AS p), '[]')
       )::text;

-- claim --
-- Compare and swap. The lease decides who may try, the epoch who may write. The lock makes a
-- renewal of the old owner's lease and this claim wait for each other: who renews first is not
-- robbed, and who renews after sees the claim when it looks again.
WITH holder AS MATERIALIZED (
    SELECT h.expires_at
      FROM {schema}.hosts AS h
      JOIN {schema}.partitions AS q
        ON q.partition = %(partition)s AND h.host_id || '/' || h.incarnation = q.owner
     WHERE q.owner <> %(owner)s
       FOR SHARE OF h
)
UPDATE {schema}.partitions AS p
   SET owner = %(owner)s, epoch = p.epoch + 1, barrier = 0
 WHERE p.partition = %(partition)s
   AND p.epoch = %(seen_epoch)s
   AND (p.owner IS NULL
        OR p.owner = %(owner)s
        OR NOT EXISTS (
               SELECT FROM holder
                WHERE expires_at > (extract(epoch FROM clock_timestamp()) * 1000000)::bigint))
RETURNING p.epoch;

-- release --
-- Give a partition up, if the epoch is still ours.
UPDATE {schema}.partitions
   SET owner = NULL
 WHERE partition = %(partition)s AND epoch = %(epoch)s
RETURNING partition;

-- owned --
-- The partitions that an owner still has.
SELECT partition, epoch FROM {schema}.partitions WHERE owner = %(owner)s ORDER BY partition;

-- leave --
-- Delete a host's row, unless another incarnation has replaced it.
DELETE FROM {schema}.hosts WHERE host_id = %(host_id)s AND incarnation = %(incarnation)s;

-- read --
-- A page of a partition's journal.
SELECT lsn, record
  FROM {schema}.journal
 WHERE partition = %(partition)s AND lsn > %(after)s
 ORDER BY lsn
 LIMIT %(rows)s;

-- written --
-- What a checkpoint writes: a part of the two statements that follow.
row AS (
    SELECT *
      FROM unnest(%(instance_ids)s, %(execution_ids)s, %(names)s, %(versions)s, %(statuses)s,
                  %(created_ats)s, %(updated_ats)s, %(completed_ats)s, %(parent_ids)s,
                  %(tags)s, %(next_dues)s, %(actives)s, %(states)s)
           AS row (instance_id, execution_id, name, version, status, created_at, updated_at,
                   completed_at, parent_id, tags, next_due, active, state)
), chunk AS (
    SELECT *
      FROM unnest(%(chunk_ids)s, %(chunk_executions)s, %(chunk_seqs)s, %(chunk_events)s)
           AS chunk (instance_id, execution_id, seq, events)
), upserted AS (
    INSERT INTO {schema}.instances
           (partition, instance_id, execution_id, name, version, status, created_at, updated_at,
            completed_at, parent_id, tags, next_due, active, state)
    SELECT %(partition)s, instance_id, execution_id, name, version, status, created_at,
           updated_at, completed_at, parent_id, tags::jsonb, next_due, active, state
      FROM row
        ON CONFLICT (partition, instance_id) DO UPDATE
       SET execution_id = EXCLUDED.execution_id, name = EXCLUDED.name,
           version = EXCLUDED.version, status = EXCLUDED.status,
           created_at = EXCLUDED.created_at, updated_at = EXCLUDED.updated_at,
           completed_at = EXCLUDED.completed_at, parent_id = EXCLUDED.parent_id,
           tags = EXCLUDED.tags, next_due = EXCLUDED.next_due, active = EXCLUDED.active,
           state = EXCLUDED.state
    RETURNING 1
), added AS (
    INSERT INTO {schema}.history (partition, instance_id, execution_id, seq, events)
    SELECT %(partition)s, instance_id, execution_id, seq, events
      FROM chunk
        ON CONFLICT (partition, instance_id, execution_id, seq) DO UPDATE
       SET events = EXCLUDED.events
    RETURNING 1
), saved AS (
    INSERT INTO {schema}.checkpoints (partition, state)
    VALUES (%(partition)s, %(state)s)
        ON CONFLICT (partition) DO UPDATE SET state = EXCLUDED.state
    RETURNING 1
)

-- fenced --
-- How both take the partition's row, which appends wait for: after all else, because it counts
-- what the others wrote. How much that must be comes behind.
UPDATE {schema}.partitions
       SET checkpoint_lsn = %(lsn)s
     WHERE partition = %(partition)s
       AND epoch = %(epoch)s
       AND %(lsn)s BETWEEN checkpoint_lsn AND commit_lsn
       AND (SELECT count(*) FROM upserted) + (SELECT count(*) FROM added)
           + (SELECT count(*) FROM saved)

-- checkpoint --
-- Write everything, and only then take the partition's row. Nothing is kept if that refuses,
-- since then the statement divides by zero.
WITH {written}, fence AS (
    {fenced} > 0
    RETURNING 1
)
SELECT 1 / (SELECT count(*) FROM fence);

-- checkpoint_and_forget --
-- The same for one that also deletes. Most do not, and planning and starting what this has more
-- would be half of the server's work for a small one: it depends on the parameters, so the
-- server plans it each time.
-- All parts see the same snapshot and must not touch a row twice: an instance deleted and
-- created again is not in `gone` but overwritten, and chunks written now are not forgotten.
WITH {written}, reset AS (
    SELECT reset.instance_id,
           COALESCE(row.execution_id, i.execution_id) AS kept
      FROM unnest(%(resets)s) AS reset (instance_id)
      LEFT JOIN row ON row.instance_id = reset.instance_id
      LEFT JOIN {schema}.instances AS i
             ON i.partition = %(partition)s AND i.instance_id = reset.instance_id
), gone AS (
    DELETE FROM {schema}.instances
     WHERE partition = %(partition)s AND instance_id = ANY (%(gone)s)
    RETURNING 1
), forgotten AS (
    DELETE FROM {schema}.history AS h
     WHERE h.partition = %(partition)s
       AND h.instance_id = ANY (%(touched)s)
       AND (h.instance_id = ANY (%(deletes)s)
            OR EXISTS (SELECT FROM reset
                        WHERE reset.instance_id = h.instance_id
                          AND reset.kept <> h.execution_id))
       AND NOT EXISTS (SELECT FROM chunk
                        WHERE chunk.instance_id = h.instance_id
                          AND chunk.execution_id = h.execution_id
                          AND chunk.seq = h.seq)
    RETURNING 1
), fence AS (
    {fenced} + (SELECT count(*) FROM gone) + (SELECT count(*) FROM forgotten) > 0
    RETURNING 1
)
SELECT 1 / (SELECT count(*) FROM fence);

-- truncate --
-- Delete journal records that the stored checkpoint covers. Needs no lock on the partition:
-- checkpoint_lsn never goes back, so that what was covered in our snapshot is covered for
-- whoever owns the partition now. `after` is what was cut before: without it, each cut would
-- look at all rows that earlier ones have left dead, until they are vacuumed.
WITH fence AS (
    SELECT LEAST(%(lsn)s, checkpoint_lsn) AS lsn
      FROM {schema}.partitions
     WHERE partition = %(partition)s AND epoch = %(epoch)s
), deleted AS (
    DELETE FROM {schema}.journal AS j
     USING fence
     WHERE j.partition = %(partition)s AND j.lsn > %(after)s AND j.lsn <= fence.lsn
    RETURNING 1
)
SELECT (SELECT lsn FROM fence), (SELECT count(*) FROM deleted);

-- head --
-- Where recovery starts.
SELECT p.epoch, p.commit_lsn, p.checkpoint_lsn, COALESCE(c.state, '')
  FROM {schema}.partitions AS p
  LEFT JOIN {schema}.checkpoints AS c ON c.partition = p.partition
 WHERE p.partition = %(partition)s AND p.epoch = %(epoch)s;

-- bounds --
-- Why was a checkpoint refused?
SELECT epoch, commit_lsn, checkpoint_lsn
  FROM {schema}.partitions
 WHERE partition = %(partition)s;

-- load --
-- Rows by key. OFFSET 0 keeps the planner from looking for another way than the key, as it would
-- while the table is small: the plan is kept.
SELECT i.*
  FROM unnest(%(partitions)s, %(instance_ids)s) AS wanted (partition, instance_id)
 CROSS JOIN LATERAL (
           SELECT instance_id, execution_id, name, version, status, created_at, updated_at,
                  completed_at, parent_id, tags::text, next_due, active, state
             FROM {schema}.instances AS i
            WHERE i.partition = wanted.partition AND i.instance_id = wanted.instance_id
           OFFSET 0) AS i;

-- load_whole --
-- Rows by key, and of those that wait for something the history: a row for each chunk, of which
-- the first has the state.
SELECT i.instance_id, i.execution_id, i.name, i.version, i.status, i.created_at, i.updated_at,
       i.completed_at, i.parent_id, i.tags, i.next_due, i.active,
       CASE WHEN h.number > 1 THEN NULL ELSE i.state END,
       h.seq, h.events
  FROM unnest(%(partitions)s, %(instance_ids)s) AS wanted (partition, instance_id)
 CROSS JOIN LATERAL (
           SELECT instance_id, execution_id, name, version, status, created_at, updated_at,
                  completed_at, parent_id, tags::text, next_due, active, state
             FROM {schema}.instances AS i
            WHERE i.partition = wanted.partition AND i.instance_id = wanted.instance_id
           OFFSET 0) AS i
  LEFT JOIN LATERAL (
           SELECT seq, events, row_number() OVER (ORDER BY seq) AS number
             FROM {schema}.history AS h
            WHERE h.partition = wanted.partition
              AND h.instance_id = wanted.instance_id
              AND h.execution_id = i.execution_id
              AND i.completed_at IS NULL
              AND i.status <> 'Suspended'
            ORDER BY seq) AS h
    ON true;

-- active --
-- A page of the rows that recovery must look at.
SELECT instance_id, execution_id, name, version, status, created_at, updated_at, completed_at,
       parent_id, tags::text, next_due, active, state
  FROM {schema}.instances
 WHERE partition = %(partition)s AND active AND instance_id > %(after)s
 ORDER BY instance_id
 LIMIT %(rows)s;

-- due --
-- A page of timers.
SELECT next_due, instance_id
  FROM {schema}.instances
 WHERE partition = %(partition)s
   AND next_due IS NOT NULL
   AND (next_due, instance_id) > (%(after_due)s, %(after_id)s)
 ORDER BY next_due, instance_id
 LIMIT %(rows)s;

-- history --
-- The chunks of executions, those of one in order.
SELECT h.*
  FROM unnest(%(partitions)s, %(instance_ids)s, %(execution_ids)s)
       AS wanted (partition, instance_id, execution_id)
 CROSS JOIN LATERAL (
           SELECT instance_id, execution_id, seq, events
             FROM {schema}.history AS h
            WHERE h.partition = wanted.partition
              AND h.instance_id = wanted.instance_id
              AND h.execution_id = wanted.execution_id
            ORDER BY h.seq) AS h;

-- query --
-- A page of a list. Not prepared, so that absent conditions vanish from the plan.
SELECT instance_id, execution_id, name, version, status, created_at, updated_at, completed_at,
       parent_id, tags::text, next_due, active, state
  FROM {schema}.instances
 WHERE (created_at, instance_id) > (%(after_created)s, %(after_id)s)
   AND (status = 'Entity') = %(entities)s
   AND (status = 'Limit') = %(limits)s
   AND (%(status)s::text[] IS NULL OR status = ANY (%(status)s::text[]))
   AND (%(name)s::text IS NULL OR name = %(name)s::text)
   AND (%(id_prefix)s::text IS NULL
        OR left(instance_id, length(%(id_prefix)s::text)) = %(id_prefix)s::text)
   AND (%(created_from)s::bigint IS NULL OR created_at >= %(created_from)s::bigint)
   AND (%(created_to)s::bigint IS NULL OR created_at < %(created_to)s::bigint)
   AND (%(completed_from)s::bigint IS NULL OR completed_at >= %(completed_from)s::bigint)
   AND (%(completed_to)s::bigint IS NULL OR completed_at < %(completed_to)s::bigint)
   AND (%(tags)s::jsonb IS NULL OR tags @> %(tags)s::jsonb)
 ORDER BY created_at, instance_id
 LIMIT %(rows)s;

-- count --
-- How many per status, under the same conditions.
SELECT status, count(*)
  FROM {schema}.instances
 WHERE (status = 'Entity') = %(entities)s
   AND (status = 'Limit') = %(limits)s
   AND (%(status)s::text[] IS NULL OR status = ANY (%(status)s::text[]))
   AND (%(name)s::text IS NULL OR name = %(name)s::text)
   AND (%(id_prefix)s::text IS NULL
        OR left(instance_id, length(%(id_prefix)s::text)) = %(id_prefix)s::text)
   AND (%(created_from)s::bigint IS NULL OR created_at >= %(created_from)s::bigint)
   AND (%(created_to)s::bigint IS NULL OR created_at < %(created_to)s::bigint)
   AND (%(completed_from)s::bigint IS NULL OR completed_at >= %(completed_from)s::bigint)
   AND (%(completed_to)s::bigint IS NULL OR completed_at < %(completed_to)s::bigint)
   AND (%(tags)s::jsonb IS NULL OR tags @> %(tags)s::jsonb)
 GROUP BY status;

-- settings --
-- Settings that decide whether "committed" means "survives a crash".
SELECT name, setting
  FROM pg_catalog.pg_settings
 WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit');

-- identity --
-- Which data this is, and since which fail-over; not everywhere permitted. A server that was
-- promoted has a new timeline at once, but tells it of its checkpoints minutes later.
SELECT (SELECT system_identifier FROM pg_catalog.pg_control_system())::text
       || '/'
       || CASE WHEN pg_catalog.pg_is_in_recovery()
               THEN (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint())
               ELSE ('x' || left(pg_catalog.pg_walfile_name(
                               pg_catalog.pg_current_wal_insert_lsn()), 8))::bit(32)::bigint
          END;

-- begin_era --
-- Fence everything that was claimed on another server or timeline. A commit connection starts
-- with this: whoever comes first does it, and nobody appends before it is done. The fail-over
-- may have lost the era of an earlier one, but numbers of timelines grow with each.
WITH changed AS (
    UPDATE {schema}.hub
       SET identity = %(identity)s,
           era = CASE WHEN identity = '' THEN era
                      ELSE GREATEST(era + 1, split_part(%(identity)s, '/', 2)::integer)
                 END
     WHERE identity <> %(identity)s
    RETURNING era
)
UPDATE {schema}.partitions
   SET epoch = epoch %% 1000000000 + changed.era * 1000000000::bigint, barrier = 0
  FROM changed
 WHERE epoch / 1000000000 < changed.era;

-- schema_exists --
SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = %(schema)s);

-- create_schema --
CREATE SCHEMA IF NOT EXISTS {schema};

-- create_migrations --
CREATE TABLE IF NOT EXISTS {schema}.migrations (
    version     integer      PRIMARY KEY,
    applied_at  timestamptz  NOT NULL DEFAULT now()
);

-- lock_migrations --
-- One creator at a time; the others wait and find the work done.
LOCK TABLE {schema}.migrations IN EXCLUSIVE MODE;

-- migrations --
-- What the schema is at; newer than we know is refused.
SELECT COALESCE(max(version), 0) FROM {schema}.migrations;

-- migrated --
INSERT INTO {schema}.migrations (version) VALUES (%(version)s);

-- create_hub --
INSERT INTO {schema}.hub (partitions, format)
VALUES (%(partitions)s, %(format)s)
    ON CONFLICT DO NOTHING
RETURNING partitions;

-- create_partitions --
INSERT INTO {schema}.partitions (partition)
SELECT generate_series(0, %(partitions)s - 1);

-- hub --
SELECT partitions, format, id FROM {schema}.hub;

-- outcome --
-- The outcome of a transactional activity, if one is committed.
SELECT outcome
  FROM {schema}.outcomes
 WHERE partition = %(partition)s AND instance_id = %(instance_id)s
   AND execution_id = %(execution_id)s AND task_id = %(task_id)s;

-- claim_outcome --
-- Wait for whoever is about to commit this outcome; to be rolled back.
INSERT INTO {schema}.outcomes (partition, instance_id, execution_id, task_id, outcome)
VALUES (%(partition)s, %(instance_id)s, %(execution_id)s, %(task_id)s, '')
    ON CONFLICT DO NOTHING;

-- commit_outcome --
-- The last statements of an activity's transaction, sent as one. The partition's row is locked
-- only from here to the commit: a claim that comes first makes this divide by zero, a claim that
-- comes later waits for the commit. The driver believes that its transaction is still open, and
-- it is given an empty one.
INSERT INTO {schema}.outcomes (partition, instance_id, execution_id, task_id, outcome)
VALUES (%(partition)s, %(instance_id)s, %(execution_id)s, %(task_id)s, %(outcome)s);
SELECT 1 / count(*)
  FROM (SELECT FROM {schema}.partitions
         WHERE partition = %(partition)s AND epoch = %(epoch)s
           FOR SHARE) AS fence;
COMMIT;
BEGIN;

-- outcomes --
-- All of a partition.
SELECT partition, instance_id, execution_id, task_id
  FROM {schema}.outcomes
 WHERE partition = %(partition)s;

-- forget_outcomes --
DELETE FROM {schema}.outcomes AS o
 USING unnest(%(partitions)s::integer[], %(instance_ids)s::text[], %(execution_ids)s::text[],
              %(task_ids)s::integer[]) AS gone (partition, instance_id, execution_id, task_id)
 WHERE o.partition = gone.partition AND o.instance_id = gone.instance_id
   AND o.execution_id = gone.execution_id AND o.task_id = gone.task_id;
