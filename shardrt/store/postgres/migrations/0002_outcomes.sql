--   outcomes     results of transactional activities, each committed by the transaction in which
--                the activity wrote, until a checkpoint of the partition has it

CREATE TABLE {schema}.outcomes (
    partition     integer           NOT NULL,
    instance_id   text COLLATE "C"  NOT NULL,
    execution_id  text COLLATE "C"  NOT NULL,
    task_id       integer           NOT NULL,
    outcome       bytea             NOT NULL,
    PRIMARY KEY (partition, instance_id, execution_id, task_id)
) WITH (
    -- Rows live for a second or two, so dead ones are most of the table.
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0
);
