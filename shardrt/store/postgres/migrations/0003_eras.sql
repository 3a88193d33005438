--   hub
--     identity   the server's data and timeline that the hub was last written on: a server whose
--                own is another one was restored, or promoted to be the primary
--     era        grows each time that happens; every epoch begins with it (see `store.base.ERA`)

ALTER TABLE {schema}.hub
    ADD COLUMN identity  text     NOT NULL DEFAULT '',
    ADD COLUMN era       integer  NOT NULL DEFAULT 0;
