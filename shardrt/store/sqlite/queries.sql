-- All statements of the SQLite store. An operation that needs several runs them in one
-- BEGIN IMMEDIATE transaction; fencing is a condition of the first.

-- create_migrations --
CREATE TABLE IF NOT EXISTS migrations (
    version     INTEGER  PRIMARY KEY,
    applied_at  TEXT     NOT NULL DEFAULT CURRENT_TIMESTAMP
);

-- migrations --
-- What the file is at; newer than we know is refused.
SELECT coalesce(max(version), 0) FROM migrations;

-- migrated --
INSERT INTO migrations (version) VALUES (:version);

-- hub --
SELECT partitions, format, id FROM hub;

-- create_hub --
INSERT INTO hub (singleton, partitions, format, id)
VALUES (1, :partitions, :format, lower(hex(randomblob(16))))
RETURNING partitions, format, id;

-- create_partition --
INSERT INTO partitions (partition) VALUES (:partition);

-- renew --
-- Replaces an expired incarnation, not a live one.
INSERT INTO hosts (host_id, incarnation, address, shards, expires_at, draining, version)
VALUES (:host_id, :incarnation, :address, :shards, :now + :ttl, :draining, :version)
    ON CONFLICT (host_id) DO UPDATE
   SET incarnation = excluded.incarnation, address = excluded.address, shards = excluded.shards,
       expires_at = excluded.expires_at, draining = excluded.draining, version = excluded.version
 WHERE hosts.incarnation = excluded.incarnation OR hosts.expires_at <= :now;

-- sweep_hosts --
DELETE FROM hosts WHERE expires_at < :now - 3600000000;

-- hosts --
SELECT host_id, incarnation, address, shards, expires_at, draining, version
  FROM hosts
 ORDER BY host_id;

-- partitions --
SELECT partition, owner, epoch, commit_lsn, checkpoint_lsn FROM partitions ORDER BY partition;

-- claim --
-- Compare and swap. The lease decides who may try, the epoch who may write.
UPDATE partitions
   SET owner = :owner, epoch = epoch + 1
 WHERE partition = :partition
   AND epoch = :seen_epoch
   AND (owner IS NULL
        OR owner = :owner
        OR NOT EXISTS (
               SELECT 1 FROM hosts
                WHERE host_id || '/' || incarnation = partitions.owner AND expires_at > :now))
RETURNING epoch;

-- release --
-- Give a partition up, if the epoch is still ours.
UPDATE partitions SET owner = NULL WHERE partition = :partition AND epoch = :epoch;

-- owned --
SELECT partition, epoch FROM partitions WHERE owner = :owner ORDER BY partition;

-- leave --
-- Delete a host's row, unless another incarnation has replaced it.
DELETE FROM hosts WHERE host_id = :host_id AND incarnation = :incarnation;

-- fence_append --
UPDATE partitions
   SET commit_lsn = :lsn
 WHERE partition = :partition AND epoch = :epoch AND commit_lsn = :lsn - 1;

-- append --
INSERT INTO journal (partition, lsn, record) VALUES (:partition, :lsn, :record);

-- position --
SELECT epoch, commit_lsn FROM partitions WHERE partition = :partition;

-- read --
-- A page of a partition's journal.
SELECT lsn, record
  FROM journal
 WHERE partition = :partition AND lsn > :after
 ORDER BY lsn
 LIMIT :rows;

-- bounds --
SELECT epoch, checkpoint_lsn, commit_lsn FROM partitions WHERE partition = :partition;

-- fence_checkpoint --
UPDATE partitions
   SET checkpoint_lsn = :lsn
 WHERE partition = :partition
   AND epoch = :epoch
   AND :lsn BETWEEN checkpoint_lsn AND commit_lsn;

-- save_state --
INSERT INTO checkpoints (partition, state) VALUES (:partition, :state)
    ON CONFLICT (partition) DO UPDATE SET state = excluded.state;

-- delete_instance --
DELETE FROM instances WHERE partition = :partition AND instance_id = :instance_id;

-- delete_history --
DELETE FROM history WHERE partition = :partition AND instance_id = :instance_id;

-- reset_history --
-- Of executions other than the row's; none if there is no row.
DELETE FROM history
 WHERE partition = :partition
   AND instance_id = :instance_id
   AND execution_id <> (
           SELECT i.execution_id FROM instances AS i
            WHERE i.partition = :partition AND i.instance_id = :instance_id);

-- upsert_instance --
INSERT INTO instances
       (partition, instance_id, execution_id, name, version, status, created_at, updated_at,
        completed_at, parent_id, tags, next_due, active, state)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (partition, instance_id) DO UPDATE
   SET execution_id = excluded.execution_id, name = excluded.name, version = excluded.version,
       status = excluded.status, created_at = excluded.created_at,
       updated_at = excluded.updated_at, completed_at = excluded.completed_at,
       parent_id = excluded.parent_id, tags = excluded.tags, next_due = excluded.next_due,
       active = excluded.active, state = excluded.state;

