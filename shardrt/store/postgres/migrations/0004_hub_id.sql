--   hub
--     id   tells hubs apart, also those with the same number of partitions

ALTER TABLE {schema}.hub ADD COLUMN id text NOT NULL DEFAULT gen_random_uuid()::text;