-- upsert_history --
INSERT INTO history (partition, instance_id, execution_id, seq, events)
VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (partition, instance_id, execution_id, seq) DO UPDATE
   SET events = excluded.events;

-- truncate --
-- Never past the stored checkpoint.
DELETE FROM journal
 WHERE partition = :partition
   AND lsn <= :lsn
   AND lsn <= (SELECT p.checkpoint_lsn FROM partitions AS p WHERE p.partition = :partition);

-- head --
-- Where recovery starts.
SELECT p.epoch, p.commit_lsn, p.checkpoint_lsn, coalesce(c.state, x'')
  FROM partitions AS p
  LEFT JOIN checkpoints AS c ON c.partition = p.partition
 WHERE p.partition = :partition AND p.epoch = :epoch;

-- load --
-- Rows by key; the keys are a JSON array of [partition, instance_id]. (CROSS JOIN: in this order.)
SELECT instance_id, execution_id, name, version, status, created_at, updated_at, completed_at,
       parent_id, tags, next_due, active, state
  FROM json_each(:keys) AS wanted
 CROSS JOIN instances
    ON partition = json_extract(wanted.value, '$[0]') AND instance_id = json_extract(wanted.value, '$[1]');

-- active --
-- A page of the rows that recovery must look at.
SELECT instance_id, execution_id, name, version, status, created_at, updated_at, completed_at,
       parent_id, tags, next_due, active, state
  FROM instances
 WHERE partition = :partition AND active AND instance_id > :after
 ORDER BY instance_id
 LIMIT :rows;

-- due --
-- A page of timers.
SELECT next_due, instance_id
  FROM instances
 WHERE partition = :partition
   AND next_due IS NOT NULL
   AND (next_due, instance_id) > (:after_due, :after_id)
 ORDER BY next_due, instance_id
 LIMIT :rows;

-- history --
-- The chunks of executions; the keys are a JSON array of [partition, instance_id, execution_id].
SELECT instance_id, execution_id, seq, events
  FROM json_each(:keys) AS wanted
 CROSS JOIN history
    ON partition = json_extract(wanted.value, '$[0]') AND instance_id = json_extract(wanted.value, '$[1]')
   AND execution_id = json_extract(wanted.value, '$[2]')
 ORDER BY wanted.key, seq;

-- query --
-- A page of a list. (LIKE would ignore case here.)
SELECT instance_id, execution_id, name, version, status, created_at, updated_at, completed_at,
       parent_id, tags, next_due, active, state
  FROM instances
 WHERE (created_at, instance_id) > (:after_created, :after_id)
   AND (status = 'Entity') = :entities
   AND (status = 'Limit') = :limits
   AND (:status IS NULL OR status IN (SELECT value FROM json_each(:status)))
   AND (:name IS NULL OR name = :name)
   AND (:id_prefix IS NULL OR substr(instance_id, 1, length(:id_prefix)) = :id_prefix)
   AND (:created_from IS NULL OR created_at >= :created_from)
   AND (:created_to IS NULL OR created_at < :created_to)
   AND (:completed_from IS NULL OR completed_at >= :completed_from)
   AND (:completed_to IS NULL OR completed_at < :completed_to)
   AND (:tags IS NULL OR NOT EXISTS (
            SELECT 1 FROM json_each(:tags) AS wanted
             WHERE NOT EXISTS (
                       SELECT 1 FROM json_each(instances.tags) AS tag
                        WHERE tag.key = wanted.key AND tag.value = wanted.value)))
 ORDER BY created_at, instance_id
 LIMIT :rows;

-- count --
-- How many per status, under the same conditions.
SELECT status, count(*)
  FROM instances
 WHERE (status = 'Entity') = :entities
   AND (status = 'Limit') = :limits
   AND (:status IS NULL OR status IN (SELECT value FROM json_each(:status)))
   AND (:name IS NULL OR name = :name)
   AND (:id_prefix IS NULL OR substr(instance_id, 1, length(:id_prefix)) = :id_prefix)
   AND (:created_from IS NULL OR created_at >= :created_from)
   AND (:created_to IS NULL OR created_at < :created_to)
   AND (:completed_from IS NULL OR completed_at >= :completed_from)
   AND (:completed_to IS NULL OR completed_at < :completed_to)
   AND (:tags IS NULL OR NOT EXISTS (
            SELECT 1 FROM json_each(:tags) AS wanted
             WHERE NOT EXISTS (
                       SELECT 1 FROM json_each(instances.tags) AS tag
                        WHERE tag.key = wanted.key AND tag.value = wanted.value)))
 GROUP BY status;
